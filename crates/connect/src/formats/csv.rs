//! CSV: lines of fields, as RFC 4180 describes them and as programs write them.
//!
//! A record that is not of the file's form (too many or too few fields, wrong bytes, a NUL) is set
//! aside with its line; the rest goes on. A quote that never closes fails the file, because nobody
//! can tell which rows it swallowed. Memory is bounded: a field is at most [`FIELD_BYTES_MAX`].

use std::io::Read;

use arrow_schema::SchemaRef;
use csv_core::ReadRecordResult;
use encoding_rs::UTF_8;
use flowgate_core::{Code, ConnectorError, ErrorKind};

use super::input::{self, Input};
use super::layout::{Header, Layout, name_problem};
use super::rows::{Rows, wrong_encoding};
use super::shape::{COLUMNS_MAX, data_fields, join_columns};
use super::{DataFile, damaged, malformed, read_failed};
use crate::blocking::Sink;

/// The largest field. No column of any destination takes more.
const FIELD_BYTES_MAX: usize = 16 << 20;
/// The largest record.
const RECORD_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 64 * 1024;
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
            Ok(record) if record.ends.len() == names.len() => {
                let mut start = 0;
                for (target, end) in targets.iter().zip(record.ends) {
                    let field = &record.text[start..*end];
                    rows.push(*target, if Some(field) == layout.null_text.as_deref() { "" } else { field });
                    start = *end;
                }
                for column in &absent {
                    rows.push_null(*column);
                }
                rows.end_row(records.line, record.text.is_ascii())?;
            }
            Ok(record) => {
                let reason = format!("has {} fields where {} are expected", record.ends.len(), names.len());
                rows.set_aside(records.set_aside(reason))?;
            }
            Err(BadBytes::Nul) => rows.set_aside(records.set_aside("holds a NUL byte".to_owned()))?,
            Err(BadBytes::NotEncoded { field, byte }) => {
                let column = names.get(field).map_or("an extra field".to_owned(), |name| format!("`{name}`"));
                let reason = bad_byte(byte, &column, records.encoding_name());
                rows.set_aside_misencoded(records.set_aside(reason))?;
            }
        }
    }
    rows.flush()
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
        Err(BadBytes::Nul) => return Err(wrong_encoding(records.file, line, "holds a NUL byte in the header")),
        Err(BadBytes::NotEncoded { byte, .. }) => {
            return Err(wrong_encoding(records.file, line, &bad_byte(byte, "the header", records.encoding_name())));
        }
    };
    let mut start = 0;
    let mut names = Vec::with_capacity(record.ends.len());
    for end in record.ends {
        names.push(record.text[start..*end].trim().to_owned());
        start = *end;
    }
    if let Some(problem) = name_problem(&names) {
        let error = damaged(records.file, format!("has a header that cannot be used: {problem}"));
        return Err(error.hint("name the columns in the settings: `header: [id, name]` for a file without a header"));
    }
    Ok(names)
}

/// A record whose bytes are text.
struct Record<'r> {
    /// The fields one after the other, without delimiters and quotes.
    text: &'r str,
    ends: &'r [usize],
}

enum BadBytes {
    Nul,
    NotEncoded { field: usize, byte: u8 },
}

/// Splits a file into records and knows where each began.
struct Records<'f> {
    file: &'f DataFile,
    input: Input,
    parser: csv_core::Reader,
    comment: Option<u8>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where `buffer[start]` stands in the decoded input.
    position: u64,
    /// The current record.
    line: u64,
    offset: u64,
    raw: Vec<u8>,
    fields: Vec<u8>,
    fields_length: usize,
    ends: Vec<usize>,
    ends_length: usize,
}

impl<'f> Records<'f> {
    fn open(file: &'f DataFile, layout: &Layout) -> Result<Self, ConnectorError> {
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(layout.delimiter).escape(layout.escape).double_quote(layout.escape.is_none());
        match layout.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        Ok(Self {
            file,
            input: input::open(file, layout)?,
            parser: builder.build(),
            comment: layout.comment,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            position: 0,
            line: 1,
            offset: 0,
            raw: Vec::new(),
            fields: vec![0; 4 * 1024],
            fields_length: 0,
            ends: vec![0; 64],
            ends_length: 0,
        })
    }

