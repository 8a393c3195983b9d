//! The systems that the conformance suite runs against.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use flowgate_core::destination::{Class, Operation, Outcome, WriteOptions, WriteUnit};
use flowgate_core::project::{ColumnSpec, ColumnSpecKind, TableSpec};
use flowgate_core::{CancellationToken, ConnectionName, Destination};
use flowgate_emulator::{Emulator, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::postgres::{PASSWORD, Postgres};
use crate::support::open;

/// One row of the fixture's stream: id, name, stamp.
pub(crate) type FixtureRow = (i64, String, i64);

#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    fn connector(&self) -> &'static str;
    fn dir(&self) -> &Path;
    fn connection(&self) -> Value;
    /// The same connection where nothing answers.
    fn broken_connection(&self) -> Value;
    /// A secret that `connection` holds.
    fn secret(&self) -> Option<&str>;
    /// What `discover` calls the stream.
    fn stream_name(&self) -> &'static str;
    /// Settings that read the stream whole, and by cursor if that exists.
    fn stream(&self) -> Value;
    fn cursor_stream(&self) -> Option<Value>;
    fn key_column(&self) -> &'static str {
        "id"
    }
    /// How the key of row `id` is shown.
    fn key_text(&self, id: i64) -> String {
        id.to_string()
    }
    /// Makes the stream hold exactly these rows.
    async fn put(&self, rows: &[FixtureRow]);
    /// Adds a column to the stream and takes `name` away; gives the settings to read it then, and the new name.
    async fn change_columns(&self) -> (Value, &'static str);
}

pub(crate) struct FilesFixture(TempDir);

impl FilesFixture {
    pub(crate) fn start() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

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

    fn secret(&self) -> Option<&str> {
        None
    }

    fn stream_name(&self) -> &'static str {
        "stream.csv"
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

    async fn change_columns(&self) -> (Value, &'static str) {
        fs_err::write(self.0.path().join("stream.csv"), "id,stamp,added\n1,2,3\n").unwrap();
        (self.stream(), "added")
    }
}

pub(crate) struct SqliteFixture(TempDir);

impl SqliteFixture {
    pub(crate) fn start() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.run("CREATE TABLE \"the stream\" (id INTEGER PRIMARY KEY, name TEXT, stamp INTEGER)");
        fixture
    }

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

    fn secret(&self) -> Option<&str> {
        None
    }

    fn stream_name(&self) -> &'static str {
        "the stream"
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

    async fn change_columns(&self) -> (Value, &'static str) {
        self.run("ALTER TABLE \"the stream\" ADD added TEXT; ALTER TABLE \"the stream\" DROP name");
        (self.stream(), "added")
    }
}

pub(crate) struct PostgresFixture {
    server: Postgres,
    dir: TempDir,
}

impl PostgresFixture {
    pub(crate) async fn start() -> Self {
        let server = Postgres::start();
        server.run("CREATE TABLE \"the stream\" (id int8 PRIMARY KEY, name text, stamp int8)").await;
        Self { server, dir: tempfile::tempdir().unwrap() }
    }
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

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }

    fn stream_name(&self) -> &'static str {
        "public.the stream"
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

    async fn change_columns(&self) -> (Value, &'static str) {
        self.server.run("ALTER TABLE \"the stream\" ADD added text; ALTER TABLE \"the stream\" DROP name").await;
        (self.stream(), "added")
    }
}

/// The emulator with one table more.
pub(crate) struct DataverseFixture {
    emulator: Emulator,
    dir: TempDir,
    rows: Mutex<BTreeMap<i64, FixtureRow>>,
}

const STREAM_TABLE: &str = "
tables:
- table: stream
  schema: Stream
  label: Stream
  plural: Streams
  ownership: organization
  tracked: true
  primary_name: name
  columns:
    name: { type: string, schema: Name, label: Name, max: 100 }
    stamp: { type: integer, schema: Stamp, label: Stamp, min: 0, max_value: 1000000 }
";

/// So fast that the pace of requests does not show.
const TIME_SCALE: f64 = 1_000.0;

