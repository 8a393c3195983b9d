//! The roads agency's example with its business application on a PostgreSQL server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::types::ValueRef;

use crate::postgres::Postgres;
use crate::support::Place;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/roads-agency");
const SERVER: &str = "\
provision: allow
connections:
  business: { postgres: { url: \"${file:business.url}\" } }
";

/// Rows of one INSERT.
const ROWS_PER_INSERT: usize = 1_000;

/// The demo reads the application's SQLite file; a server of the agency would be asked instead. State of the
/// second environment begins empty, so the run first adopts what the first one loaded: if the two sources did
/// not mean exactly the same rows, some would be changed or new.
#[test]
fn the_business_application_on_postgresql_gives_the_same_rows() {
    let place = Place::copy_of(Path::new(EXAMPLE));
    let database = place.file("work/business.sqlite");
    place.unpack("data/business.sqlite.gz", "work/business.sqlite");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = Postgres::start();
    runtime.block_on(server.run(&as_postgresql(&rusqlite::Connection::open(&database).unwrap())));
    place.write("environments/server.yaml", SERVER);
    place.write("business.url", &server.url());

    let provisioned = place.flowgate(&["provision", "--yes"]);
    assert_eq!(provisioned.status, 0, "{}", provisioned.everything());
    let first = place.flowgate(&["run", "people", "--env", "local", "--json"]);
    assert_eq!(first.status, 0, "{}", first.everything());
    let created = first.json()["rows"]["created"].clone();
    assert_eq!(first.json()["loads"]["customers"]["rows"]["created"], 18_148);

    let second = place.flowgate(&["run", "people", "--env", "server", "--json"]);
    assert_eq!(second.status, 0, "{}", second.everything());
    let rows = second.json()["rows"].clone();
    assert_eq!((&rows["unchanged"], &rows["created"], &rows["updated"]), (&created, &0.into(), &0.into()), "{rows}");
}

/// Every table of the database as statements for PostgreSQL.
fn as_postgresql(database: &rusqlite::Connection) -> String {
    let mut names = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    names.iter().map(|name| table_as_postgresql(database, name)).collect()
}

fn table_as_postgresql(database: &rusqlite::Connection, name: &str) -> String {
    let mut columns = database
        .prepare("SELECT name || ' ' || replace(type, 'DATETIME', 'timestamp') FROM pragma_table_info(?1)")
        .unwrap();
    let columns: Vec<String> = columns.query_map([name], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut statement = database.prepare(&format!("SELECT * FROM {name}")).unwrap();
    let mut sql = format!("CREATE TABLE {name} ({});\n", columns.join(", "));
    let mut rows = statement.query([]).unwrap();
    let mut at = 0;
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> = (0..columns.len()).map(|column| literal(row.get_ref_unwrap(column))).collect();
        let before = if at % ROWS_PER_INSERT == 0 { format!(";\nINSERT INTO {name} VALUES ") } else { ", ".to_owned() };
        write!(sql, "{before}({})", values.join(", ")).unwrap();
        at += 1;
    }
    sql + ";\n"
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            format!("'{}'", String::from_utf8_lossy(text).replace('\'', "''"))
        }
    }
}
