//! What every activity has besides its own row: one in `activitypointer`, and its parties.
//!
//! Promise: the pointer has the activity's id and those of its columns that all activities share;
//! owner and regarding row are parties of the activity. Left out: writing through the pointer.

use uuid::Uuid;

use crate::schema::{ColumnKind, Schema, Table, TableId, stable_id};
use crate::storage::{Database, Row, Value, encode};

/// `participationtypemask` of the row an activity is about, and of its owner.
const REGARDING: i64 = 8;
const OWNER: i64 = 9;

/// Brings pointer and parties up to date after an activity was written or deleted.
pub(super) fn follow(database: &mut Database, table: &Table, id: Uuid, now: i64) {
    if !table.is_activity || table.logical == "activitypointer" {
        return;
    }
    let schema = database.schema.clone();
    let Some(pointers) = schema.by_logical("activitypointer") else {
        return;
    };
    let Some(row) = database.get(table.id, &id).cloned() else {
        database.remove(pointers.id, id, now);
        return;
    };
    let mut cells = Vec::new();
    for column in pointers.live_columns().filter(|column| column.ordinal != 0) {
        let value = table.ordinal(&column.logical).and_then(|ordinal| row.get(ordinal));
        cells.extend(value.map(|value| (column.ordinal, Some(value.to_value()))));
    }
    // The table has no alternate keys that could object.
    let _stored = database.put(pointers.id, id, encode(&cells));
    let regarding = row.lookup(table.ordinal("regardingobjectid"));
    set_party(database, &schema, table, id, REGARDING, regarding, now);
    set_party(database, &schema, table, id, OWNER, row.lookup(table.known.owner), now);
}

/// Gives the activity the one party of a kind, or none.
fn set_party(
    database: &mut Database,
    schema: &Schema,
    table: &Table,
    activity: Uuid,
    mask: i64,
    wanted: Option<(TableId, Uuid)>,
    now: i64,
) {
    let Some(parties) = schema.by_logical("activityparty") else {
        return;
    };
    let (Some(of), Some(party), Some(kind)) =
        (parties.ordinal("activityid"), parties.ordinal("partyid"), parties.ordinal("participationtypemask"))
    else {
        return;
    };
    let accepts = |target: TableId| match &parties.column(party).kind {
        ColumnKind::Lookup { targets } => targets.iter().any(|known| known.table == target),
        _ => false,
    };
    let wanted = wanted.filter(|(target, _)| accepts(*target));
    let id = stable_id(&format!("party:{activity}:{mask}"));
    let before: Option<Row> = database.get(parties.id, &id).cloned();
    if before.as_ref().and_then(|row| row.lookup(Some(party))) == wanted {
        return;
    }
    let Some((target, target_id)) = wanted else {
        database.remove(parties.id, id, now);
        return;
    };
    let mut cells = vec![
        (of, Some(Value::Lookup(table.id, activity))),
        (party, Some(Value::Lookup(target, target_id))),
        (kind, Some(Value::Int(mask))),
    ];
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // The table has no alternate keys that could object.
    let _stored = database.put(parties.id, id, encode(&cells));
}
