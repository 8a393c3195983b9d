//! Updating and upserting rows.
//!
//! Promise: only given columns change; the row's version rises even when no value differs, as
//! the product's does; an upsert by key drops key columns on update and lets the body win on
//! create. Left out: preconditions in headers, which the caller has checked by then.

use std::sync::Arc;

use uuid::Uuid;

use super::create::{add_owner, create, name_people, required};
use super::events::{Happening, Message};
use super::parse::RowInput;
use super::resolve::bind_value;
use super::{Session, key_violation, money, run_plugins, state};
use crate::address::{RowAddress, does_not_exist};
use crate::digests::{self, DIGESTS};
use crate::error::{ApiError, Code};
use crate::schema::{Ordinal, Required, Table};
use crate::storage::{Database, Row, Value, merge};

type Cell = (Ordinal, Option<Value>);

/// Which of its two halves an upsert ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpsertOutcome {
    Created,
    Updated,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Upserted {
    pub(crate) id: Uuid,
    pub(crate) outcome: UpsertOutcome,
}

/// Updates the row `id` with what the body sets.
pub(crate) fn update(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    input: RowInput,
) -> Result<(), ApiError> {
    if !table.writable {
        let message = format!("The 'Update' method does not support entities of type '{}'.", table.logical);
        return Err(ApiError::new(Code::MessageNotSupported, message));
    }
    if let Some((name, ..)) = input.children.first() {
        return Err(ApiError::bad_request(format!(
            "Deep update of the navigation property '{name}' is not supported."
        )));
    }
    let mut cells: Vec<Cell> = Vec::with_capacity(input.cells.len() + 8);
    cells.extend(input.cells.into_iter().filter(|(ordinal, _)| table.column(*ordinal).for_update));
    for (ordinal, target, bind) in &input.binds {
        if table.column(*ordinal).for_update {
            cells.push((*ordinal, bind_value(session, database, table, *ordinal, *target, bind)?));
        }
    }
    apply(session, database, table, id, cells)?;
    super::create::store_images(session, database, table, id, input.images)
}

/// Applies checked cells to a row.
pub(super) fn apply(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    mut cells: Vec<Cell>,
) -> Result<(), ApiError> {
    let schema = Arc::clone(&database.schema);
    let before = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    let cleared =
        cells.iter().find(|(ordinal, value)| value.is_none() && table.column(*ordinal).required == Required::System);
    if let Some((ordinal, _)) = cleared {
        return Err(required(table, &table.column(*ordinal).logical));
    }
    let state_before = before.int(table.known.state).and_then(|state| i32::try_from(state).ok());
    let new_state = state::complete(table, &mut cells, state_before)?;
    if let (Some(action), Some(1)) = (&table.close_action, new_state) {
        // Only the action that records the resolution leads out of the active state.
        if state_before == Some(0) {
            return Err(state::needs_action(table, action));
        }
    }
    money::complete(session, database, &schema, table, &mut cells, Some(before))?;
    name_people(table, &mut cells, Some(before));
    let is_assigned = table.known.owner.is_some_and(|owner| cells.iter().any(|(ordinal, _)| *ordinal == owner));
    if is_assigned {
        add_owner(session, database, &schema, table, &mut cells)?;
    }
    store(session, database, table, id, cells)?;
    if is_assigned { super::assign::follow(session, database, table, id) } else { Ok(()) }
}

