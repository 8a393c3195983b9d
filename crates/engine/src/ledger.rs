//! What earlier attempts of this run already did.
//!
//! A run that was stopped is prepared and compared anew from its staged images; what its ledgers
//! say decides which of those changes are already at the destination. What stands in a ledger counts as folded
//! when the load's manifest is another than the one marked before it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use flowgate_core::{KeyHash, Operation};
use flowgate_store::ledger::{self, LedgerError, LedgerWriter, OutcomeCode, Record, Replay, ReplayedRow};
use uuid::Uuid;

use crate::RunError;

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
        self.done.is_empty() && self.removals.is_empty() && self.folded.is_empty() && self.unanswered_creates.is_empty()
    }

    /// Whether this run has to do with the row, so that its state alone does not settle it.
    pub(crate) fn knows(&self, key: KeyHash) -> bool {
        self.done.contains_key(&key)
            || self.removals.contains_key(&key)
            || self.folded.contains_key(&key)
            || self.unanswered_creates.contains_key(&key)
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
            }
            // A row that is gone is removed again, whatever became of the first time.
            (Operation::Delete | Operation::Deactivate, None) | (_, Some(_)) => {}
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
        sequence = sequence.max(replay.next_sequence());
        past.was_stopped = number == pass && replay.rows().next().is_some();
        is_based = number == pass && bases.last().is_some_and(|(_, version)| *version == manifest_version);
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
