//! Letters of one load: which rows are known to be refused, and which are new.
//!
//! The same row under the same metadata and configuration is quarantined again without being sent
//! (design section 6, "Letters"); a change of any of the three, or a person's request, tries it again.

use std::collections::{HashMap, HashSet};

use arrow_array::RecordBatch;
use flowgate_core::destination::RowFault;
use flowgate_core::redaction::redacted;
use flowgate_core::{Code, KeyHash};
use flowgate_store::{Letter, LetterMark, LetterStatus, letter_id};
use serde_json::{Map, Value};

use crate::RunError;
use crate::run::Scope;

/// Letters saved in one transaction.
const LETTERS_BATCH: usize = 1_000;

/// The letters of a load during one run.
pub(crate) struct Letters<'a> {
    scope: &'a Scope<'a>,
    metadata_version: String,
    marks: HashMap<KeyHash, LetterMark>,
    /// Keys of `marks` that are prepared.
    met: HashSet<KeyHash>,
    new: Vec<Letter>,
    resolved: Vec<String>,
    touched: Vec<String>,
}

/// One row as a letter shows it.
pub(crate) struct LetterRow<'a> {
    pub(crate) key: Option<KeyHash>,
    pub(crate) key_text: String,
    pub(crate) row_hash: u64,
    pub(crate) payload: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u64>,
    pub(crate) fault: &'a RowFault,
}

impl<'a> Letters<'a> {
    pub(crate) fn open(scope: &'a Scope<'a>, metadata_version: &str) -> Result<Self, RunError> {
        let marks = scope.store().letters_of(&scope.flow.name, scope.load.name.as_str())?;
        Ok(Self {
            scope,
            metadata_version: metadata_version.to_owned(),
            marks: marks.into_iter().map(|mark| (mark.key_hash, mark)).collect(),
            met: HashSet::new(),
            new: Vec::new(),
            resolved: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Whether the row was refused before and nothing has changed since.
    pub(crate) fn is_held(&self, key: KeyHash, row_hash: u64) -> bool {
        self.marks.get(&key).is_some_and(|mark| match mark.status {
            LetterStatus::RetryRequested => false,
            LetterStatus::Discarded => mark.row_hash == row_hash,
            LetterStatus::Quarantined => {
                // What the service failed on, or whom the key finds there, says nothing of the row.
                !matches!(mark.code, Code::ROW_SERVICE_FAILED | Code::ROW_AMBIGUOUS_KEY)
                    && mark.row_hash == row_hash
                    && mark.project_version == self.scope.project().version
                    && mark.metadata_version == self.metadata_version
            }
        })
    }

    /// Writes a letter for the row. Another row of its key that is fine does not end it.
    pub(crate) fn write(&mut self, row: LetterRow<'_>) -> Result<(), RunError> {
        if let Some(key) = row.key {
            self.marks.remove(&key);
        }
        let now = self.scope.clock().now();
        let place = self.scope.load.name.as_str();
        let attempts = u32::from(is_attempt(row.fault.code));
        self.new.push(Letter {
            id: letter_id(&self.scope.flow.name, place, row.key, &row.key_text),
            flow: self.scope.flow.name.clone(),
            place: place.to_owned(),
            key_hash: row.key,
            key_text: row.key_text,
            row_hash: row.row_hash,
            project_version: self.scope.project().version.clone(),
            metadata_version: self.metadata_version.clone(),
            attempts,
            first_at: now,
            last_at: now,
            code: row.fault.code,
            column: row.fault.column.clone(),
            reason: redacted(&row.fault.reason).into_owned(),
            service_code: row.fault.service_code.clone(),
            request_id: row.fault.request_id.clone(),
            file: row.file,
            line: row.line,
            offset: None,
            payload: row.payload,
            status: LetterStatus::Quarantined,
        });
        if self.new.len() >= LETTERS_BATCH { self.save() } else { Ok(()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether the row has a letter, so that it is not settled by its state alone.
    pub(crate) fn has(&self, key: KeyHash) -> bool {
        self.marks.contains_key(&key)
    }

    /// The rows are prepared.
    pub(crate) fn meet(&mut self, keys: &[KeyHash]) {
        if !self.marks.is_empty() {
            self.met.extend(keys.iter().filter(|key| self.marks.contains_key(key)));
        }
    }

    /// All rows were met that still are: letters of others have nothing to wait for. What a person discarded stays
    /// discarded, should it come back.
    pub(crate) fn resolve_unmet(&mut self) {
        let is_left =
            |(key, mark): &(&KeyHash, &LetterMark)| !self.met.contains(key) && mark.status != LetterStatus::Discarded;
        let left: Vec<KeyHash> = self.marks.iter().filter(is_left).map(|(key, _)| *key).collect();
        for key in left {
            self.resolve(key);
        }
    }

    /// The row was met and is left out again: its letter is as young as this run. One that a person discarded stays
    /// in any case, and loses the row's data in time.
    pub(crate) fn touch(&mut self, key: KeyHash) {
        if let Some(mark) = self.marks.get(&key).filter(|mark| mark.status != LetterStatus::Discarded) {
            self.touched.push(mark.id.clone());
        }
    }

    /// The row is at the destination now as it is asked for, or is gone from there as it is asked for:
    /// its letter, if it had one, is done with.
    pub(crate) fn resolve(&mut self, key: KeyHash) {
        if let Some(mark) = self.marks.remove(&key) {
            self.resolved.push(mark.id);
        }
    }

    /// Makes everything so far durable.
    pub(crate) fn save(&mut self) -> Result<(), RunError> {
        if !self.new.is_empty() {
            self.scope.store().save_letters(self.scope.lease, &self.new)?;
            self.new.clear();
        }
        if !self.resolved.is_empty() {
            self.scope.store().resolve_letters(self.scope.lease, &self.resolved)?;
            self.resolved.clear();
        }
        if !self.touched.is_empty() {
            let now = self.scope.clock().now();
            self.scope.store().touch_letters(self.scope.lease, &self.touched, now)?;
            self.touched.clear();
        }
        Ok(())
    }
}

/// Whether the row was really sent.
fn is_attempt(code: Code) -> bool {
    matches!(
        code,
        Code::ROW_REFUSED | Code::ROW_DELETED_THERE | Code::ROW_DUPLICATE_AT_DESTINATION | Code::ROW_SERVICE_FAILED
    )
}

/// One row of a batch as JSON text, by column name; nulls are left out.
pub(crate) fn payload(rows: &RecordBatch, row: usize) -> Result<String, RunError> {
    let mut object = Map::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if column.is_valid(row) && !field.name().starts_with("_check_") {
            let text = arrow_cast::display::array_value_to_string(column, row)?;
            object.insert(field.name().clone(), Value::String(text));
        }
    }
    Ok(Value::Object(object).to_string())
}

/// The values of some columns of a row, for a person: `A-1, 7`.
pub(crate) fn key_text(rows: &RecordBatch, positions: &[usize], row: usize) -> Result<String, RunError> {
    let mut parts = Vec::new();
    for position in positions {
        parts.push(arrow_cast::display::array_value_to_string(rows.column(*position), row)?);
    }
    Ok(parts.join(", "))
}
