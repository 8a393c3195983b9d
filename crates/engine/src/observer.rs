//! What a run tells whoever watches it. Losing an event loses nothing else.

use flowgate_core::{LoadName, LoadRows, RunId, StreamName, StreamRows};

use crate::DiffCounts;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// An unfinished run is gone on with.
    Resumed {
        run: RunId,
    },
    Extracting {
        stream: &'a StreamName,
        rows: u64,
    },
    Staged {
        stream: &'a StreamName,
        rows: StreamRows,
    },
    Preparing {
        load: &'a LoadName,
        rows: u64,
    },
    /// Keys and columns of a table that held rows already become the first state.
    Adopting {
        load: &'a LoadName,
        rows: u64,
    },
    Diffed {
        load: &'a LoadName,
        counts: DiffCounts,
    },
    Loading {
        load: &'a LoadName,
        done: u64,
        total: u64,
    },
    Loaded {
        load: &'a LoadName,
        rows: LoadRows,
    },
    Warning {
        text: &'a str,
    },
}

/// Watches a run.
pub trait Observer: Send + Sync {
    fn event(&self, event: Event<'_>);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn event(&self, _event: Event<'_>) {}
}
