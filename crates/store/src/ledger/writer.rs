//! Writing a ledger: many tasks append, one thread syncs for all of them.
//!
//! A record waits at most for the sync under way and its own. The thread takes whatever has
//! gathered meanwhile as one group, so the number of syncs follows the disk, not the number of records.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flowgate_core::failpoint;
use flowgate_files::NewFile;
use fs_err as fs;
use tokio::sync::{mpsc, oneshot};

use super::record::encode;
use super::{GROUP_BYTES_GOAL, GroupHeader, LedgerError, RECORD_BYTES_MAX, Record, file_header, read};

/// Records that may wait for the disk; further ones wait for a place.
const WAITING_RECORDS_MAX: usize = 256;

/// One record on its way to the disk.
struct Append {
    bytes: Vec<u8>,
    done: oneshot::Sender<Result<(), LedgerError>>,
}

/// The one writer of a ledger. Dropping it waits until everything appended is on disk.
#[derive(Debug)]
pub struct LedgerWriter {
    path: PathBuf,
    appends: Option<mpsc::Sender<Append>>,
    thread: Option<JoinHandle<()>>,
}

impl LedgerWriter {
    /// Makes a new ledger, and its directory if need be, durable with its directory entry.
    pub fn create(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::write(path, source);
        if path.try_exists().map_err(failed)? {
            return Err(LedgerError::Exists { path: path.to_owned() });
        }
        path.parent().map_or(Ok(()), flowgate_files::create_dir).map_err(failed)?;
        write_header(path).map_err(failed)?;
        Self::start(path, 0)
    }

    /// Goes on with a ledger; what a killed process left half written at its end is removed.
    pub fn open_append(path: &Path) -> Result<Self, LedgerError> {
        let mut records = read(path)?;
        for record in &mut records {
            record?;
        }
        let (end, group) = records.end();
        let torn_bytes = records.torn_bytes();
        drop(records);
        if torn_bytes > 0 {
            tracing::warn!(path = %path.display(), torn_bytes, "removing an unfinished write from the ledger");
            let file = open(path, fs::OpenOptions::new().write(true))?;
            file.set_len(end).and_then(|()| file.sync_all()).map_err(|source| LedgerError::write(path, source))?;
        }
        Self::start(path, group)
    }

    fn start(path: &Path, group: u64) -> Result<Self, LedgerError> {
        let file = open(path, fs::OpenOptions::new().append(true))?;
        let (appends, waiting) = mpsc::channel(WAITING_RECORDS_MAX);
        let commits = Commits { path: path.to_owned(), file, group, failure: None };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || commits.run(waiting))
            .map_err(|source| LedgerError::write(path, source))?;
        Ok(Self { path: path.to_owned(), appends: Some(appends), thread: Some(thread) })
    }

    /// Appends `record` and returns when it is durable.
    ///
    /// After one failure all further appends fail: what is durable is then unknown until the file
    /// is opened again. A caller that stops waiting may find the record written or not.
    pub async fn append(&self, record: &Record) -> Result<(), LedgerError> {
        let bytes = encode(record);
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(LedgerError::RecordTooLong { path: self.path.clone(), bytes: bytes.len() });
        }
        let stopped = || LedgerError::Stopped { path: self.path.clone() };
        let (done, answer) = oneshot::channel();
        let appends = self.appends.as_ref().ok_or_else(stopped)?;
        appends.send(Append { bytes, done }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LedgerWriter {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the ledger's writer panicked");
        }
    }
}

/// The thread's side.
struct Commits {
    path: PathBuf,
    file: fs::File,
    /// Number of the next group.
    group: u64,
    /// The first failure; nothing is written after it.
    failure: Option<LedgerError>,
}

impl Commits {
    fn run(mut self, mut waiting: mpsc::Receiver<Append>) {
        let mut group = Vec::new();
        let mut bytes = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            gather(first, &mut waiting, &mut bytes, &mut group);
            let result = self.commit(&bytes);
            for done in group.drain(..) {
                // A caller that stopped waiting does not want the answer.
                drop(done.send(result.clone()));
            }
        }
    }

    fn commit(&mut self, body: &[u8]) -> Result<(), LedgerError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Err(source) = self.write_group(body) {
            let failure = LedgerError::write(&self.path, source);
            self.failure = Some(failure.clone());
            return Err(failure);
        }
        Ok(())
    }

    fn write_group(&mut self, body: &[u8]) -> io::Result<()> {
        failpoint::hit("ledger.write")?;
        self.file.write_all(&GroupHeader::of(self.group, body).encode())?;
        failpoint::hit("ledger.torn")?;
        self.file.write_all(body)?;
        failpoint::hit("ledger.sync")?;
        self.file.sync_data()?;
        self.group += 1;
        Ok(())
    }
}

/// Takes `first` and all that waits behind it into one group.
fn gather(
    first: Append,
    waiting: &mut mpsc::Receiver<Append>,
    bytes: &mut Vec<u8>,
    group: &mut Vec<oneshot::Sender<Result<(), LedgerError>>>,
) {
    bytes.clear();
    let mut next = Some(first);
    while let Some(append) = next {
        bytes.extend_from_slice(&append.bytes);
        group.push(append.done);
        next = if bytes.len() < GROUP_BYTES_GOAL { waiting.try_recv().ok() } else { None };
    }
}

/// A ledger is there with its header or not at all.
fn write_header(path: &Path) -> io::Result<()> {
    failpoint::hit("ledger.create")?;
    let mut file = NewFile::create(path)?;
    file.write_all(&file_header())?;
    file.sync()?;
    file.name()?;
    failpoint::hit("ledger.created")?;
    flowgate_files::sync_parent(path)
}

fn open(path: &Path, options: &mut fs::OpenOptions) -> Result<fs::File, LedgerError> {
    options.open(path).map_err(|source| LedgerError::write(path, source))
}

#[cfg(test)]
mod tests {
    use flowgate_core::Code;

    use super::*;

    #[test]
    fn after_a_full_disk_nothing_more_is_acknowledged() {
        let path = Path::new("/dev/full");
        let file = open(path, fs::OpenOptions::new().write(true)).unwrap();
        let mut commits = Commits { path: path.to_owned(), file, group: 0, failure: None };
        let first = commits.commit(b"record").unwrap_err();
        assert_eq!(
            (first.code(), first.to_string()),
            (Code::DISK_FULL, "no space left for ledger `/dev/full`".to_owned())
        );
        commits.file = open(Path::new("/dev/null"), fs::OpenOptions::new().write(true)).unwrap();
        let second = commits.commit(b"record").unwrap_err();
        assert_eq!((second.code(), commits.group), (Code::DISK_FULL, 0), "not even when there is space again");
    }
}
