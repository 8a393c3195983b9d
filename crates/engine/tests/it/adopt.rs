//! What a first run reads of the destination.

use flowgate_core::LoadRows;

use crate::fake::{Table, World, load, shape};

const COLUMNS: [&str; 2] = ["number", "name"];

#[tokio::test]
async fn nothing_is_read_where_no_row_could_be_ours() {
    let sql = "SELECT number, name FROM person";
    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.stream("person", Table::new(&COLUMNS, &[]));
    assert_eq!(world.rows().await, LoadRows::default());
    assert_eq!(world.destination.inner.lock().unwrap().reads, 0);

    let mut world = World::new(vec![shape("account", &COLUMNS, &[])], vec![load("accounts", "account", sql)]);
    world.stream("person", Table::new(&COLUMNS, &[&["1", "Ann"]]));
    world.rows().await;
    assert_eq!(world.destination.inner.lock().unwrap().reads, 1, "but one row may be there");
}
