//! Whether destination and state still belong together.
//!
//! A restored environment has forgotten rows and changes that the state takes for granted; a copied one answers
//! under another identity. Either would make a load skip what is missing. A load that was given another table or
//! other match columns finds none of its keys in the state, and would create what is there. So each state keeps what
//! it is of, and witnesses: rows that were written and deleted last, and some of each time before, with the versions
//! they had. Before the first write of a run all of them are looked at in one request, and what the ledger of a run
//! that was stopped claims is looked at with them: versions there only ever rise.
//!
//! * A witness with an older version, a deleted row that is back, a row of the ledger that is not there or as old as the
//!   state: the destination went back in time.
//! * A row that is not there may have been deleted by a person. That is believed of a few; not of all that the last run
//!   wrote while others are there, and not of [`MISSING_MIN`] or more unless every row of the load is a witness. Those that are believed are
//!   met as `deleted_there` says, whether or not the source changed them.
//!
//! What the destination was restored to shows whenever the last write of the state is undone, because the rows written
//! last are always among the witnesses. Of rows that someone deletes among many, a share s is met with probability
//! 1 - (1 - s)^n for n witnesses.
//!
//! The state can go back in time too, when a backup of its directory is put back. Nothing within tells, but the directory
//! is another one then, or was written anew (module `place`). That is when the rows that we wrote after the state are
//! looked for, and rows of the state that are not there: see [`later`].
//!
//! `run --adopt` reads the destination anew and takes new witnesses.

use std::collections::{HashMap, HashSet, VecDeque};

use flowgate_core::destination::Sighting;
use flowgate_core::{Code, KeyHash};
use flowgate_sorted::{Manifest, State, TOMBSTONE, Witness, Witnesses};
use uuid::Uuid;

use crate::RunError;
use crate::ledger::Past;
use crate::mapping::Mapping;
use crate::prepare::Prepared;
use crate::run::Scope;

pub(crate) mod later;
pub(crate) mod place;

/// Rows that a state keeps as witnesses. With the others below they fit one request, which takes 500 ids.
const WITNESSES_MAX: usize = 420;
/// The newest rows, all of them; one row of so many requests, because what is sent at the same time does not arrive in
/// order; and so many of all that a run wrote, evenly.
const NEWEST_MAX: usize = 100;
const REQUESTS_MAX: usize = 60;
const SPREAD_MAX: usize = 180;
/// Deleted rows that a state keeps, so that adopting knows them should they be back; and those of them that are looked at.
const REMOVED_MAX: usize = 2_000;
const REMOVED_ASKED_MAX: usize = 60;

/// Witnesses that are looked at when a ledger claims something too, and rows of the ledger.
const BESIDE_LEDGER_MAX: usize = 200;
pub(crate) const LEDGER_ROWS_MAX: usize = 160;
pub(crate) const LEDGER_REMOVED_MAX: usize = 60;

/// So many rows that are gone were not removed by people one by one.
const MISSING_MIN: usize = 4;

/// What looking came to, when destination and state belong together.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Keys whose rows were deleted there by someone.
    pub(crate) missing: HashSet<KeyHash>,
    /// Witnesses of rows that are no longer the state's.
    outdated: HashSet<Uuid>,
}

/// Fails if the destination is older than the state or the ledger, or another one, or the load another; or if the state
/// is older than the destination. `was_deleting`: an earlier process of this run may have deleted rows that left the
/// source without living to hear so; that those are missing is no sign.
pub(crate) async fn check(
    scope: &Scope<'_>,
    prepared: &Prepared,
    state: &State,
    past: &Past,
    was_deleting: bool,
) -> Result<Looked, RunError> {
    let Some(known) = &state.manifest().witnesses else { return Ok(Looked::default()) };
    require_same_keys(scope, known)?;
    let leaving = if was_deleting { leaving(prepared, known)? } else { HashSet::new() };
    let mut looked = look(scope, &prepared.mapping, state, known, past, &leaving).await?;
    if place::has_moved(scope.project(), &known.place)? {
        looked.missing.extend(later::look(scope, prepared, state, past).await?);
    }
    if !looked.missing.is_empty() {
        scope.engine.warn(&format!(
            "load `{}`: rows of `{}` that were deleted there: {} or more; they are met as `deleted_there` says",
            scope.load.name,
            scope.load.table,
            looked.missing.len()
        ));
    }
    Ok(looked)
}

