//! `flowgate status`: where every flow stands, what is used of the service's limits, and the next thing to do.

use flowgate_core::{FlowName, Project};
use flowgate_dataverse::budget::{ConnectionSnapshot, LaneSnapshot};
use flowgate_store::{LetterFilter, LetterStatus, RunRecord, RunState, SqliteLanes, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::runs::{moment, tone};
use super::{App, Ended};
use crate::exit::Exit;
use crate::render::limits::Limits;
use crate::render::progress::outcome_text;
use crate::render::table::{Align, Cell, Table};
use crate::render::{Tone, json, summary};

struct FlowStatus {
    flow: FlowName,
    last: Option<RunRecord>,
    /// Letters that wait for a person or for another run.
    letters: u64,
    next: Option<String>,
}

pub(crate) fn run(app: &App) -> Ended {
    let wiring = app.open()?;
    let project = &wiring.project;
    let flows =
        project.flows.keys().map(|flow| status_of(wiring.store.as_ref(), flow)).collect::<Result<Vec<_>, _>>()?;
    let limits = limits_of(&wiring.lanes, app.clock.now())?;
    app.printer.json(&json!({
        "environment": project.environment,
        "project": project.dir,
        "flows": flows.iter().map(|flow| to_json(flow, project)).collect::<Vec<_>>(),
        "limits": limits.iter().map(Limits::to_json).collect::<Vec<_>>(),
    }));
    let paint = app.printer.out;
    let columns = [("flow", Align::Left), ("last run", Align::Left), ("state", Align::Left), ("rows", Align::Left)];
    let mut table = Table::new(&columns);
    for flow in &flows {
        table.row(cells(flow));
    }
    app.printer.answer(table.render("", paint));
    for limits in &limits {
        app.printer.answer(format!("\n{}", limits.to_text(paint)));
    }
    let next: Vec<_> = flows.iter().filter_map(|flow| flow.next.as_ref()).collect();
    match next.as_slice() {
        [] => app.printer.answer(format!("\n{} nothing to do", paint.good("✓"))),
        next => {
            app.printer.answer(format!("\n{}", paint.strong("next")));
            for action in next {
                app.printer.answer(format!("  {action}"));
            }
        }
    }
    Ok(Exit::Complete)
}

fn status_of(store: &dyn Store, flow: &FlowName) -> Result<FlowStatus, StoreError> {
    let last = store.last_run(flow)?;
    let filter =
        LetterFilter { flow: Some(flow.clone()), status: Some(LetterStatus::Quarantined), ..LetterFilter::default() };
    let letters = store.count_letters(&filter)?;
    let next = match &last {
        None => Some(format!("{flow} has not run yet: `flowgate run {flow}`")),
        Some(record) => next_action(record, letters),
    };
    Ok(FlowStatus { flow: flow.clone(), last, letters, next })
}

/// What the budgets of this environment told last.
fn limits_of(lanes: &SqliteLanes, now: Timestamp) -> Result<Vec<Limits>, StoreError> {
    let holders = lanes.holders()?;
    let mut limits = Vec::new();
    for record in lanes.budgets()? {
        // Written by another version, or before anything was known: there is nothing to show.
        let Ok(told) = serde_json::from_str::<ConnectionSnapshot>(&record.snapshot) else { continue };
        let holder = |lane: &LaneSnapshot| {
            let identity = &told.users.get(usize::from(lane.user))?.identity;
            let server = lane.server.as_deref().unwrap_or_default();
            let found = holders.iter().find(|holder| holder.identity == *identity && holder.server == server)?;
            Some(found.pid)
        };
        let holders = told.budget.lanes.iter().map(holder).collect();
        let (connection, at) = (record.connection, record.at);
        limits.push(Limits { connection, at, now, pid: record.pid, is_alive: record.is_alive, told, holders });
    }
    Ok(limits)
}

fn next_action(record: &RunRecord, letters: u64) -> Option<String> {
    let flow = &record.flow;
    match record.state {
        RunState::Complete | RunState::CompleteWithLetters => summary::next_action(record, letters),
        RunState::Running => {
            Some(format!("{flow} is running, or was killed: `flowgate run {flow}` tells, and goes on"))
        }
        RunState::Failed => {
            let why = record.error.as_deref().unwrap_or("the cause was not recorded");
            Some(format!("{flow} failed ({why}): remove the cause, then `flowgate run {flow}`"))
        }
        _ => summary::next_action(record, letters).map(|action| format!("{flow}: {action}")),
    }
}

fn cells(status: &FlowStatus) -> Vec<Cell> {
    let name = Cell::toned(Tone::Strong, status.flow.as_str());
    match &status.last {
        None => vec![name, Cell::toned(Tone::Faint, "never"), Cell::new(""), Cell::new("")],
        Some(record) => vec![
            name,
            Cell::new(moment(record.started)),
            Cell::toned(tone(record.state), summary::state_text(record.state)),
            Cell::new(outcome_text(&record.rows())),
        ],
    }
}

fn to_json(status: &FlowStatus, project: &Project) -> Value {
    json!({
        "flow": status.flow,
        "last": status.last.as_ref().map(|record| json::run(record, project.environment.as_str())),
        "letters": status.letters,
        "next": status.next,
    })
}
