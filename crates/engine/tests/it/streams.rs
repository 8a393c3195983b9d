//! Streams that are read on from a cursor, and how changes become a part of the image.

use flowgate_core::project::Missing;
use flowgate_core::{LoadRows, StreamRows};

use crate::fake::{Table, World, load, shape};

const COLUMNS: [&str; 2] = ["number", "amount"];

/// A stream with a key and a cursor.
fn world(rows: &[&[&str]]) -> World {
    let sql = "SELECT number, amount FROM invoice";
    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.load().missing = Missing::Delete;
    world.stream("invoice", Table::new(&COLUMNS, rows));
    let stream = world.flow.streams.values_mut().next().unwrap();
    stream.key = vec!["number".into()];
    stream.is_incremental = true;
    world
}

type Rows<'a> = &'a [&'a [&'a str]];

/// What the source gives from now on to those who read on: (changed rows, deleted keys).
fn change(world: &World, batches: &[(Rows<'_>, Rows<'_>)]) {
    let batch = |(rows, keys): &(Rows<'_>, Rows<'_>)| (Table::new(&COLUMNS, rows), Table::new(&["number"], keys));
    world.source.changes.lock().unwrap().insert("invoice".into(), batches.iter().map(batch).collect());
}

#[tokio::test]
async fn the_last_word_on_a_key_counts() {
    let world = world(&[&["1", "a"], &["2", "b"], &["3", "c"]]);
    world.rows().await;
    // 4 comes and goes, 3 goes, 1 goes and comes back.
    change(&world, &[(&[&["4", "d"]], &[&["4"], &["1"], &["3"]]), (&[&["1", "again"]], &[])]);
    let expected = LoadRows { prepared: 2, updated: 1, unchanged: 1, gone: 1, deleted: 1, ..LoadRows::default() };
    assert_eq!(world.rows().await, expected);
    assert_eq!(world.destination.texts("account", "amount"), ["again", "b"]);
}

#[tokio::test]
async fn values_of_the_last_image_that_are_not_of_a_new_type_are_not_lost() {
    let mut world = world(&[&["1", "1.50"], &["2", "n/a"]]);
    world.load().missing = Missing::Keep;
    world.rows().await;
    change(&world, &[(&[&["1", "2.50"]], &[])]);
    world.stream("invoice", Table::new(&COLUMNS, &[&["1", "2.50"], &["2", "n/a"]]));
    let stream = world.flow.streams.values_mut().next().unwrap();
    stream.columns.insert("amount".into(), "decimal(10,2)".into());
    let outcome = world.run().await;
    let rows = outcome.record.streams.values().next().unwrap().rows;
    assert_eq!(rows, StreamRows { extracted: 2, staged: 1, malformed: 1 }, "it is read as a whole");
    assert_eq!(world.destination.texts("account", "amount"), ["2.50", "n/a"]);
    assert_eq!(world.rows().await.unchanged, 1, "the next read goes on from the cursor");
}
