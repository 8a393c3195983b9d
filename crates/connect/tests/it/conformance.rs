//! What every connector owes, checked against every row of the registry.
//!
//! A fixture brings up the real system with one stream of three columns (`id`, the key, `name` and
//! `stamp`) and knows how to change it; the clauses know nothing about the system behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowgate_connect::CONNECTORS;
use flowgate_core::connector::{ConnectorSpec, FieldError, OpenRequest};
use flowgate_core::source::{Image, ReadRequest};
use flowgate_core::{Cursor, ErrorKind, Source};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::fixtures::{DataverseFixture, FilesFixture, Fixture, FixtureRow, PostgresFixture, SqliteFixture};
use crate::support::{Everything, clock, open_source, read, request, shown};

/// More than any connector puts into one batch.
const MANY_ROWS: i64 = 20_000;

#[tokio::test]
async fn dataverse_conforms() {
    conforms(&DataverseFixture::start().await).await;
}

#[tokio::test]
async fn files_conform() {
    conforms(&FilesFixture::start()).await;
}

#[tokio::test]
async fn postgres_conforms() {
    conforms(&PostgresFixture::start().await).await;
}

#[tokio::test]
async fn sqlite_conforms() {
    conforms(&SqliteFixture::start()).await;
}

#[test]
fn every_connector_has_a_fixture() {
    let tested = ["dataverse", "files", "postgres", "sqlite"];
    let mut registered: Vec<_> = CONNECTORS.iter().map(|spec| spec.name).collect();
    registered.sort_unstable();
    assert_eq!(registered, tested);
}

async fn conforms(fixture: &dyn Fixture) {
    let spec = flowgate_connect::find(fixture.connector()).unwrap();
    settings_are_described(spec);
    unknown_keys_are_refused(spec, fixture);
    fixture.put(&rows_of(3)).await;
    let source = open_source(spec.name, &fixture.connection(), fixture.dir()).unwrap();
    assert!(!source.check().await.unwrap().is_empty());
    streams_are_discovered(source.as_ref(), fixture).await;
    deletes_are_as_declared(spec, source.as_ref(), fixture).await;
    an_empty_stream_is_no_error(source.as_ref(), fixture).await;
    fixture.put(&rows_of(MANY_ROWS)).await;
    a_cancelled_read_says_so(source.as_ref(), fixture).await;
    reading_goes_on_from_every_cursor(source.as_ref(), fixture).await;
    changed_columns_show(fixture).await;
    secrets_are_never_shown(spec, fixture).await;
}

fn rows_of(count: i64) -> Vec<FixtureRow> {
    // Many rows share a stamp, so that batches end among equals.
    (1..=count).map(|id| (id, format!("name {id}"), id / 1_000)).collect()
}

