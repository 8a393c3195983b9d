//! Turning references into lookup values.
//!
//! Promise: a reference by alternate key, by id, or by content id ends in a row that exists and
//! belongs to a table the lookup points at. Left out: reading references from text (`address`).

use uuid::Uuid;

use super::{Session, under_status};
use crate::address::{Reference, RowAddress};
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, Ordinal, Table, TableId};
use crate::storage::{Database, Value};

/// What a bind asks for.
#[derive(Clone, Debug)]
pub(crate) enum BindReference {
    Clear,
    To(Reference),
    /// A row of the lookup's first target, as lookups inside key addresses name it.
    FirstTarget(Uuid),
}

/// The row a reference names.
pub(crate) fn resolve(
    session: &Session<'_>,
    database: &Database,
    reference: &Reference,
) -> Result<(TableId, Uuid), ApiError> {
    match reference {
        Reference::ContentId(content_id) => {
            let found = session.content_ids.and_then(|ids| ids.get(content_id)).copied();
            found.ok_or_else(|| unknown_content_id(content_id))
        }
        Reference::Row(table, address) => {
            if let RowAddress::Id(id) = address {
                if !session.settings.check_lookups {
                    return Ok((table.id, *id));
                }
            }
            let id = address.find(database, table).ok_or_else(|| unresolved(session, address, table))?;
            Ok((table.id, id))
        }
    }
}

pub(crate) fn unknown_content_id(content_id: &str) -> ApiError {
    ApiError::bad_request(format!("Content-ID Reference: '${content_id}' does not exist in the batch context."))
}

fn unresolved(session: &Session<'_>, address: &RowAddress, table: &Table) -> ApiError {
    let error = address.missing(table);
    under_status(error, session.settings.unresolved_bind_status)
}

/// The lookup value a bind stands for, or `None` to clear.
pub(super) fn bind_value(
    session: &Session<'_>,
    database: &Database,
    table: &Table,
    ordinal: Ordinal,
    target: u16,
    bind: &BindReference,
) -> Result<Option<Value>, ApiError> {
    let column = table.column(ordinal);
    let reference = match bind {
        BindReference::Clear if !session.settings.null_bind_clears => {
            return Err(ApiError::bad_request(format!("The lookup '{}' cannot be set to null.", column.logical)));
        }
        BindReference::Clear => return Ok(None),
        BindReference::To(reference) => reference,
        BindReference::FirstTarget(id) => {
            let ColumnKind::Lookup { targets } = &column.kind else {
                return Ok(None);
            };
            return Ok(targets.first().map(|first| Value::Lookup(first.table, *id)));
        }
    };
    let (target_table, id) = resolve(session, database, reference)?;
    if !accepts(column, target, target_table) {
        return Err(ApiError::new(
            Code::InvalidArgument,
            format!("The lookup '{}' cannot point at the table of the given reference.", column.logical),
        ));
    }
    Ok(Some(Value::Lookup(target_table, id)))
}

/// Whether the navigation property of this target leads to the table; the owner's leads to two.
fn accepts(column: &Column, target: u16, table: TableId) -> bool {
    let ColumnKind::Lookup { targets } = &column.kind else {
        return false;
    };
    let Some(chosen) = targets.get(usize::from(target)) else {
        return false;
    };
    targets.iter().any(|other| other.table == table && other.navigation == chosen.navigation)
}
