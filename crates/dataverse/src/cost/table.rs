//! The models of all tables and messages of a connection.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fit::{CostModel, ErrorRate};
use super::size::{ELASTIC_ROWS, batch_rows, piece_rows, prefers_parts};
use crate::budget::{Cost, MessageSnapshot};

/// By which message rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    CreateMultiple,
    UpdateMultiple,
    /// Single-row messages, in `$batch` or one at a time.
    Parts,
}

impl Message {
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateMultiple => "CreateMultiple",
            Self::UpdateMultiple => "UpdateMultiple",
            Self::Parts => "$batch",
        }
    }

    /// The published samples (performance notes, section 1.3), until answers say otherwise.
    pub fn first_model(self) -> CostModel {
        match self {
            Self::CreateMultiple => CostModel::new(0.030, 0.010),
            Self::UpdateMultiple => CostModel::new(0.100, 0.019),
            Self::Parts => CostModel::new(0.005, 0.040),
        }
    }
}

/// What a request does, so that its answer teaches the model of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) table: String,
    pub(crate) message: Message,
    pub(crate) rows: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Costs {
    kinds: Mutex<HashMap<(String, Message), Kind>>,
}

#[derive(Debug, Clone)]
struct Kind {
    model: CostModel,
    errors: ErrorRate,
}

impl Costs {
    /// What a request is expected to take.
    pub(crate) fn cost(&self, work: &Work) -> Cost {
        let seconds = self.model(&work.table, work.message).seconds(work.rows as f64);
        Cost { busy: Duration::from_secs_f64(seconds.clamp(0.0, 600.0)), entitlement: work.rows as u64 }
    }

    pub(crate) fn model(&self, table: &str, message: Message) -> CostModel {
        self.kinds().get(&(table.to_owned(), message)).map_or_else(|| message.first_model(), |kind| kind.model.clone())
    }

    /// Rows of one request. `is_atomic`: one bad row refuses all.
    pub(crate) fn rows(&self, table: &str, message: Message, is_atomic: bool) -> usize {
        match message {
            // Each part has its own answer and costs the same wherever it stands.
            Message::Parts => PARTS_ROWS,
            Message::CreateMultiple | Message::UpdateMultiple if !is_atomic => ELASTIC_ROWS,
            Message::CreateMultiple | Message::UpdateMultiple => {
                batch_rows(&self.model(table, message), self.error_rate(table, message))
            }
        }
    }

    /// Rows of one request of those that search `refused` rows, which were refused together, for the bad one.
    pub(crate) fn piece_rows(&self, table: &str, message: Message, refused: usize) -> usize {
        piece_rows(&self.model(table, message), self.error_rate(table, message), refused)
    }

    /// Whether rows of the table are cheaper by single-row messages than by `message`.
    pub(crate) fn prefers_parts(&self, table: &str, message: Message) -> bool {
        let parts = self.model(table, Message::Parts);
        prefers_parts(&self.model(table, message), &parts, self.error_rate(table, message))
    }

    /// What was learnt, in order of table and message.
    pub(crate) fn snapshot(&self) -> Vec<MessageSnapshot> {
        let kinds = self.kinds();
        let mut messages: Vec<_> = kinds
            .iter()
            .map(|((table, message), Kind { model, errors })| MessageSnapshot {
                table: table.clone(),
                message: message.name().to_owned(),
                fixed_s: model.fixed_s(),
                row_s: model.row_s(),
                error_rate: errors.get(),
                rows: if *message == Message::Parts { PARTS_ROWS } else { batch_rows(model, errors.get()) },
            })
            .collect();
        messages.sort_by(|one, other| (&one.table, &one.message).cmp(&(&other.table, &other.message)));
        messages
    }

    pub(crate) fn observe(&self, work: &Work, busy: Duration) {
        self.with(&work.table, work.message, |kind| kind.model.observe(work.rows as f64, busy.as_secs_f64()));
    }

    /// So many rows came to an end, `refused` of them by a refusal that concerns the row.
    pub(crate) fn ended(&self, table: &str, message: Message, rows: usize, refused: usize) {
        self.with(table, message, |kind| kind.errors.observe(rows as f64, refused as f64));
    }

    fn error_rate(&self, table: &str, message: Message) -> f64 {
        let kinds = self.kinds();
        kinds.get(&(table.to_owned(), message)).map_or_else(ErrorRate::default, |kind| kind.errors.clone()).get()
    }

    fn with(&self, table: &str, message: Message, change: impl FnOnce(&mut Kind)) {
        let first = || Kind { model: message.first_model(), errors: ErrorRate::default() };
        change(self.kinds().entry((table.to_owned(), message)).or_insert_with(first));
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<(String, Message), Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Single-row messages in one `$batch`. More save nothing: the fixed part is a five-hundredth.
const PARTS_ROWS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn work(table: &str, rows: usize) -> Work {
        Work { table: table.to_owned(), message: Message::CreateMultiple, rows }
    }

    #[test]
    fn each_table_and_message_has_a_model_of_its_own() {
        let costs = Costs::default();
        for _ in 0..100 {
            costs.observe(&work("incident", 100), Duration::from_secs(10));
        }
        assert!(costs.cost(&work("incident", 100)).busy > Duration::from_secs(9));
        assert_eq!(costs.cost(&work("account", 100)).busy, Duration::from_millis(1_030));
        assert!(costs.rows("incident", Message::CreateMultiple, true) < 100);
        assert_eq!(costs.rows("account", Message::CreateMultiple, false), ELASTIC_ROWS);
    }

    #[test]
    fn a_table_of_bad_rows_ends_up_with_single_row_messages() {
        let costs = Costs::default();
        assert!(!costs.prefers_parts("account", Message::CreateMultiple));
        for _ in 0..1_000 {
            costs.ended("account", Message::CreateMultiple, 100, 60);
        }
        assert!(costs.prefers_parts("account", Message::CreateMultiple));
    }
}
