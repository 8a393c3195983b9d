//! The compact form of a row: its set cells, each `ordinal, tag, payload`, in ordinal order.
//!
//! Format: ordinal `u16` little endian, tag `u8`, payload by tag:
//! 1 text (varint length, UTF-8), 2 integer and 4 time (zigzag varint), 3 decimal (16 bytes
//! little endian, scaled by 10^10), 5 double (8 bytes), 6 guid (16 bytes), 7 lookup (table
//! `u16`, 16 bytes), 8 choices (varint count, zigzag varints). A column without a cell is null.
//! Times are whole seconds since 1970. Left out: the id and the version, kept beside the cells.

use uuid::Uuid;

use crate::schema::{Ordinal, TableId};

/// A value on its way into a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(Box<str>),
    Int(i64),
    Decimal(i128),
    Time(i64),
    Double(f64),
    Guid(Uuid),
    Lookup(TableId, Uuid),
    Choices(Box<[i32]>),
}

/// A value inside a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ValueRef<'a> {
    Text(&'a str),
    Int(i64),
    Decimal(i128),
    Time(i64),
    Double(f64),
    Guid(Uuid),
    Lookup(TableId, Uuid),
    Choices(Box<[i32]>),
}

impl ValueRef<'_> {
    pub(crate) fn to_value(&self) -> Value {
        match self {
            ValueRef::Text(text) => Value::Text((*text).into()),
            ValueRef::Int(number) => Value::Int(*number),
            ValueRef::Decimal(number) => Value::Decimal(*number),
            ValueRef::Time(seconds) => Value::Time(*seconds),
            ValueRef::Double(number) => Value::Double(*number),
            ValueRef::Guid(id) => Value::Guid(*id),
            ValueRef::Lookup(table, id) => Value::Lookup(*table, *id),
            ValueRef::Choices(choices) => Value::Choices(choices.clone()),
        }
    }
}

impl Value {
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Text(text) => ValueRef::Text(text),
            Value::Int(number) => ValueRef::Int(*number),
            Value::Decimal(number) => ValueRef::Decimal(*number),
            Value::Time(seconds) => ValueRef::Time(*seconds),
            Value::Double(number) => ValueRef::Double(*number),
            Value::Guid(id) => ValueRef::Guid(*id),
            Value::Lookup(table, id) => ValueRef::Lookup(*table, *id),
            Value::Choices(choices) => ValueRef::Choices(choices.clone()),
        }
    }
}

/// A stored row. Its id is the key of the map that holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) version: u64,
    pub(crate) cells: Box<[u8]>,
}

impl Row {
    pub(crate) fn cells(&self) -> Cells<'_> {
        Cells { rest: &self.cells }
    }

    pub(crate) fn get(&self, ordinal: Ordinal) -> Option<ValueRef<'_>> {
        let mut cells = self.cells();
        while let Some((found, start)) = cells.next_header() {
            if found == ordinal {
                return decode(start).map(|(value, _)| value);
            }
            if found > ordinal {
                return None;
            }
            cells.skip_cell(start);
        }
        None
    }

    pub(crate) fn lookup(&self, ordinal: Option<Ordinal>) -> Option<(TableId, Uuid)> {
        match self.get(ordinal?)? {
            ValueRef::Lookup(table, id) => Some((table, id)),
            _ => None,
        }
    }

    pub(crate) fn int(&self, ordinal: Option<Ordinal>) -> Option<i64> {
        match self.get(ordinal?)? {
            ValueRef::Int(number) | ValueRef::Time(number) => Some(number),
            _ => None,
        }
    }
}

/// Walks the cells of a row in ordinal order.
pub(crate) struct Cells<'a> {
    rest: &'a [u8],
}

impl<'a> Cells<'a> {
    /// The next cell's ordinal and the bytes from its tag on; the caller moves past it.
    fn next_header(&mut self) -> Option<(Ordinal, &'a [u8])> {
        let (ordinal, rest) = self.rest.split_first_chunk::<2>()?;
        Some((Ordinal::from_le_bytes(*ordinal), rest))
    }