/// As [`check`], for a load that a run which goes on had done already.
pub(crate) async fn check_done(scope: &Scope<'_>, mapping: &Mapping, state: &State) -> Result<(), RunError> {
    let Some(known) = &state.manifest().witnesses else { return Ok(()) };
    look(scope, mapping, state, known, &Past::default(), &HashSet::new()).await.map(drop)
}

/// The keys of witnesses that the source no longer has.
fn leaving(prepared: &Prepared, known: &Witnesses) -> Result<HashSet<KeyHash>, RunError> {
    let mut keys: HashSet<KeyHash> = known.rows.iter().filter_map(Witness::key).collect();
    for wanted in prepared.wanted(keys.iter().copied())? {
        keys.remove(&wanted);
    }
    Ok(keys)
}

/// Looks at the witnesses, and at what the ledger claims. Rows of the keys in `leaving` may be missing.
async fn look(
    scope: &Scope<'_>,
    mapping: &Mapping,
    state: &State,
    known: &Witnesses,
    past: &Past,
    leaving: &HashSet<KeyHash>,
) -> Result<Looked, RunError> {
    let deleted = past.deleted();
    let written = past.sample();
    let beside = if written.is_empty() { WITNESSES_MAX } else { BESIDE_LEDGER_MAX };
    let rows: Vec<Witness> = spread(&known.rows, beside).filter(|row| !deleted.contains(&row.id)).collect();
    let is_back_by_us = |id: &Uuid| written.iter().any(|(written, _)| written == id);
    let removed =
        known.removed.iter().take(REMOVED_ASKED_MAX).filter(|id| !is_back_by_us(id)).chain(past.removed_last());
    let removed: Vec<Uuid> = removed.copied().collect();
    let ids = rows.iter().map(|row| row.id).chain(written.iter().map(|(id, _)| *id)).chain(removed.iter().copied());
    let ids: Vec<Uuid> = ids.collect();
    let seen = scope.destination.sight(&mapping.shape, &ids).await?;
    require_same_identity(scope, known, &seen)?;
    let versions: HashMap<Uuid, u64> =
        ids.iter().zip(&seen.versions).filter_map(|(id, is)| Some((*id, (*is)?))).collect();
    let newest = newest_of(known);
    let lost = |(id, _): &&(Uuid, KeyHash)| versions.get(id).is_none_or(|is| *is != 0 && *is <= newest);
    let mut signs = Signs {
        rows: rows.len(),
        older: rows.iter().filter(|row| versions.get(&row.id).is_some_and(|is| *is < row.version)).count(),
        missing: 0,
        removed: removed.len(),
        back: back(state, removed.iter().filter(|id| versions.contains_key(*id)).copied().collect())?,
        written: written.len(),
        lost: written.iter().filter(lost).count(),
    };
    let mut looked = Looked::default();
    let mut living = Vec::new();
    for row in &rows {
        let is_missing = !versions.contains_key(&row.id);
        if is_missing && !is_of_state(state, row)? {
            looked.outdated.insert(row.id);
        } else if is_missing && let Some(key) = row.key().filter(|key| leaving.contains(key)) {
            looked.missing.insert(key);
        } else {
            living.push((row, is_missing));
        }
    }
    signs.missing = living.iter().filter(|(_, is_missing)| *is_missing).count();
    let manifest = state.manifest();
    let are_all_witnesses = manifest.rows() - manifest.tombstones() <= living.len() as u64;
    let last = living.iter().map(|(row, _)| row.sequence).max();
    let is_last_run_gone = signs.missing > 0
        && living.iter().filter(|(row, _)| Some(row.sequence) == last).all(|(_, is_missing)| *is_missing);
    // Of a handful of rows that are all there were, each is met by itself.
    let is_last_run_gone = is_last_run_gone && (signs.missing < living.len() || signs.missing >= MISSING_MIN);
    let are_many = signs.missing >= MISSING_MIN && !are_all_witnesses;
    if signs.older > 0 || signs.back > 0 || signs.lost > 0 || is_last_run_gone || are_many {
        return Err(refusal(scope, &signs));
    }
    looked.missing.extend(living.iter().filter(|(_, is_missing)| *is_missing).filter_map(|(row, _)| row.key()));
    Ok(looked)
}

