//! The values of a layer of a bucket: the mapped columns as last acknowledged, in the order of its index.
//!
//! Rows are stored one after the other, each with its checksum in a table, so that the few rows of a
//! bucket that changed are read without the others. Nothing is compressed: what a compressed page
//! costs is paid for all of its rows.
//!
//! # Format
//!
//! Numbers are little endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | `FGVALUES`, version u32 (2) |
//! | schema | length u32, Arrow IPC stream without a batch |
//! | rows | u64 |
//! | CRC-32C of the table, then of all before: the checksum that the manifest keeps | u32 each |
//! | table | for each row its end among the rows' bytes u64, and the CRC-32C of its bytes u32 |
//! | rows | one bit a column, set where there is a value, in whole bytes; then the values in the order of the columns: fixed width as Arrow has them, booleans in one byte, text with its length u32 before it |

use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use fs_err as fs;

use crate::SortedError;
use crate::cells::{ColumnBuilder, ColumnCells};
use crate::file::{HEADER_BYTES, after_header, header, open_stored};

const MAGIC: [u8; 8] = *b"FGVALUES";
const VERSION: u32 = 2;

const TABLE_ROW_BYTES: usize = 12;

/// Rows further apart than this are read on their own.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// More than any schema takes; a length beyond is damage.
const SCHEMA_BYTES_MAX: usize = 64 << 20;

/// The bytes of a file, and the checksum by which the manifest knows it.
pub(crate) fn encode(values: &RecordBatch) -> Result<(Vec<u8>, u32), SortedError> {
    let schema = encode_schema(values.schema_ref()).map_err(SortedError::arrow("encoding values"))?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&header(MAGIC, VERSION));
    bytes.extend_from_slice(&(schema.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&schema);
    bytes.extend_from_slice(&(values.num_rows() as u64).to_le_bytes());
    let checksums = bytes.len();
    let table = checksums + 8;
    let rows = table + values.num_rows() * TABLE_ROW_BYTES;
    bytes.resize(rows, 0);
    let columns = values.columns().iter().map(ColumnCells::new).collect::<Result<Vec<_>, _>>()?;
    for (row, at) in (table..rows).step_by(TABLE_ROW_BYTES).enumerate() {
        let start = bytes.len();
        encode_row(&columns, row, &mut bytes);
        let checksum = crc32c::crc32c(&bytes[start..]);
        let end = (bytes.len() - rows) as u64;
        bytes[at..at + 8].copy_from_slice(&end.to_le_bytes());
        bytes[at + 8..at + TABLE_ROW_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
    let table_checksum = crc32c::crc32c(&bytes[table..rows]);
    bytes[checksums..checksums + 4].copy_from_slice(&table_checksum.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..checksums + 4]);
    bytes[checksums + 4..table].copy_from_slice(&checksum.to_le_bytes());
    Ok((bytes, checksum))
}

fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(bytes)
}

fn encode_row(columns: &[ColumnCells], row: usize, bytes: &mut Vec<u8>) {
    let presence = bytes.len();
    bytes.resize(presence + columns.len().div_ceil(8), 0);
    for (at, column) in columns.iter().enumerate() {
        if column.append(row, bytes) {
            bytes[presence + at / 8] |= 1 << (at % 8);
        }
    }
}

/// A file of values, open, its table checked.
pub(crate) struct ValuesFile {
    path: PathBuf,
    file: fs::File,
    schema: SchemaRef,
    table: Vec<u8>,
    /// Where the first row begins.
    rows_start: u64,
}

impl ValuesFile {
    /// Opens the file at `path`, which must be the one that has this checksum and so many rows.
    pub(crate) fn open(path: &Path, rows: u64, checksum: u32) -> Result<Self, SortedError> {
        let damaged = |detail: &str| SortedError::damaged(path, detail);
        let mut file = open_stored(path)?;
        let mut begin = read_more(&mut file, path, Vec::new(), HEADER_BYTES + 4)?;
        let schema_length = after_header(path, &begin, MAGIC, VERSION)?;
        let schema_length = schema_length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        if schema_length > SCHEMA_BYTES_MAX {
            return Err(damaged("its schema is of impossible length"));
        }
        begin = read_more(&mut file, path, begin, schema_length + 8 + 8)?;
        let (begun, own) = begin.split_at(begin.len() - 4);
        if crc32c::crc32c(begun).to_le_bytes() != *own || checksum.to_le_bytes() != *own {
            return Err(damaged("it does not match its checksum"));
        }
        let after_schema = &begin[HEADER_BYTES + 4 + schema_length..];
        let found = after_schema.first_chunk().map_or(0, |rows| u64::from_le_bytes(*rows));
        if found != rows {
            return Err(SortedError::damaged(path, format!("it has {found} rows, its manifest says {rows}")));
        }
        let table = read_more(&mut file, path, Vec::new(), found as usize * TABLE_ROW_BYTES)?;
        if crc32c::crc32c(&table).to_le_bytes() != after_schema[8..12] {
            return Err(damaged("it does not match its checksum"));
        }
        let schema = StreamReader::try_new(&begin[HEADER_BYTES + 4..HEADER_BYTES + 4 + schema_length], None);
        let schema = schema.map_err(|error| SortedError::damaged(path, error.to_string()))?.schema();
        Ok(Self { path: path.to_owned(), file, schema, rows_start: (begin.len() + table.len()) as u64, table })
    }

