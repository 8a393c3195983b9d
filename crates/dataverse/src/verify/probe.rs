//! What a probe is, what it can find, and how a finding is judged. Pure.
//!
//! A probe looks at one assumption and says what it saw; whether that is what was assumed is decided
//! here, in one place. What it saw is told in its own words, a status and a code, never in the
//! service's text: that may name people, hosts and ids.

use futures::future::BoxFuture;
use serde_json::Value;

use super::lab::Lab;
use crate::call::CallError;

/// Times are measured from outside, between two looks and over a network: they agree when they are
/// no further apart than this, or than half of what was expected.
const SECONDS_APART_MAX: f64 = 10.0;
const SHARE_APART_MAX: f64 = 0.5;

/// One assumption about the service that a client can observe.
pub(super) struct Probe {
    /// Also the name of the emulator's setting, where there is one.
    pub(super) name: &'static str,
    /// Where the assumption comes from: a section of the protocol notes.
    pub(super) section: &'static str,
    pub(super) assumption: &'static str,
    pub(super) expected: Expected,
    pub(super) place: Place,
    pub(super) run: for<'a> fn(&'a Lab<'a>) -> Probing<'a>,
}

/// What is assumed, in the terms of the setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Expected {
    Flag(bool),
    Number(u64),
    Text(&'static str),
    Seconds(f64),
}

/// Where a finding goes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The emulator has no such setting: the finding is for people.
    Nowhere,
    Setting,
    /// The number of web servers, which is no setting but a part of the profile.
    Servers,
}

pub(super) type Probing<'a> = BoxFuture<'a, Result<Seen, NoAnswer>>;

/// What a probe saw.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// In the terms of the setting; `None` if the setting has no word for it.
    pub(super) value: Option<Value>,
    /// In words.
    pub(super) words: String,
}

impl Seen {
    pub(super) fn new(value: impl Into<Value>, words: impl Into<String>) -> Self {
        Self { value: Some(value.into()), words: words.into() }
    }

    /// Something that the assumption has no word for.
    pub(super) fn strange(words: impl Into<String>) -> Self {
        Self { value: None, words: words.into() }
    }
}

/// Why a probe saw nothing.
#[derive(Debug)]
pub(super) enum NoAnswer {
    NotPermitted(String),
    NotObservable(String),
    /// The call did not come to an end.
    Failed(CallError),
}

impl From<CallError> for NoAnswer {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

pub(super) fn unobservable<T>(why: impl Into<String>) -> Result<T, NoAnswer> {
    Err(NoAnswer::NotObservable(why.into()))
}

impl Expected {
    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Flag(flag) => flag.into(),
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
            Self::Seconds(seconds) => seconds.into(),
        }
    }

    /// Whether `seen` is what was expected; `expected` is a value of this kind.
    pub(super) fn agrees(self, expected: &Value, seen: &Value) -> bool {
        match (self, expected.as_f64(), seen.as_f64()) {
            (Self::Seconds(_), Some(expected), Some(seen)) => {
                (seen - expected).abs() <= SECONDS_APART_MAX.max(expected * SHARE_APART_MAX)
            }
            (_, Some(expected), Some(seen)) => (expected - seen).abs() < f64::EPSILON,
            _ => expected == seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_agree_roughly_and_numbers_exactly() {
        let seconds = Expected::Seconds(2.0);
        assert!(seconds.agrees(&json!(2.0), &json!(11.5)));
        assert!(!seconds.agrees(&json!(2.0), &json!(13.0)));
        assert!(seconds.agrees(&json!(60.0), &json!(89.0)));
        assert!(!seconds.agrees(&json!(60.0), &json!(91.0)));
        assert!(Expected::Number(404).agrees(&json!(404), &json!(404.0)));
        assert!(!Expected::Number(404).agrees(&json!(404), &json!(400)));
        assert!(!Expected::Text("a").agrees(&json!("a"), &json!("b")));
    }
}
