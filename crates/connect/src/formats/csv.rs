//! CSV: lines of fields, by the letter of RFC 4180 unless settings say otherwise.
//!
//! What is not of the file's form (a quote where none may be, too many or too few fields, wrong bytes, a NUL) is set
//! aside with its line and column; the rest goes on. A quote that never closes costs the line on which it opens and no
//! other: [`super::split`] says how. A header that is not of the form fails the file. Memory is bounded: a field is at
//! most [`FIELD_BYTES_MAX`].

use std::io::Read;

use arrow_schema::SchemaRef;
use encoding_rs::UTF_8;
use flowgate_core::source::Malformed;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use memchr::{memchr, memchr_iter};

use super::input::{self, Input};
use super::layout::{Header, Layout, name_problem};
use super::rows::{Rows, wrong_encoding};
use super::shape::{COLUMNS_MAX, data_fields, join_columns};
use super::split::{FIELD_BYTES_MAX, Fault, FaultKind, Field, Fields, LineEnd, Split, Splitter};
use super::{DataFile, damaged, malformed, read_failed};
use crate::blocking::Sink;

/// The largest record.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// What is read at once. A record at its end is looked at again with more behind it.
const WINDOW_BYTES: usize = 256 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Of a record as it is written, as much as is kept for messages (UTF-8 takes up to four bytes a character).
const RAW_BYTES_MAX: usize = 4 * flowgate_core::source::MALFORMED_TEXT_MAX;

/// The columns of all files together.
pub(super) fn columns(files: &[DataFile], layout: &Layout) -> Result<Vec<String>, ConnectorError> {
    if let Header::Names(names) = &layout.header {
        return Ok(names.clone());
    }
    let mut known = Vec::new();
    for file in files {
        let names = read_header(&mut Records::open(file, layout)?)?;
        join_columns(&mut known, &names, file)?;
    }
    Ok(known)
}

/// Reads one file into batches of `schema`.
pub(super) fn read(file: &DataFile, layout: &Layout, schema: &SchemaRef, sink: &Sink) -> Result<(), ConnectorError> {
    let mut records = Records::open(file, layout)?;
    let names = match &layout.header {
        Header::FirstLine => read_header(&mut records)?,
        Header::Names(names) => names.clone(),
    };
    let position = |name: &String| {
        let changed = || damaged(file, format!("changed while it was read: column `{name}` is new"));
        schema.index_of(name).map_err(|_| changed())
    };
    let targets = names.iter().map(position).collect::<Result<Vec<_>, _>>()?;
    let absent: Vec<_> = (0..data_fields(schema).len()).filter(|column| !targets.contains(column)).collect();
    let mut rows = Rows::new(file, schema, sink);
    while records.advance()? {
        match records.record() {
            Ok(record) if record.fields.len() == names.len() => {
                for (target, field) in targets.iter().zip(record.fields) {
                    let text = record.text_of(field);
                    rows.push(*target, if Some(text) == layout.null_text.as_deref() { "" } else { text });
                }
                for column in &absent {
                    rows.push_null(*column);
                }
                rows.end_row(records.line, record.text.is_ascii())?;
            }
            Ok(record) => {
                let reason = format!("has {} fields where {} are expected", record.fields.len(), names.len());
                rows.set_aside(records.set_aside(reason))?;
            }
            Err(Bad::Nul) => rows.set_aside(records.set_aside("holds a NUL byte".to_owned()))?,
            Err(Bad::Form(reason)) => rows.set_aside(records.set_aside(reason))?,
            Err(Bad::NotEncoded { field, byte }) => {
                let column = names.get(field).map_or("an extra field".to_owned(), |name| format!("`{name}`"));
                let reason = bad_byte(byte, &column, records.encoding_name());
                rows.set_aside_misencoded(records.set_aside(reason))?;
            }
        }
    }
    if records.is_cut() && !layout.has_open_end {
        rows.say_open_end(records.line);
    }
    rows.end()
}

