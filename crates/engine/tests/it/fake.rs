//! A source, a destination and a project in memory.
//!
//! The destination keeps canonical rows by id and can be told to refuse, to lose answers and to
//! stop; it counts what it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use flowgate_core::Notes;
use flowgate_core::connector::{Connections, Opened};
use flowgate_core::destination::*;
use flowgate_core::moment::{LocalTimes, WallClock};
use flowgate_core::project::*;
use flowgate_core::shape::{LookupTarget, STATE_COLUMN, StatusShape, TableKey};
use flowgate_core::source::*;
use flowgate_core::*;
use flowgate_engine::{Engine, Quiet, RunOptions, RunOutcome};
use flowgate_store::{SqliteStore, Store};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use uuid::Uuid;

/// The rows of one stream: column names, and rows of optional text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Table {
    pub(crate) fn new(columns: &[&'static str], rows: &[&[&str]]) -> Self {
        let value = |text: &&str| if text.is_empty() { None } else { Some((*text).to_owned()) };
        let rows = rows.iter().map(|row| row.iter().map(value).collect()).collect();
        Self { columns: columns.to_vec(), rows }
    }

    fn batch(&self) -> RecordBatch {
        let fields: Vec<_> = self.columns.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        let column =
            |at: usize| -> ArrayRef { Arc::new(self.rows.iter().map(|row| row[at].clone()).collect::<StringArray>()) };
        RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..self.columns.len()).map(column).collect()).unwrap()
    }
}

/// Streams by the `table` of their settings.
#[derive(Default)]
pub(crate) struct FakeSource {
    pub(crate) tables: Mutex<BTreeMap<String, Table>>,
    pub(crate) malformed: Mutex<Vec<Malformed>>,
    /// What a read from a cursor on gives: batches of changed rows and of deleted keys.
    pub(crate) changes: Mutex<BTreeMap<String, Vec<(Table, Table)>>>,
}

impl FakeSource {
    fn batches(&self, name: &str, rows: RecordBatch, is_read_on: bool) -> (Image, Vec<Batch>) {
        let malformed = self.malformed.lock().unwrap().clone();
        let changes = self.changes.lock().unwrap().get(name).cloned().filter(|_| is_read_on);
        let Some(changes) = changes else { return (Image::Whole, vec![Batch { malformed, ..Batch::of(rows) }]) };
        let batch = |(rows, keys): &(Table, Table)| Batch { deletes: Some(keys.batch()), ..Batch::of(rows.batch()) };
        (Image::Changes, changes.iter().map(batch).collect())
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn check(&self) -> Result<String, ConnectorError> {
        Ok("memory".into())
    }

    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError> {
        let name = request.settings["table"].as_str().unwrap().to_owned();
        let rows = self.tables.lock().unwrap().get(&name).cloned().unwrap().batch();
        let schema = rows.schema();
        let (image, mut batches) = self.batches(&name, rows, request.cursor.is_some());
        for batch in &mut batches {
            batch.cursor = Some(Cursor("1".into()));
        }
        Ok(Reading { schema, image, warning: None, batches: stream::iter(batches.into_iter().map(Ok)).boxed() })
    }
}

/// What the destination does instead of its duty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Refuse rows in which some value is this text.
    pub(crate) refuse: Option<String>,
    /// Do the work, then end the run without an answer, after so many requests.
    pub(crate) lose_after: Option<usize>,
    /// Cancel the run after so many requests.
    pub(crate) cancel_after: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Table to id to column to text; nulls are left out.
    pub(crate) rows: BTreeMap<String, BTreeMap<Uuid, BTreeMap<String, String>>>,
    pub(crate) statuses: BTreeMap<Uuid, Option<i32>>,
    pub(crate) sent: Vec<(Operation, usize)>,
    pub(crate) unanswered: Option<jiff::Timestamp>,
    pub(crate) columns_sent: BTreeSet<String>,
    /// Reads of current rows.
    pub(crate) reads: usize,
    pub(crate) faults: Faults,
}

#[derive(Debug, Default)]
pub(crate) struct FakeDestination {
    pub(crate) inner: Mutex<Inner>,
    shapes: Vec<Arc<TableShape>>,
}

