//! What can go wrong in the store, with the code a person sees and the kind a caller decides on.

use std::io;
use std::path::{Path, PathBuf};

use flowgate_core::accounting::Imbalance;
use flowgate_core::{Code, ErrorKind, FlowName, LoadName, RunId};
use rusqlite::ErrorCode;

/// The error of a [`crate::Store`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `holder` says which process, and since when.
    #[error("flow `{flow}` is running already, in {holder}")]
    FlowIsRunning { flow: FlowName, holder: String },
    #[error("flow `{flow}` was taken over by another process: epoch {held} is over, {current} holds")]
    Fenced { flow: FlowName, held: u64, current: u64 },
    #[error("run `{run}` does not add up in {place}: {imbalance}")]
    Imbalance { run: RunId, place: String, imbalance: Imbalance },
    #[error("state of load `{flow}.{load}` is at version {found}, not at {expected}")]
    ManifestMoved { flow: FlowName, load: LoadName, expected: u64, found: u64 },
    #[error("record of flow `{record}` offered under the lease of flow `{held}`")]
    WrongFlow { held: FlowName, record: FlowName },
    #[error("`{path}` has format version {found}; this Flowgate knows {known}")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("`{path}` needs an upgrade, but another process is using it")]
    UpgradeBlocked { path: PathBuf },
    #[error("`{path}` is not a state file of Flowgate")]
    Foreign { path: PathBuf },
    #[error("`{path}` is on network storage ({kind})")]
    NetworkStorage { path: PathBuf, kind: &'static str },
    #[error("`{path}` {why}")]
    NotPrivate { path: PathBuf, why: &'static str },
    #[error("SQLite {found} is too old: {needed} is needed")]
    SqliteTooOld { found: String, needed: &'static str },
    #[error("setting `{name}` is `{found}`, not `{wanted}`")]
    Setting { name: &'static str, found: String, wanted: &'static str },
    #[error("`{path}` is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("no space left for `{path}`")]
    DiskFull { path: PathBuf },
    #[error("`{path}` could not be written to disk")]
    SyncFailed { path: PathBuf, source: rusqlite::Error },
    #[error("`{path}` was removed or replaced while this process works with it")]
    Removed { path: PathBuf },
    #[error("`{path}` is in use by another process for too long")]
    Busy { path: PathBuf },
    #[error("{doing} failed")]
    Database { doing: &'static str, source: rusqlite::Error },
    #[error("{doing} failed")]
    Io { doing: &'static str, source: io::Error },
    #[error("{what} could not be written as JSON")]
    Encode { what: &'static str, source: serde_json::Error },
}

impl StoreError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::FlowIsRunning { .. } | Self::Fenced { .. } | Self::UpgradeBlocked { .. } | Self::Busy { .. } => {
                ErrorKind::Conflict
            }
            Self::Imbalance { .. }
            | Self::ManifestMoved { .. }
            | Self::WrongFlow { .. }
            | Self::Setting { .. }
            | Self::Encode { .. } => ErrorKind::Internal,
            Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::NetworkStorage { .. }
            | Self::NotPrivate { .. }
            | Self::SqliteTooOld { .. } => ErrorKind::Configuration,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::DiskFull { .. }
            | Self::SyncFailed { .. }
            | Self::Removed { .. }
            | Self::Database { .. }
            | Self::Io { .. } => ErrorKind::Resource,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::FlowIsRunning { .. } | Self::Fenced { .. } => Code::FLOW_IS_RUNNING,
            Self::Imbalance { .. } => Code::IMBALANCE,
            Self::ManifestMoved { .. } | Self::WrongFlow { .. } | Self::Setting { .. } | Self::Encode { .. } => {
                Code::INTERNAL
            }
            Self::Newer { .. } => Code::STATE_NEWER,
            Self::NetworkStorage { .. } => Code::NETWORK_STORAGE,
            Self::NotPrivate { .. } => Code::STATE_NOT_PRIVATE,
            Self::Damaged { .. } => Code::STATE_DAMAGED,
            Self::DiskFull { .. } => Code::DISK_FULL,
            Self::Removed { .. } => Code::STATE_REMOVED,
            Self::UpgradeBlocked { .. }
            | Self::Foreign { .. }
            | Self::SqliteTooOld { .. }
            | Self::SyncFailed { .. }
            | Self::Busy { .. }
            | Self::Database { .. }
            | Self::Io { .. } => Code::STORAGE_FAILED,
        }
    }

    /// What to do, most helpful first.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Damaged { path, .. } | Self::Foreign { path } => vec![
                format!(
                    "move `{0}`, `{0}-wal` and `{0}-shm` away; then `flowgate run FLOW --adopt` takes the destination's rows as state",
                    path.display()
                ),
                "letters and the list of runs are lost with it; a backup of the whole state directory has them"
                    .to_owned(),
            ],
            Self::NotPrivate { path, .. } => vec![
                format!(
                    "if nobody has changed anything there: `chmod go-w {0}`, or `chown` to the user who runs Flowgate",
                    path.display()
                ),
                "otherwise take the state from a backup: whoever may write there decides what is believed loaded"
                    .to_owned(),
            ],
            Self::Newer { .. } => vec!["update Flowgate: a newer one has written it".to_owned()],
            _ => Vec::new(),
        }
    }

    /// An error of the operating system about `path`; a full disk gets its own name.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { doing, source },
        }
    }

    /// An error of SQLite while using `path`, told apart by what a person must do about it.
    pub(crate) fn database(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::SystemIoFailure) if is_without_room(&source) => Self::DiskFull { path },
            Some(ErrorCode::SystemIoFailure) => Self::SyncFailed { path, source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, detail: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            _ => Self::Database { doing, source },
        }
    }
}

/// Whether SQLite could not make its shared memory larger, which is how a full disk shows first.
fn is_without_room(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE | rusqlite::ffi::SQLITE_IOERR_SHMMAP))
}
