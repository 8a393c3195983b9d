//! Opening connectors and reading streams, for all tests.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use flowgate_core::connector::{OpenRequest, Opened};
use flowgate_core::source::{Image, Malformed, ReadRequest};
use flowgate_core::{Batch, CancellationToken, Clock, ConnectorError, Cursor, Source};
use futures::StreamExt;
use serde_json::Value;

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(flowgate_http::SystemClock::new(1.0))
}

pub(crate) fn open(connector: &str, settings: &Value, dir: &Path) -> Result<Opened, ConnectorError> {
    let spec = flowgate_connect::find(connector).unwrap();
    assert_eq!((spec.check_connection)(settings), Ok(()));
    (spec.open)(OpenRequest {
        settings,
        project_dir: dir,
        clock: clock(),
        time_zone: "UTC",
        name: "tested",
        budget: None,
        lanes: None,
    })
}

pub(crate) fn open_source(connector: &str, settings: &Value, dir: &Path) -> Result<Arc<dyn Source>, ConnectorError> {
    Ok(open(connector, settings, dir)?.source.unwrap())
}

pub(crate) fn request(settings: &Value, cursor: Option<&Cursor>) -> ReadRequest {
    ReadRequest {
        settings: settings.clone(),
        key: vec!["id".to_owned()],
        cursor: cursor.cloned(),
        cancel: CancellationToken::new(),
    }
}

/// Everything one read gave.
pub(crate) struct Everything {
    pub(crate) columns: Vec<String>,
    pub(crate) image: Image,
    pub(crate) batches: Vec<Batch>,
}

impl Everything {
    pub(crate) fn rows(&self) -> Vec<String> {
        self.batches.iter().flat_map(|batch| lines(&batch.upserts)).collect()
    }

    pub(crate) fn deletes(&self) -> Vec<String> {
        self.batches.iter().filter_map(|batch| batch.deletes.as_ref()).flat_map(lines).collect()
    }

    pub(crate) fn malformed(&self) -> Vec<Malformed> {
        self.batches.iter().flat_map(|batch| batch.malformed.clone()).collect()
    }
}

pub(crate) async fn read(source: &dyn Source, request: ReadRequest) -> Result<Everything, ConnectorError> {
    let mut reading = source.read(request).await?;
    let columns = reading.schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut batches = Vec::new();
    while let Some(batch) = reading.batches.next().await {
        let batch = batch?;
        assert_eq!(batch.upserts.schema(), reading.schema, "every batch has the schema of the read");
        batches.push(batch);
    }
    Ok(Everything { columns, image: reading.image, batches })
}

/// Rows as text: values between bars, `∅` for none.
pub(crate) fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(line).collect()
}

/// The whole text of an error, as a person would read it.
pub(crate) fn shown(error: &ConnectorError) -> String {
    let mut text = format!("{} {:?}: {}", error.code, error.kind, error.message);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        write!(text, "\n  cause: {inner}").unwrap();
        cause = inner.source();
    }
    for hint in &error.hints {
        write!(text, "\n  hint: {hint}").unwrap();
    }
    text
}

pub(crate) fn null_count(batch: &RecordBatch, column: &str) -> usize {
    batch.column_by_name(column).unwrap().null_count()
}
