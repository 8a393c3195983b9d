//! The log file of a data directory: every committed transaction, one checksummed record each.
//!
//! Format: magic `FGEMULOG`, format `u32`, then records of length `u32`, CRC-32C `u32`, payload;
//! all integers little endian. A payload is a run of items: `S` schema as JSON, `R` a row,
//! `D` a deletion, `N` an auto-number, `F` a file's content, `G` a file that is gone (both from
//! format 2). From format 3 on, labels of the schema may have several languages.
//!
//! Promise: a transaction is one record, so it is there or not after `kill -9`; a torn tail is cut
//! off on opening. A rewrite goes to a second file that takes the first one's name. Left out:
//! surviving power loss, for which nothing is synced. Only its owner may read it: it holds rows.

use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use uuid::Uuid;

use super::database::StorageError;
use super::row::Row;
use super::table::Deletion;
use crate::schema::{Schema, TableId};

const MAGIC: &[u8; 8] = b"FGEMULOG";
const FORMAT: u32 = 3;
/// The oldest format that is still read; it is rewritten on opening.
const FORMAT_MIN: u32 = 1;
/// Rewriting pauses nobody for long below this size.
const REWRITE_BYTES_MIN: u64 = 64 << 20;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// A rewrite flushes its buffer at this size.
const BUFFER_BYTES: usize = 4 << 20;

pub(super) enum Record {
    Schema(Box<Schema>),
    Row { table: TableId, id: Uuid, row: Row },
    Deletion { table: TableId, deletion: Deletion },
    Number { table: TableId, next: u64 },
    File { id: Uuid, content: Option<Vec<u8>> },
}

pub(super) struct Log {
    path: PathBuf,
    file: fs_err::File,
    buffer: Vec<u8>,
    size: u64,
    size_at_rewrite: u64,
}

/// Makes a data directory. One that is there keeps the mode that somebody gave it.
pub(crate) fn create_private_dir(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

impl Log {
    /// Opens the directory's log and returns what it holds.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Record>), StorageError> {
        create_private_dir(directory)?;
        let path = directory.join("emulator.log");
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let valid = if bytes.is_empty() { 0 } else { read_all(&bytes, &mut records)? };
        let log = Log { path, file, buffer: Vec::new(), size: valid as u64, size_at_rewrite: 0 };
        Ok((log, records))
    }

    pub(super) fn push_schema(&mut self, schema: &Schema) {
        // A schema holds strings and numbers only, which always serialize.
        let json = serde_json::to_vec(schema).unwrap_or_default();
        self.buffer.push(b'S');
        self.buffer.extend_from_slice(&(json.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&json);
    }

    pub(super) fn push_row(&mut self, table: TableId, id: &Uuid, row: &Row) {
        self.buffer.push(b'R');
        self.buffer.extend_from_slice(&table.to_le_bytes());
        self.buffer.extend_from_slice(id.as_bytes());
        self.buffer.extend_from_slice(&row.version.to_le_bytes());
        self.buffer.extend_from_slice(&(row.cells.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&row.cells);
    }

    pub(super) fn push_deletion(&mut self, table: TableId, deletion: &Deletion) {
        self.buffer.push(b'D');
        self.buffer.extend_from_slice(&table.to_le_bytes());
        self.buffer.extend_from_slice(deletion.id.as_bytes());
        self.buffer.extend_from_slice(&deletion.version.to_le_bytes());
        self.buffer.extend_from_slice(&deletion.at.to_le_bytes());
    }

    pub(super) fn push_number(&mut self, table: TableId, next: u64) {
        self.buffer.push(b'N');
        self.buffer.extend_from_slice(&table.to_le_bytes());
        self.buffer.extend_from_slice(&next.to_le_bytes());
    }

    pub(super) fn push_file(&mut self, id: &Uuid, content: Option<&[u8]>) {
        self.buffer.push(if content.is_some() { b'F' } else { b'G' });
        self.buffer.extend_from_slice(id.as_bytes());
        if let Some(content) = content {
            self.buffer.extend_from_slice(&(content.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(content);
        }
    }

    /// Writes the items pushed since the last flush as one record.
    ///
    /// A write error ends the process: rows acknowledged after it would be lost silently.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut header = [0u8; 8];
        header[..4].copy_from_slice(&(self.buffer.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&crc32c::crc32c(&self.buffer).to_le_bytes());
        let written = self.file.write_all(&header).and_then(|()| self.file.write_all(&self.buffer));
        if let Err(error) = written {
            tracing::error!(%error, "data directory cannot be written; stopping");
            std::process::abort();
        }
        self.size += (header.len() + self.buffer.len()) as u64;
        self.buffer.clear();
    }

    pub(super) fn flush_when_large(&mut self) {
        if self.buffer.len() > BUFFER_BYTES {
            self.flush();
        }
    }

    pub(super) fn wants_rewrite(&self) -> bool {
        self.size > REWRITE_BYTES_MIN.max(self.size_at_rewrite * 3)
    }

    /// Starts a second file; until [`Log::finish_rewrite`] the first one stays as it is.
    pub(super) fn begin_rewrite(&mut self) {
        self.buffer.clear();
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let opened = options.open(self.path.with_extension("new")).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&FORMAT.to_le_bytes())?;
            Ok(file)
        });
        match opened {
            Ok(file) => {
                self.file = file;
                self.size = 12;
            }
            Err(error) => {
                tracing::error!(%error, "data directory cannot be written; stopping");
                std::process::abort();
            }
        }
    }

    pub(super) fn finish_rewrite(&mut self) {
        self.flush();
        if let Err(error) = fs_err::rename(self.path.with_extension("new"), &self.path) {
            tracing::error!(%error, "data directory cannot be written; stopping");
            std::process::abort();
        }
        self.size_at_rewrite = self.size;
    }
}

/// Reads records up to the first torn one and returns the length of what was valid.
fn read_all(bytes: &[u8], records: &mut Vec<Record>) -> Result<usize, StorageError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Ok(0);
    };
    let Some((format, mut rest)) = rest.split_first_chunk::<4>() else {
        return Ok(0);
    };
    let found = u32::from_le_bytes(*format);
    if magic != MAGIC || !(FORMAT_MIN..=FORMAT).contains(&found) {
        return Err(StorageError::Format { found, expected: FORMAT });
    }
    while let Some((payload, after)) = next_record(rest) {
        read_items(payload, records)?;
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let (payload, after) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (crc32c::crc32c(payload) == u32::from_le_bytes(*checksum)).then_some((payload, after))
}

