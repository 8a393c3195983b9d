//! Bulk messages: CreateMultiple, UpdateMultiple, UpsertMultiple, DeleteMultiple.
//!
//! Promise: on standard tables all rows or none, errors name no index; on elastic tables every
//! row on its own, with a status per failed row. UpdateMultiple applies the first of equal rows
//! and ignores the rest; UpsertMultiple refuses the request. Left out: splitting of requests.

use std::collections::HashSet;

use uuid::Uuid;

use super::Session;
use super::create::{create, primary_id_of};
use super::delete::delete;
use super::parse::RowInput;
use super::update::{UpsertOutcome, update, upsert};
use crate::address::{RowAddress, elastic_row_id};
use crate::error::{ApiError, Code};
use crate::schema::Table;
use crate::storage::{Database, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkKind {
    Create,
    Update,
    Upsert,
    Delete,
}

#[derive(Debug, Default)]
pub(crate) struct BulkResult {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
}

/// Runs a bulk message inside the caller's transaction.
pub(crate) fn run_bulk(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    kind: BulkKind,
    rows: Vec<RowInput>,
) -> Result<BulkResult, ApiError> {
    if kind == BulkKind::Delete && !table.is_elastic {
        return Err(ApiError::new(Code::MessageNotSupported, "DeleteMultiple has not yet been implemented."));
    }
    if kind == BulkKind::Upsert {
        refuse_repeated(table, &rows)?;
    }
    let mut result = BulkResult::default();
    let mut seen = HashSet::new();
    let mut failures = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let id = row.id;
        let done = if table.is_elastic {
            database.transaction(|database| one(session, database, table, kind, row, &mut seen))
        } else {
            one(session, database, table, kind, row, &mut seen)
        };
        match done {
            Ok(Some((id, done))) => result.add(id, done),
            Ok(None) => {}
            Err(error) if table.is_elastic => failures.push((index, id, error)),
            // All is undone, but the rows until then took their time.
            Err(mut error) => {
                error.work.rows = index as u64 + 1;
                return Err(error);
            }
        }
    }
    if failures.is_empty() { Ok(result) } else { Err(partial_failure(&failures)) }
}

#[derive(Clone, Copy)]
enum Done {
    Created,
    Updated,
    Deleted,
}

impl BulkResult {
    fn add(&mut self, id: Uuid, done: Done) {
        self.ids.push(id);
        match done {
            Done::Created => self.created += 1,
            Done::Updated => self.updated += 1,
            Done::Deleted => self.deleted += 1,
        }
    }
}

fn one(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    kind: BulkKind,
    row: RowInput,
    seen: &mut HashSet<Uuid>,
) -> Result<Option<(Uuid, Done)>, ApiError> {
    match kind {
        BulkKind::Create => {
            let key = create(session, database, table, row)?;
            Ok(Some((primary_id_of(database, table, key), Done::Created)))
        }
        BulkKind::Update => {
            if matches!(row.address, Some(RowAddress::Key(_))) && !session.settings.update_multiple_by_key {
                return Err(ApiError::bad_request("Entity Id must be specified for Operation"));
            }
            let id = existing(database, table, &row)?;
            if !seen.insert(id) {
                return Ok(None);
            }
            update(session, database, table, id, row)?;
            Ok(Some((id, Done::Updated)))
        }
        BulkKind::Upsert => {
            let address = row_address(table, &row)?;
            check_key_in_body(database, table, &address, &row)?;
            let upserted = upsert(session, database, table, &address, row)?;
            let done = if upserted.outcome == UpsertOutcome::Created { Done::Created } else { Done::Updated };
            Ok(Some((upserted.id, done)))
        }
        BulkKind::Delete => {
            let id = existing(database, table, &row)?;
            delete(session, database, table, id)?;
            Ok(Some((id, Done::Deleted)))
        }
    }
}

fn partition_of<'a>(table: &Table, row: &'a RowInput) -> Option<&'a str> {
    let partition = table.known.partition?;
    row.cells.iter().find_map(|(ordinal, value)| match value {
        Some(Value::Text(text)) if *ordinal == partition => Some(&**text),
        _ => None,
    })
}

/// How a target names its row: `@odata.id`, or the primary id among its columns. A target of
/// UpsertMultiple with neither is found by the values of an alternate key it sets.
fn row_address(table: &Table, row: &RowInput) -> Result<RowAddress, ApiError> {
    if let Some(address) = &row.address {
        return Ok(address.clone());
    }
    match row.id {
        Some(id) => Ok(RowAddress::Id(elastic_row_id(id, partition_of(table, row)))),
        None => Err(ApiError::bad_request("Entity Id must be specified for Operation")),
    }
}

fn existing(database: &Database, table: &Table, row: &RowInput) -> Result<Uuid, ApiError> {
    let address = row_address(table, row)?;
    address.find(database, table).ok_or_else(|| match &address {
        RowAddress::Id(id) => {
            let id = row.id.unwrap_or(*id);
            ApiError::new(Code::ObjectDoesNotExist, format!("{} With Ids = {id} Do Not Exist", table.logical))
        }
        RowAddress::Key(_) => address.missing(table),
    })
}

fn refuse_repeated(table: &Table, rows: &[RowInput]) -> Result<(), ApiError> {
    let mut seen = HashSet::with_capacity(rows.len());
    for row in rows {
        let identity = match row_address(table, row)? {
            RowAddress::Id(id) => id.as_u128(),
            RowAddress::Key(key) => key.hash().unwrap_or_default(),
        };
        if !seen.insert(identity) {
            return Err(ApiError::new(
                Code::DuplicateRecord,
                "Cannot insert duplicate key. The same row is more than once among the Targets of UpsertMultiple.",
            ));
        }
    }
    Ok(())
}

/// Key columns in the body as well as in `@odata.id` break the create path, and only that.
fn check_key_in_body(database: &Database, table: &Table, address: &RowAddress, row: &RowInput) -> Result<(), ApiError> {
    let RowAddress::Key(key) = address else {
        return Ok(());
    };
    let repeated = key.values.iter().any(|(ordinal, _)| row.sets(*ordinal));
    if repeated && address.find(database, table).is_none() {
        return Err(ApiError::new(Code::UnExpected, "An unexpected error occurred."));
    }
    Ok(())
}

/// The error of an elastic bulk message of which some rows failed; the others are kept.
fn partial_failure(failures: &[(usize, Option<Uuid>, ApiError)]) -> ApiError {
    let rows: Vec<_> = failures
        .iter()
        .map(|(index, id, error)| {
            let status = match error.status.as_u16() {
                412 => 409,
                status => status,
            };
            serde_json::json!({ "RequestIndex": index, "Id": id.unwrap_or_default(), "StatusCode": status })
        })
        .collect();
    let mut error = ApiError::new(Code::PayloadError, format!("{} rows of the bulk request failed.", failures.len()));
    let details = serde_json::Value::from(rows).to_string();
    error.details.push((crate::error::ROWS_FAILED, details));
    error
}
