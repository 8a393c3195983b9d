//! The values of a bucket: the mapped columns as last acknowledged, in the order of its index.
//!
//! Parquet with zstd. A file is read whole and checked before any of it is decoded; what is decoded
//! is the columns and rows asked for.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader, new_null_array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::SortedError;

/// Rows decoded at once.
const READ_ROWS: usize = 8_192;

pub(crate) fn encode(values: &RecordBatch) -> Result<Vec<u8>, SortedError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let write = || -> Result<Vec<u8>, ParquetError> {
        let mut writer = ArrowWriter::try_new(Vec::new(), values.schema(), Some(properties))?;
        writer.write(values)?;
        writer.into_inner()
    };
    write().map_err(|error| SortedError::Arrow { doing: "encoding values", source: error.into() })
}

/// The rows `rows` (ascending ranges) of the file at `path`, in the columns of `schema`.
///
/// A column that the file does not have, or has with another type, comes as nulls: whatever the row
/// should hold there then differs, and is sent.
pub(crate) fn decode(
    path: &Path,
    bytes: Vec<u8>,
    schema: &SchemaRef,
    rows: &[std::ops::Range<usize>],
) -> Result<RecordBatch, SortedError> {
    let wanted: usize = rows.iter().map(std::ops::Range::len).sum();
    let damaged = |error: &dyn std::fmt::Display| SortedError::damaged(path, error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(|error| damaged(&error))?;
    let in_file = builder.schema().clone();
    let shared: Vec<usize> = (0..in_file.fields().len())
        .filter(|index| {
            let field = in_file.field(*index);
            schema.field_with_name(field.name()).is_ok_and(|wanted| wanted.data_type() == field.data_type())
        })
        .collect();
    let total = builder.metadata().file_metadata().num_rows() as usize;
    let mask = ProjectionMask::roots(builder.parquet_schema(), shared);
    let reader = builder
        .with_projection(mask)
        .with_row_selection(RowSelection::from_consecutive_ranges(rows.iter().cloned(), total))
        .with_batch_size(READ_ROWS)
        .build()
        .map_err(|error| damaged(&error))?;
    let read_schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, ArrowError>>().map_err(|error| damaged(&error))?;
    let read = concat_batches(&read_schema, &batches).map_err(SortedError::arrow("joining values"))?;
    if read.num_rows() != wanted {
        return Err(SortedError::damaged(path, format!("it has {} of {wanted} rows", read.num_rows())));
    }
    in_columns(schema, &read)
}

fn in_columns(schema: &SchemaRef, read: &RecordBatch) -> Result<RecordBatch, SortedError> {
    let rows = read.num_rows();
    let column = |name: &str, data_type| -> ArrayRef {
        read.column_by_name(name).map_or_else(|| new_null_array(data_type, rows), Arc::clone)
    };
    let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(SortedError::arrow("reading values"))
}
