//! `flowgate run`: one flow, several, or all of them in the order of their `after:`.
//!
//! A flow that fails does not stop others. Those that come after it are skipped, and said to be:
//! what they build on is not there.

use std::collections::BTreeSet;

use clap::Args;
use flowgate_core::{FlowName, Project};
use flowgate_engine::{RunError, RunOptions, RunOutcome};
use flowgate_store::RunRecord;
use serde_json::{Value, json};

use super::{App, Ended, check, flow_named};
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::render::{json, progress, summary};
use crate::wiring::Wiring;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The flows to run
    #[arg(value_name = "FLOW", required_unless_present = "all", conflicts_with = "all")]
    flows: Vec<String>,
    /// Run every flow of the project
    #[arg(long)]
    all: bool,
    /// First read keys and mapped columns from the destination, and take them as state
    #[arg(long)]
    adopt: bool,
    /// Read every stream as a whole, whatever was staged before
    #[arg(long)]
    fresh: bool,
    /// Read streams with `deletes: by_reconcile` as a whole
    #[arg(long)]
    reconcile: bool,
}

/// How one flow ended.
pub(crate) enum FlowEnd {
    /// It ran; its record says how.
    Ran(Box<RunOutcome>),
    /// It could not begin.
    Refused { flow: FlowName, error: RunError },
    /// A flow it comes after did not complete.
    Skipped { flow: FlowName, because: FlowName },
}

impl Run {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let project = check::load(app)?;
        let names = self.flows.iter().map(|name| flow_named(&project, name)).collect::<Result<BTreeSet<_>, _>>()?;
        let chosen = if self.all { project.flows.keys().cloned().collect() } else { names };
        let options = RunOptions { adopt: self.adopt, fresh: self.fresh, reconcile: self.reconcile };
        let wiring = Wiring::new(project, std::sync::Arc::clone(&app.clock))?;
        let is_single = !self.all && chosen.len() == 1;
        let speech = if chosen.len() == 1 { Speech::Only } else { Speech::Summaries };
        let ends = flows(app, &wiring, &chosen, options, speech).await;
        // One flow alone that cannot begin is the failure of the command.
        if let [FlowEnd::Refused { flow, error }] = ends.as_slice()
            && chosen.len() == 1
        {
            return Err(failure::of_run(error, flow, &wiring.project.dir).into());
        }
        app.printer.json(&to_json(&ends, &wiring, is_single));
        Ok(ends.iter().map(FlowEnd::exit).fold(Exit::Complete, Exit::and))
    }
}

/// What is said about each flow when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Its summary.
    Summaries,
    /// Its summary; if it could not begin, the command says so.
    Only,
    /// Only what went wrong.
    Problems,
}

/// Runs the chosen flows in order.
pub(crate) async fn flows(
    app: &App,
    wiring: &Wiring,
    chosen: &BTreeSet<FlowName>,
    options: RunOptions,
    speech: Speech,
) -> Vec<FlowEnd> {
    let mut ends = Vec::new();
    // Flows that did not complete, and those skipped because of them.
    let mut incomplete = BTreeSet::new();
    for flow in in_order(&wiring.project, chosen) {
        if app.cancel.is_cancelled() {
            break;
        }
        let after = wiring.project.flows.get(&flow).map(|flow| flow.after.as_slice()).unwrap_or_default();
        let end = match after.iter().find(|before| incomplete.contains(*before)) {
            Some(because) => FlowEnd::Skipped { flow: flow.clone(), because: because.clone() },
            None => run_one(app, wiring, &flow, options).await,
        };
        if !matches!(end.exit(), Exit::Complete | Exit::Quarantined) {
            incomplete.insert(flow);
        }
        say(app, wiring, &end, speech);
        ends.push(end);
    }
    ends
}

