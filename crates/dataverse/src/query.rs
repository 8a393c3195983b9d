//! Addresses of reads: `$select`, `$filter` and what must be encoded in them.

use arrow_array::{Array, RecordBatch};
use flowgate_core::destination::Newest;
use flowgate_core::key::fold_key_text;
use flowgate_core::shape::{ColumnKind, TableShape};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::json_out::{Values, write_text};

/// The longest list of conditions or values of an address, encoded. The service takes 32,768 characters of address;
/// its host, the columns to read and, in a batch, the part's own header come to that.
const LIST_BYTES_MAX: usize = 24_000;

/// Values in one `In`: the database behind it takes about two thousand parameters.
const IN_VALUES_MAX: usize = 500;

/// Conditions of one filter; the service takes 500 (dossier section 27).
const CONDITIONS_MAX: usize = 200;

/// Characters that stand in a query as they are.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'(')
    .remove(b')')
    .remove(b',')
    .remove(b'=')
    .remove(b'@')
    .remove(b'/');

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// Filters, already encoded, that together find the rows with these ids.
pub(crate) fn filters_by_id(shape: &TableShape, ids: &[Uuid]) -> Vec<String> {
    let values: Vec<Vec<u8>> = ids.iter().map(|id| format!("\"{id}\"").into_bytes()).collect();
    in_filters(&shape.primary_id, &values)
}

/// What the service writes down by itself of each row.
pub(crate) const VERSION_COLUMN: &str = "versionnumber";
const MODIFIED_ON: &str = "modifiedon";
const MODIFIED_BY: &str = "modifiedby";

/// The options of a read of the rows written last, already encoded; `None` where the table does not say it. `users`:
/// ourselves.
pub(crate) fn newest_rows(shape: &TableShape, which: Newest, users: &[Uuid], limit: usize) -> Option<String> {
    let has = |name: &str| shape.column(name).is_some();
    let ours = || {
        let users: Vec<String> = users.iter().map(|user| format!("_{MODIFIED_BY}_value eq {user}")).collect();
        format!("({})", users.join(" or "))
    };
    let is_told = match which {
        Newest::All => has(VERSION_COLUMN),
        Newest::OursSince(_) => has(VERSION_COLUMN) && has(MODIFIED_BY),
        Newest::OursOfLastHour => has(MODIFIED_ON) && has(MODIFIED_BY),
    };
    let (filter, order) = match which {
        _ if !is_told => return None,
        Newest::All => (String::new(), VERSION_COLUMN),
        Newest::OursSince(version) => (format!("{VERSION_COLUMN} gt {version} and {}", ours()), VERSION_COLUMN),
        Newest::OursOfLastHour => {
            let recent = format!("Microsoft.Dynamics.CRM.LastXHours(PropertyName='{MODIFIED_ON}',PropertyValue=1)");
            (format!("{recent} and {}", ours()), MODIFIED_ON)
        }
    };
    let filter = if filter.is_empty() { filter } else { format!("$filter={}&", encode(&filter)) };
    Some(format!("{filter}$orderby={order}%20desc&$top={limit}"))
}

/// Filters, already encoded, that together find the rows with these keys. Keys with a null part
/// equal nothing. `None` if a column cannot be compared.
pub(crate) fn filters_by_key(shape: &TableShape, keys: &RecordBatch) -> Option<Vec<String>> {
    let schema = keys.schema();
    let mut columns = Vec::with_capacity(keys.num_columns());
    for (field, array) in schema.fields().iter().zip(keys.columns()) {
        let kind = &shape.column(field.name())?.kind;
        columns.push((field.name().as_str(), kind, Values::of(kind, array)?));
    }
    let is_complete = |row: &usize| columns.iter().all(|(.., values)| values.is_valid(*row));
    let rows: Vec<usize> = (0..keys.num_rows()).filter(is_complete).collect();
    if let [(name, kind, values)] = columns.as_slice() {
        if !matches!(kind, ColumnKind::Lookup { .. }) {
            let texts: Vec<Vec<u8>> = rows.iter().map(|row| in_value(values, *row)).collect();
            return Some(in_filters(name, &texts));
        }
    }
    let conditions: Vec<String> = rows
        .iter()
        .map(|row| {
            let parts: Vec<String> = columns.iter().map(|(name, _, values)| condition(name, values, *row)).collect();
            encode(&format!("({})", parts.join(" and ")))
        })
        .collect();
    let per_filter = (CONDITIONS_MAX / columns.len().max(1)).max(1);
    let filters = packed(&conditions, &encode(" or "), per_filter);
    Some(filters.iter().map(|filter| format!("$filter={filter}")).collect())
}

