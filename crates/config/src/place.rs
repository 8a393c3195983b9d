//! Where something stands: a file, and a range of bytes in it.
//!
//! Everything read from a file keeps its [`Place`], so that any later finding can be shown on the
//! line it is about. Lines and columns count from 1; columns count characters, as editors do.

use std::fmt;
use std::sync::Arc;

use crate::mask::{masked, masked_below_connections};

/// The longest source line repeated in a report, in characters.
const SNIPPET_LENGTH_MAX: usize = 200;

/// One file as it was read.
pub struct SourceFile {
    /// The path relative to the project, with `/`.
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    pub(crate) fn new(name: impl Into<String>, text: String) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, line_starts }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line that holds this byte, from 0.
    fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn line_text(&self, index: usize) -> &str {
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let rest = self.text().get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({})", self.name())
    }
}

/// A range of one file, never longer than its first line.
#[derive(Debug, Clone)]
pub struct Place {
    file: Arc<SourceFile>,
    start: usize,
    end: usize,
}

impl Place {
    /// The range from `start` to `end`, cut at the end of its first line and moved to character
    /// boundaries, so that it can always be shown.
    pub(crate) fn new(file: &Arc<SourceFile>, start: usize, end: usize) -> Self {
        let text = file.text();
        let start = floor_boundary(text, start.min(text.len()));
        let end = floor_boundary(text, end.clamp(start, text.len()));
        let slice = text.get(start..end).unwrap_or_default();
        let shown = slice.lines().next().unwrap_or_default().trim_end();
        Self { file: Arc::clone(file), start, end: start + shown.len() }
    }

    /// The word at a line and column, both from 1.
    pub(crate) fn at_line(file: &Arc<SourceFile>, line: usize, column: usize) -> Self {
        let line_start = file.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(file.text().len());
        let text = file.line_text(line.saturating_sub(1));
        let start = text.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
        let rest = text.get(start..).unwrap_or_default();
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let end = start + word.max(rest.chars().next().map_or(0, char::len_utf8));
        Self::new(file, line_start + start, line_start + end)
    }

    pub fn file(&self) -> &SourceFile {
        &self.file
    }

    pub fn line(&self) -> usize {
        self.file.line_index(self.start) + 1
    }

    pub fn column(&self) -> usize {
        let index = self.file.line_index(self.start);
        let line_start = self.file.line_starts.get(index).copied().unwrap_or(0);
        self.file.text().get(line_start..self.start).map_or(1, |before| before.chars().count() + 1)
    }

    /// The source line without secrets, cut to a length that fits a report.
    pub fn snippet(&self) -> String {
        let index = self.file.line_index(self.start);
        let line = self.file.line_text(index);
        let shown = if self.is_below_connections(index) { masked_below_connections(line) } else { masked(line) };
        shown.chars().take(SNIPPET_LENGTH_MAX).collect()
    }

    /// Whether the line belongs to a block `connections:` at the start of a line.
    fn is_below_connections(&self, index: usize) -> bool {
        let starts_block = |text: &&str| text.starts_with(|first: char| !first.is_whitespace() && first != '#');
        let mut above = (0..=index).rev().map(|line| self.file.line_text(line));
        above.find(starts_block).is_some_and(|line| line.starts_with("connections:"))
    }

    /// How many characters it holds.
    pub(crate) fn width(&self) -> usize {
        self.file.text().get(self.start..self.end).map_or(0, |shown| shown.chars().count())
    }

    /// The last place of `part` within this one, or this one when it is not written there.
    pub(crate) fn of_part(&self, part: &str) -> Self {
        let shown = self.file.text().get(self.start..self.end).unwrap_or_default();
        match shown.rfind(part) {
            Some(at) => Self::new(&self.file, self.start + at, self.start + at + part.len()),
            None => self.clone(),
        }
    }
}

fn floor_boundary(text: &str, mut offset: usize) -> usize {
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_ranges_end_with_the_line() {
        let file = Arc::new(SourceFile::new("a.yaml", "first: 1\nñame: two\nthree: 3\n".to_owned()));
        let start = file.text().find("two").unwrap();
        let place = Place::new(&file, start, file.text().len());
        assert_eq!((place.line(), place.column(), place.width()), (2, 7, 3));
        assert_eq!(place.snippet(), "ñame: two");
        assert_eq!(place.of_part("wo").column(), 8);
    }

    #[test]
    fn a_place_behind_the_end_is_the_end() {
        let file = Arc::new(SourceFile::new("a.yaml", "x".to_owned()));
        let place = Place::new(&file, 90, 95);
        assert_eq!((place.line(), place.column(), place.width()), (1, 2, 0));
    }
}
