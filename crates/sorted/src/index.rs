//! The index of a layer of a bucket: what must be known of a row to see whether it changed.
//!
//! # Format
//!
//! Numbers are little endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | `FGINDEX` and a zero byte, version u32 (2) |
//! | rows | u64 |
//! | CRC-32C of the heads (keys, row hashes, flags) and of the rest (ids, sequences) | u32 each |
//! | CRC-32C of all before: the checksum that the manifest keeps | u32 |
//! | keys | 16 a row, ascending, no two alike |
//! | row hashes | 8 a row |
//! | flags | 1 a row |
//! | target ids | 16 a row |
//! | sequences | 8 a row |
//!
//! The heads stand first because most buckets need nothing else.

use std::io::Read;
use std::path::Path;

use flowgate_core::KeyHash;
use fs_err as fs;
use uuid::Uuid;

use crate::SortedError;
use crate::file::{HEADER_BYTES, after_header, header, open_stored};

const MAGIC: [u8; 8] = *b"FGINDEX\0";
const VERSION: u32 = 2;

const HEAD_BYTES: usize = 16 + 8 + 1;
const REST_BYTES: usize = 16 + 8;
/// All before the keys.
const BEGIN_BYTES: usize = HEADER_BYTES + 8 + 3 * 4;

/// Flag: the row is no longer wanted, but was left there (`missing: keep`); its id and values are
/// remembered so that a key that comes back is an update.
pub const TOMBSTONE: u8 = 1;

/// Flag: the last write may or may not have happened; what is there must be read before it is compared.
pub const UNCERTAIN: u8 = 2;

/// Flag, together with [`TOMBSTONE`]: the row was deactivated when it was no longer wanted.
pub const DEACTIVATED: u8 = 4;

/// Flag, together with [`TOMBSTONE`]: more than one row of the destination has the key, so none is ours to touch.
pub const AMBIGUOUS: u8 = 16;

/// Flag, in layers above the first only: the row is gone from the state.
pub(crate) const REMOVED: u8 = 8;

/// One row of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub key: KeyHash,
    pub row_hash: u64,
    /// The row's id at the destination.
    pub id: Uuid,
    /// Rises with each acknowledged write of the load.
    pub sequence: u64,
    pub flags: u8,
}

impl Entry {
    pub fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    pub fn is_uncertain(&self) -> bool {
        self.flags & UNCERTAIN != 0
    }

    pub fn is_ambiguous(&self) -> bool {
        self.flags & AMBIGUOUS != 0
    }
}

/// The rows of a bucket in the order of their keys, one vector a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    pub keys: Vec<KeyHash>,
    pub row_hashes: Vec<u64>,
    pub ids: Vec<Uuid>,
    pub sequences: Vec<u64>,
    pub flags: Vec<u8>,
}

impl Index {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn entry(&self, row: usize) -> Entry {
        Entry {
            key: self.keys[row],
            row_hash: self.row_hashes[row],
            id: self.ids[row],
            sequence: self.sequences[row],
            flags: self.flags[row],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.len()).map(|row| self.entry(row))
    }

    /// The row of `key`, if it is there.
    pub fn find(&self, key: KeyHash) -> Option<usize> {
        self.keys.binary_search(&key).ok()
    }

    /// Adds a row, whose key comes after all others.
    pub fn push(&mut self, entry: Entry) {
        self.keys.push(entry.key);
        self.row_hashes.push(entry.row_hash);
        self.ids.push(entry.id);
        self.sequences.push(entry.sequence);
        self.flags.push(entry.flags);
    }

    pub(crate) fn is_sorted(&self) -> bool {
        self.keys.is_sorted_by(|left, right| left < right)
    }

    /// The bytes of a file, and the checksum by which the manifest knows it.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let rows = self.len();
        let mut bytes = Vec::with_capacity(BEGIN_BYTES + rows * (HEAD_BYTES + REST_BYTES));
        bytes.extend_from_slice(&header(MAGIC, VERSION));
        bytes.extend_from_slice(&(rows as u64).to_le_bytes());
        bytes.resize(BEGIN_BYTES, 0);
        bytes.extend(self.keys.iter().flat_map(|key| key.0.to_le_bytes()));
        bytes.extend(self.row_hashes.iter().flat_map(|hash| hash.to_le_bytes()));
        bytes.extend_from_slice(&self.flags);
        bytes.extend(self.ids.iter().flat_map(|id| *id.as_bytes()));
        bytes.extend(self.sequences.iter().flat_map(|sequence| sequence.to_le_bytes()));
        let (begin, content) = bytes.split_at_mut(BEGIN_BYTES);
        let (heads, rest) = content.split_at(rows * HEAD_BYTES);
        begin[20..24].copy_from_slice(&crc32c::crc32c(heads).to_le_bytes());
        begin[24..28].copy_from_slice(&crc32c::crc32c(rest).to_le_bytes());
        let checksum = crc32c::crc32c(&begin[..28]);
        begin[28..].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads the file at `path`, which must be the one that has this checksum and so many rows.
    pub(crate) fn read(path: &Path, rows: u64, checksum: u32) -> Result<Self, SortedError> {
        let mut file = open_stored(path)?;
        let begin = Begin::read(&mut file, path, rows, checksum)?;
        let heads = read_part(&mut file, path, begin.rows * HEAD_BYTES, begin.heads_checksum)?;
        let rest = read_part(&mut file, path, begin.rows * REST_BYTES, begin.rest_checksum)?;
        let Heads { keys, row_hashes, flags } = Heads::decode(path, &heads, begin.rows)?;
        let (ids, sequences) = rest.split_at(begin.rows * 16);
        Ok(Self {
            keys,
            row_hashes,
            flags,
            ids: ids.as_chunks().0.iter().map(|bytes| Uuid::from_bytes(*bytes)).collect(),
            sequences: sequences.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
        })
    }
}

