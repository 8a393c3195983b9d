//! `http`: the whole loader over HTTP against the emulator as a process of its own, beside the same
//! run in simulated time.
//!
//! Four servers with the documented limits, no interactive callers, time scale 10. Scenarios: steady,
//! slow servers, restarts. The two must agree within 3 %. With a recorder the figures are also
//! recomputed from what it wrote, and compared with what the emulator counted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flowgate_core::Clock;
use flowgate_core::Destination;
use flowgate_http::SystemClock;
use serde::Serialize;

use crate::Error;
use crate::client::Paced;
use crate::loader::{Loader, names, of_ready};
use crate::process::{Counted, Place, Process};
use crate::scenario::{Scenario, Step};
use crate::windows::{Recorded, figures, read, write};
use crate::world::{Load, Span, World};

const TIME_SCALE: f64 = 10.0;

/// Two windows after the first: enough for the pace to be the steady one.
const HTTP_SPAN: Span = Span { from_s: 300.0, to_s: 900.0 };

/// How often the scenario's next step is looked for, in real time.
const TICK: Duration = Duration::from_millis(50);

/// One scenario both ways.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverHttp {
    pub rows_per_s: f64,
    pub simulated_rows_per_s: f64,
    pub http_to_simulated: f64,
    pub requests: u64,
    pub throttled: u64,
    /// Rows of requests that were cut, of which the loader does not know in the end whether they are there.
    pub ambiguous: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedBeside>,
}

/// What a recorder between the two saw, beside what the emulator counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedBeside {
    pub recorded: Recorded,
    pub counted: Counted,
    pub busy_recorded_to_counted: f64,
}

/// Loads over HTTP and in simulation.
pub async fn over_http(scenario: Scenario, record: Option<&Path>) -> Result<OverHttp, Error> {
    let mut paced = Paced::new(1);
    let load = Load { has_batches: true, has_interactive: false, rows: None };
    let (world, steps) = World::with_documented_limits(scenario, 1, HTTP_SPAN, load, &mut paced)?;
    let seconds = HTTP_SPAN.to_s - HTTP_SPAN.from_s;
    let simulated = world.recorded().run();
    if let Some(path) = record {
        write(&of_scenario(path, scenario, "simulated-"), &simulated.lines)?;
    }
    let simulated = simulated.rows as f64 / seconds;
    let record: Option<PathBuf> = record.map(|path| of_scenario(path, scenario, ""));
    let place = Place { servers: 4, time_scale: TIME_SCALE, tls: false, record: record.clone() };
    let process = Process::start(&place).await?;
    let mut measured = load_over_http(&process, &steps).await?;
    if let Some(path) = record {
        let (recorded, counted) = (figures(&read(&path)?), process.control()?.counted().await?);
        let busy_recorded_to_counted = recorded.busy_s / counted.busy_s.max(1e-9);
        measured.recorded = Some(RecordedBeside { recorded, counted, busy_recorded_to_counted });
    }
    process.stop().await?;
    let rows_per_s = measured.rows_per_s;
    Ok(OverHttp { simulated_rows_per_s: simulated, http_to_simulated: rows_per_s / simulated, ..measured })
}

/// `figures.jsonl` as `figures-steady.jsonl` and `figures-simulated-steady.jsonl`.
fn of_scenario(path: &Path, scenario: Scenario, prefix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{prefix}{}.{extension}", scenario.name()))
}

async fn load_over_http(process: &Process, steps: &[(f64, Step)]) -> Result<OverHttp, Error> {
    let ready = &process.ready;
    let mut loader = Loader::connect(of_ready(ready), TIME_SCALE, "contact", names).await?;
    let control = process.control()?;
    let clock = SystemClock::new(TIME_SCALE);
    let now_s = || clock.elapsed().0.as_secs_f64();
    let mut steps = steps.iter().peekable();
    let (mut rows, mut ambiguous) = (0, 0);
    while now_s() < HTTP_SPAN.to_s {
        while let Some((_, step)) = steps.next_if(|(at_s, _)| *at_s <= now_s()) {
            control.apply(*step).await?;
        }
        loader.begin(u64::MAX)?;
        let Ok(ended) = tokio::time::timeout(TICK, loader.next()).await else { continue };
        let Some(ends) = ended? else { continue };
        let is_measured = now_s() >= HTTP_SPAN.from_s && now_s() <= HTTP_SPAN.to_s;
        rows += if is_measured { ends.applied } else { 0 };
        ambiguous += ends.ambiguous;
    }
    let requests = loader.dataverse.requests();
    Ok(OverHttp {
        rows_per_s: rows as f64 / (HTTP_SPAN.to_s - HTTP_SPAN.from_s),
        simulated_rows_per_s: 0.0,
        http_to_simulated: 0.0,
        requests: requests.sent,
        throttled: requests.throttled,
        ambiguous,
        recorded: None,
    })
}
