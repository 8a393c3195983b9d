//! What can go wrong with sorted buckets.

use std::io;
use std::path::{Path, PathBuf};

use arrow_schema::{ArrowError, DataType};
use flowgate_core::{Code, ErrorKind};

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum SortedError {
    #[error("`{path}` is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("`{path}` has format version {found}; this Flowgate knows {known}")]
    Newer { path: PathBuf, found: u32, known: u32 },
    /// Not migrated: the destination knows all that it says.
    #[error("`{path}` has the old format version {found}; this Flowgate knows {known}")]
    Older { path: PathBuf, found: u32, known: u32 },
    #[error("no space left for `{path}`")]
    DiskFull { path: PathBuf },
    #[error("{doing} `{path}` failed")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("column `{column}` of type {data_type} cannot be hashed")]
    UnsupportedType { column: String, data_type: DataType },
    #[error("{doing} failed")]
    Arrow { doing: &'static str, source: ArrowError },
    /// A broken promise of the caller.
    #[error("{0}")]
    Misused(&'static str),
}

impl SortedError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } | Self::Older { .. } => ErrorKind::Configuration,
            Self::DiskFull { .. } | Self::Io { .. } => ErrorKind::Resource,
            Self::UnsupportedType { .. } => ErrorKind::Schema,
            Self::Arrow { .. } | Self::Misused(_) => ErrorKind::Internal,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => Code::STATE_DAMAGED,
            Self::Newer { .. } => Code::STATE_NEWER,
            Self::Older { .. } => Code::STATE_OLDER,
            Self::DiskFull { .. } => Code::DISK_FULL,
            Self::Io { .. } => Code::STORAGE_FAILED,
            Self::UnsupportedType { .. } => Code::TYPE_MISMATCH,
            Self::Arrow { .. } | Self::Misused(_) => Code::INTERNAL,
        }
    }

    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }

    /// For `map_err`: an error of the operating system about `path`; a full disk gets its own name.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    pub(crate) fn arrow(doing: &'static str) -> impl FnOnce(ArrowError) -> Self {
        move |source| Self::Arrow { doing, source }
    }
}
