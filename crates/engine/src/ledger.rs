//! What earlier attempts of this run already did.
//!
//! A run that was stopped is prepared and compared anew from its staged images; what its ledgers
//! say decides which of those changes are already at the destination. What stands in a ledger counts as folded
//! when the load's manifest is another than the one marked before it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use flowgate_core::{KeyHash, Operation};
use flowgate_store::ledger::{self, LedgerError, LedgerWriter, OutcomeCode, Record, Replay, ReplayedRow};
use uuid::Uuid;

use crate::RunError;
use crate::witness::{LEDGER_REMOVED_MAX, LEDGER_ROWS_MAX};

const MARK_PREFIX: &str = "manifest ";

/// What a row was counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Created,
    Updated,
    Unchanged,
}

/// What this run wrote to one row, not yet folded into the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// Created or updated.
    pub(crate) class: Class,
    pub(crate) id: Uuid,
    pub(crate) row_hash: u64,
    /// The row is there, but with what content is not known: send every column.
    pub(crate) is_uncertain: bool,
    pub(crate) is_state_set: bool,
}

/// How this run removed one row, not yet folded into the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Deleted,
    Deactivated,
}

/// The memory of this run about one load.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Rows that are there, by the last that was done to them.
    done: HashMap<KeyHash, Done>,
    /// Rows that are not, or not active.
    removals: HashMap<KeyHash, (Removal, Uuid)>,
    /// Classes of rows that an earlier pass of this run loaded and folded.
    folded: HashMap<KeyHash, Class>,
    /// Creates whose end is unknown, with the ids they were sent under.
    pub(crate) unanswered_creates: HashMap<KeyHash, (Uuid, u64)>,
    /// Rows with a status change whose end is unknown.
    unanswered_states: HashSet<KeyHash>,
    /// Whether an earlier process sent something in this pass.
    pub(crate) was_stopped: bool,
    /// Keys whose rows were deleted at the destination by someone else.
    pub(crate) missing: HashSet<KeyHash>,
    /// Some of the rows in `done` that were written last, and the last that were deleted.
    sample: Vec<(Uuid, KeyHash)>,
    removed_last: VecDeque<Uuid>,
    /// Ids of rows that were sent and are in none of the others.
    sent_besides: Vec<Uuid>,
}

impl Past {
    /// What was written to this row and is not in the state yet.
    pub(crate) fn done(&self, key: KeyHash) -> Option<Done> {
        self.done.get(&key).copied()
    }

    /// How this row was removed, which is not in the state yet.
    pub(crate) fn removal(&self, key: KeyHash) -> Option<Removal> {
        self.removals.get(&key).map(|(removal, _)| *removal)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty()
            && self.removals.is_empty()
            && self.folded.is_empty()
            && self.unanswered_creates.is_empty()
            && self.missing.is_empty()
    }

    /// Whether this run has to do with the row, so that its state alone does not settle it.
    pub(crate) fn knows(&self, key: KeyHash) -> bool {
        self.done.contains_key(&key)
            || self.removals.contains_key(&key)
            || self.folded.contains_key(&key)
            || self.unanswered_creates.contains_key(&key)
            || self.missing.contains(&key)
    }

    /// Whether the row was sent by an earlier process otherwise than it is wanted now: with a content whose hash is
    /// not `hash`, or not at all.
    pub(crate) fn is_contested(&self, key: KeyHash, hash: Option<u64>) -> bool {
        let is_other = |sent: u64| Some(sent) != hash;
        self.done.get(&key).is_some_and(|done| is_other(done.row_hash))
            || self.unanswered_creates.get(&key).is_some_and(|(_, sent)| is_other(*sent))
            || (hash.is_some() && self.removals.contains_key(&key))
    }

    /// Some of the rows that this run wrote and did not remove again: those of the last requests, and others.
    pub(crate) fn sample(&self) -> &[(Uuid, KeyHash)] {
        &self.sample
    }

