//! Why a run stopped.

use std::fmt;
use std::path::PathBuf;

use flowgate_core::project::Sql;
use flowgate_core::{Code, ConnectorError, ErrorKind, LoadName};
use flowgate_sorted::SortedError;
use flowgate_sql::SqlError;
use flowgate_store::StoreError;
use flowgate_store::ledger::LedgerError;

/// A place in a file of the project, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    pub path: PathBuf,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// The error of a run or a plan.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error("{error}")]
    Sql { error: Box<SqlError>, path: PathBuf, place: Option<FilePlace> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    State(#[from] SortedError),
    /// The project and the destination do not fit together.
    #[error("{message}")]
    Refused { kind: ErrorKind, code: Code, message: String, hints: Vec<String> },
    #[error("staging failed: {message}")]
    Stage { code: Code, message: String, is_full: bool },
    #[error("stopped on request")]
    Cancelled,
    #[error("a defect of flowgate: {0}")]
    Defect(&'static str),
}

impl RunError {
    pub(crate) fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused { kind: ErrorKind::Configuration, code, message: message.into(), hints: Vec::new() }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Refused { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    /// Says whose mapping is wrong, where the message speaks of the table alone.
    pub(crate) fn in_load(self, load: &LoadName) -> Self {
        let hint = format!("load `{load}` asks for it");
        match self {
            Self::Refused { .. } if !self.to_string().contains(&format!("`{load}`")) => self.hint(hint),
            Self::Connector(error) => Self::Connector(error.hint(hint)),
            other => other,
        }
    }

    pub(crate) fn sql(error: SqlError, sql: &Sql) -> Self {
        let place = error.place().map(|place| FilePlace {
            path: sql.path.clone(),
            line: place.line + sql.line_offset,
            column: place.column,
        });
        Self::Sql { error: Box::new(error), path: sql.path.clone(), place }
    }

    pub(crate) fn stage(error: &(impl fmt::Display + ?Sized)) -> Self {
        let message = error.to_string();
        let is_full = message.contains("No space left") || message.contains("StorageFull");
        let code = if is_full { Code::DISK_FULL } else { Code::STORAGE_FAILED };
        Self::Stage { code, message, is_full }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Connector(error) => error.code,
            Self::Sql { error, .. } => error.code(),
            Self::Store(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Refused { code, .. } | Self::Stage { code, .. } => *code,
            Self::Cancelled => Code::CANCELLED,
            Self::Defect(_) => Code::INTERNAL,
        }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connector(error) => error.kind,
            Self::Sql { .. } => ErrorKind::Configuration,
            Self::Store(error) => error.kind(),
            Self::Ledger(_) | Self::State(_) => ErrorKind::Corrupt,
            Self::Refused { kind, .. } => *kind,
            Self::Stage { .. } => ErrorKind::Resource,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Defect(_) => ErrorKind::Internal,
        }
    }

    /// What to do, most helpful first.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Connector(error) => error.hints.clone(),
            Self::Sql { error, .. } => error.hints(),
            Self::Refused { hints, .. } => hints.clone(),
            Self::State(SortedError::Newer { .. }) | Self::Ledger(LedgerError::Newer { .. }) => {
                vec!["update Flowgate: a newer one has written it".into()]
            }
            Self::State(_) | Self::Ledger(LedgerError::Damaged { .. } | LedgerError::Contradiction { .. }) => {
                vec!["`flowgate run FLOW --adopt` rebuilds the state from the destination".into()]
            }
            Self::Store(error) => error.hints(),
            Self::Stage { is_full: true, .. } => {
                vec!["free space and run again: the run goes on where it stopped".into()]
            }
            _ => Vec::new(),
        }
    }

    /// Where in the project's files, when the cause is there.
    pub fn place(&self) -> Option<&FilePlace> {
        match self {
            Self::Sql { place, .. } => place.as_ref(),
            _ => None,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }
}

impl From<arrow_schema::ArrowError> for RunError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::stage(&error)
    }
}

impl From<parquet::errors::ParquetError> for RunError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::stage(&error)
    }
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self::stage(&error)
    }
}
