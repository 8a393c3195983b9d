//! `sqlite`: the tables and views of a SQLite database file.
//!
//! The file is opened read-only, and one read sees one moment of it. SQLite checks no types, so
//! columns are typed by what they hold: whole numbers, numbers, and otherwise text (blobs as
//! hexadecimal digits). With `cursor:` a read goes on from the greatest value of that column seen so
//! far. It reads that value again, and rows without a value every time, so that nothing is missed;
//! merging by key makes what was read twice harmless. A row written later with a smaller value is
//! not seen until the next whole read.
//!
//! SQLite orders numbers before texts and texts by their bytes, so a cursor is followed only while its values rise in
//! that order: numbers alone, or texts that are all written alike as ISO dates and times or as digits of one length.
//! Otherwise the stream is read whole every time, and the run says so with the value seen.
//!
//! Left out: writing, deletes between cursor reads, attached databases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use flowgate_core::connector::{FieldError, OpenRequest, Opened};
use flowgate_core::source::{Image, MALFORMED_TEXT_MAX, Malformed, ReadRequest, Reading, StreamInfo};
use flowgate_core::{Batch, Code, ConnectorError, Cursor, ErrorKind, Source};
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, OpenFlags, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::blocking::{self, Sink};
use crate::columns::{ColumnBuilder, quote_identifier, record_batch, resolve_name};
use crate::settings::{self, Settings, problem};

const NAME: &str = "sqlite";
const BATCH_ROWS: usize = 8_192;
/// A larger value or row fails the read: with all that is made of it, it would take several times its size of memory.
const VALUE_BYTES_MAX: i32 = 64 << 20;
/// How long a read waits for a writer that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite database file as a source.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionSettings {
    /// The database file, from the project directory.
    #[schemars(example = &"data/works.sqlite")]
    path: String,
}

impl Settings for ConnectionSettings {
    fn problems(&self) -> Vec<FieldError> {
        let is_empty = self.path.trim().is_empty();
        is_empty.then(|| problem("path", "the path is empty", None)).into_iter().collect()
    }
}

/// What a stream reads from a SQLite database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamSettings {
    /// The table or view.
    #[schemars(example = &"person_address")]
    table: String,
    /// The column that tells what was written since the last read: a change time or a rising number.
    #[schemars(example = &"modifieddate")]
    cursor: Option<String>,
}

impl Settings for StreamSettings {}

/// A whole read shows what is gone; a cursor read does not.
pub(crate) fn sees_deletes(stream: &Value) -> bool {
    stream.get("cursor").is_none_or(Value::is_null)
}

pub(crate) fn open(OpenRequest { settings, project_dir, .. }: OpenRequest<'_>) -> Result<Opened, ConnectorError> {
    let settings: ConnectionSettings = settings::read(NAME, settings)?;
    let database = Database { path: project_dir.join(&settings.path), shown: settings.path };
    Ok(Opened { source: Some(Arc::new(Sqlite { database })), destination: None })
}

struct Sqlite {
    database: Database,
}

#[async_trait]
impl Source for Sqlite {
    async fn check(&self) -> Result<String, ConnectorError> {
        let database = self.database.clone();
        blocking::run(move || {
            let tables = database.open()?.tables()?;
            Ok(format!("`{}`, {} tables and views", database.shown, tables.len()))
        })
        .await
    }

    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        let database = self.database.clone();
        blocking::run(move || {
            let reader = database.open()?;
            let tables = reader.tables()?;
            tables.into_iter().map(|table| reader.describe(table)).collect()
        })
        .await
    }

    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError> {
        let stream: StreamSettings = settings::read(NAME, &request.settings)?;
        let database = self.database.clone();
        let plan = blocking::run(move || plan(&database, &stream, request.cursor.as_ref())).await?;
        let (schema, image, warning) = (plan.schema.clone(), plan.image(), plan.warning.clone());
        let batches = blocking::batches(request.cancel, move |sink| plan.read(sink));
        Ok(Reading { schema, image, warning, batches })
    }
}

/// A database file, not yet opened.
#[derive(Debug, Clone)]
struct Database {
    path: PathBuf,
    shown: String,
}

