//! What an examination of a connection looks at, and what it finds.
//!
//! `flowgate doctor` asks each connection in the roles it plays; a connector says what it can tell.

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `sign-in`, `latency`, `incident: key wr_reference`.
    pub what: String,
    pub state: FindingState,
    /// What was seen, in one line without secrets.
    pub seen: String,
    /// What to do, if something is.
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingState {
    Good,
    /// Nothing fails because of it, but someone will want to know.
    Notable,
    /// Runs will fail because of it.
    Bad,
    /// The system does not tell.
    Unknown,
}

impl Finding {
    pub fn new(state: FindingState, what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { what: what.into(), state, seen: seen.into(), hint: None }
    }

    pub fn good(what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(FindingState::Good, what, seen)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a project does with one table of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableUse {
    pub table: String,
    pub is_read: bool,
    /// Rows are created and updated.
    pub is_written: bool,
    pub is_deleted: bool,
    /// Column sets that rows are found by.
    pub keys: Vec<Vec<String>>,
    /// Only changes are read after the first time.
    pub is_tracked: bool,
}
