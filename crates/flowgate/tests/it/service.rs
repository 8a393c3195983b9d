//! A service that refuses, fails or is not the one that was meant.

use serde_json::json;

use crate::support::{Place, stable};

/// What a person sees of a run while the service does this to every request that matches.
fn run_while(name: &str, rules: &serde_json::Value) {
    let place = Place::provisioned();
    let emulator = place.emulator();
    emulator.fault(rules);
    let said = place.flowgate(&["run", "offices"]);
    stable(&place, || insta::assert_snapshot!(name, said.everything()));
    assert_eq!(said.status, 1, "{}", said.everything());
    // Nothing is lost: when the service is well again, the rows arrive.
    emulator.fault(&json!([]));
    let said = place.flowgate(&["run", "offices", "--json"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let rows = said.json()["rows"].clone();
    assert_eq!(rows["created"], 12, "{rows}");
}

#[test]
fn sign_in_is_refused() {
    run_while("sign_in_refused", &json!([{ "match": { "op": "Token" }, "do": { "status": 401 } }]));
}

#[test]
fn a_privilege_is_missing() {
    let refuse = json!({ "status": 403, "code": "0x80040220", "message": "missing prvCreateAccount privilege" });
    run_while("not_allowed", &json!([{ "match": { "op": "CreateMultiple" }, "do": refuse }]));
}

#[test]
fn a_proxy_answers_in_html() {
    let html = json!({ "status": 200, "html": true });
    run_while("html", &json!([{ "match": { "op": "CreateMultiple" }, "do": html }]));
}

#[test]
fn passing_failures_are_not_the_persons_problem() {
    let place = Place::provisioned();
    let emulator = place.emulator();
    emulator.fault(&json!([
        { "match": { "op": "CreateMultiple", "nth": 1 }, "do": { "limit": "requests", "retry_after": 1 } },
        { "match": { "op": "CreateMultiple", "times": 1 }, "do": { "status": 500 } },
    ]));
    let run = place.flowgate(&["run", "offices", "--json"]).json();
    assert_eq!(run["state"], "complete", "{run}");
    assert_eq!(run["requests"]["throttled"], 1, "{run}");
    assert_eq!(place.accounts().len(), 12, "and each row is there once");
}

#[test]
fn another_organisation_is_never_written_to() {
    let place = Place::new_project();
    place.change(
        "flowgate.yaml",
        "emulator: {}",
        "emulator: {}\n      organization: 00000000-0000-4000-8000-000000000001",
    );
    let said = place.flowgate(&["run", "offices"]);
    assert_eq!(said.status, 1, "{}", said.everything());
    assert_eq!(place.accounts(), Vec::<String>::new());
    stable(&place, || insta::assert_snapshot!("wrong_organization", said.err));
}
