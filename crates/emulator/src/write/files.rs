//! File and image columns: what a stored content does to its row.
//!
//! Promise: size and type are checked before anything changes; a file is described by a row of
//! `fileattachment` under its own id; what is replaced or deleted leaves no content behind. Left
//! out: scaling of images, so a thumbnail is the image as it was stored.

use uuid::Uuid;

use super::Session;
use super::update::store;
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, Ordinal, Table};
use crate::storage::{Database, Value, ValueRef, encode};

/// A content on its way into a column.
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) bytes: Vec<u8>,
}

/// The greatest content of a column in bytes.
pub(crate) fn bytes_max(column: &Column) -> usize {
    match column.kind {
        ColumnKind::File { max_kb } | ColumnKind::Image { max_kb } => (max_kb as usize).saturating_mul(1024),
        _ => 0,
    }
}

fn blocked() -> ApiError {
    let message = "The attachment is either not a valid type or is too large. It cannot be uploaded or downloaded.";
    ApiError::new(Code::AttachmentBlocked, message)
}

/// Refuses names with a blocked ending and contents over the column's size.
pub(crate) fn check_content(
    session: &Session<'_>,
    database: &Database,
    column: &Column,
    name: &str,
    size: usize,
) -> Result<(), ApiError> {
    let limit = bytes_max(column);
    if size > limit {
        let message = format!(
            "The file size of {size} bytes exceeds the maximum of {} KB of the column '{}'.",
            limit / 1024,
            column.logical
        );
        return Err(ApiError::new(Code::FileTooLarge, message));
    }
    let Some((_, ending)) = name.rsplit_once('.') else {
        return Ok(());
    };
    let organizations = database.schema.by_logical("organization");
    let list = organizations.and_then(|table| {
        let row = database.get(table.id, &session.organization)?;
        match row.get(table.ordinal("blockedattachments")?)? {
            ValueRef::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    });
    let is_blocked = list.is_some_and(|list| list.split(';').any(|blocked| blocked.eq_ignore_ascii_case(ending)));
    if is_blocked { Err(blocked()) } else { Ok(()) }
}

/// Puts a content into a column and returns the file's id.
pub(crate) fn store_content(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    ordinal: Ordinal,
    content: Content,
) -> Result<Uuid, ApiError> {
    let column = table.column(ordinal);
    check_content(session, database, column, &content.name, content.bytes.len())?;
    drop_content(session, database, table, id, ordinal);
    let file = super::events::mint(session, database);
    let mut cells = vec![(ordinal, Some(Value::Guid(file)))];
    if matches!(column.kind, ColumnKind::Image { .. }) {
        image_cells(session, table, column, (id, file), &mut cells);
    } else {
        cells.extend(part(table, column, "_name").map(|name| (name, Some(Value::Text(content.name.as_str().into())))));
        describe(session, database, table, (id, file), column, &content);
    }
    database.put_file(file, Some(content.bytes.into()));
    store(session, database, table, id, cells)?;
    Ok(file)
}

/// A column that belongs to a file or image column.
fn part(table: &Table, column: &Column, suffix: &str) -> Option<Ordinal> {
    table.ordinal(&format!("{}{suffix}", column.logical))
}

type Cells = Vec<(Ordinal, Option<Value>)>;

fn image_cells(session: &Session<'_>, table: &Table, column: &Column, (id, file): (Uuid, Uuid), cells: &mut Cells) {
    // Ticks of 100 ns since the year 1, as the product's time stamps count.
    let ticks = (session.now + 62_135_596_800).saturating_mul(10_000_000);
    let url =
        format!("/Image/download.aspx?Entity={}&Attribute={}&Id={id}&Timestamp={ticks}", table.logical, column.logical);
    let values = [("id", Value::Guid(file)), ("_timestamp", Value::Int(ticks)), ("_url", Value::Text(url.into()))];
    for (suffix, value) in values {
        cells.extend(part(table, column, suffix).map(|ordinal| (ordinal, Some(value))));
    }
}

/// The row of `fileattachment` that describes a file.
fn describe(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    (id, file): (Uuid, Uuid),
    column: &Column,
    content: &Content,
) {
    let Some(files) = database.schema.by_logical("fileattachment").cloned() else {
        return;
    };
    let values = [
        ("filename", Value::Text(content.name.as_str().into())),
        ("filesizeinbytes", Value::Int(content.bytes.len() as i64)),
        ("mimetype", Value::Text(content.mime.as_str().into())),
        ("objectid", Value::Lookup(table.id, id)),
        ("objecttypecode", Value::Text(table.logical.as_str().into())),
        ("regardingfieldname", Value::Text(column.logical.as_str().into())),
        ("createdon", Value::Time(session.now)),
        ("modifiedon", Value::Time(session.now)),
    ];
    let mut cells: Cells =
        values.into_iter().filter_map(|(name, value)| Some((files.ordinal(name)?, Some(value)))).collect();
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // The table has no alternate keys that could object.
    let _stored = database.put(files.id, file, encode(&cells));
}

/// The content a column holds.
pub(crate) fn file_of(database: &Database, table: &Table, id: &Uuid, ordinal: Ordinal) -> Option<Uuid> {
    match database.get(table.id, id)?.get(ordinal)? {
        ValueRef::Guid(file) => Some(file),
        _ => None,
    }
}

/// Drops a column's content, its description included; the row's cells stay as they are.
fn drop_content(session: &Session<'_>, database: &mut Database, table: &Table, id: Uuid, ordinal: Ordinal) {
    let Some(file) = file_of(database, table, &id, ordinal) else {
        return;
    };
    database.put_file(file, None);
    if let Some(files) = database.schema.by_logical("fileattachment").map(|files| files.id) {
        database.remove(files, file, session.now);
    }
}

/// Empties a column.
pub(crate) fn clear_content(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    ordinal: Ordinal,
) -> Result<(), ApiError> {
    drop_content(session, database, table, id, ordinal);
    let column = table.column(ordinal);
    let parts = ["_name", "id", "_timestamp", "_url"].into_iter().filter_map(|suffix| part(table, column, suffix));
    let cells = std::iter::once(ordinal).chain(parts).map(|ordinal| (ordinal, None));
    store(session, database, table, id, cells.collect())
}

/// Drops every content of a row that is about to go.
pub(super) fn drop_contents(session: &Session<'_>, database: &mut Database, table: &Table, id: Uuid) {
    for column in table.columns.iter().filter(|column| bytes_max(column) > 0) {
        drop_content(session, database, table, id, column.ordinal);
    }
}
