//! Values that were taken otherwise than they were written: counted by column, with one example each.

use std::collections::BTreeMap;

use crate::moment::Oddity;

/// In what way a value was taken otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A local time that is not exactly one moment.
    Time(Oddity),
    /// A floating-point number with more places than its column, which the destination rounds itself.
    RoundedDouble,
}

/// Counts of notes by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    by_column: BTreeMap<(String, Note), (u64, String)>,
}

impl Notes {
    pub fn is_empty(&self) -> bool {
        self.by_column.is_empty()
    }

    /// Counts one value; the text of the first is kept.
    pub fn add(&mut self, column: &str, note: Note, shown: impl FnOnce() -> String) {
        match self.by_column.get_mut(&(column.to_owned(), note)) {
            Some((count, _)) => *count += 1,
            None => drop(self.by_column.insert((column.to_owned(), note), (1, shown()))),
        }
    }

    pub fn append(&mut self, more: Self) {
        for (place, (count, example)) in more.by_column {
            self.by_column.entry(place).or_insert((0, example)).0 += count;
        }
    }

    /// Column, note, how many values, and the first of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Note, u64, &str)> {
        self.by_column.iter().map(|((column, note), (count, text))| (column.as_str(), *note, *count, text.as_str()))
    }
}
