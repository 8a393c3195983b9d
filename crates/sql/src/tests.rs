//! Transforms over small Parquet images.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use flowgate_core::moment::LocalTimes;
use flowgate_core::{Note, WallClock};
use futures::StreamExt;

use crate::{Limits, STACK_BYTES, Session, SqlError};

async fn session(dir: &tempfile::TempDir) -> Session {
    let schema = Arc::new(Schema::new(vec![
        Field::new("ID", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("_row", DataType::Int64, false),
    ]));
    let rows = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(StringArray::from(vec!["1", "2", "x"])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
            Arc::new(Int64Array::from(vec![0, 1, 2])),
        ],
    )
    .unwrap();
    let path = dir.path().join("enquiry.parquet");
    let mut writer = ArrowWriter::try_new(fs_err::File::create(&path).unwrap(), schema, None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let limits = Limits {
        memory_bytes_max: 64 << 20,
        spill_bytes_max: 1 << 30,
        spill_dir: dir.path().to_owned(),
        batch_rows: 8192,
        partitions: 2,
        clock: WallClock::new("Europe/Berlin", LocalTimes::default()).unwrap(),
    };
    let session = Session::new(&limits).unwrap();
    session.register("enquiry", &path).await.unwrap();
    session
}

async fn error_of(sql: &str) -> SqlError {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    match session.prepare(sql).await {
        Err(error) => error,
        Ok(transform) => transform.run().await.unwrap().next().await.unwrap().unwrap_err(),
    }
}

#[tokio::test]
async fn a_select_can_be_read_by_another_however_its_text_ends() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let inner = session.prepare("SELECT note AS text FROM enquiry; -- by Ann").await.unwrap();
    let sql = "SELECT prepared.*, text IS NULL AS blank FROM _prepared AS prepared";
    for _ in 0..2 {
        let outer = session.prepare_over(&inner, "_prepared", sql).await.unwrap();
        let names: Vec<_> = outer.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["text", "blank"]);
        let batches: Vec<_> = outer.run().await.unwrap().collect().await;
        assert_eq!(batches.into_iter().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
    }
    assert!(matches!(session.prepare(sql).await, Err(SqlError::UnknownTable { .. })), "it is not there for others");
}

#[tokio::test]
async fn a_select_gives_rows() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let transform =
        session.prepare(r#"SELECT e._row, e."ID" AS number FROM enquiry e WHERE note IS NOT NULL"#).await.unwrap();
    let mut rows = transform.run().await.unwrap();
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 2);
}

/// The one value of an expression, as text.
async fn value(expression: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let sql = format!("SELECT {expression} AS value FROM enquiry WHERE \"ID\" = '1'");
    let transform = session.prepare(&sql).await.map_err(|error| error.to_string())?;
    let mut rows = transform.run().await.map_err(|error| error.to_string())?;
    let batch = rows.next().await.unwrap().map_err(|error| error.to_string())?;
    let array = datafusion::arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
    Ok(datafusion::arrow::util::display::array_value_to_string(&array, 0).unwrap())
}

/// A text that the optimizer cannot evaluate beforehand.
fn column(text: &str) -> String {
    format!("(\"ID\" || '{text}' || \"ID\")").replace("\"ID\"", "replace(\"ID\", '1', '')")
}

