//! Runs of flows against a source and a destination held in memory: what the engine promises,
//! whatever the connectors are.

mod fake;
mod letters;
mod lookups;
mod plan;
mod resume;
mod run;
