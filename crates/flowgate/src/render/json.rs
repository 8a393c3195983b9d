//! Results as scripts read them. The shapes are a contract (design section 5): keys are added, never
//! renamed or removed.

use std::collections::BTreeMap;
use std::path::Path;

use flowgate_engine::{Plan, RunOutcome};
use flowgate_store::{Letter, LetterGroup, RunRecord};
use serde_json::{Map, Value, json};

use crate::failure;

/// One run. `run F --json` prints exactly this.
pub(crate) fn run(record: &RunRecord, environment: &str) -> Value {
    let streams: Map<String, Value> =
        record.streams.iter().map(|(name, stream)| (name.to_string(), json!(stream.rows))).collect();
    let load = |load: &flowgate_store::LoadProgress| {
        let mut value = json!({ "rows": load.rows });
        if let Some(keys) = load.driver_keys {
            value["driver"] = json!({ "keys": keys, "represented": load.represented, "dropped": load.rows.dropped });
        }
        value
    };
    let loads: Map<String, Value> =
        record.loads.iter().map(|(name, progress)| (name.to_string(), load(progress))).collect();
    json!({
        "flow": record.flow,
        "run": record.run,
        "environment": environment,
        "state": record.state,
        "started": record.started.to_string(),
        "finished": record.finished.map(|time| time.to_string()),
        "streams": streams,
        "loads": loads,
        "rows": record.rows(),
        "requests": { "sent": record.requests_sent, "throttled": record.requests_throttled },
        "seconds": seconds(&record.seconds),
        "error": record.error.as_ref().map(|error| json!({
            "code": record.error_code.map(|code| code.to_string()), "message": error,
        })),
    })
}

/// One run that has just ended, with what stopped it.
pub(crate) fn outcome(outcome: &RunOutcome, environment: &str, project_dir: &Path) -> Value {
    let mut value = run(&outcome.record, environment);
    if let Some(error) = &outcome.error {
        value["error"] = failure::of_run(error, &outcome.record.flow, project_dir).to_json();
    }
    if !outcome.guards.is_empty() {
        let guards = outcome
            .guards
            .iter()
            .map(|(load, stop)| (load.to_string(), json!({ "guard": stop.guard, "reason": stop.reason })));
        value["guards"] = Value::Object(guards.collect());
    }
    value
}

/// Every phase is there, whether the run came to it or not.
fn seconds(by_phase: &BTreeMap<String, f64>) -> Value {
    let mut value: Map<String, Value> = ["total", "extract", "stage", "transform", "diff", "load"]
        .map(|name| (name.to_owned(), json!(0.0)))
        .into_iter()
        .collect();
    for (phase, seconds) in by_phase {
        value.insert(phase.clone(), json!((seconds * 1_000.0).round() / 1_000.0));
    }
    Value::Object(value)
}

pub(crate) fn plan(plan: &Plan, environment: &str) -> Value {
    let streams: Map<String, Value> = plan.streams.iter().map(|(name, rows)| (name.to_string(), json!(rows))).collect();
    let loads: Map<String, Value> = plan.loads.iter().map(|load| (load.load.to_string(), planned_load(load))).collect();
    json!({ "flow": plan.flow, "environment": environment, "streams": streams, "loads": loads })
}

fn planned_load(load: &flowgate_engine::LoadPlan) -> Value {
    let counts = &load.counts;
    let change = |change: &flowgate_engine::PlannedChange| {
        let columns = change
            .columns
            .iter()
            .map(|column| json!({ "column": column.column, "now": column.now, "then": column.then }));
        json!({ "operation": change.operation, "key": change.key, "columns": columns.collect::<Vec<_>>() })
    };
    json!({
        "table": load.table,
        "rows": {
            "prepared": counts.prepared, "create": counts.create, "update": counts.update,
            "set_state": counts.set_state, "unchanged": counts.unchanged, "superseded": counts.superseded,
            "contradictory": counts.contradictory, "tied": counts.tied, "respelled": counts.respelled,
            "held_back": counts.held_back, "quarantined": counts.quarantined, "dropped": counts.dropped,
            "gone": counts.gone, "delete": counts.delete, "deactivate": counts.deactivate, "keep": counts.keep,
        },
        "estimate": {
            "requests": load.estimate.requests, "seconds": load.estimate.seconds,
            "entitlement": load.estimate.entitlement,
        },
        "warnings": load.warnings,
        "adopted": load.adopted,
        "guard": load.guard.as_ref().map(|stop| json!({ "guard": stop.guard, "reason": stop.reason })),
        "samples": load.samples.iter().map(change).collect::<Vec<_>>(),
    })
}

pub(crate) fn letter(letter: &Letter) -> Value {
    let payload = serde_json::from_str(&letter.payload).unwrap_or_else(|_| json!(letter.payload));
    json!({
        "id": letter.id, "flow": letter.flow, "place": letter.place, "key": letter.key_text,
        "status": letter.status, "code": letter.code.to_string(), "column": letter.column, "reason": letter.reason,
        "attempts": letter.attempts, "first": letter.first_at.to_string(), "last": letter.last_at.to_string(),
        "service_code": letter.service_code, "request_id": letter.request_id,
        "file": letter.file, "line": letter.line, "offset": letter.offset, "row": payload,
    })
}

pub(crate) fn letter_group(group: &LetterGroup) -> Value {
    json!({
        "flow": group.flow, "place": group.place, "code": group.code.to_string(),
        "status": group.status, "letters": group.letters,
    })
}
