//! One row of the connector registry, as the configuration and the engine see it.
//!
//! The configuration knows no connector: the binary hands it these entries, and a connector's own
//! struct reads its block.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::ports::LaneLeases;
use crate::{Clock, Code, ConnectorError, Destination, Source};

/// What is wrong with one value of a connector's block. `path` leads from the block to the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub code: Code,
    pub path: Vec<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl FieldError {
    /// A value that is wrong where it stands.
    pub fn new<S: Into<String>>(path: impl IntoIterator<Item = S>, message: impl Into<String>) -> Self {
        let path = path.into_iter().map(Into::into).collect();
        Self { code: Code::WRONG_TYPE, path, message: message.into(), hint: None }
    }

    /// A key that is not there; `path` leads to where it should be.
    pub fn missing<S: Into<String>>(path: impl IntoIterator<Item = S>, key: &str) -> Self {
        Self::new(path, format!("`{key}` is missing")).with_code(Code::MISSING_KEY)
    }

    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The static side of a connector: checked without any I/O.
#[derive(Clone, Copy)]
pub struct ConnectorSpec {
    /// The key in a connection block: `files`, `postgres`.
    pub name: &'static str,
    /// One line for lists and editors.
    pub summary: &'static str,
    pub is_source: bool,
    pub is_destination: bool,
    /// Whether a read can tell which rows were deleted, given the stream's settings.
    pub sees_deletes: fn(&Value) -> bool,
    /// The JSON Schema of the connection block, and of the connector's keys in a stream block.
    pub connection_schema: fn() -> Value,
    pub stream_schema: fn() -> Value,
    /// Checks a connection block. Text may still hold `${env:}` and `${file:}` references.
    pub check_connection: fn(&Value) -> Result<(), Vec<FieldError>>,
    /// Checks the connector's keys of a stream block (unknown ones included).
    pub check_stream: fn(&Value) -> Result<(), Vec<FieldError>>,
    /// Opens a connection from a block whose references are resolved.
    pub open: fn(OpenRequest<'_>) -> Result<Opened, ConnectorError>,
}

impl std::fmt::Debug for ConnectorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectorSpec({})", self.name)
    }
}

/// What a connector needs to open a connection.
#[derive(Clone)]
pub struct OpenRequest<'a> {
    /// The connection's name.
    pub name: &'a str,
    pub settings: &'a Value,
    /// Relative paths in `settings` start here.
    pub project_dir: &'a Path,
    pub clock: Arc<dyn Clock>,
    /// IANA name of the project's zone, in which times of day are meant.
    pub time_zone: &'a str,
    /// How much of the service's limits may be used.
    pub budget: Option<&'a crate::project::BudgetSpec>,
    /// Where limits are shared with the other processes of the host, and what was used is remembered.
    pub lanes: Option<Arc<dyn LaneLeases>>,
}

/// An open connection in the roles it can play.
#[derive(Clone, Default)]
pub struct Opened {
    pub source: Option<Arc<dyn Source>>,
    pub destination: Option<Arc<dyn Destination>>,
}

/// Hands out open connections by name; the engine's only way to a system.
#[async_trait]
pub trait Connections: Send + Sync {
    async fn open(&self, connection: &str) -> Result<Opened, ConnectorError>;
}