/// A table `name` whose columns are text; `lookups` are (column, target).
pub(crate) fn shape(name: &str, columns: &[&str], lookups: &[(&str, &str)]) -> TableShape {
    let column =
        |name: &str, kind| ColumnShape { name: name.into(), kind, required: false, can_create: true, can_update: true };
    let id = format!("{name}id");
    let mut all = vec![column(&id, ColumnKind::Guid)];
    all.extend(columns.iter().map(|name| column(name, ColumnKind::Text { length_max: 100 })));
    for (name, target) in lookups {
        let target = LookupTarget { table: (*target).into(), set: format!("{target}s"), navigation: (*name).into() };
        all.push(column(name, ColumnKind::Lookup { targets: vec![target] }));
    }
    TableShape {
        table: name.into(),
        set: format!("{name}s"),
        primary_id: id,
        columns: all.into_iter().map(|column| (column.name.clone(), column)).collect(),
        keys: vec![TableKey { name: "key".into(), columns: vec!["number".into()], active: true }],
        atomic: true,
        owner: None,
        created_on: None,
        statuses: vec![
            StatusShape { state: 0, status: 1, label: "Active".into(), is_default: true },
            StatusShape { state: 1, status: 2, label: "Solved".into(), is_default: true },
        ],
    }
}

impl FakeDestination {
    pub(crate) fn with(shapes: Vec<TableShape>) -> Self {
        Self { inner: Mutex::default(), shapes: shapes.into_iter().map(Arc::new).collect() }
    }

    pub(crate) fn texts(&self, table: &str, column: &str) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        let mut texts: Vec<_> =
            inner.rows[table].values().map(|row| row.get(column).cloned().unwrap_or_default()).collect();
        texts.sort();
        texts
    }

    /// Requests of each operation since the last call: (operation, rows).
    pub(crate) fn take_sent(&self) -> Vec<(Operation, usize)> {
        std::mem::take(&mut self.inner.lock().unwrap().sent)
    }
}

fn text(column: &ArrayRef, row: usize) -> Option<String> {
    column.is_valid(row).then(|| array_value_to_string(column, row).unwrap())
}

impl Inner {
    fn write_row(&mut self, unit: &WriteUnit, row: usize) -> Outcome {
        let id = unit.ids[row];
        let table = self.rows.entry(unit.shape.table.clone()).or_default();
        match unit.operation {
            Operation::Delete => {
                table.remove(&id);
                return Outcome::Applied;
            }
            Operation::Deactivate => {
                self.statuses.insert(id, Some(2));
                return Outcome::Applied;
            }
            Operation::SetState => {
                let states = unit.rows.column_by_name(STATE_COLUMN).unwrap();
                let states = states.as_any().downcast_ref::<Int32Array>().unwrap();
                self.statuses.insert(id, states.is_valid(row).then(|| states.value(row)));
                return Outcome::Applied;
            }
            Operation::Create | Operation::Update => {}
        }
        let schema = unit.rows.schema();
        let mut values = BTreeMap::new();
        for (at, column) in unit.rows.columns().iter().enumerate() {
            if unit.columns.as_ref().is_none_or(|sets| sets[row].contains(at)) {
                values.insert(schema.field(at).name().clone(), text(column, row));
            }
        }
        if let Some(bad) = &self.faults.refuse
            && values.values().flatten().any(|value| value == bad)
        {
            return Outcome::Refused(RowFault::new(Code::ROW_REFUSED, None, "not wanted"));
        }
        if unit.operation == Operation::Create {
            let number = values.get("number").cloned().flatten();
            let same = table.iter().find(|(_, row)| row.get("number").cloned() == number);
            if let Some((known, _)) = same {
                return if *known == id { Outcome::Applied } else { Outcome::Exists { id: *known } };
            }
            table.insert(id, BTreeMap::new());
        }
        let Some(stored) = table.get_mut(&id) else { return Outcome::Missing };
        for (name, value) in values {
            self.columns_sent.insert(name.clone());
            match value {
                Some(value) => stored.insert(name, value),
                None => stored.remove(&name),
            };
        }
        Outcome::Applied
    }
}

#[async_trait]
impl Destination for FakeDestination {
    async fn check(&self) -> Result<String, ConnectorError> {
        Ok("memory".into())
    }

    async fn describe(&self, table: &str) -> Result<Arc<TableShape>, ConnectorError> {
        self.shapes.iter().find(|shape| shape.table == table).cloned().ok_or_else(|| {
            ConnectorError::new(ErrorKind::NotFound, Code::TABLE_NOT_FOUND, format!("there is no table `{table}`"))
        })
    }

