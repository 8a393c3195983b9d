//! One shape for all files of a stream, and the columns that say where a row came from.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use flowgate_core::nearest::nearest;
use flowgate_core::source::{FILE_COLUMN, LINE_COLUMN};
use flowgate_core::{Code, ConnectorError, ErrorKind};

use super::DataFile;

/// Columns of one stream at most. A delimiter or a header that is not one gives absurd numbers.
pub(super) const COLUMNS_MAX: usize = 4_096;

/// `_file` and `_line`.
const PROVENANCE_COLUMNS: usize = 2;

/// The schema of text columns with these names, provenance last.
pub(super) fn text_schema(names: Vec<String>) -> Result<SchemaRef, ConnectorError> {
    if names.len() > COLUMNS_MAX {
        let message = format!("the files have {} columns, more than {COLUMNS_MAX}", names.len());
        return Err(ConnectorError::new(ErrorKind::Data, Code::MALFORMED_FILE, message));
    }
    let fields = names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    Ok(with_provenance(fields))
}

pub(super) fn with_provenance(mut fields: Vec<Field>) -> SchemaRef {
    fields.push(Field::new(FILE_COLUMN, DataType::Utf8, false));
    fields.push(Field::new(LINE_COLUMN, DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// The columns of a stream's schema without provenance.
pub(super) fn data_fields(schema: &Schema) -> &[FieldRef] {
    &schema.fields()[..schema.fields().len() - PROVENANCE_COLUMNS]
}

/// Adds a file's columns to those of the files before it. Columns may be added, but none may be missing.
pub(super) fn join_columns(known: &mut Vec<String>, names: &[String], file: &DataFile) -> Result<(), ConnectorError> {
    if let Some(absent) = known.iter().find(|name| !names.contains(name)) {
        return Err(disagree(absent, known, names, file));
    }
    let is_first = known.is_empty();
    for name in names {
        if !known.contains(name) {
            known.push(name.clone());
            if !is_first {
                tracing::info!(file = file.shown, column = name, "column added; it is empty for the files before");
            }
        }
    }
    Ok(())
}

fn disagree(absent: &str, known: &[String], names: &[String], file: &DataFile) -> ConnectorError {
    let message = format!("`{}` has no column `{absent}`, which the files before it have", file.shown);
    let error = ConnectorError::new(ErrorKind::Schema, Code::FILES_DISAGREE, message);
    let strangers = names.iter().filter(|name| !known.contains(name)).map(String::as_str);
    match nearest(absent, strangers) {
        Some(renamed) => error.hint(format!("it has `{renamed}` instead: was the column renamed?")),
        None => error.hint("files of another form belong to a stream of their own: narrow `path:`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(known: &[&str], names: &[&str]) -> Result<Vec<String>, ConnectorError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let stamp = super::super::unchanged::Stamp::of(&fs_err::metadata(".").unwrap());
        let file = DataFile { path: "b.csv".into(), shown: "b.csv".to_owned(), stamp };
        let mut known = owned(known);
        join_columns(&mut known, &owned(names), &file).map(|()| known)
    }

    #[test]
    fn columns_may_be_added_and_moved() {
        assert_eq!(join(&["a", "b"], &["b", "c", "a"]).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_renamed_column_is_recognised() {
        let error = join(&["id", "post_code"], &["id", "PostCode"]).unwrap_err();
        assert_eq!(error.message, "`b.csv` has no column `post_code`, which the files before it have");
        assert_eq!(error.hints, ["it has `PostCode` instead: was the column renamed?"]);
    }
}
