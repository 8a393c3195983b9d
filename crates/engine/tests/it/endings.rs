//! How a run ends when its last words cannot be written.

use flowgate_core::Code;
use flowgate_store::{Letter, LetterStatus, RunState, letter_id};
use jiff::Timestamp;

use crate::fake::{Table, World, load, shape};

const COLUMNS: [&str; 2] = ["number", "name"];

const NO_LAST_WORD: &str = "CREATE TRIGGER no_last_word BEFORE UPDATE ON runs WHEN NEW.finished IS NOT NULL
                            BEGIN SELECT RAISE(ABORT, 'no last word'); END";

fn world() -> World {
    let sql = "SELECT number, name FROM person";
    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann"]]));
    world.store();
    world
}

#[tokio::test]
async fn a_run_whose_end_cannot_be_saved_failed_for_that() {
    let world = world();
    world.database().execute_batch(NO_LAST_WORD).unwrap();
    let outcome = world.run().await;
    assert_eq!(outcome.record.state, RunState::Failed);
    assert!(outcome.error.is_some());
    world.database().execute_batch("DROP TRIGGER no_last_word").unwrap();
    let next = world.run().await;
    assert_eq!((next.record.run, next.record.state), (outcome.record.run, RunState::Complete), "it goes on");
}

#[tokio::test]
async fn the_cause_of_a_failure_is_not_hidden_by_another() {
    let world = world();
    world.destination.inner.lock().unwrap().faults.lose_after = Some(0);
    world.database().execute_batch(NO_LAST_WORD).unwrap();
    let outcome = world.run().await;
    assert_eq!(outcome.error.unwrap().code(), Code::SERVICE_FAILED);
}

#[tokio::test]
async fn a_complete_run_stays_complete_when_its_leftovers_cannot_be_removed() {
    let world = world();
    let store = world.store();
    let lease = store.lease_flow(&world.flow.name, Timestamp::UNIX_EPOCH).unwrap();
    let old = Letter {
        id: letter_id(&world.flow.name, "elsewhere", None, "old"),
        flow: world.flow.name.clone(),
        place: "elsewhere".into(),
        key_hash: None,
        key_text: "old".into(),
        row_hash: 0,
        project_version: String::new(),
        metadata_version: String::new(),
        attempts: 1,
        first_at: Timestamp::UNIX_EPOCH,
        last_at: Timestamp::UNIX_EPOCH,
        code: Code::ROW_REFUSED,
        column: None,
        reason: String::new(),
        service_code: None,
        request_id: None,
        file: None,
        line: None,
        offset: None,
        payload: String::new(),
        status: LetterStatus::Quarantined,
    };
    store.save_letters(&lease, &[old]).unwrap();
    drop(lease);
    let stuck = "CREATE TRIGGER stuck BEFORE DELETE ON letters BEGIN SELECT RAISE(ABORT, 'stuck'); END";
    world.database().execute_batch(stuck).unwrap();
    let outcome = world.run().await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.record.state, RunState::Complete);
}
