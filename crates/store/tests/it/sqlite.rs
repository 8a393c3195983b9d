//! What is SQLite's own: files, modes, versions, locks of processes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use flowgate_core::{Code, ErrorKind};
use flowgate_store::{RunRecord, SqliteStore, Store, StoreError};
use fs_err as fs;

use crate::conformance::{at, conformance, flow};

#[test]
fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance(|| {
        count.set(count.get() + 1);
        Arc::new(SqliteStore::open(&dir.path().join(count.get().to_string())).unwrap())
    });
}

#[test]
fn state_outlives_the_process_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let record = RunRecord::begin("018f0000-0000-7000-8000-000000000001".parse().unwrap(), flow("a"), "v", at(0));
    let store = SqliteStore::open(&state).unwrap();
    let lease = store.lease_flow(&flow("a"), at(0)).unwrap();
    store.begin_run(&lease, &record).unwrap();

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for name in ["runs.db", "runs.db-wal", "runs.db-shm", "locks/store.lock", "locks/a.lock"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    drop(store);
    assert_eq!(SqliteStore::open(&state).unwrap().run(record.run).unwrap(), Some(record));
}

#[test]
fn two_stores_see_each_others_work() {
    let dir = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(dir.path()).unwrap();
    let second = SqliteStore::open(dir.path()).unwrap();
    let lease = first.lease_flow(&flow("a"), at(0)).unwrap();
    assert_eq!(second.lease_flow(&flow("a"), at(0)).unwrap_err().code(), Code::FLOW_IS_RUNNING);
    let record = RunRecord::begin("018f0000-0000-7000-8000-000000000001".parse().unwrap(), flow("a"), "v", at(0));
    first.begin_run(&lease, &record).unwrap();
    assert_eq!(second.last_run(&flow("a")).unwrap(), Some(record));
}

#[test]
fn a_holder_that_lost_its_flow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let old = store.lease_flow(&flow("a"), at(0)).unwrap();
    // Someone removes the lock file, and a second process takes the flow.
    fs::remove_file(dir.path().join("locks/a.lock")).unwrap();
    let new = store.lease_flow(&flow("a"), at(1)).unwrap();
    let record = RunRecord::begin("018f0000-0000-7000-8000-000000000001".parse().unwrap(), flow("a"), "v", at(0));
    let error = store.begin_run(&old, &record).unwrap_err();
    assert_eq!(error.to_string(), "flow `a` was taken over by another process: epoch 1 is over, 2 holds");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    store.begin_run(&new, &record).unwrap();
}

/// Runs itself as a second process, which takes the flow and is then killed.
#[test]
fn a_killed_process_frees_its_flow() {
    if let Some(dir) = std::env::var_os("FLOWGATE_TEST_HOLD") {
        let store = SqliteStore::open(Path::new(&dir)).unwrap();
        let _lease = store.lease_flow(&flow("a"), at(0)).unwrap();
        println!("\nholding");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::a_killed_process_frees_its_flow", "--nocapture"])
        .env("FLOWGATE_TEST_HOLD", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "holding"), "the child ended early");

    let store = SqliteStore::open(dir.path()).unwrap();
    let error = store.lease_flow(&flow("a"), at(9)).unwrap_err();
    assert!(error.to_string().contains(&format!("in process {} since ", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.lease_flow(&flow("a"), at(9)).unwrap().epoch(), 2);
}

fn change(dir: &Path, sql: &str) {
    let database = rusqlite::Connection::open(dir.join("runs.db")).unwrap();
    database.execute_batch(sql).unwrap();
}

#[test]
fn a_newer_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    change(dir.path(), "PRAGMA user_version = 99");
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::STATE_NEWER);
    assert!(error.to_string().ends_with("runs.db` has format version 99; this Flowgate knows 1"), "{error}");
}

#[test]
fn a_file_of_someone_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    change(dir.path(), "CREATE TABLE photos (id INTEGER)");
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("runs.db"), "not a database, and long enough to be read as one".repeat(100)).unwrap();
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert_eq!((error.code(), error.kind()), (Code::STATE_DAMAGED, ErrorKind::Corrupt), "{error}");
}

#[test]
fn damage_is_found_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let path = dir.path().join("runs.db");
    let mut bytes = fs::read(&path).unwrap();
    // The second page is the root of a table.
    bytes[4_096..4_196].fill(0xFF);
    fs::write(&path, bytes).unwrap();
    // What a killed process leaves.
    fs::write(dir.path().join("runs.db-wal"), "x").unwrap();
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::STATE_DAMAGED, "{error}");
}
