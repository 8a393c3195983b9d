//! One day: all flows, then what they made, counted and read back.

use std::collections::BTreeSet;

use flowgate_core::{FlowName, LoadRows};
use flowgate_engine::RunOptions;
use flowgate_store::RunRecord;
use serde_json::{Value, json};

use super::known::Known;
use super::outcome::Checks;
use super::read_back::ReadBack;
use crate::cli::App;
use crate::cli::run::{self, FlowEnd};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::number::counted;
use crate::render::progress::outcome_text;
use crate::render::table::{Align, Cell, Table};
use crate::render::{Paint, Tone, json as shapes, summary};
use crate::wiring::Wiring;

/// The flow of the asset register, its load, and the table it fills.
const ASSETS_FLOW: &str = "assets";
const ASSETS_LOAD: &str = "register";
const ASSETS_TABLE: &str = "wr_asset";
const CASES_TABLE: &str = "incident";

pub(crate) struct Day {
    number: u8,
    pub(crate) exit: Exit,
    pub(crate) records: Vec<RunRecord>,
    /// Cases that are closed, as read back.
    pub(crate) closed: u64,
    /// Rows written at the destination, as its own statistics count them.
    written: u64,
    environment: String,
}

pub(crate) async fn run(
    app: &App,
    wiring: &Wiring,
    number: u8,
    read_back: &ReadBack,
    checks: &mut Checks,
    known: &Known,
) -> Result<Day, Failure> {
    let before = read_back.rows_written().await?;
    let all: BTreeSet<FlowName> = wiring.project.flows.keys().cloned().collect();
    let ends = run::flows(app, wiring, &all, RunOptions::default(), run::Speech::Problems).await;
    let exit = ends.iter().map(FlowEnd::exit).fold(Exit::Complete, Exit::and);
    let records = ends.into_iter().filter_map(FlowEnd::into_record).collect();
    let written = read_back.rows_written().await?.saturating_sub(before);
    let environment = wiring.project.environment.to_string();
    let mut day = Day { number, exit, records, closed: 0, written, environment };
    if app.cancel.is_cancelled() {
        return Err(Failure::new(flowgate_core::Code::CANCELLED, "the demo was stopped"));
    }
    day.check(checks, known);
    day.check_tables(read_back, checks, known).await?;
    Ok(day)
}

impl Day {
    pub(crate) fn record(&self, flow: &str) -> Option<&RunRecord> {
        self.records.iter().find(|record| record.flow.as_str() == flow)
    }

    /// The record of the asset register's flow.
    pub(crate) fn assets(&self) -> Option<&RunRecord> {
        self.record(ASSETS_FLOW)
    }

    /// The rows of a load, whatever flow it is in: the example's loads have different names.
    pub(crate) fn rows(&self, load: &str) -> Option<LoadRows> {
        self.records.iter().find_map(|record| record.loads.get(load)).map(|progress| progress.rows)
    }

    pub(crate) fn extracted(&self, stream: &str) -> Option<u64> {
        self.records.iter().find_map(|record| record.streams.get(stream)).map(|progress| progress.rows.extracted)
    }

    fn check(&self, checks: &mut Checks, known: &Known) {
        let day = self.number;
        let states: Vec<_> = self.records.iter().map(|record| summary::state_text(record.state)).collect();
        let all_complete = states.iter().all(|state| *state == "complete") && self.exit == Exit::Complete;
        let ends = if all_complete { "complete".to_owned() } else { states.join(", ") };
        let pending: u64 = self.records.iter().map(RunRecord::rows).map(|rows| rows.pending + rows.gone_pending).sum();
        let broken = self.records.iter().flat_map(summary::equations).filter(|equation| !equation.holds()).count();
        let text = |ends: &str, pending: u64, broken: usize| {
            format!("{ends}, {} pending, {broken} equations broken", counted(pending, "row"))
        };
        checks.add(format!("day {day}: every flow"), text("complete", 0, 0), text(&ends, pending, broken));
        known.check_assets(day, self.rows(ASSETS_LOAD), checks);
        if day == super::DAYS {
            checks.add_count(&format!("day {day}: rows written, by the service's own count"), 0, self.written);
        }
    }

    /// Compares what the service holds with what it must hold. Only assets change after the first day.
    async fn check_tables(&mut self, read_back: &ReadBack, checks: &mut Checks, known: &Known) -> Result<(), Failure> {
        let day = self.number;
        let is_whole = day == 1 || day == super::DAYS;
        for (name, table) in known.tables.iter().filter(|(name, _)| is_whole || *name == ASSETS_TABLE) {
            let Some(expected) = known.answer(day, name) else { continue };
            let found = read_back.table(table).await?;
            let text = |answer: &super::known::Answer| format!("{}, hash {}", counted(answer.rows, "row"), answer.hash);
            checks.add(format!("day {day}: `{name}` read back over HTTP"), text(expected), text(&found.answer));
            if name == CASES_TABLE {
                self.closed = found.inactive;
            }
        }
        Ok(())
    }

    pub(crate) fn text(&self, paint: Paint) -> String {
        let subject = match self.number {
            1 => "everything is new",
            2 => "the register of the next year",
            3 => "the register of the year after",
            _ => "nothing changed",
        };
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Right), ("", Align::Left)]);
        for record in &self.records {
            let total = record.seconds.get("total").copied().unwrap_or_default();
            let mut head = (record.flow.to_string(), format!("{total:.1} local_s"));
            for (name, load) in &record.loads {
                let (flow, time) = std::mem::take(&mut head);
                table.row(vec![
                    Cell::new(flow),
                    Cell::toned(Tone::Strong, name.as_str()),
                    Cell::toned(Tone::Faint, time),
                    Cell::new(outcome_text(&load.rows)),
                ]);
            }
        }
        let mut lines = vec![format!("\n{}  {subject}", paint.strong(format!("day {}", self.number)))];
        lines.push(table.render("  ", paint));
        lines.extend(self.equations().iter().map(|equation| format!("  {}", equation.render(paint))));
        lines.join("\n")
    }

    /// The equations of all flows together.
    fn equations(&self) -> Vec<summary::Equation> {
        let mut sums: Vec<summary::Equation> = Vec::new();
        for equation in self.records.iter().flat_map(summary::equations) {
            match sums.iter_mut().find(|sum| sum.name == equation.name) {
                Some(sum) => sum.add(&equation),
                None => sums.push(equation),
            }
        }
        sums
    }

    pub(crate) fn to_json(&self) -> Value {
        let runs: Vec<_> = self.records.iter().map(|record| shapes::run(record, &self.environment)).collect();
        json!({ "day": self.number, "runs": runs, "rows_written": self.written })
    }
}
