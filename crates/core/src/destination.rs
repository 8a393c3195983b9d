//! What a destination owes the engine.
//!
//! The engine decides *what* is written and in which order, and remembers it; the destination
//! decides *how*: which message, how many rows to a request, how a refused batch is split
//! (design section 3). Every row of a [`WriteUnit`] gets exactly one [`Outcome`].

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use uuid::Uuid;

use crate::examination::{Finding, TableUse};
use crate::project::{History, TableSpec};
use crate::{CancellationToken, Code, ConnectorError, Notes, TableShape, WallClock};

/// The name of the id column in batches that [`Destination::read_current`] returns (`Utf8`).
pub const ID_COLUMN: &str = "_id";

/// What is done to the rows of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// The row is new; its id is ours.
    Create,
    /// The row is there under this id; only the changed columns are sent.
    Update,
    /// Bring the row into the status in [`crate::shape::STATE_COLUMN`], by whatever message that takes.
    SetState,
    Deactivate,
    Delete,
}

/// Who is asking, from the first served to the last (design section 6, "Budget").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Interactive,
    Events,
    Batch,
    Export,
}

/// Which columns of a batch a row sends: one bit each, in the batch's column order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnSet {
    words: Vec<u64>,
}

impl ColumnSet {
    pub fn insert(&mut self, column: usize) {
        let word = column / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (column % 64);
    }

    pub fn contains(&self, column: usize) -> bool {
        self.words.get(column / 64).is_some_and(|word| word & (1 << (column % 64)) != 0)
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len() * 64).filter(|column| self.contains(*column))
    }
}

impl FromIterator<usize> for ColumnSet {
    fn from_iter<T: IntoIterator<Item = usize>>(columns: T) -> Self {
        let mut set = Self::default();
        for column in columns {
            set.insert(column);
        }
        set
    }
}

/// Rows that are sent together: one table, one operation, one key each.
#[derive(Debug, Clone)]
pub struct WriteUnit {
    pub shape: Arc<TableShape>,
    pub operation: Operation,
    /// The id of each row, in the order of `rows`.
    pub ids: Vec<Uuid>,
    /// Canonical columns (module `shape`); no columns for a delete.
    pub rows: RecordBatch,
    /// Per row, the columns to send. `None`: every column that is not null.
    pub columns: Option<Vec<ColumnSet>>,
    /// The rows may have been sent before, by us, with an unknown end.
    pub resent: bool,
    pub options: WriteOptions,
}

impl WriteUnit {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// What a load asks of every write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteOptions {
    pub history: Option<History>,
    /// The match columns, so that a duplicate key can be told from other conflicts.
    pub match_columns: Vec<String>,
    /// Send one row to a request, by the single-row message. For comparison only.
    pub one_at_a_time: bool,
}

/// Where one row ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination holds the row as sent.
    Applied,
    /// A create met a row that already has this key; it is under this id.
    Exists { id: Uuid },
    /// An update met no row: it was deleted there.
    Missing,
    /// The destination will not take this row.
    Refused(RowFault),
    /// Sent, and nothing is known: the deadline passed before an answer or a probe.
    Ambiguous,
    /// Never sent, or known not to have happened: the run stopped first.
    Unsent,
}

/// Why one row is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    pub code: Code,
    /// The column at fault, when there is one.
    pub column: Option<String>,
    /// What a person reads: what failed, the value in backticks.
    pub reason: String,
    /// The service's own code and request id, when it was the service that refused.
    pub service_code: Option<String>,
    pub request_id: Option<String>,
}

impl RowFault {
    pub fn new(code: Code, column: Option<&str>, reason: impl Into<String>) -> Self {
        Self { code, column: column.map(str::to_owned), reason: reason.into(), service_code: None, request_id: None }
    }
}

/// Prepared rows in canonical form, and the rows that cannot take it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// All rows, faulty ones included (their faulty values null), in the order given.
    pub rows: RecordBatch,
    /// (row, fault), ascending by row, at most one a row.
    pub faults: Vec<(usize, RowFault)>,
    /// What was stored otherwise than it was written, by column.
    pub notes: Notes,
}

/// Which rows [`Destination::read_current`] reads.
#[derive(Debug, Clone)]
pub enum Selection {
    All,
    Ids(Vec<Uuid>),
    /// Rows whose `columns` (canonical, one batch row a key) equal one of the keys.
    Keys(RecordBatch),
}

/// How many rows of each operation are about to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    pub create: u64,
    pub update: u64,
    pub set_state: u64,
    pub deactivate: u64,
    pub delete: u64,
}

/// What writing them would take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    pub requests: u64,
    /// Of the destination's time.
    pub seconds: f64,
    /// Counted against the daily entitlement.
    pub entitlement: u64,
}

