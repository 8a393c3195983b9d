//! The same rows row by row: what the service model makes of a client that does not load in bulk.
//!
//! A sample is created by plain single requests, one at a time and 16 at a time, in an emulator of its
//! own: the same profile, an empty first window, and a clock that is not scaled, so that no time of
//! this machine is counted more than once. The sample's time is scaled to all rows, although limits
//! would slow a longer single-row load further. The bulk load's time is scaled by the clock instead,
//! and so counts this machine's own work against it.

use std::sync::Arc;

use flowgate_core::{Clock, Project};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::day::Day;
use super::outcome::Checks;
use super::read_back::ReadBack;
use super::{CONNECTION, connection_name};
use crate::cli::{App, provision};
use crate::failure::Failure;
use crate::render::number::{count, of_seconds};
use crate::render::table::{Align, Cell, Table};
use crate::render::{Paint, Tone};
use crate::wiring::OpenConnections;

pub(crate) const SAMPLE_ROWS_MAX: usize = SINGLE_ROWS + PARALLEL_ROWS;
const SINGLE_ROWS: usize = 60;
const PARALLEL_ROWS: usize = 960;
const PARALLEL: usize = 16;
/// What the bulk load may take of the others' time, in per cent.
const SINGLE_PERCENT_MAX: f64 = 3.0;
const PARALLEL_PERCENT_MAX: f64 = 15.0;

#[derive(Debug, Default)]
struct Sample {
    rows: usize,
    seconds: f64,
}

impl Sample {
    /// The seconds that all rows would take.
    fn scaled(&self, rows: u64) -> f64 {
        self.seconds / self.rows.max(1) as f64 * rows as f64
    }
}

#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Assets created on the first day, and the service seconds of their load.
    rows: u64,
    bulk_service_s: f64,
    /// Cases whose status was set, and the service seconds of that.
    closed: u64,
    close_service_s: f64,
    single: Sample,
    parallel: Sample,
}

impl Comparison {
    pub(crate) fn of_bulk(days: &[Day], time_scale: f64) -> Self {
        let Some(first) = days.first() else { return Self::default() };
        let service_s = |record: Option<&flowgate_store::RunRecord>, phase: &str| {
            record.and_then(|record| record.seconds.get(phase)).copied().unwrap_or_default() * time_scale
        };
        Self {
            rows: first.assets().map(|record| record.rows().created).unwrap_or_default(),
            bulk_service_s: service_s(first.assets(), "load"),
            closed: first.closed,
            close_service_s: service_s(first.record("enquiries"), "state"),
            ..Self::default()
        }
    }

    /// Creates the samples in an emulator whose clock runs like ours.
    pub(crate) async fn measure(
        &mut self,
        app: &App,
        project: &Project,
        mut bodies: Vec<Value>,
    ) -> Result<(), Failure> {
        let project = Arc::new(with_own_emulator(project)?);
        let connections = OpenConnections::new(Arc::clone(&project), Arc::clone(&app.clock));
        for missing in provision::find_missing(&project, &connections).await? {
            provision::create(&missing, &|_| ()).await?;
        }
        let Some(emulation) = connections.emulation(SINGLE_CONNECTION).await? else { return Ok(()) };
        let client = ReadBack::of(&emulation.ready)?;
        let parallel = bodies.split_off(bodies.len().min(SINGLE_ROWS));
        self.single = create_all(app.clock.as_ref(), &client, bodies, 1).await?;
        self.parallel = create_all(app.clock.as_ref(), &client, parallel, PARALLEL).await?;
        Ok(())
    }

    pub(crate) fn check(&self, checks: &mut Checks) {
        let (single, parallel) = (self.percent_of(&self.single), self.percent_of(&self.parallel));
        checks.add_at_most("bulk load, of the time of one row at a time", SINGLE_PERCENT_MAX, single);
        checks.add_at_most("bulk load, of the time of 16 rows at a time", PARALLEL_PERCENT_MAX, parallel);
    }

    fn percent_of(&self, sample: &Sample) -> f64 {
        self.bulk_service_s * 100.0 / sample.scaled(self.rows)
    }

    pub(crate) fn text(&self, paint: Paint) -> String {
        let head = paint.strong(format!("{} assets through the same service model", count(self.rows)));
        let columns = [("", Align::Left), ("service_s", Align::Right), ("bulk takes", Align::Right), ("", Align::Left)];
        let mut table = Table::new(&columns);
        let row = |name: &str, seconds: f64, percent: Option<f64>, note: String| {
            let percent = percent.map(|percent| format!("{percent:.1} % of it")).unwrap_or_default();
            vec![
                Cell::new(name),
                Cell::new(format!("{seconds:.1}")),
                Cell::new(percent),
                Cell::toned(Tone::Faint, note),
            ]
        };
        let note =
            |sample: &Sample| format!("{} rows in {}, scaled", count(sample.rows as u64), of_seconds(sample.seconds));
        table.row(row("in bulk, by Flowgate", self.bulk_service_s, None, String::new()));
        let (single, parallel) = (&self.single, &self.parallel);
        table.row(row("one at a time", single.scaled(self.rows), Some(self.percent_of(single)), note(single)));
        table.row(row("16 at a time", parallel.scaled(self.rows), Some(self.percent_of(parallel)), note(parallel)));
        let close = format!(
            "apart from any load: {} cases brought to their status (CloseIncident) in {:.1} service_s",
            count(self.closed),
            self.close_service_s
        );
        format!("\n{head}\n{}\n  {}", table.render("  ", paint), paint.faint(close))
    }

    pub(crate) fn to_json(&self) -> Value {
        let sample = |sample: &Sample| {
            json!({
                "sample_rows": sample.rows, "sample_service_s": sample.seconds,
                "service_s": sample.scaled(self.rows), "bulk_percent": self.percent_of(sample),
            })
        };
        json!({
            "rows": self.rows,
            "bulk": { "service_s": self.bulk_service_s },
            "one_at_a_time": sample(&self.single),
            "sixteen_at_a_time": sample(&self.parallel),
            "close": { "rows": self.closed, "service_s": self.close_service_s },
        })
    }
}

const SINGLE_CONNECTION: &str = "row_by_row";

/// The project with one more connection, to which its asset table belongs.
fn with_own_emulator(project: &Project) -> Result<Project, Failure> {
    let mut project = project.clone();
    let name = connection_name(SINGLE_CONNECTION)?;
    if let Some(mut connection) = project.connections.get(CONNECTION).cloned() {
        connection.name = name.clone();
        connection.settings["emulator"] = json!({ "profile": "realistic" });
        project.connections.insert(name.clone(), connection);
    }
    project.tables.retain(|table| table.table == "wr_asset");
    project.tables.iter_mut().for_each(|table| table.connection = name.clone());
    Ok(project)
}

async fn create_all(
    clock: &dyn Clock,
    client: &ReadBack,
    bodies: Vec<Value>,
    at_once: usize,
) -> Result<Sample, Failure> {
    let rows = bodies.len();
    let started = clock.elapsed();
    let requests = stream::iter(bodies).map(|body| async move { client.create("wr_assets", &body).await });
    requests.buffer_unordered(at_once).try_collect::<Vec<()>>().await?;
    Ok(Sample { rows, seconds: clock.elapsed().since(started).as_secs_f64() })
}
