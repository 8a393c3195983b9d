//! Transforms over small Parquet images.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use futures::StreamExt;

use crate::{Limits, Session, SqlError};

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
    let limits =
        Limits { memory_bytes_max: 64 << 20, spill_dir: dir.path().to_owned(), batch_rows: 8192, partitions: 2 };
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

#[tokio::test]
async fn a_time_read_from_text_stays_without_a_zone() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir).await;
    let sql = "SELECT to_timestamp('2026-07-' || lpad(_row::text, 2, '1')) AS day FROM enquiry";
    let mut rows = session.prepare(sql).await.unwrap().run().await.unwrap();
    let kind = rows.next().await.unwrap().unwrap().column(0).data_type().clone();
    assert_eq!(kind, DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, None));
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
