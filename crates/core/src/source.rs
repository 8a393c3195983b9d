//! What a source owes the engine.
//!
//! A read is either the *whole* image of a stream or the *changes* since a cursor. It comes as
//! batches, each with the cursor that follows it: a cursor is durable only together with the rows
//! before it. Columns whose names begin with `_` are provenance (`_file`, `_line`), not data.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CancellationToken, ConnectorError};

/// The provenance columns a source may add: the file's name (`Utf8`) and the line (`Int64`, from 1).
pub const FILE_COLUMN: &str = "_file";
pub const LINE_COLUMN: &str = "_line";

/// The column of an image that numbers its rows.
pub const ROW_COLUMN: &str = "_row";

/// Names that a source's own columns may not have.
pub const RESERVED_COLUMNS: [&str; 3] = [FILE_COLUMN, LINE_COLUMN, ROW_COLUMN];

/// An opaque position in a stream, made and read only by the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// What is asked of a source.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The stream's own settings: the connector's keys of the stream block.
    pub settings: Value,
    /// The key columns, if declared.
    pub key: Vec<String>,
    /// Read what came after this; `None` reads from the beginning.
    pub cursor: Option<Cursor>,
    pub cancel: CancellationToken,
}

/// An open read.
pub struct Reading {
    /// Columns of every batch, provenance columns last.
    pub schema: SchemaRef,
    pub image: Image,
    /// What a person should know of how it is read: why a cursor cannot be followed, with the value that shows it.
    pub warning: Option<String>,
    pub batches: BoxStream<'static, Result<Batch, ConnectorError>>,
}

/// What the batches of a read make together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Every row of the stream.
    Whole,
    /// Rows written since the cursor, to be merged by key.
    Changes,
}

/// Some rows of a stream. The last batch that names a key counts; within one batch, its deletion does.
#[derive(Debug, Clone)]
pub struct Batch {
    pub upserts: RecordBatch,
    /// The keys (key columns only) of rows that were deleted at the source.
    pub deletes: Option<RecordBatch>,
    pub malformed: Vec<Malformed>,
    /// The position after this batch, if the stream can be read on from here.
    pub cursor: Option<Cursor>,
    pub notes: Vec<Note>,
}

/// What a source has to say beside rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// One of the files that make up the stream was read to its end.
    Part { name: String, rows: u64 },
    /// Why rows may be missing from what was read. Then nothing may be called gone.
    RowsMayBeMissing(String),
}

impl Batch {
    pub fn of(upserts: RecordBatch) -> Self {
        Self { upserts, deletes: None, malformed: Vec::new(), cursor: None, notes: Vec::new() }
    }
}

/// A piece of input that is not of the stream's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    pub file: Option<String>,
    pub line: Option<u64>,
    /// Bytes from the start of the decoded input.
    pub offset: Option<u64>,
    pub reason: String,
    /// The text itself, cut to [`MALFORMED_TEXT_MAX`] characters.
    pub text: String,
    /// Whether the row's key columns could not be read. Then nothing may be called gone.
    pub key_unknown: bool,
}

/// The longest text of a malformed row that is kept, in characters.
pub const MALFORMED_TEXT_MAX: usize = 4_096;

/// One stream that a source offers.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// The value that selects it in the stream's settings (`table: public.customer`).
    pub name: String,
    pub schema: SchemaRef,
    pub key: Vec<String>,
    /// The connector's settings for a stream that reads it.
    pub settings: Value,
}

/// A system that streams are read from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Reaches the system and says in one line what was reached.
    async fn check(&self) -> Result<String, ConnectorError>;

    /// The streams there are.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError>;

    /// Opens a read. Its batches stop with [`ConnectorError::cancelled`] when `cancel` fires.
    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError>;
}
