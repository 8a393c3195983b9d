//! What every connector owes, checked against every row of the registry.
//!
//! A fixture brings up the real system with one stream of three columns (`id`, the key, `name` and
//! `stamp`) and knows how to change it; the clauses know nothing about the system behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use flowgate_connect::CONNECTORS;
use flowgate_core::connector::{ConnectorSpec, FieldError, OpenRequest};
use flowgate_core::source::Image;
use flowgate_core::{Cursor, ErrorKind, Source};
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::{PASSWORD, Postgres};
use crate::support::{Everything, clock, open_source, read, request, shown};

/// More than any connector puts into one batch.
const MANY_ROWS: i64 = 20_000;

/// One row of the fixture's stream: id, name, stamp.
type FixtureRow = (i64, String, i64);

#[async_trait]
trait Fixture: Send + Sync {
    fn connector(&self) -> &'static str;
    fn dir(&self) -> &Path;
    fn connection(&self) -> Value;
    /// The same connection where nothing answers.
    fn broken_connection(&self) -> Value;
    /// A secret that `connection` holds.
    fn secret(&self) -> Option<&'static str>;
    /// Settings that read the stream whole, and by cursor if that exists.
    fn stream(&self) -> Value;
    fn cursor_stream(&self) -> Option<Value>;
    /// Makes the stream hold exactly these rows.
    async fn put(&self, rows: &[FixtureRow]);
    /// Adds a column `added` to the stream, and takes `name` away.
    async fn change_columns(&self);
}

