//! What can go wrong with a ledger.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowgate_core::{Code, ErrorKind};

/// The error of a ledger.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger `{path}` is damaged at byte {offset}: {detail}")]
    Damaged { path: PathBuf, offset: u64, detail: String },
    #[error("ledger `{path}` has format version {found}; this Flowgate knows {known}")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("ledger `{path}` is there already")]
    Exists { path: PathBuf },
    #[error("a record of {bytes} bytes is too long for ledger `{path}`")]
    RecordTooLong { path: PathBuf, bytes: usize },
    #[error("no space left for ledger `{path}`")]
    DiskFull { path: PathBuf },
    /// What is durable is unknown until the file is opened again: the process must stop.
    #[error("writing ledger `{path}` failed")]
    Write { path: PathBuf, source: Arc<io::Error> },
    #[error("reading ledger `{path}` failed")]
    Read { path: PathBuf, source: Arc<io::Error> },
    #[error("ledger `{path}` was removed while the run works")]
    Removed { path: PathBuf },
    #[error("the writer of ledger `{path}` has stopped")]
    Stopped { path: PathBuf },
    #[error("the records of the ledger contradict each other: {detail}")]
    Contradiction { detail: String },
}

impl LedgerError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } => ErrorKind::Configuration,
            Self::DiskFull { .. } | Self::Write { .. } | Self::Read { .. } | Self::Removed { .. } => {
                ErrorKind::Resource
            }
            Self::Exists { .. } | Self::RecordTooLong { .. } | Self::Stopped { .. } | Self::Contradiction { .. } => {
                ErrorKind::Internal
            }
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => Code::STATE_DAMAGED,
            Self::Newer { .. } => Code::STATE_NEWER,
            Self::DiskFull { .. } => Code::DISK_FULL,
            Self::Removed { .. } => Code::STATE_REMOVED,
            Self::Write { .. } | Self::Read { .. } => Code::STORAGE_FAILED,
            Self::Exists { .. } | Self::RecordTooLong { .. } | Self::Stopped { .. } | Self::Contradiction { .. } => {
                Code::INTERNAL
            }
        }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Write { path: path.to_owned(), source: Arc::new(source) },
        }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source: Arc::new(source) }
    }
}