fn read_items(payload: &[u8], records: &mut Vec<Record>) -> Result<(), StorageError> {
    let mut rest = payload;
    while !rest.is_empty() {
        let (record, after) = read_item(rest)?;
        records.push(record);
        rest = after;
    }
    Ok(())
}

fn read_item(bytes: &[u8]) -> Result<(Record, &[u8]), StorageError> {
    let (tag, rest) = bytes.split_at(1);
    if tag == b"S" {
        let (length, rest) = take::<4>(rest)?;
        let (json, after) = take_slice(rest, u32::from_le_bytes(length) as usize)?;
        let schema = serde_json::from_slice(json).map_err(|error| StorageError::Record(error.to_string()))?;
        return Ok((Record::Schema(Box::new(schema)), after));
    }
    if tag == b"F" || tag == b"G" {
        let (id, rest) = take::<16>(rest)?;
        let id = Uuid::from_bytes(id);
        if tag == b"G" {
            return Ok((Record::File { id, content: None }, rest));
        }
        let (length, rest) = take::<4>(rest)?;
        let (content, after) = take_slice(rest, u32::from_le_bytes(length) as usize)?;
        return Ok((Record::File { id, content: Some(content.to_vec()) }, after));
    }
    let (table, rest) = take::<2>(rest)?;
    let table = TableId::from_le_bytes(table);
    if tag == b"N" {
        let (next, after) = take::<8>(rest)?;
        return Ok((Record::Number { table, next: u64::from_le_bytes(next) }, after));
    }
    let (id, rest) = take::<16>(rest)?;
    let (version, rest) = take::<8>(rest)?;
    let (id, version) = (Uuid::from_bytes(id), u64::from_le_bytes(version));
    match tag {
        b"R" => {
            let (length, rest) = take::<4>(rest)?;
            let (cells, after) = take_slice(rest, u32::from_le_bytes(length) as usize)?;
            Ok((Record::Row { table, id, row: Row { version, cells: cells.into() } }, after))
        }
        b"D" => {
            let (at, after) = take::<8>(rest)?;
            let deletion = Deletion { version, id, at: i64::from_le_bytes(at) };
            Ok((Record::Deletion { table, deletion }, after))
        }
        _ => Err(StorageError::Record(format!("unknown item {tag:?}"))),
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), StorageError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(short_record)?;
    Ok((*head, rest))
}

fn take_slice(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8]), StorageError> {
    bytes.split_at_checked(length).ok_or_else(short_record)
}

fn short_record() -> StorageError {
    StorageError::Record("item ends early".to_owned())
}
