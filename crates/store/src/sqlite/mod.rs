//! Durable state in one SQLite file.
//!
//! `runs.db` is shared by the processes of one host: write-ahead log, `synchronous=FULL`, every
//! write in a `BEGIN IMMEDIATE` transaction of the one connection that writes. Reads have a
//! connection of their own that cannot write, so a `status` never waits for a run.
//! `locks/<flow>.lock` holds the flows, `locks/store.lock` tells who has the file open.

mod images;
mod letters;
mod open;
mod runs;

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flowgate_core::{Code, FlowName, LoadName, RunId, StreamName, failpoint};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    FlowLease, ImageRecord, Letter, LetterFilter, LetterGroup, LetterMark, LetterPage, LetterSelection, ManifestRecord,
    RunRecord, Store, StoreError, place,
};

/// [`Store`] in `runs.db` of a state directory.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    locks: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// Held shared as long as the database is open.
    presence: fs_err::File,
    /// `runs.db` as it was opened, to notice that it was removed.
    database: fs_err::File,
}

impl SqliteStore {
    /// Opens the state in `dir`, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let locks = place::create(dir)?;
        let path = dir.join("runs.db");
        let opened = open::open(&path, &locks)?;
        let database =
            fs_err::File::open(&path).map_err(|source| StoreError::io("opening the state", &path, source))?;
        Ok(Self {
            path,
            locks,
            writer: Mutex::new(opened.writer),
            reader: Mutex::new(opened.reader),
            presence: opened.presence,
            database,
        })
    }

    /// One transaction that writes: all of `work` or nothing.
    fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.require_in_place(doing)?;
        let mut connection = hold(&self.writer);
        let commit = || -> Result<T, Fault> {
            let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            failpoint::hit("store.commit")?;
            transaction.commit()?;
            failpoint::hit("store.committed")?;
            Ok(value)
        };
        commit().map_err(|fault| fault.at(doing, &self.path))
    }

    /// SQLite goes on with files that nobody can find again; what is recorded there is lost when the process ends, and
    /// the locks beside them keep nobody out.
    fn require_in_place(&self, doing: &'static str) -> Result<(), StoreError> {
        let files = [(&self.database, self.path.clone()), (&self.presence, self.locks.join("store.lock"))];
        for (file, path) in files {
            let is_there = flowgate_files::is_in_place(file, &path);
            if !is_there.map_err(|source| StoreError::io(doing, &path, source))? {
                return Err(StoreError::Removed { path });
            }
        }
        Ok(())
    }

    /// As [`Self::write`], refused unless `lease` still holds its flow.
    fn write_under<T>(
        &self,
        lease: &FlowLease,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.write(doing, |transaction| {
            refuse_old_epoch(transaction, lease)?;
            work(transaction)
        })
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        work(&hold(&self.reader)).map_err(|fault| fault.at(doing, &self.path))
    }

    fn holder(&self, flow: &FlowName) -> Result<String, StoreError> {
        self.read("reading who runs the flow", |connection| {
            let mut statement = connection.prepare("SELECT pid, since FROM flows WHERE flow = ?1")?;
            let mut rows = statement.query([flow.as_str()])?;
            let Some(row) = rows.next()? else { return Ok("another process".to_owned()) };
            let since = runs::timestamp(&row.get::<_, String>(1)?)?;
            Ok(format!("process {} since {}", row.get::<_, u32>(0)?, since.strftime("%Y-%m-%d %H:%M:%S UTC")))
        })
    }

    fn raise_epoch(&self, flow: &FlowName, now: Timestamp) -> Result<u64, StoreError> {
        self.write("taking the flow", |transaction| {
            let epoch = transaction.query_row(
                "INSERT INTO flows (flow, epoch, pid, since) VALUES (?1, 1, ?2, ?3)
                 ON CONFLICT (flow) DO UPDATE SET epoch = epoch + 1, pid = excluded.pid, since = excluded.since
                 RETURNING epoch",
                (flow.as_str(), std::process::id(), crate::time::to_text(now)),
                |row| row.get::<_, i64>(0),
            )?;
            Ok(epoch as u64)
        })
    }
}

