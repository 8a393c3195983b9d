//! Runs that stop in the middle and go on.

use std::path::{Path, PathBuf};

use flowgate_core::project::Missing;
use flowgate_core::{Code, LoadRows, Operation};
use flowgate_engine::RunOptions;
use flowgate_store::RunState;

use crate::fake::{Inner, Table, World, load, shape};

const COLUMNS: [&str; 2] = ["number", "name"];

fn world() -> World {
    let mut world = World::new(
        vec![shape("account", &COLUMNS, &[])],
        vec![load("accounts", "account", "SELECT number, name FROM person")],
    );
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let rows: Vec<Vec<&str>> = names.iter().map(|name| vec![name.as_str(), name.as_str()]).collect();
    let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
    world.stream("person", Table::new(&COLUMNS, &rows));
    world
}

#[tokio::test]
async fn an_interrupted_run_goes_on_and_counts_every_row_once() {
    let world = world();
    world.destination.inner.lock().unwrap().faults.cancel_after = Some(3);
    let first = world.run().await;
    assert_eq!(first.record.state, RunState::Interrupted);
    let done = world.destination.texts("account", "number").len();
    assert!((1..20).contains(&done), "{done}");
    world.destination.take_sent();

    let second = world.run().await;
    assert_eq!(second.record.run, first.record.run, "the same run goes on");
    assert_eq!(second.record.state, RunState::Complete);
    assert_eq!(second.record.rows(), LoadRows { prepared: 20, created: 20, ..LoadRows::default() });
    let sent: usize = world.destination.take_sent().iter().map(|(_, rows)| rows).sum();
    assert_eq!(sent, 20 - done, "acknowledged rows are not sent again");
    assert_eq!(world.rows().await, LoadRows { prepared: 20, unchanged: 20, ..LoadRows::default() });
}

#[tokio::test]
async fn a_lost_answer_does_not_double_or_lose_a_row() {
    for lose_after in 0..10 {
        let world = world();
        world.destination.inner.lock().unwrap().faults.lose_after = Some(lose_after);
        let first = world.run().await;
        assert_eq!(first.record.state, RunState::Failed);
        let second = world.run().await;
        assert_eq!(second.record.rows(), LoadRows { prepared: 20, created: 20, ..LoadRows::default() }, "{lose_after}");
        assert_eq!(world.destination.texts("account", "number").len(), 20);
        assert_eq!(world.rows().await.unchanged, 20);
    }
}

#[tokio::test]
async fn a_change_made_before_the_stop_is_not_forgotten() {
    let mut world = world();
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "changed"], &["n1", "changed"], &["n2", "changed"]]));
    world.destination.take_sent();
    world.destination.inner.lock().unwrap().faults.lose_after = Some(0);
    assert_eq!(world.run().await.record.state, RunState::Failed);
    let rows = world.rows().await;
    assert_eq!((rows.updated, rows.gone, rows.kept), (3, 17, 17));
    let names = world.destination.texts("account", "name");
    assert_eq!(names.iter().filter(|name| *name == "changed").count(), 3);
}

#[tokio::test]
async fn a_run_without_its_ledger_does_not_send_everything_again() {
    let world = world();
    world.destination.inner.lock().unwrap().faults.cancel_after = Some(3);
    let first = world.run().await;
    assert_eq!(first.record.state, RunState::Interrupted);
    let ledger = find(world.dir.path(), "pass-1.ledger").unwrap();
    fs_err::remove_file(&ledger).unwrap();
    world.destination.take_sent();
    let error = world.run().await.error.unwrap();
    assert_eq!(error.code(), Code::STATE_DAMAGED, "{error}");
    assert_eq!(world.destination.take_sent(), []);

    let adopted = world.run_with(RunOptions { adopt: true, ..RunOptions::default() }).await;
    assert_eq!(adopted.record.rows().prepared, 20);
    assert_eq!(world.destination.texts("account", "number").len(), 20);
}

/// The first file of that name below `dir`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() { find(&path, name) } else { (path.file_name().unwrap() == name).then_some(path) }
    })
}

