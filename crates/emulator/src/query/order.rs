//! `$orderby`: sort keys and their comparison.
//!
//! Promise: nulls come first ascending, or last by a setting; texts without case; lookups by the target's primary name,
//! choices by value (both UNVERIFIED); the primary id breaks ties, so every order is total.

use std::cmp::Ordering;

use uuid::Uuid;

use super::compile::{ColumnPath, Scope, column_path};
use super::eval::{column_value, compare};
use super::view::RowView;
use crate::error::ApiError;
use crate::schema::{Column, ColumnKind, Ordinal, Schema, Table};
use crate::storage::{Database, Value, ValueRef};
use crate::write::{Scalar, ValueRules, convert};

#[derive(Clone, Debug)]
pub(crate) struct OrderKey {
    pub(crate) path: ColumnPath,
    /// The property as written, for the paging cookie.
    pub(crate) name: String,
    pub(crate) descending: bool,
    /// Whether nulls come first when ascending.
    pub(crate) nulls_first: bool,
}

/// What a row sorts by.
pub(crate) type SortKey = Vec<Option<Value>>;

pub(crate) fn parse_order(scope: &Scope<'_>, text: &str) -> Result<Vec<OrderKey>, ApiError> {
    let mut keys = Vec::new();
    for item in text.split(',') {
        let mut words = item.split_whitespace();
        let name = words.next().ok_or_else(|| ApiError::query("The $orderby option has an empty item."))?;
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => {
                return Err(ApiError::query(format!("Syntax error in $orderby: '{other}' is neither asc nor desc.")));
            }
        };
        let path: Vec<String> = name.split('/').map(str::to_owned).collect();
        keys.push(OrderKey {
            path: column_path(scope, &path, "")?,
            name: name.to_owned(),
            descending,
            nulls_first: scope.nulls_first,
        });
    }
    Ok(keys)
}

/// Whether the order is that of the store: by primary id, ascending.
pub(crate) fn is_natural(keys: &[OrderKey]) -> bool {
    keys.first().is_none_or(|key| key.path.hops.is_empty() && key.path.column == 0 && !key.descending)
}

pub(crate) fn sort_key(database: &Database, schema: &Schema, view: RowView<'_>, keys: &[OrderKey]) -> SortKey {
    keys.iter()
        .map(|key| {
            let value = column_value(database, schema, view, &key.path)?;
            Some(order_value(database, schema, &value))
        })
        .collect()
}

/// What a value sorts by: a lookup by the name of its target, anything else by itself.
pub(super) fn order_value(database: &Database, schema: &Schema, value: &ValueRef<'_>) -> Value {
    match value {
        ValueRef::Lookup(table, id) => {
            let name: Option<Ordinal> = schema.table(*table).primary_name;
            let text = name.and_then(|name| database.get(*table, id)?.get(name)).map(|name| name.to_value());
            text.unwrap_or(Value::Text("".into()))
        }
        value => value.to_value(),
    }
}

/// Reads back what a cookie says of an order column.
pub(super) fn parse_order_value(
    schema: &Schema,
    table: &Table,
    column: &Column,
    text: Option<&str>,
) -> Result<Option<Value>, ApiError> {
    match (text, &column.kind) {
        (None, _) => Ok(None),
        // Lookups sort by the name of their target, which is a text.
        (Some(text), ColumnKind::Lookup { .. } | ColumnKind::Text { .. } | ColumnKind::Memo { .. }) => {
            Ok(Some(Value::Text(text.into())))
        }
        (Some(text), _) => convert(schema, table, column, Scalar::Text(text.into()), ValueRules::QUERY),
    }
}

pub(crate) fn compare_keys(keys: &[OrderKey], a: (&SortKey, Uuid), b: (&SortKey, Uuid)) -> Ordering {
    for (index, key) in keys.iter().enumerate() {
        let ordering = match (&a.0[index], &b.0[index]) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) if key.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if key.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(left), Some(right)) => compare(&left.as_ref(), &right.as_ref()).unwrap_or(Ordering::Equal),
        };
        let ordering = if key.descending { ordering.reverse() } else { ordering };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    a.1.cmp(&b.1)
}