/// What was seen of the rows that were looked at.
struct Signs {
    rows: usize,
    older: usize,
    missing: usize,
    removed: usize,
    back: usize,
    written: usize,
    lost: usize,
}

/// The highest version that the state knows of. States that did not keep it know that of their witnesses.
fn newest_of(known: &Witnesses) -> u64 {
    known.rows.iter().map(|row| row.version).max().unwrap_or_default().max(known.newest)
}

/// Whether the state still takes the witness for a row that is there, under this id. One that does not say its key is
/// taken at its word.
fn is_of_state(state: &State, witness: &Witness) -> Result<bool, RunError> {
    let Some(key) = witness.key() else { return Ok(true) };
    let bits = state.manifest().bits;
    let index = state.bucket(bits, key.bucket(bits))?.index;
    Ok(index.find(key).is_some_and(|at| index.ids[at] == witness.id && index.flags[at] & TOMBSTONE == 0))
}

/// How many of these rows, which were deleted and are there, the state does not take for rows of its own: where ids are the
/// keys, a row that returned has the id that it had.
fn back(state: &State, mut there: HashSet<Uuid>) -> Result<usize, RunError> {
    let bits = state.manifest().bits;
    for bucket in 0..1_usize << bits {
        if there.is_empty() {
            break;
        }
        let index = state.bucket(bits, bucket)?.index;
        for entry in index.iter().filter(|entry| !entry.is_tombstone()) {
            there.remove(&entry.id);
        }
    }
    Ok(there.len())
}

/// At most `limit` of `rows`, evenly.
fn spread<T: Copy>(rows: &[T], limit: usize) -> impl Iterator<Item = T> + '_ {
    let taken = rows.len().min(limit);
    (0..taken).map(move |at| rows[at * rows.len() / taken])
}

fn require_same_keys(scope: &Scope<'_>, known: &Witnesses) -> Result<(), RunError> {
    let load = scope.load;
    if known.table == load.table && known.match_columns == load.match_columns {
        return Ok(());
    }
    let rows_of = |table: &str, columns: &[String]| format!("rows of `{table}` by `{}`", columns.join("`, `"));
    let message = format!(
        "load `{}` now matches {}, and its state is of {}",
        load.name,
        rows_of(&load.table, &load.match_columns),
        rows_of(&known.table, &known.match_columns)
    );
    Err(RunError::refused(Code::STATE_OF_OTHER_ROWS, message)
        .hint("no key would be found in the state, and every row would be created once more; nothing was sent")
        .hint(format!(
            "`flowgate run {} --adopt` reads the rows that the new keys find and goes on from them",
            scope.flow.name
        )))
}

fn require_same_identity(scope: &Scope<'_>, known: &Witnesses, seen: &Sighting) -> Result<(), RunError> {
    if seen.identity == known.identity {
        return Ok(());
    }
    let message = format!(
        "load `{}`: organization `{}` answers, and the state is of `{}`",
        scope.load.name, seen.identity, known.identity
    );
    Err(refused(scope, message, "the environment was copied, or the address leads to another one; nothing was sent"))
}