    fn canonical(&self, shape: &TableShape, rows: &RecordBatch, _clock: &WallClock) -> Result<Checked, ConnectorError> {
        let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let schema = shape.canonical_schema(names.iter().map(String::as_str)).unwrap();
        let columns =
            rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()).unwrap());
        Ok(Checked {
            rows: RecordBatch::try_new(Arc::new(schema.clone()), columns.collect()).unwrap(),
            faults: Vec::new(),
            notes: Notes::default(),
        })
    }

    fn estimate(&self, _shape: &TableShape, changes: Changes) -> Estimate {
        Estimate { requests: changes.create + changes.update, seconds: 1.0, entitlement: 0 }
    }

    fn pace(&self, _shape: &TableShape, _operation: Operation) -> Pace {
        Pace { rows: 2, units: 1 }
    }

    async fn write(
        &self,
        unit: WriteUnit,
        _class: Class,
        _deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Outcome>, ConnectorError> {
        let mut inner = self.inner.lock().unwrap();
        inner.sent.push((unit.operation, unit.len()));
        let outcomes = (0..unit.len()).map(|row| inner.write_row(&unit, row)).collect();
        let requests = inner.sent.len();
        if inner.faults.lose_after.is_some_and(|after| requests > after) {
            inner.faults.lose_after = None;
            return Err(ConnectorError::new(ErrorKind::Transient, Code::SERVICE_FAILED, "the answer was lost"));
        }
        if inner.faults.cancel_after.is_some_and(|after| requests >= after) {
            inner.faults.cancel_after = None;
            cancel.cancel();
        }
        Ok(outcomes)
    }

    async fn sight(&self, shape: &Arc<TableShape>, ids: &[Uuid]) -> Result<Sighting, ConnectorError> {
        let there = self.probe(shape, ids).await?;
        let versions = ids.iter().map(|id| there.contains(id).then_some(0)).collect();
        Ok(Sighting { identity: "memory".to_owned(), versions })
    }

    async fn newest(
        &self,
        _shape: &Arc<TableShape>,
        _which: Newest,
        _limit: usize,
    ) -> Result<Vec<Uuid>, ConnectorError> {
        // As of a table that does not say when its rows were written.
        Ok(Vec::new())
    }

    async fn probe(&self, shape: &TableShape, ids: &[Uuid]) -> Result<Vec<Uuid>, ConnectorError> {
        let inner = self.inner.lock().unwrap();
        let there = inner.rows.get(&shape.table);
        Ok(ids.iter().copied().filter(|id| there.is_some_and(|rows| rows.contains_key(id))).collect())
    }

    async fn read_current(
        &self,
        shape: Arc<TableShape>,
        columns: Vec<String>,
        _selection: Selection,
        _class: Class,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ConnectorError>>, ConnectorError> {
        let mut inner = self.inner.lock().unwrap();
        inner.reads += 1;
        let rows: Vec<_> = inner.rows.get(&shape.table).into_iter().flatten().collect();
        let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(id.to_string())).collect::<StringArray>());
        let mut fields = vec![Field::new(ID_COLUMN, DataType::Utf8, false)];
        let mut arrays = vec![ids];
        for name in columns {
            let array: ArrayRef = if name == STATE_COLUMN {
                fields.push(Field::new(&name, DataType::Int32, true));
                Arc::new(
                    rows.iter()
                        .map(|(id, _)| inner.statuses.get(id).copied().flatten().or(Some(1)))
                        .collect::<Int32Array>(),
                )
            } else {
                fields.push(Field::new(&name, DataType::Utf8, true));
                Arc::new(
                    rows.iter()
                        .map(
                            |(id, row)| {
                                if name == shape.primary_id { Some(id.to_string()) } else { row.get(&name).cloned() }
                            },
                        )
                        .collect::<StringArray>(),
                )
            };
            arrays.push(array);
        }
        let page = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        Ok(stream::iter([Ok(page)]).boxed())
    }

    async fn plan_provision(&self, _tables: &[TableSpec]) -> Result<Vec<ProvisionStep>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn provision(
        &self,
        _tables: &[TableSpec],
        _progress: &(dyn for<'a> Fn(&'a ProvisionStep) + Send + Sync),
    ) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn requests(&self) -> RequestCounts {
        RequestCounts { sent: self.inner.lock().unwrap().sent.len() as u64, throttled: 0 }
    }

    fn unanswered(&self, _table: &str) -> Option<jiff::Timestamp> {
        self.inner.lock().unwrap().unanswered
    }

    fn lateness_max(&self) -> Duration {
        Duration::from_mins(5)
    }
}

