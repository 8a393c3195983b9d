//! Durable state of runs, loads and letters behind one trait.
