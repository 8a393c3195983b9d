//! Sifting: what digests alone settle, and which rows and which state must be looked at.

use flowgate_core::KeyHash;

use crate::index::Heads;
use crate::{BucketMeta, Digest, RowSet, TOMBSTONE};

/// A bucket after sifting.
#[derive(Debug, Clone)]
pub struct Sifted {
    /// Rows that arrived and are in state exactly so, and of which nothing more is asked.
    pub settled: u64,
    /// Rows of the state that are not settled, by their positions in the bucket. A tombstone whose key
    /// did not arrive stays as it is.
    pub touched: RowSet,
    /// Rows of the state, tombstones left out.
    pub in_state: u64,
}

impl Sifted {
    /// A bucket whose living rows are exactly those that arrived: its state need not even be read.
    pub fn whole(meta: &BucketMeta) -> Self {
        let living = meta.totals.rows - meta.totals.tombstones;
        Self { settled: living, touched: RowSet::none(0), in_state: living }
    }
}

/// Compares the digests of a bucket, in their order, with the bucket of the state.
///
/// A row is settled if it alone has its key, is not faulty, and the state has its hash and no flag;
/// `is_open` names keys that are not settled all the same. The ordinals of all other rows are added
/// to `wanted`.
pub fn sift(digests: &[Digest], heads: &Heads, is_open: impl Fn(KeyHash) -> bool, wanted: &mut RowSet) -> Sifted {
    let mut sifted = Sifted { settled: 0, touched: RowSet::none(heads.len()), in_state: 0 };
    let mut old = 0;
    for group in digests.chunk_by(|left, right| left.key == right.key) {
        let key = group[0].key;
        while heads.keys.get(old).is_some_and(|old_key| *old_key < key) {
            sifted.pass(heads, old);
            old += 1;
        }
        let is_in_state = heads.keys.get(old) == Some(&key);
        if is_in_state && is_same(group, heads, old) && !is_open(key) {
            sifted.settled += 1;
            sifted.in_state += 1;
        } else {
            for digest in group {
                wanted.insert(digest.ordinal() as usize);
            }
            if is_in_state {
                sifted.touched.insert(old);
                sifted.in_state += u64::from(heads.flags[old] & TOMBSTONE == 0);
            }
        }
        old += usize::from(is_in_state);
    }
    (old..heads.len()).for_each(|row| sifted.pass(heads, row));
    sifted
}

fn is_same(group: &[Digest], heads: &Heads, old: usize) -> bool {
    let [only] = group else { return false };
    only.row_hash == heads.row_hashes[old] && heads.flags[old] == 0 && !only.is_faulty()
}

impl Sifted {
    /// A row of the state whose key did not arrive.
    fn pass(&mut self, heads: &Heads, row: usize) {
        if heads.flags[row] & TOMBSTONE == 0 {
            self.touched.insert(row);
            self.in_state += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UNCERTAIN;

    fn digest(key: u128, row_hash: u64, ordinal: u64, is_faulty: bool) -> Digest {
        Digest::new(KeyHash(key), row_hash, ordinal, is_faulty)
    }

    #[test]
    fn only_what_is_exactly_so_is_settled() {
        let heads = Heads {
            keys: [1, 2, 3, 4, 5, 6, 7, 8].map(KeyHash).to_vec(),
            row_hashes: vec![10; 8],
            flags: vec![0, 0, UNCERTAIN, TOMBSTONE, 0, 0, 0, TOMBSTONE],
        };
        let digests = [
            digest(1, 10, 0, false),
            digest(2, 11, 1, false),
            digest(3, 10, 2, false),
            digest(5, 10, 3, true),
            digest(6, 10, 4, false),
            digest(6, 10, 5, false),
            digest(8, 10, 6, false),
            digest(9, 10, 7, false),
        ];
        let mut wanted = RowSet::none(8);
        let sifted = sift(&digests, &heads, |_| false, &mut wanted);
        assert_eq!((sifted.settled, sifted.in_state), (1, 6));
        assert_eq!(wanted.iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        // 7 is gone, the tombstone 4 stays, the tombstone 8 comes back.
        assert_eq!(sifted.touched.iter().collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7]);

        let open = sift(&digests[..1], &heads, |key| key == KeyHash(1), &mut wanted);
        assert_eq!(open.settled, 0);
    }
}
