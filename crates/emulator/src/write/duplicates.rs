//! Duplicate detection: published rules, exact matches only, and only when asked for.
//!
//! Promise: a rule whose every condition finds an equal value in one other row refuses the
//! write. Left out: conditions other than exact match, which are refused when a rule is read.

use uuid::Uuid;

use crate::error::{ApiError, Code};
use crate::schema::{Ordinal, Schema, Table};
use crate::storage::{Database, Row, Value, ValueRef, key_hash};

type Cell = (Ordinal, Option<Value>);

/// `statuscode` of a published rule.
const PUBLISHED: i64 = 2;

pub(super) fn check(
    database: &Database,
    schema: &Schema,
    table: &Table,
    cells: &[Cell],
    id: Option<Uuid>,
) -> Result<(), ApiError> {
    if !table.duplicates {
        return Ok(());
    }
    let before = id.and_then(|id| database.get(table.id, &id));
    for columns in published_rules(database, schema, table)? {
        let wanted = key_hash(columns.iter().map(|ordinal| current(cells, before, *ordinal)));
        let Some(wanted) = wanted else { continue };
        let found = database.store(table.id).rows_after(None).any(|(other, row)| {
            Some(*other) != id && key_hash(columns.iter().map(|ordinal| row.get(*ordinal))) == Some(wanted)
        });
        if found {
            return Err(ApiError::new(
                Code::DuplicateRecordsFound,
                "A record was not created or updated because a duplicate of the current record already exists.",
            ));
        }
    }
    Ok(())
}

fn current<'a>(cells: &'a [Cell], before: Option<&'a Row>, ordinal: Ordinal) -> Option<ValueRef<'a>> {
    match cells.iter().find(|(found, _)| *found == ordinal) {
        Some((_, value)) => value.as_ref().map(Value::as_ref),
        None => before.and_then(|row| row.get(ordinal)),
    }
}

/// The columns of each published rule of a table.
fn published_rules(database: &Database, schema: &Schema, table: &Table) -> Result<Vec<Vec<Ordinal>>, ApiError> {
    let (Some(rules), Some(conditions)) =
        (schema.by_logical("duplicaterule"), schema.by_logical("duplicaterulecondition"))
    else {
        return Ok(Vec::new());
    };
    let text = |row: &Row, ordinal: Option<Ordinal>| match row.get(ordinal?)? {
        ValueRef::Text(text) => Some(text.to_owned()),
        _ => None,
    };
    let mut found = Vec::new();
    for (rule, row) in database.store(rules.id).rows_after(None) {
        let published = row.int(rules.known.status) == Some(PUBLISHED);
        if !published || text(row, rules.ordinal("baseentityname")).as_deref() != Some(table.logical.as_str()) {
            continue;
        }
        let mut columns = Vec::new();
        for (_, condition) in database.store(conditions.id).rows_after(None) {
            if condition.lookup(conditions.ordinal("regardingobjectid")).map(|(_, id)| id) != Some(*rule) {
                continue;
            }
            if condition.int(conditions.ordinal("operatorcode")).unwrap_or(0) != 0 {
                return Err(ApiError::not_here("a duplicate rule condition other than an exact match"));
            }
            columns
                .extend(text(condition, conditions.ordinal("baseattributename")).and_then(|name| table.ordinal(&name)));
        }
        if !columns.is_empty() {
            found.push(columns);
        }
    }
    Ok(found)
}
