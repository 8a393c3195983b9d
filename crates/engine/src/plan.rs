//! What a run would do, without doing it.
//!
//! A plan reads the sources and the destination like a run, and keeps nothing: the store it works
//! on forgets every write, images and buckets go to a directory that is removed.

use flowgate_core::destination::Estimate;
use flowgate_core::{FlowName, LoadName, StreamName, StreamRows};

use crate::{DiffCounts, GuardStop};

/// What a run of one flow would do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub flow: FlowName,
    pub streams: Vec<(StreamName, StreamRows)>,
    pub loads: Vec<LoadPlan>,
}

/// What it would do to one table.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    pub load: LoadName,
    pub table: String,
    pub counts: DiffCounts,
    pub estimate: Estimate,
    /// The guard that would stop the load before it sends anything.
    pub guard: Option<GuardStop>,
    /// Rows of the table that would become state before the first write.
    pub adopted: Option<u64>,
    /// Some of the changes, for a person.
    pub samples: Vec<PlannedChange>,
}

/// One change as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    /// `create`, `update`, `delete`, `deactivate`.
    pub operation: &'static str,
    pub key: String,
    /// Column, value now, value then.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
}
