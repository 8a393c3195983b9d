//! GUIDs, and references to rows: `account/<guid>`.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use flowgate_core::Code;
use flowgate_core::shape::LookupTarget;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::Target;
use super::input::Input;
use super::text::text_at;

/// Parts of a canonical reference: the table and the id.
pub(crate) fn split_lookup(value: &str) -> Option<(&str, &str)> {
    value.split_once('/').filter(|(table, id)| !table.is_empty() && is_guid(id))
}

/// Whether `text` is a GUID in canonical form, and so safe in an address.
fn is_guid(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == Hyphenated::LENGTH
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_digit(byte),
        })
}

pub(super) fn guids(input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    each_text(input, target, |row, text, builder, target| {
        if let Ok(id) = Uuid::parse_str(text.trim()) {
            builder.append_value(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        } else {
            target.fault(row, Code::ROW_NOT_A_GUID, text, "is not a GUID");
            builder.append_null();
        }
    })
}

/// A reference with its table, or a plain GUID where only one table is possible.
pub(super) fn lookups(targets: &[LookupTarget], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    each_text(input, target, |row, text, builder, target| {
        let (table, id) = match (text.split_once('/'), targets) {
            (Some((table, id)), _) => (table.trim(), id.trim()),
            (None, [only]) => (only.table.as_str(), text.trim()),
            (None, _) => ("", text.trim()),
        };
        let Ok(id) = Uuid::parse_str(id) else {
            target.fault(row, Code::ROW_NOT_A_GUID, text, "does not end in the id of a row");
            return builder.append_null();
        };
        if targets.iter().all(|candidate| candidate.table != table) {
            let tables: Vec<String> = targets.iter().map(|target| format!("`{}`", target.table)).collect();
            let problem = format!("does not begin with a table the column refers to: {}", tables.join(", "));
            target.fault(row, Code::ROW_REFUSED, text, &problem);
            return builder.append_null();
        }
        builder.append_value(format!("{table}/{}", id.hyphenated()));
    })
}

fn each_text(
    input: &Input,
    target: &mut Target<'_>,
    mut append: impl FnMut(usize, &str, &mut StringBuilder, &mut Target<'_>),
) -> Option<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(target.rows, target.rows * Hyphenated::LENGTH);
    match input {
        Input::Null => (0..target.rows).for_each(|_| builder.append_null()),
        Input::Text(array) => {
            for row in 0..target.rows {
                match text_at(array, row).filter(|text| !text.trim().is_empty()) {
                    Some(text) => append(row, text, &mut builder, target),
                    None => builder.append_null(),
                }
            }
        }
        _ => return None,
    }
    Some(Arc::new(builder.finish()))
}
