//! Writing a ledger: many tasks append, one thread syncs for all of them.
//!
//! A record waits at most for the sync under way and its own. The thread takes whatever has
//! gathered meanwhile as one group, so the number of syncs follows the disk, not the number of records.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flowgate_core::failpoint;
use flowgate_files::NewFile;
use fs_err as fs;
use tokio::sync::{mpsc, oneshot};

use super::reader::End;
use super::record::encode;
use super::{
    FILE_HEADER_BYTES, GROUP_BYTES_GOAL, GROUP_HEADER_BYTES, GroupHeader, LedgerError, RECORD_BYTES_MAX, ROOM_BYTES,
    Record, file_header, read,
};

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
        let position = FILE_HEADER_BYTES as u64;
        Self::start(path, End { position, group: 0, room: Some(ROOM_BYTES), torn_bytes: 0 })
    }

    /// Goes on with a ledger; what a killed process left half written at its end is removed.
    pub fn open_append(path: &Path) -> Result<Self, LedgerError> {
        let mut records = read(path)?;
        for record in &mut records {
            record?;
        }
        let end = records.end()?;
        drop(records);
        if end.torn_bytes > 0 {
            tracing::warn!(path = %path.display(), end.torn_bytes, "removing an unfinished write from the ledger");
            remove_torn(path, &end).map_err(|source| LedgerError::write(path, source))?;
        }
        Self::start(path, end)
    }

    fn start(path: &Path, end: End) -> Result<Self, LedgerError> {
        let mut file = open(path, fs::OpenOptions::new().write(true))?;
        file.seek(SeekFrom::Start(end.position)).map_err(|source| LedgerError::write(path, source))?;
        let (appends, waiting) = mpsc::channel(WAITING_RECORDS_MAX);
        let End { position, group, room, .. } = end;
        let commits = Commits { path: path.to_owned(), file, position, group, room, failure: None };
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
    /// Where the next group begins, and its number.
    position: u64,
    group: u64,
    /// The length of the file, if it is longer than its groups.
    room: Option<u64>,
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
        // What is written to a file that nobody can find again is not durable, and what follows it must not be sent.
        let written = flowgate_files::is_in_place(&self.file, &self.path)
            .and_then(|is_there| if is_there { self.write_group(body).map(|()| true) } else { Ok(false) });
        let failure = match written {
            Ok(true) => None,
            Ok(false) => Some(LedgerError::Removed { path: self.path.clone() }),
            Err(source) => Some(LedgerError::write(&self.path, source)),
        };
        if let Some(failure) = failure {
            self.failure = Some(failure.clone());
            return Err(failure);
        }
        Ok(())
    }

    fn write_group(&mut self, body: &[u8]) -> io::Result<()> {
        failpoint::hit("ledger.write")?;
        let end = self.position + (GROUP_HEADER_BYTES + body.len()) as u64;
        self.make_room(end)?;
        self.file.write_all(&GroupHeader::of(self.group, body).encode())?;
        failpoint::hit("ledger.torn")?;
        self.file.write_all(body)?;
        failpoint::hit("ledger.sync")?;
        self.file.sync_data()?;
        self.position = end;
        self.group += 1;
        Ok(())
    }

    /// Makes the file durably longer than `end`, so that a power cut while the group is written cannot leave it shorter.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        let Some(room) = self.room.filter(|room| end >= *room) else { return Ok(()) };
        let wanted = (end + 1 + room / 4).next_multiple_of(ROOM_BYTES);
        self.file.set_len(wanted)?;
        self.file.sync_all()?;
        self.room = Some(wanted);
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
    file.set_len(ROOM_BYTES)?;
    file.sync()?;
    file.name()?;
    failpoint::hit("ledger.created")?;
    flowgate_files::sync_parent(path)
}

/// Removes what a killed process left half written. The file does not become shorter where that would look like a cut.
fn remove_torn(path: &Path, end: &End) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    if end.room.is_none() {
        file.set_len(end.position)?;
    } else {
        file.seek(SeekFrom::Start(end.position))?;
        io::copy(&mut io::repeat(0).take(end.torn_bytes), &mut file)?;
    }
    file.sync_all()
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
        let mut commits = Commits { path: path.to_owned(), file, position: 0, group: 0, room: None, failure: None };
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
