//! Files as they come: dialects, encodings, compression, and everything that can be wrong with them.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, Int64Array, RecordBatch};
use flowgate_core::source::Note;
use flowgate_core::{Code, ConnectorError};
use futures::{StreamExt, TryStreamExt};
use insta::assert_snapshot;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Everything, null_count, open_source, read, request, shown};

fn dir_with(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs_err::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

async fn read_in(dir: &Path, settings: Value) -> Result<Everything, ConnectorError> {
    let source = open_source("files", &settings, dir)?;
    read(source.as_ref(), request(&json!({}), None)).await
}

async fn read_file(name: &str, bytes: &[u8], mut settings: Value) -> Result<Everything, ConnectorError> {
    settings["path"] = json!(name);
    read_in(dir_with(&[(name, bytes)]).path(), settings).await
}

/// What a person would see of a read: rows, lines set aside, or the error.
async fn seen(name: &str, bytes: &[u8], settings: Value) -> String {
    match read_file(name, bytes, settings).await {
        Err(error) => shown(&error),
        Ok(everything) => {
            let mut text = format!("{}\n{}", everything.columns.join("|"), everything.rows().join("\n"));
            for line in everything.malformed() {
                let (number, offset) = (line.line.unwrap(), line.offset.unwrap());
                write!(text, "\nset aside: line {number} (byte {offset}) {}: {:?}", line.reason, line.text).unwrap();
            }
            text
        }
    }
}

#[tokio::test]
async fn csv_is_read_as_programs_write_it() {
    let bytes = b"\xEF\xBB\xBF id ,\"name\",note\r\n1,\"O'Neil, \"\"Pat\"\"\",\"two\nlines\"\r\n\r\n2,\"\",\r\n003,x,y";
    assert_snapshot!(seen("a.csv", bytes, json!({})).await, @r#"
    id|name|note|_file|_line
    1|O'Neil, "Pat"|two
    lines|a.csv|2
    2|∅|∅|a.csv|5
    003|x|y|a.csv|6
    "#);
}

#[tokio::test]
async fn a_dialect_is_followed() {
    let bytes = b"# made by hand\n1;'a;b';NULL\n# more\n2;'it\\'s';c\n";
    let settings = json!({
        "delimiter": ";", "quote": "'", "escape": "\\", "comment": "#", "header": ["id", "text", "more"],
        "null_text": "NULL",
    });
    assert_snapshot!(seen("a.csv", bytes, settings).await, @r"
    id|text|more|_file|_line
    1|a;b|∅|a.csv|2
    2|it's|c|a.csv|4
    ");
}

#[tokio::test]
async fn encodings_are_converted() {
    let utf_16: Vec<u8> = "\u{FEFF}id,name\n1,Škoda\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, settings) in [
        (utf_16.as_slice(), json!({})),
        (utf_16.as_slice(), json!({"encoding": "utf-16"})),
        (&utf_16[2..], json!({"encoding": "utf-16le"})),
        (b"id,name\n1,\x8Akoda\n", json!({"encoding": "windows-1250"})),
        ("id,name\n1,Škoda\n".as_bytes(), json!({"encoding": "utf-8"})),
    ] {
        let everything = read_file("a.csv", bytes, settings).await.unwrap();
        assert_eq!(everything.columns, ["id", "name", "_file", "_line"]);
        assert_eq!(everything.rows(), ["1|Škoda|a.csv|2"]);
    }
}

#[tokio::test]
async fn compressed_files_make_one_stream_in_the_order_of_their_names() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"id,a\n2,x\n").unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&b"added,a,id\n!,z,3\n"[..], 1).unwrap();
    let dir = dir_with(&[("c.csv.zst", &zstd), ("b.csv.gz", &gzip), ("a.csv", b"a,id\nw,1\n"), ("d.txt", b"no")]);
    let everything = read_in(dir.path(), json!({"path": "*.csv*"})).await.unwrap();
    assert_eq!(everything.columns, ["a", "id", "added", "_file", "_line"]);
    assert_eq!(everything.rows(), ["w|1|∅|a.csv|2", "x|2|∅|b.csv.gz|2", "z|3|!|c.csv.zst|2"]);
    let damaged = read_file("b.csv.gz", &gzip[..gzip.len() - 9], json!({})).await.err().unwrap();
    assert_eq!(damaged.code, Code::MALFORMED_FILE, "{damaged}");
}

