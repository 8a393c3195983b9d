//! The rows that sifting did not settle, against the state that it touched: what changed.
//!
//! A row is decided with consecutive buckets of others, so that what little changed in many buckets is
//! sent together. Values of the state give the columns that changed. Column rules (`master`, `nulls`) are applied here and,
//! the same way, when the next state is folded: [`Rules`] is the one place they live.

use std::ops::Range;

use arrow_array::{Array, Int32Array, RecordBatch};
use flowgate_core::destination::{Changes, ColumnSet};
use flowgate_core::project::{Load, Master, Missing, Nulls};
use flowgate_core::{KeyHash, LoadRows, WallClock};
use flowgate_sorted::{
    AMBIGUOUS, ColumnComparer, DEACTIVATED, Index, SortedRows, StateBucket, Step, TOMBSTONE, UNCERTAIN, merge,
};
use uuid::Uuid;

use crate::RunError;
use crate::ledger::{Class, Past, Removal};
use crate::letters::Letters;
use crate::mapping::Mapping;
use crate::winners::{KeyExamples, Winners, winners};

/// What a diff found, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffCounts {
    pub prepared: u64,
    pub create: u64,
    pub update: u64,
    /// Rows that get another status, created and updated ones included.
    pub set_state: u64,
    pub unchanged: u64,
    pub superseded: u64,
    /// Superseded rows that differ from the row that won, without `latest_by:` to decide.
    pub contradictory: u64,
    /// Superseded rows that differ from the row that won, and have the same `latest_by`.
    pub tied: u64,
    /// Superseded rows whose key is written otherwise than that of the row that won.
    pub respelled: u64,
    /// Keys without a winner, because their newest row cannot be loaded.
    pub held_back: u64,
    pub quarantined: u64,
    pub dropped: u64,
    pub gone: u64,
    pub delete: u64,
    pub deactivate: u64,
    pub keep: u64,
    /// Rows in state that are there (tombstones left out).
    pub in_state: u64,
    /// Rows that an earlier process of this run sent otherwise than they are wanted now.
    pub contested: u64,
}

impl std::ops::AddAssign for DiffCounts {
    fn add_assign(&mut self, other: Self) {
        self.prepared += other.prepared;
        self.create += other.create;
        self.update += other.update;
        self.set_state += other.set_state;
        self.unchanged += other.unchanged;
        self.superseded += other.superseded;
        self.contradictory += other.contradictory;
        self.tied += other.tied;
        self.respelled += other.respelled;
        self.held_back += other.held_back;
        self.quarantined += other.quarantined;
        self.gone += other.gone;
        self.delete += other.delete;
        self.deactivate += other.deactivate;
        self.keep += other.keep;
        self.in_state += other.in_state;
        self.contested += other.contested;
    }
}

impl DiffCounts {
    /// How many writes are to be sent.
    pub(crate) fn to_send(self) -> u64 {
        self.create + self.update + self.set_state + self.delete + self.deactivate
    }

    /// What is to be sent, for an estimate.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            create: self.create,
            update: self.update,
            set_state: self.set_state,
            deactivate: self.deactivate,
            delete: self.delete,
        }
    }

    /// The classes of rows if nothing more were sent: changes wait, everything else is settled.
    pub(crate) fn waiting(&self) -> LoadRows {
        LoadRows {
            prepared: self.prepared,
            unchanged: self.unchanged,
            superseded: self.superseded,
            quarantined: self.quarantined,
            pending: self.create + self.update,
            dropped: self.dropped,
            gone: self.gone,
            kept: self.keep,
            gone_pending: self.delete + self.deactivate,
            ..LoadRows::default()
        }
    }
}

/// What is to be done with one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// As in state. `false`: the stored hash is old and is refreshed.
    Unchanged { is_hash_current: bool },
    /// Not there. `Some`: an earlier attempt already gave it this id.
    Create { id: Option<Uuid> },
    /// There under `id`; no columns: only its status differs.
    Update { id: Uuid, columns: ColumnSet },
    /// Already written by this run.
    Done { class: Class, id: Uuid },
    /// Refused before, and nothing has changed since.
    Held,
    /// More than one row there has the key.
    Ambiguous,
}

/// One key of the prepared rows that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    /// The winning row in the part.
    pub(crate) at: usize,
    /// Its row of the state, if it has one.
    pub(crate) old: Option<usize>,
    pub(crate) action: Action,
    /// What happens to its status after the row is written.
    pub(crate) status: Status,
}

/// One row of the state that is no longer prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Its row of the state.
    pub(crate) at: usize,
    /// Already removed by this run.
    pub(crate) removal: Option<Removal>,
    /// Written by this run before it was stopped: what the state says of its content is old.
    pub(crate) is_rewritten: bool,
    /// Another load keeps the row: it is not ours to remove.
    pub(crate) is_shared: bool,
}

