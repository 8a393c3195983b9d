//! Deleting rows, with what relationships demand of the rows that point at them.
//!
//! Promise: Restrict refuses before anything changes; Cascade deletes children first; RemoveLink
//! clears lookups; NoCascade leaves them as they are. Left out: recycle bin and restore.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Session, update};
use crate::address::does_not_exist;
use crate::error::{ApiError, Code};
use crate::schema::{Cascade, OneToMany, Relationship, Schema, Table, TableId};
use crate::storage::Database;

/// Deepest chain of cascades.
const DEPTH_MAX: u32 = 16;

/// Deletes one row.
pub(crate) fn delete(session: &Session<'_>, database: &mut Database, table: &Table, id: Uuid) -> Result<(), ApiError> {
    if !table.writable {
        let message = format!("The 'Delete' method does not support entities of type '{}'.", table.logical);
        return Err(ApiError::new(Code::MessageNotSupported, message));
    }
    if database.get(table.id, &id).is_none() {
        return Err(does_not_exist(table, id));
    }
    delete_many(session, database, table.id, &HashSet::from([id]))
}

/// Deletes rows of one table; rows that are gone already do not matter.
pub(crate) fn delete_many(
    session: &Session<'_>,
    database: &mut Database,
    table: TableId,
    ids: &HashSet<Uuid>,
) -> Result<(), ApiError> {
    delete_set(session, database, table, ids, 0)
}

fn delete_set(
    session: &Session<'_>,
    database: &mut Database,
    table: TableId,
    ids: &HashSet<Uuid>,
    depth: u32,
) -> Result<(), ApiError> {
    if ids.is_empty() || depth > DEPTH_MAX {
        return Ok(());
    }
    let schema = Arc::clone(&database.schema);
    for relationship in
        schema.one_to_many().filter(|one| one.referenced == table && one.on_delete != Cascade::NoCascade)
    {
        let pointing = pointing_rows(database, relationship, ids);
        // Rows deleted in the same breath do not stand in the way.
        let pointing: HashSet<Uuid> =
            pointing.into_iter().filter(|id| relationship.referencing != table || !ids.contains(id)).collect();
        if pointing.is_empty() {
            continue;
        }
        follow(session, database, &schema, relationship, &pointing, depth)?;
    }
    unlink_many_to_many(session, database, &schema, table, ids);
    for id in ids {
        database.remove(table, *id, session.now);
    }
    Ok(())
}

fn follow(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    relationship: &OneToMany,
    pointing: &HashSet<Uuid>,
    depth: u32,
) -> Result<(), ApiError> {
    let child = schema.table(relationship.referencing);
    match relationship.on_delete {
        Cascade::Restrict => Err(ApiError::new(
            Code::CannotDeleteDueToAssociation,
            format!(
                "The record cannot be deleted because it is associated with another record: {}.",
                relationship.schema_name
            ),
        )),
        Cascade::Cascade => delete_set(session, database, relationship.referencing, pointing, depth + 1),
        Cascade::RemoveLink => {
            for id in pointing {
                update::store(session, database, child, *id, vec![(relationship.column, None)])?;
            }
            Ok(())
        }
        Cascade::NoCascade => Ok(()),
    }
}

/// Rows whose lookup points at one of `ids`.
fn pointing_rows(database: &Database, relationship: &OneToMany, ids: &HashSet<Uuid>) -> Vec<Uuid> {
    let store = database.store(relationship.referencing);
    let rows = store.rows_after(None).filter(|(_, row)| {
        row.lookup(Some(relationship.column))
            .is_some_and(|(table, id)| table == relationship.referenced && ids.contains(&id))
    });
    rows.map(|(id, _)| *id).collect()
}

fn unlink_many_to_many(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    table: TableId,
    ids: &HashSet<Uuid>,
) {
    let mut links: HashMap<TableId, Vec<Uuid>> = HashMap::new();
    for relationship in &schema.relationships {
        let Relationship::ManyToMany(many) = relationship else {
            continue;
        };
        for side in (0..2).filter(|side| many.tables[*side] == table) {
            let rows =
                database.store(many.intersect).rows_after(None).filter(|(_, row)| match row.get(many.columns[side]) {
                    Some(crate::storage::ValueRef::Guid(id)) => ids.contains(&id),
                    _ => false,
                });
            links.entry(many.intersect).or_default().extend(rows.map(|(id, _)| *id));
        }
    }
    for (intersect, rows) in links {
        for row in rows {
            database.remove(intersect, row, session.now);
        }
    }
}
