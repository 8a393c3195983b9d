//! `flowgate plan`: everything a run does except sending, and what it would send.

use clap::Args;
use flowgate_engine::{LoadPlan, Plan, PlannedChange};
use serde_json::{Value, json};

use super::{App, Ended, check, flow_named};
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::render::number::{count, counted, of_seconds};
use crate::render::{Paint, json, progress};
use crate::wiring::Wiring;

#[derive(Debug, Args)]
pub(crate) struct PlanFlows {
    /// The flows to plan
    #[arg(value_name = "FLOW", required = true)]
    flows: Vec<String>,
}

impl PlanFlows {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let project = check::load(app)?;
        let names = self.flows.iter().map(|name| flow_named(&project, name)).collect::<Result<Vec<_>, _>>()?;
        let wiring = Wiring::new(project, std::sync::Arc::clone(&app.clock))?;
        let mut plans: Vec<Value> = Vec::new();
        let mut exit = Exit::Complete;
        for name in &names {
            let Some(flow) = wiring.project.flows.get(name) else { continue };
            let mode = progress::Mode::of(app.printer, app.is_logging);
            let observer = progress::observer(mode, app.printer, std::sync::Arc::clone(&app.clock), flow);
            let planned = wiring.engine(observer).plan(name, &app.cancel).await;
            let plan = planned.map_err(|error| Failure::from(failure::of_run(&error, name, &wiring.project.dir)))?;
            if plan.loads.iter().any(|load| load.guard.is_some()) {
                exit = exit.and(Exit::Guarded);
            }
            app.printer.answer(text(&plan, app.printer.out));
            plans.push(json::plan(&plan, wiring.project.environment.as_str()));
        }
        let answer = if plans.len() == 1 { plans.pop().unwrap_or_default() } else { json!({ "plans": plans }) };
        app.printer.json(&answer);
        Ok(exit)
    }
}

fn text(plan: &Plan, paint: Paint) -> String {
    let mut lines =
        vec![format!("\n{}  {}", paint.strong(plan.flow.as_str()), paint.faint("a plan; nothing was sent"))];
    for (stream, rows) in &plan.streams {
        let malformed =
            if rows.malformed > 0 { format!(", {} malformed", count(rows.malformed)) } else { String::new() };
        lines.push(format!("  stream {stream}: {}{malformed}", counted(rows.staged, "row")));
    }
    for load in &plan.loads {
        lines.extend(load_lines(load, paint));
    }
    lines.join("\n")
}

fn load_lines(load: &LoadPlan, paint: Paint) -> Vec<String> {
    let mut lines =
        vec![format!("  load {} into `{}`: {}", paint.strong(load.load.as_str()), load.table, changes(load))];
    if let Some(adopted) = load.adopted.filter(|rows| *rows > 0) {
        lines.push(format!("    {} of the table would be adopted as state first", counted(adopted, "row")));
    }
    if load.estimate.requests > 0 {
        let (requests, seconds) = (counted(load.estimate.requests, "request"), of_seconds(load.estimate.seconds));
        lines.push(paint.faint(format!("    about {requests}, {seconds} of the service's time")));
    }
    lines.extend(load.warnings.iter().map(|warning| format!("    {} {warning}", paint.careful("warning:"))));
    if let Some(stop) = &load.guard {
        lines.push(format!("    {} {stop}", paint.bad("would be stopped:")));
    }
    lines.extend(load.samples.iter().map(|sample| sample_line(sample, paint)));
    lines
}

fn changes(load: &LoadPlan) -> String {
    let counts = &load.counts;
    let classes = [
        (counts.create, "to create"),
        (counts.update, "to update"),
        (counts.set_state, "to bring to another status"),
        (counts.delete, "to delete"),
        (counts.deactivate, "to deactivate"),
        (counts.unchanged, "unchanged"),
        (counts.superseded, "superseded"),
        (counts.quarantined, "quarantined"),
        (counts.dropped, "dropped"),
        (counts.keep, "gone and kept"),
    ];
    let said: Vec<_> = classes
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if said.is_empty() { "no rows".to_owned() } else { said.join(", ") }
}

/// The columns of one change that a line has room for.
const COLUMNS_SHOWN: usize = 3;
const VALUE_LENGTH_MAX: usize = 32;

fn sample_line(change: &PlannedChange, paint: Paint) -> String {
    let value = |value: Option<&String>| match value {
        None => "null".to_owned(),
        Some(text) if text.chars().count() > VALUE_LENGTH_MAX => {
            format!("{}…", text.chars().take(VALUE_LENGTH_MAX).collect::<String>())
        }
        Some(text) => text.clone(),
    };
    let shown = change.columns.iter().take(COLUMNS_SHOWN).map(|column| match &column.now {
        None if change.operation == "create" => format!("{} {}", column.column, value(column.then.as_ref())),
        now => format!("{} {} → {}", column.column, value(now.as_ref()), value(column.then.as_ref())),
    });
    let mut columns: Vec<_> = shown.collect();
    if change.columns.len() > COLUMNS_SHOWN {
        columns.push(format!("and {} more", change.columns.len() - COLUMNS_SHOWN));
    }
    format!(
        "    {}  {}  {}",
        paint.faint(format!("{:10}", change.operation)),
        change.key,
        paint.faint(columns.join(", "))
    )
}