    fn skip_cell(&mut self, start: &'a [u8]) {
        self.rest = cell_length(start).and_then(|length| start.get(length..)).unwrap_or(&[]);
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = (Ordinal, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (ordinal, start) = self.next_header()?;
        let (value, rest) = decode(start)?;
        self.rest = rest;
        Some((ordinal, value))
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Bytes of the cell that starts at its tag, the tag included.
fn cell_length(start: &[u8]) -> Option<usize> {
    let (tag, rest) = start.split_first()?;
    let payload = match tag {
        1 => {
            let (length, after) = read_varint(rest)?;
            rest.len() - after.len() + length as usize
        }
        2 | 4 => rest.len() - read_varint(rest)?.1.len(),
        3 | 6 => 16,
        5 => 8,
        7 => 18,
        8 => {
            let (count, mut after) = read_varint(rest)?;
            for _ in 0..count {
                after = read_varint(after)?.1;
            }
            rest.len() - after.len()
        }
        _ => return None,
    };
    Some(1 + payload)
}

fn decode(start: &[u8]) -> Option<(ValueRef<'_>, &[u8])> {
    let (tag, rest) = start.split_first()?;
    Some(match tag {
        1 => {
            let (length, after) = read_varint(rest)?;
            let (text, after) = after.split_at_checked(length as usize)?;
            (ValueRef::Text(std::str::from_utf8(text).ok()?), after)
        }
        2 => {
            let (number, after) = read_varint(rest)?;
            (ValueRef::Int(unzigzag(number)), after)
        }
        3 => {
            let (bytes, after) = rest.split_first_chunk::<16>()?;
            (ValueRef::Decimal(i128::from_le_bytes(*bytes)), after)
        }
        4 => {
            let (number, after) = read_varint(rest)?;
            (ValueRef::Time(unzigzag(number)), after)
        }
        5 => {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            (ValueRef::Double(f64::from_le_bytes(*bytes)), after)
        }
        6 => {
            let (bytes, after) = rest.split_first_chunk::<16>()?;
            (ValueRef::Guid(Uuid::from_bytes(*bytes)), after)
        }
        7 => {
            let (table, after) = rest.split_first_chunk::<2>()?;
            let (bytes, after) = after.split_first_chunk::<16>()?;
            (ValueRef::Lookup(TableId::from_le_bytes(*table), Uuid::from_bytes(*bytes)), after)
        }
        8 => {
            let (count, mut after) = read_varint(rest)?;
            let mut choices = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let (number, next) = read_varint(after)?;
                choices.push(unzigzag(number) as i32);
                after = next;
            }
            (ValueRef::Choices(choices.into()), after)
        }
        _ => return None,
    })
}

fn write_cell(ordinal: Ordinal, value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(&ordinal.to_le_bytes());
    match value {
        Value::Text(text) => {
            out.push(1);
            write_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Int(number) => {
            out.push(2);
            write_varint(zigzag(*number), out);
        }
        Value::Decimal(number) => {
            out.push(3);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::Time(seconds) => {
            out.push(4);
            write_varint(zigzag(*seconds), out);
        }
        Value::Double(number) => {
            out.push(5);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::Guid(id) => {
            out.push(6);
            out.extend_from_slice(id.as_bytes());
        }
        Value::Lookup(table, id) => {
            out.push(7);
            out.extend_from_slice(&table.to_le_bytes());
            out.extend_from_slice(id.as_bytes());
        }
        Value::Choices(choices) => {
            out.push(8);
            write_varint(choices.len() as u64, out);
            for choice in choices {
                write_varint(zigzag(i64::from(*choice)), out);
            }
        }
    }
}

/// Encodes cells that are in ordinal order; nulls take no room.
pub(crate) fn encode(cells: &[(Ordinal, Option<Value>)]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(cells.len() * 16);
    for (ordinal, value) in cells {
        if let Some(value) = value {
            write_cell(*ordinal, value, &mut out);
        }
    }
    out.into_boxed_slice()
}

/// A row's cells with changes laid over them. `changes` is in ordinal order; `None` clears.
pub(crate) fn merge(row: &Row, changes: &[(Ordinal, Option<Value>)]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(row.cells.len() + changes.len() * 16);
    let mut changes = changes.iter().peekable();
    let mut cells = row.cells();
    while let Some((ordinal, start)) = cells.next_header() {
        while let Some((changed, value)) = changes.next_if(|(changed, _)| *changed < ordinal) {
            write_optional(*changed, value.as_ref(), &mut out);
        }
        if let Some((changed, value)) = changes.next_if(|(changed, _)| *changed == ordinal) {
            write_optional(*changed, value.as_ref(), &mut out);
        } else if let Some(bytes) = cell_length(start).and_then(|length| start.get(..length)) {
            out.extend_from_slice(&ordinal.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        cells.skip_cell(start);
    }
    for (changed, value) in changes {
        write_optional(*changed, value.as_ref(), &mut out);
    }
    out.into_boxed_slice()
}

fn write_optional(ordinal: Ordinal, value: Option<&Value>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        write_cell(ordinal, value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[(Ordinal, Option<Value>)]) -> Row {
        Row { version: 1, cells: encode(cells) }
    }

    #[test]
    fn every_type_survives_encoding() {
        let id = Uuid::from_u128(7);
        let cells = vec![
            (0, Some(Value::Text("né".into()))),
            (2, Some(Value::Int(-300))),
            (3, Some(Value::Decimal(-12_345_678_901_234))),
            (4, Some(Value::Time(-1))),
            (5, Some(Value::Double(1.5))),
            (6, Some(Value::Guid(id))),
            (7, Some(Value::Lookup(3, id))),
            (900, Some(Value::Choices(vec![1, -3].into()))),
        ];
        let row = row(&cells);
        let back: Vec<_> = row.cells().map(|(ordinal, value)| (ordinal, Some(value.to_value()))).collect();
        assert_eq!(back, cells);
        assert_eq!(row.get(900), Some(ValueRef::Choices(vec![1, -3].into())));
        assert_eq!(row.get(1), None);
    }

    #[test]
    fn merging_replaces_clears_and_adds() {
        let old = row(&[(1, Some(Value::Int(1))), (3, Some(Value::Int(3))), (5, Some(Value::Int(5)))]);
        let changes = [(0, Some(Value::Int(9))), (3, None), (5, Some(Value::Int(6))), (8, Some(Value::Int(8)))];
        let merged = Row { version: 2, cells: merge(&old, &changes) };
        let expected = row(&[
            (0, Some(Value::Int(9))),
            (1, Some(Value::Int(1))),
            (5, Some(Value::Int(6))),
            (8, Some(Value::Int(8))),
        ]);
        assert_eq!(merged.cells, expected.cells);
    }
}
