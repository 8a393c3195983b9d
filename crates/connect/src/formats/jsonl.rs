//! JSON lines: one object a line.
//!
//! Columns are the keys of all objects of all files, in the order they first appear; a key that an
//! object does not have is no value. Every value lands as text: text as it is, numbers and booleans
//! as they are written, objects and lists as their JSON.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};

use arrow_schema::SchemaRef;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::layout::{Layout, name_problem};
use super::rows::Rows;
use super::shape::{COLUMNS_MAX, data_fields};
use super::{DataFile, damaged, input, malformed, read_failed};
use crate::blocking::Sink;

/// The longest line. No column of any destination takes more.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The columns of all files together. Lines that are not JSON are met again, and set aside, when rows are read.
pub(super) fn columns(files: &[DataFile], layout: &Layout) -> Result<Vec<String>, ConnectorError> {
    let mut names = Vec::new();
    let mut known = HashSet::new();
    for file in files {
        let mut lines = Lines::open(file, layout)?;
        while lines.advance()? {
            if lines.number == 1 && lines.bytes.first() == Some(&b'[') {
                let error = damaged(file, "begins with `[`: it is one JSON list, not a line for each row");
                return Err(error.hint("`jq -c '.[]'` writes a list as lines"));
            }
            let Ok(object) = lines.object() else { continue };
            for (name, _) in object.0 {
                if !known.contains(name.as_ref()) {
                    known.insert(name.clone().into_owned());
                    names.push(name.into_owned());
                }
            }
            if names.len() > COLUMNS_MAX {
                return Err(damaged(
                    file,
                    format!("has more than {COLUMNS_MAX} different keys by line {}", lines.number),
                ));
            }
        }
        if let Some(problem) = name_problem(&names).filter(|_| !names.is_empty()) {
            return Err(damaged(file, format!("has keys that cannot be columns: {problem}")));
        }
    }
    Ok(names)
}

/// Reads one file into batches of `schema`.
pub(super) fn read(file: &DataFile, layout: &Layout, schema: &SchemaRef, sink: &Sink) -> Result<(), ConnectorError> {
    let columns: HashMap<&str, usize> =
        schema.fields().iter().enumerate().map(|(index, field)| (field.name().as_str(), index)).collect();
    let mut lines = Lines::open(file, layout)?;
    let mut rows = Rows::new(file, schema, sink);
    while lines.advance()? {
        let mut row = vec![None; data_fields(schema).len()];
        match fill_row(&mut row, &lines, &columns) {
            Ok(()) => {
                for (column, value) in row.iter().enumerate() {
                    let value = value.as_deref().unwrap_or_default();
                    rows.push(column, if Some(value) == layout.null_text.as_deref() { "" } else { value });
                }
                rows.end_row(lines.number, lines.bytes.is_ascii())?;
            }
            Err(BadLine::Text(reason)) => rows.set_aside(lines.set_aside(reason))?,
            Err(BadLine::Encoding) => {
                let reason = format!("holds bytes that are not {}", lines.encoding_name);
                rows.set_aside_misencoded(lines.set_aside(reason))?;
            }
        }
    }
    if lines.is_cut && !layout.has_open_end {
        rows.say_open_end(lines.number);
    }
    rows.end()
}

enum BadLine {
    Text(String),
    Encoding,
}

fn fill_row<'l>(
    row: &mut [Option<Cow<'l, str>>],
    lines: &'l Lines<'_>,
    columns: &HashMap<&str, usize>,
) -> Result<(), BadLine> {
    for (name, value) in lines.object()?.0 {
        let Some(column) = columns.get(name.as_ref()) else {
            return Err(BadLine::Text(format!("has the key `{name}`, which came while the file was read")));
        };
        let text = text_of(value).map_err(|error| BadLine::Text(format!("has a bad value in `{name}`: {error}")))?;
        if text.contains('\0') {
            return Err(BadLine::Text(format!("holds a NUL character in `{name}`")));
        }
        if row[*column].replace(text).is_some() {
            return Err(BadLine::Text(format!("has the key `{name}` twice")));
        }
    }
    Ok(())
}

/// A value as text; empty for null.
fn text_of(value: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    match value.get() {
        "null" => Ok(Cow::Borrowed("")),
        text if text.starts_with('"') => serde_json::from_str::<Text<'_>>(text).map(|text| text.0),
        text => Ok(Cow::Borrowed(text)),
    }
}

/// Text that is copied only where it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The entries of a line's object, values as they are written.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    entries.push((name.0, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// Splits a file into lines, blank ones left out.
struct Lines<'f> {
    file: &'f DataFile,
    text: BufReader<Box<dyn Read + Send>>,
    encoding_name: &'static str,
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
    next_offset: u64,
    /// The last line has no line end, although lines before it have.
    is_cut: bool,
}

impl<'f> Lines<'f> {
    fn open(file: &'f DataFile, layout: &Layout) -> Result<Self, ConnectorError> {
        let input = input::open(file, layout)?;
        Ok(Self {
            file,
            text: BufReader::new(input.text),
            encoding_name: input.encoding.name(),
            bytes: Vec::new(),
            number: 0,
            offset: 0,
            next_offset: 0,
            is_cut: false,
        })
    }

    /// Moves to the next line that is not blank. `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, ConnectorError> {
        loop {
            self.bytes.clear();
            let mut line = (&mut self.text).take(LINE_BYTES_MAX as u64 + 1);
            let length = line.read_until(b'\n', &mut self.bytes).map_err(|error| read_failed(self.file, error))?;
            if length == 0 {
                return Ok(false);
            }
            self.number += 1;
            self.offset = self.next_offset;
            self.next_offset += length as u64;
            if length > LINE_BYTES_MAX {
                let (mebibytes, name) = (LINE_BYTES_MAX >> 20, &self.file.shown);
                let message = format!("`{name}` has a line of more than {mebibytes} MiB: line {}", self.number);
                return Err(ConnectorError::new(ErrorKind::Data, Code::FIELD_TOO_LARGE, message));
            }
            if !self.bytes.trim_ascii().is_empty() {
                self.is_cut = self.number > 1 && !self.bytes.ends_with(b"\n");
                return Ok(true);
            }
        }
    }

    fn object(&self) -> Result<Entries<'_>, BadLine> {
        let text = std::str::from_utf8(&self.bytes).map_err(|_| BadLine::Encoding)?;
        serde_json::from_str(text).map_err(|error| BadLine::Text(format!("is not a JSON object: {}", short(&error))))
    }

    fn set_aside(&self, reason: String) -> flowgate_core::source::Malformed {
        malformed(self.file, self.number, self.offset, reason, &self.bytes)
    }
}

/// The error without its "at line 1 column 5", where only the column helps.
fn short(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}
