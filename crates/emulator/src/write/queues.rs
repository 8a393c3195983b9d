//! Queues: putting rows in, taking them out, passing them on.
//!
//! Promise: a row has at most one item in all queues. Left out: privileges on queues.

use std::sync::Arc;

use uuid::Uuid;

use super::create::create;
use super::parse::RowInput;
use super::{Session, delete_many, update};
use crate::address::does_not_exist;
use crate::error::{ApiError, Code};
use crate::schema::{ColumnKind, Table};
use crate::storage::{Database, Value};

fn table_named(database: &Database, name: &str) -> Result<Arc<Table>, ApiError> {
    database.schema.by_logical(name).cloned().ok_or_else(|| ApiError::not_here(&format!("the table '{name}'")))
}

/// Puts a row into a queue and returns the queue item's id; an item it has already moves over.
pub(crate) fn add_to_queue(
    session: &Session<'_>,
    database: &mut Database,
    queue: Uuid,
    table: &Table,
    id: Uuid,
) -> Result<Uuid, ApiError> {
    let (queues, items) = (table_named(database, "queue")?, table_named(database, "queueitem")?);
    database.get(queues.id, &queue).ok_or_else(|| does_not_exist(&queues, queue))?;
    let row = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    let title = table.primary_name.and_then(|ordinal| row.get(ordinal)).map(|value| value.to_value());
    let (Some(object), Some(in_queue)) = (items.ordinal("objectid"), items.ordinal("queueid")) else {
        return Err(ApiError::not_here("queue items"));
    };
    let is_target = match &items.column(object).kind {
        ColumnKind::Lookup { targets } => targets.iter().any(|target| target.table == table.id),
        _ => false,
    };
    if !is_target {
        return Err(ApiError::bad_request(format!("Entities of type '{}' cannot be added to a queue.", table.logical)));
    }
    let before = database.store(items.id).pointing(object, &id).first().copied();
    let mut cells = vec![(in_queue, Some(Value::Lookup(queues.id, queue)))];
    if let Some(entered) = items.ordinal("enteredon") {
        cells.push((entered, Some(Value::Time(session.now))));
    }
    if let Some(item) = before {
        update::store(session, database, &items, item, cells)?;
        return Ok(item);
    }
    let mut input = RowInput::default();
    input.cells.extend(items.ordinal("title").map(|ordinal| (ordinal, title)));
    let type_code = Some(Value::Int(i64::from(table.object_type_code)));
    input.cells.extend(items.ordinal("objecttypecode").map(|ordinal| (ordinal, type_code)));
    input.binds.push((in_queue, 0, super::BindReference::FirstTarget(queue)));
    let item = create(session, database, &items, input)?;
    cells.push((object, Some(Value::Lookup(table.id, id))));
    update::store(session, database, &items, item, cells)?;
    Ok(item)
}

/// Takes an item out of its queue, which deletes the item.
pub(crate) fn remove_from_queue(session: &Session<'_>, database: &mut Database, item: Uuid) -> Result<(), ApiError> {
    let items = table_named(database, "queueitem")?;
    database.get(items.id, &item).ok_or_else(|| does_not_exist(&items, item))?;
    delete_many(session, database, items.id, &std::collections::HashSet::from([item]))
}

/// Makes somebody work on an item, or nobody. Picking makes them the owner of its row as well.
pub(crate) fn work_on(
    session: &Session<'_>,
    database: &mut Database,
    item: Uuid,
    worker: Option<&(Arc<Table>, Uuid)>,
    takes_ownership: bool,
) -> Result<(), ApiError> {
    let items = table_named(database, "queueitem")?;
    let row = database.get(items.id, &item).ok_or_else(|| does_not_exist(&items, item))?;
    let object = row.lookup(items.ordinal("objectid"));
    if let Some((table, id)) = worker {
        if !matches!(table.logical.as_str(), "systemuser" | "team") {
            return Err(ApiError::new(Code::InvalidArgument, "A worker is a user or a team."));
        }
        database.get(table.id, id).ok_or_else(|| does_not_exist(table, *id))?;
    }
    let value = worker.map(|(table, id)| Value::Lookup(table.id, *id));
    let mut cells: Vec<_> = items.ordinal("workerid").map(|ordinal| (ordinal, value.clone())).into_iter().collect();
    cells.extend(items.ordinal("workeridmodifiedon").map(|ordinal| (ordinal, Some(Value::Time(session.now)))));
    update::store(session, database, &items, item, cells)?;
    let (Some((table, id)), Some(value), true) = (object, value, takes_ownership) else {
        return Ok(());
    };
    let table = Arc::clone(database.schema.table(table));
    match table.known.owner {
        Some(owner) => update::apply(session, database, &table, id, vec![(owner, Some(value))]),
        None => Ok(()),
    }
}

/// Passes an item on: to another queue, or to a user or team who owns its row from then on.
pub(crate) fn route_to(
    session: &Session<'_>,
    database: &mut Database,
    item: Uuid,
    target: &(Arc<Table>, Uuid),
) -> Result<(), ApiError> {
    if target.0.logical != "queue" {
        return work_on(session, database, item, Some(target), true);
    }
    let items = table_named(database, "queueitem")?;
    let row = database.get(items.id, &item).ok_or_else(|| does_not_exist(&items, item))?;
    let object = row.lookup(items.ordinal("objectid"));
    let (table, id) = object.ok_or_else(|| ApiError::bad_request("The queue item has no row."))?;
    let table = Arc::clone(database.schema.table(table));
    add_to_queue(session, database, target.1, &table, id)?;
    work_on(session, database, item, None, false)
}
