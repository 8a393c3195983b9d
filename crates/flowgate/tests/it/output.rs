//! What goes where: the answer to standard output, everything else to standard error.

use crate::support::Place;

#[test]
fn with_json_there_is_one_object_whatever_happens() {
    let place = Place::provisioned();
    for arguments in [
        vec!["check"],
        vec!["status"],
        vec!["runs"],
        vec!["plan", "offices"],
        vec!["run", "offices"],
        vec!["run", "--all"],
        vec!["letters", "list"],
        vec!["provision", "--yes"],
        vec!["letters", "show", "ffffffff"],
        vec!["run", "nothing"],
        vec!["run", "offices", "--no-such-option"],
    ] {
        let mut arguments = arguments;
        arguments.push("--json");
        let value = place.flowgate(&arguments).json();
        assert!(value.is_object(), "{arguments:?}: {value}");
    }
}

#[test]
fn quiet_says_nothing_but_the_answer() {
    let place = Place::provisioned();
    let said = place.flowgate(&["run", "offices", "--quiet"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(said.out.contains("12"), "{}", said.out);
}

#[test]
fn logs_go_to_standard_error_and_hold_no_secret() {
    let place = Place::provisioned();
    let said = place.flowgate(&["run", "offices", "--json", "--log", "trace"]);
    assert!(said.json().is_object());
    let ready = place.emulator().ready.clone();
    let secret = ready["client_secret"].as_str().unwrap_or_default();
    assert!(secret.len() > 8 && !said.err.contains(secret), "a log shows the secret");
}

#[test]
fn a_bad_log_filter_is_a_usage_error() {
    let said = Place::empty().flowgate(&["check", "--log", "a=b=c"]);
    assert_eq!(said.status, 2, "{}", said.err);
}
