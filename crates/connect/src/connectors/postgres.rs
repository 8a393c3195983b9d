//! `postgres`: tables and views of a PostgreSQL database.
//!
//! One read is one statement in one repeatable-read transaction: it sees one moment. With `cursor:`
//! a read goes on from the greatest value of that column seen so far, reads that value again, and
//! also every row that a transaction wrote which the last read could not see yet, whatever its
//! cursor value: a change that is committed late is not missed. (That takes one pass over the table
//! at the server, but only changed rows travel.) Rows without a cursor value are read every time.
//! What was read twice is merged by key. Deleted rows are seen by whole reads only.
//!
//! Left out: writing, logical replication, cursors on views and foreign tables, whose rows do not
//! know the transaction that wrote them.

use std::pin::pin;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use flowgate_core::connector::{FieldError, OpenRequest, Opened};
use flowgate_core::source::{Image, Malformed, ReadRequest, Reading, StreamInfo};
use flowgate_core::{Batch, Code, ConnectorError, Cursor, ErrorKind, Secret, Source};
use futures::StreamExt;
use futures::future::{self, Either};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::{Client, Row, RowStream};

use crate::blocking::{self, BATCHES_AHEAD_MAX};
use crate::columns::{ColumnBuilder, quote_identifier, record_batch, resolve_name};
use crate::postgresql::catalog::{self, Column, Relation};
use crate::postgresql::link::{Server, failed, parse_url};
use crate::postgresql::values::{append, problem};
use crate::settings::{self, Settings, is_reference};

const NAME: &str = "postgres";
const BATCH_ROWS: usize = 8_192;
/// Beyond this distance, transaction numbers can no longer be told apart.
const TRANSACTIONS_MAX: i64 = 1 << 31;

/// A PostgreSQL database as a source.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionSettings {
    /// The address with user, password and database. It holds a password, so refer to it. A server on another machine
    /// must offer TLS, unless the address says `sslmode=disable`.
    #[schemars(with = "String", example = &"${env:WORKS_URL}")]
    url: Secret,
    /// The schema of tables that are named without one. By default `public`.
    #[schemars(example = &"works")]
    schema: Option<String>,
    /// The certificates of the authority that signed the server's, as PEM, from the project directory.
    /// By default those that the machine trusts.
    #[schemars(example = &"certificates/authority.pem")]
    ca_file: Option<String>,
}

impl Settings for ConnectionSettings {
    fn problems(&self) -> Vec<FieldError> {
        let url = self.url.expose();
        if is_reference(url) || parse_url(url).is_some() {
            return Vec::new();
        }
        let hint = "it looks like `postgres://user:password@host:5432/database`";
        vec![settings::problem("url", "it is not the address of a PostgreSQL database", Some(hint))]
    }
}

/// What a stream reads from a PostgreSQL database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamSettings {
    /// The table or view, with its schema unless that is the connection's.
    #[schemars(example = &"public.customer")]
    table: String,
    /// The column that tells what was written since the last read: a change time or a rising number.
    #[schemars(example = &"updated_at")]
    cursor: Option<String>,
}

impl Settings for StreamSettings {}

/// A whole read shows what is gone; a cursor read does not.
pub(crate) fn sees_deletes(stream: &Value) -> bool {
    stream.get("cursor").is_none_or(Value::is_null)
}

pub(crate) fn open(OpenRequest { settings, project_dir, .. }: OpenRequest<'_>) -> Result<Opened, ConnectorError> {
    let settings: ConnectionSettings = settings::read(NAME, settings)?;
    let ca_file = settings.ca_file.map(|path| project_dir.join(path));
    let server = Server::new(&settings.url, ca_file.as_deref())?;
    let schema = settings.schema.unwrap_or_else(|| "public".to_owned());
    Ok(Opened { source: Some(Arc::new(Postgres { server, schema })), destination: None })
}

struct Postgres {
    server: Server,
    schema: String,
}

