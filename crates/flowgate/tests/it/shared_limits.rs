//! Two processes of one host, and two runs after each other, on the limits of one environment.
#![expect(clippy::unwrap_used, reason = "in a test, a step that fails is a test that fails")]

use serde_json::{Value, json};

use crate::support::{Place, UsedEmulator, offices};

/// Rows of each flow: 60 s of execution, of 60 s in a window for each of four servers.
const ROWS: usize = 6_000;

/// A project with two flows of the same form into an environment whose limits they soon meet.
fn two_flows() -> (Place, UsedEmulator) {
    let place = Place::new_project();
    let emulator = place.environment(&["--profile", "realistic", "--servers", "4", "--seed", "5"], 10.0);
    emulator.send("POST", "__emulator/limits", &json!({ "execution_ms": 60_000 }).to_string());
    place.change("flows/offices.yaml", "guards: { create_max: 1000 }", "guards: { create_max: 1000000 }");
    let flow = fs_err::read_to_string(place.file("flows/offices.yaml")).unwrap();
    place.write(
        "flows/depots.yaml",
        &flow.replace("flow: offices", "flow: depots").replace("from: files", "from: others"),
    );
    let others = "connections:\n  others: { files: { path: data/depots.csv, format: csv } }\n";
    place.change("flowgate.yaml", "connections:\n", others);
    place.write("data/offices.csv", &offices(ROWS, "Office"));
    place.write("data/depots.csv", &offices(ROWS, "Depot").replace("OF-", "DE-"));
    let said = place.flowgate(&["provision", "--yes"]);
    assert_eq!(said.status, 0, "{}", said.err);
    (place, emulator)
}

fn refused(emulator: &UsedEmulator) -> Value {
    emulator.send("GET", "__emulator/stats", "")["throttled"].clone()
}

#[test]
fn two_processes_share_the_limits_and_neither_is_refused() {
    let (place, emulator) = two_flows();
    let runs = ["offices", "depots"].map(|flow| place.spawn(&["run", flow, "--json"]));
    let ends = runs.map(|run| run.wait_with_output().unwrap());
    for end in &ends {
        let run: Value = serde_json::from_slice(&end.stdout).unwrap();
        assert_eq!(run["state"], "complete", "{run}");
        assert_eq!(run["rows"]["created"], ROWS, "{run}");
    }
    assert_eq!(refused(&emulator), json!({ "requests": 0, "execution_time": 0, "concurrency": 0 }));

    let status = place.flowgate(&["status", "--json"]).json();
    let limits = &status["limits"][0];
    assert_eq!((&limits["connection"], &limits["is_alive"]), (&json!("crm"), &json!(false)), "{limits}");
    assert_eq!(limits["lanes"].as_array().map(Vec::len), Some(4), "{limits}");
    let used = limits["rows_in_24_hours"]["used"].as_u64().unwrap();
    // The last one to leave told what it knew of the other a moment before.
    assert!(used > ROWS as u64, "rows of both are counted: {limits}");
    assert!(limits["messages"].as_array().is_some_and(|all| all.iter().any(|one| one["message"] == "CreateMultiple")));
}

#[test]
fn a_run_that_follows_at_once_knows_what_the_last_one_used() {
    let (place, emulator) = two_flows();
    for flow in ["offices", "depots"] {
        let run = place.flowgate(&["run", flow, "--json"]).json();
        assert_eq!(run["rows"]["created"], ROWS, "{run}");
    }
    assert_eq!(refused(&emulator), json!({ "requests": 0, "execution_time": 0, "concurrency": 0 }));
}
