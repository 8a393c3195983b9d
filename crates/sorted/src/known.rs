//! Rows of a state in memory, so that those that did not change are settled the moment they arrive.
//!
//! One word a row stands for its key and its row hash together. The words lie in a table for each
//! bucket, about in the order of the keys, so that a state fills it from front to back and an arriving
//! row finds its place with one look. A row that is taken for one of the state without being it is
//! as rare as a change that the row hash does not show: one in 6e18.
//!
//! Memory is bounded: buckets of the state that find no room are not known, and their rows wait as
//! they would without a state.

use arrow_array::BooleanArray;
use arrow_buffer::BooleanBuffer;
use flowgate_core::KeyHash;

use crate::index::Heads;
use crate::{RowSet, SortedError, State};

/// A place that no row of the state has.
const FREE: u64 = 0;

/// Places for each row: more make looking faster, fewer take less memory.
const PLACES: (usize, usize) = (3, 2);

/// Rows of a state, and which of them arrived as they are there.
#[derive(Debug)]
pub struct Known {
    bits: u8,
    /// The first buckets of the state, as many as there was room for.
    tables: Vec<Table>,
    words: Vec<u64>,
    /// By place.
    arrived: RowSet,
}

/// The places of one bucket.
#[derive(Debug, Clone, Copy)]
struct Table {
    start: usize,
    places: usize,
    /// Rows that arrived as they are in the state.
    settled: u64,
}

impl Known {
    /// Nothing is known: every row waits.
    pub fn nothing() -> Self {
        Self { bits: 0, tables: Vec::new(), words: Vec::new(), arrived: RowSet::none(0) }
    }

    /// Reads the sound rows of `state`, as many buckets as go into `bytes_max`. A state that is not cut into 2^bits
    /// buckets is not known.
    pub fn read(state: &State, bits: u8, bytes_max: usize) -> Result<Self, SortedError> {
        let mut known = Self { bits, ..Self::nothing() };
        if bits != state.manifest().bits {
            return Ok(known);
        }
        let mut start = 0;
        for bucket in 0..1 << bits {
            let rows = state.meta(bits, bucket).map_or(0, |meta| meta.totals.rows) as usize;
            let places = rows * PLACES.0 / PLACES.1 + 1;
            if (start + places) * size_of::<u64>() > bytes_max {
                break;
            }
            known.tables.push(Table { start, places, settled: 0 });
            start += places;
        }
        known.words = vec![FREE; start];
        known.arrived = RowSet::none(start);
        for bucket in 0..known.tables.len() {
            known.fill(bucket, &state.heads(bits, bucket)?);
        }
        Ok(known)
    }

    fn fill(&mut self, bucket: usize, heads: &Heads) {
        for row in (0..heads.len()).filter(|row| heads.flags[*row] == 0) {
            let word = word(heads.keys[row], heads.row_hashes[row]);
            let (place, _) = self.look(self.tables[bucket], heads.keys[row], word);
            self.words[place] = word;
        }
    }

    /// Settles the rows that the state holds exactly so, and says which wait. A faulty row always does, and so does
    /// one that comes again.
    pub(crate) fn settle(&mut self, keys: &[KeyHash], row_hashes: &[u64], is_faulty: &BooleanArray) -> BooleanBuffer {
        if self.tables.is_empty() {
            return BooleanBuffer::new_set(keys.len());
        }
        // All places are looked at before any is decided on, so that waiting for memory overlaps.
        let first = |(key, row_hash): (&KeyHash, &u64)| {
            let place = self.first_place(*key)?;
            Some((self.words[place] == word(*key, *row_hash)).then_some(place))
        };
        let firsts: Vec<Option<Option<usize>>> = keys.iter().zip(row_hashes).map(first).collect();
        BooleanBuffer::collect_bool(keys.len(), |row| {
            let Some(first) = firsts[row] else { return true };
            let bucket = keys[row].bucket(self.bits);
            let place = first.or_else(|| self.find(bucket, keys[row], row_hashes[row]));
            let settled = place.filter(|place| !is_faulty.value(row) && !self.arrived.contains(*place));
            if let Some(place) = settled {
                self.arrived.insert(place);
                self.tables[bucket].settled += 1;
            }
            settled.is_none()
        })
    }

    /// How many rows of a bucket were settled.
    pub(crate) fn settled(&self, bucket: usize) -> u64 {
        self.tables.get(bucket).map_or(0, |table| table.settled)
    }

    /// The rows of a bucket that were settled, by their positions in `heads`.
    pub(crate) fn settled_rows(&self, bucket: usize, heads: &Heads) -> RowSet {
        let mut settled = RowSet::none(heads.len());
        if self.settled(bucket) > 0 {
            let place = |row: usize| self.find(bucket, heads.keys[row], heads.row_hashes[row]);
            let rows = (0..heads.len()).filter(|row| heads.flags[*row] == 0);
            rows.filter(|row| place(*row).is_some_and(|place| self.arrived.contains(place)))
                .for_each(|row| settled.insert(row));
        }
        settled
    }

    fn find(&self, bucket: usize, key: KeyHash, row_hash: u64) -> Option<usize> {
        let (place, is_there) = self.look(*self.tables.get(bucket)?, key, word(key, row_hash));
        is_there.then_some(place)
    }

    /// Where `word` is, or else the free place where it would be. There is always one: a table has more places than rows.
    fn look(&self, table: Table, key: KeyHash, word: u64) -> (usize, bool) {
        let mut offset = first_offset(table, key, self.bits);
        loop {
            let place = table.start + offset;
            if self.words[place] == word || self.words[place] == FREE {
                return (place, self.words[place] == word);
            }
            offset = if offset + 1 == table.places { 0 } else { offset + 1 };
        }
    }

    fn first_place(&self, key: KeyHash) -> Option<usize> {
        let table = self.tables.get(key.bucket(self.bits))?;
        Some(table.start + first_offset(*table, key, self.bits))
    }
}

/// Keys are hashes: the bits behind those of the bucket spread them evenly over its places, in their order.
fn first_offset(table: Table, key: KeyHash, bits: u8) -> usize {
    let leading = ((key.0 << bits) >> 64) as u64;
    ((u128::from(leading) * table.places as u128) >> 64) as usize
}

/// The trailing bits of the key, which its place does not tell, with the row hash: with either given, no two of the
/// other make the same.
fn word(key: KeyHash, row_hash: u64) -> u64 {
    let word = key.0 as u64 ^ row_hash;
    if word == FREE { 1 } else { word }
}