/// A tick for every look at it.
#[derive(Debug, Default)]
pub(crate) struct TestClock(std::sync::atomic::AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> jiff::Timestamp {
        let ticks = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        jiff::Timestamp::from_millisecond(1_800_000_000_000 + ticks as i64).unwrap()
    }

    fn elapsed(&self) -> Elapsed {
        Elapsed(Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.fetch_add(duration.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async {})
    }
}

struct FakeConnections {
    source: Arc<FakeSource>,
    destination: Arc<FakeDestination>,
}

#[async_trait]
impl Connections for FakeConnections {
    async fn open(&self, connection: &str) -> Result<Opened, ConnectorError> {
        Ok(match connection {
            "crm" => Opened { source: None, destination: Some(self.destination.clone()) },
            _ => Opened { source: Some(self.source.clone()), destination: None },
        })
    }
}

/// One flow over fakes, in a directory of its own.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) source: Arc<FakeSource>,
    pub(crate) destination: Arc<FakeDestination>,
    pub(crate) flow: Flow,
    pub(crate) version: String,
    pub(crate) clock: Arc<TestClock>,
}

/// A load into `table` by `sql`, matched on `number`.
pub(crate) fn load(name: &str, table: &str, sql: &str) -> Load {
    Load {
        name: LoadName::new(name).unwrap(),
        into: ConnectionName::new("crm").unwrap(),
        table: table.into(),
        sql: Sql { path: "test.sql".into(), text: sql.into(), line_offset: 0 },
        driver: None,
        match_columns: vec!["number".into()],
        latest_by: None,
        lookups: BTreeMap::new(),
        columns: BTreeMap::new(),
        state: None,
        history: None,
        missing: Missing::Keep,
        shares_table: false,
        deleted_there: DeletedThere::Quarantine,
        guards: Guards::default(),
        checks: Vec::new(),
    }
}

impl World {
    pub(crate) fn new(shapes: Vec<TableShape>, loads: Vec<Load>) -> Self {
        let flow = Flow {
            name: FlowName::new("people").unwrap(),
            schedule: None,
            after: Vec::new(),
            streams: BTreeMap::new(),
            loads,
            path: "flows/people.yaml".into(),
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            source: Arc::default(),
            destination: Arc::new(FakeDestination::with(shapes)),
            flow,
            version: "1".into(),
            clock: Arc::default(),
        }
    }

    /// Sets what the stream `name` gives, declaring it if it is new.
    pub(crate) fn stream(&mut self, name: &str, table: Table) {
        self.source.tables.lock().unwrap().insert(name.into(), table);
        let stream = Stream {
            name: StreamName::new(name).unwrap(),
            from: ConnectionName::new("app").unwrap(),
            settings: serde_json::json!({ "table": name }),
            key: Vec::new(),
            deletes: Deletes::Seen,
            columns: BTreeMap::new(),
            is_incremental: false,
            may_be_empty: false,
        };
        self.flow.streams.entry(stream.name.clone()).or_insert(stream);
    }

    pub(crate) fn load(&mut self) -> &mut Load {
        &mut self.flow.loads[0]
    }

    pub(crate) fn engine(&self) -> Engine {
        let project = Project {
            dir: self.dir.path().into(),
            environment: EnvironmentName::new("local").unwrap(),
            time_zone: "UTC".into(),
            local_times: LocalTimes::default(),
            connections: BTreeMap::new(),
            tables: Vec::new(),
            flows: BTreeMap::from([(self.flow.name.clone(), self.flow.clone())]),
            staging: Staging { dir: self.dir.path().join("staging"), memory_bytes_max: 64 << 20, keep_images: 2 },
            state_dir: self.dir.path().join("state"),
            provision: ProvisionPolicy::Refuse,
            version: self.version.clone(),
        };
        Engine {
            store: self.store(),
            project: Arc::new(project),
            connections: Arc::new(FakeConnections {
                source: self.source.clone(),
                destination: self.destination.clone(),
            }),
            clock: self.clock.clone(),
            observer: Arc::new(Quiet),
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.dir.path().join("state")).unwrap())
    }

    /// The database of runs, for faults of its own.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir.path().join("state").join("runs.db")).unwrap()
    }

    pub(crate) async fn run(&self) -> RunOutcome {
        self.run_with(RunOptions::default()).await
    }

    pub(crate) async fn run_with(&self, options: RunOptions) -> RunOutcome {
        self.engine().run(&self.flow.name, options, &CancellationToken::new()).await.unwrap()
    }

    /// Runs to a complete end and returns the rows of all loads.
    pub(crate) async fn rows(&self) -> LoadRows {
        let outcome = self.run().await;
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert!(outcome.record.state.is_complete(), "{:?} {:?}", outcome.record.state, outcome.guards);
        outcome.record.rows()
    }
}