#[async_trait]
impl Source for Postgres {
    async fn check(&self) -> Result<String, ConnectorError> {
        let client = self.server.connect().await?;
        let row = client.query_one("SELECT current_setting('server_version'), current_user::text", &[]).await;
        let row = row.map_err(|error| failed(&self.server.shown, error))?;
        let get = |index| row.try_get::<_, String>(index).map_err(|error| failed(&self.server.shown, error));
        Ok(format!("PostgreSQL {} at {}, as {}", get(0)?, self.server.shown, get(1)?))
    }

    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        let client = self.server.connect().await?;
        let shown = &self.server.shown;
        let mut streams = Vec::new();
        for relation in catalog::relations(&client, shown).await? {
            let columns = catalog::columns(&client, shown, &relation).await?;
            streams.push(StreamInfo {
                name: relation.full_name(),
                schema: catalog::schema(&columns),
                key: catalog::key(&client, shown, &relation).await?,
                settings: json!({ "table": relation.full_name() }),
            });
        }
        Ok(streams)
    }

    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError> {
        let stream: StreamSettings = settings::read(NAME, &request.settings)?;
        let client = self.server.connect().await?;
        let plan = self.plan(&client, &stream, &request).await?;
        let rows = plan.start(&client).await?;
        let (schema, image) = (plan.schema.clone(), plan.image);
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD_MAX);
        let (server, cancel) = (self.server.clone(), request.cancel.clone());
        let worker = tokio::spawn(async move {
            let token = client.cancel_token();
            let work = cancel.run_until_cancelled(plan.forward(rows, &sender));
            let result = match future::select(pin!(work), pin!(sender.closed())).await {
                Either::Left((Some(result), _)) => result,
                Either::Left((None, _)) | Either::Right(_) => Err(ConnectorError::cancelled()),
            };
            if result.is_err() {
                server.cancel(token).await;
            }
            drop(client);
            result
        });
        let batches = blocking::forward(receiver, worker, request.cancel);
        Ok(Reading { schema, image, warning: None, batches })
    }
}

/// A position: the greatest cursor value read so far, and the oldest transaction that was still
/// under way when it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Position {
    column: String,
    value: String,
    horizon: i64,
}

/// A read inside its transaction, ready to start.
struct Plan {
    shown: String,
    sql: String,
    parameters: Vec<String>,
    columns: Vec<Column>,
    schema: SchemaRef,
    image: Image,
    key_places: Vec<usize>,
    /// The cursor column and the horizon of this read.
    cursor: Option<(String, i64)>,
    /// Where the read began.
    after: Option<String>,
}

impl Postgres {
    async fn plan(
        &self,
        client: &Client,
        stream: &StreamSettings,
        request: &ReadRequest,
    ) -> Result<Plan, ConnectorError> {
        let shown = &self.server.shown;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await.map_err(|error| failed(shown, error))?;
        let relation = self.resolve(client, &stream.table).await?;
        let columns = catalog::columns(client, shown, &relation).await?;
        let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
        let mut plan = Plan {
            shown: shown.clone(),
            sql: select(&relation, &columns, None),
            parameters: Vec::new(),
            schema: catalog::schema(&columns),
            image: Image::Whole,
            key_places: request.key.iter().filter_map(|key| names.iter().position(|name| name == key)).collect(),
            cursor: None,
            after: None,
            columns,
        };
        if let Some(cursor) = &stream.cursor {
            let column = resolve_name(cursor, &names, "columns", &relation.full_name())?;
            if !relation.has_row_versions {
                return Err(no_row_versions(&relation));
            }
            plan.sql = select(&relation, &plan.columns, Some(&column));
            plan.follow_cursor(client, column, request.cursor.as_ref()).await?;
        }
        Ok(plan)
    }

    async fn resolve(&self, client: &Client, table: &str) -> Result<Relation, ConnectorError> {
        let relations = catalog::relations(client, &self.server.shown).await?;
        let names: Vec<_> = relations.iter().map(Relation::full_name).collect();
        let with_schema = format!("{}.{table}", self.schema);
        let wanted = if table.contains('.') && !names.contains(&with_schema) { table } else { &with_schema };
        let name = resolve_name(wanted, &names, "tables", &self.server.shown)?;
        let relation = relations.into_iter().find(|relation| relation.full_name() == name);
        relation.ok_or_else(|| {
            ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, format!("the table `{name}` was found and lost"))
        })
    }
}

fn no_row_versions(relation: &Relation) -> ConnectorError {
    let message = format!("`{}` is a view or a foreign table, which cannot be read by cursor", relation.full_name());
    ConnectorError::new(ErrorKind::Configuration, Code::NOT_SUPPORTED, message)
        .hint("leave out `cursor:` to read it whole, or read the table behind it")
}

/// The text of the cursor comes as one column more, behind the others.
fn select(relation: &Relation, columns: &[Column], cursor: Option<&str>) -> String {
    let mut columns: Vec<_> = columns.iter().map(|column| column.column_type.expression(&column.name)).collect();
    columns.extend(cursor.map(|cursor| format!("{}::text", quote_identifier(cursor))));
    format!("SELECT {} FROM {} AS source", columns.join(", "), relation.quoted())
}

