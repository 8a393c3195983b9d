//! The database: the schema in force, every table's rows, one version counter, transactions.
//!
//! Promise: [`Database::transaction`] is all or nothing and nests; the version counter is one
//! for the whole database and rises with every change of any row. Left out: locking (the caller
//! holds the database exclusively) and the meaning of the cells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::event::Event;
use super::files::{Contents, Transfers};
use super::log::{DirectoryLock, Log, Record};
use super::row::Row;
use super::table::{Deletion, KeyViolation, TableStore};
use crate::schema::{Schema, TableId};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("data directory cannot be used")]
    Io(#[from] std::io::Error),
    #[error("data directory holds format {found}; this program writes format {expected}")]
    Format { found: u32, expected: u32 },
    #[error("data directory holds a record that does not parse: {0}")]
    Record(String),
    #[error("data directory `{}` is in use by {}", directory.display(), if holder.is_empty() { "another process" } else { holder })]
    InUse { directory: PathBuf, holder: String },
    #[error(
        "`{}` is damaged at byte {at} of {size}: {what}; what was written after it cannot be trusted, so nothing was changed",
        path.display()
    )]
    Damaged { path: PathBuf, at: u64, size: u64, what: &'static str },
}

impl StorageError {
    /// Damage in a file that the caller names with [`StorageError::of_file`].
    pub(super) fn damaged(at: usize, what: &'static str) -> Self {
        StorageError::Damaged { path: PathBuf::new(), at: at as u64, size: 0, what }
    }

    pub(super) fn of_file(self, file: &Path, bytes: usize) -> Self {
        match self {
            StorageError::Damaged { at, what, .. } => {
                StorageError::Damaged { path: file.to_owned(), at, size: bytes as u64, what }
            }
            other => other,
        }
    }
}

/// Work that falls due at a simulated time.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Simulated seconds since 1970.
    pub(crate) due: f64,
    pub(crate) kind: JobKind,
}

#[derive(Clone, Debug)]
pub(crate) enum JobKind {
    /// An alternate key moves on: Pending, InProgress, Active or Failed.
    Key {
        table: TableId,
        key: Uuid,
    },
    BulkDelete(BulkDeletion),
    /// A row of an elastic table reaches the end of its time to live.
    Expire {
        table: TableId,
        id: Uuid,
    },
}

/// A bulk deletion over the rows its queries selected.
#[derive(Clone, Debug)]
pub(crate) struct BulkDeletion {
    /// Its system job and its row in `bulkdeleteoperation`.
    pub(crate) operation: Uuid,
    pub(crate) bulk_operation: Uuid,
    pub(crate) targets: Arc<[(TableId, Arc<[Uuid]>)]>,
}

enum Undo {
    Row { table: TableId, id: Uuid, before: Option<Row> },
    Deletion { table: TableId, index: usize },
    Schema { before: Arc<Schema>, published: usize },
    Job,
    Number { table: TableId, before: u64 },
    File { id: Uuid, before: Option<Arc<[u8]>> },
    Event,
}

/// A schema and the simulated second from which readers of the cache see it.
type Published = (f64, Arc<Schema>);

pub(crate) struct Database {
    pub(crate) schema: Arc<Schema>,
    /// Schemas of the recent past, for readers that a metadata cache still serves.
    published: Vec<Published>,
    tables: Vec<TableStore>,
    version: u64,
    pub(crate) jobs: Vec<Job>,
    /// Simulated second until which a publication of customizations runs.
    pub(crate) publishing_until: f64,
    /// Notices of the running transaction.
    raised: Vec<Event>,
    /// Notices of committed transactions, for whoever sends them.
    outbox: Vec<Event>,
    files: Contents,
    pub(crate) transfers: Transfers,
    tokens: u64,
    undo: Vec<Undo>,
    depth: u32,
    log: Option<Log>,
    /// Committed row writes per table since the start: created, updated, deleted.
    pub(crate) commits: std::collections::HashMap<TableId, [u64; 3]>,
}

