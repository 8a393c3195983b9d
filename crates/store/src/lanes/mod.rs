//! [`LaneLeases`] in `lanes.db` of a state directory, for the processes of one host.
//!
//! Promised: a lane has one holder at a time, and its epoch rises with each; what a holder told last is
//! what the next one learns; a process that died frees its lanes at once, because the operating system
//! frees the lock of its seat, and one that hangs frees them when their lease ends. A holder that was
//! gone for longer finds its epoch over, and what it tells is not taken.
//!
//! Left out: what a lane is used for and how full it is (the budget's, opaque here), and processes of
//! other hosts, which share limits without knowing it.

mod open;
mod share;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowgate_core::ports::{Beat, Beaten, LaneLeases, LaneSeat};
use flowgate_core::{ConnectorError, ErrorKind};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use uuid::Uuid;

use crate::{StoreError, place};
use table::Asker;

/// The table of lanes of one environment.
#[derive(Debug)]
pub struct SqliteLanes {
    table: Arc<Table>,
}

/// What a budget told last, for people who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRecord {
    pub connection: String,
    pub pid: u32,
    pub at: Timestamp,
    /// The process still runs.
    pub is_alive: bool,
    pub snapshot: String,
}

/// Who holds a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHolder {
    pub identity: String,
    pub server: String,
    pub pid: u32,
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    locks: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteLanes {
    /// Opens the table in `dir`, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let locks = place::create(dir)?;
        let path = dir.join("lanes.db");
        let connection = Mutex::new(open::open(&path, &locks.join("lanes.lock"))?);
        Ok(Self { table: Arc::new(Table { path, locks, connection }) })
    }

    /// The newest word of each connection's budgets, those of processes that run first.
    pub fn budgets(&self) -> Result<Vec<BudgetRecord>, StoreError> {
        let mut records = self.table.write("reading the budgets", table::seats)?;
        for (owner, record) in &mut records {
            record.is_alive = record.is_alive && self.table.is_locked(owner);
        }
        let mut records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        records.sort_by_key(|record| (record.connection.clone(), !record.is_alive, std::cmp::Reverse(record.at)));
        records.dedup_by(|later, first| later.connection == first.connection);
        Ok(records)
    }

    /// The lanes that somebody holds.
    pub fn holders(&self) -> Result<Vec<LaneHolder>, StoreError> {
        let held = self.table.write("reading who holds the lanes", table::holders)?;
        Ok(held.into_iter().filter(|(owner, _)| self.table.is_locked(owner)).map(|(_, holder)| holder).collect())
    }
}

impl LaneLeases for SqliteLanes {
    fn enter(&self, connection: &str, now: Timestamp) -> Result<Box<dyn LaneSeat>, ConnectorError> {
        let owner = Uuid::new_v4().to_string();
        let lock = self.table.sit_down(&owner).map_err(to_connector_error)?;
        let seat = Seat { table: Arc::clone(&self.table), owner, connection: connection.to_owned(), _lock: lock };
        seat.table
            .write("forgetting old lanes", |transaction| table::forget(transaction, now))
            .map_err(to_connector_error)?;
        Ok(Box::new(seat))
    }
}

/// One budget's place. Its lock file says that its process lives.
#[derive(Debug)]
struct Seat {
    table: Arc<Table>,
    owner: String,
    connection: String,
    _lock: fs_err::File,
}

impl Seat {
    fn tell(&self, now: Timestamp, beat: &Beat, is_last: bool) -> Result<Beaten, ConnectorError> {
        let asker = Asker { owner: &self.owner, connection: &self.connection, now_ms: now.as_millisecond() };
        self.table
            .write("sharing the lanes", |transaction| {
                for other in table::others(transaction, &self.owner)? {
                    if other.until_ms <= asker.now_ms || !self.table.is_locked(&other.owner) {
                        table::unseat(transaction, &other.owner, asker.now_ms)?;
                    }
                }
                if is_last {
                    asker.leave(transaction, beat).map(|()| Beaten::default())
                } else {
                    asker.beat(transaction, beat)
                }
            })
            .map_err(to_connector_error)
    }
}

impl LaneSeat for Seat {
    fn beat(&self, now: Timestamp, beat: &Beat) -> Result<Beaten, ConnectorError> {
        self.tell(now, beat, false)
    }

    fn leave(&self, now: Timestamp, beat: &Beat) -> Result<(), ConnectorError> {
        self.tell(now, beat, true).map(|_| ())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever looks for the file and finds none knows as much as from one that is not locked.
        if let Err(error) = fs_err::remove_file(self.table.seat_path(&self.owner)) {
            tracing::debug!(%error, "a seat's lock file stays behind");
        }
    }
}

impl Table {
    fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = hold(&self.connection);
        let commit = || {
            let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        commit().map_err(|source| StoreError::database(doing, &self.path, source))
    }

    fn seat_path(&self, owner: &str) -> PathBuf {
        self.locks.join(format!("seat-{owner}.lock"))
    }

    fn sit_down(&self, owner: &str) -> Result<fs_err::File, StoreError> {
        let path = self.seat_path(owner);
        let lock = place::open_file(&path)?;
        lock.lock().map_err(|source| StoreError::io("locking a seat", &path, source))?;
        Ok(lock)
    }

    /// Whether the process that sits there lives. The lock of a dead one is removed.
    fn is_locked(&self, owner: &str) -> bool {
        let path = self.seat_path(owner);
        let Ok(file) = fs_err::File::open(&path) else { return false };
        match file.try_lock() {
            Ok(()) => {
                if let Err(error) = fs_err::remove_file(&path) {
                    tracing::debug!(%error, "a dead seat's lock file stays behind");
                }
                false
            }
            Err(_) => true,
        }
    }
}

/// A panic while the lock was held rolled its transaction back.
fn hold(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_connector_error(error: StoreError) -> ConnectorError {
    let (kind, code) = (error.kind(), error.code());
    if matches!(error, StoreError::DiskFull { .. }) {
        return ConnectorError::new(kind, code, error.to_string());
    }
    let message = "the limits of the service cannot be shared with other processes";
    let shown = ConnectorError::new(kind, code, message).caused_by(error);
    if kind == ErrorKind::Corrupt {
        return shown.hint("remove `lanes.db` of the state directory while no command runs: what is lost is the use of the last minutes, and the day's count");
    }
    shown
}
