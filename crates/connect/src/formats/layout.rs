//! The settings of files: as written in a connection or a stream, and as they hold for one read.

use std::borrow::Cow;

use encoding_rs::Encoding;
use flowgate_core::connector::FieldError;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::split::Dialect;
use super::{DataFile, check_pattern};
use crate::settings::{Settings, is_reference, problem};

/// Files as a source: CSV, JSON lines or Parquet. A stream may set the same keys again; its values win.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSettings {
    /// The file, or a pattern for several, from the project directory. Files are read in the order of
    /// their names and make one stream. `*` and `?` stay within one directory, `**` crosses directories.
    #[schemars(example = &"data/enquiries-*.csv.gz")]
    pub(crate) path: Option<String>,
    /// `csv`, `jsonl` or `parquet`. By default told from the name.
    #[schemars(example = &"csv")]
    pub(crate) format: Option<Format>,
    /// `none`, `gzip` or `zstd`. By default told from the name: `.gz`, `.zst`.
    #[schemars(example = &"gzip")]
    pub(crate) compression: Option<Compression>,
    /// The encoding of text, by its usual name. By default a byte-order mark decides, and without one
    /// the text is UTF-8.
    #[schemars(example = &"windows-1252")]
    pub(crate) encoding: Option<String>,
    /// What separates the fields of a CSV line: one ASCII character. By default a comma.
    #[schemars(example = &";")]
    pub(crate) delimiter: Option<String>,
    /// What encloses CSV fields that hold delimiters or line ends: one ASCII character, or empty text for
    /// none. By default a double quote. Inside, it is written twice.
    #[schemars(example = &"'")]
    pub(crate) quote: Option<String>,
    /// What makes the next character of an enclosed CSV field an ordinary one, where the quote is not
    /// written twice. By default nothing does.
    #[schemars(example = &"\\")]
    pub(crate) escape: Option<String>,
    /// How CSV is written, by a name. `rfc4180` (the default): a field that holds a delimiter, a quote or a line end
    /// is enclosed in quotes, a quote inside is written twice, and after the quote that closes comes a delimiter or
    /// the line's end. `excel`: the same, and a quote inside a field that does not begin with one is an ordinary
    /// character (`5" pipe`). `backslash`: inside of quotes, a backslash makes the next character an ordinary one.
    /// Other keys that are set as well win over it.
    #[schemars(example = &"excel")]
    pub(crate) dialect: Option<DialectName>,
    /// CSV lines that begin with this ASCII character are skipped. By default none are.
    #[schemars(example = &"#")]
    pub(crate) comment: Option<String>,
    /// `true` when the first line of a CSV file names its columns (the default), or else the names.
    #[schemars(example = ["icao", "name", "city"])]
    pub(crate) header: Option<Header>,
    /// Text that stands for no value, next to the empty field, which always does.
    #[schemars(example = &"NULL")]
    pub(crate) null_text: Option<String>,
    /// Whether the last line of a text file may lack its line end where the others have one. By default that is said,
    /// and nothing is called gone, because the file may be cut short.
    #[schemars(example = true)]
    pub(crate) open_end: Option<bool>,
    /// Whether it is fine that no file matches. By default that is an error, because it would look like
    /// a source from which everything has gone.
    #[schemars(example = true)]
    pub(crate) optional: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Csv,
    Jsonl,
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DialectName {
    Rfc4180,
    Excel,
    Backslash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where the names of CSV columns come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Header {
    FirstLine,
    Names(Vec<String>),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`true` or a list of column names")
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Header, E> {
                if value {
                    return Ok(Header::FirstLine);
                }
                Err(E::custom("a file without a header needs the names of its columns, as in `header: [id, name]`"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Header, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(Header::Names(names))
            }
        }

        deserializer.deserialize_any(HeaderVisitor)
    }
}

impl JsonSchema for Header {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": true}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
    }
}