fn bad_byte(byte: u8, place: &str, encoding: &str) -> String {
    if encoding == UTF_8.name() {
        format!("holds the byte 0x{byte:02X} in {place}, which is not UTF-8 there")
    } else {
        format!("holds bytes in {place} that are not {encoding}")
    }
}

fn read_header(records: &mut Records<'_>) -> Result<Vec<String>, ConnectorError> {
    if !records.advance()? {
        let error = damaged(records.file, "is empty: it has not even a header line");
        return Err(error.hint("a file without rows still has its header; an empty one is often a broken transfer"));
    }
    let line = records.line;
    let record = match records.record() {
        Ok(record) => record,
        Err(Bad::Nul) => return Err(wrong_encoding(records.file, line, "holds a NUL byte in the header")),
        Err(Bad::Form(reason)) => {
            let error = damaged(records.file, format!("has a header that cannot be read: line {line} {reason}"));
            return Err(error.hint("`quote:`, `escape:` and `dialect:` say how a file is written"));
        }
        Err(Bad::NotEncoded { byte, .. }) => {
            return Err(wrong_encoding(records.file, line, &bad_byte(byte, "the header", records.encoding_name())));
        }
    };
    let names: Vec<_> = record.fields.iter().map(|field| record.text_of(field).trim().to_owned()).collect();
    if let Some(problem) = name_problem(&names) {
        let error = damaged(records.file, format!("has a header that cannot be used: {problem}"));
        return Err(error.hint("name the columns in the settings: `header: [id, name]` for a file without a header"));
    }
    Ok(names)
}

/// A record whose bytes are text.
struct Record<'r> {
    /// The record as it is written.
    text: &'r str,
    copied: &'r str,
    fields: &'r [Field],
}

impl<'r> Record<'r> {
    fn text_of(&self, field: &Field) -> &'r str {
        if field.is_copied { &self.copied[field.start..field.end] } else { &self.text[field.start..field.end] }
    }
}

/// Why a record is set aside. The reason goes on after "line 3".
enum Bad {
    Nul,
    Form(String),
    NotEncoded { field: usize, byte: u8 },
}

/// Splits a file into records and knows where each began.
struct Records<'f> {
    file: &'f DataFile,
    input: Input,
    splitter: Splitter,
    comment: Option<u8>,
    /// Bytes of the file from the current record on, and where in it the next one begins.
    window: Vec<u8>,
    filled: usize,
    next: usize,
    is_last: bool,
    /// The line and the place in the decoded input that `window[next]` is at.
    next_line: u64,
    next_offset: u64,
    /// The current record: where in the window it begins, its length, its line and its place in the decoded input.
    start: usize,
    length: usize,
    line: u64,
    offset: u64,
    fields: Fields,
    fault: Option<Fault>,
    has_line_end: bool,
}

impl<'f> Records<'f> {
    fn open(file: &'f DataFile, layout: &Layout) -> Result<Self, ConnectorError> {
        let mut records = Self {
            file,
            input: input::open(file, layout)?,
            splitter: Splitter::new(layout.dialect, LineEnd::Feed),
            comment: layout.comment,
            window: vec![0; WINDOW_BYTES],
            filled: 0,
            next: 0,
            is_last: false,
            next_line: 1,
            next_offset: 0,
            start: 0,
            length: 0,
            line: 1,
            offset: 0,
            fields: Fields::default(),
            fault: None,
            has_line_end: true,
        };
        records.read_on()?;
        let ends = LineEnd::of(&records.window[..records.filled], layout.dialect);
        records.splitter = Splitter::new(layout.dialect, ends);
        Ok(records)
    }

