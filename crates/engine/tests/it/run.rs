//! Classes of rows over several runs.

use std::collections::BTreeMap;

use flowgate_core::project::{ColumnRule, DeletedThere, Master, Missing, Nulls, StateAction, StateRule};
use flowgate_core::{Code, LoadRows, Operation, StreamName};
use flowgate_engine::RunOptions;
use flowgate_store::RunState;

use crate::fake::{Inner, Table, World, load, shape};

const COLUMNS: [&str; 3] = ["number", "name", "city"];

fn world(rows: &[&[&str]]) -> World {
    let sql = "SELECT _row, number, name, city FROM person";
    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.stream("person", Table::new(&COLUMNS, rows));
    world
}

fn rows(prepared: u64) -> LoadRows {
    LoadRows { prepared, ..LoadRows::default() }
}

#[tokio::test]
async fn a_second_run_sends_only_what_changed() {
    let mut world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"], &["3", "Cy", ""]]);
    assert_eq!(world.rows().await, LoadRows { created: 3, ..rows(3) });
    assert_eq!(world.destination.texts("account", "name"), ["Ann", "Bob", "Cy"]);

    world.destination.take_sent();
    assert_eq!(world.rows().await, LoadRows { unchanged: 3, ..rows(3) });
    assert_eq!(world.destination.take_sent(), []);

    world.destination.inner.lock().unwrap().columns_sent.clear();
    world.stream(
        "person",
        Table::new(&COLUMNS, &[&["1", "Ann", "Bath"], &["2", "Bob", "York"], &["3", "Cy", ""], &["4", "Di", ""]]),
    );
    assert_eq!(world.rows().await, LoadRows { created: 1, updated: 1, unchanged: 2, ..rows(4) });
    assert_eq!(world.destination.take_sent(), [(Operation::Create, 1), (Operation::Update, 1)]);
    assert_eq!(world.destination.texts("account", "city"), ["", "", "Bath", "York"]);
}

#[tokio::test]
async fn only_changed_columns_are_sent() {
    let mut world = world(&[&["1", "Ann", "Bath"]]);
    world.rows().await;
    world.destination.inner.lock().unwrap().columns_sent.clear();
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", "York"]]));
    world.rows().await;
    let sent = world.destination.inner.lock().unwrap().columns_sent.clone();
    assert_eq!(sent.into_iter().collect::<Vec<_>>(), ["city"]);
}

#[tokio::test]
async fn a_key_that_goes_and_comes_back_is_an_update() {
    let mut world = world(&[&["1", "Ann", ""], &["2", "Bob", ""]]);
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", ""]]));
    assert_eq!(world.rows().await, LoadRows { unchanged: 1, gone: 1, kept: 1, ..rows(1) });
    assert_eq!(world.rows().await, LoadRows { unchanged: 1, ..rows(1) }, "a tombstone is gone only once");
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", ""], &["2", "Bob", "Ely"]]));
    assert_eq!(world.rows().await, LoadRows { unchanged: 1, updated: 1, ..rows(2) });
    assert_eq!(world.destination.texts("account", "city"), ["", "Ely"]);
}

#[tokio::test]
async fn missing_rows_are_deleted_or_deactivated_when_that_is_asked() {
    for (missing, expected) in [
        (Missing::Delete, LoadRows { unchanged: 1, gone: 1, deleted: 1, ..rows(1) }),
        (Missing::Deactivate, LoadRows { unchanged: 1, gone: 1, deactivated: 1, ..rows(1) }),
    ] {
        let mut world = world(&[&["1", "Ann", ""], &["2", "Bob", ""]]);
        world.load().missing = missing;
        world.rows().await;
        world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", ""]]));
        assert_eq!(world.rows().await, expected);
        world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", ""], &["2", "Bob", ""]]));
        let back = world.rows().await;
        assert_eq!((back.created + back.updated, back.unchanged), (1, 1), "{missing:?}");
        assert_eq!(world.destination.texts("account", "name"), ["Ann", "Bob"]);
    }
}

#[tokio::test]
async fn an_empty_source_stops_the_load_before_it_deletes() {
    let mut world = world(&[&["1", "Ann", ""]]);
    world.load().missing = Missing::Delete;
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[]));
    let outcome = world.run().await;
    assert_eq!(outcome.record.state, RunState::StoppedByGuard);
    assert_eq!(outcome.record.rows(), LoadRows { gone: 1, gone_pending: 1, ..rows(0) });
    assert_eq!(world.destination.texts("account", "name"), ["Ann"]);
}

#[tokio::test]
async fn of_two_rows_with_one_key_the_latest_counts() {
    let mut world = world(&[&["A", "old", "1"], &["a ", "new", "2"], &["b", "x", "1"], &["b", "x", "1"]]);
    world.load().latest_by = Some("city".into());
    assert_eq!(world.rows().await, LoadRows { created: 2, superseded: 2, ..rows(4) });
    assert_eq!(world.destination.texts("account", "name"), ["new", "x"]);
}

