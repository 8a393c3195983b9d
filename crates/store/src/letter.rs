//! Letters: rows set aside with everything needed to see why, and to try them again.
//!
//! There is one living letter for each row. It goes away when the row is loaded after all, or when
//! its time is over; until then the same row under the same metadata and configuration is
//! quarantined again without being sent.

use flowgate_core::key::KeyHasher;
use flowgate_core::{Code, FlowName, KeyHash};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// From [`letter_id`].
    pub id: String,
    pub flow: FlowName,
    /// The load, or for malformed input the stream.
    pub place: String,
    /// `None` when the row's key could not be read.
    pub key_hash: Option<KeyHash>,
    /// The key as a person reads it.
    pub key_text: String,
    pub row_hash: u64,
    /// What the row was judged under: a change of either is a reason to try again.
    pub project_version: String,
    pub metadata_version: String,
    /// Given to [`crate::Store::save_letters`]: attempts since it was last saved. Returned: all attempts.
    pub attempts: u32,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub code: Code,
    pub column: Option<String>,
    pub reason: String,
    pub service_code: Option<String>,
    pub request_id: Option<String>,
    /// Where malformed input came from.
    pub file: Option<String>,
    pub line: Option<u64>,
    pub offset: Option<u64>,
    /// The prepared row, or the malformed text, as JSON.
    pub payload: String,
    pub status: LetterStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    Quarantined,
    /// A person asked: the next run tries the row whatever is known of it.
    RetryRequested,
    /// A person decided: the row stays out until it changes.
    Discarded,
}

impl LetterStatus {
    const ALL: [Self; 3] = [Self::Quarantined, Self::RetryRequested, Self::Discarded];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::RetryRequested => "retry_requested",
            Self::Discarded => "discarded",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The id of a row's letter: hash of flow, load (or stream) and key.
///
/// A row whose key could not be read is known by `key_text`, which then says where it came from.
pub fn letter_id(flow: &FlowName, place: &str, key_hash: Option<KeyHash>, key_text: &str) -> String {
    let mut hasher = KeyHasher::new();
    hasher.bytes(flow.as_str().as_bytes()).bytes(place.as_bytes());
    match key_hash {
        Some(key) => hasher.bytes(&key.0.to_le_bytes()),
        None => hasher.bytes(b"text").bytes(key_text.as_bytes()),
    };
    format!("{:032x}", hasher.finish().0)
}

/// What a run must know of a letter to decide whether its row is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterMark {
    pub id: String,
    pub key_hash: KeyHash,
    pub row_hash: u64,
    pub project_version: String,
    pub metadata_version: String,
    pub code: Code,
    pub status: LetterStatus,
}

/// Which letters; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    pub flow: Option<FlowName>,
    pub place: Option<String>,
    pub code: Option<Code>,
    pub status: Option<LetterStatus>,
}

/// Letters a person chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterSelection {
    Ids(Vec<String>),
    Matching(LetterFilter),
}

/// Some letters in the order they were first met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPage {
    pub letters: Vec<Letter>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// How many letters share place, code and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    pub flow: FlowName,
    pub place: String,
    pub code: Code,
    pub status: LetterStatus,
    pub letters: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_rows_and_stays_the_same() {
        let flow = FlowName::new("enquiries").unwrap();
        let id = letter_id(&flow, "cases", Some(KeyHash(7)), "A-1");
        assert_eq!(id.len(), 32);
        assert_eq!(id, letter_id(&flow, "cases", Some(KeyHash(7)), "shown differently"));
        assert_ne!(id, letter_id(&flow, "offices", Some(KeyHash(7)), "A-1"));
        assert_ne!(letter_id(&flow, "cases", None, "a:1"), letter_id(&flow, "cases", None, "a:2"));
    }
}
