//! A state whose directory was copied or put back: whether it is older than the destination.
//!
//! Rows that our users wrote after the state are read, and compared with it. One that says the same is nothing to worry
//! about. One that does not, or one that the state does not know and that would be created now, was loaded by a later
//! run whose state is gone: changes would be skipped, and rows doubled. Rows of the state that are not there may have
//! been deleted by that run too, or by people; they are met as `deleted_there` says.
//!
//! Left out: more than [`NEWER_MAX`] such rows, of which the newest are compared.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch};
use flowgate_core::destination::{Class, Newest, Selection};
use flowgate_core::project::{Master, Missing};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::{Code, KeyHash};
use flowgate_sorted::{ColumnComparer, DEACTIVATED, State, StateBucket, TOMBSTONE, Witnesses};
use futures::StreamExt;
use uuid::Uuid;

use super::newest_of;
use crate::RunError;
use crate::adopt::{CurrentRows, wanted_columns};
use crate::ledger::Past;
use crate::lookup::row_ids;
use crate::prepare::Prepared;
use crate::run::Scope;

/// Rows that are compared.
const NEWER_MAX: usize = 1_000;

/// Up to this many rows of a state are asked for one by one; above, the ids of the whole table are read.
const IDS_ASKED_MAX: u64 = 5_000;

/// Fails if the state is older than the destination; returns the keys of its rows that are not there.
pub(super) async fn look(
    scope: &Scope<'_>,
    prepared: &Prepared,
    state: &State,
    past: &Past,
) -> Result<HashSet<KeyHash>, RunError> {
    let shape = &prepared.mapping.shape;
    scope.engine.warn(&format!(
        "load `{}`: the state directory was copied or put back: looking whether `{}` is newer",
        scope.load.name, scope.load.table
    ));
    let since = Newest::OursSince(newest_known(scope)?);
    let mut newer = scope.destination.newest(shape, since, NEWER_MAX).await?;
    let own = past.ids();
    newer.retain(|id| !own.contains(id));
    if !newer.is_empty() {
        let stale = stale_rows(scope, prepared, state, newer).await?;
        if stale > 0 {
            return Err(refusal(scope, stale));
        }
    }
    missing_keys(scope, prepared, state, past).await
}

fn refusal(scope: &Scope<'_>, stale: usize) -> RunError {
    let message = format!(
        "load `{}`: our state is older than `{}`: {stale} rows that were loaded later are not as it says",
        scope.load.name, scope.load.table
    );
    RunError::refused(Code::STATE_WENT_BACK, message)
        .hint("a backup of the state directory was put back; nothing was sent")
        .hint(format!(
            "`flowgate run {} --adopt` reads what is there and goes on from it; rows that a later run created and that have \
             left the source since stay there",
            scope.flow.name
        ))
}

/// The highest version that any load of the table knows of: what another one wrote is none of this one's.
fn newest_known(scope: &Scope<'_>) -> Result<u64, RunError> {
    let mut newest = 0;
    for flow in scope.project().flows.values() {
        for load in flow.loads.iter().filter(|load| load.into == scope.load.into && load.table == scope.load.table) {
            let state = scope.engine.open_state(&flow.name, &load.name)?;
            let witnesses = state.as_ref().and_then(|state| state.manifest().witnesses.as_ref());
            newest = newest.max(witnesses.map_or(0, |witnesses: &Witnesses| newest_of(witnesses)));
        }
    }
    Ok(newest)
}

/// How many of these rows are other than the state says, or unknown to it although they are wanted.
async fn stale_rows(scope: &Scope<'_>, prepared: &Prepared, state: &State, ids: Vec<Uuid>) -> Result<usize, RunError> {
    let mapping = &prepared.mapping;
    let mut columns = wanted_columns(mapping);
    if scope.load.missing == Missing::Deactivate && mapping.state_position().is_none() {
        columns.push(STATE_COLUMN.to_owned());
    }
    let current = CurrentRows::of(scope, mapping)?;
    let selection = Selection::Ids(ids);
    let mut pages =
        scope.destination.read_current(Arc::clone(&mapping.shape), columns, selection, Class::Batch).await?;
    let mut stale = 0;
    while let Some(page) = pages.next().await {
        let page = page?;
        if page.num_rows() > 0 {
            stale += stale_rows_of(scope, prepared, state, &current, &page)?;
        }
    }
    Ok(stale)
}