impl DataverseFixture {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let schema = dir.path().join("tables.yaml");
        fs_err::write(&schema, STREAM_TABLE).unwrap();
        let options = Options { schema: Some(schema), time_scale: TIME_SCALE, ..Options::default() };
        Self { emulator: Emulator::start(options).await.unwrap(), dir, rows: Mutex::default() }
    }

    fn connection_to(&self, url: &str) -> Value {
        let ready = self.emulator.ready();
        let token_url = ready.token_url.replace(&ready.url, url);
        let credential = json!({"client": ready.client_id, "secret": ready.client_secret, "token_url": token_url});
        json!({"url": url, "organization": ready.organization, "credential": credential, "time_scale": TIME_SCALE,
            "solution": "agency_integration"})
    }

    fn destination(&self) -> Arc<dyn Destination> {
        open("dataverse", &self.connection(), self.dir()).unwrap().destination.unwrap()
    }

    /// Writes rows as the engine would: canonical, in units of the destination's size.
    async fn write(&self, operation: Operation, rows: &[&FixtureRow]) {
        let destination = self.destination();
        let shape = destination.describe("stream").await.unwrap();
        let utc = flowgate_core::WallClock::new("UTC", flowgate_core::moment::LocalTimes::default()).unwrap();
        for part in rows.chunks(destination.pace(&shape, operation).rows) {
            let ids: Vec<_> = part.iter().map(|row| Uuid::from_u128(row.0 as u128)).collect();
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(part.iter().map(|row| &row.1)));
            let stamps: ArrayRef = Arc::new(Int64Array::from_iter_values(part.iter().map(|row| row.2)));
            let batch = RecordBatch::try_from_iter([("name", names), ("stamp", stamps)]).unwrap();
            let rows = destination.canonical(&shape, &batch, &utc).unwrap().rows;
            let (shape, options) = (Arc::clone(&shape), WriteOptions::default());
            let unit = WriteUnit { shape, operation, ids, rows, columns: None, resent: false, options };
            let hour = Duration::from_hours(1);
            let outcomes = destination.write(unit, Class::Batch, hour, &CancellationToken::new()).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{operation:?}: {:?}", outcomes[0]);
        }
    }
}

#[async_trait]
impl Fixture for DataverseFixture {
    fn connector(&self) -> &'static str {
        "dataverse"
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn connection(&self) -> Value {
        self.connection_to(&self.emulator.ready().url)
    }

    fn broken_connection(&self) -> Value {
        self.connection_to("http://127.0.0.1:1")
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.emulator.ready().client_secret)
    }

    fn stream_name(&self) -> &'static str {
        "stream"
    }

    fn stream(&self) -> Value {
        json!({"table": "stream", "only": ["name", "stamp"]})
    }

    fn cursor_stream(&self) -> Option<Value> {
        Some(json!({"table": "stream", "only": ["name", "stamp"], "cursor": "change_tracking"}))
    }

    fn key_column(&self) -> &'static str {
        "streamid"
    }

    fn key_text(&self, id: i64) -> String {
        Uuid::from_u128(id as u128).to_string()
    }

    async fn put(&self, rows: &[FixtureRow]) {
        let wanted: BTreeMap<i64, FixtureRow> = rows.iter().map(|row| (row.0, row.clone())).collect();
        let held = std::mem::replace(&mut *self.rows.lock().unwrap(), wanted.clone());
        let gone: Vec<_> = held.values().filter(|row| !wanted.contains_key(&row.0)).collect();
        let (known, new): (Vec<_>, Vec<_>) = wanted.values().partition(|row| held.contains_key(&row.0));
        let changed: Vec<_> = known.into_iter().filter(|row| held.get(&row.0) != Some(*row)).collect();
        self.write(Operation::Delete, &gone).await;
        self.write(Operation::Update, &changed).await;
        self.write(Operation::Create, &new).await;
    }

    async fn change_columns(&self) -> (Value, &'static str) {
        let added = ColumnSpec { name: "wr_added".to_owned(), display: None, kind: ColumnSpecKind::Integer };
        let table = TableSpec {
            table: "stream".to_owned(),
            connection: ConnectionName::new("crm").unwrap(),
            display: None,
            primary_name: None,
            change_tracking: true,
            columns: vec![added],
            keys: BTreeMap::new(),
        };
        self.destination().provision(&[table], &|_| {}).await.unwrap();
        (json!({"table": "stream", "only": ["stamp", "wr_added"]}), "wr_added")
    }
}
