//! Actions with rules of their own: CloseIncident, Merge, AddToQueue.
//!
//! Promise: each is one unit inside the caller's transaction. Left out: the JSON of their
//! parameters (`web::actions`).

use std::sync::Arc;

use uuid::Uuid;

use super::create::create;
use super::parse::RowInput;
use super::{Session, update};
use crate::address::does_not_exist;
use crate::error::{ApiError, Code};
use crate::schema::{ColumnKind, Schema, Table};
use crate::storage::{Database, Value};

fn table_named(schema: &Schema, name: &str) -> Result<Arc<Table>, ApiError> {
    schema.by_logical(name).cloned().ok_or_else(|| ApiError::not_here(&format!("the table '{name}'")))
}

/// Parameters of CloseIncident.
pub(crate) struct CloseIncident {
    pub(crate) incident: Uuid,
    pub(crate) status: i64,
    /// The incidentresolution to create, its `incidentid` left out.
    pub(crate) resolution: RowInput,
}

/// Creates the resolution and sets the case resolved with the given status.
pub(crate) fn close_incident(
    session: &Session<'_>,
    database: &mut Database,
    close: CloseIncident,
) -> Result<(), ApiError> {
    let schema = Arc::clone(&database.schema);
    let incidents = table_named(&schema, "incident")?;
    let resolutions = table_named(&schema, "incidentresolution")?;
    let row = database.get(incidents.id, &close.incident).ok_or_else(|| does_not_exist(&incidents, close.incident))?;
    if row.int(incidents.known.state) != Some(0) {
        return Err(ApiError::new(
            Code::InvalidState,
            "This case has already been resolved. Close and reopen the case record to see the updates.",
        ));
    }
    let (Some(state), Some(status)) = (incidents.known.state, incidents.known.status) else {
        return Err(ApiError::not_here("an incident table without a state"));
    };
    // -1 asks for the default status of the resolved state.
    let chosen = (close.status != -1).then_some((status, Some(Value::Int(close.status))));
    let mut cells = vec![(state, Some(Value::Int(1)))];
    cells.extend(chosen);
    super::state::complete(&incidents, &mut cells, Some(0))?;
    update::store(session, database, &incidents, close.incident, cells)?;
    let mut resolution = close.resolution;
    if let Some(column) = resolutions.ordinal("incidentid") {
        resolution.binds.retain(|(ordinal, ..)| *ordinal != column);
        resolution.binds.push((column, 0, super::BindReference::FirstTarget(close.incident)));
    }
    if let (Some(state), Some(status)) = (resolutions.known.state, resolutions.known.status) {
        resolution.cells.retain(|(ordinal, _)| *ordinal != state && *ordinal != status);
        resolution.cells.extend([(state, Some(Value::Int(1))), (status, Some(Value::Int(2)))]);
    }
    create(session, database, &resolutions, resolution).map(|_| ())
}

/// Folds `subordinate` into `target`: lookups move over, the subordinate becomes inactive.
pub(crate) fn merge_rows(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    target: Uuid,
    subordinate: Uuid,
    content: RowInput,
) -> Result<(), ApiError> {
    if !matches!(table.logical.as_str(), "account" | "contact" | "incident") {
        return Err(ApiError::new(
            Code::MessageNotSupported,
            format!("The 'Merge' method does not support '{}'.", table.logical),
        ));
    }
    for id in [target, subordinate] {
        database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    }
    let schema = Arc::clone(&database.schema);
    super::update(session, database, table, target, content)?;
    for relationship in schema.one_to_many().filter(|one| one.referenced == table.id) {
        let column = relationship.column;
        let mut rows = database.store(relationship.referencing).pointing(column, &subordinate);
        rows.retain(|row| {
            let row = database.get(relationship.referencing, row);
            row.and_then(|row| row.lookup(Some(column))) == Some((table.id, subordinate))
        });
        let child = schema.table(relationship.referencing);
        for row in rows.into_iter().filter(|row| *row != target || child.id != table.id) {
            update::store(session, database, child, row, vec![(column, Some(Value::Lookup(table.id, target)))])?;
        }
    }
    let mut cells = Vec::new();
    if let Some(merged) = table.ordinal("merged") {
        cells.push((merged, Some(Value::Int(1))));
    }
    if let Some(master) = table.ordinal("masterid") {
        cells.push((master, Some(Value::Lookup(table.id, target))));
    }
    if let (Some(state), Some(status)) = (table.known.state, table.known.status) {
        // Cases end canceled with status Merged; accounts and contacts inactive.
        let (new_state, new_status) = if table.logical == "incident" { (2, 2000) } else { (1, 2) };
        cells.extend([(state, Some(Value::Int(new_state))), (status, Some(Value::Int(new_status)))]);
    }
    update::store(session, database, table, subordinate, cells)
}

/// Puts a row into a queue and returns the queue item's id; an item it has already moves over.
pub(crate) fn add_to_queue(
    session: &Session<'_>,
    database: &mut Database,
    queue: Uuid,
    table: &Table,
    id: Uuid,
) -> Result<Uuid, ApiError> {
    let schema = Arc::clone(&database.schema);
    let (queues, items) = (table_named(&schema, "queue")?, table_named(&schema, "queueitem")?);
    database.get(queues.id, &queue).ok_or_else(|| does_not_exist(&queues, queue))?;
    let row = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
    let title = table.primary_name.and_then(|ordinal| row.get(ordinal)).map(|value| value.to_value());
    let (Some(object), Some(in_queue)) = (items.ordinal("objectid"), items.ordinal("queueid")) else {
        return Err(ApiError::not_here("queue items"));
    };
    let ColumnKind::Lookup { targets } = &items.column(object).kind else {
        return Err(ApiError::not_here("queue items"));
    };
    if !targets.iter().any(|target| target.table == table.id) {
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
    input.binds.push((in_queue, 0, super::BindReference::FirstTarget(queue)));
    let item = create(session, database, &items, input)?;
    cells.push((object, Some(Value::Lookup(table.id, id))));
    update::store(session, database, &items, item, cells)?;
    Ok(item)
}
