//! Every command on a small project, from `init` to a second run.

use crate::support::{Place, offices, stable};

#[test]
fn from_init_to_a_second_run() {
    let place = Place::new_project();
    stable(&place, || {
        insta::assert_snapshot!("check", place.flowgate(&["check"]).everything());
        insta::assert_snapshot!("status_before_any_run", place.flowgate(&["status"]).everything());
        insta::assert_snapshot!("provision_without_a_terminal", place.flowgate(&["provision"]).everything());
        insta::assert_snapshot!("provision", place.flowgate(&["provision", "--yes"]).everything());
        insta::assert_snapshot!("provision_again", place.flowgate(&["provision", "--yes"]).everything());
        insta::assert_snapshot!("plan", place.flowgate(&["plan", "offices"]).everything());
        insta::assert_snapshot!("run", place.flowgate(&["run", "offices"]).everything());
        insta::assert_snapshot!("run_again", place.flowgate(&["run", "offices"]).everything());
        insta::assert_snapshot!("status", place.flowgate(&["status"]).everything());
        insta::assert_snapshot!("runs", place.flowgate(&["runs"]).everything());
        insta::assert_snapshot!("no_letters", place.flowgate(&["letters", "list"]).everything());
    });
}

#[test]
fn a_run_accounts_for_its_rows_in_json() {
    let place = Place::provisioned();
    let run = place.flowgate(&["run", "offices", "--json"]).json();
    assert_eq!(run["state"], "complete");
    assert_eq!(run["environment"], "local");
    assert_eq!(run["streams"]["office"]["extracted"], 12);
    assert_eq!(run["loads"]["accounts"]["rows"]["created"], 12);
    assert_eq!(run["rows"]["prepared"], 12);
    for phase in ["total", "extract", "stage", "transform", "diff", "load"] {
        assert!(run["seconds"][phase].is_number(), "{phase}: {run}");
    }
    let all = place.flowgate(&["run", "--all", "--json"]).json();
    assert_eq!(all["runs"][0]["rows"]["unchanged"], 12);
    assert_eq!(all["runs"][0]["rows"]["created"], 0);
    let runs = place.flowgate(&["runs", "--json"]).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(runs["runs"][1]["run"], run["run"], "newest first");
}

#[test]
fn changed_and_gone_rows_are_told_apart() {
    let place = Place::provisioned();
    place.write("data/offices.csv", &offices(20, "Office"));
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    let changed =
        offices(15, "Office").replace("Office 3,", "Renamed,") + "OF-900000,New,Bath,BA1 1LZ,01225 496010,2020-01-01\n";
    place.write("data/offices.csv", &changed);
    let run = place.flowgate(&["run", "offices", "--json"]).json();
    let rows = &run["rows"];
    assert_eq!((&rows["created"], &rows["updated"], &rows["unchanged"]), (&1.into(), &1.into(), &14.into()), "{run}");
    assert_eq!((&rows["gone"], &rows["kept"]), (&5.into(), &5.into()), "{run}");
    let accounts = place.accounts();
    assert_eq!(accounts.len(), 21);
    assert!(accounts.contains(&"OF-000003 Renamed".to_owned()));
}

#[test]
fn a_load_is_written_from_a_tables_metadata() {
    let place = Place::new_project();
    let said = place.flowgate(&["init", "--from-table", "contact"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let sql = fs_err::read_to_string(place.file("flows/contact.sql")).unwrap_or_default();
    assert!(sql.contains("AS lastname"), "{sql}");
    assert!(sql.contains("text, at most"), "{sql}");
    assert_eq!(place.flowgate(&["check"]).status, 0);
    let again = place.flowgate(&["init", "--from-table", "contact"]);
    assert_eq!(again.status, 2);
    assert!(again.err.contains("is there already"), "{}", again.err);
}

#[test]
fn schemas_are_written_for_editors() {
    let place = Place::empty();
    let said = place.flowgate(&["schema", "--out", "schema", "--json"]).json();
    assert_eq!(said["files"].as_array().map(Vec::len), Some(4));
    let text = fs_err::read_to_string(place.file("schema/flow.schema.json")).unwrap_or_default();
    assert!(text.contains("\"streams\""), "{text}");
}

#[test]
fn the_program_describes_itself() {
    let reference = Place::empty().flowgate(&["reference"]);
    let value: serde_json::Value = serde_json::from_str(&reference.out).unwrap_or_default();
    let commands = value["commands"].as_array().cloned().unwrap_or_default();
    assert!(commands.iter().any(|command| command["name"] == "letters retry"), "{commands:?}");
    assert!(commands.iter().all(|command| command["name"] != "reference"));
    assert!(value["errors"].as_array().is_some_and(|errors| errors.len() > 50));
}

#[test]
fn flows_run_in_their_order_and_dependents_of_a_failed_one_are_skipped() {
    let place = Place::provisioned();
    let flow = |name: &str, from: &str, after: &str| {
        let after = if after.is_empty() { String::new() } else { format!("after: [{after}]\n") };
        format!(
            "flow: {name}\n{after}streams:\n  office: {{ from: {from}, key: [code] }}\nloads:\n  accounts:\n    into: crm\n    table: account\n    select: SELECT code || '-{name}' AS accountnumber, name FROM office\n    match: [accountnumber]\n"
        )
    };
    place.change(
        "flowgate.yaml",
        "connections:\n",
        "connections:\n  absent: { files: { path: data/absent.csv, format: csv } }\n",
    );
    place.write("flows/a_last.yaml", &flow("a_last", "files", "broken"));
    place.write("flows/broken.yaml", &flow("broken", "absent", ""));
    place.write("flows/b_second.yaml", &flow("b_second", "files", "offices"));
    let said = place.flowgate(&["run", "--all", "--json"]);
    assert_eq!(said.status, 1, "{}", said.err);
    let runs = said.json();
    let ends: Vec<String> = runs["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| {
            format!("{} {}", run["flow"].as_str().unwrap_or_default(), run["state"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(ends, ["broken failed", "a_last skipped", "offices complete", "b_second complete"]);
    assert_eq!(runs["runs"][1]["because"], "broken");
}

#[test]
fn the_emulator_prints_one_line_and_stops_in_order() {
    let place = Place::empty();
    let mut emulator = place.spawn(&["emulator"]);
    let ready: serde_json::Value = serde_json::from_str(&crate::support::first_line(&mut emulator)).unwrap_or_default();
    for key in ["url", "token_url", "tenant", "client_id", "client_secret", "token", "time_scale"] {
        assert!(!ready[key].is_null(), "{key}: {ready}");
    }
    crate::interruption::signal(&emulator, "TERM");
    assert_eq!(emulator.wait().ok().and_then(|status| status.code()), Some(0));
}