impl Settings for FileSettings {
    fn problems(&self) -> Vec<FieldError> {
        let mut problems = Vec::new();
        let characters = [
            ("delimiter", &self.delimiter),
            ("quote", &self.quote),
            ("escape", &self.escape),
            ("comment", &self.comment),
        ];
        for (key, value) in characters {
            let Some(text) = value.as_deref().filter(|text| !is_reference(text)) else { continue };
            if character(text).is_none() && !(key == "quote" && text.is_empty()) {
                problems.push(problem(key, format!("`{text}` is not one ASCII character"), None));
            }
        }
        problems.extend(self.same_character());
        if let Some(label) = self.encoding.as_deref().filter(|label| !is_reference(label))
            && Encoding::for_label(label.as_bytes()).is_none()
        {
            let hint = "common ones: `utf-8`, `windows-1252`, `iso-8859-15`, `utf-16`, `shift_jis`";
            problems.push(problem("encoding", format!("`{label}` is not a known encoding"), Some(hint)));
        }
        if let Some(pattern) = self.path.as_deref().filter(|pattern| !is_reference(pattern))
            && let Err(reason) = check_pattern(pattern)
        {
            let problem = problem("path", format!("`{pattern}` is not a pattern: {reason}"), None);
            problems.push(problem.with_code(Code::BAD_PATTERN));
        }
        if let Some(Header::Names(names)) = &self.header {
            problems.extend(name_problem(names).map(|message| problem("header", message, None)));
        }
        problems
    }
}

impl FileSettings {
    /// Two keys with one character: it could not mean both. (An escape that is the quote is a quote written twice.)
    fn same_character(&self) -> Option<FieldError> {
        let pairs = [
            ("quote", &self.quote, "delimiter", &self.delimiter),
            ("escape", &self.escape, "delimiter", &self.delimiter),
            ("comment", &self.comment, "delimiter", &self.delimiter),
            ("comment", &self.comment, "quote", &self.quote),
        ];
        let same = pairs.into_iter().find(|(_, one, _, other)| {
            one.as_deref().is_some_and(|text| !text.is_empty() && !is_reference(text)) && one == other
        });
        same.map(|(key, _, other, _)| problem(key, format!("it is the same character as `{other}`"), None))
    }
}

/// What is wrong with a list of column names.
pub(super) fn name_problem(names: &[String]) -> Option<String> {
    if names.is_empty() {
        return Some("no column is named".to_owned());
    }
    for (position, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Some(format!("column {} has no name", position + 1));
        }
        if flowgate_core::source::RESERVED_COLUMNS.contains(&name.as_str()) {
            return Some(format!("column {} is named `{name}`, which Flowgate keeps for itself", position + 1));
        }
        if let Some(first) = names[..position].iter().position(|earlier| earlier == name) {
            return Some(format!("columns {} and {} are both named `{name}`", first + 1, position + 1));
        }
    }
    None
}

fn character(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n' | 0) => Some(*byte),
        _ => None,
    }
}

/// What holds for one read: the stream's settings over the connection's, and the defaults.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) path: String,
    format: Option<Format>,
    pub(super) compression: Option<Compression>,
    /// The declared encoding; `None` leaves it to the byte-order mark.
    pub(super) encoding: Option<&'static Encoding>,
    pub(super) dialect: Dialect,
    pub(super) comment: Option<u8>,
    pub(super) header: Header,
    pub(super) null_text: Option<String>,
    pub(super) is_optional: bool,
    /// The last line may lack its line end.
    pub(super) has_open_end: bool,
}

