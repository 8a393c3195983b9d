//! The loader measured against the limits of the service.
//!
//! [`ceiling()`] runs the real budget policy in simulated time against the emulator's law of the
//! service, and an oracle that sees the true counters in its place; [`against_fixed`] and
//! [`first_load`] compare with tools of fixed settings. Same seed, same events, so every
//! figure can be had again. [`over_http`] and [`hour()`] run the whole loader against the emulator as
//! a process of its own, with a recorder between the two if one is wanted ([`figures`]). Left out: the
//! demo and the local costs of a load (other benchmarks).

mod ceiling;
mod client;
mod command;
mod fixed;
mod hour;
mod load;
mod loader;
mod over_http;
mod process;
mod quantile;
mod recorder;
mod scenario;
mod service;
mod windows;
mod world;

pub use ceiling::{Ceiling, ceiling, ceilings};
pub use command::{Arguments, Benchmark};
pub use fixed::{AgainstFixed, BestFixed, FirstLoad, against_fixed, first_load};
pub use hour::{Hour, hour};
pub use load::{Loaded, Target, load};
pub use over_http::{OverHttp, RecordedBeside, over_http};
pub use process::{Counted, Place};
pub use quantile::Quantiles;
pub use recorder::{Line, LineClass, Recorder};
pub use scenario::Scenario;
pub use windows::{LaneFigures, Recorded, WindowFigures, figures, read};
pub use world::{Span, Tally};

/// Why a benchmark does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the emulator's profile does not parse: {0}")]
    Profile(String),
    #[error("there is no scenario `{0}` over HTTP: use `steady`, `slow_servers` or `server_restarts`")]
    Unknown(String),
    #[error("the emulator's process: {0}")]
    Emulator(String),
    #[error("a sweep without settings has no best one")]
    NoSetting,
    #[error("{0} rows were not loaded")]
    NotLoaded(u64),
    #[error("a file or a process cannot be used: {0}")]
    Io(#[from] std::io::Error),
    #[error("rows cannot be made")]
    Rows(#[from] arrow_schema::ArrowError),
    #[error(transparent)]
    Load(#[from] flowgate_core::ConnectorError),
    #[error("figures cannot be written or read as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The measured part of a run, and the seeds of the published figures.
pub const SPAN: Span = Span { from_s: 300.0, to_s: 3_900.0 };
pub const SEEDS: [u64; 3] = [1, 2, 3];
