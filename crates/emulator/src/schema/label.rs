//! Texts for people: one in the organisation's language, others where they were given.
//!
//! Promise: a label in one language is stored as the bare text it was before there were others.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The language of the organisation: English (United States).
pub(crate) const LANGUAGE: u32 = 1033;

/// A text for people. It reads as the text in the organisation's language.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Label {
    text: String,
    /// By language code, without the organisation's.
    others: BTreeMap<u32, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(String),
    Many { text: String, others: Vec<(u32, String)> },
}

impl From<Stored> for Label {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Text(text) => Label::from(text),
            Stored::Many { text, others } => Label { text, others: others.into_iter().collect() },
        }
    }
}

impl From<Label> for Stored {
    fn from(label: Label) -> Self {
        if label.others.is_empty() {
            return Stored::Text(label.text);
        }
        Stored::Many { text: label.text, others: label.others.into_iter().collect() }
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Label { text, others: BTreeMap::new() }
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Label::from(text.to_owned())
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Label {
    /// Sets the text in one language.
    pub(crate) fn set(&mut self, language: u32, text: &str) {
        if language == LANGUAGE {
            text.clone_into(&mut self.text);
        } else {
            self.others.insert(language, text.to_owned());
        }
    }

    /// Takes over what another label has, and keeps the languages that it lacks.
    pub(crate) fn merge(&mut self, other: &Label) {
        for (language, text) in other.languages() {
            self.set(language, text);
        }
    }

    /// Every language with its text, the organisation's first; none with an empty text.
    pub(crate) fn languages(&self) -> impl Iterator<Item = (u32, &str)> {
        let others = self.others.iter().map(|(language, text)| (*language, text.as_str()));
        std::iter::once((LANGUAGE, self.text.as_str())).chain(others).filter(|(_, text)| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_merge_by_language_and_survive_storage() {
        let mut label = Label::from("Order");
        assert_eq!(serde_json::to_string(&label).unwrap(), "\"Order\"");
        let mut german = Label::default();
        german.set(1031, "Auftrag");
        label.merge(&german);
        assert_eq!(label.languages().collect::<Vec<_>>(), [(1033, "Order"), (1031, "Auftrag")]);
        let stored = serde_json::to_string(&label).unwrap();
        assert_eq!(serde_json::from_str::<Label>(&stored).unwrap(), label);
    }
}
