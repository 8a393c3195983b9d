//! Values as JSON and as display text, written straight into a buffer.
//!
//! Promise: numbers keep the digits of their column, times end in `Z`, GUIDs are lower case.
//! Formatted values are those of a British English user in UTC (the caller's own locale is
//! UNVERIFIED). Left out: which columns are written.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::view::RowView;
use crate::schema::{Column, ColumnKind, DateBehavior, Schema};
use crate::storage::{Database, ValueRef};
use crate::write::{format_date, format_time};

/// 10^10, the scale of stored decimals.
const SCALE: i128 = 10_000_000_000;

/// The annotations a caller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    pub(crate) formatted: bool,
    pub(crate) lookup_name: bool,
    pub(crate) navigation: bool,
    pub(crate) total_count: bool,
    pub(crate) metadata_version: bool,
    pub(crate) paging_cookie: bool,
    pub(crate) more_records: bool,
    pub(crate) attribute_name: bool,
    pub(crate) errors: bool,
}

impl Annotations {
    /// Reads the list of `odata.include-annotations`.
    pub(crate) fn parse(list: &str) -> Self {
        let patterns: Vec<&str> = list.trim_matches('"').split(',').map(str::trim).collect();
        let wants = |name: &str| {
            patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *pattern == name,
            })
        };
        Annotations {
            formatted: wants("OData.Community.Display.V1.FormattedValue"),
            lookup_name: wants("Microsoft.Dynamics.CRM.lookuplogicalname"),
            navigation: wants("Microsoft.Dynamics.CRM.associatednavigationproperty"),
            total_count: wants("Microsoft.Dynamics.CRM.totalrecordcount"),
            metadata_version: wants("Microsoft.Dynamics.CRM.globalmetadataversion"),
            paging_cookie: wants("Microsoft.Dynamics.CRM.fetchxmlpagingcookie"),
            more_records: wants("Microsoft.Dynamics.CRM.morerecords"),
            attribute_name: wants("OData.Community.Display.V1.AttributeName"),
            errors: wants("Microsoft.PowerApps.CDS.ErrorDetails.Plugin.BulkApiErrorDetails"),
        }
    }

    pub(crate) fn any(self) -> bool {
        self != Annotations::default()
    }
}

/// A JSON string.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => {
                out.extend_from_slice(&bytes[start..index]);
                start = index + 1;
                // Stored text holds no other control character, names and links might.
                let _written = write!(out, "\\u{byte:04x}");
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..index]);
        out.extend_from_slice(escaped);
        start = index + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

fn write_decimal(value: i128, places: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let magnitude = value.unsigned_abs();
    let scale = SCALE.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(magnitude / scale).as_bytes());
    if places > 0 {
        out.push(b'.');
        let fraction = magnitude % scale;
        for place in 1..=u32::from(places.min(10)) {
            out.push(b'0' + (fraction / 10u128.pow(10 - place) % 10) as u8);
        }
    }
}

fn write_guid(id: uuid::Uuid, out: &mut Vec<u8>) {
    let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// A value of a column as JSON.
pub(crate) fn write_value(column: &Column, value: &ValueRef<'_>, out: &mut Vec<u8>) {
    match (value, &column.kind) {
        (ValueRef::Text(text), _) => write_text(text, out),
        (ValueRef::Int(number), ColumnKind::Boolean { .. }) => {
            out.extend_from_slice(if *number != 0 { b"true" } else { b"false" });
        }
        (ValueRef::Int(number), _) => {
            out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
        }
        (ValueRef::Decimal(number), kind) => write_decimal(*number, places(kind), out),
        (ValueRef::Double(number), _) => {
            out.extend_from_slice(ryu::Buffer::new().format(*number).as_bytes());
        }
        (ValueRef::Time(_) | ValueRef::Guid(_) | ValueRef::Lookup(..) | ValueRef::Choices(_), _) => {
            out.push(b'"');
            write_plain(column, value, out);
            out.push(b'"');
        }
    }
}

/// Money is read with four decimals, a decimal with those of its column.
fn places(kind: &ColumnKind) -> u8 {
    match kind {
        ColumnKind::Decimal { precision, .. } => *precision,
        _ => 4,
    }
}

fn write_plain(column: &Column, value: &ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Text(text) => out.extend_from_slice(text.as_bytes()),
        ValueRef::Time(seconds) => match column.kind {
            ColumnKind::DateTime { behavior: DateBehavior::DateOnly, .. } => format_date(*seconds, out),
            _ => format_time(*seconds, out),
        },
        ValueRef::Guid(id) | ValueRef::Lookup(_, id) => write_guid(*id, out),
        ValueRef::Choices(choices) => {
            for (index, choice) in choices.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(itoa::Buffer::new().format(*choice).as_bytes());
            }
        }
        ValueRef::Int(_) | ValueRef::Decimal(_) | ValueRef::Double(_) => {
            write_value(column, value, out);
        }
    }
}

