//! Rows that are set aside, and how they come back.

use std::time::Duration;

use flowgate_core::project::Check;
use flowgate_core::source::Malformed;
use flowgate_core::{Clock, Code, LoadRows, Operation, StreamRows};
use flowgate_store::{LetterFilter, LetterSelection, LetterStatus};

use crate::fake::{Table, World, load, shape};

const COLUMNS: [&str; 2] = ["number", "name"];

fn world(rows: &[&[&str]]) -> World {
    let sql = "SELECT number, name FROM person";
    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.stream("person", Table::new(&COLUMNS, rows));
    world
}

#[tokio::test]
async fn a_letter_ends_when_its_row_is_fine_again_or_gone() {
    let mut world = world(&[&["1", "good"], &["2", "good"]]);
    let waiting = |world: &World| world.store().count_letters(&LetterFilter::default()).unwrap();
    world.rows().await;
    world.destination.inner.lock().unwrap().faults.refuse = Some("bad".into());
    world.stream("person", Table::new(&COLUMNS, &[&["1", "bad"], &["2", "good"], &["3", "bad"], &["4", "bad"]]));
    assert_eq!(world.run().await.record.rows().quarantined, 3);
    assert_eq!(waiting(&world), 3);
    // 1 is again as the destination has it, 3 left the source; 4 is as it was.
    world.stream("person", Table::new(&COLUMNS, &[&["1", "good"], &["2", "good"], &["4", "bad"]]));
    assert_eq!(world.run().await.record.rows().quarantined, 1);
    assert_eq!(waiting(&world), 1);
}

#[tokio::test]
async fn a_row_that_is_fine_does_not_end_the_letter_of_another_with_its_key() {
    let mut world = world(&[&["1", "Ann"], &["1", ""]]);
    world.load().checks = vec![Check::NotNull(vec!["name".into()])];
    for _ in 0..3 {
        assert_eq!(world.run().await.record.rows().quarantined, 1);
        assert_eq!(world.store().count_letters(&LetterFilter::default()).unwrap(), 1);
    }
}

#[tokio::test]
async fn a_discarded_row_stays_out_even_if_it_leaves_for_a_while() {
    let both: &[&[&str]] = &[&["1", "Ann"], &["2", "bad"]];
    let mut world = world(both);
    world.destination.inner.lock().unwrap().faults.refuse = Some("bad".into());
    world.rows().await;
    world.store().discard(&LetterSelection::Matching(LetterFilter::default())).unwrap();
    world.stream("person", Table::new(&COLUMNS, &both[..1]));
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, both));
    world.destination.take_sent();
    assert_eq!(world.rows().await.quarantined, 1);
    assert_eq!(world.destination.take_sent(), []);
}

#[tokio::test]
async fn a_refused_row_is_not_sent_again_until_something_changes() {
    let mut world = world(&[&["1", "Ann"], &["2", "bad"]]);
    world.destination.inner.lock().unwrap().faults.refuse = Some("bad".into());
    let expected = LoadRows { prepared: 2, created: 1, quarantined: 1, ..LoadRows::default() };
    assert_eq!(world.rows().await, expected);
    let letter = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters.remove(0);
    assert_eq!((letter.key_text.as_str(), letter.attempts, letter.reason.as_str()), ("2", 1, "not wanted"));

    world.destination.take_sent();
    assert_eq!(world.rows().await, LoadRows { created: 0, unchanged: 1, ..expected });
    assert_eq!(world.destination.take_sent(), [], "the same row is not sent again");

    world.version = "2".into();
    world.rows().await;
    assert_eq!(world.destination.take_sent(), [(Operation::Create, 1)], "another configuration tries it");

    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann"], &["2", "good"]]));
    assert_eq!(world.rows().await, LoadRows { prepared: 2, created: 1, unchanged: 1, ..LoadRows::default() });
    assert_eq!(world.store().count_letters(&LetterFilter::default()).unwrap(), 0, "a loaded row has no letter");
}

#[tokio::test]
async fn a_person_can_ask_to_try_a_row_again() {
    let world = world(&[&["2", "bad"]]);
    world.destination.inner.lock().unwrap().faults.refuse = Some("bad".into());
    world.rows().await;
    world.destination.inner.lock().unwrap().faults.refuse = None;
    assert_eq!(world.rows().await.quarantined, 1);
    world.store().request_retry(&LetterSelection::Matching(LetterFilter::default())).unwrap();
    assert_eq!(world.rows().await.created, 1);
}

