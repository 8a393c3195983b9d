//! By which message rows go, how many to a request, and what that will take.
//!
//! What a request costs is learnt ([`crate::cost`]); this file applies it to operations.

use flowgate_core::TableShape;
use flowgate_core::destination::{Changes, Estimate, Operation, Pace};

use crate::cost::{Costs, Message};

/// The largest body that is sent. A sandboxed plug-in takes 116 MB, a front end less.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a paced identity sends at most: 0.985 of 6,000 requests in 300 s and web server.
const REQUESTS_PER_SECOND_AND_SERVER: f64 = 19.7;
const PARALLEL_PER_SERVER: f64 = 4.0;

/// A few more units than may be under way are prepared, so that a free place is taken at once.
pub(crate) fn pace(costs: &Costs, shape: &TableShape, operation: Operation, parallel_max: u32) -> Pace {
    let rows = costs.rows(&shape.table, usual_message(operation), shape.atomic);
    Pace { rows, units: (parallel_max + parallel_max.div_ceil(4)) as usize }
}

/// What `changes` would take with `parallel_max` requests under way.
pub(crate) fn estimate(costs: &Costs, shape: &TableShape, changes: Changes, parallel_max: u32) -> Estimate {
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
        let requests = rows.div_ceil(costs.rows(&shape.table, message, shape.atomic) as u64);
        let model = costs.model(&shape.table, message);
        estimate.requests += requests;
        estimate.entitlement += rows;
        busy_seconds += model.fixed_s() * requests as f64 + model.row_s() * rows as f64;
    }
    let parallel = f64::from(parallel_max.max(1));
    let servers = (parallel / PARALLEL_PER_SERVER).max(1.0);
    let paced_seconds = estimate.requests as f64 / (REQUESTS_PER_SECOND_AND_SERVER * servers);
    estimate.seconds = (busy_seconds / parallel).max(paced_seconds);
    estimate
}

/// The message of an operation on a table that has the bulk messages, as most have.
fn usual_message(operation: Operation) -> Message {
    message(operation, true, true)
}

/// The message of an operation on a table with these bulk messages.
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
            owner: None,
            created_on: None,
            statuses: Vec::new(),
        }
    }

    #[test]
    fn an_estimate_counts_requests_rows_and_time() {
        let changes = Changes { create: 1_001, delete: 10, ..Changes::default() };
        let estimate = estimate(&Costs::default(), &shape(), changes, 4);
        assert_eq!((estimate.requests, estimate.entitlement), (5, 1_011), "four creates of 297 rows, one batch");
        let seconds = (4.0 * 0.03 + 1_001.0 * 0.01 + 0.005 + 10.0 * 0.04) / 4.0;
        assert!((estimate.seconds - seconds).abs() < 1e-9, "{}", estimate.seconds);
    }

    #[test]
    fn a_table_without_bulk_messages_is_written_in_parts() {
        assert_eq!(message(Operation::Create, false, true), Message::Parts);
        assert_eq!(message(Operation::Update, false, true), Message::UpdateMultiple);
        assert_eq!(message(Operation::Delete, true, true), Message::Parts);
    }
}