#[tokio::test]
async fn column_rules_decide_whose_value_counts() {
    let mut world = world(&[&["1", "Ann", "Bath"]]);
    let rule = |nulls, master| ColumnRule { nulls, master };
    world.load().columns = BTreeMap::from([
        ("name".to_owned(), rule(Nulls::Clear, Master::Destination)),
        ("city".to_owned(), rule(Nulls::Keep, Master::Source)),
    ]);
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Other", ""]]));
    assert_eq!(world.rows().await, LoadRows { unchanged: 1, ..rows(1) });
    assert_eq!(world.destination.texts("account", "name"), ["Ann"]);
    assert_eq!(world.destination.texts("account", "city"), ["Bath"]);
}

#[tokio::test]
async fn a_column_that_is_only_filled_leaves_what_a_person_entered_meanwhile() {
    let mut world = world(&[&["1", "Ann", ""], &["2", "Bob", ""]]);
    let filling = ColumnRule { master: Master::FillIfEmpty, ..ColumnRule::default() };
    world.load().columns = BTreeMap::from([("city".to_owned(), filling)]);
    world.rows().await;
    let by_hand = |row: &mut BTreeMap<String, String>| row.insert("city".to_owned(), "by hand".to_owned());
    let mut rows_there = std::mem::take(&mut world.destination.inner.lock().unwrap().rows);
    rows_there.get_mut("account").unwrap().values_mut().filter(|row| row["number"] == "1").for_each(|row| {
        by_hand(row);
    });
    world.destination.inner.lock().unwrap().rows = rows_there;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]));
    assert_eq!(world.rows().await, LoadRows { updated: 2, ..rows(2) });
    assert_eq!(world.destination.texts("account", "city"), ["Ely", "by hand"]);
}

#[tokio::test]
async fn a_value_that_moves_to_another_column_is_sent() {
    let mut world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]);
    world.load().sql.text = "SELECT number, name FROM person".into();
    world.rows().await;
    world.load().sql.text = "SELECT number, name AS city FROM person".into();
    assert_eq!(world.rows().await, LoadRows { updated: 2, ..rows(2) });
    assert_eq!(world.destination.texts("account", "city"), ["Ann", "Bob"]);
}

#[tokio::test]
async fn a_column_that_becomes_the_sources_is_compared_anew() {
    let mut world = world(&[&["1", "Ann", "Bath"]]);
    let theirs = ColumnRule { master: Master::Destination, ..ColumnRule::default() };
    world.load().columns = BTreeMap::from([("name".to_owned(), theirs)]);
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Other", "Bath"]]));
    assert_eq!(world.rows().await, LoadRows { unchanged: 1, ..rows(1) });
    world.load().columns.clear();
    assert_eq!(world.rows().await, LoadRows { updated: 1, ..rows(1) });
    assert_eq!(world.destination.texts("account", "name"), ["Other"]);
}

#[tokio::test]
async fn other_match_columns_are_not_taken_for_new_rows() {
    let mut world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]);
    world.rows().await;
    world.load().match_columns = vec!["name".into()];
    world.destination.take_sent();
    let error = world.run().await.error.unwrap();
    assert_eq!(error.code(), Code::STATE_OF_OTHER_ROWS, "{error}");
    assert_eq!(world.destination.take_sent(), []);

    let outcome = world.run_with(RunOptions { adopt: true, ..RunOptions::default() }).await;
    assert_eq!(outcome.record.rows(), LoadRows { unchanged: 2, ..rows(2) });
}

#[tokio::test]
async fn a_row_that_comes_again_with_other_values_is_decided_with_the_one_that_did_not_change() {
    let mut world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]);
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", "Bath"], &["1", "Abe", "Ely"], &["2", "Bob", "Ely"]]));
    // By content `Ann` is the later one, so nothing changes; of two alike the second is one too many.
    assert_eq!(world.rows().await, LoadRows { unchanged: 2, superseded: 1, ..rows(3) });
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", "Bath"], &["1", "Zoe", "Ely"], &["2", "Bob", "Ely"]]));
    assert_eq!(world.rows().await, LoadRows { updated: 1, unchanged: 1, superseded: 1, ..rows(3) });
    world.stream("person", Table::new(&COLUMNS, &[&["2", "Bob", "Ely"], &["1", "Zoe", "Ely"], &["2", "Bob", "Ely"]]));
    assert_eq!(world.rows().await, LoadRows { unchanged: 2, superseded: 1, ..rows(3) });
}

#[tokio::test]
async fn rows_that_are_there_already_are_adopted() {
    let world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]);
    {
        let mut inner = world.destination.inner.lock().unwrap();
        let row = |name: &str, city: &str, number: &str| {
            [("number", number), ("name", name), ("city", city)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        };
        let table = inner.rows.entry("account".into()).or_default();
        table.insert(uuid::Uuid::from_u128(1), row("Ann", "Bath", "1"));
        table.insert(uuid::Uuid::from_u128(9), row("Zoe", "Hull", "9"));
    }
    assert_eq!(world.rows().await, LoadRows { created: 1, unchanged: 1, ..rows(2) });
    assert_eq!(world.destination.texts("account", "name"), ["Ann", "Bob", "Zoe"]);
}

