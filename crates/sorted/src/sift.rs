//! Sifting: what digests alone settle, and which rows and which state must be looked at.

use flowgate_core::KeyHash;

use crate::index::Heads;
use crate::{Arrivals, BucketMeta, Digest, Known, RowSet, SortedError, State, TOMBSTONE};

/// A bucket after sifting.
#[derive(Debug, Clone)]
pub struct Sifted {
    /// Rows that arrived and are in state exactly so, and of which nothing more is asked.
    pub settled: u64,
    /// Rows of the state that are not settled, by their positions in the bucket. A tombstone whose key
    /// did not arrive stays as it is, unless more is asked of it.
    pub touched: RowSet,
    /// Those of `touched` that arrived exactly so and did not wait: they are among the rows that are looked at, though
    /// only the state still has them.
    pub recalled: RowSet,
    /// Rows of the state, tombstones left out.
    pub in_state: u64,
}

/// Sifts bucket `bucket` of what arrived, `known` being what was settled at once. `is_open` names keys that are not
/// settled all the same. The ordinals of all other rows that waited are added to `wanted`.
pub fn sift(
    (arrivals, known): (&Arrivals, &Known),
    state: &State,
    bucket: usize,
    is_open: Option<&dyn Fn(KeyHash) -> bool>,
    wanted: &mut RowSet,
) -> Result<Sifted, SortedError> {
    let bits = arrivals.bits();
    let digests = arrivals.digests(bucket)?;
    if let Some(meta) = state.meta(bits, bucket).filter(|_| is_open.is_none())
        && meta.holds_exactly(&digests, known.settled(bucket))
    {
        return Ok(Sifted::whole(meta));
    }
    let heads = state.heads(bits, bucket)?;
    let settled = known.settled_rows(bucket, &heads);
    Ok(compare(&digests, &heads, &settled, is_open.unwrap_or(&|_| false), wanted))
}

/// The digests of a bucket, in their order, with the bucket of the state, of which the rows `arrived` are settled.
///
/// A row is settled if it alone has its key, is not faulty, and the state has its hash and no flag.
fn compare(
    digests: &[Digest],
    heads: &Heads,
    arrived: &RowSet,
    is_open: &dyn Fn(KeyHash) -> bool,
    wanted: &mut RowSet,
) -> Sifted {
    let mut sifted = Sifted::nothing(heads.len());
    let mut old = 0;
    for group in digests.chunk_by(|left, right| left.key == right.key) {
        let key = group[0].key;
        while heads.keys.get(old).is_some_and(|old_key| *old_key < key) {
            sifted.pass(heads, old, arrived, is_open);
            old += 1;
        }
        let is_in_state = heads.keys.get(old) == Some(&key);
        let has_arrived = is_in_state && arrived.contains(old);
        if is_in_state && !has_arrived && is_same(group, heads, old) && !is_open(key) {
            sifted.settle();
        } else {
            for digest in group {
                wanted.insert(digest.ordinal() as usize);
            }
            if has_arrived {
                sifted.recall(old);
            } else if is_in_state {
                sifted.touch(heads, old);
            }
        }
        old += usize::from(is_in_state);
    }
    (old..heads.len()).for_each(|row| sifted.pass(heads, row, arrived, is_open));
    sifted
}

fn is_same(group: &[Digest], heads: &Heads, old: usize) -> bool {
    let [only] = group else { return false };
    only.row_hash == heads.row_hashes[old] && heads.flags[old] == 0 && !only.is_faulty()
}

impl Sifted {
    /// A bucket whose living rows are exactly those that arrived: its state need not even be read.
    fn whole(meta: &BucketMeta) -> Self {
        let living = meta.totals.rows - meta.totals.tombstones;
        Self { settled: living, in_state: living, ..Self::nothing(0) }
    }

    fn nothing(rows: usize) -> Self {
        Self { settled: 0, touched: RowSet::none(rows), recalled: RowSet::none(rows), in_state: 0 }
    }

    fn settle(&mut self) {
        self.settled += 1;
        self.in_state += 1;
    }

    fn touch(&mut self, heads: &Heads, row: usize) {
        self.touched.insert(row);
        self.in_state += u64::from(heads.flags[row] & TOMBSTONE == 0);
    }

    /// A row that was settled when it arrived, and of which more is asked now.
    fn recall(&mut self, row: usize) {
        self.touched.insert(row);
        self.recalled.insert(row);
        self.in_state += 1;
    }

    /// A row of the state whose key is not among those that waited.
    fn pass(&mut self, heads: &Heads, row: usize, arrived: &RowSet, is_open: &dyn Fn(KeyHash) -> bool) {
        if arrived.contains(row) {
            if is_open(heads.keys[row]) { self.recall(row) } else { self.settle() }
        } else if heads.flags[row] & TOMBSTONE == 0 || is_open(heads.keys[row]) {
            self.touch(heads, row);
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
        let none = RowSet::none(8);
        let sifted = compare(&digests, &heads, &none, &|_| false, &mut wanted);
        assert_eq!((sifted.settled, sifted.in_state), (1, 6));
        assert_eq!(wanted.iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        // 7 is gone, the tombstone 4 stays, the tombstone 8 comes back.
        assert_eq!(sifted.touched.iter().collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7]);

        let open = compare(&digests[..1], &heads, &none, &|key| key == KeyHash(1), &mut wanted);
        assert_eq!(open.settled, 0);
    }

    #[test]
    fn what_was_settled_at_once_is_recalled_when_more_is_asked() {
        let heads = Heads {
            keys: [1, 2, 3, 4].map(KeyHash).to_vec(),
            row_hashes: vec![10; 4],
            flags: vec![0, 0, 0, TOMBSTONE],
        };
        let mut arrived = RowSet::none(4);
        for row in 0..3 {
            arrived.insert(row);
        }
        // 2 came once more, and otherwise; 3 is open.
        let digests = [digest(2, 11, 0, false)];
        let mut wanted = RowSet::none(1);
        let sifted = compare(&digests, &heads, &arrived, &|key| key == KeyHash(3), &mut wanted);
        assert_eq!((sifted.settled, sifted.in_state, wanted.count()), (1, 3, 1));
        assert_eq!(sifted.recalled.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(sifted.touched.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