fn refusal(scope: &Scope<'_>, signs: &Signs) -> RunError {
    let Signs { rows, older, missing, removed, back, written, lost } = signs;
    let back = match back {
        0 => String::new(),
        _ => format!("; of {removed} that were deleted last, {back} are back"),
    };
    let lost = match lost {
        0 => String::new(),
        _ => format!("; of {written} that this run wrote before it was stopped, {lost} are not as it left them"),
    };
    let message = format!(
        "load `{}`: `{}` is older than our state: of {rows} rows that were written last, {older} have an older version \
         and {missing} are not there{back}{lost}",
        scope.load.name, scope.load.table
    );
    refused(
        scope,
        message,
        "the environment was restored to an earlier moment, or its rows were deleted; nothing was sent",
    )
}

fn refused(scope: &Scope<'_>, message: String, cause: &str) -> RunError {
    RunError::refused(Code::WENT_BACK_IN_TIME, message)
        .hint(cause)
        .hint(format!("`flowgate run {} --adopt` reads what is there and goes on from it", scope.flow.name))
}

/// The rows that a run wrote and deleted last, in the order they were answered.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    newest: VecDeque<(Uuid, KeyHash)>,
    /// One of each request.
    of_requests: VecDeque<(Uuid, KeyHash)>,
    /// Every `step`-th row.
    spread: Vec<(Uuid, KeyHash)>,
    step: u64,
    written: u64,
    removed: VecDeque<Uuid>,
    has_written: bool,
}

impl Recent {
    /// Rows of one request that were written.
    pub(crate) fn wrote(&mut self, rows: impl Iterator<Item = (Uuid, KeyHash)>) {
        let mut last = None;
        for row in rows {
            last = Some(row);
            push(&mut self.newest, row, NEWEST_MAX);
            self.spread_over(row);
        }
        if let Some(last) = last {
            self.has_written = true;
            push(&mut self.of_requests, last, REQUESTS_MAX);
        }
    }

    fn spread_over(&mut self, row: (Uuid, KeyHash)) {
        if self.spread.len() == SPREAD_MAX {
            let mut at = 0;
            self.spread.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.step = self.step.max(1) * 2;
        }
        if self.written.is_multiple_of(self.step.max(1)) {
            self.spread.push(row);
        }
        self.written += 1;
    }

    /// Rows that an earlier process of the run deleted.
    pub(crate) fn removed_before(&mut self, ids: impl Iterator<Item = Uuid>) {
        ids.for_each(|id| self.removed(id));
    }

    /// A row that was deleted.
    pub(crate) fn removed(&mut self, id: Uuid) {
        self.has_written = true;
        push(&mut self.removed, id, REMOVED_MAX);
    }

    /// Whether anything was done at all.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The rows that are there, the newest first.
    fn rows(&self) -> impl Iterator<Item = (Uuid, KeyHash)> + '_ {
        self.newest.iter().rev().chain(self.of_requests.iter().rev()).chain(self.spread.iter().rev()).copied()
    }
}

fn push<T>(rows: &mut VecDeque<T>, row: T, limit: usize) {
    if rows.len() == limit {
        rows.pop_front();
    }
    rows.push_back(row);
}

/// What a run did that its witnesses must tell.
pub(crate) struct Done<'a> {
    pub(crate) recent: &'a Recent,
    /// All that were deleted.
    pub(crate) removed: &'a HashSet<Uuid>,
    pub(crate) looked: &'a Looked,
    /// Keys whose rows were deleted there and that were written anew.
    pub(crate) replaced: &'a HashSet<KeyHash>,
}

