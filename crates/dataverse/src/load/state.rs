//! States and statuses: which one a row should be in, and what brings it there.
//!
//! Most tables take `statecode` and `statuscode` in an update. An incident is resolved only by the
//! CloseIncident message (dossier section 7.3); reopening and cancelling it are updates again.

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch};
use flowgate_core::destination::{Operation, WriteUnit};
use flowgate_core::shape::{STATE_COLUMN, StatusShape, TableShape};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use uuid::Uuid;

use crate::json_out::write_text;

/// A state and a status that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: i32,
    pub(super) status: i32,
    /// Only the closing message leads there.
    pub(super) needs_closing: bool,
}

/// Tables with a closing message, and the state it leads to.
const CLOSED_STATES: &[(&str, i32)] = &[("incident", 1)];

/// Tables whose rows are set aside in another state than 1: a resolved incident is not an inactive
/// one, a cancelled one is.
const INACTIVE_STATES: &[(&str, i32)] = &[("incident", 2)];
const INACTIVE_STATE: i32 = 1;
const ACTIVE_STATE: i32 = 0;

pub(super) fn has_closing_message(shape: &TableShape) -> bool {
    CLOSED_STATES.iter().any(|(table, _)| *table == shape.table)
}

/// The status each row of the unit should be in.
pub(super) fn wanted(unit: &WriteUnit) -> Result<Vec<Status>, ConnectorError> {
    let shape = &unit.shape;
    if unit.operation == Operation::Deactivate {
        let named = INACTIVE_STATES.iter().find(|(table, _)| *table == shape.table);
        let state = named.map_or(INACTIVE_STATE, |(_, state)| *state);
        return Ok(vec![default_of(shape, state)?; unit.len()]);
    }
    let column = state_column(&unit.rows)?;
    let mut statuses = Vec::with_capacity(unit.len());
    for row in 0..unit.len() {
        statuses.push(if column.is_valid(row) {
            known(shape, column.value(row))?
        } else {
            default_of(shape, ACTIVE_STATE)?
        });
    }
    Ok(statuses)
}

fn state_column(rows: &RecordBatch) -> Result<&arrow_array::Int32Array, ConnectorError> {
    let column = rows.column_by_name(STATE_COLUMN).and_then(|column| column.as_primitive_opt::<Int32Type>());
    column.ok_or_else(|| {
        let message = format!("a unit that sets states has no column `{STATE_COLUMN}`");
        ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message)
    })
}

fn known(shape: &TableShape, status: i32) -> Result<Status, ConnectorError> {
    let found = shape.statuses.iter().find(|candidate| candidate.status == status);
    let found = found.ok_or_else(|| no_status(shape, &format!("status `{status}`")))?;
    Ok(status_of(shape, found))
}

fn default_of(shape: &TableShape, state: i32) -> Result<Status, ConnectorError> {
    let found = shape.statuses.iter().find(|candidate| candidate.state == state && candidate.is_default);
    let found = found.ok_or_else(|| no_status(shape, &format!("default status for state `{state}`")))?;
    Ok(status_of(shape, found))
}

fn status_of(shape: &TableShape, found: &StatusShape) -> Status {
    let needs_closing = CLOSED_STATES.iter().any(|(table, state)| *table == shape.table && *state == found.state);
    Status { state: found.state, status: found.status, needs_closing }
}

fn no_status(shape: &TableShape, what: &str) -> ConnectorError {
    let message = format!("table `{}` has no {what}", shape.table);
    ConnectorError::new(ErrorKind::Schema, Code::STATE_RULE, message)
        .hint("use the labels of the table's status column in `state:`")
}

/// The members that set a status, each with a comma before it.
pub(super) fn write_members(status: Status, body: &mut Vec<u8>) {
    let members = format!(",\"statecode\":{},\"statuscode\":{}", status.state, status.status);
    body.extend_from_slice(members.as_bytes());
}

/// The body of CloseIncident for one row.
pub(super) fn closing_body(shape: &TableShape, id: Uuid, status: Status) -> Vec<u8> {
    let label = shape.statuses.iter().find(|candidate| candidate.status == status.status);
    let mut body =
        b"{\"IncidentResolution\":{\"@odata.type\":\"Microsoft.Dynamics.CRM.incidentresolution\",\"subject\":".to_vec();
    write_text(label.map_or("Resolved", |status| status.label.as_str()), &mut body);
    let rest = format!(",\"incidentid@odata.bind\":\"/{}({id})\"}},\"Status\":{}}}", shape.set, status.status);
    body.extend_from_slice(rest.as_bytes());
    body
}
