//! Runs that are stopped, killed, or started twice.

use std::process::{Child, Command};

use crate::support::Place;

/// Sends a signal by the system's own `kill`.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
}

/// Waits until the run has something durable to go on from: rows are being sent.
fn wait_until_sending(place: &Place, child: &mut Child) {
    use std::io::{BufRead, BufReader};
    let lines = BufReader::new(child.stderr.take().unwrap_or_else(|| panic!("no standard error"))).lines();
    for line in lines.map_while(Result::ok) {
        if line.contains(" sent") {
            return;
        }
        assert!(!line.contains(" created"), "the run was over before it could be stopped: {line}");
    }
    panic!("the run ended in {}", place.path().display());
}

const ROWS: usize = 40_000;

#[test]
fn a_run_that_was_interrupted_goes_on() {
    let place = Place::slow(ROWS);
    let mut run = place.spawn(&["run", "offices", "--json"]);
    wait_until_sending(&place, &mut run);
    let second = place.flowgate(&["run", "offices"]);
    assert_eq!(second.status, 1, "{}", second.everything());
    assert!(second.err.contains("error[FG0400]: flow `offices` is running already"), "{}", second.err);
    signal(&run, "INT");
    let output = run.wait_with_output().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(output.status.code(), Some(130));
    let stopped: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(stopped["state"], "interrupted", "{stopped}");
    let resumed = place.flowgate(&["run", "offices", "--json"]);
    assert_eq!(resumed.status, 0, "{}", resumed.err);
    let resumed = resumed.json();
    assert_eq!(resumed["run"], stopped["run"], "the same run goes on");
    assert_eq!(resumed["rows"]["created"], ROWS, "{resumed}");
}

#[test]
fn a_run_that_was_killed_ends_in_the_same_state() {
    let place = Place::slow(ROWS);
    let mut run = place.spawn(&["run", "offices", "--json"]);
    wait_until_sending(&place, &mut run);
    signal(&run, "KILL");
    assert!(run.wait().is_ok_and(|status| !status.success()));
    let resumed = place.flowgate(&["run", "offices", "--json"]);
    assert_eq!(resumed.status, 0, "{}", resumed.err);
    assert_eq!(resumed.json()["rows"]["pending"], 0);
    let again = place.flowgate(&["run", "offices", "--json"]).json();
    assert_eq!(again["rows"]["unchanged"], ROWS, "{again}");
    let accounts = place.accounts();
    assert_eq!(accounts.len(), ROWS, "each row is there once");
    let mut expected: Vec<String> = (0..ROWS).map(|row| format!("OF-{row:06} Office {row}")).collect();
    expected.sort();
    assert_eq!(accounts, expected);
}