/// Writes cells and the columns that say who changed the row when.
pub(super) fn store(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    mut cells: Vec<Cell>,
) -> Result<(), ApiError> {
    let schema = Arc::clone(&database.schema);
    let users = schema.by_logical("systemuser").map_or(0, |table| table.id);
    if let Some(ordinal) = table.known.modified_on {
        cells.push((ordinal, Some(Value::Time(session.now))));
    }
    if let Some(ordinal) = table.known.modified_by {
        cells.push((ordinal, Some(Value::Lookup(users, session.user))));
    }
    if let (Some(ordinal), Some(delegate)) = (table.known.modified_on_behalf, session.delegate) {
        cells.push((ordinal, Some(Value::Lookup(users, delegate))));
    }
    // Stable, so that of two values for one column the later wins.
    cells.sort_by_key(|(ordinal, _)| *ordinal);
    keep_last(&mut cells);
    if session.detect_duplicates {
        super::duplicates::check(database, &schema, table, &cells, Some(id))?;
    }
    let before = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    if session.sink {
        let digests = digests::cell(&schema, table, Some(before), &cells);
        super::create::keep_keys_only(table, &mut cells, digests);
    }
    let merged = merge(before, &cells);
    cells.retain(|(ordinal, _)| *ordinal != DIGESTS);
    if let Err(violation) = database.put(table.id, id, merged) {
        // A refused row has changed nothing: what was to be written is made again for the error.
        let written = database.get(table.id, &id).map(|before| Row { version: 0, cells: merge(before, &cells) });
        let written: Vec<Cell> = written
            .iter()
            .flat_map(|row| row.cells().map(|(ordinal, value)| (ordinal, Some(value.to_value()))))
            .collect();
        return Err(key_violation(&schema, table, &violation, (id, &written), session.settings));
    }
    let happening = Happening { message: Message::Update, table, row: id, cells: &cells };
    super::events::raise(session, database, &happening)?;
    super::activities::follow(database, table, id, session.now);
    if table.is_elastic && table.known.ttl.is_some_and(|ttl| cells.iter().any(|(ordinal, _)| *ordinal == ttl)) {
        super::create::schedule_expiry(session, database, table, id);
    }
    if session.plugins.is_empty() { Ok(()) } else { run_plugins(session, database, &schema, table, id) }
}

fn keep_last(cells: &mut Vec<Cell>) {
    cells.reverse();
    cells.dedup_by_key(|(ordinal, _)| *ordinal);
    cells.reverse();
}

/// Updates the addressed row, or creates it.
pub(crate) fn upsert(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    address: &RowAddress,
    mut input: RowInput,
) -> Result<Upserted, ApiError> {
    if let Some(id) = address.find(database, table) {
        if table.is_elastic {
            return replace(session, database, table, id, input);
        }
        if let RowAddress::Key(key) = address {
            // The key cannot be changed through itself.
            input.cells.retain(|(ordinal, _)| !key.values.iter().any(|(column, _)| column == ordinal));
            input.binds.retain(|(ordinal, ..)| !key.values.iter().any(|(column, _)| column == ordinal));
        }
        update(session, database, table, id, input)?;
        return Ok(Upserted { id, outcome: UpsertOutcome::Updated });
    }
    match address {
        RowAddress::Id(id) if table.is_elastic => input.id = input.id.or(Some(*id)),
        RowAddress::Id(id) => input.id = Some(*id),
        RowAddress::Key(key) => add_key_values(table, &key.values, &mut input),
    }
    let id = create(session, database, table, input)?;
    Ok(Upserted { id, outcome: UpsertOutcome::Created })
}

/// An upsert into an elastic table replaces the whole row, its place aside.
fn replace(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    mut input: RowInput,
) -> Result<Upserted, ApiError> {
    let row = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    input.id = match row.get(0) {
        Some(crate::storage::ValueRef::Guid(id)) => Some(id),
        _ => Some(id),
    };
    if let Some(partition) = table.known.partition {
        input.cells.retain(|(ordinal, _)| *ordinal != partition);
        input.cells.push((partition, row.get(partition).map(|value| value.to_value())));
    }
    input.replaces = true;
    let id = create(session, database, table, input)?;
    Ok(Upserted { id, outcome: UpsertOutcome::Updated })
}

/// Key values of the address fill what the body leaves out; the body wins where both speak.
fn add_key_values(table: &Table, values: &[(Ordinal, Value)], input: &mut RowInput) {
    for (ordinal, value) in values {
        if input.sets(*ordinal) {
            continue;
        }
        match value {
            Value::Lookup(..) => input.binds.extend(lookup_bind(table, *ordinal, value)),
            _ => input.cells.push((*ordinal, Some(value.clone()))),
        }
    }
}

fn lookup_bind(table: &Table, ordinal: Ordinal, value: &Value) -> Option<(Ordinal, u16, super::BindReference)> {
    let Value::Lookup(_, id) = value else {
        return None;
    };
    let crate::schema::ColumnKind::Lookup { targets } = &table.column(ordinal).kind else {
        return None;
    };
    targets.first()?;
    Some((ordinal, 0, super::BindReference::FirstTarget(*id)))
}