/// The status a row is to be brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Leave,
    /// The one a new row has.
    Active,
    Set(i32),
}

impl Status {
    pub(crate) fn asked(code: Option<i32>) -> Self {
        code.map_or(Self::Active, Self::Set)
    }

    pub(crate) fn is_left(self) -> bool {
        self == Self::Leave
    }

    pub(crate) fn code(self) -> Option<i32> {
        match self {
            Self::Set(code) => Some(code),
            Self::Leave | Self::Active => None,
        }
    }
}

/// What is to be decided together.
pub(crate) struct Part {
    /// Consecutive ones.
    pub(crate) buckets: Range<usize>,
    /// Their rows that are not settled.
    pub(crate) new: SortedRows,
    /// The state that is not settled.
    pub(crate) old: StateBucket,
    /// Their rows that are.
    pub(crate) settled: u64,
    /// All rows of their state that are there.
    pub(crate) in_state: u64,
}

/// Consecutive buckets, decided.
pub(crate) struct Diff {
    pub(crate) buckets: Range<usize>,
    pub(crate) new: SortedRows,
    pub(crate) old: StateBucket,
    /// Old values under the canonical schema; columns that the state never had are null.
    pub(crate) old_values: Option<RecordBatch>,
    pub(crate) decided: Vec<Decided>,
    /// Rows of the state that the SELECT no longer returns.
    pub(crate) gone: Vec<Gone>,
    /// Rows that this run wrote before it was stopped, and that are neither prepared nor in state now.
    pub(crate) stray: Vec<(KeyHash, Uuid)>,
    pub(crate) counts: DiffCounts,
    pub(crate) examples: KeyExamples,
}

impl Diff {
    /// Rows whose create an earlier process sent and was not answered, and that are created now as they were then.
    pub(crate) fn creates_again(&self) -> usize {
        let is_again = |row: &&Decided| matches!(row.action, Action::Create { id: Some(_) });
        self.decided.iter().filter(is_again).count()
    }

    /// Ids of rows that are gone and that no other load keeps.
    pub(crate) fn removable(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.gone.iter().filter(|gone| !gone.is_shared).map(|gone| self.old.index.ids[gone.at])
    }
}

/// What every bucket of a load is decided by.
pub(crate) struct Differ<'a> {
    pub(crate) load: &'a Load,
    pub(crate) mapping: &'a Mapping,
    pub(crate) letters: &'a Letters<'a>,
    pub(crate) past: &'a Past,
    /// Names of the columns that the state has values of.
    pub(crate) known_columns: &'a [String],
    /// Whether a key that is not prepared is gone.
    pub(crate) sees_gone: bool,
    /// Ids of rows that other loads keep, sorted.
    pub(crate) kept_elsewhere: &'a [Uuid],
    /// By which times in text are ordered.
    pub(crate) clock: WallClock,
}

