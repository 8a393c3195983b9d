//! Digests of values and rows, for comparing tens of millions of rows with what they were made of.
//!
//! A value's digest is the low 20 bits of XXH3-64 over `column=value`: the column's logical name,
//! and the value as the Web API writes it, without quotes (`_x_value` columns by their id). Nulls
//! have none. A row's digest is XXH3-64 over the sum of its value digests as eight bytes, little
//! end first; a table's is the sum of its rows' digests modulo 2^64. So neither the order of
//! columns nor that of rows matters, and a value in the wrong row shows. One wrong value escapes
//! once in a million times.
//!
//! The profile `sink` keeps value digests where other profiles keep values, as one cell behind the
//! row's last: pairs of the column's distance from the one before and its digest. Left out: values
//! that no request sent, such as defaults, which `sink` forgets.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::query::plain_text;
use crate::schema::{Column, Ordinal, Schema, Table};
use crate::storage::{Database, Row, Value, ValueRef};

/// The cell of a `sink` row that holds digests; no table has this many columns.
pub(crate) const DIGESTS: Ordinal = Ordinal::MAX;
/// Low bits of a hash that make a digest: what fits three bytes of a row.
const DIGEST_BITS: u64 = 20;

fn digest(schema: &Schema, column: &Column, value: &ValueRef<'_>) -> u32 {
    let text = format!("{}={}", column.logical, plain_text(schema, column, value));
    (xxh3_64(text.as_bytes()) & ((1 << DIGEST_BITS) - 1)) as u32
}

/// Whether a column's values are compared: callers write it, and it does not say which row it is.
fn counts(column: &Column) -> bool {
    column.ordinal != 0 && !column.deleted && (column.for_create || column.for_update) && column.for_read
}

fn unpack(row: &Row) -> BTreeMap<Ordinal, u32> {
    let Some(ValueRef::Choices(packed)) = row.get(DIGESTS) else { return BTreeMap::new() };
    let mut at: Ordinal = 0;
    let pairs = packed.chunks_exact(2).map(|pair| {
        at = at.saturating_add(pair[0] as Ordinal);
        (at, pair[1] as u32)
    });
    pairs.collect()
}

/// The digest cell of a row that had `before` and is now given `cells`.
pub(crate) fn cell(
    schema: &Schema,
    table: &Table,
    before: Option<&Row>,
    cells: &[(Ordinal, Option<Value>)],
) -> (Ordinal, Option<Value>) {
    let mut digests = before.map(unpack).unwrap_or_default();
    for (ordinal, value) in cells {
        let column = table.column(*ordinal);
        match value {
            Some(value) if counts(column) => {
                digests.insert(*ordinal, digest(schema, column, &value.as_ref()));
            }
            _ => {
                digests.remove(ordinal);
            }
        }
    }
    let mut packed = Vec::with_capacity(digests.len() * 2);
    let mut last: Ordinal = 0;
    for (ordinal, digest) in digests {
        packed.push(i32::from(ordinal - last));
        packed.push(digest as i32);
        last = ordinal;
    }
    (DIGESTS, Some(Value::Choices(packed.into())))
}

/// What rows of a table add up to, over all columns or those named.
pub(crate) fn of_table(database: &Database, table: &Table, columns: Option<&[&str]>) -> Json {
    let schema = &database.schema;
    let wanted: Vec<&Column> = table
        .live_columns()
        .filter(|column| counts(column) && columns.is_none_or(|names| names.contains(&column.logical.as_str())))
        .collect();
    let mut sums: BTreeMap<Ordinal, (u64, u64)> = BTreeMap::new();
    let mut total = 0u64;
    for (_, row) in database.store(table.id).rows_after(None) {
        let kept = unpack(row);
        let mut sum = 0u64;
        for column in &wanted {
            let value = row.get(column.ordinal).map(|value| digest(schema, column, &value));
            if let Some(digest) = value.or_else(|| kept.get(&column.ordinal).copied()) {
                sum += u64::from(digest);
                let (values, digests) = sums.entry(column.ordinal).or_default();
                *values += 1;
                *digests += u64::from(digest);
            }
        }
        total = total.wrapping_add(xxh3_64(&sum.to_le_bytes()));
    }
    let columns: Map<String, Json> = sums
        .into_iter()
        .map(|(ordinal, (values, sum))| {
            (table.column(ordinal).logical.clone(), json!({ "values": values, "digest": format!("{sum:016x}") }))
        })
        .collect();
    json!({ "rows": database.store(table.id).len(), "digest": format!("{total:016x}"), "columns": columns })
}
