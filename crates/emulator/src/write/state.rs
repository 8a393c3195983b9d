//! State and status: which pairs exist, and what one implies for the other.
//!
//! Promise: a row never holds a status of another state. Left out: actions that change state
//! with more than two columns (`actions`).

use crate::error::{ApiError, Code};
use crate::schema::{ColumnKind, Opt, Ordinal, State, Table};
use crate::storage::Value;

type Cell = (Ordinal, Option<Value>);

struct Options<'a> {
    states: &'a [State],
    statuses: &'a [Opt],
    state: Ordinal,
    status: Ordinal,
}

fn options(table: &Table) -> Option<Options<'_>> {
    let (state, status) = (table.known.state?, table.known.status?);
    match (&table.column(state).kind, &table.column(status).kind) {
        (ColumnKind::State { states }, ColumnKind::Status { set }) => {
            Some(Options { states, statuses: &set.options, state, status })
        }
        _ => None,
    }
}

fn number(cells: &[Cell], ordinal: Ordinal) -> Option<i32> {
    cells.iter().find_map(|(found, value)| match value {
        Some(Value::Int(number)) if *found == ordinal => i32::try_from(*number).ok(),
        _ => None,
    })
}

fn set(cells: &mut Vec<Cell>, ordinal: Ordinal, number: i32) {
    let value = Some(Value::Int(i64::from(number)));
    match cells.iter_mut().find(|(found, _)| *found == ordinal) {
        Some(cell) => cell.1 = value,
        None => cells.push((ordinal, value)),
    }
}

/// Completes the pair in `cells`. `current` is the row's state before, for updates.
/// Returns the new state if the cells set one.
pub(super) fn complete(table: &Table, cells: &mut Vec<Cell>, current: Option<i32>) -> Result<Option<i32>, ApiError> {
    let Some(options) = options(table) else {
        return Ok(None);
    };
    let (state, status) = (number(cells, options.state), number(cells, options.status));
    if state.is_none() && status.is_none() && current.is_some() {
        return Ok(None);
    }
    let first = options.states.first().map_or(0, |state| state.value);
    let new_state = state.or(current).unwrap_or_else(|| {
        // A create that names only a status takes the state it belongs to.
        let of_status = status.and_then(|status| options.statuses.iter().find(|option| option.value == status));
        of_status.and_then(|option| option.state).unwrap_or(first)
    });
    let new_status = match status {
        Some(status) => status,
        None => default_status(&options, new_state),
    };
    let belongs = options.statuses.iter().any(|option| option.value == new_status && option.state == Some(new_state));
    if !belongs {
        return Err(ApiError::new(
            Code::InvalidStateCodeStatusCode,
            format!("{new_status} is not a valid status code on {} for state code {new_state}.", table.logical),
        ));
    }
    set(cells, options.state, new_state);
    set(cells, options.status, new_status);
    Ok(Some(new_state))
}

fn default_status(options: &Options<'_>, state: i32) -> i32 {
    options.states.iter().find(|known| known.value == state).map_or(0, |known| known.default_status)
}

/// The error of a state that only an action may set.
pub(super) fn needs_action(table: &Table, action: &str) -> ApiError {
    ApiError::new(
        Code::InvalidState,
        format!("The state of {} cannot be set by an update; use the action {action}.", table.logical),
    )
}
