//! Parquet: columns with their types, read batch by batch.
//!
//! The Parquet reader panics on some damaged files. Its panics end here: they become the error of the file.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::parquet::basic::Type as PhysicalType;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flowgate_core::source::Note;
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
    let built = without_panic(file, || Ok(reader.build()))?;
    let mut reader = built.map_err(|error| damaged(file, format!("is damaged: {error}")))?;
    let mut rows_before = 0;
    while let Some(batch) = without_panic(file, || Ok(reader.next()))? {
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
    let part = Note::Part { name: file.shown.clone(), rows: rows_before as u64 };
    let nothing = RecordBatch::new_empty(schema.clone());
    sink.send(Batch { notes: vec![part], ..Batch::of(nothing) })
}

/// Runs a step of the Parquet reader. What it leaves behind after a panic is never used again.
fn without_panic<T>(file: &DataFile, step: impl FnOnce() -> Result<T, ConnectorError>) -> Result<T, ConnectorError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(damaged(file, "is damaged: it cannot be decoded")))
}

fn open(file: &DataFile) -> Result<(std::fs::File, ArrowReaderMetadata), ConnectorError> {
    let handle = fs_err::File::open(&file.path).map_err(|error| read_failed(file, error))?;
    let (handle, _) = handle.into_parts();
    let broken = |error| damaged(file, format!("is not a whole Parquet file: {error}"));
    let load = || Ok(ArrowReaderMetadata::load(&handle, ArrowReaderOptions::new()));
    let metadata = without_panic(file, load)?.map_err(broken)?;
    let Some(schema) = in_microseconds(&metadata) else { return Ok((handle, metadata)) };
    let options = ArrowReaderOptions::new().with_schema(schema);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(broken)?;
    Ok((handle, metadata))
}

/// The schema with the old 96-bit times in microseconds: in nanoseconds, the default, the year 9999 overflows in
/// silence. `None` without such times.
fn in_microseconds(metadata: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let columns = metadata.parquet_schema().root_schema().get_fields();
    let is_old = |at: usize| {
        columns.get(at).is_some_and(|column| column.is_primitive() && column.get_physical_type() == PhysicalType::INT96)
    };
    let fields = metadata.schema().fields();
    if !(0..fields.len()).any(is_old) {
        return None;
    }
    let field = |(at, field): (usize, &Arc<Field>)| {
        let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
        if is_old(at) { Arc::new(Field::new(field.name(), kind, field.is_nullable())) } else { Arc::clone(field) }
    };
    Some(Arc::new(Schema::new(fields.iter().enumerate().map(field).collect::<Vec<_>>())))
}
