//! Command lines that are not understood, and help.

use std::path::Path;

use crate::support::{Place, run_in, stable};

fn said(arguments: &[&str]) -> String {
    run_in(Path::new("."), arguments).everything()
}

#[test]
fn a_mistyped_command_names_the_nearest() {
    let place = Place::empty();
    stable(&place, || insta::assert_snapshot!("mistyped_command", said(&["rnu"])));
    stable(&place, || insta::assert_snapshot!("mistyped_option", said(&["run", "offices", "--frsh"])));
    stable(&place, || insta::assert_snapshot!("mistyped_value", said(&["emulator", "--profile", "realstic"])));
    stable(&place, || insta::assert_snapshot!("nothing_to_run", said(&["run"])));
}

#[test]
fn commands_of_later_versions_are_not_pretended() {
    for command in ["undo", "reconcile", "serve", "query"] {
        let said = run_in(Path::new("."), &[command]);
        assert_eq!(said.status, 2, "{command}");
        assert!(said.err.starts_with(&format!("error[FG0001]: there is no command `{command}`")), "{}", said.err);
    }
}

#[test]
fn help_goes_to_standard_output() {
    let said = run_in(Path::new("."), &["help", "letters", "retry"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(said.out.contains("Usage: flowgate letters retry"), "{}", said.out);
}

#[test]
fn without_a_command_help_is_an_error() {
    let said = run_in(Path::new("."), &[]);
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert!(said.err.contains("Usage: flowgate"), "{}", said.err);
}

#[test]
fn a_usage_error_is_json_as_well() {
    let error = run_in(Path::new("."), &["rnu", "--json"]).json();
    assert_eq!(error["error"]["code"], "FG0001");
    assert_eq!(error["error"]["did_you_mean"], "runs");
}