/// A value as bare text: what `/$value` answers and cookies hold.
pub(crate) fn plain_text(_schema: &Schema, column: &Column, value: &ValueRef<'_>) -> String {
    let mut out = Vec::new();
    write_plain(column, value, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `"name":value` with the annotations asked for, without a leading comma.
pub(crate) fn write_property(
    database: &Database,
    schema: &Schema,
    view: RowView<'_>,
    column: &Column,
    value: Option<&ValueRef<'_>>,
    annotations: Annotations,
    out: &mut Vec<u8>,
) {
    write_named(database, schema, view, (column, &column.wire), value, annotations, out);
}

/// As [`write_property`], under a name of the query's own.
pub(super) fn write_named(
    database: &Database,
    schema: &Schema,
    view: RowView<'_>,
    (column, name): (&Column, &str),
    value: Option<&ValueRef<'_>>,
    annotations: Annotations,
    out: &mut Vec<u8>,
) {
    write_name(name, "", out);
    match value {
        Some(ValueRef::Guid(file)) if matches!(column.kind, ColumnKind::Image { .. }) => {
            return write_image(database, file, out);
        }
        Some(value) => write_value(column, value, out),
        None => out.extend_from_slice(b"null"),
    }
    let Some(value) = value else { return };
    if annotations.formatted && !matches!(column.logical.as_str(), "owninguser" | "owningbusinessunit" | "owningteam") {
        if let Some(text) = formatted(database, schema, view, column, value) {
            out.push(b',');
            write_name(name, "@OData.Community.Display.V1.FormattedValue", out);
            write_text(&text, out);
        }
    }
    if let ValueRef::Lookup(table, _) = value {
        let target = schema.table(*table);
        if annotations.navigation {
            if let Some(navigation) = navigation_name(column, *table) {
                out.push(b',');
                write_name(name, "@Microsoft.Dynamics.CRM.associatednavigationproperty", out);
                write_text(navigation, out);
            }
        }
        if annotations.lookup_name {
            out.push(b',');
            write_name(name, "@Microsoft.Dynamics.CRM.lookuplogicalname", out);
            write_text(&target.logical, out);
        }
    }
}

/// The content of an image column.
pub(crate) fn write_image(database: &Database, file: &uuid::Uuid, out: &mut Vec<u8>) {
    match database.file(file) {
        Some(content) => write_text(&STANDARD.encode(content), out),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn write_name(name: &str, annotation: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(annotation.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Lookups whose values come without the name of their navigation property.
const NAMELESS: &[&str] =
    &["createdby", "createdonbehalfby", "modifiedby", "modifiedonbehalfby", "owninguser", "owningteam"];

/// The navigation property a lookup's value belongs to.
fn navigation_name(column: &Column, table: crate::schema::TableId) -> Option<&str> {
    let ColumnKind::Lookup { targets } = &column.kind else {
        return None;
    };
    // The recorded row has the annotation for none of these.
    if NAMELESS.contains(&column.logical.as_str()) {
        return None;
    }
    targets.iter().find(|target| target.table == table).map(|target| target.navigation.as_str())
}

/// The display text of a value, for the types that have one.
pub(crate) fn formatted(
    database: &Database,
    schema: &Schema,
    view: RowView<'_>,
    column: &Column,
    value: &ValueRef<'_>,
) -> Option<String> {
    match (value, &column.kind) {
        (ValueRef::Int(number), ColumnKind::Boolean { true_label, false_label }) => {
            Some(if *number != 0 { true_label.to_string() } else { false_label.to_string() })
        }
        (ValueRef::Int(number), ColumnKind::State { states }) => {
            states.iter().find(|state| i64::from(state.value) == *number).map(|state| state.label.to_string())
        }
        (ValueRef::Int(number), kind) => match kind.options() {
            Some(options) => {
                options.iter().find(|option| i64::from(option.value) == *number).map(|option| option.label.to_string())
            }
            None => Some(grouped(&number.to_string())),
        },
        (ValueRef::Choices(choices), kind) => {
            let options = kind.options()?;
            let labels = choices.iter().filter_map(|choice| options.iter().find(|option| option.value == *choice));
            Some(labels.map(|option| &*option.label).collect::<Vec<_>>().join("; "))
        }
        (ValueRef::Decimal(number), ColumnKind::Money { precision, .. }) => {
            Some(format!("{}{}", currency_symbol(database, schema, view), amount(*number, *precision)))
        }
        (ValueRef::Decimal(number), kind) => Some(amount(*number, places(kind))),
        (ValueRef::Double(number), ColumnKind::Double { precision, .. }) => {
            Some(grouped(&format!("{number:.places$}", places = usize::from(*precision))))
        }
        (ValueRef::Time(seconds), ColumnKind::DateTime { date_format, .. }) => {
            Some(display_time(*seconds, *date_format))
        }
        (ValueRef::Lookup(table, id), _) => {
            let target = schema.table(*table);
            let row = database.get(*table, id)?;
            match row.get(target.primary_name?)? {
                ValueRef::Text(text) => Some(text.to_owned()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn amount(number: i128, places: u8) -> String {
    let mut out = Vec::new();
    write_decimal(super::totals::round_places(number, places), places, &mut out);
    grouped(&String::from_utf8_lossy(&out))
}

/// Puts a comma between every three digits of the whole part.
pub(super) fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn currency_symbol(database: &Database, schema: &Schema, view: RowView<'_>) -> String {
    let symbol = || {
        let (table, id) = view.row.lookup(view.table.known.currency)?;
        let currency = schema.table(table);
        match database.get(table, &id)?.get(currency.ordinal("currencysymbol")?)? {
            ValueRef::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    };
    symbol().unwrap_or_default()
}

/// A moment as answers write it.
pub(crate) fn write_time(seconds: i64) -> String {
    let mut out = Vec::new();
    format_time(seconds, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `31/03/2026 10:30`, or the date alone.
fn display_time(seconds: i64, date_only: bool) -> String {
    let (year, month, day) = crate::write::civil_from_days(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let date = format!("{day:02}/{month:02}/{year:04}");
    if date_only { date } else { format!("{date} {:02}:{:02}", clock / 3600, clock / 60 % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        let mut out = Vec::new();
        write_text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_escape_as_json_does() {
        for sample in ["", "plain", "quo\"te \\ \n\r\t", "é 漢", "\u{1}"] {
            assert_eq!(serde_json::from_str::<String>(&text(sample)).unwrap(), sample);
        }
    }

    #[test]
    fn decimals_keep_their_places() {
        let decimal = |value, places| {
            let mut out = Vec::new();
            write_decimal(value, places, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(decimal(1_255_000_000_000, 4), "125.5000");
        assert_eq!(decimal(-5_000_000_000, 2), "-0.50");
        assert_eq!(decimal(70_000_000_000, 0), "7");
        assert_eq!(grouped("-1234567.80"), "-1,234,567.80");
    }

    #[test]
    fn annotation_patterns_may_end_in_a_star() {
        assert!(Annotations::parse("\"*\"").formatted);
        let some = Annotations::parse("Microsoft.Dynamics.CRM.*");
        assert!(some.lookup_name && some.navigation && !some.formatted);
        assert!(!Annotations::parse("other").any());
    }
}
