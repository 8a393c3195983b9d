//! `doctor`: what it finds in a project that works, in one that does not, and in its environment.

use serde_json::{Value, json};

use crate::support::Place;

/// The state of a finding of a connection; null if there is none of that name.
fn state<'a>(report: &'a Value, connection: &str, what: &str) -> &'a Value {
    let named = |list: &'a Value, key: &str, name: &str| {
        let found = list.as_array().into_iter().flatten().find(|entry| entry[key] == name);
        found.unwrap_or(&Value::Null)
    };
    &named(&named(&report["connections"], "connection", connection)["findings"], "what", what)["state"]
}

#[test]
fn every_connection_is_reached() {
    let place = Place::provisioned();
    let said = place.flowgate(&["doctor", "--json"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let report = said.json();
    for what in ["sign-in", "version", "latency", "limits", "account: privileges", "account: key accountnumber"] {
        assert_eq!(state(&report, "crm", what), "good", "{what}: {report}");
    }
    assert_eq!(state(&report, "crm", "entitlement"), "unknown");
    assert_eq!(state(&report, "files", "reached"), "good", "{report}");
    let shown = place.flowgate(&["doctor"]);
    assert!(shown.out.contains("2 connections, nothing in the way of a run"), "{}", shown.out);
}

#[test]
fn what_would_make_a_run_fail_ends_with_status_1() {
    let place = Place::new_project();
    place.change("flows/offices.yaml", "table: account", "table: wr_nothing");
    let said = place.flowgate(&["doctor", "--json"]);
    assert_eq!((said.status, state(&said.json(), "crm", "wr_nothing")), (1, &json!("bad")), "{}", said.err);
}

#[test]
fn assumptions_hold_against_the_emulator_and_are_written() {
    let place = Place::new_project();
    place.change("flowgate.yaml", "emulator: {}", "emulator: { time_scale: 50.0 }");
    let said = place.flowgate(&["doctor", "--verify", "crm", "--json"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let report = said.json();
    assert_eq!(report["counts"]["differs"], 0, "{report}");
    assert_eq!(report["environment"]["kind"], "Developer");
    assert_eq!(report["left_behind"], Value::Null);
    let written = fs_err::read_to_string(place.file("crm.observed.json")).unwrap_or_default();
    let written: Value = serde_json::from_str(&written).unwrap_or_default();
    assert_eq!((&written["version"], &written["settings"]["key_violation_status"]), (&json!(1), &json!(412)));
}

#[test]
fn only_dataverse_is_verified() {
    let said = Place::new_project().flowgate(&["doctor", "--verify", "files"]);
    assert_eq!(said.status, 2, "{}", said.err);
    assert!(said.err.contains("is of the kind `files`"), "{}", said.err);
}