impl Differ<'_> {
    pub(crate) fn decide(&self, bits: u8, part: Part) -> Result<Diff, RunError> {
        let Part { buckets, new, old, settled, in_state } = part;
        let mut counts = DiffCounts { prepared: settled, unchanged: settled, in_state, ..DiffCounts::default() };
        let Winners { rows: winners, examples } = winners(self.load, self.mapping, &self.clock, &new, &mut counts)?;
        let keys: Vec<KeyHash> = winners.iter().map(|at| new.keys[*at]).collect();
        let protected = protected_keys(&new, &keys);
        let index = &old.index;
        let steps: Vec<Step> = merge(&keys, &index.keys).collect();
        let needs_values = steps.iter().any(|step| match step {
            Step::Both { new: i, old: j } => new.row_hashes[winners[*i]] != index.row_hashes[*j],
            _ => false,
        });
        let old_values = if needs_values { Some(old.values(&self.mapping.schema)?) } else { None };
        let rules = Rules::new(self.mapping, self.known_columns, &new.rows, old_values.as_ref())?;
        let mut decided = Vec::with_capacity(winners.len());
        let mut gone = Vec::new();
        for step in steps {
            match step {
                Step::New(i) => decided.push(self.decide_new(&new, winners[i])),
                Step::Both { new: i, old: j } => decided.push(self.decide_both(&new, winners[i], &old, j, &rules)),
                Step::Gone(j) => {
                    let key = index.keys[j];
                    let is_tombstone = index.flags[j] & TOMBSTONE != 0;
                    if self.sees_gone && !is_tombstone && protected.binary_search(&key).is_err() {
                        let is_rewritten = self.past.done(key).is_some();
                        let is_shared = self.kept_elsewhere.binary_search(&index.ids[j]).is_ok();
                        gone.push(Gone { at: j, removal: self.past.removal(key), is_rewritten, is_shared });
                    }
                }
            }
        }
        let is_living = |key: &KeyHash| index.find(*key).is_some_and(|at| index.flags[at] & TOMBSTONE == 0);
        let is_stray =
            |key: &KeyHash| buckets.contains(&key.bucket(bits)) && keys.binary_search(key).is_err() && !is_living(key);
        let stray = self.past.written().filter(|(key, _)| is_stray(key)).collect();
        self.count(&decided, &gone, &mut counts);
        if self.past.was_stopped {
            counts.contested = self.contested(&new, &decided, index, &gone);
        }
        Ok(Diff { buckets, new, old, old_values, decided, gone, stray, counts, examples })
    }

    fn decide_new(&self, new: &SortedRows, at: usize) -> Decided {
        let key = new.keys[at];
        let hash = new.row_hashes[at];
        let status = asked_status(self.mapping, &new.rows, at).map_or(Status::Leave, Status::Set);
        let action = match self.past.done(key) {
            Some(done) if done.row_hash == hash && !done.is_uncertain => {
                let status = if done.is_state_set { Status::Leave } else { status };
                return Decided { at, old: None, action: Action::Done { class: done.class, id: done.id }, status };
            }
            Some(done) => Action::Update { id: done.id, columns: self.every_column(false) },
            None if self.letters.is_held(key, hash) => {
                return Decided { at, old: None, action: Action::Held, status: Status::Leave };
            }
            None => Action::Create { id: self.past.unanswered_creates.get(&key).map(|(id, _)| *id) },
        };
        Decided { at, old: None, action, status }
    }

    fn decide_both(&self, new: &SortedRows, at: usize, old: &StateBucket, j: usize, rules: &Rules<'_>) -> Decided {
        let key = new.keys[at];
        let hash = new.row_hashes[at];
        let index = &old.index;
        let flags = index.flags[j];
        if flags & AMBIGUOUS != 0 {
            let action = if self.letters.is_held(key, hash) { Action::Held } else { Action::Ambiguous };
            return Decided { at, old: None, action, status: Status::Leave };
        }
        let (done, removal) = (self.past.done(key), self.past.removal(key));
        if removal == Some(Removal::Deleted) {
            return Decided { old: None, ..self.decide_new(new, at) };
        }
        let is_done = done.is_some_and(|done| done.row_hash == hash && !done.is_uncertain);
        let is_uncertain = flags & UNCERTAIN != 0 || (done.is_some() && !is_done) || self.past.missing.contains(&key);
        let was_deactivated = flags & DEACTIVATED != 0 || removal == Some(Removal::Deactivated);
        let asked = asked_status(self.mapping, &new.rows, at);
        let status = if was_deactivated {
            Status::asked(asked)
        } else if is_uncertain {
            asked.map_or(Status::Leave, Status::Set)
        } else {
            rules.status_change(at, j)
        };
        if let Some(done) = done.filter(|_| is_done) {
            let status = if done.is_state_set { Status::Leave } else { status };
            return Decided { at, old: Some(j), action: Action::Done { class: done.class, id: done.id }, status };
        }
        let is_hash_current = hash == index.row_hashes[j];
        if is_hash_current && !is_uncertain && !was_deactivated {
            return Decided { at, old: Some(j), action: Action::Unchanged { is_hash_current }, status: Status::Leave };
        }
        let columns = if is_uncertain { self.every_column(true) } else { rules.changed_columns(at, j) };
        let action = if columns.is_empty() && status.is_left() {
            Action::Unchanged { is_hash_current }
        } else if self.letters.is_held(key, hash) {
            return Decided { at, old: Some(j), action: Action::Held, status: Status::Leave };
        } else {
            Action::Update { id: index.ids[j], columns }
        };
        Decided { at, old: Some(j), action, status }
    }

    /// Rows that an earlier process sent otherwise. Creates without an answer that are wanted no more are among none of
    /// these: see [`Past::is_contested`] and `compare`.
    fn contested(&self, new: &SortedRows, decided: &[Decided], index: &Index, gone: &[Gone]) -> u64 {
        let is_sent_otherwise = |row: &&Decided| self.past.is_contested(new.keys[row.at], Some(new.row_hashes[row.at]));
        let is_gone_otherwise = |gone: &&Gone| self.past.is_contested(index.keys[gone.at], None);
        (decided.iter().filter(is_sent_otherwise).count() + gone.iter().filter(is_gone_otherwise).count()) as u64
    }

    /// All columns that may be sent: for a row whose content there is not known.
    fn every_column(&self, is_there: bool) -> ColumnSet {
        let columns = self.mapping.columns.iter().enumerate();
        columns
            .filter(|(at, column)| {
                Some(*at) != self.mapping.state_position() && !(is_there && column.rule.master == Master::Destination)
            })
            .map(|(at, _)| at)
            .collect()
    }

    fn count(&self, decided: &[Decided], gone: &[Gone], counts: &mut DiffCounts) {
        for row in decided {
            match &row.action {
                Action::Unchanged { .. } => counts.unchanged += 1,
                Action::Create { .. } => counts.create += 1,
                Action::Update { .. } => counts.update += 1,
                Action::Held | Action::Ambiguous => counts.quarantined += 1,
                Action::Done { class: Class::Created, .. } => counts.create += 1,
                Action::Done { .. } => counts.update += 1,
            }
            counts.set_state += u64::from(!row.status.is_left());
        }
        let shared = gone.iter().filter(|gone| gone.is_shared && self.load.missing != Missing::Keep).count() as u64;
        counts.gone = gone.len() as u64;
        let ours = counts.gone - shared;
        counts.keep = shared;
        match self.load.missing {
            Missing::Keep => counts.keep = ours,
            Missing::Deactivate => counts.deactivate = ours,
            Missing::Delete => counts.delete = ours,
        }
    }
}

