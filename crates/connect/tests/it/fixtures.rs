//! The systems that the conformance suite runs against.

use std::path::Path;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::environment::Environment;
use crate::postgres::{PASSWORD, Postgres};

const CLIENT_SECRET: &str = "canary-c1ient-secret";

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
    fn secret(&self) -> Option<&'static str>;
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
    /// Adds a column `added` to the stream, and takes `name` away.
    async fn change_columns(&self);
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

pub(crate) struct DataverseFixture {
    environment: Environment,
    dir: TempDir,
}

impl DataverseFixture {
    pub(crate) async fn start() -> Self {
        Self { environment: Environment::start().await, dir: tempfile::tempdir().unwrap() }
    }
}

/// Waits for a service that fails last milliseconds at this scale.
fn environment_at(url: &str) -> Value {
    let credential = json!({"client": "app", "secret": CLIENT_SECRET, "token_url": format!("{url}/token")});
    json!({"url": url, "credential": credential, "time_scale": 1_000.0})
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
        environment_at(&self.environment.url)
    }

    fn broken_connection(&self) -> Value {
        environment_at("http://127.0.0.1:1")
    }

    fn secret(&self) -> Option<&'static str> {
        Some(CLIENT_SECRET)
    }

    fn stream(&self) -> Value {
        json!({"table": "stream"})
    }

    fn cursor_stream(&self) -> Option<Value> {
        Some(json!({"table": "stream", "cursor": "change_tracking"}))
    }

    fn key_column(&self) -> &'static str {
        "streamid"
    }

    fn key_text(&self, id: i64) -> String {
        Uuid::from_u128(id as u128).to_string()
    }

    async fn put(&self, rows: &[FixtureRow]) {
        let row = |(id, name, stamp): &FixtureRow| (Uuid::from_u128(*id as u128), (name.clone(), *stamp));
        self.environment.put(rows.iter().map(row).collect());
    }

    async fn change_columns(&self) {
        self.environment.rename_text_column("added");
    }
}
