//! The loader measured against the limits of the service.
//!
//! [`ceiling()`] runs the real budget policy in simulated time against the emulator's law of the
//! service, and an oracle that sees the true counters in its place; [`against_fixed`] and
//! [`first_load`] compare with tools of fixed settings. Same seed, same events, so every
//! figure can be had again. Left out: the demo and the local costs of a load (other benchmarks).

mod ceiling;
mod client;
mod fixed;
mod over_http;
mod scenario;
mod service;
mod world;

pub use ceiling::{Ceiling, ceiling, ceilings};
pub use fixed::{AgainstFixed, FirstLoad, against_fixed, first_load};
pub use over_http::{OverHttp, over_http, serve};
pub use scenario::Scenario;
pub use world::{Span, Tally};

/// Why a benchmark does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the emulator's profile does not parse: {0}")]
    Profile(String),
    #[error("there is no benchmark `{0}`: use `ceiling`, `fixed`, `first_load` or `http`")]
    Unknown(String),
    #[error("the emulator's process: {0}")]
    Emulator(String),
    #[error("the emulator's process does not run")]
    Io(#[from] std::io::Error),
    #[error("rows cannot be made")]
    Rows(#[from] arrow_schema::ArrowError),
    #[error(transparent)]
    Load(#[from] flowgate_core::ConnectorError),
    #[error("figures cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// The measured part of a run, and the seeds of the published figures.
pub const SPAN: Span = Span { from_s: 300.0, to_s: 3_900.0 };
pub const SEEDS: [u64; 3] = [1, 2, 3];

/// A benchmark by its name: its figures as one JSON object.
pub async fn run(name: &str) -> Result<serde_json::Value, Error> {
    let figures = match name {
        "ceiling" => serde_json::to_value(ceilings(SPAN, &SEEDS)?)?,
        "fixed" => serde_json::json!({
            "steady": against_fixed(Scenario::Steady, SPAN, &SEEDS)?,
            "slow_servers": against_fixed(Scenario::SlowServers, SPAN, &SEEDS)?,
        }),
        "first_load" => serde_json::json!({ "one_server": first_load(1, 1)?, "four_servers": first_load(4, 1)? }),
        "http" => serde_json::json!({
            "steady": over_http(Scenario::Steady).await?,
            "slow_servers": over_http(Scenario::SlowServers).await?,
            "server_restarts": over_http(Scenario::ServerRestarts).await?,
        }),
        other => return Err(Error::Unknown(other.to_owned())),
    };
    Ok(serde_json::json!({ "bench": name, "figures": figures }))
}
