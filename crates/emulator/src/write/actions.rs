//! Actions with rules of their own: CloseIncident, Merge.
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
use crate::schema::{Schema, Table};
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
    if target == subordinate {
        let message = "Merge cannot be performed on master and sub-entities that are identical.";
        return Err(ApiError::new(Code::MergeIdentical, message));
    }
    for id in [target, subordinate] {
        let row = database.get(table.id, &id).ok_or_else(|| does_not_exist(table, id))?;
        if row.int(table.known.state) != Some(0) {
            let message = "Merge cannot be performed on entity that is inactive.";
            return Err(ApiError::new(Code::MergeNotActive, message));
        }
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
