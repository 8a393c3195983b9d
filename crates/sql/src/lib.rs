//! The DataFusion session: sandbox, limits, functions.
