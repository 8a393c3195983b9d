//! Walking two sorted sides once.

use std::cmp::Ordering;
use std::ops::Range;

use flowgate_core::KeyHash;

/// What one key is on the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Only on the new side, at this index.
    New(usize),
    /// Only on the old side, at this index. It may be a tombstone: look at its flags.
    Gone(usize),
    Both {
        new: usize,
        old: usize,
    },
}

/// Walks both sides in key order, one step for each key. Both are sorted and without duplicates:
/// [`groups`] finds those of the new side, for the caller to settle first.
pub fn merge<'a>(new: &'a [KeyHash], old: &'a [KeyHash]) -> Merge<'a> {
    Merge { new, old, next_new: 0, next_old: 0 }
}

/// See [`merge`].
#[derive(Debug, Clone)]
pub struct Merge<'a> {
    new: &'a [KeyHash],
    old: &'a [KeyHash],
    next_new: usize,
    next_old: usize,
}

impl Iterator for Merge<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        let (new, old) = (self.next_new, self.next_old);
        let order = match (self.new.get(new), self.old.get(old)) {
            (Some(new_key), Some(old_key)) => new_key.cmp(old_key),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        self.next_new += usize::from(order != Ordering::Greater);
        self.next_old += usize::from(order != Ordering::Less);
        Some(match order {
            Ordering::Less => Step::New(new),
            Ordering::Greater => Step::Gone(old),
            Ordering::Equal => Step::Both { new, old },
        })
    }
}

/// The ranges of equal keys of a sorted side, in order.
pub fn groups(keys: &[KeyHash]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    keys.chunk_by(|left, right| left == right).map(move |group| {
        let range = start..start + group.len();
        start = range.end;
        range
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: &[u128]) -> Vec<KeyHash> {
        numbers.iter().map(|number| KeyHash(*number)).collect()
    }

    #[test]
    fn every_key_is_met_once() {
        let (new, old) = (keys(&[1, 2, 5]), keys(&[2, 3, 9]));
        let steps: Vec<Step> = merge(&new, &old).collect();
        let expected = [Step::New(0), Step::Both { new: 1, old: 0 }, Step::Gone(1), Step::New(2), Step::Gone(2)];
        assert_eq!(steps, expected);
        assert_eq!(merge(&[], &[]).next(), None);
    }

    #[test]
    fn equal_keys_are_one_group() {
        let ranges: Vec<_> = groups(&keys(&[1, 1, 2, 7, 7, 7])).collect();
        assert_eq!(ranges, [0..2, 2..3, 3..6]);
        assert_eq!(groups(&[]).count(), 0);
    }
}
