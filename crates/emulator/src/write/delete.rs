//! Deleting rows, with what relationships demand of the rows that point at them.
//!
//! Promise: Restrict refuses before anything changes; Cascade deletes children first; RemoveLink
//! clears lookups; NoCascade leaves them as they are. Left out: recycle bin and restore.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::events::{Happening, Message};
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

/// Removes a row whose time to live has passed; nothing stands in its way.
pub(crate) fn delete_expired(session: &Session<'_>, database: &mut Database, table: TableId, id: Uuid) {
    // An update may have given the row more time.
    let ttl = database.schema.table(table).known.ttl;
    let changed = database.schema.table(table).known.modified_on;
    let Some(row) = database.get(table, &id) else {
        return;
    };
    let ends = row.int(ttl).map(|seconds| row.int(changed).unwrap_or(session.now).saturating_add(seconds));
    if ends.is_some_and(|ends| ends <= session.now) {
        database.remove(table, id, session.now);
    }
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
    let own = schema.table(table);
    let holds_files = own.columns.iter().any(|column| super::bytes_max(column) > 0);
    for id in ids {
        if holds_files {
            super::files::drop_contents(session, database, own, *id);
        }
        let happening = Happening { message: Message::Delete, table: own, row: *id, cells: &[] };
        if database.get(table, id).is_some() {
            super::events::raise(session, database, &happening)?;
        }
        database.remove(table, *id, session.now);
        super::activities::follow(database, own, *id, session.now);
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
    if store.len() == 0 {
        return Vec::new();
    }
    let column = relationship.column;
    let points = |row: &Uuid, id: &Uuid| {
        store.get(row).and_then(|row| row.lookup(Some(column))) == Some((relationship.referenced, *id))
    };
    ids.iter().flat_map(|id| store.pointing(column, id).into_iter().filter(move |row| points(row, id))).collect()
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
            let store = database.store(many.intersect);
            let rows = ids.iter().flat_map(|id| store.pointing(many.columns[side], id));
            links.entry(many.intersect).or_default().extend(rows);
        }
    }
    for (intersect, rows) in links {
        for row in rows {
            database.remove(intersect, row, session.now);
        }
    }
}
