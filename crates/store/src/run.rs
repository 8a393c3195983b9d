//! What is remembered of one run: its state, and how far each stream and load has come.

use std::collections::BTreeMap;

use flowgate_core::accounting::Imbalance;
use flowgate_core::{Code, FlowName, LoadName, LoadRows, RunId, StreamName, StreamRows};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ImageRecord, StoreError};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Under way, or killed without a word.
    Running,
    Complete,
    /// Complete, and rows were quarantined.
    CompleteWithLetters,
    StoppedByGuard,
    /// An error ended it; the next run goes on from here.
    Failed,
    /// Stopped on request; the next run goes on from here.
    Interrupted,
    /// Left unfinished for good: a later run began anew.
    Abandoned,
}

impl RunState {
    /// Every state there is, for readers of text.
    const ALL: [Self; 7] = [
        Self::Running,
        Self::Complete,
        Self::CompleteWithLetters,
        Self::StoppedByGuard,
        Self::Failed,
        Self::Interrupted,
        Self::Abandoned,
    ];

    /// Whether the next run of the flow goes on from this one.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Running | Self::Failed | Self::Interrupted)
    }

    pub fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::CompleteWithLetters)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::CompleteWithLetters => "complete_with_letters",
            Self::StoppedByGuard => "stopped_by_guard",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Abandoned => "abandoned",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One run, whole. It is small: counts, not rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    pub run: RunId,
    pub flow: FlowName,
    pub state: RunState,
    pub project_version: String,
    /// Times are kept to the microsecond.
    pub started: Timestamp,
    pub finished: Option<Timestamp>,
    pub error: Option<String>,
    pub error_code: Option<Code>,
    pub streams: BTreeMap<StreamName, StreamProgress>,
    pub loads: BTreeMap<LoadName, LoadProgress>,
    /// Seconds by phase, as `run --json` names them.
    pub seconds: BTreeMap<String, f64>,
    pub requests_sent: u64,
    pub requests_throttled: u64,
}

impl RunRecord {
    /// A run that begins now and has done nothing yet.
    pub fn begin(run: RunId, flow: FlowName, project_version: impl Into<String>, started: Timestamp) -> Self {
        Self {
            run,
            flow,
            state: RunState::Running,
            project_version: project_version.into(),
            started,
            finished: None,
            error: None,
            error_code: None,
            streams: BTreeMap::new(),
            loads: BTreeMap::new(),
            seconds: BTreeMap::new(),
            requests_sent: 0,
            requests_throttled: 0,
        }
    }

    /// The rows of all loads together.
    pub fn rows(&self) -> LoadRows {
        let mut sum = LoadRows::default();
        for load in self.loads.values() {
            sum += load.rows;
        }
        sum
    }

    /// Checks the equations of `docs/accounting.md`. A record that fails is never stored.
    pub fn check(&self) -> Result<(), StoreError> {
        let imbalance = |place: String| move |imbalance| StoreError::Imbalance { run: self.run, place, imbalance };
        for (name, stream) in &self.streams {
            stream.rows.check().map_err(imbalance(format!("stream `{name}`")))?;
        }
        for (name, load) in &self.loads {
            load.check(self.state).map_err(imbalance(format!("load `{name}`")))?;
        }
        Ok(())
    }
}

/// How far the read of one stream has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamProgress {
    pub rows: StreamRows,
    /// The staged image this run works on, once it is durable.
    pub image: Option<ImageRecord>,
    pub done: bool,
}

/// How far one load has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadProgress {
    pub phase: Phase,
    pub rows: LoadRows,
    /// Keys of the driver's image; `None` for a load without a driver, and before it is prepared.
    pub driver_keys: Option<u64>,
    /// Driver keys that the SELECT returned.
    pub represented: u64,
    /// When a process that sent rows of the load was stopped; none that came after it has sent any since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
}

impl LoadProgress {
    fn check(&self, state: RunState) -> Result<(), Imbalance> {
        self.rows.check()?;
        if let Some(driver_keys) = self.driver_keys {
            let explained = self.represented + self.rows.dropped;
            equal("driver keys = represented + dropped", driver_keys, explained)?;
        }
        if state.is_complete() {
            equal("pending = 0 in a complete run", self.rows.pending + self.rows.gone_pending, 0)?;
        }
        Ok(())
    }
}

fn equal(equation: &'static str, left: u64, right: u64) -> Result<(), Imbalance> {
    if left == right { Ok(()) } else { Err(Imbalance { equation, left, right }) }
}

/// What is behind a load; the next run goes on after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Waiting,
    Diffed,
    Loading,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_names() {
        for state in RunState::ALL {
            assert_eq!(RunState::from_text(state.as_str()), Some(state));
            assert_eq!(serde_json::json!(state), state.as_str());
        }
    }

    #[test]
    fn a_complete_run_with_pending_rows_does_not_add_up() {
        let rows = LoadRows { prepared: 1, pending: 1, ..LoadRows::default() };
        let load = LoadProgress { rows, ..LoadProgress::default() };
        assert!(load.check(RunState::Running).is_ok());
        assert!(load.check(RunState::Complete).is_err());
    }

    #[test]
    fn every_driver_key_is_explained() {
        let rows = LoadRows { dropped: 2, ..LoadRows::default() };
        let load = LoadProgress { rows, driver_keys: Some(10), represented: 7, ..LoadProgress::default() };
        assert_eq!(load.check(RunState::Running).map_err(|error| (error.left, error.right)), Err((10, 9)));
    }
}