    /// The rows that this run deleted last.
    pub(crate) fn removed_last(&self) -> impl Iterator<Item = &Uuid> + '_ {
        self.removed_last.iter()
    }

    /// All rows that this run sent anything for.
    pub(crate) fn ids(&self) -> HashSet<Uuid> {
        let done = self.done.values().map(|done| done.id);
        let removals = self.removals.values().map(|(_, id)| *id);
        let creates = self.unanswered_creates.values().map(|(id, _)| *id);
        done.chain(removals).chain(creates).chain(self.sent_besides.iter().copied()).collect()
    }

    /// What the row counts as in this run: a row that the run created stays a created one, whatever
    /// was sent for it afterwards.
    pub(crate) fn class(&self, key: KeyHash, now: Class) -> Class {
        let before = self.folded.get(&key).copied().or_else(|| self.done.get(&key).map(|done| done.class));
        match before {
            Some(Class::Created) => Class::Created,
            Some(Class::Updated) if now == Class::Unchanged => Class::Updated,
            _ => now,
        }
    }

    pub(crate) fn is_resent(&self, key: KeyHash) -> bool {
        self.unanswered_creates.contains_key(&key) || self.unanswered_states.contains(&key)
    }

    /// A create whose end was unknown turned out to be there.
    pub(crate) fn confirm_create(&mut self, key: KeyHash) {
        if let Some((id, row_hash)) = self.unanswered_creates.remove(&key) {
            let done = Done { class: Class::Created, id, row_hash, is_uncertain: false, is_state_set: false };
            self.done.insert(key, done);
        }
    }

    /// Rows that this run wrote and did not remove again.
    pub(crate) fn written(&self) -> impl Iterator<Item = (KeyHash, Uuid)> + '_ {
        self.done.iter().map(|(key, done)| (*key, done.id))
    }

    /// Rows that this run deleted.
    pub(crate) fn deleted(&self) -> HashSet<Uuid> {
        let deleted = self.removals.values().filter(|(removal, _)| *removal == Removal::Deleted);
        deleted.map(|(_, id)| *id).collect()
    }

    fn take_folded(&mut self, row: ReplayedRow) {
        if row.outcome != Some(OutcomeCode::Applied) {
            return;
        }
        match (row.operation, self.folded.get(&row.key)) {
            (Operation::Create, _) => self.folded.insert(row.key, Class::Created),
            (Operation::Update | Operation::SetState, None) => self.folded.insert(row.key, Class::Updated),
            _ => None,
        };
    }

    /// Chooses the rows of the sample from those that a ledger says were applied.
    fn take_sample(&mut self, applied: &[ReplayedRow]) {
        for row in applied {
            let is_as_sent = |done: &Done| done.id == row.id && !done.is_uncertain;
            let is_deactivated = self.removals.get(&row.key) == Some(&(Removal::Deactivated, row.id));
            if self.done.get(&row.key).is_some_and(is_as_sent) || is_deactivated {
                self.sample.push((row.id, row.key));
            }
        }
    }

    fn take(&mut self, row: ReplayedRow) {
        match (row.operation, row.outcome) {
            (Operation::Create, Some(OutcomeCode::Applied)) => self.insert(row, Class::Created, false),
            // Someone else's row has this key: it is ours to update from now on.
            (Operation::Create, Some(OutcomeCode::Exists)) => self.insert(row, Class::Updated, true),
            (Operation::Create, None | Some(OutcomeCode::Ambiguous)) => {
                self.unanswered_creates.insert(row.key, (row.id, row.row_hash));
            }
            (Operation::Update, Some(OutcomeCode::Applied)) => self.insert(row, Class::Updated, false),
            (Operation::Update, None | Some(OutcomeCode::Ambiguous)) => self.insert(row, Class::Updated, true),
            (Operation::SetState, Some(OutcomeCode::Applied)) => {
                if !self.done.contains_key(&row.key) {
                    self.insert(row, Class::Updated, false);
                }
                if let Some(done) = self.done.get_mut(&row.key) {
                    done.is_state_set = true;
                }
                self.removals.remove(&row.key);
            }
            (Operation::Delete, Some(OutcomeCode::Applied)) => self.remove(row, Removal::Deleted),
            (Operation::Deactivate, Some(OutcomeCode::Applied)) => self.remove(row, Removal::Deactivated),
            (Operation::SetState, None | Some(OutcomeCode::Ambiguous)) => {
                self.unanswered_states.insert(row.key);
                self.sent_besides.push(row.id);
            }
            // A row that is gone is removed again, whatever became of the first time.
            (Operation::Delete | Operation::Deactivate, None) | (_, Some(_)) => self.sent_besides.push(row.id),
        }
    }

    fn insert(&mut self, row: ReplayedRow, class: Class, is_uncertain: bool) {
        let class = match self.done.get(&row.key) {
            Some(done) if done.class == Class::Created && class == Class::Updated => Class::Created,
            _ => class,
        };
        let done = Done { class, id: row.id, row_hash: row.row_hash, is_uncertain, is_state_set: false };
        self.done.insert(row.key, done);
        if self.removals.get(&row.key).is_some_and(|(removal, _)| *removal == Removal::Deleted) {
            self.removals.remove(&row.key);
        }
    }

    fn remove(&mut self, row: ReplayedRow, removal: Removal) {
        self.done.remove(&row.key);
        if removal == Removal::Deleted {
            if self.removed_last.len() == LEDGER_REMOVED_MAX {
                self.removed_last.pop_front();
            }
            self.removed_last.push_back(row.id);
        }
        self.removals.insert(row.key, (removal, row.id));
    }
}

