//! Answers that cannot be written.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Stdio;

use crate::support::{Place, command};

/// How `flowgate check` ends whose answer goes there.
fn status_to(place: &Place, arguments: &[&str], out: Stdio) -> i32 {
    let ended = command(place.path(), arguments).stdout(out).stderr(Stdio::null()).status().unwrap();
    ended.code().unwrap()
}

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn an_answer_that_is_lost_is_no_success() {
    let place = Place::new_project();
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for (arguments, out, status) in [
        (["check", "--json"].as_slice(), full(), 1),
        (&["check", "--json"], closed_pipe(), 1),
        (&["schema"], full(), 1),
        (&["check"], full(), 1),
        // `flowgate check | head` is a reader that has seen enough.
        (&["check"], closed_pipe(), 0),
        (&["check", "--json"], Stdio::null(), 0),
    ] {
        assert_eq!(status_to(&place, arguments, out), status, "{arguments:?}");
    }
}
