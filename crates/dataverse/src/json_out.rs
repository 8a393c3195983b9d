//! Canonical rows as JSON members, written into one buffer.
//!
//! A load writes millions of values, so there is no tree of values in between: names are quoted
//! once for each unit, and every value goes from its column straight into the request body.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampSecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampSecondArray,
};
use flowgate_core::destination::{Operation, WriteUnit};
use flowgate_core::moment::{DAY_SECONDS, civil_from_days};
use flowgate_core::shape::{ColumnKind, LookupTarget, STATE_COLUMN, TableShape};
use flowgate_core::{Code, ConnectorError, ErrorKind};

use crate::values::split_lookup;

/// One column of a unit, ready to be written.
struct Column<'a> {
    /// `"wr_name":`, or empty for a lookup, whose name depends on its value.
    name: Vec<u8>,
    values: Values<'a>,
}

pub(crate) enum Values<'a> {
    Text(&'a StringArray),
    Lookup(&'a StringArray, &'a [LookupTarget]),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Decimal(&'a Decimal128Array, usize),
    Float64(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Moment(&'a TimestampSecondArray),
    Date(&'a Date32Array),
}

/// Writes the rows of one unit.
pub(crate) struct RowWriter<'a> {
    /// By column of the batch; `None` for a column that is not sent.
    columns: Vec<Option<Column<'a>>>,
    unit: &'a WriteUnit,
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(unit: &'a WriteUnit) -> Result<Self, ConnectorError> {
        let schema = unit.rows.schema_ref();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (field, array) in schema.fields().iter().zip(unit.rows.columns()) {
            columns.push(column(unit, field.name(), array)?);
        }
        Ok(Self { columns, unit })
    }

    /// Appends the members that this row sends, each with a comma before it. Returns how many.
    pub(crate) fn write_members(&self, row: usize, body: &mut Vec<u8>) -> usize {
        let mut written = 0;
        for (index, column) in self.columns.iter().enumerate() {
            let Some(column) = column else { continue };
            let is_sent = match &self.unit.columns {
                Some(sets) => sets.get(row).is_some_and(|set| set.contains(index)),
                None => column.values.is_valid(row),
            };
            if is_sent {
                body.push(b',');
                column.write_member(row, body);
                written += 1;
            }
        }
        written
    }
}

fn column<'a>(unit: &'a WriteUnit, name: &str, array: &'a ArrayRef) -> Result<Option<Column<'a>>, ConnectorError> {
    let shape: &'a TableShape = &unit.shape;
    // The state goes by its own message; the id stands beside the members.
    if name == STATE_COLUMN || name == shape.primary_id {
        return Ok(None);
    }
    let column = shape.column(name).ok_or_else(|| not_canonical(name))?;
    let may_go = match unit.operation {
        Operation::Create => column.can_create || shape.created_on.as_deref() == Some(name),
        Operation::Update | Operation::SetState | Operation::Deactivate | Operation::Delete => column.can_update,
    };
    if !may_go {
        return Ok(None);
    }
    let values = Values::of(&column.kind, array).ok_or_else(|| not_canonical(name))?;
    let mut quoted = Vec::new();
    if !matches!(values, Values::Lookup(..)) {
        write_text(name, &mut quoted);
        quoted.push(b':');
    }
    Ok(Some(Column { name: quoted, values }))
}

fn not_canonical(column: &str) -> ConnectorError {
    let message = format!("column `{column}` of a unit is not in canonical form");
    ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message)
}

impl<'a> Values<'a> {
    /// `None` if the array is not of the kind's canonical type.
    pub(crate) fn of(kind: &'a ColumnKind, array: &'a ArrayRef) -> Option<Self> {
        if *array.data_type() != kind.canonical() {
            return None;
        }
        Some(match kind {
            ColumnKind::Text { .. } | ColumnKind::Choices { .. } | ColumnKind::Guid => Self::Text(array.as_string()),
            ColumnKind::Lookup { targets } => Self::Lookup(array.as_string(), targets),
            ColumnKind::Integer { .. } | ColumnKind::Choice { .. } => Self::Int32(array.as_primitive::<Int32Type>()),
            ColumnKind::BigInteger => Self::Int64(array.as_primitive::<Int64Type>()),
            ColumnKind::Decimal { scale, .. } | ColumnKind::Money { scale, .. } => {
                Self::Decimal(array.as_primitive::<Decimal128Type>(), usize::try_from(*scale).ok()?)
            }
            ColumnKind::Double { .. } => Self::Float64(array.as_primitive::<Float64Type>()),
            ColumnKind::Boolean { .. } => Self::Boolean(array.as_boolean()),
            ColumnKind::DateTime { .. } => Self::Moment(array.as_primitive::<TimestampSecondType>()),
            ColumnKind::Date => Self::Date(array.as_primitive::<Date32Type>()),
            ColumnKind::Unsupported { .. } => return None,
        })
    }

    pub(crate) fn is_valid(&self, row: usize) -> bool {
        match self {
            Self::Text(array) | Self::Lookup(array, _) => array.is_valid(row),
            Self::Int32(array) => array.is_valid(row),
            Self::Int64(array) => array.is_valid(row),
            Self::Decimal(array, _) => array.is_valid(row),
            Self::Float64(array) => array.is_valid(row),
            Self::Boolean(array) => array.is_valid(row),
            Self::Moment(array) => array.is_valid(row),
            Self::Date(array) => array.is_valid(row),
        }
    }

    /// Appends the value as JSON. Nulls and lookups are the caller's.
    pub(crate) fn write(&self, row: usize, body: &mut Vec<u8>) {
        match self {
            Self::Text(array) | Self::Lookup(array, _) => write_text(array.value(row), body),
            Self::Int32(array) => body.extend_from_slice(itoa::Buffer::new().format(array.value(row)).as_bytes()),
            Self::Int64(array) => body.extend_from_slice(itoa::Buffer::new().format(array.value(row)).as_bytes()),
            Self::Decimal(array, scale) => write_decimal(array.value(row), *scale, body),
            Self::Float64(array) => body.extend_from_slice(ryu::Buffer::new().format(array.value(row)).as_bytes()),
            Self::Boolean(array) => body.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Self::Moment(array) => {
                body.push(b'"');
                write_moment(array.value(row), body);
                body.push(b'"');
            }
            Self::Date(array) => {
                body.push(b'"');
                write_date(i64::from(array.value(row)), body);
                body.push(b'"');
            }
        }
    }
}

impl Column<'_> {
    fn write_member(&self, row: usize, body: &mut Vec<u8>) {
        if let Values::Lookup(array, targets) = &self.values {
            return write_lookup(array.is_valid(row).then(|| array.value(row)), targets, body);
        }
        body.extend_from_slice(&self.name);
        if self.values.is_valid(row) {
            self.values.write(row, body);
        } else {
            body.extend_from_slice(b"null");
        }
    }
}

/// `"customerid_account@odata.bind":"/accounts(<guid>)"`
fn write_lookup(value: Option<&str>, targets: &[LookupTarget], body: &mut Vec<u8>) {
    let bound = value.and_then(split_lookup).and_then(|(table, id)| {
        let target = targets.iter().find(|target| target.table == table)?;
        Some((target, id))
    });
    // Any navigation property clears the column they share.
    let Some(navigation) = bound.map(|(target, _)| target).or(targets.first()) else {
        // A lookup without targets cannot be bound; `canonical` lets no value through for it.
        body.extend_from_slice(b"\"@flowgate.unbound\":null");
        return;
    };
    body.push(b'"');
    body.extend_from_slice(navigation.navigation.as_bytes());
    body.extend_from_slice(b"@odata.bind\":");
    match bound {
        Some((target, id)) => {
            body.extend_from_slice(b"\"/");
            body.extend_from_slice(target.set.as_bytes());
            body.push(b'(');
            body.extend_from_slice(id.as_bytes());
            body.extend_from_slice(b")\"");
        }
        None => body.extend_from_slice(b"null"),
    }
}

/// A JSON string.
pub(crate) fn write_text(text: &str, body: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    body.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1F => &[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]],
            _ => continue,
        };
        body.extend_from_slice(&bytes[copied..index]);
        body.extend_from_slice(escaped);
        copied = index + 1;
    }
    body.extend_from_slice(&bytes[copied..]);
    body.push(b'"');
}

