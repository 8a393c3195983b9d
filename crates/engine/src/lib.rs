//! One flow run: extract, stage, transform, diff, load.
