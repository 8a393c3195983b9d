//! How many rows go into a request and what a request is expected to take.
//!
//! Everything that predicts stands in this file, so that a model fitted to measured times can
//! replace the constants (sections 1.3 and 1.4 of the performance notes) without touching the loader.

use std::time::Duration;

use flowgate_core::TableShape;
use flowgate_core::destination::{Changes, Estimate, Operation, Pace};

use crate::budget::Cost;

/// Rows of one request. At 100 rows the fixed part of a request is 3 % of a create and 5 % of an
/// update; more would only make a refused request dearer.
pub(super) const ROWS_PER_REQUEST: usize = 100;

/// The largest body that is sent. A sandboxed plug-in takes 116 MB, a front end less.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Milliseconds of the service's time: for a request, and for each row in it.
const CREATE_MS: (u64, u64) = (30, 10);
const UPDATE_MS: (u64, u64) = (100, 19);
const PARTS_MS: (u64, u64) = (5, 40);

/// What a paced identity sends at most: 0.9 of 6,000 requests in 300 s and web server.
const REQUESTS_PER_SECOND_AND_SERVER: f64 = 18.0;
const PARALLEL_PER_SERVER: f64 = 4.0;

/// By which message rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    CreateMultiple,
    UpdateMultiple,
    /// Single-row messages, in `$batch` or one at a time.
    Parts,
}

impl Message {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateMultiple => "CreateMultiple",
            Self::UpdateMultiple => "UpdateMultiple",
            Self::Parts => "$batch",
        }
    }

    fn milliseconds(self) -> (u64, u64) {
        match self {
            Self::CreateMultiple => CREATE_MS,
            Self::UpdateMultiple => UPDATE_MS,
            Self::Parts => PARTS_MS,
        }
    }
}

pub(super) fn cost(message: Message, rows: usize) -> Cost {
    let (fixed, per_row) = message.milliseconds();
    let rows = rows as u64;
    Cost { busy: Duration::from_millis(fixed + per_row * rows), entitlement: rows }
}

/// A few more units than may be under way are prepared, so that a free place is taken at once.
pub(crate) fn pace(parallel_max: u32) -> Pace {
    Pace { rows: ROWS_PER_REQUEST, units: (parallel_max + parallel_max.div_ceil(4)) as usize }
}

/// What `changes` would take with `parallel_max` requests under way.
pub(crate) fn estimate(shape: &TableShape, changes: Changes, parallel_max: u32) -> Estimate {
    let status = if super::state::has_closing_message(shape) { Message::Parts } else { Message::UpdateMultiple };
    let kinds = [
        (changes.create, Message::CreateMultiple),
        (changes.update, Message::UpdateMultiple),
        (changes.set_state, status),
        (changes.deactivate, Message::UpdateMultiple),
        (changes.delete, Message::Parts),
    ];
    let mut estimate = Estimate::default();
    let mut busy_seconds = 0.0;
    for (rows, message) in kinds {
        let requests = rows.div_ceil(ROWS_PER_REQUEST as u64);
        let (fixed, per_row) = message.milliseconds();
        estimate.requests += requests;
        estimate.entitlement += rows;
        busy_seconds += (fixed * requests + per_row * rows) as f64 / 1_000.0;
    }
    let parallel = f64::from(parallel_max.max(1));
    let servers = (parallel / PARALLEL_PER_SERVER).max(1.0);
    let paced_seconds = estimate.requests as f64 / (REQUESTS_PER_SECOND_AND_SERVER * servers);
    estimate.seconds = (busy_seconds / parallel).max(paced_seconds);
    estimate
}

/// The message of an operation on a table that has the bulk messages.
pub(super) fn message(operation: Operation, has_create_multiple: bool, has_update_multiple: bool) -> Message {
    match operation {
        Operation::Create if has_create_multiple => Message::CreateMultiple,
        Operation::Update | Operation::SetState | Operation::Deactivate if has_update_multiple => {
            Message::UpdateMultiple
        }
        Operation::Create | Operation::Update | Operation::SetState | Operation::Deactivate | Operation::Delete => {
            Message::Parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> TableShape {
        TableShape {
            table: "account".to_owned(),
            set: "accounts".to_owned(),
            primary_id: "accountid".to_owned(),
            columns: std::collections::BTreeMap::new(),
            keys: Vec::new(),
            atomic: true,
            statuses: Vec::new(),
        }
    }

    #[test]
    fn an_estimate_counts_requests_rows_and_time() {
        let changes = Changes { create: 1_001, delete: 10, ..Changes::default() };
        let estimate = estimate(&shape(), changes, 4);
        assert_eq!((estimate.requests, estimate.entitlement), (12, 1_011));
        let seconds = (11.0 * 0.03 + 1_001.0 * 0.01 + 0.005 + 10.0 * 0.04) / 4.0;
        assert!((estimate.seconds - seconds).abs() < 1e-9, "{}", estimate.seconds);
    }

    #[test]
    fn a_table_without_bulk_messages_is_written_in_parts() {
        assert_eq!(message(Operation::Create, false, true), Message::Parts);
        assert_eq!(message(Operation::Update, false, true), Message::UpdateMultiple);
        assert_eq!(message(Operation::Delete, true, true), Message::Parts);
    }
}