/// The ledger of one pass of one load.
pub(crate) fn path(run_dir: &Path, pass: u8) -> PathBuf {
    run_dir.join(format!("pass-{pass}.ledger"))
}

/// Fails if the ledger of a pass is not there although an earlier process kept one: what that one sent would be sent
/// once more.
pub(crate) fn require(run_dir: &Path, pass: u8) -> Result<(), RunError> {
    let path = path(run_dir, pass);
    if path.try_exists()? {
        return Ok(());
    }
    Err(LedgerError::Damaged { path, offset: 0, detail: "it is gone".to_owned() }.into())
}

/// Keys of all rows that the passes up to `pass` and the one after it sent anything for: a state that is read anew must
/// know them, although nothing else does. A damaged ledger says none.
pub(crate) fn keys(run_dir: &Path, pass: u8) -> Result<Vec<KeyHash>, RunError> {
    let mut keys = Vec::new();
    for number in 1..=pass + 1 {
        let path = path(run_dir, number);
        if !path.try_exists()? {
            continue;
        }
        match ledger::read(&path).and_then(Replay::of) {
            Ok(replay) => keys.extend(replay.rows().map(|row| row.key)),
            Err(LedgerError::Damaged { .. } | LedgerError::Contradiction { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(keys)
}

/// Reads what the passes up to `pass` did, and opens the ledger of `pass` for more, marked with the manifest that
/// they are based on. Returns the writer, the past, and the next sequence number.
///
/// `is_adopted`: the state was just read from the destination, which knows what was done there. Then a damaged ledger
/// is set aside, so that adopting mends it too.
pub(crate) async fn open(
    run_dir: &Path,
    pass: u8,
    manifest_version: u64,
    is_adopted: bool,
) -> Result<(LedgerWriter, Past, u64), RunError> {
    let mut past = Past::default();
    let mut sequence = 0;
    let mut is_based = false;
    for number in 1..=pass {
        let path = path(run_dir, number);
        if !path.try_exists()? {
            continue;
        }
        let replay = match ledger::read(&path).and_then(Replay::of) {
            Err(LedgerError::Damaged { .. } | LedgerError::Contradiction { .. }) if is_adopted => {
                fs_err::rename(&path, path.with_extension("damaged"))?;
                continue;
            }
            replay => replay?,
        };
        let bases = bases(&replay);
        for (at, row) in replay.rows().enumerate() {
            let base = bases.iter().rev().find(|(first, _)| *first <= at).map(|(_, version)| *version);
            if base == Some(manifest_version) { past.take(row) } else { past.take_folded(row) }
        }
        past.take_sample(&replay.applied_sample(LEDGER_ROWS_MAX));
        sequence = sequence.max(replay.next_sequence());
        past.was_stopped = number == pass && replay.rows().next().is_some();
        is_based = number == pass && bases.last().is_some_and(|(_, version)| *version == manifest_version);
    }
    // What a later pass sent before it was stopped is no secret either.
    let later = path(run_dir, pass + 1);
    if later.try_exists()? && !is_adopted {
        past.sent_besides.extend(Replay::of(ledger::read(&later)?)?.rows().map(|row| row.id));
    }
    let path = path(run_dir, pass);
    let writer = if path.try_exists()? { LedgerWriter::open_append(&path)? } else { LedgerWriter::create(&path)? };
    if !is_based {
        writer.append(&Record::Mark { what: format!("{MARK_PREFIX}{manifest_version}") }).await?;
    }
    Ok((writer, past, sequence))
}

/// The manifests that changes of a ledger are based on, each with the number of rows before it. It is one unless
/// the state was adopted anew while the run was stopped.
fn bases(replay: &Replay) -> Vec<(usize, u64)> {
    let version = |mark: &str| mark.strip_prefix(MARK_PREFIX)?.parse().ok();
    replay.marks().iter().filter_map(|(at, mark)| Some((*at, version(mark)?))).collect()
}