/// Every key of both blocks has a description and an example: they are the reference.
fn settings_are_described(spec: &ConnectorSpec) {
    for schema in [(spec.connection_schema)(), (spec.stream_schema)()] {
        let keys = schema["properties"].as_object().cloned().unwrap_or_default();
        for (key, property) in keys {
            assert!(property["description"].is_string(), "`{}.{key}` has no description", spec.name);
            assert!(property["examples"].is_array(), "`{}.{key}` has no example", spec.name);
        }
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}

fn unknown_keys_are_refused(spec: &ConnectorSpec, fixture: &dyn Fixture) {
    type Check = fn(&Value) -> Result<(), Vec<FieldError>>;
    let cases: [(Check, Value); 2] =
        [(spec.check_connection, fixture.connection()), (spec.check_stream, fixture.stream())];
    for (check, good) in cases {
        assert_eq!(check(&good), Ok(()));
        let key = good.as_object().unwrap().keys().next().unwrap();
        let (mut bad, wrong_key) = (good.clone(), format!("{key}x"));
        bad[&wrong_key] = json!("x");
        let errors = check(&bad).unwrap_err();
        assert_eq!(errors[0].path.as_slice(), std::slice::from_ref(&wrong_key));
        assert_eq!(errors[0].message, format!("unknown key `{wrong_key}`"));
        assert_eq!(errors[0].hint, Some(format!("did you mean `{key}`?")));
    }
}

async fn streams_are_discovered(source: &dyn Source, fixture: &dyn Fixture) {
    let streams = source.discover().await.unwrap();
    let stream = streams.iter().find(|stream| stream.name == fixture.stream_name()).unwrap();
    let everything = read(source, ask(fixture, &stream.settings, None)).await.unwrap();
    for field in stream.schema.fields() {
        assert!(everything.columns.contains(field.name()), "`{}` is announced and does not come", field.name());
    }
    let image = whole_image(source, fixture).await;
    let keys: Vec<_> = (1..=3).map(|id| fixture.key_text(id)).collect();
    assert_eq!(image.keys().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    assert_eq!(image[&keys[1]], format!("{}|name 2|0", keys[1]));
}

async fn deletes_are_as_declared(spec: &ConnectorSpec, source: &dyn Source, fixture: &dyn Fixture) {
    assert!((spec.sees_deletes)(&fixture.stream()));
    fixture.put(&rows_of(2)).await;
    assert_eq!(whole_image(source, fixture).await.len(), 2);
    let Some(settings) = fixture.cursor_stream() else { return };
    let first = read(source, ask(fixture, &settings, None)).await.unwrap();
    let cursor = last_cursor(&first).unwrap();
    fixture.put(&rows_of(1)).await;
    let second = read(source, ask(fixture, &settings, Some(&cursor))).await.unwrap();
    assert_eq!(second.image, Image::Changes);
    let expected = if (spec.sees_deletes)(&settings) { vec![fixture.key_text(2)] } else { Vec::new() };
    assert_eq!(second.deletes(), expected);
}

async fn an_empty_stream_is_no_error(source: &dyn Source, fixture: &dyn Fixture) {
    let full = read(source, ask(fixture, &fixture.stream(), None)).await.unwrap();
    fixture.put(&[]).await;
    let empty = read(source, ask(fixture, &fixture.stream(), None)).await.unwrap();
    assert_eq!((empty.rows().len(), empty.columns), (0, full.columns));
}

async fn a_cancelled_read_says_so(source: &dyn Source, fixture: &dyn Fixture) {
    let request = ask(fixture, &fixture.stream(), None);
    let mut reading = source.read(request.clone()).await.unwrap();
    assert!(reading.batches.next().await.unwrap().is_ok());
    request.cancel.cancel();
    let error = reading.batches.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

/// After a crash at any batch, what was durable and what is read on make the whole image; reading
/// twice changes nothing.
async fn reading_goes_on_from_every_cursor(source: &dyn Source, fixture: &dyn Fixture) {
    let expected = whole_image(source, fixture).await;
    assert_eq!(expected.len() as i64, MANY_ROWS);
    let Some(settings) = fixture.cursor_stream() else {
        let whole = read(source, ask(fixture, &fixture.stream(), None)).await.unwrap();
        assert!(whole.batches.iter().all(|batch| batch.cursor.is_none()), "a cursor that nobody can use");
        return;
    };
    let first = read(source, ask(fixture, &settings, None)).await.unwrap();
    assert!(first.batches.len() > 1 && first.image == Image::Whole);
    let mut durable = BTreeMap::new();
    for batch in &first.batches {
        merge(&mut durable, &Everything { columns: Vec::new(), image: Image::Changes, batches: vec![batch.clone()] });
        let Some(cursor) = &batch.cursor else { continue };
        let mut image = durable.clone();
        for _delivery in ["first", "duplicate"] {
            let rest = read(source, ask(fixture, &settings, Some(cursor))).await.unwrap();
            assert_eq!(rest.image, Image::Changes);
            merge(&mut image, &rest);
            assert_eq!(image, expected);
        }
    }
    let cursor = last_cursor(&first).unwrap();
    let mut rows = rows_of(MANY_ROWS);
    rows[6] = (7, "changed".to_owned(), MANY_ROWS);
    rows.push((MANY_ROWS + 1, "new".to_owned(), MANY_ROWS / 1_000));
    fixture.put(&rows).await;
    let changes = read(source, ask(fixture, &settings, Some(&cursor))).await.unwrap();
    merge(&mut durable, &changes);
    assert_eq!(durable, whole_image(source, fixture).await);
    assert!(changes.rows().len() < rows.len() / 2, "only what changed is read");
}

/// The next run opens its connections anew.
async fn changed_columns_show(fixture: &dyn Fixture) {
    let (settings, added) = fixture.change_columns().await;
    let source = open_source(fixture.connector(), &fixture.connection(), fixture.dir()).unwrap();
    let everything = read(source.as_ref(), ask(fixture, &settings, None)).await.unwrap();
    let has = |name: &str| everything.columns.iter().any(|column| column == name);
    assert!(has(added) && !has("name"), "{:?}", everything.columns);
}

async fn secrets_are_never_shown(spec: &ConnectorSpec, fixture: &dyn Fixture) {
    let Some(secret) = fixture.secret() else { return };
    let broken = fixture.broken_connection();
    assert!(broken.to_string().contains(secret));
    let open = OpenRequest {
        settings: &broken,
        project_dir: fixture.dir(),
        clock: clock(),
        time_zone: "UTC",
        name: "tested",
        budget: None,
        lanes: None,
    };
    let text = match (spec.open)(open) {
        Err(error) => format!("{} {error:?}", shown(&error)),
        Ok(opened) => {
            let source: Arc<dyn Source> = opened.source.unwrap();
            let error = source.check().await.unwrap_err();
            format!("{} {error:?}", shown(&error))
        }
    };
    assert!(!text.contains(secret), "{text}");
    // A value in a wrong place is not repeated either.
    let mut wrong = fixture.connection();
    for value in wrong.as_object_mut().unwrap().values_mut() {
        *value = json!([secret]);
    }
    let errors = (spec.check_connection)(&wrong).unwrap_err();
    assert!(!format!("{errors:?}").contains(secret), "{errors:?}");
}

fn ask(fixture: &dyn Fixture, settings: &Value, cursor: Option<&Cursor>) -> ReadRequest {
    ReadRequest { key: vec![fixture.key_column().to_owned()], ..request(settings, cursor) }
}

async fn whole_image(source: &dyn Source, fixture: &dyn Fixture) -> BTreeMap<String, String> {
    let everything = read(source, ask(fixture, &fixture.stream(), None)).await.unwrap();
    assert_eq!(everything.image, Image::Whole);
    let mut image = BTreeMap::new();
    merge(&mut image, &everything);
    image
}

/// Puts rows into an image by their first column, `id`, provenance left out.
fn merge(image: &mut BTreeMap<String, String>, everything: &Everything) {
    for row in everything.rows() {
        let row = row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|");
        image.insert(row.split('|').next().unwrap().to_owned(), row);
    }
    for key in everything.deletes() {
        image.remove(&key);
    }
}

fn last_cursor(everything: &Everything) -> Option<Cursor> {
    everything.batches.iter().rev().find_map(|batch| batch.cursor.clone())
}