#[tokio::test]
async fn a_text_is_the_same_moment_by_every_cast_and_function() {
    let zone = "2024-07-01T12:00:00+02:00";
    for text in
        ["2024-07-01T10:00:00Z", "2024-07-01 12:00:00+02:00", "2024-07-01 12:00", "2024-07-01T05:00:00.000-0500"]
    {
        for seen in [format!("'{text}'"), column(text)] {
            for expression in [
                format!("CAST({seen} AS TIMESTAMP)"),
                format!("{seen}::timestamptz"),
                format!("TRY_CAST({seen} AS TIMESTAMP WITH TIME ZONE)"),
                format!("to_timestamp({seen})"),
                format!("to_timestamp_seconds({seen})"),
                format!("to_timestamp_nanos({seen})"),
                format!("to_timestamp(to_unixtime({seen}))"),
                format!("from_unixtime(to_unixtime({seen}))"),
                format!("arrow_cast({seen}, 'Timestamp(Microsecond, Some(\"Europe/Berlin\"))')"),
                format!("CAST(arrow_cast({seen}, 'Timestamp(Microsecond, None)') AS TIMESTAMP)"),
                format!("(CAST({seen} AS TIMESTAMP) AT TIME ZONE 'America/New_York') AT TIME ZONE 'Europe/Berlin'"),
            ] {
                assert_eq!(value(&expression).await.as_deref(), Ok(zone), "{expression}");
            }
            let compared = format!("CAST({seen} AS TIMESTAMP) = '2024-07-01T10:00:00Z'");
            assert_eq!(value(&compared).await.as_deref(), Ok("true"), "{compared}");
        }
    }
}

#[tokio::test]
async fn one_moment_makes_one_date_and_the_clock_is_the_projects() {
    let born = column("1990-06-14T22:00:00Z");
    for (expression, shown) in [
        (format!("CAST({born} AS DATE)"), "1990-06-15"),
        (format!("to_date({born})"), "1990-06-15"),
        (format!("CAST(CAST({born} AS TIMESTAMP) AS DATE)"), "1990-06-15"),
        (format!("CAST(to_timestamp({born}) AT TIME ZONE 'UTC' AS DATE)"), "1990-06-14"),
        (format!("EXTRACT(HOUR FROM to_timestamp({born}))"), "0"),
        (format!("date_trunc('day', to_timestamp({born}))"), "1990-06-15T00:00:00+02:00"),
        (format!("to_char(to_timestamp({born}), '%Y-%m-%d %H:%M')"), "1990-06-15 00:00"),
        ("to_date('15.06.1990', '%d.%m.%Y')".to_owned(), "1990-06-15"),
        ("to_timestamp('15.06.1990 00:00', '%d.%m.%Y %H:%M')".to_owned(), "1990-06-15T00:00:00+02:00"),
        ("to_timestamp('15.06.1990 00:00 +0000', '%d.%m.%Y %H:%M %z')".to_owned(), "1990-06-15T02:00:00+02:00"),
        ("to_timestamp_millis(645400800000)".to_owned(), "1990-06-15T00:00:00+02:00"),
        ("DATE '1990-06-15' = to_timestamp('1990-06-14T22:00:00Z')".to_owned(), "true"),
    ] {
        assert_eq!(value(&expression).await.as_deref(), Ok(shown), "{expression}");
    }
}

#[tokio::test]
async fn years_from_1_to_9999_are_read_and_later_ones_do_not_stop_a_load() {
    for year in ["0001-01-02", "1752-12-31", "2263-01-01", "9999-12-31"] {
        let expression = format!("CAST(CAST({} AS TIMESTAMP) AS DATE)", column(&format!("{year}T12:00:00Z")));
        assert_eq!(value(&expression).await.as_deref(), Ok(year));
    }
    let far = format!("EXTRACT(YEAR FROM to_timestamp({}))", column("10000-06-01T00:00:00Z"));
    assert_eq!(value(&far).await.as_deref(), Ok("10000"));
    let bad = value(&format!("to_timestamp({})", column("31/12/2023"))).await.unwrap_err();
    assert!(bad.contains("`31/12/2023` is not a date and time in ISO 8601 form"), "{bad}");
    assert_eq!(value(&format!("TRY_CAST({} AS TIMESTAMP)", column("31/12/2023"))).await.as_deref(), Ok(""));
    let number = value("CAST(_row AS TIMESTAMP)").await.unwrap_err();
    assert!(number.contains("until its unit is said"), "{number}");
}