/// The witnesses of the next state, whose sequence is `sequence`: the rows written last, and some of the witnesses so far.
pub(crate) async fn take(
    scope: &Scope<'_>,
    mapping: &Mapping,
    before: &Manifest,
    done: &Done<'_>,
    sequence: u64,
) -> Result<Witnesses, RunError> {
    let mut asked: HashSet<Uuid> = HashSet::new();
    let written = done.recent.rows().filter(|(id, _)| !done.removed.contains(id) && asked.insert(*id));
    let written: Vec<Witness> =
        written.map(|(id, key)| Witness { id, version: 0, key: Some(Uuid::from_u128(key.0)), sequence }).collect();
    let earlier = before.witnesses.iter().flat_map(|witnesses| &witnesses.rows).copied();
    let is_kept = |row: &Witness| {
        let is_replaced = row.key().is_some_and(|key| done.replaced.contains(&key));
        !asked.contains(&row.id)
            && !done.removed.contains(&row.id)
            && !done.looked.outdated.contains(&row.id)
            && !is_replaced
    };
    let earlier: Vec<Witness> = earlier.filter(is_kept).collect();
    let earlier: Vec<Witness> = spread(&earlier, WITNESSES_MAX.saturating_sub(written.len())).collect();
    let rows: Vec<Witness> = written.into_iter().chain(earlier).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let seen = scope.destination.sight(&mapping.shape, &ids).await?;
    require_not_restored_since(scope, &rows, &seen, sequence)?;
    let newest = seen.versions.iter().flatten().copied().max().unwrap_or_default();
    // One that is not there now is looked at again by the next run, which can tell what that means.
    let rows = rows.into_iter().zip(&seen.versions);
    let rows = rows.map(|(row, version)| Witness { version: version.unwrap_or(row.version), ..row }).collect();
    let is_there = |id: &Uuid| asked.contains(id);
    let removed_before = before.witnesses.iter().flat_map(|witnesses| &witnesses.removed);
    let removed = done.recent.removed.iter().rev().chain(removed_before).filter(|id| !is_there(id));
    Ok(Witnesses {
        rows,
        removed: removed.take(REMOVED_MAX).copied().collect(),
        newest: newest.max(before.witnesses.as_ref().map_or(0, newest_of)),
        ..of_load(scope, seen.identity)?
    })
}

/// The witnesses of the next state when nothing was written: the same, in the directory as it is.
pub(crate) fn keep(scope: &Scope<'_>, before: &Manifest) -> Result<Option<Witnesses>, RunError> {
    let place = place::of(scope.project())?;
    Ok(before.witnesses.clone().map(|witnesses| Witnesses { place, ..witnesses }))
}

/// Fails if the destination went back while the run was under way: then what it was told is not so.
fn require_not_restored_since(
    scope: &Scope<'_>,
    rows: &[Witness],
    seen: &Sighting,
    sequence: u64,
) -> Result<(), RunError> {
    let older = rows.iter().zip(&seen.versions).filter(|(row, version)| version.is_some_and(|is| is < row.version));
    let written = || rows.iter().zip(&seen.versions).filter(|(row, _)| row.sequence == sequence && row.version == 0);
    let lost = written().filter(|(_, version)| version.is_none()).count();
    let older = older.count();
    if older == 0 && (lost == 0 || lost < written().count()) {
        return Ok(());
    }
    let message = format!(
        "load `{}`: `{}` went back in time while it was loaded: of {} rows, {older} have an older version, and {lost} that were \
         written are not there",
        scope.load.name,
        scope.load.table,
        rows.len()
    );
    Err(refused(scope, message, "the environment was restored to an earlier moment, or its rows were deleted"))
}

