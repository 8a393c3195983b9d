//! Keys as the destination compares them: case folded, trailing blanks removed, hashed to 128 bits.
//!
//! Dataverse compares text without regard to case (dossier section 11), so `A-1` and `a-1 ` are one
//! row there and must be one row here. 128 bits keep two different keys apart even at 10^9 rows.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// The hash of one row's key. The order of hashes is the order of state buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The bucket this key falls into when there are `2^bits` of them. `bits` is at most 16.
    pub fn bucket(self, bits: u8) -> usize {
        if bits == 0 { 0 } else { (self.0 >> (128 - u32::from(bits))) as usize }
    }
}

/// Builds a [`KeyHash`] from the parts of a key, in the order of the match columns.
#[derive(Default)]
pub struct KeyHasher {
    parts: Vec<u8>,
}

impl KeyHasher {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text part, folded as [`fold_key_text`] does.
    pub fn text(&mut self, part: &str) -> &mut Self {
        if !part.is_ascii() {
            return self.bytes(fold_key_text(part).as_bytes());
        }
        // Folded where it is hashed: almost all keys are ASCII, and there is one for each row.
        let trimmed = part.trim_end_matches(' ').as_bytes();
        let start = self.parts.len() + size_of::<u64>();
        self.bytes(trimmed);
        self.parts[start..].make_ascii_lowercase();
        self
    }

    /// Adds a part whose bytes are already canonical (a number, a date, an id).
    pub fn bytes(&mut self, part: &[u8]) -> &mut Self {
        // The length keeps ("ab","c") and ("a","bc") apart.
        self.parts.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.parts.extend_from_slice(part);
        self
    }

    /// The hash of all parts so far, and a fresh start.
    pub fn finish(&mut self) -> KeyHash {
        let hash = xxh3_128(&self.parts);
        self.parts.clear();
        KeyHash(hash)
    }
}

/// `label` as labels of choices and statuses are compared: without regard to case and to blanks around it.
pub fn fold_label(label: &str) -> String {
    label.trim().to_lowercase()
}

/// `text` as keys compare it: lower case, without trailing blanks.
pub fn fold_key_text(text: &str) -> Cow<'_, str> {
    let trimmed = text.trim_end_matches(' ');
    if trimmed.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(trimmed)
    } else if trimmed.is_ascii() {
        Cow::Owned(trimmed.to_ascii_lowercase())
    } else {
        Cow::Owned(trimmed.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&str]) -> KeyHash {
        let mut hasher = KeyHasher::new();
        for part in parts {
            hasher.text(part);
        }
        hasher.finish()
    }

    #[test]
    fn case_and_trailing_blanks_do_not_matter() {
        assert_eq!(hash(&["Škoda-1  "]), hash(&["škoda-1"]));
        assert_eq!(hash(&["K", "A-Z 09~ "]), hash(&["k", "a-z 09~"]));
        let mut folded = KeyHasher::new();
        folded.bytes(fold_key_text("A-Z 09~ ").as_bytes());
        assert_eq!(folded.finish(), hash(&["A-Z 09~ "]), "however it is folded");
        assert_ne!(hash(&[" a"]), hash(&["a"]));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }

    #[test]
    fn buckets_are_ranges_of_the_hash() {
        assert_eq!(KeyHash(u128::MAX).bucket(0), 0);
        assert_eq!(KeyHash(u128::MAX).bucket(4), 15);
        assert_eq!(KeyHash(1 << 127).bucket(1), 1);
    }
}
