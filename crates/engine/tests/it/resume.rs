//! Runs that stop in the middle and go on.

use flowgate_core::LoadRows;
use flowgate_store::RunState;

use crate::fake::{Table, World, load, shape};

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
