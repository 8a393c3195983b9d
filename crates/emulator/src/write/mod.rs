//! Writing rows: from a JSON body to cells in the database, with every rule in between.
//!
//! `parse` reads bodies straight into typed values, `convert` checks single values, `create`,
//! `update` and `delete` apply them inside a transaction, `bulk` and `actions` build on those.
//! Promise: no rule is checked in two places. Left out: HTTP.

mod actions;
mod activities;
mod assign;
mod associate;
mod bulk;
mod convert;
mod create;
mod delete;
mod duplicates;
mod events;
mod files;
mod money;
mod parse;
mod queues;
mod resolve;
mod state;
mod time;
mod update;

use uuid::Uuid;

pub(crate) use actions::{CloseIncident, close_incident, merge_rows};
pub(crate) use associate::{link, unlink};
pub(crate) use bulk::{BulkKind, run_bulk};
pub(crate) use convert::{Scalar, ValueRules, convert, parse_decimal};
pub(crate) use create::{create, primary_id_of};
pub(crate) use delete::{delete, delete_expired, delete_many};
pub(crate) use events::Hooks;
pub(crate) use files::{Content, bytes_max, check_content, clear_content, file_of, store_content};
pub(crate) use parse::{RowInput, parse_row, parse_targets};
pub(crate) use queues::{add_to_queue, remove_from_queue, route_to, work_on};
pub(crate) use resolve::{BindReference, resolve, unknown_content_id};
pub(crate) use time::{civil_from_days, days_from_civil, format_date, format_time, parse_time};
pub(crate) use update::{UpsertOutcome, Upserted, update, upsert};

use crate::error::{ApiError, Code};
use crate::schema::{AlternateKey, Ordinal, Schema, Table};
use crate::settings::Settings;
use crate::storage::{Database, KeyViolation, Value};

/// Who asks, when, and under which rules: what every operation of one request shares.
pub(crate) struct Session<'a> {
    pub(crate) user: Uuid,
    pub(crate) business_unit: Uuid,
    /// The caller that acts as `user`, if another.
    pub(crate) delegate: Option<Uuid>,
    /// Simulated seconds since 1970.
    pub(crate) now: i64,
    pub(crate) settings: &'a Settings,
    pub(crate) base_currency: Uuid,
    pub(crate) organization: Uuid,
    /// Rows keep keys and system columns only.
    pub(crate) sink: bool,
    pub(crate) detect_duplicates: bool,
    pub(crate) bypass_plugins: bool,
    pub(crate) bypass_async: bool,
    pub(crate) bypass_steps: Vec<Uuid>,
    /// Steps that hear of what the request does.
    pub(crate) hooks: Option<&'a Hooks>,
    pub(crate) plugins: &'a [RejectRule],
    /// Rows made earlier in the same change set, by content id.
    pub(crate) content_ids: Option<&'a std::collections::HashMap<String, (crate::schema::TableId, Uuid)>>,
}

/// An injected plug-in that refuses rows by a column's value.
#[derive(Clone, Debug)]
pub(crate) struct RejectRule {
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) value: String,
    pub(crate) message: String,
}

/// An error under the status that a setting names.
pub(crate) fn under_status(error: ApiError, status: u16) -> ApiError {
    match http::StatusCode::from_u16(status) {
        Ok(status) => error.with_status(status),
        Err(_) => error,
    }
}

/// The error of an alternate key that is taken.
///
/// Its annotations tell the values that are taken and the row that was being written; whose they are is not told.
pub(crate) fn key_violation(
    schema: &Schema,
    table: &Table,
    violation: &KeyViolation,
    (id, cells): (Uuid, &[(Ordinal, Option<Value>)]),
    settings: &Settings,
) -> ApiError {
    let key = table.keys.iter().find(|key| key.id == violation.key);
    let name = key.map_or("", |key| &*key.label);
    let columns: Vec<&str> =
        key.into_iter().flat_map(|key| &key.columns).map(|ordinal| &*table.column(*ordinal).label).collect();
    let message = format!(
        "Entity Key {name} violated. A record with the same value for {} already exists. A duplicate record cannot be \
         created. Select one or more unique values and try again.",
        columns.join(", ")
    );
    let mut error = ApiError::new(Code::DuplicateRecordEntityKey, message);
    error.details.extend([
        ("ErrorDetails.0", name.to_owned()),
        ("ErrorDetails.1", columns.join(", ")),
        ("ErrorDetails.DuplicateAttributes", duplicate_attributes(schema, table, key, cells)),
        ("ErrorDetails.DuplicateEntity", duplicate_entity(schema, table, id, cells)),
    ]);
    under_status(error, settings.key_violation_status)
}

fn value_text(schema: &Schema, table: &Table, (ordinal, value): &(Ordinal, Option<Value>)) -> String {
    let text = |value: &Value| crate::query::plain_text(schema, table.column(*ordinal), &value.as_ref());
    escaped(&value.as_ref().map(text).unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `<DuplicateAttributes><accountnumber>C-1</accountnumber></DuplicateAttributes>`.
fn duplicate_attributes(
    schema: &Schema,
    table: &Table,
    key: Option<&AlternateKey>,
    cells: &[(Ordinal, Option<Value>)],
) -> String {
    let mut xml = String::from("<DuplicateAttributes>");
    for ordinal in key.into_iter().flat_map(|key| &key.columns) {
        let name = &table.column(*ordinal).logical;
        let cell = cells.iter().find(|(found, _)| found == ordinal);
        let value = cell.map(|cell| value_text(schema, table, cell)).unwrap_or_default();
        for piece in ["<", name, ">", &value, "</", name, ">"] {
            xml.push_str(piece);
        }
    }
    xml + "</DuplicateAttributes>"
}

/// The row that was being written, as the service serializes it.
fn duplicate_entity(schema: &Schema, table: &Table, id: Uuid, cells: &[(Ordinal, Option<Value>)]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-16\"?><Entity><Attributes>");
    // Digests of the `sink` profile are no column.
    let is_column = |ordinal: &Ordinal| usize::from(*ordinal) < table.columns.len();
    for cell in cells.iter().filter(|(ordinal, value)| value.is_some() && is_column(ordinal)) {
        let (name, value) = (&table.column(cell.0).logical, value_text(schema, table, cell));
        let pieces = [
            "<KeyValuePairOfstringanyType><d2p1:key>",
            name,
            "</d2p1:key><d2p1:value>",
            &value,
            "</d2p1:value></KeyValuePairOfstringanyType>",
        ];
        for piece in pieces {
            xml.push_str(piece);
        }
    }
    xml + &format!("</Attributes><Id>{id}</Id><LogicalName>{}</LogicalName></Entity>", table.logical)
}

/// Refuses rows that an injected plug-in rejects.
pub(crate) fn run_plugins(
    session: &Session<'_>,
    database: &Database,
    schema: &Schema,
    table: &Table,
    id: Uuid,
) -> Result<(), ApiError> {
    if session.bypass_plugins {
        return Ok(());
    }
    for rule in session.plugins.iter().filter(|rule| rule.table == table.logical) {
        let Some(column) = table.find(&rule.column) else {
            continue;
        };
        let value = database.get(table.id, &id).and_then(|row| row.get(column.ordinal));
        let text = value.map(|value| crate::query::plain_text(schema, column, &value));
        if text.as_deref() == Some(rule.value.as_str()) {
            return Err(ApiError::new(Code::IsvAborted, rule.message.clone()));
        }
    }
    Ok(())
}
