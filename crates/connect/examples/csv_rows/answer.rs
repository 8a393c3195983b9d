//! One case of `bench/csv_strict.py`: a file and its settings, answered with what the `files` connector reads.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use flowgate_core::connector::OpenRequest;
use flowgate_core::source::ReadRequest;
use flowgate_core::{CancellationToken, ConnectorError};
use futures::StreamExt;
use serde_json::{Value, json};

/// `_file` and `_line`.
const PROVENANCE_COLUMNS: usize = 2;

/// Answers one line of JSON, `{"hex": "69640a…", "settings": {…}}`, with another. `dir` is overwritten.
pub(crate) async fn answer(case: &str, dir: &Path) -> String {
    let case: Value = serde_json::from_str(case).unwrap();
    let hex = case["hex"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    fs_err::write(dir.join("x.csv"), bytes).unwrap();
    let mut settings = case["settings"].clone();
    settings["path"] = json!("x.csv");
    match read(&settings, dir).await {
        Ok(read) => json!({ "columns": read.columns, "rows": read.rows, "malformed": read.malformed }),
        Err(error) => json!({ "rows": [], "malformed": [], "error": error.to_string() }),
    }
    .to_string()
}

#[derive(Default)]
struct Read {
    columns: Vec<String>,
    rows: Vec<Value>,
    malformed: Vec<Value>,
}

async fn read(settings: &Value, dir: &Path) -> Result<Read, ConnectorError> {
    let mut read = Read::default();
    for_each_batch(settings, dir, |batch| {
        let schema = batch.upserts.schema();
        let names = schema.fields().iter().map(|field| field.name().clone());
        read.columns = names.take(schema.fields().len() - PROVENANCE_COLUMNS).collect();
        read.rows.extend((0..batch.upserts.num_rows()).map(|row| row_of(&batch.upserts, row)));
        read.malformed.extend(batch.malformed.iter().map(|entry| json!([entry.line, entry.reason, entry.text])));
    })
    .await?;
    Ok(read)
}

/// Reads the files that `settings` name, batch by batch.
pub(crate) async fn for_each_batch(
    settings: &Value,
    dir: &Path,
    mut take: impl FnMut(flowgate_core::Batch),
) -> Result<(), ConnectorError> {
    let spec = flowgate_connect::find("files").unwrap();
    let opened = (spec.open)(OpenRequest {
        settings,
        project_dir: dir,
        clock: Arc::new(flowgate_http::SystemClock::new(1.0)),
        time_zone: "UTC",
        name: "tested",
        budget: None,
        lanes: None,
    })?;
    let request = ReadRequest { settings: json!({}), key: Vec::new(), cursor: None, cancel: CancellationToken::new() };
    let mut reading = opened.source.unwrap().read(request).await?;
    while let Some(batch) = reading.batches.next().await {
        take(batch?);
    }
    Ok(())
}

/// The line of a row and its values.
fn row_of(batch: &RecordBatch, row: usize) -> Value {
    let data = batch.num_columns() - PROVENANCE_COLUMNS;
    let value = |column: usize| {
        let texts = batch.column(column).as_string::<i32>();
        if texts.is_null(row) { Value::Null } else { json!(texts.value(row)) }
    };
    json!([batch.column(data + 1).as_primitive::<Int64Type>().value(row), (0..data).map(value).collect::<Vec<_>>()])
}
