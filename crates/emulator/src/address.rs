//! How rows are named: `set(<guid>)`, `set(key='value')`, `$1`, and links with any of them.
//!
//! Promise: an address is checked against the schema, so a key that is not defined or not yet
//! active is refused here with the product's wording. Left out: whether the row exists.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::error::{ApiError, Code};
use crate::schema::{AlternateKey, ColumnKind, KeyStatus, Ordinal, Schema, Table};
use crate::storage::{Database, Value, key_hash};
use crate::write::{Scalar, ValueRules, convert};

/// Characters that alternate-key addresses cannot carry.
const KEY_FORBIDDEN: &[char] = &['/', '<', '>', '*', '%', '&', ':', '\\', '?', '+'];

/// One row of a known table.
#[derive(Clone, Debug)]
pub(crate) enum RowAddress {
    Id(Uuid),
    Key(KeyAddress),
}

/// Values of an active alternate key, in the key's column order.
#[derive(Clone, Debug)]
pub(crate) struct KeyAddress {
    pub(crate) key: Uuid,
    pub(crate) values: Vec<(Ordinal, Value)>,
}

/// What a link or a bind points at.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    Row(Arc<Table>, RowAddress),
    ContentId(String),
}

impl KeyAddress {
    pub(crate) fn hash(&self) -> Option<u128> {
        key_hash(self.values.iter().map(|(_, value)| Some(value.as_ref())))
    }
}

impl RowAddress {
    /// The id of the row, if there is one.
    pub(crate) fn find(&self, database: &Database, table: &Table) -> Option<Uuid> {
        match self {
            RowAddress::Id(id) => database.get(table.id, id).map(|_| *id),
            RowAddress::Key(key) => database.store(table.id).find_by_key(key.key, key.hash()?),
        }
    }

    /// The error of a row that is not there.
    pub(crate) fn missing(&self, table: &Table) -> ApiError {
        match self {
            RowAddress::Id(id) => does_not_exist(table, *id),
            RowAddress::Key(_) => ApiError::new(
                Code::RecordNotFoundByEntityKey,
                format!("A record with the specified key values does not exist in {} entity", table.logical),
            ),
        }
    }
}

pub(crate) fn does_not_exist(table: &Table, id: Uuid) -> ApiError {
    ApiError::new(Code::ObjectDoesNotExist, format!("Entity '{}' With Id = {id} Does Not Exist", table.logical))
}

/// Splits `set(inner)` into its parts; `None` for a bare name.
pub(crate) fn split_segment(segment: &str) -> (&str, Option<&str>) {
    match segment.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').unwrap_or(rest))),
        None => (segment, None),
    }
}

/// Parses what stands between the parentheses.
pub(crate) fn parse_predicate(schema: &Schema, table: &Table, inner: &str) -> Result<RowAddress, ApiError> {
    read_predicate(schema, table, inner, KeyText::Addressable)
}

/// Which texts the values of keys may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyText {
    Any,
    /// Without the characters that addresses cannot carry.
    Addressable,
}

fn read_predicate(schema: &Schema, table: &Table, inner: &str, text: KeyText) -> Result<RowAddress, ApiError> {
    let inner = inner.trim();
    if let Ok(id) = Uuid::parse_str(inner) {
        return Ok(RowAddress::Id(id));
    }
    let mut values = Vec::new();
    for pair in split_outside_quotes(inner, ',') {
        let (name, literal) = pair.split_once('=').ok_or_else(|| not_a_key(table))?;
        let (name, literal) = (name.trim(), literal.trim());
        let ordinal = key_column(table, name).ok_or_else(|| not_a_key(table))?;
        values.push((ordinal, key_literal(schema, table, ordinal, literal, text)?));
    }
    if let [(0, Value::Guid(id))] = values.as_slice() {
        // `systemuser` and `team` have `ownerid` as their declared key.
        return if table.is_principal { Err(not_a_key(table)) } else { Ok(RowAddress::Id(*id)) };
    }
    if let Some(id) = elastic_address(table, &values) {
        return Ok(RowAddress::Id(id));
    }
    let key = matching_key(table, &values).ok_or_else(|| not_a_key(table))?;
    let values = key.columns.iter().filter_map(|column| values.iter().find(|(ordinal, _)| ordinal == column).cloned());
    Ok(RowAddress::Key(KeyAddress { key: key.id, values: values.collect() }))
}

fn elastic_address(table: &Table, values: &[(Ordinal, Value)]) -> Option<Uuid> {
    let partition = table.known.partition?;
    let id = values.iter().find_map(|(ordinal, value)| match value {
        Value::Guid(id) if *ordinal == 0 => Some(*id),
        _ => None,
    })?;
    let partition = values.iter().find_map(|(ordinal, value)| match value {
        Value::Text(text) if *ordinal == partition => Some(text),
        _ => None,
    })?;
    (values.len() == 2).then(|| elastic_row_id(id, Some(partition)))
}

