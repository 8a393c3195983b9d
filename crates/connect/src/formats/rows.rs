//! Builds batches of text columns row by row, and tells a bad line from a bad file.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_schema::SchemaRef;
use flowgate_core::source::{Malformed, Note};
use flowgate_core::{Batch, Code, ConnectorError, ErrorKind};

use super::shape::data_fields;
use super::{DataFile, damaged};
use crate::blocking::Sink;
use crate::columns::record_batch;

/// Rows of one batch at most: enough to amortise its cost, few enough to stay in cache.
const BATCH_ROWS_MAX: usize = 16_384;
/// Text of one batch, about. A single row may go beyond.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Lines set aside that wait for the next batch at most.
const BATCH_MALFORMED_MAX: usize = 1_000;

/// Bad lines a file may have before their share is looked at.
const MALFORMED_TOLERATED: u64 = 100;
/// The same for lines with wrong bytes: a wrong `encoding:` shows early.
const MISENCODED_TOLERATED: u64 = 10;

/// The rows of one file on their way into batches.
pub(super) struct Rows<'a> {
    file: &'a DataFile,
    schema: &'a SchemaRef,
    sink: &'a Sink,
    columns: Vec<StringBuilder>,
    lines: Vec<i64>,
    text_bytes: usize,
    malformed: Vec<Malformed>,
    notes: Vec<Note>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    rows: u64,
    malformed: u64,
    misencoded: u64,
    /// Rows that hold valid text beyond ASCII: they speak for the encoding.
    beyond_ascii: u64,
}

impl<'a> Rows<'a> {
    /// `schema` is that of the stream: text columns, then provenance.
    pub(super) fn new(file: &'a DataFile, schema: &'a SchemaRef, sink: &'a Sink) -> Self {
        let columns = data_fields(schema).iter().map(|_| StringBuilder::new()).collect();
        Self {
            file,
            schema,
            sink,
            columns,
            lines: Vec::new(),
            text_bytes: 0,
            malformed: Vec::new(),
            notes: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Gives the row that is being built its value of one column; no value for empty text.
    pub(super) fn push(&mut self, column: usize, text: &str) {
        if text.is_empty() {
            return self.push_null(column);
        }
        self.text_bytes += text.len();
        self.columns[column].append_value(text);
    }

    pub(super) fn push_null(&mut self, column: usize) {
        self.columns[column].append_null();
    }

    /// Ends the row: every column has got its value.
    pub(super) fn end_row(&mut self, line: u64, is_ascii: bool) -> Result<(), ConnectorError> {
        self.lines.push(line as i64);
        self.counts.rows += 1;
        self.counts.beyond_ascii += u64::from(!is_ascii);
        if self.lines.len() >= BATCH_ROWS_MAX || self.text_bytes >= BATCH_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Sets a line aside, unless there are so many of them that the file itself must be wrong.
    pub(super) fn set_aside(&mut self, line: Malformed) -> Result<(), ConnectorError> {
        self.counts.malformed += 1;
        if self.counts.malformed > MALFORMED_TOLERATED && self.counts.malformed > self.counts.rows {
            let message = format!("is not of the declared form: line {} {}", line.line.unwrap_or(0), line.reason);
            return Err(damaged(self.file, message).hint("most of its lines are like this; nothing was loaded"));
        }
        self.malformed.push(line);
        if self.malformed.len() >= BATCH_MALFORMED_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Sets a line with wrong bytes aside, unless the whole file is of another encoding.
    pub(super) fn set_aside_misencoded(&mut self, line: Malformed) -> Result<(), ConnectorError> {
        self.counts.misencoded += 1;
        if self.counts.misencoded > MISENCODED_TOLERATED && self.counts.misencoded > self.counts.beyond_ascii {
            return Err(wrong_encoding(self.file, line.line.unwrap_or(0), &line.reason));
        }
        self.set_aside(line)
    }

    /// The last line has no end although those before it have: its writer has not come to the end, or a transfer broke.
    pub(super) fn say_open_end(&mut self, line: u64) {
        let name = &self.file.shown;
        self.notes.push(Note::RowsMayBeMissing(format!(
            "`{name}` ends in the middle of line {line}: it has no line end, as all lines before it have; the file may \
             be cut short (`open_end: true` says that it is written so)"
        )));
    }

    /// Sends what is left, and says that the file was read to its end.
    pub(super) fn end(mut self) -> Result<(), ConnectorError> {
        self.notes.push(Note::Part { name: self.file.shown.clone(), rows: self.counts.rows });
        self.flush()
    }

    /// Sends what there is.
    fn flush(&mut self) -> Result<(), ConnectorError> {
        if self.lines.is_empty() && self.malformed.is_empty() && self.notes.is_empty() {
            return self.sink.check();
        }
        let lines = std::mem::take(&mut self.lines);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 2);
        for column in &mut self.columns {
            arrays.push(Arc::new(column.finish()));
        }
        arrays.push(file_column(&self.file.shown, lines.len()));
        arrays.push(Arc::new(Int64Array::from(lines)));
        self.text_bytes = 0;
        let upserts = record_batch(self.schema, arrays)?;
        let (malformed, notes) = (std::mem::take(&mut self.malformed), std::mem::take(&mut self.notes));
        self.sink.send(Batch { malformed, notes, ..Batch::of(upserts) })
    }
}

/// The `_file` column of `rows` rows.
pub(super) fn file_column(name: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, rows)))
}

/// A file whose bytes are not of the encoding it is read in.
pub(super) fn wrong_encoding(file: &DataFile, line: u64, reason: &str) -> ConnectorError {
    let message = format!("`{}` is of another encoding: line {line} {reason}", file.shown);
    ConnectorError::new(ErrorKind::Data, Code::BAD_ENCODING, message)
        .hint("set `encoding:` to what the file is written in, often `windows-1252` or `utf-16`")
}