fn close_what_is_done(world: &mut World) {
    world.load().sql.text = "SELECT number, name, city AS phase FROM person".into();
    let close = BTreeMap::from([("done".to_owned(), StateAction::Close("Solved".into()))]);
    world.load().state = Some(StateRule { column: "phase".into(), actions: close, refuses_others: false });
}

#[tokio::test]
async fn a_key_that_several_rows_have_is_a_letter_and_never_one_row_more() {
    let world = world(&[&["1", "Ann", "Bath"], &["2", "Bob", "Ely"]]);
    let row = |name: &str| [("number", "1"), ("name", name)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let doubled = [(1, row("Ann").into()), (2, row("Anna").into())].map(|(id, row)| (uuid::Uuid::from_u128(id), row));
    world.destination.inner.lock().unwrap().rows.insert("account".into(), doubled.into());
    for adopt in [false, true, false] {
        let outcome = world.run_with(RunOptions { adopt, ..RunOptions::default() }).await;
        assert_eq!(outcome.record.rows().quarantined, 1);
        assert_eq!(world.destination.texts("account", "name"), ["Ann", "Anna", "Bob"]);
    }
    world.destination.inner.lock().unwrap().rows.get_mut("account").unwrap().remove(&uuid::Uuid::from_u128(2));
    let outcome = world.run_with(RunOptions { adopt: true, ..RunOptions::default() }).await;
    assert_eq!(outcome.record.rows(), LoadRows { updated: 1, unchanged: 1, ..rows(2) });
}

#[tokio::test]
async fn of_several_rows_with_one_key_the_one_that_we_wrote_is_ours() {
    let world = world(&[&["1", "Ann", "Bath"]]);
    world.rows().await;
    let other = [("number".to_owned(), "1".to_owned()), ("name".to_owned(), "Anna".to_owned())];
    let table =
        |rows: &mut Inner| rows.rows.get_mut("account").unwrap().insert(uuid::Uuid::max(), other.clone().into());
    table(&mut world.destination.inner.lock().unwrap());
    let outcome = world.run_with(RunOptions { adopt: true, ..RunOptions::default() }).await;
    assert_eq!(outcome.record.rows(), LoadRows { unchanged: 1, ..rows(1) });
}

#[tokio::test]
async fn a_status_follows_the_state_rule() {
    let mut world = world(&[&["1", "Ann", "done"], &["2", "Bob", "open"]]);
    close_what_is_done(&mut world);
    assert_eq!(world.rows().await, LoadRows { created: 2, ..rows(2) });
    assert_eq!(world.destination.take_sent(), [(Operation::Create, 2), (Operation::SetState, 1)]);
    assert_eq!(world.rows().await, LoadRows { unchanged: 2, ..rows(2) });

    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann", "open"], &["2", "Bob", "done"]]));
    // A value without an entry leaves the status alone: the row that was closed stays closed.
    assert_eq!(world.rows().await, LoadRows { updated: 1, unchanged: 1, ..rows(2) });
    assert_eq!(world.destination.take_sent(), [(Operation::SetState, 1)]);
}

#[tokio::test]
async fn a_row_that_is_created_again_gets_its_status_again() {
    let mut world = world(&[&["1", "Ann", "done"]]);
    close_what_is_done(&mut world);
    world.load().deleted_there = DeletedThere::Recreate;
    world.rows().await;
    world.destination.inner.lock().unwrap().rows.clear();
    world.destination.take_sent();
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Anna", "done"]]));
    // One row that is gone is not taken for a destination that went back in time.
    world.rows().await;
    let sent = world.destination.take_sent();
    assert_eq!(sent, [(Operation::Update, 1), (Operation::Create, 1), (Operation::SetState, 1)]);
}

#[tokio::test]
async fn driver_rows_that_the_select_leaves_out_are_counted() {
    let mut world = world(&[&["1", "Ann", ""], &["2", "Bob", ""], &["3", "Cy", ""]]);
    world.load().sql.text.push_str(" WHERE number <> '2'");
    world.load().driver = Some(StreamName::new("person").unwrap());
    assert_eq!(world.rows().await, LoadRows { created: 2, dropped: 1, ..rows(2) });
    world.load().guards.dropped_max = Some(0);
    world.load().sql.text.push_str(" AND number <> '3'");
    assert_eq!(world.run().await.record.state, RunState::StoppedByGuard);
}

#[tokio::test]
async fn a_row_without_a_key_is_set_aside() {
    let world = world(&[&["1", "Ann", ""], &["", "Nobody", ""]]);
    let outcome = world.run().await;
    assert_eq!(outcome.record.state, RunState::CompleteWithLetters);
    assert_eq!(outcome.record.rows(), LoadRows { created: 1, quarantined: 1, ..rows(2) });
}