fn write_decimal(value: i128, scale: usize, body: &mut Vec<u8>) {
    if value < 0 {
        body.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    if digits.len() > scale {
        body.extend_from_slice(&digits[..digits.len() - scale]);
    } else {
        body.push(b'0');
    }
    if scale > 0 {
        body.push(b'.');
        body.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
        body.extend_from_slice(&digits[digits.len().saturating_sub(scale)..]);
    }
}

/// `2026-03-01T08:30:15Z`
fn write_moment(seconds: i64, body: &mut Vec<u8>) {
    write_date(seconds.div_euclid(DAY_SECONDS), body);
    let second = seconds.rem_euclid(DAY_SECONDS);
    body.push(b'T');
    write_digits(second / 3_600, 2, body);
    body.push(b':');
    write_digits(second / 60 % 60, 2, body);
    body.push(b':');
    write_digits(second % 60, 2, body);
    body.push(b'Z');
}

fn write_date(day: i64, body: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(day);
    write_digits(year, 4, body);
    body.push(b'-');
    write_digits(month, 2, body);
    body.push(b'-');
    write_digits(day, 2, body);
}

fn write_digits(number: i64, width: u32, body: &mut Vec<u8>) {
    for place in (0..width).rev() {
        body.push(b'0' + (number / 10_i64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut body = Vec::new();
        write(&mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn decimals_keep_their_scale() {
        for (value, scale, text) in
            [(0, 2, "0.00"), (-5, 2, "-0.05"), (12_345, 2, "123.45"), (100, 0, "100"), (-1_230, 4, "-0.1230")]
        {
            assert_eq!(written(|body| write_decimal(value, scale, body)), text);
        }
    }

    #[test]
    fn moments_before_1970_are_written_right() {
        assert_eq!(written(|body| write_moment(-1, body)), "1969-12-31T23:59:59Z");
        assert_eq!(written(|body| write_moment(-6_847_804_800, body)), "1753-01-01T00:00:00Z");
    }

    #[test]
    fn a_cleared_lookup_names_any_of_its_navigation_properties() {
        let target = |table: &str| LookupTarget {
            table: table.to_owned(),
            set: format!("{table}s"),
            navigation: format!("customerid_{table}"),
        };
        let targets = [target("account"), target("contact")];
        assert_eq!(written(|body| write_lookup(None, &targets, body)), "\"customerid_account@odata.bind\":null");
        let bound = "contact/00000000-0000-0000-0000-00000000000a";
        assert_eq!(
            written(|body| write_lookup(Some(bound), &targets, body)),
            "\"customerid_contact@odata.bind\":\"/contacts(00000000-0000-0000-0000-00000000000a)\""
        );
    }

    proptest! {
        #[test]
        fn every_text_is_read_back_as_it_was(text in "\\PC{0,20}[\\x00-\\x1f\"\\\\]{0,5}\\PC{0,20}") {
            let json = written(|body| write_text(&text, body));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
