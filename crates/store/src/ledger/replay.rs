//! What a ledger says about its rows, once all of it is read.
//!
//! 41 bytes a row and nothing else, because a run may have written millions of them.

use std::collections::HashMap;

use flowgate_core::{KeyHash, Operation};
use uuid::Uuid;

use super::record::{operation_byte, operation_from_byte};
use super::{IntentRow, LedgerError, OutcomeCode, Record};

/// In the outcome bits of a verdict: no answer yet.
const NO_OUTCOME: u8 = 0xF;

/// One row of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedRow {
    pub key: KeyHash,
    /// The row's id at the destination, as the answer corrected it.
    pub id: Uuid,
    pub row_hash: u64,
    pub operation: Operation,
    /// `None`: sent, or about to be, and nothing is known.
    pub outcome: Option<OutcomeCode>,
}

/// All requests of a ledger with their answers.
///
/// Rows come in the order of their intents. A key that was sent more than once is there more than
/// once; the last is the one that counts.
#[derive(Debug, Default)]
pub struct Replay {
    keys: Vec<KeyHash>,
    ids: Vec<Uuid>,
    row_hashes: Vec<u64>,
    /// Operation in the upper four bits, outcome in the lower four.
    verdicts: Vec<u8>,
    /// Sequence to the first row and the number of rows.
    requests: HashMap<u64, (usize, usize)>,
    /// The number of rows before each mark, and the mark.
    marks: Vec<(usize, String)>,
}

impl Replay {
    /// Reads `records` to their end.
    pub fn of(records: impl IntoIterator<Item = Result<Record, LedgerError>>) -> Result<Self, LedgerError> {
        let mut replay = Self::default();
        for record in records {
            replay.add(record?)?;
        }
        replay.requests.shrink_to_fit();
        Ok(replay)
    }

    fn add(&mut self, record: Record) -> Result<(), LedgerError> {
        match record {
            Record::Intent { sequence, operation, rows } => self.add_intent(sequence, operation, &rows),
            Record::Outcomes { sequence, outcomes, ids } => self.add_outcomes(sequence, &outcomes, &ids),
            Record::Mark { what } => {
                self.marks.push((self.keys.len(), what));
                Ok(())
            }
        }
    }

    fn add_intent(&mut self, sequence: u64, operation: Operation, rows: &[IntentRow]) -> Result<(), LedgerError> {
        if self.requests.insert(sequence, (self.keys.len(), rows.len())).is_some() {
            return Err(contradiction(format!("request {sequence} was announced twice")));
        }
        for row in rows {
            self.keys.push(row.key);
            self.ids.push(row.id);
            self.row_hashes.push(row.row_hash);
            self.verdicts.push(operation_byte(operation) << 4 | NO_OUTCOME);
        }
        Ok(())
    }

    /// A later answer to the same request replaces an earlier one: an ambiguous end that was cleared up.
    fn add_outcomes(
        &mut self,
        sequence: u64,
        outcomes: &[OutcomeCode],
        ids: &[(u32, Uuid)],
    ) -> Result<(), LedgerError> {
        let Some((first, count)) = self.requests.get(&sequence).copied() else {
            return Err(contradiction(format!("request {sequence} was answered, never announced")));
        };
        if outcomes.len() != count {
            return Err(contradiction(format!("request {sequence} has {count} rows and {} outcomes", outcomes.len())));
        }
        for (verdict, outcome) in self.verdicts[first..first + count].iter_mut().zip(outcomes) {
            *verdict = *verdict & 0xF0 | *outcome as u8;
        }
        for (row, id) in ids {
            let Some(slot) = self.ids[first..first + count].get_mut(*row as usize) else {
                return Err(contradiction(format!("request {sequence} has no row {row}")));
            };
            *slot = *id;
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn row(&self, index: usize) -> ReplayedRow {
        let verdict = self.verdicts[index];
        ReplayedRow {
            key: self.keys[index],
            id: self.ids[index],
            row_hash: self.row_hashes[index],
            // Verdicts are only ever made from an operation.
            operation: operation_from_byte(verdict >> 4).unwrap_or(Operation::Create),
            outcome: OutcomeCode::from_byte(verdict & 0xF),
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = ReplayedRow> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }

    /// At most `limit` rows that were applied: of the last requests the last row each, and rows of all others evenly.
    pub fn applied_sample(&self, limit: usize) -> Vec<ReplayedRow> {
        let is_applied = |row: &ReplayedRow| row.outcome == Some(OutcomeCode::Applied);
        let mut requests: Vec<_> = self.requests.iter().map(|(sequence, rows)| (*sequence, *rows)).collect();
        requests.sort_unstable_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        let last = |(_, (first, count)): (u64, (usize, usize))| {
            (first..first + count).rev().map(|at| self.row(at)).find(is_applied)
        };
        let mut sample: Vec<ReplayedRow> = requests.into_iter().filter_map(last).take(limit / 2).collect();
        let step = self.len().div_ceil(limit - sample.len()).max(1);
        sample.extend((0..self.len()).step_by(step).map(|at| self.row(at)).filter(is_applied));
        sample
    }

    /// The number that the next request may take.
    pub fn next_sequence(&self) -> u64 {
        self.requests.keys().max().map_or(0, |sequence| sequence + 1)
    }

    /// Marks in the order they were written, each with the number of rows that stand before it.
    pub fn marks(&self) -> &[(usize, String)] {
        &self.marks
    }
}

fn contradiction(detail: String) -> LedgerError {
    LedgerError::Contradiction { detail }
}