impl Plan {
    /// Turns the read into one that follows `column`, from `cursor` on.
    async fn follow_cursor(
        &mut self,
        client: &Client,
        column: String,
        cursor: Option<&Cursor>,
    ) -> Result<(), ConnectorError> {
        let sql = "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint \
                   FROM pg_current_snapshot() AS s";
        let row = client.query_one(sql, &[]).await.map_err(|error| failed(&self.shown, error))?;
        let get = |index| row.try_get::<_, i64>(index).map_err(|error| failed(&self.shown, error));
        let (horizon, next) = (get(0)?, get(1)?);
        // With the table's name before it, this is never taken for a column of the result.
        let quoted = format!("source.{}", quote_identifier(&column));
        let mut condition = String::new();
        if let Some(cursor) = cursor {
            let position = position_of(cursor, &column, next)?;
            let known = self.columns.iter().find(|known| known.name == column);
            let sql_type = known.map_or("text", |known| &known.sql_type);
            let rewritten = if next - position.horizon < TRANSACTIONS_MAX {
                // `xmin` holds the lower half of a transaction's number.
                self.parameters.push((position.horizon & 0xffff_ffff).to_string());
                "age(source.xmin) <= age($1::text::xid)"
            } else {
                "true"
            };
            self.parameters.push(position.value.clone());
            let value = format!("${}::text::{sql_type}", self.parameters.len());
            condition = format!(" WHERE {quoted} IS NULL OR {quoted} >= {value} OR {rewritten}");
            self.image = Image::Changes;
            self.after = Some(position.value);
        }
        self.sql = format!("{}{condition} ORDER BY {quoted} NULLS FIRST", self.sql);
        self.cursor = Some((column, horizon));
        Ok(())
    }

    async fn start(&self, client: &Client) -> Result<RowStream, ConnectorError> {
        client.query_raw(&self.sql, &self.parameters).await.map_err(|error| failed(&self.shown, error))
    }

    /// Sends all rows as batches.
    async fn forward(
        &self,
        rows: RowStream,
        sender: &mpsc::Sender<Result<Batch, ConnectorError>>,
    ) -> Result<(), ConnectorError> {
        let mut rows = pin!(rows.chunks(BATCH_ROWS));
        let mut position = self.after.clone();
        let mut is_sent = false;
        while let Some(chunk) = rows.next().await {
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| failed(&self.shown, error))?;
            let batch = self.batch(&chunk, &mut position)?;
            is_sent = true;
            sender.send(Ok(batch)).await.map_err(|_| ConnectorError::cancelled())?;
        }
        if !is_sent && self.after.is_some() {
            // Nothing new; the cursor moves all the same, because its horizon does.
            let batch = self.batch(&[], &mut position)?;
            sender.send(Ok(batch)).await.map_err(|_| ConnectorError::cancelled())?;
        }
        Ok(())
    }

    fn batch(&self, rows: &[Row], position: &mut Option<String>) -> Result<Batch, ConnectorError> {
        let failed = |error| failed(&self.shown, error);
        let mut builders = ColumnBuilder::all(&self.schema);
        let mut malformed = Vec::new();
        for row in rows {
            if self.cursor.is_some() {
                let value: Option<String> = row.try_get(self.columns.len()).map_err(failed)?;
                *position = value.or(position.take());
            }
            if let Some(reason) = self.problem(row).map_err(failed)? {
                malformed.push(self.set_aside(row, reason));
                continue;
            }
            for (index, (builder, column)) in builders.iter_mut().zip(&self.columns).enumerate() {
                append(builder, row, index, column.column_type).map_err(failed)?;
            }
        }
        let upserts = record_batch(&self.schema, builders.iter_mut().map(ColumnBuilder::finish).collect())?;
        let cursor = self.cursor.as_ref().zip(position.as_ref()).map(|((column, horizon), value)| {
            let position = Position { column: column.clone(), value: value.clone(), horizon: *horizon };
            Cursor(json!(position).to_string())
        });
        Ok(Batch { cursor, malformed, ..Batch::of(upserts) })
    }

    fn problem(&self, row: &Row) -> Result<Option<String>, tokio_postgres::Error> {
        for (index, column) in self.columns.iter().enumerate() {
            if let Some(what) = problem(row, index, column.column_type)? {
                return Ok(Some(format!("`{}` {what}, which no column type can hold", column.name)));
            }
        }
        Ok(None)
    }

    fn set_aside(&self, row: &Row, reason: String) -> Malformed {
        let mut text = Vec::new();
        for place in &self.key_places {
            let mut builder = ColumnBuilder::new(self.schema.field(*place).data_type());
            let column = &self.columns[*place];
            if append(&mut builder, row, *place, column.column_type).is_ok() {
                let value = arrow_cast::display::array_value_to_string(&builder.finish(), 0).unwrap_or_default();
                text.push(format!("{}={value}", column.name));
            }
        }
        Malformed { file: None, line: None, offset: None, reason, text: text.join(", "), key_unknown: true }
    }
}

fn position_of(cursor: &Cursor, column: &str, next_transaction: i64) -> Result<Position, ConnectorError> {
    let position = serde_json::from_str::<Position>(&cursor.0).ok();
    // A horizon in the future is one of another server: a restored or copied database.
    position.filter(|position| position.column == column && position.horizon <= next_transaction).ok_or_else(|| {
        let message = format!("the saved position is not one of the column `{column}` of this database");
        ConnectorError::new(ErrorKind::Configuration, Code::CURSOR_LOST, message)
            .hint("the next run reads the whole stream")
    })
}