impl Database {
    /// Opens the file and begins a transaction, which fixes the moment that is read.
    fn open(&self) -> Result<Reader, ConnectorError> {
        if !Path::new(&self.path).is_file() {
            let message = format!("there is no database file `{}`", self.shown);
            return Err(ConnectorError::new(ErrorKind::NotFound, Code::MISSING_FILE, message));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
            // A schema from outside must not run functions with effects.
            connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON; BEGIN")?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(&self.shown, &error))?;
        Ok(Reader { connection, shown: self.shown.clone() })
    }
}

/// An open database in a read transaction.
struct Reader {
    connection: Connection,
    shown: String,
}

/// A column as the catalog declares it.
struct CatalogColumn {
    name: String,
    declared: String,
    /// Place in the primary key, from 1; 0: not in it.
    key_place: usize,
}

impl Reader {
    fn tables(&self) -> Result<Vec<String>, ConnectorError> {
        let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' \
                   ESCAPE '\\' ORDER BY name";
        let query = || self.connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>();
        query().map_err(|error| failed(&self.shown, &error))
    }

    fn columns(&self, table: &str) -> Result<Vec<CatalogColumn>, ConnectorError> {
        // Hidden columns of virtual tables are 1; generated ones, which can be read, are 2 and 3.
        let sql = "SELECT name, type, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
        let query = || {
            let column = |row: &Row<'_>| {
                Ok(CatalogColumn {
                    name: row.get(0)?,
                    declared: row.get(1)?,
                    key_place: row.get::<_, i64>(2)? as usize,
                })
            };
            self.connection.prepare(sql)?.query_map([table], column)?.collect::<Result<Vec<_>, _>>()
        };
        query().map_err(|error| failed(&self.shown, &error))
    }

    fn describe(&self, table: String) -> Result<StreamInfo, ConnectorError> {
        let columns = self.columns(&table)?;
        let mut key: Vec<_> = columns.iter().filter(|column| column.key_place > 0).collect();
        key.sort_by_key(|column| column.key_place);
        let key = key.into_iter().map(|column| column.name.clone()).collect();
        let settings = json!({ "table": table });
        Ok(StreamInfo { schema: self.schema(&table, &columns)?, name: table, key, settings })
    }

