//! Parquet: columns with their types, read batch by batch.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow_schema::{Field, SchemaRef};
use flowgate_core::{Batch, Code, ConnectorError, ErrorKind};

use super::layout::name_problem;
use super::rows::file_column;
use super::shape::{data_fields, join_columns, with_provenance};
use super::{DataFile, damaged, read_failed};
use crate::blocking::Sink;

const BATCH_ROWS: usize = 16_384;

/// The columns of all files together, with their types.
pub(super) fn schema(files: &[DataFile]) -> Result<SchemaRef, ConnectorError> {
    let mut known = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    for file in files {
        let (_, metadata) = open(file)?;
        let names: Vec<_> = metadata.schema().fields().iter().map(|field| field.name().clone()).collect();
        if let Some(problem) = name_problem(&names) {
            return Err(damaged(file, format!("has columns that cannot be used: {problem}")));
        }
        join_columns(&mut known, &names, file)?;
        for field in metadata.schema().fields() {
            match fields.iter().find(|earlier| earlier.name() == field.name()) {
                None => fields.push(Field::new(field.name(), field.data_type().clone(), true)),
                Some(earlier) if earlier.data_type() == field.data_type() => {}
                Some(earlier) => return Err(retyped(file, earlier, field)),
            }
        }
    }
    Ok(with_provenance(fields))
}

fn retyped(file: &DataFile, earlier: &Field, field: &Field) -> ConnectorError {
    let (name, now, before) = (field.name(), field.data_type(), earlier.data_type());
    let message = format!("`{}` has `{name}` as {now}, the files before it as {before}", file.shown);
    ConnectorError::new(ErrorKind::Schema, Code::FILES_DISAGREE, message)
}

/// Reads one file into batches of `schema`.
pub(super) fn read(file: &DataFile, schema: &SchemaRef, sink: &Sink) -> Result<(), ConnectorError> {
    let (handle, metadata) = open(file)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata).with_batch_size(BATCH_ROWS);
    let reader = reader.build().map_err(|error| damaged(file, format!("is damaged: {error}")))?;
    let mut rows_before = 0;
    for batch in reader {
        let batch = batch.map_err(|error| damaged(file, format!("is damaged: {error}")))?;
        let rows = batch.num_rows();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in data_fields(schema) {
            let array = batch.column_by_name(field.name()).cloned();
            arrays.push(array.unwrap_or_else(|| new_null_array(field.data_type(), rows)));
        }
        arrays.push(file_column(&file.shown, rows));
        arrays.push(Arc::new(Int64Array::from_iter_values(rows_before + 1..=rows_before + rows as i64)));
        rows_before += rows as i64;
        let upserts = RecordBatch::try_new(schema.clone(), arrays)
            .map_err(|error| damaged(file, format!("changed while it was read: {error}")))?;
        sink.send(Batch::of(upserts))?;
    }
    sink.check()
}

fn open(file: &DataFile) -> Result<(std::fs::File, ArrowReaderMetadata), ConnectorError> {
    let handle = fs_err::File::open(&file.path).map_err(|error| read_failed(file, error))?;
    let (handle, _) = handle.into_parts();
    let metadata = ArrowReaderMetadata::load(&handle, ArrowReaderOptions::new())
        .map_err(|error| damaged(file, format!("is not a whole Parquet file: {error}")))?;
    Ok((handle, metadata))
}
