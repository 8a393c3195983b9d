//! Text: length in UTF-16 units, and the characters that XML 1.0 has no place for.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, StringArray};
use flowgate_core::Code;
use flowgate_core::moment::{date_text, local_text};

use super::Target;
use super::input::Input;
use super::number::decimal_text;

pub(super) fn texts(length_max: u32, input: &Input, target: &mut Target<'_>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(target.rows, target.rows * 16);
    for row in 0..target.rows {
        let owned;
        let value = match input {
            Input::Text(array) => text_at(array, row),
            other => {
                owned = plain(other, row);
                owned.as_deref()
            }
        };
        match value {
            Some(value) if check(length_max, row, value, target) => builder.append_value(value),
            _ => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

/// A text that is there and not empty.
pub(super) fn text_at(array: &StringArray, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    Some(array.value(row)).filter(|text| !text.is_empty())
}

/// How a value of another type is written.
fn plain(input: &Input, row: usize) -> Option<String> {
    match input {
        Input::Null | Input::Text(_) => None,
        Input::Integer(array) => array.is_valid(row).then(|| array.value(row).to_string()),
        Input::Decimal(array, scale) => array.is_valid(row).then(|| decimal_text(array.value(row), *scale)),
        Input::Float(array) => array.is_valid(row).then(|| array.value(row).to_string()),
        Input::Boolean(array) => array.is_valid(row).then(|| array.value(row).to_string()),
        Input::Date(array) => array.is_valid(row).then(|| date_text(i64::from(array.value(row)))),
        Input::Instant(array) => array.is_valid(row).then(|| format!("{}Z", local_text(array.value(row)))),
        Input::Local(array) => array.is_valid(row).then(|| local_text(array.value(row))),
    }
}

fn check(length_max: u32, row: usize, value: &str, target: &mut Target<'_>) -> bool {
    if let Some(character) = value.chars().find(|character| is_forbidden(*character)) {
        let problem = format!("holds U+{:04X}, which the destination refuses", u32::from(character));
        let shown: String = value.chars().filter(|character| !character.is_control()).collect();
        target.fault(row, Code::ROW_BAD_TEXT, &shown, &problem);
        return false;
    }
    // Every UTF-16 unit takes at least one byte of UTF-8, so short texts need no count.
    if value.len() <= length_max as usize {
        return true;
    }
    let length = value.encode_utf16().count();
    if length <= length_max as usize {
        return true;
    }
    target.fault(
        row,
        Code::ROW_TOO_LONG,
        value,
        &format!("has {length} characters, and the column holds {length_max}"),
    );
    false
}

/// Control characters that XML 1.0 has no place for (dossier section 7).
fn is_forbidden(character: char) -> bool {
    matches!(character, '\u{0}'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}