/// The columns of an index that decide whether a row changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    pub keys: Vec<KeyHash>,
    pub row_hashes: Vec<u64>,
    pub flags: Vec<u8>,
}

impl Heads {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn read(path: &Path, rows: u64, checksum: u32) -> Result<Self, SortedError> {
        let mut file = open_stored(path)?;
        let begin = Begin::read(&mut file, path, rows, checksum)?;
        let heads = read_part(&mut file, path, begin.rows * HEAD_BYTES, begin.heads_checksum)?;
        Self::decode(path, &heads, begin.rows)
    }

    fn decode(path: &Path, bytes: &[u8], rows: usize) -> Result<Self, SortedError> {
        let (keys, bytes) = bytes.split_at(rows * 16);
        let (row_hashes, flags) = bytes.split_at(rows * 8);
        let heads = Self {
            keys: keys.as_chunks().0.iter().map(|bytes| KeyHash(u128::from_le_bytes(*bytes))).collect(),
            row_hashes: row_hashes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
            flags: flags.to_vec(),
        };
        if heads.keys.is_sorted_by(|left, right| left < right) {
            return Ok(heads);
        }
        Err(SortedError::damaged(path, "its keys are not in order"))
    }
}

/// What stands before the keys.
struct Begin {
    rows: usize,
    heads_checksum: u32,
    rest_checksum: u32,
}

impl Begin {
    fn read(file: &mut fs::File, path: &Path, rows: u64, checksum: u32) -> Result<Self, SortedError> {
        let bytes = read_exactly(file, path, BEGIN_BYTES)?;
        after_header(path, &bytes, MAGIC, VERSION)?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if crc32c::crc32c(&bytes[..28]) != number(28) || number(28) != checksum {
            return Err(SortedError::damaged(path, "it does not match its checksum"));
        }
        let found = u64::from(number(12)) | u64::from(number(16)) << 32;
        if found != rows {
            return Err(SortedError::damaged(path, format!("it has {found} rows, its manifest says {rows}")));
        }
        Ok(Self { rows: found as usize, heads_checksum: number(20), rest_checksum: number(24) })
    }
}

fn read_part(file: &mut fs::File, path: &Path, length: usize, checksum: u32) -> Result<Vec<u8>, SortedError> {
    let bytes = read_exactly(file, path, length)?;
    if crc32c::crc32c(&bytes) == checksum {
        return Ok(bytes);
    }
    Err(SortedError::damaged(path, "it does not match its checksum"))
}

fn read_exactly(file: &mut fs::File, path: &Path, length: usize) -> Result<Vec<u8>, SortedError> {
    let mut bytes = Vec::with_capacity(length);
    file.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(SortedError::io("reading", path))?;
    if bytes.len() == length { Ok(bytes) } else { Err(SortedError::damaged(path, "it ends too early")) }
}

impl FromIterator<Entry> for Index {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut index = Self::default();
        for entry in entries {
            index.push(entry);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        (1..4_u64)
            .map(|number| Entry {
                key: KeyHash(u128::from(number) << 100),
                row_hash: number,
                id: Uuid::from_u128(number.into()),
                sequence: number * 2,
                flags: (number % 3) as u8,
            })
            .collect()
    }

    /// Writes `bytes` to a file and reads them as an index.
    fn read(bytes: &[u8], checksum: u32) -> Result<Index, SortedError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        Index::read(file.path(), 3, checksum)
    }

    #[test]
    fn bytes_come_back_as_rows() {
        let (bytes, checksum) = sample().encode();
        assert_eq!(read(&bytes, checksum).unwrap(), sample());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let heads = Heads::read(file.path(), 3, checksum).unwrap();
        assert_eq!((heads.keys, heads.row_hashes, heads.flags), (sample().keys, sample().row_hashes, sample().flags));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let (bytes, checksum) = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged, checksum).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], checksum).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_whole_file_is_not_this_one() {
        let (_, checksum) = sample().encode();
        let mut other = sample();
        other.row_hashes[1] += 1;
        assert!(matches!(read(&other.encode().0, checksum), Err(SortedError::Damaged { .. })));
    }
}