/// Requests sent and throttled answers met since the connection was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    pub sent: u64,
    pub throttled: u64,
}

/// One thing that [`Destination::provision`] would create, in words a person reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionStep {
    /// `table wr_asset`, `column incident.wr_reference (text, 64)`, `key incident.wr_reference_key (wr_reference)`.
    pub what: String,
    pub kind: ProvisionKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisionKind {
    Table,
    Column,
    Key,
}

/// A system that rows are loaded into.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Signs in, compares the pinned organisation, and says in one line what was reached.
    async fn check(&self) -> Result<String, ConnectorError>;

    /// Looks at everything that loads and reads of these tables depend on. An `Err` means that the
    /// system was not reached at all.
    async fn examine(&self, _uses: &[TableUse]) -> Result<Vec<Finding>, ConnectorError> {
        Ok(vec![Finding::good("reached", self.check().await?)])
    }

    /// The live shape of `table`.
    async fn describe(&self, table: &str) -> Result<Arc<TableShape>, ConnectorError>;

    /// Gives prepared rows the form the columns of `shape` store. Pure: nothing is sent.
    ///
    /// Lookup columns arrive resolved (`account/<guid>`). `clock` places times without an
    /// offset. An `Err` means that a column as a whole cannot be converted.
    fn canonical(&self, shape: &TableShape, rows: &RecordBatch, clock: &WallClock) -> Result<Checked, ConnectorError>;

    /// What writing `changes` to the table would take, by the limits known now.
    fn estimate(&self, shape: &TableShape, changes: Changes) -> Estimate;

    /// How many rows of this operation belong into one unit, and how many units may be under way.
    fn pace(&self, shape: &TableShape, operation: Operation) -> Pace;

    /// Writes one unit and returns one outcome a row, in the order of the rows.
    ///
    /// An `Err` stops the load: no outcome of the unit is known then, and it counts as sent.
    async fn write(
        &self,
        unit: WriteUnit,
        class: Class,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Outcome>, ConnectorError>;

    /// Who answers, and the versions that these rows have there now; at most a few hundred, in one request.
    async fn sight(&self, shape: &Arc<TableShape>, ids: &[Uuid]) -> Result<Sighting, ConnectorError>;

    /// The rows of a table that were written last, the newest first, at most `limit`. Empty where the table does not
    /// say when its rows were written.
    async fn newest(&self, shape: &Arc<TableShape>, which: Newest, limit: usize) -> Result<Vec<Uuid>, ConnectorError>;

    /// The ids among `ids` whose rows are there.
    async fn probe(&self, shape: &TableShape, ids: &[Uuid]) -> Result<Vec<Uuid>, ConnectorError>;

    /// Current rows: [`ID_COLUMN`], then `columns` in canonical form, of which [`crate::shape::STATE_COLUMN`] is the
    /// status.
    async fn read_current(
        &self,
        shape: Arc<TableShape>,
        columns: Vec<String>,
        selection: Selection,
        class: Class,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ConnectorError>>, ConnectorError>;

    /// What is missing there from `tables`, in the order it would be created.
    async fn plan_provision(&self, tables: &[TableSpec]) -> Result<Vec<ProvisionStep>, ConnectorError>;

    /// Creates what is missing, telling `progress` each step when it is done.
    async fn provision(
        &self,
        tables: &[TableSpec],
        progress: &(dyn for<'a> Fn(&'a ProvisionStep) + Send + Sync),
    ) -> Result<(), ConnectorError>;

    /// Requests so far.
    fn requests(&self) -> RequestCounts;

    /// When a write to `table` last ended without an answer on this connection, whether or not it was sent again
    /// since. It may still take effect, and then put older values over newer ones.
    fn unanswered(&self, table: &str) -> Option<Timestamp>;

    /// How long after that moment such a write may take effect, in real time; the connection's configuration says it.
    fn lateness_max(&self) -> Duration;
}

/// Which of the rows that were written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Whoever wrote them.
    All,
    /// Those that we wrote last ourselves, under any of our identities, and with a higher version than this.
    OursSince(u64),
    /// Those that we wrote last ourselves, within the last hour of the destination's clock.
    OursOfLastHour,
}

/// What a few rows of a destination look like now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The system that answered, whatever address led to it: the id of the organisation.
    pub identity: String,
    /// In the order asked for; `None` for a row that is not there. A version only ever rises, and a later write
    /// of any row has a higher one. 0 in a table without versions.
    pub versions: Vec<Option<u64>>,
}

/// Rows to a unit and units under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub rows: usize,
    pub units: usize,
}