impl Layout {
    /// Joins the settings of a stream with those of its connection. Both have been checked.
    pub(crate) fn new(stream: FileSettings, connection: &FileSettings) -> Result<Self, ConnectorError> {
        let connection = connection.clone();
        let Some(path) = stream.path.or(connection.path) else {
            let message = "no files are named: neither the connection nor the stream has `path:`";
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::MISSING_KEY, message)
                .hint("for example `path: data/enquiries-*.csv`"));
        };
        let byte = |value: Option<String>| value.as_deref().and_then(character);
        let set = FileSettings {
            delimiter: stream.delimiter.or(connection.delimiter),
            quote: stream.quote.or(connection.quote),
            escape: stream.escape.or(connection.escape),
            comment: stream.comment.or(connection.comment),
            ..FileSettings::default()
        };
        if let Some(same) = set.same_character() {
            let message = format!("settings of `files` are wrong at `{}`: {}", same.path.join("."), same.message);
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message));
        }
        let name = stream.dialect.or(connection.dialect).unwrap_or(DialectName::Rfc4180);
        let quote = if set.quote.is_none() { Some(b'"') } else { byte(set.quote) };
        let escape = byte(set.escape).or((name == DialectName::Backslash).then_some(b'\\'));
        let dialect = Dialect {
            delimiter: byte(set.delimiter).unwrap_or(b','),
            quote,
            // A quote that escapes a quote is a quote written twice.
            escape: escape.filter(|escape| Some(*escape) != quote),
            quotes_within: name == DialectName::Excel,
        };
        let encoding = stream.encoding.or(connection.encoding);
        Ok(Self {
            path,
            format: stream.format.or(connection.format),
            compression: stream.compression.or(connection.compression),
            encoding: encoding.and_then(|label| Encoding::for_label(label.as_bytes())),
            dialect,
            comment: byte(set.comment),
            header: stream.header.or(connection.header).unwrap_or(Header::FirstLine),
            null_text: stream.null_text.or(connection.null_text),
            has_open_end: stream.open_end.or(connection.open_end).unwrap_or(false),
            is_optional: stream.optional.or(connection.optional).unwrap_or(false),
        })
    }

    /// The format of the stream's files, told from the first one's name unless it is set.
    pub(super) fn format_of(&self, first: Option<&DataFile>) -> Result<Format, ConnectorError> {
        let name = first.map_or(self.path.as_str(), |file| file.shown.as_str()).to_ascii_lowercase();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
        match (self.format, name.rsplit_once('.').map(|(_, ending)| ending)) {
            (Some(format), _) => Ok(format),
            (None, Some("csv")) => Ok(Format::Csv),
            (None, Some("jsonl" | "ndjson")) => Ok(Format::Jsonl),
            (None, Some("parquet")) => Ok(Format::Parquet),
            // Nothing to read: any format gives the same empty stream.
            (None, _) if first.is_none() => Ok(Format::Jsonl),
            (None, _) => {
                let message = format!("the name `{}` does not tell the format", self.path);
                Err(ConnectorError::new(ErrorKind::Configuration, Code::MISSING_KEY, message)
                    .hint("add `format: csv`, `format: jsonl` or `format: parquet`"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::check;

    fn messages(block: &serde_json::Value) -> Vec<String> {
        let errors = check::<FileSettings>(block).err().unwrap_or_default();
        errors.into_iter().map(|error| format!("{}: {}", error.path.join("."), error.message)).collect()
    }

    #[test]
    fn wrong_values_are_named() {
        let block = json!({"delimiter": ";;", "encoding": "utf8-ish", "path": "data/[a", "header": ["a", "a"]});
        assert_eq!(
            messages(&block),
            [
                "delimiter: `;;` is not one ASCII character",
                "encoding: `utf8-ish` is not a known encoding",
                "path: `data/[a` is not a pattern: unclosed character class; missing ']'",
                "header: columns 1 and 2 are both named `a`",
            ]
        );
    }

    #[test]
    fn references_pass() {
        let block = json!({"path": "${var:DIR}/[x", "delimiter": "${env:SEPARATOR}", "quote": "", "header": true});
        assert_eq!(messages(&block), [""; 0]);
    }

    #[test]
    fn a_stream_overrides_its_connection() {
        let read = |block| crate::settings::read::<FileSettings>("files", &block).unwrap();
        let connection = read(json!({"path": "a.csv", "delimiter": ";", "quote": "'"}));
        let layout = Layout::new(read(json!({"path": "b.jsonl.gz", "quote": ""})), &connection).unwrap();
        assert_eq!(layout.path, "b.jsonl.gz");
        assert_eq!((layout.dialect.delimiter, layout.dialect.quote), (b';', None));
        assert_eq!(layout.format_of(None).unwrap(), Format::Jsonl);
    }
}