    /// Types each column by its affinity, unless some value of the table does not fit: then it is text.
    ///
    /// One pass over the whole table, also for a cursor read: the types of its rows must be those of the image.
    fn schema(&self, table: &str, columns: &[CatalogColumn]) -> Result<SchemaRef, ConnectorError> {
        let typed: Vec<_> = columns.iter().filter(|column| is_numeric(&column.declared)).collect();
        let mut classes = vec!["count(*)".to_owned()];
        for column in &typed {
            let name = quote_identifier(&column.name);
            let class = "WHEN 'null' THEN 0 WHEN 'integer' THEN 1 WHEN 'real' THEN 2 ELSE 3";
            classes.push(format!("ifnull(max(CASE typeof({name}) {class} END), 0)"));
            let is_exact = format!("{name} BETWEEN -{EXACT_IN_DOUBLE_MAX} AND {EXACT_IN_DOUBLE_MAX}");
            classes.push(format!("ifnull(max(typeof({name}) = 'integer' AND NOT {is_exact}), 0)"));
        }
        let sql = format!("SELECT {} FROM {}", classes.join(", "), quote_identifier(table));
        let held = |at: usize, row: &Row<'_>| {
            Ok(Held { widest: row.get(1 + 2 * at)?, has_long_integers: row.get(2 + 2 * at)? })
        };
        let all_held = |row: &Row<'_>| (0..typed.len()).map(|at| held(at, row)).collect();
        let held: Vec<Held> =
            self.connection.query_row(&sql, [], all_held).map_err(|error| failed(&self.shown, &error))?;
        let fields = columns.iter().map(|column| {
            let place = typed.iter().position(|typed| typed.name == column.name);
            let data_type = place.map_or(DataType::Utf8, |place| type_of(&column.declared, &held[place]));
            Field::new(&column.name, data_type, true)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// The largest whole number up to which every one is a double of its own.
const EXACT_IN_DOUBLE_MAX: i64 = 1 << 53;

/// Whether SQLite prefers numbers in a column so declared (section 3.1 of its datatype rules).
fn is_numeric(declared: &str) -> bool {
    let declared = declared.to_ascii_uppercase();
    if declared.contains("INT") {
        return true;
    }
    let is_text_or_blob = ["CHAR", "CLOB", "TEXT", "BLOB"].iter().any(|word| declared.contains(word));
    !declared.is_empty() && !is_text_or_blob
}

/// What the values of a numeric column are.
struct Held {
    /// The class of the widest value: 0 none, 1 whole, 2 real, 3 other.
    widest: i64,
    /// Whether there are whole numbers that a real one cannot stand for.
    has_long_integers: bool,
}

/// The Arrow type of a numeric column that holds every value of it as it is.
fn type_of(declared: &str, held: &Held) -> DataType {
    let declared = declared.to_ascii_uppercase();
    let declares = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    let is_real = declares(&["REAL", "FLOA", "DOUB"]);
    match held.widest {
        0 if declares(&["INT"]) => DataType::Int64,
        0 if is_real || declares(&["NUM", "DEC"]) => DataType::Float64,
        1 if !is_real || held.has_long_integers => DataType::Int64,
        1 | 2 if !held.has_long_integers => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// A position: the greatest cursor value read so far.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// Positions of older versions do not say it.
    #[serde(default)]
    table: Option<String>,
    column: String,
    value: Scalar,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scalar {
    Integer(i64),
    Real(f64),
    Text(String),
}

/// A read that is ready to run.
struct Plan {
    reader: Reader,
    sql: String,
    schema: SchemaRef,
    /// The cursor column and its place in the result.
    cursor: Option<(String, usize)>,
    after: Option<Scalar>,
    table: String,
    warning: Option<String>,
}

fn plan(database: &Database, stream: &StreamSettings, cursor: Option<&Cursor>) -> Result<Plan, ConnectorError> {
    let reader = database.open()?;
    let table = resolve_name(&stream.table, &reader.tables()?, "tables", &database.shown)?;
    let catalog = reader.columns(&table)?;
    let names: Vec<_> = catalog.iter().map(|column| column.name.clone()).collect();
    let resolve = |name: &String| resolve_name(name, &names, "columns", &table);
    let cursor_column = stream.cursor.as_ref().map(resolve).transpose()?;
    let schema = reader.schema(&table, &catalog)?;
    let place = |name: String| schema.index_of(&name).ok().map(|place| (name, place));
    let mut cursor_place = cursor_column.and_then(place);
    let mut warning = None;
    if let Some((column, _)) = &cursor_place
        && let Some(reason) = reader.why_not_rising(&table, column)?
    {
        warning =
            Some(format!("the cursor `{column}` does not rise: {reason}; the stream is read as a whole every time"));
        cursor_place = None;
    }
    let after = match (&cursor_place, cursor) {
        (Some((column, _)), Some(cursor)) => {
            let after = position_of(cursor, &table, column)?;
            reader.require_not_before(&table, column, &after)?;
            Some(after)
        }
        _ => None,
    };
    let sql = select(&table, &schema, cursor_place.as_ref().map(|(name, _)| name.as_str()), after.is_some());
    Ok(Plan { reader, sql, schema, cursor: cursor_place, after, table, warning })
}

fn select(table: &str, schema: &Schema, cursor: Option<&str>, is_resumed: bool) -> String {
    let columns: Vec<_> = schema.fields().iter().map(|field| quote_identifier(field.name())).collect();
    let everything = format!("SELECT {} FROM {}", columns.join(", "), quote_identifier(table));
    let Some(cursor) = cursor.map(quote_identifier) else { return everything };
    let condition = if is_resumed { format!(" WHERE {cursor} >= ?1 OR {cursor} IS NULL") } else { String::new() };
    format!("{everything}{condition} ORDER BY {cursor}")
}

fn position_of(cursor: &Cursor, table: &str, column: &str) -> Result<Scalar, ConnectorError> {
    let is_of_this =
        |position: &Position| position.column == column && position.table.as_ref().is_none_or(|known| known == table);
    let position = serde_json::from_str::<Position>(&cursor.0).ok().filter(is_of_this);
    position.map(|position| position.value).ok_or_else(|| {
        let message = format!("the saved position is not one of the column `{column}` of `{table}`");
        ConnectorError::new(ErrorKind::Configuration, Code::CURSOR_LOST, message)
            .hint("the next run reads the whole stream")
    })
}

impl Reader {
    /// Why values of a cursor column are not written in the order in which SQLite compares them.
    fn why_not_rising(&self, table: &str, column: &str) -> Result<Option<String>, ConnectorError> {
        let (name, table) = (quote_identifier(column), quote_identifier(table));
        // The form of a text: every digit as 0, and an offset, by which equal digits would be other moments, as it is.
        let digits = (1..=9).fold("c".to_owned(), |form, digit| format!("replace({form}, '{digit}', '0')"));
        let offset =
            "CASE WHEN substr(c, -6, 1) IN ('+', '-') AND substr(c, -3, 1) = ':' THEN substr(c, -6) ELSE '' END";
        let is_time = "c GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'";
        let is_number = "c NOT GLOB '*[^0-9]*' AND c <> ''";
        let sql = format!(
            "SELECT ifnull(sum(kind IN ('integer', 'real')), 0), ifnull(sum(kind = 'text'), 0), \
             ifnull(sum(kind = 'blob'), 0), max(CASE WHEN kind = 'text' THEN c END), min(CASE WHEN kind = 'text' THEN c END), \
             max(CASE WHEN kind = 'text' AND NOT ({is_time}) AND NOT ({is_number}) THEN c END), \
             max(CASE WHEN kind = 'text' THEN {digits} || {offset} END) = min(CASE WHEN kind = 'text' THEN {digits} || {offset} END) \
             FROM (SELECT {name} AS c, typeof({name}) AS kind FROM {table})"
        );
        let held = |row: &Row<'_>| {
            // Bytes that are not UTF-8 are for the reading of rows to set aside.
            let text = |at: usize| match row.get_ref(at) {
                Ok(ValueRef::Text(bytes)) => Ok(Some(String::from_utf8_lossy(bytes).into_owned())),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            Ok(CursorValues {
                numbers: row.get(0)?,
                texts: row.get(1)?,
                blobs: row.get(2)?,
                greatest: text(3)?,
                least: text(4)?,
                other: text(5)?,
                are_alike: row.get::<_, Option<bool>>(6)?.unwrap_or(true),
            })
        };
        let held = self.connection.query_row(&sql, [], held).map_err(|error| failed(&self.shown, &error))?;
        Ok(held.why_not_rising())
    }

    /// A greatest value before the one that was read shows that the table was restored, or is another one.
    fn require_not_before(&self, table: &str, column: &str, after: &Scalar) -> Result<(), ConnectorError> {
        let (name, table) = (quote_identifier(column), quote_identifier(table));
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {name} >= ?1)");
        let is_there: bool = self
            .connection
            .query_row(&sql, [parameter_of(after)], |row| row.get(0))
            .map_err(|error| failed(&self.shown, &error))?;
        if is_there {
            return Ok(());
        }
        let message = format!("no row has the value of `{column}` that was read last, or a greater one");
        Err(ConnectorError::new(ErrorKind::Configuration, Code::CURSOR_LOST, message))
    }
}

/// What stands in a cursor column.
struct CursorValues {
    numbers: i64,
    texts: i64,
    blobs: i64,
    greatest: Option<String>,
    least: Option<String>,
    /// A text that is neither an ISO date nor digits alone.
    other: Option<String>,
    /// Whether all texts are of one form.
    are_alike: bool,
}

impl CursorValues {
    fn why_not_rising(self) -> Option<String> {
        let Self { numbers, texts, blobs, greatest, least, other, are_alike } = self;
        let shown = |text: Option<String>| text.unwrap_or_default().chars().take(VALUE_TEXT_MAX).collect::<String>();
        if blobs > 0 {
            return Some("it holds blobs".to_owned());
        }
        if numbers > 0 && texts > 0 {
            return Some(format!("it holds numbers and texts, such as `{}`", shown(greatest)));
        }
        if let Some(other) = other {
            return Some(format!("`{}` is neither a number nor an ISO date and time", shown(Some(other))));
        }
        let is_mixed = texts > 0 && !are_alike;
        is_mixed.then(|| format!("`{}` and `{}` are texts of different forms", shown(least), shown(greatest)))
    }
}

/// The longest cursor value a message shows, in characters.
const VALUE_TEXT_MAX: usize = 60;

fn parameter_of(value: &Scalar) -> SqlValue {
    match value {
        Scalar::Integer(value) => SqlValue::Integer(*value),
        Scalar::Real(value) => SqlValue::Real(*value),
        Scalar::Text(text) => SqlValue::Text(text.clone()),
    }
}

impl Plan {
    fn image(&self) -> Image {
        if self.after.is_some() { Image::Changes } else { Image::Whole }
    }

    fn read(&self, sink: &Sink) -> Result<(), ConnectorError> {
        let failed = |error| failed(&self.reader.shown, &error);
        let mut statement = self.reader.connection.prepare(&self.sql).map_err(failed)?;
        let parameter = self.after.as_ref().map(parameter_of);
        let mut rows = statement.query(rusqlite::params_from_iter(parameter)).map_err(failed)?;
        let mut position = self.after.clone();
        let mut builders = ColumnBuilder::all(&self.schema);
        loop {
            let mut count = 0;
            let mut malformed = Vec::new();
            while count < BATCH_ROWS {
                let Some(row) = rows.next().map_err(failed)? else { break };
                count += 1;
                if let Some(row) = self.set_aside(row).map_err(failed)? {
                    malformed.push(row);
                    continue;
                }
                for (index, builder) in builders.iter_mut().enumerate() {
                    append(builder, row.get_ref(index).map_err(failed)?);
                }
                if let Some((_, place)) = &self.cursor {
                    position = scalar_of(row.get_ref(*place).map_err(failed)?).or(position);
                }
            }
            if count == 0 {
                return sink.check();
            }
            sink.send(Batch { malformed, ..self.batch(&mut builders, position.as_ref())? })?;
        }
    }

    /// A row whose text is not UTF-8, which SQLite does not check.
    fn set_aside(&self, row: &Row<'_>) -> Result<Option<Malformed>, rusqlite::Error> {
        for (index, field) in self.schema.fields().iter().enumerate() {
            let ValueRef::Text(bytes) = row.get_ref(index)? else { continue };
            if std::str::from_utf8(bytes).is_err() || bytes.contains(&0) {
                let reason = format!("`{}` holds bytes that are not text", field.name());
                let text = String::from_utf8_lossy(bytes).chars().take(MALFORMED_TEXT_MAX).collect();
                return Ok(Some(Malformed { file: None, line: None, offset: None, reason, text, key_unknown: true }));
            }
        }
        Ok(None)
    }

    fn batch(&self, builders: &mut [ColumnBuilder], position: Option<&Scalar>) -> Result<Batch, ConnectorError> {
        let upserts = record_batch(&self.schema, builders.iter_mut().map(ColumnBuilder::finish).collect())?;
        let cursor = self.cursor.as_ref().zip(position).map(|((column, _), value)| {
            let table = Some(self.table.clone());
            let position = Position { table, column: column.clone(), value: value.clone() };
            Cursor(json!(position).to_string())
        });
        Ok(Batch { cursor, ..Batch::of(upserts) })
    }
}

/// Gives a value to a column whose type has been chosen to fit it.
fn append(builder: &mut ColumnBuilder, value: ValueRef<'_>) {
    match (builder, value) {
        (builder, ValueRef::Null) => builder.append_null(),
        (ColumnBuilder::Int64(builder), ValueRef::Integer(value)) => builder.append_value(value),
        (ColumnBuilder::Float64(builder), ValueRef::Integer(value)) => builder.append_value(value as f64),
        (ColumnBuilder::Float64(builder), ValueRef::Real(value)) => builder.append_value(value),
        (ColumnBuilder::Utf8(builder), ValueRef::Integer(value)) => builder.append_value(value.to_string()),
        (ColumnBuilder::Utf8(builder), ValueRef::Real(value)) => builder.append_value(value.to_string()),
        (ColumnBuilder::Utf8(builder), ValueRef::Text(bytes)) => builder.append_value(String::from_utf8_lossy(bytes)),
        (ColumnBuilder::Utf8(builder), ValueRef::Blob(bytes)) => builder.append_value(crate::columns::hex(bytes)),
        // The transaction sees the same rows as the pass that chose the types.
        (builder, _) => builder.append_null(),
    }
}

fn scalar_of(value: ValueRef<'_>) -> Option<Scalar> {
    match value {
        ValueRef::Integer(value) => Some(Scalar::Integer(value)),
        ValueRef::Real(value) => Some(Scalar::Real(value)),
        ValueRef::Text(bytes) => Some(Scalar::Text(String::from_utf8_lossy(bytes).into_owned())),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

fn failed(shown: &str, error: &rusqlite::Error) -> ConnectorError {
    use rusqlite::ErrorCode;
    let (kind, code) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (ErrorKind::Transient, Code::SOURCE_FAILED),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (ErrorKind::Data, Code::MALFORMED_FILE),
        Some(ErrorCode::TooBig) => (ErrorKind::Data, Code::FIELD_TOO_LARGE),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (ErrorKind::Permission, Code::NOT_ALLOWED)
        }
        _ => (ErrorKind::Resource, Code::SOURCE_FAILED),
    };
    ConnectorError::new(kind, code, format!("reading the database `{shown}` failed: {error}"))
}
