//! References between rows.

use std::collections::BTreeMap;

use flowgate_core::project::{Lookup, LookupRule, Missing};
use flowgate_core::{LoadRows, Operation};
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

const FAMILY: [&str; 3] = ["number", "name", "parent"];

/// Accounts that belong to each other.
fn family(accounts: &[&[&str]]) -> World {
    let mut load = load("accounts", "account", "SELECT number, name, parent FROM company");
    load.lookups = BTreeMap::from([("parent".to_owned(), lookup("account", "number", None))]);
    let mut world = World::new(vec![shape("account", &["number", "name"], &[("parent", "account")])], vec![load]);
    world.stream("company", Table::new(&FAMILY, accounts));
    world
}

#[tokio::test]
async fn rows_that_refer_to_their_own_table_take_a_second_pass() {
    let world = family(&[&["1", "Child", "2"], &["2", "Mother", ""], &["3", "Twin", "2"]]);
    assert_eq!(world.rows().await, LoadRows { prepared: 3, created: 3, ..LoadRows::default() });
    let parents = world.destination.texts("account", "parent");
    assert_eq!(parents.iter().filter(|parent| !parent.is_empty()).count(), 2, "{parents:?}");
    assert_eq!(world.rows().await, LoadRows { prepared: 3, unchanged: 3, ..LoadRows::default() });
}

#[tokio::test]
async fn what_is_gone_goes_with_the_second_pass_and_is_counted_once() {
    for (missing, expected) in [
        (Missing::Delete, LoadRows { gone: 1, deleted: 1, ..LoadRows::default() }),
        (Missing::Deactivate, LoadRows { gone: 1, deactivated: 1, ..LoadRows::default() }),
        (Missing::Keep, LoadRows { gone: 1, kept: 1, ..LoadRows::default() }),
    ] {
        let mut world = family(&[&["1", "Child", "2"], &["2", "Mother", ""], &["3", "Twin", "2"]]);
        world.load().missing = missing;
        world.rows().await;
        world.destination.take_sent();
        // 3 is gone; 4 and 5 are new, and one refers to the other.
        world.stream(
            "company",
            Table::new(&FAMILY, &[&["1", "Child", "2"], &["2", "Mother", ""], &["4", "Aunt", "5"], &["5", "Gran", ""]]),
        );
        assert_eq!(world.rows().await, LoadRows { prepared: 4, created: 2, unchanged: 2, ..expected });
        let sent = world.destination.take_sent();
        let last = (missing != Missing::Keep).then(|| sent[sent.len() - 1].0);
        let removal = [(Missing::Delete, Operation::Delete), (Missing::Deactivate, Operation::Deactivate)];
        assert_eq!(last, removal.iter().find(|(rule, _)| *rule == missing).map(|(_, operation)| *operation));
        assert_eq!(world.rows().await, LoadRows { prepared: 4, unchanged: 4, ..LoadRows::default() });
    }
}

#[tokio::test]
async fn a_second_pass_is_neither_guarded_again_nor_taken_for_a_run_that_was_stopped() {
    let mut world = family(&[&["1", "Alone", ""]]);
    world.rows().await;
    world.load().guards.update_percent_max = Some(50.0);
    world.stream("company", Table::new(&FAMILY, &[&["1", "Alone", ""], &["2", "Child", "3"], &["3", "Mother", ""]]));
    assert_eq!(world.rows().await, LoadRows { prepared: 3, created: 2, unchanged: 1, ..LoadRows::default() });
    let manifest = world.store().manifest(&world.flow.name, &world.flow.loads[0].name).unwrap().unwrap();
    assert!(manifest.json.contains("\"unanswered\":null"), "nothing is left to wait for");
}

#[tokio::test]
async fn the_letter_of_an_orphan_that_is_loaded_says_so() {
    let world = family(&[&["1", "Child", "9"]]);
    assert_eq!(world.run().await.record.rows().quarantined, 1);
    assert_eq!(world.destination.texts("account", "name"), ["Child"]);
    let letter = world.store().letters(&LetterFilter::default(), None, 10).unwrap().letters.remove(0);
    assert_eq!(letter.reason, "no row of `account` with `number` = `9`; apart from this reference the row was loaded");
}
