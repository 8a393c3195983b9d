//! The records of a ledger and their payloads.
//!
//! | kind | payload |
//! |---|---|
//! | 1 intent | sequence u64, operation u8, rows: key hash 16 B, id 16 B, row hash u64 |
//! | 2 outcomes | sequence u64, form u8, rows u32, codes, ids: row u32 and id 16 B |
//! | 3 mark | UTF-8 text |
//!
//! Form 0 of outcomes has one code for all rows (nearly every request), form 1 one code a row.

use flowgate_core::{KeyHash, Operation, Outcome};
use uuid::Uuid;

/// One entry of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// These rows are about to be sent as request `sequence`.
    Intent { sequence: u64, operation: Operation, rows: Vec<IntentRow> },
    /// What became of the rows of request `sequence`, in the order of its intent. `ids` holds
    /// (row, id) where the row turned out to be under another id.
    Outcomes { sequence: u64, outcomes: Vec<OutcomeCode>, ids: Vec<(u32, Uuid)> },
    /// Something the run must remember to go on.
    Mark { what: String },
}

impl Record {
    /// The record of a request's answer.
    pub fn answer(sequence: u64, outcomes: &[Outcome]) -> Self {
        let mut ids = Vec::new();
        for (row, outcome) in outcomes.iter().enumerate() {
            if let Outcome::Exists { id } = outcome {
                ids.push((row as u32, *id));
            }
        }
        Self::Outcomes { sequence, outcomes: outcomes.iter().map(OutcomeCode::of).collect(), ids }
    }
}

/// One row of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntentRow {
    pub key: KeyHash,
    pub id: Uuid,
    pub row_hash: u64,
}

/// Where a row ended, without the particulars: a fault has its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum OutcomeCode {
    Applied = 0,
    Exists = 1,
    Missing = 2,
    Refused = 3,
    Ambiguous = 4,
    Unsent = 5,
}

impl OutcomeCode {
    const ALL: [Self; 6] = [Self::Applied, Self::Exists, Self::Missing, Self::Refused, Self::Ambiguous, Self::Unsent];

    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Exists { .. } => Self::Exists,
            Outcome::Missing => Self::Missing,
            Outcome::Refused(_) => Self::Refused,
            Outcome::Ambiguous => Self::Ambiguous,
            Outcome::Unsent => Self::Unsent,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// In the order of their stored bytes.
const OPERATIONS: [Operation; 5] =
    [Operation::Create, Operation::Update, Operation::SetState, Operation::Deactivate, Operation::Delete];

pub(super) fn operation_byte(operation: Operation) -> u8 {
    match operation {
        Operation::Create => 0,
        Operation::Update => 1,
        Operation::SetState => 2,
        Operation::Deactivate => 3,
        Operation::Delete => 4,
    }
}

pub(super) fn operation_from_byte(byte: u8) -> Option<Operation> {
    OPERATIONS.get(usize::from(byte)).copied()
}

const KIND_INTENT: u8 = 1;
const KIND_OUTCOMES: u8 = 2;
const KIND_MARK: u8 = 3;

const FORM_ONE_CODE: u8 = 0;
const FORM_EACH_CODE: u8 = 1;

const INTENT_ROW_BYTES: usize = 40;
const CHANGED_ID_BYTES: usize = 20;

/// `record` with its kind and length.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; 5];
    bytes[0] = match record {
        Record::Intent { sequence, operation, rows } => {
            encode_intent(&mut bytes, *sequence, *operation, rows);
            KIND_INTENT
        }
        Record::Outcomes { sequence, outcomes, ids } => {
            encode_outcomes(&mut bytes, *sequence, outcomes, ids);
            KIND_OUTCOMES
        }
        Record::Mark { what } => {
            bytes.extend_from_slice(what.as_bytes());
            KIND_MARK
        }
    };
    let length = (bytes.len() - 5) as u32;
    bytes[1..5].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn encode_intent(bytes: &mut Vec<u8>, sequence: u64, operation: Operation, rows: &[IntentRow]) {
    bytes.reserve(9 + rows.len() * INTENT_ROW_BYTES);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.push(operation_byte(operation));
    for row in rows {
        bytes.extend_from_slice(&row.key.0.to_le_bytes());
        bytes.extend_from_slice(row.id.as_bytes());
        bytes.extend_from_slice(&row.row_hash.to_le_bytes());
    }
}

fn encode_outcomes(bytes: &mut Vec<u8>, sequence: u64, outcomes: &[OutcomeCode], ids: &[(u32, Uuid)]) {
    let all_one = outcomes.first().filter(|first| outcomes.iter().all(|outcome| outcome == *first));
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.push(if all_one.is_some() { FORM_ONE_CODE } else { FORM_EACH_CODE });
    bytes.extend_from_slice(&(outcomes.len() as u32).to_le_bytes());
    match all_one {
        Some(code) => bytes.push(*code as u8),
        None => bytes.extend(outcomes.iter().map(|outcome| *outcome as u8)),
    }
    for (row, id) in ids {
        bytes.extend_from_slice(&row.to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
    }
}

/// The first record of `bytes` and the bytes after it; `None` if they are not records.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let record = match *kind {
        KIND_INTENT => decode_intent(payload)?,
        KIND_OUTCOMES => decode_outcomes(payload)?,
        KIND_MARK => Record::Mark { what: String::from_utf8(payload.to_vec()).ok()? },
        _ => return None,
    };
    Some((record, rest))
}

fn decode_intent(payload: &[u8]) -> Option<Record> {
    let (sequence, payload) = payload.split_first_chunk::<8>()?;
    let (operation, payload) = payload.split_first()?;
    let (rows, rest) = payload.as_chunks::<INTENT_ROW_BYTES>();
    let rows = rows.iter().map(decode_intent_row).collect::<Option<Vec<_>>>()?;
    let operation = operation_from_byte(*operation)?;
    rest.is_empty().then_some(Record::Intent { sequence: u64::from_le_bytes(*sequence), operation, rows })
}

fn decode_intent_row(bytes: &[u8; INTENT_ROW_BYTES]) -> Option<IntentRow> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    Some(IntentRow {
        key: KeyHash(u128::from_le_bytes(*key)),
        id: Uuid::from_bytes(*id),
        row_hash: u64::from_le_bytes(rest.try_into().ok()?),
    })
}

fn decode_outcomes(payload: &[u8]) -> Option<Record> {
    let (sequence, payload) = payload.split_first_chunk::<8>()?;
    let (form, payload) = payload.split_first()?;
    let (count, payload) = payload.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (outcomes, payload) = match *form {
        FORM_ONE_CODE if count <= super::RECORD_BYTES_MAX => {
            let (code, payload) = payload.split_first()?;
            (vec![OutcomeCode::from_byte(*code)?; count], payload)
        }
        FORM_EACH_CODE => {
            let (codes, payload) = payload.split_at_checked(count)?;
            (codes.iter().map(|code| OutcomeCode::from_byte(*code)).collect::<Option<Vec<_>>>()?, payload)
        }
        _ => return None,
    };
    let (ids, rest) = payload.as_chunks::<CHANGED_ID_BYTES>();
    let ids = ids.iter().map(decode_changed_id).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then_some(Record::Outcomes { sequence: u64::from_le_bytes(*sequence), outcomes, ids })
}

fn decode_changed_id(bytes: &[u8; CHANGED_ID_BYTES]) -> Option<(u32, Uuid)> {
    let (row, id) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*row), Uuid::from_slice(id).ok()?))
}