    fn encoding_name(&self) -> &'static str {
        self.input.encoding.name()
    }

    /// Whether the last record has no line end, although records before it have.
    fn is_cut(&self) -> bool {
        !self.has_line_end && self.line > 1
    }

    /// Reads until the window is full of bytes that are not taken yet, or the file is at its end.
    fn read_on(&mut self) -> Result<(), ConnectorError> {
        self.window.copy_within(self.next..self.filled, 0);
        self.filled -= self.next;
        self.next = 0;
        if self.filled * 2 > self.window.len() {
            self.window.resize((self.window.len() * 2).min(RECORD_BYTES_MAX + WINDOW_BYTES), 0);
        }
        while self.filled < self.window.len() && !self.is_last {
            let count = self.input.text.read(&mut self.window[self.filled..]);
            match count {
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failed(self.file, error)),
            }
            self.is_last = matches!(count, Ok(0));
        }
        Ok(())
    }

    /// Passes `count` bytes, which hold `lines` line ends.
    fn pass(&mut self, count: usize, lines: u64) {
        self.next += count;
        self.next_offset += count as u64;
        self.next_line += lines;
    }

    /// Passes over blank lines and comments, so that a record's line is the one it begins on. `false` at the end.
    fn skip_to_record(&mut self) -> Result<bool, ConnectorError> {
        let mut is_comment = false;
        loop {
            if self.next == self.filled && !self.is_last {
                self.read_on()?;
            }
            let rest = &self.window[self.next..self.filled];
            let Some(first) = rest.first().copied() else { return Ok(false) };
            if is_comment {
                let found = memchr(self.splitter.ends.byte(), rest);
                let count = found.unwrap_or(rest.len());
                is_comment = found.is_none();
                self.pass(count, 0);
                continue;
            }
            match first {
                byte if byte == self.splitter.ends.byte() => self.pass(1, 1),
                b'\r' => {
                    let returns = rest.iter().take_while(|byte| **byte == b'\r').count();
                    match rest.get(returns) {
                        Some(b'\n') => self.pass(returns, 0),
                        Some(_) => return Ok(true),
                        None if self.is_last => self.pass(returns, 0),
                        None if rest.len() > RECORD_BYTES_MAX => return Err(self.too_large()),
                        None => self.read_on()?,
                    }
                }
                byte if Some(byte) == self.comment => is_comment = true,
                _ => return Ok(true),
            }
        }
    }

    /// Moves to the next record. `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, ConnectorError> {
        if !self.skip_to_record()? {
            return Ok(false);
        }
        (self.line, self.offset) = (self.next_line, self.next_offset);
        loop {
            let rest = &self.window[self.next..self.filled];
            let next = match self.splitter.split(rest, self.is_last, &mut self.fields) {
                Split::Record { length, next, has_line_end } => {
                    (self.length, self.has_line_end, self.fault) = (length, has_line_end, None);
                    next
                }
                Split::Malformed { fault, next } => {
                    (self.length, self.has_line_end, self.fault) = (next, true, Some(fault));
                    self.line += lines_in(&rest[..fault.at], self.splitter.ends);
                    next
                }
                Split::TooLarge => return Err(self.too_large()),
                Split::More if rest.len() > RECORD_BYTES_MAX => return Err(self.too_large()),
                Split::More => {
                    self.read_on()?;
                    continue;
                }
            };
            if self.fields.places.len() > 2 * COLUMNS_MAX {
                let what = format!("has more than {} fields in the row of line {}", 2 * COLUMNS_MAX, self.line);
                return Err(damaged(self.file, what));
            }
            self.start = self.next;
            let lines = lines_in(&rest[..next], self.splitter.ends);
            self.pass(next, lines);
            return Ok(true);
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.window[self.start..self.start + self.length]
    }

    fn record(&self) -> Result<Record<'_>, Bad> {
        let bytes = self.bytes();
        if bytes.starts_with(BYTE_ORDER_MARK) {
            return Err(Bad::Form("begins with a byte-order mark: another file was added here".to_owned()));
        }
        if memchr(0, bytes).is_some() {
            return Err(Bad::Nul);
        }
        if let Some(fault) = self.fault {
            return Err(Bad::Form(self.reason(fault)));
        }
        let fields = &self.fields.places;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            Bad::NotEncoded { field: self.field_at(at), byte: bytes[at] }
        })?;
        // Copied pieces are cut at quotes and escapes, which are ASCII: they are text as the record is.
        match std::str::from_utf8(&self.fields.copied) {
            Ok(copied) => Ok(Record { text, copied, fields }),
            Err(_) => Err(Bad::Form("holds a character that an escape cuts in two".to_owned())),
        }
    }

    /// The field that holds the byte `at` of the record.
    fn field_at(&self, at: usize) -> usize {
        let is_before = |field: &Field| !field.is_copied && field.start <= at;
        match self.fields.places.iter().rposition(is_before) {
            Some(position) if at < self.fields.places[position].end => position,
            // It is one of those after it, whose text is a copy.
            Some(position) => position + 1,
            None => 0,
        }
    }

    fn reason(&self, fault: Fault) -> String {
        let column = self.column(fault.at);
        match fault.kind {
            FaultKind::AfterQuote { followed_at } => self.reason_after_quote(fault.at, followed_at),
            FaultKind::QuoteWithin => {
                format!("has a quote in column {column}, inside a field that does not begin with one")
            }
            FaultKind::Unclosed => format!("opens a quote in column {column} that never closes"),
            FaultKind::ClosesTooLate => {
                format!("opens a quote in column {column} that does not close within {} MiB", FIELD_BYTES_MAX >> 20)
            }
            FaultKind::StrayLineEnd => {
                let found = if self.splitter.ends == LineEnd::Feed { "carriage return" } else { "line feed" };
                format!("has a {found} in column {column} that ends no line of this file")
            }
            FaultKind::EscapeOutside => {
                format!("has an escape in column {column} before what separates fields, outside of quotes")
            }
        }
    }

    /// What follows may stand lines below, in bytes that the record no longer covers.
    fn reason_after_quote(&self, open: usize, followed_at: usize) -> String {
        let rest = &self.window[self.start..self.filled];
        let lines = lines_in(&rest[open..followed_at], self.splitter.ends);
        let followed = String::from_utf8_lossy(&rest[followed_at..(followed_at + 4).min(rest.len())]);
        let followed = followed.chars().next().unwrap_or('\u{FFFD}').escape_debug();
        let (opened_in, closed_in) = (self.column(open), self.column(followed_at - 1));
        if lines == 0 {
            return format!("has `{followed}` after the quote that closes in column {closed_in}");
        }
        let line = self.line + lines;
        format!(
            "opens a quote in column {opened_in} that closes only in line {line}, column {closed_in}, with `{followed}` after it"
        )
    }

    /// The column, in characters from 1, of a place from the start of the record.
    fn column(&self, at: usize) -> usize {
        let before = &self.window[self.start..self.start + at];
        let line_start = memchr::memrchr(self.splitter.ends.byte(), before).map_or(0, |end| end + 1);
        String::from_utf8_lossy(&before[line_start..]).chars().count() + 1
    }

    fn too_large(&self) -> ConnectorError {
        let (mebibytes, line) = (FIELD_BYTES_MAX >> 20, self.line);
        let message = format!("`{}` has a field of more than {mebibytes} MiB in line {line}", self.file.shown);
        ConnectorError::new(ErrorKind::Data, Code::FIELD_TOO_LARGE, message)
            .hint("a quote that never closes is the usual cause")
    }

    fn set_aside(&self, reason: String) -> Malformed {
        malformed(self.file, self.line, self.offset, reason, &self.bytes()[..self.length.min(RAW_BYTES_MAX)])
    }
}

fn lines_in(bytes: &[u8], ends: LineEnd) -> u64 {
    memchr_iter(ends.byte(), bytes).count() as u64
}
