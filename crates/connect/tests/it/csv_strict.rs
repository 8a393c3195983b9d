//! A small part of `bench/csv_strict.py`: hostile CSV, and no row that Python's strict reader refuses or reads otherwise.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "../../examples/csv_rows/answer.rs"]
mod answer;

#[tokio::test]
async fn no_row_is_taken_that_a_strict_reader_refuses_or_reads_otherwise() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/csv_strict.py");
    let dir = tempfile::tempdir().unwrap();
    let said_path = dir.path().join("said");
    let mut python = Command::new("python3")
        .arg(script)
        .args(["--pipe", "--files", "3000", "--seed", "7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs_err::File::create(&said_path).unwrap().into_parts().0)
        .spawn()
        .unwrap();
    let mut answers = python.stdin.take().unwrap();
    for case in BufReader::new(python.stdout.take().unwrap()).lines() {
        // A judge that is gone says why below.
        if writeln!(answers, "{}", answer::answer(&case.unwrap(), dir.path()).await).is_err() {
            break;
        }
    }
    drop(answers);
    let status = python.wait().unwrap();
    let said = fs_err::read_to_string(said_path).unwrap();
    assert!(status.success(), "{said}");
    assert!(said.contains("\"files\": 3000"), "{said}");
}
