//! The log file of a data directory: every committed transaction, one checksummed record each.
//!
//! Format: magic `FGEMULOG`, format `u32`, then records of length `u32`, CRC-32C of the payload `u32`,
//! CRC-32C of these eight bytes `u32` (from format 4 on), payload; all integers little endian. A payload is a run of items: `S` schema as JSON, `R` a row,
//! `D` a deletion, `N` an auto-number, `F` a file's content, `G` a file that is gone (both from
//! format 2). From format 3 on, labels of the schema may have several languages.
//!
//! Promise: a transaction is one record, so it is there or not after `kill -9`. A file is only ever
//! added to, so what a kill leaves is a record whose end is missing: that torn tail is dropped on
//! opening. Anything else that does not read, down to one flipped bit, is damage: the file is refused,
//! with the byte where it begins, and left as it is. One process at a time uses a directory. A rewrite goes to a second file that takes the first one's name. Left out:
//! surviving power loss, for which nothing is synced. Only its owner may read it: it holds rows.

use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use uuid::Uuid;

use super::database::StorageError;
use super::row::Row;
use super::table::Deletion;
use crate::schema::{Schema, TableId};

const MAGIC: &[u8; 8] = b"FGEMULOG";
const FORMAT: u32 = 4;
/// The oldest format that is still read; it is rewritten on opening.
const FORMAT_MIN: u32 = 1;
/// The first format whose records say whether their own length can be trusted.
const FORMAT_WITH_HEADS: u32 = 4;
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

/// Locked by the emulator that runs on a directory.
const LOCK_FILE: &str = "emulator.lock";

pub(super) struct Log {
    path: PathBuf,
    file: fs_err::File,
    buffer: Vec<u8>,
    size: u64,
    size_at_rewrite: u64,
    /// Held as long as the log is: it keeps other processes out.
    _lock: DirectoryLock,
}

/// The only right to use a data directory. It ends with the process that holds it, however that ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: fs_err::File,
}

impl DirectoryLock {
    /// Takes the directory, which is made if it is not there, or says who has it.
    pub(crate) fn take(directory: &Path) -> Result<Self, StorageError> {
        create_private_dir(directory)?;
        let path = directory.join(LOCK_FILE);
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                return Err(StorageError::InUse { directory: directory.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // For the message that another process shows; it decides nothing.
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {}", std::process::id())?;
        Ok(DirectoryLock { _file: file })
    }
}

/// Whether an emulator runs on the directory now.
pub fn is_in_use(directory: &Path) -> bool {
    let lock = fs_err::File::open(directory.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.file().try_lock(), Err(TryLockError::WouldBlock)))
}

/// Makes a data directory. One that is there keeps the mode that somebody gave it.
pub(crate) fn create_private_dir(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

impl Log {
    /// Opens the directory's log and returns what it holds.
    pub(super) fn open(directory: &Path, lock: DirectoryLock) -> Result<(Self, Vec<Record>), StorageError> {
        let path = directory.join("emulator.log");
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let valid = read_all(&bytes, &mut records).map_err(|error| error.of_file(&path, bytes.len()))?;
        if valid < bytes.len() {
            tracing::warn!(path = %path.display(), bytes = bytes.len() - valid, "dropped a record that was never finished");
        }
        let log = Log { path, file, buffer: Vec::new(), size: valid as u64, size_at_rewrite: 0, _lock: lock };
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
        let Ok(length) = u32::try_from(self.buffer.len()) else {
            tracing::error!("a transaction is larger than a record of the log can be; stopping");
            std::process::abort();
        };
        let header = head(length, crc32c::crc32c(&self.buffer));
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

/// The head of a record.
fn head(length: u32, checksum: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0u8; HEAD_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&checksum.to_le_bytes());
    let own = crc32c::crc32c(&head[..8]);
    head[8..].copy_from_slice(&own.to_le_bytes());
    head
}

const HEAD_BYTES: usize = 12;
/// Before format 4 a head had no checksum of its own.
const OLD_HEAD_BYTES: usize = 8;
/// Magic and format.
const START_BYTES: usize = 12;

/// What stands at some place of the file.
enum Found<'a> {
    Record {
        payload: &'a [u8],
        end: usize,
    },
    /// The file ends before the record does, as a kill leaves it.
    Torn,
    Damage(&'static str),
}

/// Reads every record and returns the length of what was valid: all but a torn tail.
fn read_all(bytes: &[u8], records: &mut Vec<Record>) -> Result<usize, StorageError> {
    let Some((start, _)) = bytes.split_first_chunk::<START_BYTES>() else {
        // The file was made and never written.
        let is_start = MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]);
        return if is_start { Ok(0) } else { Err(StorageError::damaged(0, "it does not begin as a log does")) };
    };
    if !start.starts_with(MAGIC) {
        return Err(StorageError::damaged(0, "it does not begin as a log does"));
    }
    let found = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    if !(FORMAT_MIN..=FORMAT).contains(&found) {
        return Err(StorageError::Format { found, expected: FORMAT });
    }
    let mut at = START_BYTES;
    while at < bytes.len() {
        match if found < FORMAT_WITH_HEADS { old_record(bytes, at) } else { record(bytes, at) } {
            Found::Record { payload, end } => {
                read_items(payload, records)
                    .map_err(|_| StorageError::damaged(at, "the record there does not parse"))?;
                at = end;
            }
            Found::Torn => break,
            Found::Damage(what) => return Err(StorageError::damaged(at, what)),
        }
    }
    Ok(at)
}

fn record(bytes: &[u8], at: usize) -> Found<'_> {
    let rest = &bytes[at..];
    let Some((own, after)) = rest.split_first_chunk::<HEAD_BYTES>() else {
        return Found::Torn;
    };
    let length = u32::from_le_bytes([own[0], own[1], own[2], own[3]]);
    let checksum = u32::from_le_bytes([own[4], own[5], own[6], own[7]]);
    if *own != head(length, checksum) {
        return Found::Damage("the head of the record there does not match its checksum");
    }
    match after.get(..length as usize) {
        None => Found::Torn,
        Some(payload) if crc32c::crc32c(payload) == checksum => {
            Found::Record { payload, end: at + HEAD_BYTES + payload.len() }
        }
        Some(_) => Found::Damage("the record there does not match its checksum"),
    }
}