#[tokio::test]
async fn files_conform() {
    conforms(&FilesFixture(tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn sqlite_conforms() {
    let fixture = SqliteFixture(tempfile::tempdir().unwrap());
    fixture.run("CREATE TABLE \"the stream\" (id INTEGER PRIMARY KEY, name TEXT, stamp INTEGER)");
    conforms(&fixture).await;
}

#[tokio::test]
async fn postgres_conforms() {
    let fixture = PostgresFixture { server: Postgres::start(), dir: tempfile::tempdir().unwrap() };
    fixture.server.run("CREATE TABLE \"the stream\" (id int8 PRIMARY KEY, name text, stamp int8)").await;
    conforms(&fixture).await;
}

#[test]
fn every_connector_has_a_fixture() {
    let tested = ["files", "postgres", "sqlite"];
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
    changed_columns_show(source.as_ref(), fixture).await;
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
    let stream = streams.iter().find(|stream| stream.schema.index_of("stamp").is_ok()).unwrap();
    let everything = read(source, request(&stream.settings, None)).await.unwrap();
    let columns: Vec<_> = stream.schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(everything.columns, columns);
    let image = whole_image(source, fixture).await;
    assert_eq!(image.keys().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!(image["2"], "2|name 2|0");
}

async fn deletes_are_as_declared(spec: &ConnectorSpec, source: &dyn Source, fixture: &dyn Fixture) {
    assert!((spec.sees_deletes)(&fixture.stream()));
    fixture.put(&rows_of(2)).await;
    assert_eq!(whole_image(source, fixture).await.len(), 2);
    let Some(settings) = fixture.cursor_stream() else { return };
    let first = read(source, request(&settings, None)).await.unwrap();
    let cursor = last_cursor(&first).unwrap();
    fixture.put(&rows_of(1)).await;
    let second = read(source, request(&settings, Some(&cursor))).await.unwrap();
    assert_eq!(second.image, Image::Changes);
    let expected: &[&str] = if (spec.sees_deletes)(&settings) { &["2"] } else { &[] };
    assert_eq!(second.deletes(), expected);
}

async fn an_empty_stream_is_no_error(source: &dyn Source, fixture: &dyn Fixture) {
    let full = read(source, request(&fixture.stream(), None)).await.unwrap();
    fixture.put(&[]).await;
    let empty = read(source, request(&fixture.stream(), None)).await.unwrap();
    assert_eq!((empty.rows().len(), empty.columns), (0, full.columns));
}

async fn a_cancelled_read_says_so(source: &dyn Source, fixture: &dyn Fixture) {
    let request = request(&fixture.stream(), None);
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
        let whole = read(source, request(&fixture.stream(), None)).await.unwrap();
        assert!(whole.batches.iter().all(|batch| batch.cursor.is_none()), "a cursor that nobody can use");
        return;
    };
    let first = read(source, request(&settings, None)).await.unwrap();
    assert!(first.batches.len() > 1 && first.image == Image::Whole);
    let mut durable = BTreeMap::new();
    for batch in &first.batches {
        merge(&mut durable, &Everything { columns: Vec::new(), image: Image::Changes, batches: vec![batch.clone()] });
        let cursor = batch.cursor.clone().unwrap();
        let mut image = durable.clone();
        for _delivery in ["first", "duplicate"] {
            let rest = read(source, request(&settings, Some(&cursor))).await.unwrap();
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
    let changes = read(source, request(&settings, Some(&cursor))).await.unwrap();
    merge(&mut durable, &changes);
    assert_eq!(durable, whole_image(source, fixture).await);
    assert!(changes.rows().len() < rows.len() / 2, "only what changed is read");
}

async fn changed_columns_show(source: &dyn Source, fixture: &dyn Fixture) {
    fixture.change_columns().await;
    let everything = read(source, request(&fixture.stream(), None)).await.unwrap();
    let has = |name: &str| everything.columns.iter().any(|column| column == name);
    assert!(has("added") && !has("name"), "{:?}", everything.columns);
}

async fn secrets_are_never_shown(spec: &ConnectorSpec, fixture: &dyn Fixture) {
    let Some(secret) = fixture.secret() else { return };
    let broken = fixture.broken_connection();
    assert!(broken.to_string().contains(secret));
    let open = OpenRequest { settings: &broken, project_dir: fixture.dir(), clock: clock(), budget: None };
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

async fn whole_image(source: &dyn Source, fixture: &dyn Fixture) -> BTreeMap<String, String> {
    let everything = read(source, request(&fixture.stream(), None)).await.unwrap();
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

struct FilesFixture(TempDir);

#[async_trait]
impl Fixture for FilesFixture {
    fn connector(&self) -> &'static str {
        "files"
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn connection(&self) -> Value {
        json!({"path": "stream.csv", "null_text": "-"})
    }

    fn broken_connection(&self) -> Value {
        json!({"path": "nothing.csv"})
    }

    fn secret(&self) -> Option<&'static str> {
        None
    }

    fn stream(&self) -> Value {
        json!({"path": "stream.csv"})
    }

    fn cursor_stream(&self) -> Option<Value> {
        None
    }

    async fn put(&self, rows: &[FixtureRow]) {
        let lines: Vec<_> = rows.iter().map(|(id, name, stamp)| format!("{id},{name},{stamp}\n")).collect();
        fs_err::write(self.0.path().join("stream.csv"), format!("id,name,stamp\n{}", lines.concat())).unwrap();
    }

    async fn change_columns(&self) {
        fs_err::write(self.0.path().join("stream.csv"), "id,stamp,added\n1,2,3\n").unwrap();
    }
}

struct SqliteFixture(TempDir);

impl SqliteFixture {
    fn open(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.0.path().join("works.sqlite")).unwrap()
    }

    fn run(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap();
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    fn connector(&self) -> &'static str {
        "sqlite"
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn connection(&self) -> Value {
        json!({"path": "works.sqlite"})
    }

    fn broken_connection(&self) -> Value {
        json!({"path": "nothing.sqlite"})
    }

    fn secret(&self) -> Option<&'static str> {
        None
    }

    fn stream(&self) -> Value {
        json!({"table": "the stream"})
    }

    fn cursor_stream(&self) -> Option<Value> {
        Some(json!({"table": "the stream", "cursor": "stamp"}))
    }

    async fn put(&self, rows: &[FixtureRow]) {
        let mut connection = self.open();
        let transaction = connection.transaction().unwrap();
        transaction.execute("DELETE FROM \"the stream\"", []).unwrap();
        for row in rows {
            transaction.execute("INSERT INTO \"the stream\" VALUES (?, ?, ?)", (row.0, &row.1, row.2)).unwrap();
        }
        transaction.commit().unwrap();
    }

    async fn change_columns(&self) {
        self.run("ALTER TABLE \"the stream\" ADD added TEXT; ALTER TABLE \"the stream\" DROP name");
    }
}

struct PostgresFixture {
    server: Postgres,
    dir: TempDir,
}

#[async_trait]
impl Fixture for PostgresFixture {
    fn connector(&self) -> &'static str {
        "postgres"
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn connection(&self) -> Value {
        json!({ "url": self.server.url() })
    }

    fn broken_connection(&self) -> Value {
        json!({ "url": format!("postgres://app:{PASSWORD}@127.0.0.1:1/postgres") })
    }

    fn secret(&self) -> Option<&'static str> {
        Some(PASSWORD)
    }

    fn stream(&self) -> Value {
        json!({"table": "public.the stream"})
    }

    fn cursor_stream(&self) -> Option<Value> {
        Some(json!({"table": "the stream", "cursor": "stamp"}))
    }

    /// Touches only the rows that differ: a row written again is a changed row to PostgreSQL.
    async fn put(&self, rows: &[FixtureRow]) {
        let client = self.server.connect().await;
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
        let stamps: Vec<i64> = rows.iter().map(|row| row.2).collect();
        client.execute("DELETE FROM \"the stream\" WHERE id <> ALL ($1)", &[&ids]).await.unwrap();
        let upsert = "INSERT INTO \"the stream\" AS s SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[]) \
                      ON CONFLICT (id) DO UPDATE SET name = excluded.name, stamp = excluded.stamp \
                      WHERE (s.name, s.stamp) IS DISTINCT FROM (excluded.name, excluded.stamp)";
        client.execute(upsert, &[&ids, &names, &stamps]).await.unwrap();
    }

    async fn change_columns(&self) {
        self.server.run("ALTER TABLE \"the stream\" ADD added text; ALTER TABLE \"the stream\" DROP name").await;
    }
}
