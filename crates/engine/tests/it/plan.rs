//! Plans: everything is said, nothing is sent or kept.

use flowgate_core::project::Missing;
use flowgate_core::{CancellationToken, Code};

use crate::fake::{Table, World, load, shape};

#[tokio::test]
async fn a_plan_says_what_a_run_would_do_and_does_nothing() {
    let columns = ["number", "name"];
    let mut world = World::new(
        vec![shape("account", &columns, &[])],
        vec![load("accounts", "account", "SELECT number, name FROM person")],
    );
    world.load().missing = Missing::Delete;
    world.stream("person", Table::new(&columns, &[&["1", "Ann"], &["2", "Bob"]]));
    let plan = |world: &World| {
        let engine = world.engine();
        let flow = world.flow.name.clone();
        async move { engine.plan(&flow, &CancellationToken::new()).await.unwrap() }
    };
    let first = plan(&world).await;
    assert_eq!((first.loads[0].counts.create, first.loads[0].adopted), (2, Some(0)));
    assert_eq!(world.destination.take_sent(), []);
    assert!(world.store().runs(None, 10).unwrap().is_empty());

    world.rows().await;
    world.destination.take_sent();
    world.stream("person", Table::new(&columns, &[&["1", "Eve"]]));
    let second = plan(&world).await;
    let load = &second.loads[0];
    assert_eq!((load.counts.update, load.counts.delete), (1, 1));
    let change = &load.samples[0];
    assert_eq!((change.operation, change.key.as_str()), ("update", "1"));
    assert_eq!((change.columns[0].now.as_deref(), change.columns[0].then.as_deref()), (Some("Ann"), Some("Eve")));
    let removal = &load.samples[1];
    assert_eq!((removal.operation, removal.key.as_str()), ("delete", "2"));
    assert_eq!(world.destination.take_sent(), []);
    assert_eq!(world.rows().await.updated, 1, "the run then does what the plan said");
}

#[tokio::test]
async fn with_several_users_a_load_must_say_who_owns_its_rows() {
    let mut accounts = shape("account", &["number", "name"], &[("ownerid", "team")]);
    accounts.owner = Some("ownerid".to_owned());
    let mut world = World::new(vec![accounts], vec![load("accounts", "account", "SELECT number, name FROM person")]);
    world.stream("person", Table::new(&["number", "name"], &[&["1", "Ann"]]));
    let error = world.engine().plan(&world.flow.name, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::OWNER_NOT_MAPPED);
    assert_eq!(
        error.to_string(),
        "`accounts` creates rows of `account` without `ownerid`, and `crm` has several application users"
    );
}
