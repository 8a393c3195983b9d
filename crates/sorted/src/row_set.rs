//! A set of row numbers, one bit each.

use arrow_array::BooleanArray;
use arrow_buffer::BooleanBuffer;

/// Some of the rows `0..len`. Numbers beyond are ignored when put in and are never in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    len: usize,
}

impl RowSet {
    /// None of `len` rows.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// All of `len` rows.
    pub fn all(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64)];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        Self { words, len }
    }

    #[inline]
    pub fn insert(&mut self, row: usize) {
        if row < self.len {
            self.words[row / 64] |= 1 << (row % 64);
        }
    }

    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        row < self.len && self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// How many rows are in it.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The rows in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// Which of `rows` rows, the first of which is `first`, are in it.
    pub(crate) fn mask(&self, first: u64, rows: usize) -> BooleanArray {
        let first = first as usize;
        BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| self.contains(first + row)), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_once_and_one_beyond_the_end_never() {
        let mut rows = RowSet::none(70);
        for row in [0, 69, 69, 64, 70_000] {
            rows.insert(row);
        }
        assert_eq!(rows.iter().collect::<Vec<_>>(), [0, 64, 69]);
        assert_eq!(rows.count(), 3);
        assert!(rows.contains(64) && !rows.contains(1) && !rows.contains(70_000));
        assert_eq!(rows.mask(63, 3).iter().flatten().collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn all_rows_are_all_and_no_more() {
        for len in [0, 1, 64, 70] {
            assert_eq!(RowSet::all(len).iter().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
        }
    }
}
