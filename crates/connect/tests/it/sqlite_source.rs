//! What only SQLite has: columns whose values have types of their own.

use std::path::Path;

use flowgate_core::Source;
use insta::assert_snapshot;
use serde_json::json;

use crate::support::{open_source, read, request, shown};

fn database(sql: &str) -> (tempfile::TempDir, std::sync::Arc<dyn Source>) {
    let dir = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(dir.path().join("works.sqlite")).unwrap().execute_batch(sql).unwrap();
    let source = open_source("sqlite", &json!({"path": "works.sqlite"}), dir.path()).unwrap();
    (dir, source)
}

#[tokio::test]
async fn columns_are_typed_by_what_they_hold() {
    let (_dir, source) = database(
        "CREATE TABLE \"order\" (id INTEGER PRIMARY KEY, whole INTEGER, mixed INTEGER, price NUMERIC, share REAL,
           day DATETIME, bytes BLOB, blank NUMERIC, \"group\" TEXT, twice AS (id * 2));
         INSERT INTO \"order\" VALUES (1, 7, 7, 8.45, 1, '2024-03-31', x'00ff', NULL, 'a'),
           (2, NULL, 'seven', 3, 0.5, NULL, 'text', NULL, 5);
         CREATE TABLE sqlitely (id TEXT PRIMARY KEY) WITHOUT ROWID;",
    );
    let streams = source.discover().await.unwrap();
    let names: Vec<_> = streams.iter().map(|stream| format!("{} {:?}", stream.name, stream.key)).collect();
    let types: Vec<_> =
        streams[0].schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let everything = read(source.as_ref(), request(&streams[0].settings, None)).await.unwrap();
    assert_snapshot!(format!("{}\n{}\n{}", names.join(", "), types.join(", "), everything.rows().join("\n")));
}

#[tokio::test]
async fn a_long_whole_number_beside_a_real_one_keeps_every_digit() {
    let (_dir, source) = database(
        "CREATE TABLE t (id INTEGER, ref NUMERIC, least NUMERIC, short NUMERIC);
         INSERT INTO t VALUES (1, 9007199254740993, -9223372036854775807 - 1, 9007199254740992), (2, 0.5, 0.5, 0.5)",
    );
    let everything = read(source.as_ref(), request(&json!({"table": "t"}), None)).await.unwrap();
    assert_eq!(everything.rows(), ["1|9007199254740993|-9223372036854775808|9007199254740992.0", "2|0.5|0.5|0.5"]);
}

#[tokio::test]
async fn text_that_is_not_text_is_set_aside() {
    let (_dir, source) =
        database("CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, CAST(x'e974e9' AS TEXT)), (2, 'b')");
    let everything = read(source.as_ref(), request(&json!({"table": "t"}), None)).await.unwrap();
    assert_eq!(everything.rows(), ["2|b"]);
    assert_eq!(everything.malformed()[0].reason, "`name` holds bytes that are not text");
}

#[tokio::test]
async fn rows_without_a_cursor_value_are_read_every_time() {
    let (_dir, source) = database(
        "CREATE TABLE t (id INTEGER, changed TEXT);
         INSERT INTO t VALUES (1, NULL), (2, '2024-01-01'), (3, '2024-01-02'), (4, '2024-01-02')",
    );
    let settings = json!({"table": "T", "cursor": "CHANGED"});
    let first = read(source.as_ref(), request(&settings, None)).await.unwrap();
    let cursor = first.batches.last().unwrap().cursor.clone().unwrap();
    let second = read(source.as_ref(), request(&settings, Some(&cursor))).await.unwrap();
    assert_eq!(second.rows(), ["1|∅", "3|2024-01-02", "4|2024-01-02"]);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let (dir, source) = database("CREATE TABLE people (id INTEGER, name TEXT)");
    let mut text = Vec::new();
    for settings in [
        json!({"table": "poeple"}),
        json!({"table": "people", "cursor": "nam"}),
        json!({"table": "people\"; DROP TABLE people; --"}),
        json!({"tabel": "people"}),
    ] {
        text.push(shown(&read(source.as_ref(), request(&settings, None)).await.err().unwrap()));
    }
    let cursor = flowgate_core::Cursor("17".to_owned());
    let settings = json!({"table": "people", "cursor": "id"});
    text.push(shown(&read(source.as_ref(), request(&settings, Some(&cursor))).await.err().unwrap()));
    fs_err::write(dir.path().join("no.sqlite"), "not a database at all, but long enough to be read as one").unwrap();
    for path in ["no.sqlite", "missing.sqlite"] {
        let source = open_source("sqlite", &json!({ "path": path }), Path::new(dir.path())).unwrap();
        text.push(shown(&source.check().await.unwrap_err()));
    }
    assert_snapshot!(text.join("\n"));
}
