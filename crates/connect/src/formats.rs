//! The formats of files, and what they have in common: finding, opening, one shape for all files.
//!
//! CSV and JSON lines land as text, each value as it is written: types come later, from SQL or from
//! the stream's `columns:`. Parquet keeps its types. Two provenance columns follow the data:
//! `_file`, the path as the project would write it, and `_line`, the line (in Parquet: the row) from 1.
//!
//! Every file is opened twice: first for its columns, so that the shape of the stream is known
//! before its first row, then for its rows.

mod csv;
mod find;
mod input;
mod jsonl;
mod layout;
mod parquet;
mod rows;
mod shape;
mod split;
mod unchanged;

use std::path::{Path, PathBuf};

use arrow_schema::SchemaRef;
use flowgate_core::source::Malformed;
use flowgate_core::{Code, ConnectorError, ErrorKind};

use crate::blocking::Sink;
pub(crate) use find::check_pattern;
pub(crate) use layout::{FileSettings, Layout};

use layout::Format;
use unchanged::{Stamp, require_same_files, require_unchanged};

/// One file to read.
#[derive(Debug, Clone)]
struct DataFile {
    path: PathBuf,
    /// The path in messages and in `_file`: from the project directory, if it is below.
    shown: String,
    /// What it was when it was found.
    stamp: Stamp,
}

/// The files of a stream and the columns they make together.
#[derive(Debug)]
pub(crate) struct Plan {
    files: Vec<DataFile>,
    layout: Layout,
    format: Format,
    project_dir: PathBuf,
    pub(crate) schema: SchemaRef,
}

/// Finds the files and reads their columns.
pub(crate) fn plan(layout: Layout, project_dir: &Path) -> Result<Plan, ConnectorError> {
    let files = find::find(&layout.path, project_dir)?;
    if files.is_empty() && !layout.is_optional {
        return Err(find::nothing_found(&layout.path, project_dir));
    }
    let format = layout.format_of(files.first())?;
    let schema = match format {
        Format::Csv => csv::columns(&files, &layout).and_then(shape::text_schema),
        Format::Jsonl => jsonl::columns(&files, &layout).and_then(shape::text_schema),
        Format::Parquet => parquet::schema(&files),
    };
    let schema = or_changed(schema, &files)?;
    Ok(Plan { files, layout, format, project_dir: project_dir.to_owned(), schema })
}

/// What reading `files` gave. A file that changed meanwhile is the cause of whatever failed.
fn or_changed<T>(result: Result<T, ConnectorError>, files: &[DataFile]) -> Result<T, ConnectorError> {
    match result {
        Err(error) if error.kind != ErrorKind::Cancelled => {
            files.iter().try_for_each(require_unchanged)?;
            Err(error)
        }
        other => other,
    }
}

impl Plan {
    /// One line about what was found.
    pub(crate) fn summary(&self) -> String {
        let count = self.files.len();
        let noun = if count == 1 { "file" } else { "files" };
        format!("{count} {noun} match `{}`", self.layout.path)
    }

    /// Reads all files in order. Once all are read, each must still be what it was before the first.
    pub(crate) fn read(&self, sink: &Sink) -> Result<(), ConnectorError> {
        for file in &self.files {
            let result = match self.format {
                Format::Csv => csv::read(file, &self.layout, &self.schema, sink),
                Format::Jsonl => jsonl::read(file, &self.layout, &self.schema, sink),
                Format::Parquet => parquet::read(file, &self.schema, sink),
            };
            or_changed(result, std::slice::from_ref(file))?;
            // Early, since what is read of the files after it would be for nothing.
            require_unchanged(file)?;
        }
        require_same_files(&self.files, &find::find(&self.layout.path, &self.project_dir)?)?;
        self.files.iter().try_for_each(require_unchanged)
    }
}

/// A file that cannot be read at all; `what` continues "`data/x.csv`".
fn damaged(file: &DataFile, what: impl std::fmt::Display) -> ConnectorError {
    ConnectorError::new(ErrorKind::Data, Code::MALFORMED_FILE, format!("`{}` {what}", file.shown))
}

/// A failure of the machine while reading a file, or of the file's compression.
fn read_failed(file: &DataFile, error: std::io::Error) -> ConnectorError {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::InvalidData | Io::InvalidInput | Io::UnexpectedEof => damaged(file, format!("is damaged: {error}"))
            .hint("a transfer that was cut short is the usual cause; check `compression:` too"),
        Io::PermissionDenied => {
            ConnectorError::new(ErrorKind::Permission, Code::SOURCE_FAILED, format!("`{}` may not be read", file.shown))
                .caused_by(error)
        }
        _ => {
            let message = format!("reading `{}` failed", file.shown);
            ConnectorError::new(ErrorKind::Resource, Code::SOURCE_FAILED, message).caused_by(error)
        }
    }
}

/// A line that is set aside. Its key is never known: it could not be split into columns reliably.
fn malformed(file: &DataFile, line: u64, offset: u64, reason: String, raw: &[u8]) -> Malformed {
    let text = String::from_utf8_lossy(raw);
    let text = text.trim_end_matches(['\r', '\n']).chars().take(flowgate_core::source::MALFORMED_TEXT_MAX).collect();
    Malformed {
        file: Some(file.shown.clone()),
        line: Some(line),
        offset: Some(offset),
        reason,
        text,
        key_unknown: true,
    }
}
