//! Staging: a stream's complete image as one checksummed Parquet file.
//!
//! Every image has the column `_row` (`Int64`, from 0 without gaps), which names a row of the image
//! for drivers and letters. A file is written under another name, synced and renamed, so that an
//! image is either whole or not there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowgate_core::failpoint;
use flowgate_core::source::ROW_COLUMN;
use fs_err::File;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use xxhash_rust::xxh3::Xxh3;

use crate::RunError;

/// Rows of a Parquet row group: what a reader holds of one column at a time.
const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// A durable image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) checksum: String,
}

/// Writes one image.
pub(crate) struct ImageWriter {
    writer: ArrowWriter<HashingFile>,
    schema: SchemaRef,
    part_path: PathBuf,
    path: PathBuf,
    rows: u64,
}

impl ImageWriter {
    /// Starts the image `path` of rows with `schema` (without `_row`).
    pub(crate) fn create(path: PathBuf, schema: &Schema) -> Result<Self, RunError> {
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let part_path = path.with_extension("part");
        failpoint::hit("image.create")?;
        let schema = with_row_column(schema);
        let file = HashingFile { file: File::create(&part_path)?, hasher: Xxh3::new(), bytes: 0 };
        let level = ZstdLevel::try_new(1)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        Ok(Self { writer, schema, part_path, path, rows: 0 })
    }

    /// Adds rows, numbering them.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), RunError> {
        let first = self.rows as i64;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + batch.num_rows() as i64));
        let mut columns = batch.columns().to_vec();
        columns.push(numbers);
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Rows written so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Makes the image durable under its name.
    pub(crate) fn finish(self) -> Result<Staged, RunError> {
        let file = self.writer.into_inner()?;
        failpoint::hit("image.sync")?;
        file.file.sync_all()?;
        failpoint::hit("image.rename")?;
        fs_err::rename(&self.part_path, &self.path)?;
        failpoint::hit("image.renamed")?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Staged { rows: self.rows, bytes: file.bytes, checksum: checksum_text(file.hasher.digest()) })
    }
}

fn with_row_column(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW_COLUMN, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Whether the file still is what [`ImageWriter::finish`] wrote.
pub(crate) fn is_intact(path: &Path, checksum: &str) -> Result<bool, RunError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut sink = HashingSink(Xxh3::new());
    std::io::copy(&mut file, &mut sink)?;
    Ok(checksum_text(sink.0.digest()) == checksum)
}

fn checksum_text(digest: u64) -> String {
    format!("xxh3:{digest:016x}")
}

/// Counts and hashes what passes through to the file.
struct HashingFile {
    file: File,
    hasher: Xxh3,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

struct HashingSink(Xxh3);

impl Write for HashingSink {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;

    use super::*;

    #[test]
    fn an_image_is_whole_or_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a").join("image.parquet");
        let schema = Schema::new(vec![Field::new("name", DataType::Utf8, true)]);
        let mut writer = ImageWriter::create(path.clone(), &schema).unwrap();
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec!["a", "b"]))]).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        let staged = writer.finish().unwrap();
        assert_eq!(staged.rows, 4);
        assert!(is_intact(&path, &staged.checksum).unwrap());

        let mut bytes = fs_err::read(&path).unwrap();
        bytes[10] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        assert!(!is_intact(&path, &staged.checksum).unwrap());
        assert!(!is_intact(&dir.path().join("none"), &staged.checksum).unwrap());
    }
}
