//! Runs of flows against a source and a destination held in memory: what the engine promises,
//! whatever the connectors are.

#![expect(clippy::unwrap_used, reason = "a broken fixture should fail its test on the spot")]

mod adopt;
mod endings;
mod fake;
mod letters;
mod lookups;
mod plan;
mod resume;
mod run;
mod streams;
