//! Errors as data: what kind, which code, and what a person should do.

use std::fmt;

use crate::Code;

/// What a caller decides on. Closed on purpose: match it without a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The configuration asks for something that cannot be.
    Configuration,
    /// Sign-in failed: no token, a refused one, a wrong secret.
    Authentication,
    /// Signed in, but not allowed.
    Permission,
    /// A table, column, file, key or row that is not there.
    NotFound,
    /// The service asks to wait.
    Throttled,
    /// A network failure or a passing state of the service.
    Transient,
    /// A row's content.
    Data,
    /// The two sides disagree about their schema.
    Schema,
    /// Someone else holds what we need.
    Conflict,
    /// Stored bytes are not what was written.
    Corrupt,
    /// No space, no memory, a failed sync: the machine.
    Resource,
    /// A person or a deadline stopped it.
    Cancelled,
    /// A broken promise of our own code.
    Internal,
}

/// The error of a source or a destination, ready to be shown.
///
/// `message` starts with what failed, in lower case without a full stop, values in backticks;
/// `hints` say what to do. Neither ever holds a secret.
#[derive(Debug)]
pub struct ConnectorError {
    pub kind: ErrorKind,
    pub code: Code,
    pub message: String,
    pub hints: Vec<String>,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectorError {
    pub fn new(kind: ErrorKind, code: Code, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), hints: Vec::new(), source: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, Code::CANCELLED, "stopped on request")
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