/// The status a prepared row asks for.
pub(crate) fn asked_status(mapping: &Mapping, rows: &RecordBatch, at: usize) -> Option<i32> {
    let states = rows.column(mapping.state_position()?).as_any().downcast_ref::<Int32Array>()?;
    states.is_valid(at).then(|| states.value(at))
}

/// Keys that are prepared without a winner: they are quarantined, not gone.
fn protected_keys(new: &SortedRows, winners: &[KeyHash]) -> Vec<KeyHash> {
    let mut protected: Vec<KeyHash> = new.keys.clone();
    protected.dedup();
    protected.retain(|key| winners.binary_search(key).is_err());
    protected
}

/// The column rules over one part's new and old rows.
pub(crate) struct Rules<'a> {
    mapping: &'a Mapping,
    /// By column: whether the state has values of it.
    is_known: Vec<bool>,
    new: &'a RecordBatch,
    old: Option<&'a RecordBatch>,
    comparer: Option<ColumnComparer>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(
        mapping: &'a Mapping,
        known_columns: &[String],
        new: &'a RecordBatch,
        old: Option<&'a RecordBatch>,
    ) -> Result<Self, RunError> {
        let canonical: Vec<usize> = (0..mapping.columns.len()).collect();
        let comparer = match old {
            Some(old) => Some(ColumnComparer::new(&new.project(&canonical)?, old)?),
            None => None,
        };
        let is_known = mapping.columns.iter().map(|column| known_columns.contains(&column.name)).collect();
        Ok(Self { mapping, is_known, new, old, comparer })
    }

    /// Whether the new value of a column is the one that counts, given the old row.
    pub(crate) fn takes_new(&self, column: usize, new: usize, old: usize) -> bool {
        let rule = self.mapping.columns[column].rule;
        match rule.master {
            Master::Destination => false,
            Master::FillIfEmpty => self.old.is_none_or(|values| values.column(column).is_null(old)),
            Master::Source => !(rule.nulls == Nulls::Keep && self.new.column(column).is_null(new)),
        }
    }

    /// The columns whose value changes, the state rule's left out.
    fn changed_columns(&self, new: usize, old: usize) -> ColumnSet {
        let differing = self.differing(new, old);
        (0..self.mapping.columns.len())
            .filter(|column| Some(*column) != self.mapping.state_position())
            .filter(|column| differing.contains(*column) && self.takes_new(*column, new, old))
            .collect()
    }

    /// The status to set, if it is another one.
    fn status_change(&self, new: usize, old: usize) -> Status {
        let Some(column) = self.mapping.state_position() else { return Status::Leave };
        if !self.differing(new, old).contains(column) {
            return Status::Leave;
        }
        let statuses = self.new.column(column).as_any().downcast_ref::<Int32Array>();
        // A value without an entry asks for nothing: a row that was closed stays closed.
        statuses.filter(|statuses| statuses.is_valid(new)).map_or(Status::Leave, |asked| Status::Set(asked.value(new)))
    }

    /// Columns in which the rows differ; one that the state never had differs always.
    fn differing(&self, new: usize, old: usize) -> ColumnSet {
        let mut differing = self.comparer.as_ref().map(|comparer| comparer.differing(new, old)).unwrap_or_default();
        self.is_known.iter().enumerate().filter(|(_, known)| !**known).for_each(|(column, _)| differing.insert(column));
        differing
    }
}