#[tokio::test]
async fn bad_lines_are_set_aside_and_the_rest_goes_on() {
    let bytes = b"id,name\n1,a\n2\n3,b,c\n4,\xE9t\xE9\n5,x\0y\n6,\xC3\xA9t\xC3\xA9\n";
    assert_snapshot!(seen("a.csv", bytes, json!({})).await, @r#"
    id|name|_file|_line
    1|a|a.csv|2
    6|été|a.csv|7
    set aside: line 3 (byte 12) has 1 fields where 2 are expected: "2"
    set aside: line 4 (byte 14) has 3 fields where 2 are expected: "3,b,c"
    set aside: line 5 (byte 20) holds the byte 0xE9 in `name`, which is not UTF-8 there: "4,�t�"
    set aside: line 6 (byte 26) holds a NUL byte: "5,x\0y"
    "#);
}

#[tokio::test]
async fn a_line_with_a_wrong_quote_leaves_its_neighbours_whole() {
    let bytes = b"id,name\n1,one\n2,\"two\n3,\"three\"\n4,\"cable 12\" long\"\n5, \"five\"\n6,6\" nail\n7,\"a \\\"b\\\"\"\n8,\"eight\n9,nine\n";
    assert_snapshot!(seen("a.csv", bytes, json!({})).await, @r#"
    id|name|_file|_line
    1|one|a.csv|2
    3|three|a.csv|4
    9|nine|a.csv|10
    set aside: line 3 (byte 14) opens a quote in column 3 that closes only in line 4, column 3, with `t` after it: "2,\"two"
    set aside: line 5 (byte 31) has ` ` after the quote that closes in column 12: "4,\"cable 12\" long\""
    set aside: line 6 (byte 50) has a quote in column 4, inside a field that does not begin with one: "5, \"five\""
    set aside: line 7 (byte 60) has a quote in column 4, inside a field that does not begin with one: "6,6\" nail"
    set aside: line 8 (byte 70) has `b` after the quote that closes in column 7: "7,\"a \\\"b\\\"\""
    set aside: line 9 (byte 82) opens a quote in column 3 that never closes: "8,\"eight"
    "#);
}

#[tokio::test]
async fn line_ends_are_those_of_the_file() {
    let bytes = b"id,name\r\n1,a\n2,b\rc\r\n3,\"d\re\"\r\r\n\xEF\xBB\xBFid,name\r\n4,f\r\n";
    assert_snapshot!(seen("a.csv", bytes, json!({})).await.replace('\r', "^M"), @r#"
    id|name|_file|_line
    1|a|a.csv|2
    3|d^Me|a.csv|4
    4|f|a.csv|6
    set aside: line 3 (byte 13) has a carriage return in column 4 that ends no line of this file: "2,b\rc"
    set aside: line 5 (byte 30) begins with a byte-order mark: another file was added here: "\u{feff}id,name"
    "#);
    assert_snapshot!(seen("mac.csv", b"id,name\r1,a\r2,b\nc\r3,\"d\ne\"\r", json!({})).await, @r#"
    id|name|_file|_line
    1|a|mac.csv|2
    3|d
    e|mac.csv|4
    set aside: line 3 (byte 12) has a line feed in column 4 that ends no line of this file: "2,b\nc"
    "#);
}

#[tokio::test]
async fn dialects_go_by_name() {
    let quotes = b"id,name\n1,5\" pipe\n2,\"a\"\"b\"\n";
    assert_snapshot!(seen("a.csv", quotes, json!({"dialect": "excel"})).await, @r#"
    id|name|_file|_line
    1|5" pipe|a.csv|2
    2|a"b|a.csv|3
    "#);
    let backslashes = b"id,name\n1,\"a \\\"b\\\"\"\n2,c:\\d\n3,x\\,y\n";
    assert_snapshot!(seen("a.csv", backslashes, json!({"dialect": "backslash"})).await, @r#"
    id|name|_file|_line
    1|a "b"|a.csv|2
    2|c:\d|a.csv|3
    set aside: line 4 (byte 27) has an escape in column 4 before what separates fields, outside of quotes: "3,x\\,y"
    "#);
}

#[tokio::test]
async fn a_last_line_without_an_end_is_said() {
    let notes = async |name: &str, bytes: &[u8], settings: Value| {
        let everything = read_file(name, bytes, settings).await.unwrap();
        let notes: Vec<_> = everything.batches.iter().flat_map(|batch| batch.notes.clone()).collect();
        (everything.rows().len(), notes)
    };
    let part = |name: &str, rows| Note::Part { name: name.to_owned(), rows };
    for (name, bytes) in [("a.csv", &b"id\n1\n23"[..]), ("a.jsonl", b"{\"id\":1}\n{\"id\":23}")] {
        let (rows, said) = notes(name, bytes, json!({})).await;
        let [Note::RowsMayBeMissing(reason), end] = said.as_slice() else { panic!("{said:?}") };
        assert!(reason.starts_with(&format!("`{name}` ends in the middle of line ")), "{reason}");
        assert_eq!((rows, end), (2, &part(name, 2)));
        assert_eq!(notes(name, bytes, json!({"open_end": true})).await.1, [part(name, 2)]);
        let whole = [bytes, b"\n"].concat();
        assert_eq!(notes(name, &whole, json!({})).await.1, [part(name, 2)]);
    }
    assert_eq!(notes("one.csv", b"id", json!({})).await.1, [part("one.csv", 0)], "no other line has an end");
}

/// Rows enough that the reader waits for whoever takes them.
fn many_rows() -> Vec<u8> {
    let mut bytes = b"id,name\n".to_vec();
    for id in 0..150_000 {
        writeln!(bytes, "{id},name").unwrap();
    }
    bytes
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_fails_the_read() {
    let append = |dir: &Path| {
        let mut file = fs_err::OpenOptions::new().append(true).open(dir.join("b.csv")).unwrap();
        file.write_all(b"x,y\n").unwrap();
    };
    let cut = |dir: &Path| fs_err::write(dir.join("b.csv"), "id,name\n1,x\n").unwrap();
    let replace = |dir: &Path| {
        fs_err::write(dir.join("new"), many_rows()).unwrap();
        fs_err::rename(dir.join("new"), dir.join("b.csv")).unwrap();
    };
    let rewrite = |dir: &Path| {
        let before = fs_err::metadata(dir.join("b.csv")).unwrap().modified().unwrap();
        fs_err::write(dir.join("b.csv"), many_rows()).unwrap();
        let file = fs_err::OpenOptions::new().write(true).open(dir.join("b.csv")).unwrap().into_parts().0;
        file.set_modified(before).unwrap();
    };
    let remove = |dir: &Path| fs_err::remove_file(dir.join("b.csv")).unwrap();
    let add = |dir: &Path| fs_err::write(dir.join("d.csv"), "id,name\n1,x\n").unwrap();
    let change_one_read_before = |dir: &Path| fs_err::write(dir.join("a.csv"), "id,name\n2,x\n").unwrap();
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: [Change<'_>; 7] = [
        ("`b.csv` changed while it was read: it had", &append),
        ("`b.csv` changed while it was read: it had", &cut),
        ("`b.csv` was replaced by another file", &replace),
        ("`b.csv` was written to", &rewrite),
        ("`b.csv` was removed", &remove),
        ("`d.csv` came", &add),
        ("`a.csv` ", &change_one_read_before),
    ];
    for (words, change) in changes {
        let dir = dir_with(&[("a.csv", b"id,name\n1,x\n"), ("b.csv", &many_rows()), ("c.csv", b"id,name\n")]);
        let source = open_source("files", &json!({"path": "*.csv"}), dir.path()).unwrap();
        let mut reading = source.read(request(&json!({}), None)).await.unwrap();
        // Until the reader waits in the middle of the large file.
        reading.batches.next().await.unwrap().unwrap();
        reading.batches.next().await.unwrap().unwrap();
        change(dir.path());
        let error = reading.batches.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.code, Code::SOURCE_CHANGED, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn compressed_files_that_are_cut_are_damaged() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&many_rows()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(many_rows().as_slice(), 1).unwrap();
    for (name, whole) in [("a.csv.gz", gzip), ("a.csv.zst", zstd)] {
        for length in [0, 3, 20, whole.len() / 2, whole.len() - 1] {
            let error = read_file(name, &whole[..length], json!({})).await.err().unwrap();
            assert_eq!(error.code, Code::MALFORMED_FILE, "{name} cut at {length}: {error}");
        }
        assert_eq!(read_file(name, &whole, json!({})).await.unwrap().rows().len(), 150_000);
    }
}

#[tokio::test]
async fn a_directory_whose_name_is_a_pattern_is_a_directory() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a[b]*?{c}");
    fs_err::create_dir(&dir).unwrap();
    fs_err::write(dir.join("x.csv"), "id\n1\n").unwrap();
    for path in ["x.csv", "*.csv", "**/x.csv"] {
        assert_eq!(read_in(&dir, json!({ "path": path })).await.unwrap().rows(), ["1|x.csv|2"]);
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_say_why() {
    let latin: Vec<u8> =
        b"id,name\n".iter().copied().chain((0..40).flat_map(|_| b"1,caf\xE9\n".iter().copied())).collect();
    let ragged: Vec<u8> = b"id,name\n".iter().copied().chain((0..200).flat_map(|_| b"1;2\n".iter().copied())).collect();
    let utf_16: Vec<u8> = "id,name\n1,x\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: &[(&str, &[u8], Value)] = &[
        ("empty.csv", b"", json!({})),
        ("twice.csv", b"id,name, id\n1,2,3\n", json!({})),
        ("unnamed.csv", b"id,,x\n1,2,3\n", json!({})),
        ("ours.csv", b"id,_line\n1,2\n", json!({})),
        ("quote_in_header.csv", b"id,\"na\"me\n1,a\n", json!({})),
        ("open_header.csv", b"id,\"name\n1,a\n", json!({})),
        ("marked_twice.csv", b"\xEF\xBB\xBF\xEF\xBB\xBFid,name\n1,a\n", json!({})),
        ("latin.csv", &latin, json!({})),
        ("latin_header.csv", b"id,stra\xDFe\n1,2\n", json!({})),
        ("wide.csv", &utf_16, json!({})),
        ("marked.csv", b"\xEF\xBB\xBFid\n1\n", json!({"encoding": "windows-1252"})),
        ("semicolons.csv", &ragged, json!({})),
        ("data.dat", b"x", json!({})),
        ("list.jsonl", b"[\n{\"id\": 1}\n]\n", json!({})),
        ("not.parquet", b"PAR1 but not really", json!({})),
        ("plain.csv.gz", b"id,name\n1,x\n", json!({})),
    ];
    let mut text = String::new();
    for (name, bytes, settings) in cases {
        text += &seen(name, bytes, settings.clone()).await;
        text.push('\n');
    }
    assert_snapshot!(text);
}

#[tokio::test]
async fn files_that_disagree_or_are_missing_say_so() {
    let dir = dir_with(&[("a.csv", b"id,post_code\n1,2\n"), ("b.csv", b"id,PostCode\n1,2\n")]);
    fs_err::create_dir(dir.path().join("sub")).unwrap();
    let mut text = String::new();
    for path in ["*.csv", "c.csv", "x-*.csv", "sub", "a{"] {
        let source = open_source("files", &json!({}), dir.path()).unwrap();
        let error = read(source.as_ref(), request(&json!({ "path": path }), None)).await.err().unwrap();
        writeln!(text, "{}", shown(&error)).unwrap();
    }
    let source = open_source("files", &json!({}), dir.path()).unwrap();
    text += &shown(&read(source.as_ref(), request(&json!({}), None)).await.err().unwrap());
    assert_snapshot!(text);
}

#[tokio::test]
async fn files_without_rows_are_streams_without_rows() {
    let header_only = read_file("a.csv", b"id,name\n", json!({})).await.unwrap();
    assert_eq!((header_only.columns.len(), header_only.rows().len()), (4, 0));
    let no_lines = read_file("a.jsonl", b"", json!({})).await.unwrap();
    assert_eq!(no_lines.columns, ["_file", "_line"]);
    let named = read_file("a.csv", b"", json!({"header": ["id"]})).await.unwrap();
    assert_eq!(named.columns, ["id", "_file", "_line"]);
    let dir = dir_with(&[]);
    let nothing = read_in(dir.path(), json!({"path": "*.csv", "optional": true, "header": ["id"]})).await.unwrap();
    assert_eq!((nothing.columns.len(), nothing.rows().len()), (3, 0));
}

#[tokio::test]
async fn json_lines_land_as_text() {
    let bytes = br#"{"id": 1, "name": "\u0160koda", "price": 1.50, "tags": ["a",  "b"]}

{"id": 9007199254740993, "ok": true, "name": null, "price": ""}
{"id": 3, "id": 4}
{"id": 5,
nonsense
{"id": 6, "name": "a\u0000b"}
"#;
    assert_snapshot!(seen("a.jsonl", bytes, json!({})).await, @r#"
    id|name|price|tags|ok|_file|_line
    1|Škoda|1.50|["a",  "b"]|∅|a.jsonl|1
    9007199254740993|∅|∅|∅|true|a.jsonl|3
    set aside: line 4 (byte 133) has the key `id` twice: "{\"id\": 3, \"id\": 4}"
    set aside: line 5 (byte 152) is not a JSON object: EOF while parsing a value (column 0): "{\"id\": 5,"
    set aside: line 6 (byte 162) is not a JSON object: expected ident (column 2): "nonsense"
    set aside: line 7 (byte 171) holds a NUL character in `name`: "{\"id\": 6, \"name\": \"a\\u0000b\"}"
    "#);
}

#[tokio::test]
async fn a_huge_field_is_an_error_and_not_a_memory_problem() {
    let mut bytes = b"id,name\n1,\"".to_vec();
    bytes.resize(40 << 20, b'x');
    assert_snapshot!(seen("huge.csv", &bytes, json!({})).await, @r"
    FG0115 Data: `huge.csv` has a field of more than 16 MiB in line 2
      hint: a quote that never closes is the usual cause
    ");
    assert_snapshot!(seen("huge.jsonl", &bytes, json!({})).await, @"FG0115 Data: `huge.jsonl` has a line of more than 16 MiB: line 2");
}

#[tokio::test]
async fn a_field_of_many_buffers_is_read_whole() {
    let long = "é\n".repeat(1 << 20);
    let bytes = format!("id,name\n1,\"{long}\"\n2,x\n");
    let everything = read_file("long.csv", bytes.as_bytes(), json!({})).await.unwrap();
    let rows = everything.rows();
    assert_eq!(rows[0].len(), "1||long.csv|2".len() + long.len());
    assert_eq!(rows[1], format!("2|x|long.csv|{}", 3 + (1 << 20)));
}

#[tokio::test]
async fn many_rows_come_in_bounded_batches() {
    let mut bytes = b"id,name\n".to_vec();
    for id in 0..50_000 {
        writeln!(bytes, "{id},").unwrap();
    }
    let everything = read_file("many.csv", &bytes, json!({})).await.unwrap();
    assert!(everything.batches.len() > 2 && everything.batches.iter().all(|batch| batch.upserts.num_rows() <= 16_384));
    assert_eq!(everything.rows().len(), 50_000);
    assert_eq!(null_count(&everything.batches[0].upserts, "name"), everything.batches[0].upserts.num_rows());
}

fn parquet_file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[tokio::test]
async fn parquet_keeps_its_types() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(0), None]));
    let first = parquet_file(vec![("id", ids.clone()), ("day", days.clone())]);
    let second = parquet_file(vec![("day", days), ("id", ids.clone()), ("more", ids.clone())]);
    let retyped = parquet_file(vec![("id", ids.clone()), ("day", ids)]);
    let dir = dir_with(&[("a.parquet", &first), ("b.parquet", &second)]);
    let everything = read_in(dir.path(), json!({"path": "*.parquet"})).await.unwrap();
    assert_eq!(everything.columns, ["id", "day", "more", "_file", "_line"]);
    assert_eq!(
        everything.rows(),
        ["1|1970-01-01|∅|a.parquet|1", "2|∅|∅|a.parquet|2", "1|1970-01-01|1|b.parquet|1", "2|∅|2|b.parquet|2"]
    );
    let dir = dir_with(&[("a.parquet", &first), ("b.parquet", &retyped)]);
    let error = read_in(dir.path(), json!({"path": "*.parquet"})).await.err().unwrap();
    assert_snapshot!(shown(&error), @"FG0113 Schema: `b.parquet` has `day` as Int64, the files before it as Date32");
}

/// Every way of damaging a file ends in rows or in an error of the file; never in a panic that is taken for a defect.
#[tokio::test]
async fn damaged_parquet_is_an_error() {
    let ids: ArrayRef = Arc::new(Int64Array::from((0..200).collect::<Vec<i64>>()));
    let names: ArrayRef =
        Arc::new(arrow_array::StringArray::from_iter_values((0..200).map(|id| format!("n{}", id % 7))));
    let whole = parquet_file(vec![("id", ids), ("name", names)]);
    let dir = dir_with(&[]);
    let (mut errors, mut at) = (0, 0);
    while at < whole.len() {
        for change in [0x01, 0x80, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            fs_err::write(dir.path().join("a.parquet"), bytes).unwrap();
            if let Err(error) = read_in(dir.path(), json!({"path": "a.parquet"})).await {
                assert!(matches!(error.code, Code::MALFORMED_FILE | Code::FILES_DISAGREE), "byte {at}: {error}");
                errors += 1;
            }
        }
        at += 3;
    }
    for length in (0..whole.len()).step_by(7) {
        fs_err::write(dir.path().join("a.parquet"), &whole[..length]).unwrap();
        let error = read_in(dir.path(), json!({"path": "a.parquet"})).await.err().unwrap();
        assert_eq!(error.code, Code::MALFORMED_FILE, "cut at {length}: {error}");
    }
    assert!(errors > 100, "{errors}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever text a row holds, written by the rules it comes back, with the line it began on.
    #[test]
    fn every_text_survives_csv(
        rows in proptest::collection::vec((r#"[^\x00]{0,12}"#, r#"[a",;\n\r']{0,6}"#), 0..20),
        line_end in prop_oneof![Just("\n"), Just("\r\n")],
    ) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut file = format!("a,b{line_end}");
        let mut expected = Vec::new();
        for (a, b) in &rows {
            let line = 1 + file.matches('\n').count();
            let shown = |text: &String| if text.is_empty() { "∅".to_owned() } else { text.clone() };
            expected.push(format!("{}|{}|a.csv|{line}", shown(a), shown(b)));
            write!(file, "{},{}{line_end}", quoted(a), quoted(b)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let everything = runtime.block_on(read_file("a.csv", file.as_bytes(), json!({}))).unwrap();
        prop_assert_eq!(everything.rows(), expected);
        prop_assert!(everything.malformed().is_empty());
    }
}