#[tokio::test]
async fn odd_local_times_are_counted_and_a_lost_offset_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let skipped = column("2026-03-29T02:30:00");
    let transform = session
        .prepare(&format!("SELECT to_timestamp({skipped}) AS value FROM enquiry WHERE \"ID\" = '1'"))
        .await
        .unwrap();
    let mut rows = transform.run().await.unwrap();
    while let Some(batch) = rows.next().await {
        batch.unwrap();
    }
    let notes = session.take_notes();
    let noted: Vec<_> = notes.iter().map(|(_, note, count, text)| (note, count, text)).collect();
    assert_eq!(noted, [(Note::Time(flowgate_core::moment::Oddity::Nonexistent), 1, "2026-03-29T02:30:00")]);
    assert!(session.take_notes().is_empty());
    let second = column("2026-10-25T02:30:00+01:00");
    let lost = value(&format!("arrow_cast({second}, 'Timestamp(Microsecond, None)')")).await.unwrap_err();
    assert!(lost.contains("cannot be told from another moment without its offset"), "{lost}");
}

#[tokio::test]
async fn an_unknown_column_is_named_with_its_nearest_and_its_place() {
    let error = error_of("SELECT\n  nota FROM enquiry").await;
    assert_eq!(error.place().map(|place| place.line), Some(2));
    assert!(
        matches!(&error, SqlError::UnknownColumn { name, nearest, .. } if name == "nota" && nearest[0] == "note"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unknown_table_is_named_with_its_nearest() {
    let error = error_of("SELECT 1 FROM enquiri").await;
    assert!(
        matches!(&error, SqlError::UnknownTable { nearest: Some(nearest), .. } if nearest == "enquiry"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_column_returned_twice_is_refused() {
    let error = error_of("SELECT note, upper(note) AS note FROM enquiry").await;
    assert!(matches!(&error, SqlError::DuplicateColumn { name } if name == "note"), "{error:?}");
}

#[tokio::test]
async fn the_sandbox_holds() {
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT random() FROM enquiry",
        "SELECT uuid() FROM enquiry",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.df_settings",
    ] {
        error_of(sql).await;
    }
}

#[tokio::test]
async fn a_failing_cast_is_an_error_with_a_hint() {
    let error = error_of(r#"SELECT CAST("ID" AS INT) AS number FROM enquiry"#).await;
    assert!(matches!(error, SqlError::Failed { .. }), "{error:?}");
    assert_eq!(error.hints().len(), 1, "{error}");
}

/// Runs `work` as the binary does: on threads with the stack that is asked for.
fn on_large_stack(work: impl Future<Output = ()> + Send + 'static) {
    let work = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).build().unwrap();
        runtime.block_on(work);
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap();
}

#[test]
fn what_is_just_within_the_bounds_is_planned_and_run_in_seconds_on_the_stack_that_is_asked_for() {
    on_large_stack(plan_and_run_what_is_just_within_the_bounds());
}

async fn plan_and_run_what_is_just_within_the_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let many = |text: &str, count: usize, between: &str| vec![text; count].join(between);
    let joins: String = (0..80)
        .map(|number| format!(" JOIN enquiry e{number} ON e{number}._row = enquiry._row"))
        .collect::<Vec<_>>()
        .concat();
    let nested = |count: usize| {
        (0..count).fold("_row".to_owned(), |inner, _| format!("({inner} + {})", many("_row", 400 / count, "-")))
    };
    let values: Vec<_> = (0..20_000).map(|number| number.to_string()).collect();
    let cases: Vec<_> = (0..150).map(|number| format!("WHEN _row = {number} THEN 'x'")).collect();
    let columns: Vec<_> = (0..2_000).map(|number| format!("\"ID\" || note AS c{number}")).collect();
    for sql in [
        format!("SELECT note FROM enquiry WHERE {}", many("_row = 1", 240, " OR ")),
        format!("SELECT {} AS a FROM enquiry", many("_row", 490, " + ")),
        format!("SELECT {} AS a FROM enquiry", many("\"ID\"", 490, " || ")),
        format!("SELECT {} AS a FROM enquiry", nested(10)),
        format!("SELECT {} AS a FROM enquiry", nested(40)),
        many("SELECT note FROM enquiry", 120, " UNION ALL "),
        format!("SELECT enquiry.note FROM enquiry{joins}"),
        format!("SELECT note FROM enquiry WHERE _row IN ({})", values.join(", ")),
        format!("SELECT CASE {} END AS a FROM enquiry", cases.join(" ")),
        format!("SELECT {} FROM enquiry", columns.join(", ")),
    ] {
        let began = std::time::Instant::now();
        let transform = session.prepare(&sql).await.unwrap();
        let mut rows = transform.run().await.unwrap();
        while let Some(batch) = rows.next().await {
            batch.unwrap();
        }
        let took = began.elapsed();
        eprintln!("{took:?} {}", &sql[..40]);
        assert!(took.as_secs() < 20, "{took:?}: {} …", &sql[..40]);
    }
}

/// Every one of these took gigabytes, aborted or panicked.
#[test]
fn what_would_make_a_huge_value_is_refused_before_it_is_made() {
    on_large_stack(refuse_what_would_make_a_huge_value());
}

async fn refuse_what_would_make_a_huge_value() {
    let doubled = (0..40).fold("note".to_owned(), |inner, _| format!("encode({inner}, 'hex')"));
    let pairs = |count: usize| {
        let doubling = (0..count).fold("enquiry".to_owned(), |inner, _| {
            format!("(SELECT note || note || note || note AS note FROM {inner} AS x)")
        });
        format!("(SELECT max(note) FROM {doubling} AS y)")
    };
    for expression in [
        "repeat('x', 2000000000)".to_owned(),
        "repeat(note, 2000000000)".to_owned(),
        "repeat(note, _row * 1000000000 + 100000000)".to_owned(),
        "lpad(note, 2000000000, 'x')".to_owned(),
        "rpad(note, 2000000000)".to_owned(),
        "replace(repeat(note, 1000000), 'a', repeat(note, 1000000))".to_owned(),
        "regexp_replace(repeat(note, 1000000), 'a', repeat(note, 1000000), 'g')".to_owned(),
        "array_length(array_repeat(note, 2000000000))".to_owned(),
        "array_length(list_repeat(repeat(note, 1000), 1000000))".to_owned(),
        "array_length(array_resize(make_array(note), 2000000000))".to_owned(),
        "array_length(generate_series(1, 9000000000000000000))".to_owned(),
        "array_length(range(_row, 9000000000000000000, 2))".to_owned(),
        "array_length(generate_series(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1' SECOND))".to_owned(),
        "concat(repeat(note, 40000000), repeat(note, 40000000))".to_owned(),
        doubled,
        pairs(20),
    ] {
        let sql = format!("SELECT {expression} AS value FROM enquiry WHERE \"ID\" = '1'");
        let error = error_of(&sql).await;
        assert!(matches!(error, SqlError::OutOfMemory { .. }), "{error:?}: {expression}");
    }
}

#[tokio::test]
async fn guarded_functions_answer_as_they_did() {
    for (expression, answer) in [
        ("repeat(note, 3)", "aaa"),
        ("lpad(note, 3, 'x')", "xxa"),
        ("rpad(note, 3)", "a  "),
        ("replace('banana', note, 'oo')", "boonoonoo"),
        ("regexp_replace('banana', '[an]+', '<\\0>', 'g')", "b<anana>"),
        ("concat(note, NULL, 'b', 1)", "ab1"),
        ("concat_ws('-', note, 'b')", "a-b"),
        ("note || '-' || _row || \"ID\"", "a-01"),
        ("'x' || NULL", ""),
        ("array_to_string(make_array(note, 'b') || make_array('c'), ',')", "a,b,c"),
        ("array_to_string(array_repeat(note, 2), ',')", "a,a"),
        ("array_to_string(generate_series(1, 7, 3), ',')", "1,4,7"),
        ("array_length(generate_series(DATE '2024-01-01', DATE '2024-01-31', INTERVAL '1' DAY))", "31"),
        ("encode(note, 'hex')", "61"),
        ("overlay('abc' placing 'x' from 2 for 1)", "axc"),
    ] {
        assert_eq!(value(expression).await.as_deref(), Ok(answer), "{expression}");
    }
}