fn stale_rows_of(
    scope: &Scope<'_>,
    prepared: &Prepared,
    state: &State,
    current: &CurrentRows,
    page: &RecordBatch,
) -> Result<usize, RunError> {
    let (canonical, ids) = (current.canonical(page)?, row_ids(page)?);
    let keys = flowgate_sorted::key_hashes(&canonical.project(&prepared.mapping.match_positions)?)?;
    let bits = state.manifest().bits;
    let mut by_bucket: BTreeMap<usize, Vec<(KeyHash, usize)>> = BTreeMap::new();
    for (row, key) in keys.iter().enumerate() {
        if let Some(key) = key {
            by_bucket.entry(key.bucket(bits)).or_default().push((*key, row));
        }
    }
    let mut stale = 0;
    for (number, rows) in by_bucket {
        let bucket = state.bucket(bits, number)?;
        let wanted = prepared.wanted(rows.iter().map(|(key, _)| *key))?;
        for (key, row) in rows {
            let is_stale = match bucket.index.find(key) {
                None => wanted.contains(&key),
                Some(at) if bucket.entry(at).is_ambiguous() || bucket.entry(at).is_uncertain() => false,
                Some(at) => {
                    bucket.index.ids[at] != ids[row]
                        || is_other_status(scope, prepared, page, row, bucket.index.flags[at])
                        || is_other_content(prepared, &bucket, at, &canonical, row, state)?
                }
            };
            stale += usize::from(is_stale);
        }
    }
    Ok(stale)
}

/// Whether a row that should be active is not, or the other way round, where the load deactivates what is gone.
fn is_other_status(scope: &Scope<'_>, prepared: &Prepared, page: &RecordBatch, row: usize, flags: u8) -> bool {
    let mapping = &prepared.mapping;
    if scope.load.missing != Missing::Deactivate || mapping.state_position().is_some() {
        return false;
    }
    let statuses = page.column_by_name(STATE_COLUMN).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let status = statuses.filter(|statuses| statuses.is_valid(row)).map(|statuses| statuses.value(row));
    let is_active =
        mapping.shape.statuses.iter().find(|known| Some(known.status) == status).map(|known| known.state == 0);
    is_active.is_some_and(|is_active| is_active == (flags & DEACTIVATED != 0))
}

/// Whether a row differs in a column that the source is the master of.
fn is_other_content(
    prepared: &Prepared,
    bucket: &StateBucket,
    at: usize,
    canonical: &RecordBatch,
    row: usize,
    state: &State,
) -> Result<bool, RunError> {
    let mapping = &prepared.mapping;
    let stored = bucket.values_of(&mapping.schema, &[at])?;
    let is_gone = bucket.index.flags[at] & TOMBSTONE != 0;
    let differing = ColumnComparer::new(canonical, &stored)?.differing(row, 0);
    let is_stored = |name: &str| state.manifest().columns.iter().any(|column| column.name == name);
    let columns = mapping.columns.iter().enumerate().filter(|(column, _)| differing.contains(*column));
    let mut told = columns.filter(|(column, mapped)| {
        let is_status_of_gone = is_gone && Some(*column) == mapping.state_position();
        mapped.rule.master == Master::Source && is_stored(&mapped.name) && !is_status_of_gone
    });
    Ok(told.next().is_some())
}

/// Keys whose rows are not there although the state has them.
async fn missing_keys(
    scope: &Scope<'_>,
    prepared: &Prepared,
    state: &State,
    past: &Past,
) -> Result<HashSet<KeyHash>, RunError> {
    let (shape, manifest) = (&prepared.mapping.shape, state.manifest());
    let mut claimed: Vec<(Uuid, KeyHash)> = Vec::new();
    for bucket in 0..1_usize << manifest.bits {
        let index = state.bucket(manifest.bits, bucket)?.index;
        let living = index.iter().filter(|entry| !entry.is_tombstone() && past.removal(entry.key).is_none());
        claimed.extend(living.map(|entry| (entry.id, entry.key)));
    }
    let mut there: Vec<Uuid> = Vec::new();
    if claimed.len() as u64 <= IDS_ASKED_MAX {
        let ids: Vec<Uuid> = claimed.iter().map(|(id, _)| *id).collect();
        there = scope.destination.probe(shape, &ids).await?;
    } else {
        let reading = scope.destination.read_current(Arc::clone(shape), Vec::new(), Selection::All, Class::Batch);
        let mut pages = reading.await?;
        while let Some(page) = pages.next().await {
            scope.require_not_cancelled()?;
            there.extend(row_ids(&page?)?);
        }
    }
    there.sort_unstable();
    let is_missing = |(id, _): &&(Uuid, KeyHash)| there.binary_search(id).is_err();
    Ok(claimed.iter().filter(is_missing).map(|(_, key)| *key).collect())
}
