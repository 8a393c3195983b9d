//! `flowgate run`: one flow, several, or all of them in the order of their `after:`.
//!
//! A flow that fails does not stop others. Those that come after it are skipped, and said to be:
//! what they build on is not there.

use std::collections::BTreeSet;

use clap::Args;
use flowgate_core::{FlowName, Project};
use flowgate_engine::{RunError, RunOptions, RunOutcome};
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
enum FlowEnd {
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
        let ends = run_in_order(app, &wiring, &chosen, options).await;
        let is_single = !self.all && chosen.len() == 1;
        if let ([FlowEnd::Refused { error, .. }], true) = (ends.as_slice(), is_single) {
            return Err(failure::of_run(error, &wiring.project.dir).into());
        }
        app.printer.json(&to_json(&ends, &wiring, is_single));
        Ok(ends.iter().map(exit_of).fold(Exit::Complete, Exit::and))
    }
}

async fn run_in_order(app: &App, wiring: &Wiring, chosen: &BTreeSet<FlowName>, options: RunOptions) -> Vec<FlowEnd> {
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
        if !matches!(exit_of(&end), Exit::Complete | Exit::Quarantined) {
            incomplete.insert(flow);
        }
        say(app, wiring, &end, chosen.len() == 1);
        ends.push(end);
    }
    ends
}

/// The chosen flows, each after those that its `after:` names; a circle was refused by the check.
pub(crate) fn in_order(project: &Project, chosen: &BTreeSet<FlowName>) -> Vec<FlowName> {
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
    let mode = progress::Mode::of(&app.printer, app.is_logging);
    let observer = progress::observer(mode, app.printer, std::sync::Arc::clone(&app.clock), definition);
    match wiring.engine(observer).run(flow, options, &app.cancel).await {
        Ok(outcome) => FlowEnd::Ran(Box::new(outcome)),
        Err(error) => FlowEnd::Refused { flow: flow.clone(), error },
    }
}

fn say(app: &App, wiring: &Wiring, end: &FlowEnd, is_only: bool) {
    let paint = app.printer.out;
    match end {
        FlowEnd::Ran(outcome) => {
            if let Some(error) = outcome.error.as_ref().filter(|error| !error.is_cancelled()) {
                app.printer.report(&Failure::from(failure::of_run(error, &wiring.project.dir)).report);
            }
            app.printer.answer(format!("\n{}", summary::run(&outcome.record, &outcome.guards, paint)));
        }
        // One flow alone that cannot begin is the failure of the command.
        FlowEnd::Refused { .. } if is_only => {}
        FlowEnd::Refused { error, flow } => {
            app.printer.report(&Failure::from(failure::of_run(error, &wiring.project.dir)).report);
            app.printer.answer(format!("\n{}  {}", paint.strong(flow.as_str()), paint.bad("did not begin")));
        }
        FlowEnd::Skipped { flow, because } => {
            let text = format!("skipped: it comes after `{because}`, which did not complete");
            app.printer.answer(format!("\n{}  {}", paint.strong(flow.as_str()), paint.careful(text)));
        }
    }
}

fn exit_of(end: &FlowEnd) -> Exit {
    match end {
        FlowEnd::Ran(outcome) => match &outcome.error {
            // The environment went back in time: stopped before anything was sent.
            Some(error) if Exit::of_code(error.code()) == Exit::Guarded => Exit::Guarded,
            _ => Exit::of_run(outcome.record.state),
        },
        FlowEnd::Refused { error, .. } => Exit::of_code(error.code()),
        FlowEnd::Skipped { .. } => Exit::Failed,
    }
}

fn to_json(ends: &[FlowEnd], wiring: &Wiring, is_single: bool) -> Value {
    let environment = wiring.project.environment.as_str();
    let dir = &wiring.project.dir;
    let one = |end: &FlowEnd| match end {
        FlowEnd::Ran(outcome) => json::outcome(outcome, environment, dir),
        FlowEnd::Refused { flow, error } => {
            let error = Failure::from(failure::of_run(error, dir)).to_json();
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
