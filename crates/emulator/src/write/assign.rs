//! Rows that follow their parent to a new owner.
//!
//! Promise: every row whose relationship says that it follows an assignment, at any depth, in the
//! same transaction; a row that the new owner has already is left as it is. Left out: relationships
//! that follow only for active rows or rows of the same owner, which cannot be defined here.

use std::sync::Arc;

use uuid::Uuid;

use super::Session;
use super::update::apply;
use crate::error::ApiError;
use crate::schema::{Follow, Ordinal, Table, TableId};
use crate::storage::{Database, Value};

/// Gives the rows that follow `id` of `table` the owner it has now.
pub(super) fn follow(session: &Session<'_>, database: &mut Database, table: &Table, id: Uuid) -> Result<(), ApiError> {
    let owner_of = |database: &Database, table: TableId, owner: Option<Ordinal>, id: Uuid| {
        database.get(table, &id).and_then(|row| row.lookup(owner))
    };
    let Some(owner) = owner_of(database, table.id, table.known.owner, id) else { return Ok(()) };
    let schema = Arc::clone(&database.schema);
    let followers =
        schema.one_to_many().filter(|one| one.referenced == table.id && one.follows.contains(&Follow::Assign));
    for relationship in followers {
        let child = schema.table(relationship.referencing);
        let Some(ordinal) = child.known.owner.filter(|_| !child.deleted && child.writable) else { continue };
        for row in database.store(child.id).pointing(relationship.column, &id) {
            if owner_of(database, child.id, Some(ordinal), row) != Some(owner) {
                // Applying it leads on to the rows below.
                apply(session, database, child, row, vec![(ordinal, Some(Value::Lookup(owner.0, owner.1)))])?;
            }
        }
    }
    Ok(())
}
