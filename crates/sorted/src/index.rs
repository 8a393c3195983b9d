//! The index of a bucket: what must be known of a row to see whether it changed.
//!
//! # Format
//!
//! Numbers are little endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | `FGINDEX` and a zero byte, version u32 (1) |
//! | rows | u64 |
//! | keys | 16 a row, ascending, no two alike |
//! | row hashes | 8 a row |
//! | target ids | 16 a row |
//! | sequences | 8 a row |
//! | flags | 1 a row |
//! | checksum | CRC-32C of all before, u32 |

use std::path::Path;

use flowgate_core::KeyHash;
use uuid::Uuid;

use crate::SortedError;
use crate::file::{HEADER_BYTES, after_header, header};

const MAGIC: [u8; 8] = *b"FGINDEX\0";
const VERSION: u32 = 1;

const ROW_BYTES: usize = 49;
const FRAME_BYTES: usize = HEADER_BYTES + 8 + 4;

/// Flag: the row is no longer wanted, but was left there (`missing: keep`); its id and values are
/// remembered so that a key that comes back is an update.
pub const TOMBSTONE: u8 = 1;

/// Flag: the last write may or may not have happened; what is there must be read before it is compared.
pub const UNCERTAIN: u8 = 2;

/// Flag, together with [`TOMBSTONE`]: the row was deactivated when it was no longer wanted.
pub const DEACTIVATED: u8 = 4;

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

    pub(crate) fn append(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        self.row_hashes.append(&mut other.row_hashes);
        self.ids.append(&mut other.ids);
        self.sequences.append(&mut other.sequences);
        self.flags.append(&mut other.flags);
    }

    /// Keeps the rows of `range` only.
    pub(crate) fn cut(&mut self, range: &std::ops::Range<usize>) {
        fn cut<T>(column: &mut Vec<T>, range: &std::ops::Range<usize>) {
            column.truncate(range.end);
            column.drain(..range.start);
        }
        cut(&mut self.keys, range);
        cut(&mut self.row_hashes, range);
        cut(&mut self.ids, range);
        cut(&mut self.sequences, range);
        cut(&mut self.flags, range);
    }

    pub(crate) fn is_sorted(&self) -> bool {
        self.keys.is_sorted_by(|left, right| left < right)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FRAME_BYTES + self.len() * ROW_BYTES);
        bytes.extend_from_slice(&header(MAGIC, VERSION));
        bytes.extend_from_slice(&(self.len() as u64).to_le_bytes());
        for key in &self.keys {
            bytes.extend_from_slice(&key.0.to_le_bytes());
        }
        for row_hash in &self.row_hashes {
            bytes.extend_from_slice(&row_hash.to_le_bytes());
        }
        for id in &self.ids {
            bytes.extend_from_slice(id.as_bytes());
        }
        for sequence in &self.sequences {
            bytes.extend_from_slice(&sequence.to_le_bytes());
        }
        bytes.extend_from_slice(&self.flags);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of the file at `path`.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, SortedError> {
        let damaged = |detail: &str| SortedError::damaged(path, detail);
        let content = after_header(path, bytes, MAGIC, VERSION)?;
        let Some((content, checksum)) = content.split_last_chunk::<4>() else {
            return Err(damaged("it ends too early"));
        };
        if crc32c::crc32c(&bytes[..bytes.len() - 4]).to_le_bytes() != *checksum {
            return Err(damaged("it does not match its checksum"));
        }
        let index = Self::decode_columns(content).ok_or_else(|| damaged("its length is not that of its rows"))?;
        if index.is_sorted() { Ok(index) } else { Err(damaged("its keys are not in order")) }
    }

    fn decode_columns(content: &[u8]) -> Option<Self> {
        let (rows, content) = content.split_first_chunk::<8>()?;
        let rows = usize::try_from(u64::from_le_bytes(*rows)).ok()?;
        if content.len() != rows.checked_mul(ROW_BYTES)? {
            return None;
        }
        let (keys, content) = content.split_at_checked(rows * 16)?;
        let (row_hashes, content) = content.split_at_checked(rows * 8)?;
        let (ids, content) = content.split_at_checked(rows * 16)?;
        let (sequences, flags) = content.split_at_checked(rows * 8)?;
        Some(Self {
            keys: keys.as_chunks().0.iter().map(|bytes| KeyHash(u128::from_le_bytes(*bytes))).collect(),
            row_hashes: row_hashes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
            ids: ids.as_chunks().0.iter().map(|bytes| Uuid::from_bytes(*bytes)).collect(),
            sequences: sequences.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
            flags: flags.to_vec(),
        })
    }
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

    #[test]
    fn bytes_come_back_as_rows() {
        let index = sample();
        assert_eq!(Index::decode(Path::new("b"), &index.encode()).unwrap(), index);
        assert_eq!(Index::decode(Path::new("b"), &Index::default().encode()).unwrap(), Index::default());
    }

    /// A file of the first version, as released: it must be read for ever.
    #[test]
    fn version_1_is_read() {
        let bytes = include_bytes!("../tests/data/version_1.index");
        assert_eq!(Index::decode(Path::new("b"), bytes).unwrap(), sample());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Index::decode(Path::new("b"), &damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Index::decode(Path::new("b"), &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        let error = Index::decode(Path::new("b.index"), &bytes).unwrap_err();
        assert_eq!(error.to_string(), "`b.index` has format version 2; this Flowgate knows 1");
    }
}