    fn encoding_name(&self) -> &'static str {
        self.input.encoding.name()
    }

    /// Reads on when the buffer is used up. `false` at the end of the file.
    fn fill(&mut self) -> Result<bool, ConnectorError> {
        if self.start < self.end {
            return Ok(true);
        }
        self.start = 0;
        self.end = self.input.text.read(&mut self.buffer).map_err(|error| read_failed(self.file, error))?;
        Ok(self.end > 0)
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Passes over line ends and comments, so that a record's line is the one it begins on.
    fn skip_to_record(&mut self) -> Result<bool, ConnectorError> {
        let mut is_comment = false;
        while self.fill()? {
            let byte = self.buffer[self.start];
            match byte {
                b'\n' => {
                    self.parser.set_line(self.parser.line() + 1);
                    is_comment = false;
                }
                b'\r' => {}
                _ if is_comment => {}
                _ if Some(byte) == self.comment => is_comment = true,
                _ => return Ok(true),
            }
            self.consume(1);
        }
        Ok(false)
    }

    /// Moves to the next record. `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, ConnectorError> {
        self.fields_length = 0;
        self.ends_length = 0;
        self.raw.clear();
        if !self.skip_to_record()? {
            return Ok(false);
        }
        self.line = self.parser.line();
        self.offset = self.position;
        loop {
            let is_end = !self.fill()?;
            // A last line end completes the record, unless a quote is open: then it becomes part of a field.
            let input = if is_end { b"\n" } else { &self.buffer[self.start..self.end] };
            let (result, read, written, ended) = self.parser.read_record(
                input,
                &mut self.fields[self.fields_length..],
                &mut self.ends[self.ends_length..],
            );
            if is_end && written > 0 {
                return Err(open_quote(self.file, self.line));
            }
            if !is_end {
                let kept = read.min(RAW_BYTES_MAX.saturating_sub(self.raw.len()));
                self.raw.extend_from_slice(&input[..kept]);
                self.consume(read);
            }
            self.fields_length += written;
            self.ends_length += ended;
            match result {
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::End => return Ok(false),
                ReadRecordResult::InputEmpty if is_end => return Ok(false),
                ReadRecordResult::InputEmpty => self.check_size()?,
                ReadRecordResult::OutputFull => {
                    self.check_size()?;
                    self.fields.resize(self.fields.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() > 2 * COLUMNS_MAX => {
                    let what = format!("has more than {} fields in the row of line {}", 2 * COLUMNS_MAX, self.line);
                    return Err(damaged(self.file, what));
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            }
        }
    }

    fn check_size(&self) -> Result<(), ConnectorError> {
        let field_start = if self.ends_length == 0 { 0 } else { self.ends[self.ends_length - 1] };
        let field_bytes = self.fields_length - field_start;
        if field_bytes <= FIELD_BYTES_MAX && self.fields_length <= RECORD_BYTES_MAX {
            return Ok(());
        }
        Err(too_large(self.file, self.line, self.ends_length + 1))
    }

    fn record(&self) -> Result<Record<'_>, BadBytes> {
        let bytes = &self.fields[..self.fields_length];
        let ends = &self.ends[..self.ends_length];
        if memchr::memchr(0, bytes).is_some() {
            return Err(BadBytes::Nul);
        }
        let bad = |position: usize| BadBytes::NotEncoded {
            field: ends.iter().position(|end| position < *end).unwrap_or(0),
            byte: bytes.get(position).copied().unwrap_or(0),
        };
        let text = std::str::from_utf8(bytes).map_err(|error| bad(error.valid_up_to()))?;
        // Halves of a character in two neighbouring fields are text only together.
        match ends.iter().find(|end| !text.is_char_boundary(**end)) {
            Some(end) => Err(bad(*end)),
            None => Ok(Record { text, ends }),
        }
    }

    fn set_aside(&self, reason: String) -> flowgate_core::source::Malformed {
        malformed(self.file, self.line, self.offset, reason, &self.raw)
    }
}

fn open_quote(file: &DataFile, line: u64) -> ConnectorError {
    damaged(file, format!("has a quote that never closes, in the row of line {line}"))
        .hint("the file was cut short, or `quote:` and `escape:` are not as it is written")
}

fn too_large(file: &DataFile, line: u64, field: usize) -> ConnectorError {
    let mebibytes = FIELD_BYTES_MAX >> 20;
    let message = format!("`{}` has a field of more than {mebibytes} MiB: field {field} of line {line}", file.shown);
    ConnectorError::new(ErrorKind::Data, Code::FIELD_TOO_LARGE, message)
        .hint("a quote that never closes is the usual cause")
}