#[tokio::test]
async fn a_row_that_was_removed_before_the_stop_and_is_wanted_after_it_comes_back() {
    for missing in [Missing::Delete, Missing::Deactivate] {
        let mut world = world();
        world.load().missing = missing;
        world.rows().await;
        let all = world.load().sql.text.clone();
        world.load().sql.text = format!("{all} WHERE number = 'n0'");
        world.destination.take_sent();
        world.destination.inner.lock().unwrap().faults.cancel_after = Some(3);
        assert_eq!(world.run().await.record.state, RunState::Interrupted);

        world.load().sql.text = all;
        let rows = world.rows().await;
        assert_eq!((rows.prepared, rows.gone), (20, 0), "{rows:?}");
        assert_eq!(world.destination.texts("account", "number").len(), 20);
        let inactive = |inner: &Inner| inner.statuses.values().filter(|status| **status == Some(2)).count();
        assert_eq!(inactive(&world.destination.inner.lock().unwrap()), 0);
        assert_eq!(world.rows().await, LoadRows { prepared: 20, unchanged: 20, ..LoadRows::default() });
    }
}

#[tokio::test]
async fn rows_that_were_removed_before_the_stop_are_not_removed_again() {
    let mut world = world();
    world.load().missing = Missing::Delete;
    world.rows().await;
    world.load().sql.text.push_str(" WHERE number = 'n0'");
    world.destination.take_sent();
    world.destination.inner.lock().unwrap().faults.cancel_after = Some(3);
    assert_eq!(world.run().await.record.state, RunState::Interrupted);
    world.load().missing = Missing::Keep;
    let expected = LoadRows { prepared: 1, unchanged: 1, gone: 19, deleted: 6, kept: 13, ..LoadRows::default() };
    assert_eq!(world.rows().await, expected);
    assert_eq!(world.destination.take_sent().len(), 3, "nothing after the stop");
}

#[tokio::test]
async fn a_row_that_returns_is_active_even_if_the_run_was_stopped_before_it_said_so() {
    let mut world = world();
    world.load().missing = Missing::Deactivate;
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "n0"]]));
    assert_eq!(world.rows().await.deactivated, 19);
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "n0"], &["n1", "changed"]]));
    world.destination.take_sent();
    world.destination.inner.lock().unwrap().faults.cancel_after = Some(1);
    assert_eq!(world.run().await.record.state, RunState::Interrupted);
    assert_eq!(world.destination.take_sent(), [(Operation::Update, 1)]);
    assert_eq!(world.rows().await.updated, 1);
    assert_eq!(world.destination.take_sent(), [(Operation::SetState, 1)]);
}

#[tokio::test]
async fn what_was_written_before_the_stop_and_is_gone_after_it_is_not_taken_for_the_old_row() {
    let mut world = world();
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "new"], &["n1", "n1"]]));
    world.destination.take_sent();
    world.destination.inner.lock().unwrap().faults.cancel_after = Some(1);
    assert_eq!(world.run().await.record.state, RunState::Interrupted);
    world.load().sql.text.push_str(" WHERE number <> 'n0'");
    world.rows().await;
    // As the state still had it.
    world.load().sql.text = "SELECT number, name FROM person".into();
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "n0"], &["n1", "n1"]]));
    assert_eq!(world.rows().await.updated, 1);
    assert!(!world.destination.texts("account", "name").contains(&"new".to_owned()));
}

/// Seconds by the clock that a run took.
fn seconds(outcome: &flowgate_engine::RunOutcome) -> i64 {
    let record = &outcome.record;
    record.finished.unwrap().duration_since(record.started).as_secs()
}

#[tokio::test]
async fn a_newer_version_waits_until_no_older_one_can_come_late() {
    let mut world = world();
    // The clock of each engine begins anew.
    let given_up = world.engine().clock.now();
    world.destination.inner.lock().unwrap().unanswered = Some(given_up);
    assert!(seconds(&world.run().await) < 300, "the first version has nothing to wait for");
    world.destination.inner.lock().unwrap().unanswered = None;
    assert!(seconds(&world.run().await) < 300, "nothing is sent");
    world.stream("person", Table::new(&COLUMNS, &[&["n0", "changed"]]));
    assert!(seconds(&world.run().await) >= 299);
}
