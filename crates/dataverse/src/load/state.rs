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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array};
    use flowgate_core::destination::WriteOptions;

    use super::*;

    fn unit(table: &str, operation: Operation, statuses: &[Option<i32>]) -> WriteUnit {
        let status =
            |state, status, label: &str, is_default| StatusShape { state, status, label: label.to_owned(), is_default };
        let shape = TableShape {
            table: table.to_owned(),
            set: format!("{table}s"),
            primary_id: format!("{table}id"),
            columns: BTreeMap::new(),
            keys: Vec::new(),
            atomic: true,
            owner: None,
            created_on: None,
            statuses: vec![
                status(0, 1, "In Progress", true),
                status(1, 5, "Problem \"Solved\"", true),
                status(1, 1_000, "Information Provided", false),
                status(2, 6, "Cancelled", true),
            ],
        };
        let column: ArrayRef = Arc::new(Int32Array::from(statuses.to_vec()));
        WriteUnit {
            shape: Arc::new(shape),
            operation,
            ids: vec![Uuid::nil(); statuses.len()],
            rows: RecordBatch::try_from_iter_with_nullable([(STATE_COLUMN, column, true)]).unwrap(),
            columns: None,
            resent: false,
            options: WriteOptions::default(),
        }
    }

    fn pairs(unit: &WriteUnit) -> Vec<(i32, i32, bool)> {
        wanted(unit).unwrap().iter().map(|status| (status.state, status.status, status.needs_closing)).collect()
    }

    #[test]
    fn a_null_status_is_the_active_default_and_only_incidents_are_closed() {
        let statuses = [Some(1_000), None, Some(6)];
        assert_eq!(
            pairs(&unit("incident", Operation::SetState, &statuses)),
            [(1, 1_000, true), (0, 1, false), (2, 6, false)]
        );
        assert_eq!(pairs(&unit("wr_order", Operation::SetState, &[Some(5)])), [(1, 5, false)]);
    }

    #[test]
    fn an_incident_set_aside_is_cancelled_and_not_resolved() {
        assert_eq!(pairs(&unit("incident", Operation::Deactivate, &[None])), [(2, 6, false)]);
        assert_eq!(pairs(&unit("account", Operation::Deactivate, &[None])), [(1, 5, false)]);
    }

    #[test]
    fn a_closing_names_the_incident_and_its_status() {
        let unit = unit("incident", Operation::SetState, &[Some(5)]);
        let body = closing_body(&unit.shape, Uuid::nil(), wanted(&unit).unwrap()[0]);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["Status"], 5);
        assert_eq!(body["IncidentResolution"]["subject"], "Problem \"Solved\"");
        assert_eq!(body["IncidentResolution"]["incidentid@odata.bind"], format!("/incidents({})", Uuid::nil()));
    }
}