impl Database {
    pub(crate) fn new(schema: Schema) -> Self {
        let mut database = Database {
            schema: Arc::new(schema),
            published: Vec::new(),
            tables: Vec::new(),
            version: 1_000_000,
            jobs: Vec::new(),
            publishing_until: f64::NEG_INFINITY,
            raised: Vec::new(),
            outbox: Vec::new(),
            files: Contents::new(),
            transfers: Transfers::default(),
            tokens: 0,
            undo: Vec::new(),
            depth: 0,
            log: None,
            commits: std::collections::HashMap::new(),
        };
        database.ensure_stores();
        database
    }

    /// Gives every table of the schema a store.
    fn ensure_stores(&mut self) {
        for index in self.tables.len()..self.schema.tables.len() {
            let mut store = TableStore::default();
            store.index_keys(&self.schema.tables[index]);
            self.tables.push(store);
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn store(&self, table: TableId) -> &TableStore {
        &self.tables[usize::from(table)]
    }

    pub(crate) fn get(&self, table: TableId, id: &Uuid) -> Option<&Row> {
        self.tables.get(usize::from(table))?.get(id)
    }

    /// Runs `work`; on failure every change it made is taken back. Nested calls are savepoints.
    pub(crate) fn transaction<T, E>(&mut self, work: impl FnOnce(&mut Database) -> Result<T, E>) -> Result<T, E> {
        let (mark, version) = (self.undo.len(), self.version);
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        if result.is_err() {
            self.roll_back(mark);
            self.version = version;
        }
        if self.depth == 0 {
            self.count_commits();
            self.append_to_log();
            self.undo.clear();
            self.outbox.append(&mut self.raised);
        }
        result
    }

    fn count_commits(&mut self) {
        for undo in &self.undo {
            if let Undo::Row { table, id, before } = undo {
                let kind = match (before, self.tables[usize::from(*table)].get(id)) {
                    (_, None) => 2,
                    (Some(_), Some(_)) => 1,
                    (None, Some(_)) => 0,
                };
                self.commits.entry(*table).or_default()[kind] += 1;
            }
        }
    }

    fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some(Undo::Row { table, id, before: Some(row) }) => {
                    // The row was there under the same keys before, so no key can object.
                    let restored = self.tables[usize::from(table)].put(id, row);
                    debug_assert!(restored.is_ok(), "undo restores a row that was valid");
                }
                Some(Undo::Row { table, id, before: None }) => {
                    self.tables[usize::from(table)].remove(&id);
                }
                Some(Undo::Deletion { table, .. }) => {
                    self.tables[usize::from(table)].deletions.pop();
                }
                Some(Undo::Schema { before, published }) => {
                    self.schema = before;
                    self.published.truncate(published);
                    self.tables.truncate(self.schema.tables.len());
                }
                Some(Undo::Job) => {
                    self.jobs.pop();
                }
                Some(Undo::Number { table, before }) => {
                    self.tables[usize::from(table)].next_number = before;
                }
                Some(Undo::Event) => {
                    self.raised.pop();
                }
                Some(Undo::File { id, before: Some(content) }) => {
                    self.files.insert(id, content);
                }
                Some(Undo::File { id, before: None }) => {
                    self.files.remove(&id);
                }
                None => break,
            }
        }
    }

    /// Adds a notice that leaves if the transaction commits.
    pub(crate) fn raise(&mut self, event: Event) {
        self.raised.push(event);
        self.undo.push(Undo::Event);
    }

    /// Notices of the transaction so far.
    pub(crate) fn raised(&self) -> &[Event] {
        &self.raised
    }

    /// Takes the notices of committed transactions.
    pub(crate) fn take_outbox(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.outbox)
    }

    /// The content of a file.
    pub(crate) fn file(&self, id: &Uuid) -> Option<&[u8]> {
        self.files.get(id).map(AsRef::as_ref)
    }

    /// Stores a file's content, or drops it.
    pub(crate) fn put_file(&mut self, id: Uuid, content: Option<Arc<[u8]>>) {
        debug_assert!(self.depth > 0, "files change inside transactions only");
        let before = match content {
            Some(content) => self.files.insert(id, content),
            None => self.files.remove(&id),
        };
        self.undo.push(Undo::File { id, before });
    }

    /// A name for a transfer that no other has.
    pub(crate) fn next_token(&mut self) -> Uuid {
        self.tokens += 1;
        crate::schema::stable_id(&format!("transfer:{}:{}", self.version, self.tokens))
    }

    /// Stores a row under the next version number.
    pub(crate) fn put(&mut self, table: TableId, id: Uuid, cells: Box<[u8]>) -> Result<u64, KeyViolation> {
        debug_assert!(self.depth > 0, "rows change inside transactions only");
        let version = self.version + 1;
        let before = self.tables[usize::from(table)].put(id, Row { version, cells })?;
        self.version = version;
        self.undo.push(Undo::Row { table, id, before });
        Ok(version)
    }

    /// Removes a row and remembers its going. False if there was none.
    pub(crate) fn remove(&mut self, table: TableId, id: Uuid, at: i64) -> bool {
        debug_assert!(self.depth > 0, "rows change inside transactions only");
        let store = &mut self.tables[usize::from(table)];
        let Some(before) = store.remove(&id) else {
            return false;
        };
        self.version += 1;
        let index = store.deletions.len();
        store.deletions.push(Deletion { version: self.version, id, at });
        self.undo.push(Undo::Row { table, id, before: Some(before) });
        self.undo.push(Undo::Deletion { table, index });
        true
    }

    /// The next number of a table's auto-numbered columns.
    pub(crate) fn next_number(&mut self, table: TableId) -> u64 {
        let store = &mut self.tables[usize::from(table)];
        let before = store.next_number;
        store.next_number += 1;
        self.undo.push(Undo::Number { table, before });
        before + 1
    }

    pub(crate) fn schedule(&mut self, job: Job) {
        self.jobs.push(job);
        self.undo.push(Undo::Job);
    }

    /// Puts a new schema in force; cached readers see it from `visible_at` on.
    pub(crate) fn set_schema(&mut self, schema: Schema, visible_at: f64) {
        let before = std::mem::replace(&mut self.schema, Arc::new(schema));
        self.undo.push(Undo::Schema { before: Arc::clone(&before), published: self.published.len() });
        if self.published.is_empty() {
            self.published.push((f64::NEG_INFINITY, before));
        }
        self.published.push((visible_at, Arc::clone(&self.schema)));
        self.ensure_stores();
    }

    /// The schema as a reader through the metadata cache sees it at `now`.
    pub(crate) fn cached_schema(&self, now: f64) -> &Arc<Schema> {
        let seen = self.published.iter().rev().find(|(visible_at, _)| *visible_at <= now);
        seen.map_or(&self.schema, |(_, schema)| schema)
    }

    /// Forgets schemas that no reader sees any more.
    pub(crate) fn forget_old_schemas(&mut self, now: f64) {
        if let Some(current) = self.published.iter().rposition(|(visible_at, _)| *visible_at <= now) {
            self.published.drain(..current);
        }
    }

    pub(crate) fn build_index(&mut self, table: TableId, key: Uuid, columns: &[u16]) -> bool {
        self.tables[usize::from(table)].build_index(key, columns)
    }

    pub(crate) fn drop_index(&mut self, table: TableId, key: Uuid) {
        self.tables[usize::from(table)].drop_index(key);
    }

    /// A copy for a named snapshot, or to start from.
    pub(crate) fn image(&self) -> Image {
        Image {
            schema: Arc::clone(&self.schema),
            tables: self.tables.clone(),
            version: self.version,
            jobs: self.jobs.clone(),
            files: self.files.clone(),
        }
    }

    /// Goes back to an image, the version counter included, as a restored environment does.
    pub(crate) fn restore(&mut self, image: &Image) {
        self.schema = Arc::clone(&image.schema);
        self.published.clear();
        self.tables.clone_from(&image.tables);
        self.version = image.version;
        self.jobs.clone_from(&image.jobs);
        self.files.clone_from(&image.files);
        self.transfers = Transfers::default();
        self.publishing_until = f64::NEG_INFINITY;
        self.rewrite_log();
    }

    /// Reads the directory's log, then keeps appending to it. True if it held a database.
    pub(crate) fn attach_log(&mut self, directory: &Path, lock: DirectoryLock) -> Result<bool, StorageError> {
        let (log, records) = Log::open(directory, lock)?;
        let found = !records.is_empty();
        for record in records {
            self.replay(record);
        }
        for table in self.schema.tables.clone() {
            self.tables[usize::from(table.id)].index_keys(&table);
        }
        self.log = Some(log);
        self.rewrite_log();
        Ok(found)
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Schema(mut schema) => {
                schema.reindex();
                self.schema = Arc::new(*schema);
                for index in self.tables.len()..self.schema.tables.len() {
                    debug_assert_eq!(index, self.tables.len());
                    self.tables.push(TableStore::default());
                }
            }
            Record::Row { table, id, row } => {
                self.version = self.version.max(row.version);
                // Indexes are built after the replay, so no key can object here.
                let stored = self.tables[usize::from(table)].put(id, row);
                debug_assert!(stored.is_ok());
            }
            Record::Deletion { table, deletion } => {
                self.version = self.version.max(deletion.version);
                let store = &mut self.tables[usize::from(table)];
                // A row that came back within the same transaction was logged before its deletion.
                if store.get(&deletion.id).is_some_and(|row| row.version < deletion.version) {
                    store.remove(&deletion.id);
                }
                store.deletions.push(deletion);
            }
            Record::File { id, content: Some(content) } => {
                self.files.insert(id, content.into());
            }
            Record::File { id, content: None } => {
                self.files.remove(&id);
            }
            Record::Number { table, next } => self.tables[usize::from(table)].next_number = next,
        }
    }

    fn append_to_log(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        for undo in &self.undo {
            match undo {
                Undo::Schema { .. } => log.push_schema(&self.schema),
                Undo::Row { table, id, .. } => {
                    if let Some(row) = self.tables[usize::from(*table)].get(id) {
                        log.push_row(*table, id, row);
                    }
                }
                Undo::Deletion { table, index } => {
                    if let Some(deletion) = self.tables[usize::from(*table)].deletions.get(*index) {
                        log.push_deletion(*table, deletion);
                    }
                }
                Undo::Number { table, .. } => {
                    log.push_number(*table, self.tables[usize::from(*table)].next_number);
                }
                Undo::File { id, .. } => log.push_file(id, self.files.get(id).map(AsRef::as_ref)),
                Undo::Job | Undo::Event => {}
            }
        }
        log.flush();
        if log.wants_rewrite() {
            self.rewrite_log();
        }
    }

    /// Writes the whole database as a new log and drops the old one.
    fn rewrite_log(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        log.begin_rewrite();
        log.push_schema(&self.schema);
        for (index, store) in self.tables.iter().enumerate() {
            let table = index as TableId;
            for deletion in &store.deletions {
                log.push_deletion(table, deletion);
            }
            for (id, row) in store.rows_after(None) {
                log.push_row(table, id, row);
                log.flush_when_large();
            }
            log.push_number(table, store.next_number);
        }
        for (id, content) in &self.files {
            log.push_file(id, Some(content));
            log.flush_when_large();
        }
        log.finish_rewrite();
    }
}

/// A copy of the database in memory.
#[derive(Clone)]
pub(crate) struct Image {
    schema: Arc<Schema>,
    tables: Vec<TableStore>,
    version: u64,
    jobs: Vec<Job>,
    files: Contents,
}