/// A record whose length nothing vouches for: where it seems to reach past the end, a whole record
/// further on tells that it is the length that is wrong.
fn old_record(bytes: &[u8], at: usize) -> Found<'_> {
    if let Some((payload, end)) = whole_old_record(bytes, at) {
        return Found::Record { payload, end };
    }
    let is_short = bytes[at..]
        .split_first_chunk::<4>()
        .is_none_or(|(length, rest)| rest.len() < 4 + u32::from_le_bytes(*length) as usize);
    let goes_on = (at + 1..bytes.len()).any(|later| whole_old_record(bytes, later).is_some());
    if is_short && !goes_on { Found::Torn } else { Found::Damage("the record there does not match its checksum") }
}

fn whole_old_record(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    // Cheap looks first: this is tried at every byte after damage.
    let is_whole = matches!(payload.first()?, b'S' | b'R' | b'D' | b'N' | b'F' | b'G')
        && crc32c::crc32c(payload) == u32::from_le_bytes(*checksum)
        && read_items(payload, &mut Vec::new()).is_ok();
    is_whole.then_some((payload, at + OLD_HEAD_BYTES + payload.len()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: u64) -> Vec<u8> {
        let mut payload = vec![b'N', 3, 0];
        payload.extend_from_slice(&number.to_le_bytes());
        payload
    }

    fn file(format: u32) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &format.to_le_bytes()].concat();
        for number in 0..3 {
            let payload = payload(number);
            let head = head(payload.len() as u32, crc32c::crc32c(&payload));
            bytes.extend_from_slice(if format < FORMAT_WITH_HEADS { &head[..OLD_HEAD_BYTES] } else { &head });
            bytes.extend_from_slice(&payload);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(usize, usize), StorageError> {
        let mut records = Vec::new();
        read_all(bytes, &mut records).map(|valid| (records.len(), valid))
    }

    #[test]
    fn a_file_cut_anywhere_is_read_up_to_its_last_whole_record() {
        for format in [1, 2, 3, 4] {
            let whole = file(format);
            let record = (whole.len() - START_BYTES) / 3;
            for length in 0..=whole.len() {
                let records = length.saturating_sub(START_BYTES) / record;
                let valid = if length < START_BYTES { 0 } else { START_BYTES + records * record };
                assert_eq!(read(&whole[..length]).unwrap(), (records, valid), "format {format}, {length} bytes");
            }
        }
    }

    #[test]
    fn every_single_flipped_bit_is_refused_with_its_place() {
        let whole = file(FORMAT);
        let record = (whole.len() - START_BYTES) / 3;
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = read(&damaged).expect_err("a flipped bit");
            if bit / 8 >= START_BYTES {
                let place = START_BYTES + (bit / 8 - START_BYTES) / record * record;
                assert!(matches!(error, StorageError::Damaged { at, .. } if at == place as u64), "bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn damage_to_a_file_of_an_older_format_is_refused_where_more_follows() {
        let whole = file(3);
        for bit in START_BYTES * 8..(whole.len() - 19) * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&damaged), Err(StorageError::Damaged { .. })), "bit {bit}");
        }
    }
}
