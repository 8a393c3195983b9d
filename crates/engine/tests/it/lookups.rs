//! References between rows.

use std::collections::BTreeMap;

use flowgate_core::LoadRows;
use flowgate_core::project::{Lookup, LookupRule};
use flowgate_store::{LetterFilter, RunState};

use crate::fake::{Table, World, load, shape};

fn lookup(table: &str, column: &str, otherwise: Option<&str>) -> Lookup {
    let rule = LookupRule { table: table.into(), columns: vec![column.into()] };
    Lookup { rules: vec![rule], otherwise: otherwise.map(str::to_owned) }
}

/// Accounts, and contacts that belong to an account by its number.
fn world(accounts: &[&[&str]], contacts: &[&[&str]]) -> World {
    let shapes = vec![
        shape("account", &["number", "name"], &[]),
        shape("contact", &["number", "name"], &[("parent", "account")]),
    ];
    let mut people = load("contacts", "contact", "SELECT number, name, parent FROM person");
    people.lookups = BTreeMap::from([("parent".to_owned(), lookup("account", "number", None))]);
    let mut world = World::new(shapes, vec![load("accounts", "account", "SELECT number, name FROM company"), people]);
    world.stream("company", Table::new(&["number", "name"], accounts));
    world.stream("person", Table::new(&["number", "name", "parent"], contacts));
    world
}

#[tokio::test]
async fn a_reference_finds_a_row_loaded_before_it() {
    let world = world(&[&["A1", "Acme"]], &[&["1", "Ann", "a1"]]);
    assert_eq!(world.rows().await, LoadRows { prepared: 2, created: 2, ..LoadRows::default() });
    let id = *world.destination.inner.lock().unwrap().rows["account"].keys().next().unwrap();
    assert_eq!(world.destination.texts("contact", "parent"), [format!("account/{id}")]);
}

#[tokio::test]
async fn an_orphan_waits_for_its_parent() {
    let mut world = world(&[&["A1", "Acme"]], &[&["1", "Ann", "A1"], &["2", "Bob", "A2"]]);
    let outcome = world.run().await;
    assert_eq!(outcome.record.state, RunState::CompleteWithLetters);
    assert_eq!(outcome.record.rows(), LoadRows { prepared: 3, created: 2, quarantined: 1, ..LoadRows::default() });
    world.stream("company", Table::new(&["number", "name"], &[&["A1", "Acme"], &["A2", "Bolt"]]));
    assert_eq!(world.rows().await, LoadRows { prepared: 4, created: 2, unchanged: 2, ..LoadRows::default() });
    assert_eq!(world.store().count_letters(&LetterFilter::default()).unwrap(), 0);
}

#[tokio::test]
async fn a_default_stands_in_for_what_is_not_found() {
    let mut world = world(&[&["A1", "Acme"]], &[&["1", "Ann", ""], &["2", "Bob", "A9"]]);
    world.flow.loads[1].lookups = BTreeMap::from([("parent".to_owned(), lookup("account", "number", Some("A1")))]);
    assert_eq!(world.rows().await.created, 3);
    assert!(world.destination.texts("contact", "parent").iter().all(|parent| parent.starts_with("account/")));
}

#[tokio::test]
async fn two_rows_with_one_natural_key_are_not_guessed_between() {
    let mut world = world(&[&["A1", "Acme"], &["A2", "Acme"]], &[&["1", "Ann", "Acme"]]);
    world.flow.loads[1].lookups = BTreeMap::from([("parent".to_owned(), lookup("account", "name", None))]);
    let rows = world.rows().await;
    assert_eq!((rows.created, rows.quarantined), (2, 1));
}

#[tokio::test]
async fn rows_that_refer_to_their_own_table_take_a_second_pass() {
    let mut load = load("accounts", "account", "SELECT number, name, parent FROM company");
    load.lookups = BTreeMap::from([("parent".to_owned(), lookup("account", "number", None))]);
    let mut world = World::new(vec![shape("account", &["number", "name"], &[("parent", "account")])], vec![load]);
    let columns = ["number", "name", "parent"];
    world.stream("company", Table::new(&columns, &[&["1", "Child", "2"], &["2", "Mother", ""], &["3", "Twin", "2"]]));
    assert_eq!(world.rows().await, LoadRows { prepared: 3, created: 3, ..LoadRows::default() });
    let parents = world.destination.texts("account", "parent");
    assert_eq!(parents.iter().filter(|parent| !parent.is_empty()).count(), 2, "{parents:?}");
    assert_eq!(world.rows().await, LoadRows { prepared: 3, unchanged: 3, ..LoadRows::default() });
}
