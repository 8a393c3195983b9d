//! Text as it may leave the process: without secrets, and without characters that command a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use flowgate_core::redaction::redacted;
use serde_json::Value;

/// The colours that we write ourselves, and their end.
const COLOURS: [&str; 9] = ["0", "1", "2", "1;31", "32", "33", "1;33", "1;34", "1;36"];

/// Secrets masked, control characters as escapes. Line ends, tabs and our own colours stay.
pub(crate) fn presentable(text: &str) -> Cow<'_, str> {
    let text = redacted(text);
    if !text.contains(is_commanding) { text } else { Cow::Owned(without_controls(&text)) }
}

/// Every text of a JSON value with secrets masked.
pub(crate) fn redacted_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redacted(text).into_owned()),
        Value::Array(items) => items.iter().map(redacted_json).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (redacted(key).into_owned(), redacted_json(value))).collect()
        }
        other => other.clone(),
    }
}

/// JSON text in which what JSON itself leaves as it is, and a terminal would obey, is written as an escape.
pub(crate) fn without_controls_in_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_commanding) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if is_commanding(character) {
            write!(text, "\\u{:04x}", u32::from(character)).unwrap_or_default();
        } else {
            text.push(character);
        }
    }
    Cow::Owned(text)
}

/// Whether a terminal does something on the character, or shows what follows in another order.
fn is_commanding(character: char) -> bool {
    let is_order = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_order || (character.is_control() && !matches!(character, '\n' | '\t'))
}

fn without_controls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_commanding) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let length = colour(from).unwrap_or_else(|| {
            let character = from.chars().next().unwrap_or_default();
            write!(shown, "{}", character.escape_unicode()).unwrap_or_default();
            character.len_utf8()
        });
        if colour(from).is_some() {
            shown.push_str(&from[..length]);
        }
        rest = &from[length..];
    }
    shown + rest
}

/// The length of one of our colours at the start of the text.
fn colour(text: &str) -> Option<usize> {
    let code = text.strip_prefix("\u{1b}[")?;
    let end = code.find('m')?;
    COLOURS.contains(&&code[..end]).then_some("\u{1b}[".len() + end + 1)
}

/// A writer for logs, which passes on whole lines.
pub(crate) struct PresentableLog;

impl io::Write for PresentableLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().lock().write_all(presentable(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_and_our_colours_stay() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\u{1b}[1;31merror\u{1b}[0m: x", "\u{1b}[1;31merror\u{1b}[0m: x"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{1b}[8mb", "a\\u{1b}[8mb"),
            ("a\u{9b}31mb\u{7f}", "a\\u{9b}31mb\\u{7f}"),
            ("a\rb\u{202e}c\u{2066}", "a\\u{d}b\\u{202e}c\\u{2066}"),
        ] {
            assert_eq!(presentable(text), shown);
        }
    }

    #[test]
    fn json_stays_json() {
        let value = Value::from("a\u{1b}\u{9b}\u{202e}\u{7f}b");
        let text = without_controls_in_json(&value.to_string()).into_owned();
        assert_eq!(text, r#""a\u001b\u009b\u202e\u007fb""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