#[tokio::test]
async fn failing_checks_set_rows_aside_and_let_the_rest_through() {
    let mut world = world(&[&["1", "Ann"], &["2", ""], &["3", "Zed"]]);
    world.load().checks = vec![Check::NotNull(vec!["name".into()]), Check::That("name < 'Z'".into())];
    assert_eq!(world.rows().await, LoadRows { prepared: 3, created: 1, quarantined: 2, ..LoadRows::default() });
    let letters = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters;
    let mut reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["`name < 'Z'` must be true", "`name` must not be empty"]);
}

#[tokio::test]
async fn a_select_with_checks_may_end_in_a_comment() {
    let mut world = world(&[&["1", "Ann"], &["2", ""]]);
    world.load().sql.text = "SELECT number, name\n  FROM person; -- by Ann".into();
    world.load().checks = vec![Check::NotNull(vec!["name".into()])];
    assert_eq!(world.rows().await, LoadRows { prepared: 2, created: 1, quarantined: 1, ..LoadRows::default() });

    world.load().checks = vec![Check::That("nmae < 'Z'".into())];
    let error = world.run().await.error.unwrap();
    assert_eq!((error.code(), error.place()), (Code::SQL_UNKNOWN_COLUMN, None), "it is not in the file of the SELECT");
}

#[tokio::test]
async fn a_quarantined_row_is_not_gone() {
    let mut world = world(&[&["1", "Ann"], &["2", "Bob"]]);
    world.load().checks = vec![Check::NotNull(vec!["name".into()])];
    world.rows().await;
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann"], &["2", ""]]));
    assert_eq!(world.rows().await, LoadRows { prepared: 2, unchanged: 1, quarantined: 1, ..LoadRows::default() });
}

#[tokio::test]
async fn malformed_input_is_counted_and_kept() {
    let world = world(&[&["1", "Ann"]]);
    let malformed = Malformed {
        file: Some("a.csv".into()),
        line: Some(7),
        offset: None,
        reason: "too few fields".into(),
        text: "x".into(),
        key_unknown: true,
    };
    world.source.malformed.lock().unwrap().push(malformed);
    let outcome = world.run().await;
    let rows = outcome.record.streams.values().next().unwrap().rows;
    assert_eq!(rows, StreamRows { extracted: 2, staged: 1, malformed: 1 });
    let letter = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters.remove(0);
    assert_eq!((letter.file.as_deref(), letter.line), (Some("a.csv"), Some(7)));
}

#[tokio::test]
async fn a_mended_line_has_no_letter() {
    let world = world(&[&["1", "Ann"]]);
    let line = |line| Malformed {
        file: Some("a.csv".into()),
        line: Some(line),
        offset: None,
        reason: "too few fields".into(),
        text: "x".into(),
        key_unknown: false,
    };
    *world.source.malformed.lock().unwrap() = vec![line(7), line(8)];
    world.run().await;
    *world.source.malformed.lock().unwrap() = vec![line(8)];
    world.run().await;
    let letters = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters;
    let left: Vec<_> = letters.iter().map(|letter| (letter.line, letter.attempts)).collect();
    assert_eq!(left, [(Some(8), 2)]);
}

#[tokio::test]
async fn a_discarded_row_stays_out_for_longer_than_letters_are_kept() {
    let world = world(&[&["1", "Ann"], &["2", "bad"]]);
    world.destination.inner.lock().unwrap().faults.refuse = Some("bad".into());
    world.rows().await;
    world.store().discard(&LetterSelection::Matching(LetterFilter::default())).unwrap();
    for _ in 0..2 {
        world.clock.sleep(Duration::from_hours(31 * 24)).await;
        world.destination.take_sent();
        assert_eq!(world.rows().await.quarantined, 1);
        assert_eq!(world.destination.take_sent(), []);
    }
    let letter = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters.remove(0);
    assert_eq!((letter.status, letter.payload.as_str()), (LetterStatus::Discarded, "{}"));
}