/// Where a row of an elastic table is kept: ids are unique within a partition only.
pub(crate) fn elastic_row_id(id: Uuid, partition: Option<&str>) -> Uuid {
    match partition {
        Some(partition) if Uuid::parse_str(partition) != Ok(id) => {
            let mut bytes = id.as_bytes().to_vec();
            bytes.extend_from_slice(partition.as_bytes());
            Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(&bytes))
        }
        _ => id,
    }
}

fn key_column(table: &Table, name: &str) -> Option<Ordinal> {
    if let Some(lookup) = name.strip_prefix('_').and_then(|rest| rest.strip_suffix("_value")) {
        return table.ordinal(lookup).filter(|ordinal| table.column(*ordinal).kind.is_lookup());
    }
    table.ordinal(name).filter(|ordinal| !table.column(*ordinal).kind.is_lookup())
}

fn matching_key<'a>(table: &'a Table, values: &[(Ordinal, Value)]) -> Option<&'a AlternateKey> {
    table.keys.iter().find(|key| {
        key.status == KeyStatus::Active
            && key.columns.len() == values.len()
            && key.columns.iter().all(|column| values.iter().any(|(ordinal, _)| ordinal == column))
    })
}

fn key_literal(
    schema: &Schema,
    table: &Table,
    ordinal: Ordinal,
    literal: &str,
    key_text: KeyText,
) -> Result<Value, ApiError> {
    let column = table.column(ordinal);
    if let ColumnKind::Lookup { targets } = &column.kind {
        let id = Uuid::parse_str(literal).map_err(|_| not_a_key(table))?;
        // The index compares ids only, so the first target stands for all.
        return Ok(Value::Lookup(targets.first().map_or(0, |target| target.table), id));
    }
    let scalar = match literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(text) => {
            if key_text == KeyText::Addressable && text.contains(KEY_FORBIDDEN) {
                return Err(ApiError::new(
                    Code::InvalidEntityKeyOperation,
                    format!(
                        "The value '{text}' of key attribute '{}' holds characters that a key address cannot carry.",
                        column.logical
                    ),
                ));
            }
            Scalar::Text(text.replace("''", "'").into())
        }
        None if literal == "null" => return Err(not_a_key(table)),
        None => Scalar::Text(literal.to_owned().into()),
    };
    convert(schema, table, column, scalar, ValueRules::QUERY)?.ok_or_else(|| not_a_key(table))
}

fn not_a_key(table: &Table) -> ApiError {
    let name = &table.odata_type;
    ApiError::new(
        Code::EntityKeyNotDefined,
        format!(
            "The key in the request URI is not valid for resource '{name}'. Ensure that the names and number of key \
             properties match the declared or alternate key properties for the resource '{name}'."
        ),
    )
}

/// Parses a bind or `@odata.id`: relative or absolute, by id or key, or `$n`.
pub(crate) fn parse_reference(schema: &Schema, text: &str) -> Result<Reference, ApiError> {
    parse_reference_with(schema, text, KeyText::Addressable)
}

pub(crate) fn parse_reference_with(schema: &Schema, text: &str, key_text: KeyText) -> Result<Reference, ApiError> {
    if let Some(content_id) = text.strip_prefix('$') {
        return Ok(Reference::ContentId(content_id.to_owned()));
    }
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    let path = strip_service_root(&decoded);
    let path = path.trim_start_matches('/');
    let (set, inner) = split_segment(path);
    let unknown = || ApiError::query(format!("Resource not found for the segment '{set}'."));
    let table = schema.by_set(set).ok_or_else(unknown)?;
    let inner = inner.ok_or_else(|| ApiError::bad_request(format!("Invalid Uri '{text}'.")))?;
    Ok(Reference::Row(Arc::clone(table), read_predicate(schema, table, inner, key_text)?))
}

/// Drops scheme, host and `/api/data/v9.x` from a link.
fn strip_service_root(link: &str) -> &str {
    let Some(start) = link.find("/api/data/v") else {
        return link;
    };
    let rest = &link[start + "/api/data/v".len()..];
    rest.find('/').map_or("", |slash| &rest[slash..])
}

/// Splits at a separator that stands neither in quotes nor in parentheses.
pub(crate) fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0i32, false);
    for (index, character) in text.char_indices() {
        match character {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            found if found == separator && !quoted && depth == 0 => {
                parts.push(&text[start..index]);
                start = index + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_quotes_and_parentheses_do_not_split() {
        assert_eq!(split_outside_quotes("a='x,y',b=f(1,2)", ','), ["a='x,y'", "b=f(1,2)"]);
    }

    #[test]
    fn links_lose_their_root() {
        assert_eq!(strip_service_root("https://h/api/data/v9.2/accounts(1)"), "/accounts(1)");
        assert_eq!(strip_service_root("/accounts(1)"), "/accounts(1)");
    }
}