/// A panic while the lock was held rolled its transaction back: the connection is as good as before.
fn hold(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse_old_epoch(transaction: &Transaction<'_>, lease: &FlowLease) -> Result<(), Fault> {
    let flow = lease.flow();
    let current: i64 =
        transaction.query_row("SELECT epoch FROM flows WHERE flow = ?1", [flow.as_str()], |row| row.get(0))?;
    let current = current as u64;
    if current == lease.epoch() {
        return Ok(());
    }
    Err(StoreError::Fenced { flow: flow.clone(), held: lease.epoch(), current }.into())
}

fn refuse_other_flow(lease: &FlowLease, record: &FlowName) -> Result<(), StoreError> {
    if lease.flow() == record {
        return Ok(());
    }
    Err(StoreError::WrongFlow { held: lease.flow().clone(), record: record.clone() })
}

/// What goes wrong inside a transaction, before it is known where.
#[derive(Debug)]
enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
    Io(std::io::Error),
    /// A stored value that we would never have written.
    Damaged(String),
}

impl Fault {
    fn damaged(what: &str, value: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("`{value}` is no {what}"))
    }

    fn at(self, doing: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Sql(source) => StoreError::database(doing, path, source),
            Self::Store(error) => error,
            Self::Io(source) => StoreError::io(doing, path, source),
            Self::Damaged(detail) => StoreError::Damaged { path: path.to_owned(), detail },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Store for SqliteStore {
    fn lease_flow(&self, flow: &FlowName, now: Timestamp) -> Result<FlowLease, StoreError> {
        let path = self.locks.join(format!("{flow}.lock"));
        let lock = place::open_file(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::FlowIsRunning { flow: flow.clone(), holder: self.holder(flow)? });
            }
            Err(TryLockError::Error(source)) => return Err(StoreError::io("locking the flow", &path, source)),
        }
        let epoch = self.raise_epoch(flow, now)?;
        Ok(FlowLease::new(flow.clone(), epoch, lock))
    }

    fn begin_run(&self, lease: &FlowLease, record: &RunRecord) -> Result<(), StoreError> {
        refuse_other_flow(lease, &record.flow)?;
        record.check()?;
        self.write_under(lease, "beginning the run", |transaction| {
            runs::abandon_others(transaction, record)?;
            runs::save(transaction, record)
        })
    }

    fn save_run(&self, lease: &FlowLease, record: &RunRecord) -> Result<(), StoreError> {
        refuse_other_flow(lease, &record.flow)?;
        record.check()?;
        self.write_under(lease, "saving the run", |transaction| runs::save(transaction, record))
    }

    fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        self.read("reading the run", |connection| runs::by_id(connection, run))
    }

    fn runs(&self, flow: Option<&FlowName>, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.read("listing runs", |connection| runs::newest(connection, flow, limit))
    }

    fn forget_runs(&self, lease: &FlowLease, keep: usize) -> Result<u64, StoreError> {
        self.write_under(lease, "forgetting runs", |transaction| runs::forget(transaction, lease.flow(), keep))
    }

    fn record_image(&self, lease: &FlowLease, image: &ImageRecord) -> Result<(), StoreError> {
        refuse_other_flow(lease, &image.flow)?;
        self.write_under(lease, "recording the image", |transaction| images::record(transaction, image))
    }

    fn images(&self, flow: &FlowName, stream: &StreamName) -> Result<Vec<ImageRecord>, StoreError> {
        self.read("listing images", |connection| images::of_stream(connection, flow, stream))
    }

    fn retire_images(&self, lease: &FlowLease, stream: &StreamName, keep: usize) -> Result<Vec<String>, StoreError> {
        self.write_under(lease, "retiring images", |transaction| {
            images::retire(transaction, lease.flow(), stream, keep)
        })
    }

    fn manifest(&self, flow: &FlowName, load: &LoadName) -> Result<Option<ManifestRecord>, StoreError> {
        self.read("reading the manifest", |connection| images::manifest(connection, flow, load))
    }

    fn swap_manifest(
        &self,
        lease: &FlowLease,
        load: &LoadName,
        expected: u64,
        json: &str,
        record: Option<&RunRecord>,
    ) -> Result<(), StoreError> {
        if let Some(record) = record {
            refuse_other_flow(lease, &record.flow)?;
            record.check()?;
        }
        self.write_under(lease, "swapping the manifest", |transaction| {
            images::swap_manifest(transaction, lease.flow(), load, expected, json)?;
            record.map_or(Ok(()), |record| runs::save(transaction, record))
        })
    }

    fn save_letters(&self, lease: &FlowLease, letters: &[Letter]) -> Result<(), StoreError> {
        for letter in letters {
            refuse_other_flow(lease, &letter.flow)?;
        }
        self.write_under(lease, "saving letters", |transaction| letters::save(transaction, letters))
    }

    fn resolve_letters(&self, lease: &FlowLease, ids: &[String]) -> Result<u64, StoreError> {
        self.write_under(lease, "resolving letters", |transaction| letters::resolve(transaction, lease.flow(), ids))
    }

    fn touch_letters(&self, lease: &FlowLease, ids: &[String], now: Timestamp) -> Result<u64, StoreError> {
        self.write_under(lease, "touching letters", |transaction| letters::touch(transaction, lease.flow(), ids, now))
    }

    fn resolve_unmet_letters(
        &self,
        lease: &FlowLease,
        place: &str,
        code: Code,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write_under(lease, "resolving letters", |transaction| {
            letters::resolve_unmet(transaction, lease.flow(), place, code, before)
        })
    }

    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError> {
        self.read("reading the letter", |connection| letters::by_id(connection, id))
    }

    fn letters(&self, filter: &LetterFilter, after: Option<u64>, limit: usize) -> Result<LetterPage, StoreError> {
        self.read("listing letters", |connection| letters::page(connection, filter, after, limit))
    }

    fn count_letters(&self, filter: &LetterFilter) -> Result<u64, StoreError> {
        self.read("counting letters", |connection| letters::count(connection, filter))
    }

    fn letter_groups(&self, flow: Option<&FlowName>) -> Result<Vec<LetterGroup>, StoreError> {
        self.read("counting letters", |connection| letters::groups(connection, flow))
    }

    fn letters_of(&self, flow: &FlowName, place: &str) -> Result<Vec<LetterMark>, StoreError> {
        self.read("reading letters", |connection| letters::marks(connection, flow, place))
    }

    fn request_retry(&self, selection: &LetterSelection) -> Result<u64, StoreError> {
        self.write("requesting retries", |transaction| {
            letters::set_status(transaction, selection, crate::LetterStatus::RetryRequested)
        })
    }

    fn discard(&self, selection: &LetterSelection) -> Result<u64, StoreError> {
        self.write("discarding letters", |transaction| {
            letters::set_status(transaction, selection, crate::LetterStatus::Discarded)
        })
    }

    fn correct_letters(&self, lease: &FlowLease, now: Timestamp) -> Result<u64, StoreError> {
        self.write_under(lease, "correcting letters", |transaction| letters::correct(transaction, lease.flow(), now))
    }

    fn expire_letters(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write("removing old letters", |transaction| letters::expire(transaction, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let pages: i64 = hold(&store.writer).query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        hold(&store.writer).pragma_update(None, "max_page_count", pages).unwrap();
        let flow = FlowName::new("enquiries").unwrap();
        let lease = store.lease_flow(&flow, Timestamp::UNIX_EPOCH).unwrap();
        let load = LoadName::new("cases").unwrap();
        let error = store.swap_manifest(&lease, &load, 0, &"x".repeat(100_000), None).unwrap_err();
        assert_eq!(error.code(), flowgate_core::Code::DISK_FULL, "{error}");
        assert_eq!(store.manifest(&flow, &load).unwrap(), None, "nothing of it is there");
    }

    #[test]
    fn a_reader_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        assert!(hold(&store.reader).execute("DELETE FROM flows", []).is_err());
    }
}
