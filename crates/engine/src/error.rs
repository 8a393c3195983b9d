//! Why a run stopped.

use std::error::Error;
use std::fmt;
use std::io;
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

    /// For a SELECT of ours around the one in the file: places in it are nowhere in the file.
    pub(crate) fn sql_of_ours(error: SqlError, sql: &Sql) -> Self {
        Self::Sql { error: Box::new(error), path: sql.path.clone(), place: None }
    }

    pub(crate) fn stage(error: &(dyn Error + 'static)) -> Self {
        let is_full = is_full_disk(error);
        let code = if is_full { Code::DISK_FULL } else { Code::STORAGE_FAILED };
        Self::Stage { code, message: error.to_string(), is_full }
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
            Self::Sql { error, .. } if matches!(**error, SqlError::DiskFull { .. }) => ErrorKind::Resource,
            Self::Sql { .. } => ErrorKind::Configuration,
            Self::Store(error) => error.kind(),
            Self::Ledger(error) => error.kind(),
            Self::State(error) => error.kind(),
            Self::Refused { kind, .. } => *kind,
            Self::Stage { .. } => ErrorKind::Resource,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Defect(_) => ErrorKind::Internal,
        }
    }

    /// What to do, most helpful first.
    pub fn hints(&self) -> Vec<String> {
        match self {
            _ if self.code() == Code::DISK_FULL => {
                vec!["free space and run again: the run goes on where it stopped".into()]
            }
            Self::Connector(error) => error.hints.clone(),
            Self::Sql { error, .. } => error.hints(),
            Self::Refused { hints, .. } => hints.clone(),
            Self::State(SortedError::Newer { .. }) | Self::Ledger(LedgerError::Newer { .. }) => {
                vec!["update Flowgate: a newer one has written it".into()]
            }
            Self::State(SortedError::Damaged { .. })
            | Self::Ledger(LedgerError::Damaged { .. } | LedgerError::Contradiction { .. }) => {
                vec!["`flowgate run FLOW --adopt` rebuilds the state from the destination".into()]
            }
            Self::Store(error) => error.hints(),
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

/// Whether a full disk is at the bottom of this.
fn is_full_disk(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let is_full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if error.downcast_ref::<io::Error>().is_some_and(is_full)
            || matches!(error.downcast_ref(), Some(SqlError::DiskFull { .. }))
        {
            return true;
        }
        cause = error.source();
    }
    false
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

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::stage(&error)
    }
}

#[cfg(test)]
mod tests {
    use parquet::errors::ParquetError;

    use super::*;

    #[test]
    fn a_full_disk_is_known_by_its_kind_however_it_is_wrapped() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = PathBuf::from("a.index");
        let errors = [
            RunError::from(full()),
            RunError::from(ParquetError::External(Box::new(full()))),
            RunError::from(ParquetError::from(arrow_schema::ArrowError::IoError("writing".into(), full()))),
            RunError::State(SortedError::DiskFull { path: path.clone() }),
            RunError::Ledger(LedgerError::DiskFull { path: path.clone() }),
        ];
        for error in errors {
            let told = (error.code(), error.kind(), error.hints());
            let hint = "free space and run again: the run goes on where it stopped".to_owned();
            assert_eq!(told, (Code::DISK_FULL, ErrorKind::Resource, vec![hint]), "{error:?}");
        }
        let name = RunError::from(io::Error::other("No space left of the name"));
        assert_eq!(name.code(), Code::STORAGE_FAILED);
    }

    #[test]
    fn only_damage_is_mended_by_adopting() {
        let path = PathBuf::from("a.index");
        let damaged = SortedError::Damaged { path: path.clone(), detail: "short".into() };
        assert!(RunError::State(damaged).hints()[0].contains("--adopt"));
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let unreadable = RunError::State(SortedError::Io { doing: "reading", path, source });
        assert_eq!((unreadable.kind(), unreadable.hints()), (ErrorKind::Resource, Vec::new()));
        assert_eq!(RunError::State(SortedError::Misused("twice")).hints(), Vec::<String>::new());
    }
}
