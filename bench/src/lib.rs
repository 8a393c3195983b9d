//! The loader measured against the limits of the service.
//!
//! [`ceiling`] runs the real budget policy in simulated time against the emulator's law of the
//! service, and an oracle that sees the true counters in its place. Same seed, same events, so every
//! figure can be had again. Left out: the demo and the local costs of a load (other benchmarks).

mod ceiling;
mod client;
mod scenario;
mod service;
mod world;

pub use ceiling::{Ceiling, ceiling, ceilings};
pub use client::Paced;
pub use scenario::Scenario;
pub use world::{Span, Tally};

/// Why a benchmark does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the emulator's profile does not parse: {0}")]
    Profile(String),
}
