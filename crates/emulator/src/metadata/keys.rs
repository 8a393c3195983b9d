//! Alternate keys: created Pending, built by a job, Active or Failed.
//!
//! Promise: until a key is active it neither addresses rows nor keeps them unique.

use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::render;
use super::write::{body_of, change, created, label_of, require_identifier, text};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::schema::{AlternateKey, Column, ColumnKind, KeyStatus, Schema, Table, TableId, stable_id};
use crate::storage::{Database, Job, JobKind};
use crate::web::{Access, Answer, Call, Request};

/// Most alternate keys of a table, and most columns of a key.
const KEYS_MAX: usize = 10;
const KEY_COLUMNS_MAX: usize = 16;

/// Every elastic table has the key of primary id and partition.
pub(super) fn add_elastic_key(table: &mut Table) {
    if table.is_elastic {
        let partition = table.columns.iter().position(|column| column.logical == "partitionid").unwrap_or_default();
        let name = "KeyForNoSqlEntityWithPKPartitionId";
        table.keys.push(AlternateKey {
            id: stable_id(&format!("{}.key.{name}", table.logical)),
            schema_name: name.to_owned(),
            label: name.into(),
            columns: vec![0, partition as u16],
            status: KeyStatus::Active,
        });
    }
}

pub(super) fn create_key(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let schema_name = text(&body, "SchemaName")?.to_owned();
    let names: Vec<String> = body
        .get("KeyAttributes")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let label = label_of(&body, "DisplayName", &schema_name);
    let table_id = table.id;
    let id = stable_id(&format!("{}.key.{schema_name}.{}", table.logical, call.now));
    access.write(|database| {
        change(call, database, |schema| {
            let columns = key_columns(schema.table(table_id), &schema_name, &names)?;
            let entry = Arc::make_mut(&mut schema.tables[usize::from(table_id)]);
            entry.keys.push(AlternateKey { id, schema_name, label, columns, status: KeyStatus::Pending });
            Ok(())
        })?;
        schedule_key(call, database, table_id, id);
        Ok(())
    })?;
    Ok(created(call, &format!("EntityDefinitions({})/Keys({id})", table.metadata_id)))
}

fn schedule_key(call: &Call<'_>, database: &mut Database, table: TableId, key: Uuid) {
    let delay = call.settings.key_delay_s;
    for share in [0.5, 1.0] {
        database.schedule(Job { due: call.now + delay * share, kind: JobKind::Key { table, key } });
    }
}

fn key_columns(table: &Table, schema_name: &str, names: &[String]) -> Result<Vec<u16>, ApiError> {
    if table.keys.iter().any(|key| key.schema_name.eq_ignore_ascii_case(schema_name)) {
        return Err(ApiError::new(
            Code::EntityKeyNameExists,
            format!("An entity key with the name {schema_name} already exists."),
        ));
    }
    require_identifier(schema_name)?;
    let mut columns = Vec::new();
    for name in names {
        let column = table.find(name).ok_or_else(|| {
            ApiError::new(Code::NoSuchColumn, format!("The attribute '{name}' does not exist on '{}'.", table.logical))
        })?;
        if !can_be_key(column) {
            let message = format!("The attribute '{name}' is of a type that an entity key cannot have.");
            return Err(ApiError::new(Code::InvalidEntityKeyOperation, message));
        }
        columns.push(column.ordinal);
    }
    if columns.is_empty() || columns.len() > KEY_COLUMNS_MAX || table.keys.len() >= KEYS_MAX || table.is_elastic {
        return Err(ApiError::new(
            Code::InvalidEntityKeyOperation,
            "The entity key cannot be created: too many keys, or too few or too many columns.",
        ));
    }
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    let same = |key: &AlternateKey| {
        let mut other = key.columns.clone();
        other.sort_unstable();
        other == sorted
    };
    if table.keys.iter().any(same) {
        return Err(ApiError::new(
            Code::EntityKeyWithSelectedAttributesExists,
            "An entity key with the selected attributes already exists.",
        ));
    }
    Ok(columns)
}

fn can_be_key(column: &Column) -> bool {
    matches!(
        column.kind,
        ColumnKind::Text { .. }
            | ColumnKind::Integer { .. }
            | ColumnKind::Decimal { .. }
            | ColumnKind::DateTime { .. }
            | ColumnKind::Lookup { .. }
            | ColumnKind::Choice { .. }
    )
}

/// Moves a key on by one step; called when its job falls due.
pub(crate) fn finish_key(database: &mut Database, table: TableId, key: Uuid, now: f64) {
    let current = database.schema.table(table).keys.iter().find(|known| known.id == key);
    let Some((status, columns)) = current.map(|key| (key.status, key.columns.clone())) else {
        return;
    };
    let next = match status {
        KeyStatus::Pending => KeyStatus::InProgress,
        KeyStatus::InProgress if database.build_index(table, key, &columns) => KeyStatus::Active,
        KeyStatus::InProgress => KeyStatus::Failed,
        done => done,
    };
    let mut schema = Schema::clone(&database.schema);
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    if let Some(known) = entry.keys.iter_mut().find(|known| known.id == key) {
        known.status = next;
    }
    schema.version += 1;
    schema.reindex();
    super::changes::record(&database.schema, &mut schema, now);
    database.set_schema(schema, now);
}

/// `ReactivateEntityKey`: tries a failed key again.
pub(crate) fn reactivate_key(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table, key) = (text(&body, "EntityLogicalName")?.to_owned(), text(&body, "EntityKeyLogicalName")?.to_owned());
    access.write(|database| {
        let (table, id) = change(call, database, |schema| {
            let table = schema.by_logical(&table).map(|table| table.id).ok_or_else(|| ApiError::no_resource(&table))?;
            let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
            let found = entry.keys.iter_mut().find(|known| known.schema_name.eq_ignore_ascii_case(&key));
            let found = found.ok_or_else(|| ApiError::no_resource(&key))?;
            if found.status != KeyStatus::Failed {
                return Err(ApiError::new(Code::EntityKeyNotFailed, "The entity key is not in the failed state."));
            }
            found.status = KeyStatus::Pending;
            Ok((table, found.id))
        })?;
        schedule_key(call, database, table, id);
        Ok(())
    })?;
    Ok(Answer::no_content().with_work(Message::Metadata, 1))
}

pub(super) fn delete_key(
    call: &Call<'_>,
    access: &mut Access<'_>,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let key =
        table.keys.iter().find(|key| render::is_named(inner, key.id, "LogicalName", &key.schema_name.to_lowercase()));
    let (table, key) = (table.id, key.ok_or_else(|| ApiError::no_resource(inner))?.id);
    access.write(|database| {
        change(call, database, |schema| {
            Arc::make_mut(&mut schema.tables[usize::from(table)]).keys.retain(|known| known.id != key);
            Ok(())
        })?;
        database.drop_index(table, key);
        Ok(())
    })?;
    Ok(Answer::no_content())
}