/// `In` takes texts, whatever the column's type.
fn in_value(values: &Values<'_>, row: usize) -> Vec<u8> {
    let mut json = Vec::new();
    match values {
        Values::Text(array) => write_text(without_trailing_blanks(array.value(row)), &mut json),
        other => other.write(row, &mut json),
    }
    if json.first() != Some(&b'"') {
        json.insert(0, b'"');
        json.push(b'"');
    }
    json
}

/// The service's comparison does not see them (dossier section 11); a filter need not hold them.
fn without_trailing_blanks(text: &str) -> &str {
    text.trim_end_matches(' ')
}

fn condition(name: &str, values: &Values<'_>, row: usize) -> String {
    match values {
        Values::Lookup(array, _) => {
            let id = array.value(row).rsplit('/').next().unwrap_or_default();
            format!("_{name}_value eq {id}")
        }
        Values::Text(array) => {
            format!("{name} eq '{}'", without_trailing_blanks(array.value(row)).replace('\'', "''"))
        }
        other => {
            let mut json = Vec::new();
            other.write(row, &mut json);
            let text = String::from_utf8_lossy(&json).replace('"', "");
            format!("{name} eq {text}")
        }
    }
}

fn in_filters(column: &str, values: &[Vec<u8>]) -> Vec<String> {
    let encoded: Vec<String> = values.iter().map(|value| encode(&String::from_utf8_lossy(value))).collect();
    packed(&encoded, ",", IN_VALUES_MAX)
        .iter()
        .map(|list| {
            format!(
                "$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p,PropertyValues=@v)&@p=%27{column}%27&@v=%5B{list}%5D"
            )
        })
        .collect()
}

/// Joins encoded parts into texts that stay within the bounds of an address.
fn packed(parts: &[String], separator: &str, parts_max: usize) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut held = 0;
    for part in parts {
        match texts.last_mut() {
            Some(text) if held < parts_max && text.len() + separator.len() + part.len() <= LIST_BYTES_MAX => {
                text.push_str(separator);
                text.push_str(part);
                held += 1;
            }
            _ => {
                texts.push(part.clone());
                held = 1;
            }
        }
    }
    texts
}

/// A key as the service compares it; `None` if a part is null.
pub(crate) fn key_text(shape: &TableShape, keys: &RecordBatch, columns: &[usize], row: usize) -> Option<Vec<u8>> {
    let schema = keys.schema();
    let mut text = Vec::new();
    for column in columns {
        let array = keys.column(*column);
        let kind = &shape.column(schema.field(*column).name())?.kind;
        let values = Values::of(kind, array)?;
        if array.is_null(row) {
            return None;
        }
        match &values {
            Values::Text(array) => write_text(&fold_key_text(array.value(row)), &mut text),
            other => other.write(row, &mut text),
        }
        text.push(b'|');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, StringArray};
    use flowgate_core::shape::ColumnShape;

    use super::*;

    #[test]
    fn long_lists_are_cut_into_addresses_the_service_takes() {
        let ids: Vec<String> = (0..2_000).map(|number| format!("%22{number:036}%22")).collect();
        let lists = packed(&ids, ",", IN_VALUES_MAX);
        assert!(lists.iter().all(|list| list.len() <= LIST_BYTES_MAX));
        assert_eq!(lists.iter().map(|list| list.split(',').count()).sum::<usize>(), 2_000);
    }

    #[test]
    fn keys_of_several_columns_are_cut_by_what_they_are_once_encoded() {
        let column = |name: &str| ColumnShape {
            name: name.to_owned(),
            kind: ColumnKind::Text { length_max: 200 },
            required: false,
            can_create: true,
            can_update: true,
        };
        let shape = TableShape {
            table: "office".to_owned(),
            set: "offices".to_owned(),
            primary_id: "officeid".to_owned(),
            columns: ["street", "town"].map(|name| (name.to_owned(), column(name))).into(),
            keys: Vec::new(),
            atomic: true,
            owner: None,
            created_on: None,
            statuses: Vec::new(),
        };
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["улица".repeat(10); 300]));
        let keys = RecordBatch::try_from_iter([("street", texts.clone()), ("town", texts)]).unwrap();
        let filters = filters_by_key(&shape, &keys).unwrap();
        assert!(filters.iter().all(|filter| filter.len() < 25_000), "the service takes 32,768");
        assert_eq!(filters.iter().map(|filter| filter.split("%20or%20").count()).sum::<usize>(), 300);
    }

    #[test]
    fn what_would_end_a_query_is_encoded() {
        assert_eq!(encode("name eq 'a&b+c#d'"), "name%20eq%20%27a%26b%2Bc%23d%27");
    }
}
