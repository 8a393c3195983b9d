//! Tables as streams: a whole read first, then only what changed since (dossier section 18).
//!
//! A cursor is the delta link with the columns it was made for. Another choice of columns, a token
//! that expired or a table without change tracking means a whole read again, never a wrong one.

use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowgate_core::destination::Class;
use flowgate_core::shape::ColumnKind;
use flowgate_core::source::{Image, Reading, StreamInfo};
use flowgate_core::{Batch, CancellationToken, Code, ConnectorError, Cursor, ErrorKind};
use futures::StreamExt;
use futures::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::Dataverse;
use crate::call::{Call, CallError};
use crate::fault::FaultClass;
use crate::json_in::{Page, PageReader};
use crate::metadata::{TableFacts, list_tables};
use crate::read::Pages;

/// What is read of one table.
#[derive(Debug, Clone)]
pub struct TableRead {
    pub table: String,
    /// Logical names; empty: every column that can be read.
    pub columns: Vec<String>,
    pub cursor: Option<Cursor>,
    pub cancel: CancellationToken,
}

/// The text of a cursor.
#[derive(Serialize, Deserialize)]
struct Position {
    columns: Vec<String>,
    delta_link: String,
}

impl Dataverse {
    /// The tables there are. Their schemas hold the id and the name only: asking for every column
    /// of every table would take thousands of requests.
    pub async fn discover_tables(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        let tables = list_tables(&self.client).await?;
        let streams = tables.into_iter().filter_map(|table| {
            table.entity_set_name?;
            let id = table.primary_id_attribute?;
            let names = [Some(id.clone()), table.primary_name_attribute.filter(|name| *name != id)];
            let fields: Vec<Field> =
                names.into_iter().flatten().map(|name| Field::new(name, DataType::Utf8, true)).collect();
            Some(StreamInfo {
                settings: json!({ "table": table.logical_name }),
                name: table.logical_name,
                schema: Arc::new(Schema::new(fields)),
                key: vec![id],
            })
        });
        Ok(streams.collect())
    }

    /// Opens a read of one table. The id is the first column and the key; lookups are
    /// `account/<guid>`. Without change tracking every read is whole and has no cursor.
    pub async fn read_table(&self, read: TableRead) -> Result<Reading, ConnectorError> {
        let facts = self.metadata.table(&self.client, &read.table).await?;
        let shape = &facts.shape;
        let columns = chosen_columns(&facts, read.columns);
        let reader = Arc::new(PageReader::new(shape, &shape.primary_id, &columns)?);
        let what = format!("reading `{}`", shape.table);
        let pages = |call: Call| {
            Pages::new(Arc::clone(&self.client), Arc::clone(&reader), call, Class::Export, read.cancel.clone())
        };
        let position = read.cursor.as_ref().and_then(|cursor| serde_json::from_str::<Position>(&cursor.0).ok());
        let position = position.filter(|position| facts.is_change_tracked && position.columns == columns);
        if let Some(position) = position {
            let link = Url::parse(&position.delta_link).map_err(|_| lost_cursor(&read.table))?;
            let mut pages = pages(Call::follow(link, Class::Export));
            match pages.next().await {
                Ok(first) => return Ok(reading(pages, first, Image::Changes, columns, read.cursor, what)),
                Err(CallError::Refused(refusal)) if refusal.class == FaultClass::ExpiredToken => {
                    tracing::info!(table = %read.table, "the delta token has expired: the whole table is read");
                }
                Err(error) => return Err(error.into_error(&what)),
            }
        }
        let whole = Call::get(format!("{}?$select={}", shape.set, reader.select()), Class::Export);
        let mut pages = if facts.is_change_tracked { pages(whole).tracking() } else { pages(whole) };
        let first = pages.next().await.map_err(|error| error.into_error(&what))?;
        Ok(reading(pages, first, Image::Whole, columns, None, what))
    }

    /// The schema of a table's stream with these columns (empty: all).
    pub async fn stream_schema(&self, table: &str, columns: Vec<String>) -> Result<SchemaRef, ConnectorError> {
        let facts = self.metadata.table(&self.client, table).await?;
        let columns = chosen_columns(&facts, columns);
        Ok(PageReader::new(&facts.shape, &facts.shape.primary_id, &columns)?.schema())
    }
}

fn chosen_columns(facts: &TableFacts, columns: Vec<String>) -> Vec<String> {
    let shape = &facts.shape;
    let chosen: Vec<String> = if columns.is_empty() {
        let readable = shape.columns.values().filter(|column| {
            let is_held = !matches!(column.kind, ColumnKind::Unsupported { .. });
            is_held && !facts.unreadable.contains(&column.name)
        });
        readable.map(|column| column.name.clone()).collect()
    } else {
        columns
    };
    // The id stands first in any case.
    chosen.into_iter().filter(|column| *column != shape.primary_id).collect()
}

fn reading(
    pages: Pages,
    first: Option<Page>,
    image: Image,
    columns: Vec<String>,
    cursor: Option<Cursor>,
    what: String,
) -> Reading {
    let schema = pages.schema();
    let state = (pages, first, columns, cursor, what);
    let batches = stream::try_unfold(state, |(mut pages, held, columns, cursor, what)| async move {
        let page = match held {
            Some(page) => Some(page),
            None => pages.next().await.map_err(|error| error.into_error(&what))?,
        };
        let Some(page) = page else { return Ok(None) };
        let is_last = page.next_link.is_none();
        let batch = batch(page, &columns, cursor.clone().filter(|_| is_last))?;
        Ok(Some((batch, (pages, None, columns, cursor, what))))
    });
    Reading { schema, image, warning: None, batches: batches.boxed() }
}

/// One page as a batch. The last page of a delta read without a new link keeps the old one.
fn batch(page: Page, columns: &[String], old_cursor: Option<Cursor>) -> Result<Batch, ConnectorError> {
    let cursor = match page.delta_link {
        Some(delta_link) => {
            let position = Position { columns: columns.to_vec(), delta_link };
            let text = serde_json::to_string(&position).map_err(|error| {
                ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "a cursor could not be written")
                    .caused_by(error)
            })?;
            Some(Cursor(text))
        }
        None => old_cursor,
    };
    let deletes = if page.deleted.is_empty() { None } else { Some(deleted_keys(&page.rows.schema(), &page.deleted)?) };
    Ok(Batch { deletes, cursor, ..Batch::of(page.rows) })
}

fn deleted_keys(schema: &SchemaRef, ids: &[String]) -> Result<RecordBatch, ConnectorError> {
    let key = Arc::new(Schema::new(vec![schema.field(0).clone()]));
    let ids: StringArray = ids.iter().map(|id| Some(id.to_ascii_lowercase())).collect();
    RecordBatch::try_new(key, vec![Arc::new(ids)]).map_err(|error| {
        ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "deleted keys do not fit").caused_by(error)
    })
}

fn lost_cursor(table: &str) -> ConnectorError {
    let message = format!("the cursor of `{table}` holds no delta link");
    ConnectorError::new(ErrorKind::NotFound, Code::CURSOR_LOST, message)
}