    /// The rows `rows`, ascending, in the columns of `schema`.
    ///
    /// A column that the file does not have, or has with another type, comes as nulls: whatever the row
    /// should hold there then differs, and is sent.
    pub(crate) fn read(&self, schema: &SchemaRef, rows: &[u32]) -> Result<RecordBatch, SortedError> {
        let mut builders = Vec::new();
        for field in self.schema.fields() {
            let is_wanted =
                schema.field_with_name(field.name()).is_ok_and(|wanted| wanted.data_type() == field.data_type());
            builders.push(ColumnBuilder::new(field.data_type(), is_wanted, rows.len())?);
        }
        let mut bytes = Vec::new();
        for run in self.runs(rows) {
            let start = self.end_of(rows[run.start].checked_sub(1));
            let end = self.end_of(Some(rows[run.end - 1]));
            bytes.resize((end - start) as usize, 0);
            let read = self.file.file().read_exact_at(&mut bytes, self.rows_start + start);
            read.map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => SortedError::damaged(&self.path, "it ends too early"),
                _ => SortedError::io("reading", &self.path)(error),
            })?;
            for row in &rows[run] {
                let within = self.end_of(row.checked_sub(1)) - start..self.end_of(Some(*row)) - start;
                self.decode_row(*row, &bytes[within.start as usize..within.end as usize], &mut builders)?;
            }
        }
        let columns = builders.into_iter().map(ColumnBuilder::finish).collect::<Result<Vec<_>, _>>()?;
        in_columns(schema, &self.schema, &columns, rows.len())
    }

    /// Ranges of `rows` that are read at once.
    fn runs(&self, rows: &[u32]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            match runs.last_mut() {
                Some(run)
                    if self.end_of(row.checked_sub(1)) - self.end_of(Some(rows[run.end - 1])) <= GAP_BYTES_MAX =>
                {
                    run.end = at + 1;
                }
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    /// Where a row's bytes end; before the first row, 0. The table is checked, so its ends ascend.
    fn end_of(&self, row: Option<u32>) -> u64 {
        let entry = row.map(|row| &self.table[row as usize * TABLE_ROW_BYTES..]);
        entry.and_then(|entry| entry.first_chunk()).map_or(0, |end| u64::from_le_bytes(*end))
    }

    fn decode_row(&self, row: u32, bytes: &[u8], builders: &mut [ColumnBuilder]) -> Result<(), SortedError> {
        let at = row as usize * TABLE_ROW_BYTES;
        if crc32c::crc32c(bytes).to_le_bytes() != self.table[at + 8..at + TABLE_ROW_BYTES] {
            return Err(SortedError::damaged(&self.path, format!("row {row} does not match its checksum")));
        }
        let unknown = || SortedError::damaged(&self.path, format!("row {row} is of unknown form"));
        let (presence, mut cells) = bytes.split_at_checked(builders.len().div_ceil(8)).ok_or_else(unknown)?;
        for (at, builder) in builders.iter_mut().enumerate() {
            let is_present = presence[at / 8] >> (at % 8) & 1 == 1;
            cells = builder.take(is_present, cells).ok_or_else(unknown)?;
        }
        if cells.is_empty() { Ok(()) } else { Err(unknown()) }
    }
}

fn read_more(file: &mut fs::File, path: &Path, mut bytes: Vec<u8>, more: usize) -> Result<Vec<u8>, SortedError> {
    let wanted = bytes.len() + more;
    file.by_ref().take(more as u64).read_to_end(&mut bytes).map_err(SortedError::io("reading", path))?;
    if bytes.len() == wanted { Ok(bytes) } else { Err(SortedError::damaged(path, "it ends too early")) }
}

fn in_columns(
    schema: &SchemaRef,
    stored: &Schema,
    columns: &[Option<ArrayRef>],
    rows: usize,
) -> Result<RecordBatch, SortedError> {
    let column = |name: &str| columns.get(stored.index_of(name).ok()?).cloned().flatten();
    let fields = schema.fields().iter();
    let columns =
        fields.map(|field| column(field.name()).unwrap_or_else(|| new_null_array(field.data_type(), rows))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(SortedError::arrow("reading values"))
}
