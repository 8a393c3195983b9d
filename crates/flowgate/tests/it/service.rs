//! A service that refuses, fails or is not the one that was meant.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::json;

use crate::support::{Place, offices, stable};

/// What a person sees of a run while the service does this to every request that matches.
fn run_while(name: &str, rules: &serde_json::Value) {
    run_of_place_while(&Place::provisioned(), name, 12, rules);
}

fn run_of_place_while(place: &Place, name: &str, rows: usize, rules: &serde_json::Value) {
    let emulator = place.emulator();
    emulator.fault(rules);
    let said = place.flowgate(&["run", "offices"]);
    stable(place, || insta::assert_snapshot!(name, said.everything()));
    assert_eq!(said.status, 1, "{}", said.everything());
    // Nothing is lost: when the service is well again, the rows arrive.
    emulator.fault(&json!([]));
    let said = place.flowgate(&["run", "offices", "--json"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let counts = said.json()["rows"].clone();
    assert_eq!(counts["created"], rows, "{counts}");
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
fn the_service_keeps_failing() {
    let place = Place::new_project();
    // Its waits are long ones.
    place.change("flowgate.yaml", "emulator: {}", "emulator: { time_scale: 50.0 }");
    assert_eq!(place.flowgate(&["provision", "--yes"]).status, 0);
    place.write("data/offices.csv", &offices(40, "Office"));
    let fail = json!([{ "match": { "op": "CreateMultiple" }, "do": { "status": 500 } }]);
    run_of_place_while(&place, "keeps_failing", 40, &fail);
}

#[test]
fn the_address_has_no_web_api() {
    let gone = json!({ "status": 404, "html": true });
    run_while("not_found", &json!([{ "match": {}, "do": gone }]));
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
fn a_restored_environment_is_not_written_to_until_it_is_adopted() {
    let place = Place::provisioned();
    let emulator = place.emulator();
    place.write("data/offices.csv", &offices(30, "Office"));
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    emulator.send("POST", "__emulator/snapshot", "{}");
    place.write("data/offices.csv", &offices(40, "Later office"));
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    emulator.send("POST", "__emulator/restore", "{}");

    let said = place.flowgate(&["run", "offices"]);
    assert_eq!(said.status, 4, "{}", said.everything());
    stable(&place, || insta::assert_snapshot!("restored_environment", said.everything()));
    assert_eq!(place.accounts().len(), 30, "nothing was sent");
    let adopted = place.flowgate(&["run", "offices", "--adopt", "--json"]).json();
    let rows = &adopted["rows"];
    assert_eq!((&rows["created"], &rows["updated"]), (&10.into(), &30.into()), "{rows}");
    assert_eq!(place.flowgate(&["run", "offices", "--json"]).json()["rows"]["unchanged"], 40);
}

/// Puts a copy of one directory in place of another.
fn copy_dir(place: &Place, from: &str, to: &str) {
    if place.file(to).is_dir() {
        fs_err::remove_dir_all(place.file(to)).unwrap();
    }
    let copied = std::process::Command::new("cp").arg("-r").arg(place.file(from)).arg(place.file(to)).status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_backup_of_the_state_that_is_put_back_is_noticed() {
    let place = Place::provisioned();
    let _emulator = place.keep_emulator();
    place.write("data/offices.csv", &offices(30, "Office"));
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    copy_dir(&place, ".flowgate/local", "backup");
    copy_dir(&place, "backup", ".flowgate/local");
    let unchanged = place.flowgate(&["run", "offices", "--json"]);
    assert_eq!(unchanged.json()["rows"]["unchanged"], 30, "nothing was loaded since: {}", unchanged.everything());

    place.write("data/offices.csv", &offices(40, "Later office"));
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    copy_dir(&place, "backup", ".flowgate/local");
    let said = place.flowgate(&["run", "offices"]);
    assert_eq!(said.status, 4, "{}", said.everything());
    stable(&place, || insta::assert_snapshot!("state_put_back", said.everything()));
    let adopted = place.flowgate(&["run", "offices", "--adopt", "--json"]).json();
    assert_eq!(adopted["rows"]["unchanged"], 40, "{adopted}");
    assert_eq!(place.accounts().len(), 40);
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
