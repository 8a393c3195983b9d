//! The benchmarks by name, with what they can be told.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::load::Target;
use crate::process::{Place, serve};
use crate::scenario::Scenario;
use crate::{Error, SEEDS, SPAN, against_fixed, ceilings, figures, first_load, hour, load, over_http, read};

#[derive(Debug, clap::Parser)]
#[command(about = "The loader measured against the limits of the service; figures are JSON on standard output")]
pub struct Arguments {
    #[command(subcommand)]
    pub benchmark: Benchmark,
    /// Accepted and of no effect: figures are always JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Benchmark {
    /// The budget against an oracle, ten scenarios, in simulated time
    Ceiling {
        /// Seeds of the runs; the published figures are those of the defaults
        #[arg(long, value_delimiter = ',', default_values_t = SEEDS)]
        seeds: Vec<u64>,
    },
    /// The budget against the best fixed setting, in simulated time
    Fixed,
    /// A first load against tools at their usual settings, in simulated time
    FirstLoad,
    /// The loader over HTTP at time scale 10, beside the simulation
    Http {
        /// One scenario alone: `steady`, `slow_servers` or `server_restarts`
        scenario: Option<String>,
        /// Write one line for each request, and recompute the figures from them
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// A load and interactive callers on one connection, over HTTP, in real time
    Hour {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value_t = 3_600)]
        seconds: u64,
    },
    /// Rows of ten columns into an emulator that runs already
    Load {
        #[command(flatten)]
        target: Target,
    },
    /// Figures of a file that a recorder wrote
    Windows { file: PathBuf },
    /// An emulator, perhaps with a recorder before it, until standard input ends
    Emulator {
        #[command(flatten)]
        place: Place,
    },
}

/// The scenarios that exist over HTTP.
const OVER_HTTP: [Scenario; 3] = [Scenario::Steady, Scenario::SlowServers, Scenario::ServerRestarts];

impl Benchmark {
    /// Runs it. The figures; nothing for a command that measures nothing.
    pub async fn run(&self, print: impl Fn(&str)) -> Result<Option<Value>, Error> {
        let (name, figures) = match self {
            Self::Ceiling { seeds } => ("ceiling", serde_json::to_value(ceilings(SPAN, seeds)?)?),
            Self::Fixed => ("fixed", fixed()?),
            Self::FirstLoad => {
                let figures = json!({ "one_server": first_load(1, 1)?, "four_servers": first_load(4, 1)? });
                ("first_load", figures)
            }
            Self::Http { scenario, record } => {
                let mut all = serde_json::Map::new();
                for scenario in scenarios(scenario.as_deref())? {
                    let figures = over_http(scenario, record.as_deref()).await?;
                    all.insert(scenario.name().to_owned(), serde_json::to_value(figures)?);
                }
                ("http", all.into())
            }
            Self::Hour { place, seconds } => ("hour", serde_json::to_value(hour(place, *seconds).await?)?),
            Self::Load { target } => ("load", serde_json::to_value(load(target).await?)?),
            Self::Windows { file } => ("windows", serde_json::to_value(figures(&read(file)?))?),
            Self::Emulator { place } => {
                serve(place, print).await?;
                return Ok(None);
            }
        };
        Ok(Some(json!({ "bench": name, "figures": figures })))
    }
}

fn fixed() -> Result<Value, Error> {
    Ok(json!({
        "steady": against_fixed(Scenario::Steady, SPAN, &SEEDS)?,
        "slow_servers": against_fixed(Scenario::SlowServers, SPAN, &SEEDS)?,
    }))
}

fn scenarios(name: Option<&str>) -> Result<Vec<Scenario>, Error> {
    let Some(name) = name else { return Ok(OVER_HTTP.to_vec()) };
    match OVER_HTTP.iter().find(|scenario| scenario.name() == name) {
        Some(scenario) => Ok(vec![*scenario]),
        None => Err(Error::Unknown(name.to_owned())),
    }
}