/// The witnesses of an adopted state: rows of all of it, and those that were written last, by whomever.
pub(crate) async fn take_adopted(scope: &Scope<'_>, mapping: &Mapping, taken: &Taken) -> Result<Witnesses, RunError> {
    let spread_rows: Vec<(Uuid, KeyHash)> = spread(&taken.rows, WITNESSES_MAX - taken.newest.len()).collect();
    let mut keys: HashMap<Uuid, KeyHash> = spread_rows.into_iter().collect();
    keys.extend(taken.newest_keys.iter().copied());
    // Rows of others say how new the table is; they are no witnesses.
    let mut ids: Vec<Uuid> = keys.keys().copied().chain(taken.newest.iter().copied()).collect();
    ids.sort_unstable();
    ids.dedup();
    let seen = scope.destination.sight(&mapping.shape, &ids).await?;
    let row = |(id, version): (&Uuid, &Option<u64>)| {
        let key = keys.get(id)?;
        Some(Witness { id: *id, version: (*version)?, key: Some(Uuid::from_u128(key.0)), sequence: 0 })
    };
    let rows = ids.iter().zip(&seen.versions).filter_map(row).collect();
    let newest = seen.versions.iter().flatten().copied().max().unwrap_or_default();
    Ok(Witnesses { rows, removed: Vec::new(), newest, ..of_load(scope, seen.identity)? })
}

/// Rows that adopting took.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    rows: Vec<(Uuid, KeyHash)>,
    newest: Vec<Uuid>,
    newest_keys: Vec<(Uuid, KeyHash)>,
}

impl Taken {
    /// `newest`: the rows of the table that were written last.
    pub(crate) fn with(newest: Vec<Uuid>) -> Self {
        Self { newest, ..Self::default() }
    }

    /// How many of the newest rows are to be known.
    pub(crate) const NEWEST: usize = NEWEST_MAX;

    /// Adds rows of one bucket.
    pub(crate) fn add(&mut self, rows: &[(Uuid, KeyHash)]) {
        self.rows.extend(spread(rows, WITNESSES_MAX));
        let is_newest = |(id, _): &&(Uuid, KeyHash)| self.newest.contains(id);
        if !self.newest.is_empty() {
            let newest: Vec<_> = rows.iter().filter(is_newest).copied().collect();
            self.newest_keys.extend(newest);
        }
    }
}

fn of_load(scope: &Scope<'_>, identity: String) -> Result<Witnesses, RunError> {
    Ok(Witnesses {
        identity,
        table: scope.load.table.clone(),
        match_columns: scope.load.match_columns.clone(),
        rows: Vec::new(),
        removed: Vec::new(),
        newest: 0,
        place: place::of(scope.project())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u128) -> (Uuid, KeyHash) {
        (Uuid::from_u128(number), KeyHash(number))
    }

    #[test]
    fn the_newest_rows_and_some_of_each_request_before_are_kept() {
        let mut recent = Recent::default();
        assert!(!recent.has_written());
        for request in 0..1_000 {
            recent.wrote((request * 100..request * 100 + 100).map(row));
        }
        let rows: Vec<u128> = recent.rows().map(|(id, _)| id.as_u128()).collect();
        assert_eq!(rows[..NEWEST_MAX], (0..NEWEST_MAX as u128).map(|at| 99_999 - at).collect::<Vec<_>>()[..]);
        let (of_requests, spread) = rows[NEWEST_MAX..].split_at(REQUESTS_MAX);
        assert_eq!(of_requests, (0..REQUESTS_MAX as u128).map(|at| 99_999 - 100 * at).collect::<Vec<_>>());
        assert!((SPREAD_MAX / 2..=SPREAD_MAX).contains(&spread.len()), "{}", spread.len());
        let gaps: HashSet<u128> = spread.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert_eq!((gaps.len(), spread.last()), (1, Some(&0)), "evenly, from the first on");
    }

    #[test]
    fn a_request_of_which_nothing_was_written_changes_nothing() {
        let mut recent = Recent::default();
        recent.wrote(std::iter::empty());
        assert!(!recent.has_written() && recent.rows().count() == 0);
        recent.removed(Uuid::from_u128(1));
        assert!(recent.has_written());
    }

    #[test]
    fn rows_are_spread_evenly() {
        let rows: Vec<usize> = (0..1_000).collect();
        assert_eq!(spread(&rows, 4).collect::<Vec<_>>(), [0, 250, 500, 750]);
        assert_eq!(spread(&rows[..3], 4).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(&rows[..0], 4).count(), 0);
    }
}