/// The chosen flows, each after those that its `after:` names; a circle was refused by the check.
fn in_order(project: &Project, chosen: &BTreeSet<FlowName>) -> Vec<FlowName> {
    let mut ordered: Vec<FlowName> = Vec::new();
    while ordered.len() < chosen.len() {
        let is_ready = |name: &&FlowName| {
            let after = project.flows.get(*name).map(|flow| flow.after.as_slice()).unwrap_or_default();
            !ordered.contains(name) && after.iter().all(|before| !chosen.contains(before) || ordered.contains(before))
        };
        match chosen.iter().find(is_ready).cloned() {
            Some(next) => ordered.push(next),
            None => break,
        }
    }
    ordered
}

async fn run_one(app: &App, wiring: &Wiring, flow: &FlowName, options: RunOptions) -> FlowEnd {
    let Some(definition) = wiring.project.flows.get(flow) else {
        return FlowEnd::Refused { flow: flow.clone(), error: RunError::Defect("a flow that was just there is gone") };
    };
    let mode = progress::Mode::of(app.printer, app.is_logging);
    let observer = progress::observer(mode, app.printer, std::sync::Arc::clone(&app.clock), definition);
    match wiring.engine(observer).run(flow, options, &app.cancel).await {
        Ok(outcome) => FlowEnd::Ran(Box::new(outcome)),
        Err(error) => FlowEnd::Refused { flow: flow.clone(), error },
    }
}

fn say(app: &App, wiring: &Wiring, end: &FlowEnd, speech: Speech) {
    let paint = app.printer.out;
    let report = |error: &RunError, flow: &FlowName| {
        app.printer.report(&Failure::from(failure::of_run(error, flow, &wiring.project.dir)).report);
    };
    match end {
        FlowEnd::Ran(outcome) => {
            if let Some(error) = outcome.error.as_ref().filter(|error| !error.is_cancelled()) {
                report(error, &outcome.record.flow);
            }
            if speech != Speech::Problems {
                // The summary is worth showing without its reasons, should they not be readable.
                let reasons = wiring.store.letter_groups(Some(&outcome.record.flow)).unwrap_or_default();
                app.printer.answer(format!("\n{}", summary::run(outcome, &reasons, paint)));
            }
        }
        FlowEnd::Refused { .. } if speech == Speech::Only => {}
        FlowEnd::Refused { error, flow } => {
            report(error, flow);
            app.printer.answer(format!("\n{}  {}", paint.strong(flow.as_str()), paint.bad("did not begin")));
        }
        FlowEnd::Skipped { flow, because } => {
            let text = format!("skipped: it comes after `{because}`, which did not complete");
            app.printer.answer(format!("\n{}  {}", paint.strong(flow.as_str()), paint.careful(text)));
        }
    }
}

impl FlowEnd {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Ran(outcome) => match &outcome.error {
                // The environment went back in time: stopped before anything was sent.
                Some(error) if Exit::of_code(error.code()) == Exit::Guarded => Exit::Guarded,
                _ => Exit::of_run(outcome.record.state),
            },
            Self::Refused { error, .. } => Exit::of_code(error.code()),
            Self::Skipped { .. } => Exit::Failed,
        }
    }

    /// The record of a flow that ran.
    pub(crate) fn into_record(self) -> Option<RunRecord> {
        match self {
            Self::Ran(outcome) => Some(outcome.record),
            _ => None,
        }
    }
}

fn to_json(ends: &[FlowEnd], wiring: &Wiring, is_single: bool) -> Value {
    let environment = wiring.project.environment.as_str();
    let dir = &wiring.project.dir;
    let one = |end: &FlowEnd| match end {
        FlowEnd::Ran(outcome) => json::outcome(outcome, environment, dir),
        FlowEnd::Refused { flow, error } => {
            let error = Failure::from(failure::of_run(error, flow, dir)).to_json();
            json!({ "flow": flow, "environment": environment, "state": "not_begun", "error": error })
        }
        FlowEnd::Skipped { flow, because } => {
            json!({ "flow": flow, "environment": environment, "state": "skipped", "because": because })
        }
    };
    let mut runs: Vec<Value> = ends.iter().map(one).collect();
    match (is_single, runs.len()) {
        (true, 1) => runs.pop().unwrap_or_default(),
        _ => json!({ "runs": runs }),
    }
}
