//! `flowgate runs`: what ran, newest first.

use clap::Args;
use flowgate_store::{RunRecord, RunState};
use serde_json::{Value, json};

use super::{App, Ended, flow_named};
use crate::exit::Exit;
use crate::render::number::of_seconds;
use crate::render::progress::outcome_text;
use crate::render::table::{Align, Cell, Table};
use crate::render::{Tone, json, summary};

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Only runs of this flow
    #[arg(value_name = "FLOW")]
    flow: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
}

impl Runs {
    pub(crate) fn run(self, app: &App) -> Ended {
        let wiring = app.open()?;
        let flow = self.flow.map(|name| flow_named(&wiring.project, &name)).transpose()?;
        let runs = wiring.store.runs(flow.as_ref(), usize::from(self.limit))?;
        let environment = wiring.project.environment.as_str();
        let values: Vec<Value> = runs.iter().map(|record| json::run(record, environment)).collect();
        app.printer.json(&json!({ "runs": values }));
        if runs.is_empty() {
            app.printer.answer("no run yet: `flowgate run FLOW` makes one");
            return Ok(Exit::Complete);
        }
        // Ids are for scripts: `--json` has them.
        let columns = [
            ("started", Align::Left),
            ("flow", Align::Left),
            ("state", Align::Left),
            ("time", Align::Right),
            ("rows", Align::Left),
        ];
        let mut table = Table::new(&columns);
        for record in &runs {
            table.row(cells(record));
        }
        app.printer.answer(table.render("", app.printer.out));
        Ok(Exit::Complete)
    }
}

fn cells(record: &RunRecord) -> Vec<Cell> {
    let total = record.seconds.get("total").copied().unwrap_or_default();
    vec![
        Cell::new(moment(record.started)),
        Cell::new(record.flow.as_str()),
        Cell::toned(tone(record.state), summary::state_text(record.state)),
        Cell::new(of_seconds(total)),
        Cell::new(outcome_text(&record.rows())),
    ]
}

pub(crate) fn tone(state: RunState) -> Tone {
    match state {
        RunState::Complete => Tone::Good,
        RunState::Running | RunState::CompleteWithLetters | RunState::Interrupted => Tone::Careful,
        RunState::StoppedByGuard | RunState::Failed => Tone::Bad,
        RunState::Abandoned => Tone::Faint,
    }
}

/// Date and time in UTC, to the second.
pub(crate) fn moment(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
