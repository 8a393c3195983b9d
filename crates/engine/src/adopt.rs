//! Adoption: rows that a table already holds become the load's first state.
//!
//! Only rows whose keys are prepared, or were in the last state, are taken: others are not ours. Of several
//! rows there with one key the one that the last state knows is taken. If it knows none they cannot be told
//! apart: the state remembers that, and the prepared row becomes a letter.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use flowgate_core::KeyHash;
use flowgate_core::destination::{Class, ID_COLUMN, Newest, Selection};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_sorted::{
    AMBIGUOUS, Entry, Index, Manifest, RowSet, SortedRows, SpillWriter, State, StateWriter, TOMBSTONE, Witnesses,
    groups, key_hashes, row_hashes,
};
use futures::StreamExt;
use uuid::Uuid;

use crate::lookup::row_ids;
use crate::mapping::Mapping;
use crate::prepare::{Prepared, state_codes};
use crate::run::Scope;
use crate::witness::Taken;
use crate::{Event, RunError, witness};

/// Up to this many keys are asked for one by one; above, the whole table is read.
const KEYS_ASKED_MAX: u64 = 2_000;

/// What adopting gave.
pub(crate) struct Adopted {
    pub(crate) manifest: Manifest,
    pub(crate) rows: u64,
    /// Keys that more than one row there has.
    pub(crate) ambiguous: u64,
    /// Rows of the last state that nothing is known of any more.
    pub(crate) lost: u64,
}

/// Reads the rows of the prepared keys and writes them as the state that follows `last`. `sent`: keys that an earlier
/// process of the run sent rows of.
pub(crate) async fn adopt(
    scope: &Scope<'_>,
    prepared: &Prepared,
    last: Option<&State>,
    sent: Vec<KeyHash>,
    dir: &Path,
    work_dir: &Path,
) -> Result<Adopted, RunError> {
    let mapping = &prepared.mapping;
    let bits = prepared.arrivals.bits();
    let (mut known, lost) = known_keys(mapping, last)?;
    known.extend(sent);
    let schema = with_id(&mapping.schema);
    let mut spill = SpillWriter::create(work_dir, Arc::clone(&schema), bits)?;
    let current = CurrentRows { removed: removed_before(scope, last), ..CurrentRows::of(scope, mapping)? };
    let columns = wanted_columns(mapping);
    let selection = selection(prepared, last.is_some())?;
    // Where no row could be ours, none is read.
    let mut pages = if prepared.arrivals.rows() == 0 && known.is_empty() && current.removed.is_empty() {
        futures::stream::empty().boxed()
    } else {
        scope.destination.read_current(Arc::clone(&mapping.shape), columns, selection, Class::Batch).await?
    };
    let mut rows = 0;
    // Gathered when the first page comes: a new table has none.
    let mut wanted: Option<Vec<KeyHash>> = None;
    while let Some(page) = pages.next().await {
        scope.require_not_cancelled()?;
        let page = page?;
        if page.num_rows() == 0 {
            continue;
        }
        let wanted = match &mut wanted {
            Some(wanted) => wanted,
            none => none.insert(wanted_keys(prepared, &known)?),
        };
        rows += take_page(&mut spill, &current, &schema, wanted, &page)?;
        scope.tell(Event::Adopting { load: &scope.load.name, rows });
    }
    let spill = spill.finish()?;
    let version = last.map_or(0, |state| state.manifest().version) + 1;
    let writer = StateWriter::create(dir, version, bits)?;
    let mut buckets = Vec::new();
    let mut ambiguous = 0;
    let newest = match rows {
        0 => Vec::new(),
        _ => scope.destination.newest(&mapping.shape, Newest::All, Taken::NEWEST).await?,
    };
    let mut taken = Taken::with(newest);
    for bucket in 0..prepared.arrivals.buckets() {
        let sorted = spill.bucket(bucket)?;
        let known = || last.and_then(|state| state.bucket(bits, bucket).ok()).unwrap_or_default().index;
        let (index, values, doubled) = state_rows(mapping, &sorted, known)?;
        ambiguous += doubled;
        let sound = index.iter().filter(|entry| !entry.is_ambiguous());
        taken.add(&sound.map(|entry| (entry.id, entry.key)).collect::<Vec<_>>());
        buckets.push(writer.write(bucket, &index, &values)?);
    }
    let mut manifest = writer.finish(&mapping.schema, buckets, 0)?;
    manifest.unanswered = last.and_then(|state| state.manifest().unanswered);
    manifest.streams = last.map(|state| state.manifest().streams.clone()).unwrap_or_default();
    manifest.witnesses = Some(witness::take_adopted(scope, mapping, &taken).await?);
    Ok(Adopted { rows: manifest.rows() - ambiguous, manifest, ambiguous, lost })
}

/// Rows that the load deleted last: back because the environment was restored, they are its rows still.
fn removed_before(scope: &Scope<'_>, last: Option<&State>) -> HashSet<String> {
    let witnesses = last.and_then(|state| state.manifest().witnesses.as_ref());
    let is_ours = |witnesses: &&Witnesses| witnesses.table == scope.load.table;
    witnesses.filter(is_ours).iter().flat_map(|witnesses| &witnesses.removed).map(Uuid::to_string).collect()
}

/// Sorted keys of the last state, and the number of its rows whose keys are damaged: adopting is how damage is mended,
/// so it must not need what it replaces.
fn known_keys(mapping: &Mapping, last: Option<&State>) -> Result<(Vec<KeyHash>, u64), RunError> {
    let Some(last) = last else { return Ok((Vec::new(), 0)) };
    Ok(last.keys_despite_damage(&Arc::new(mapping.schema.project(&mapping.match_positions)?))?)
}

/// Sorted keys that may become state.
fn wanted_keys(prepared: &Prepared, known: &[KeyHash]) -> Result<Vec<KeyHash>, RunError> {
    let mut keys = known.to_vec();
    for bucket in 0..prepared.arrivals.buckets() {
        keys.extend(prepared.arrivals.digests(bucket)?.iter().map(|digest| digest.key));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

fn selection(prepared: &Prepared, has_state: bool) -> Result<Selection, RunError> {
    let rows = prepared.arrivals.rows();
    if rows == 0 || rows > KEYS_ASKED_MAX || has_state {
        return Ok(Selection::All);
    }
    let all = prepared.arrivals.keep(&RowSet::all(prepared.arrivals.rows() as usize))?.finish()?;
    let rows = all.buckets(0..prepared.arrivals.buckets())?.rows;
    Ok(Selection::Keys(rows.project(&prepared.mapping.match_positions)?))
}

fn with_id(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ID_COLUMN, DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}

/// The columns by which a row is compared with a prepared one.
pub(crate) fn wanted_columns(mapping: &Mapping) -> Vec<String> {
    let mut columns = mapping.stored_columns();
    if mapping.state_position().is_some() {
        columns.push(STATE_COLUMN.to_owned());
    }
    columns
}

/// Rows of the destination, as prepared ones would be.
pub(crate) struct CurrentRows<'a> {
    mapping: &'a Mapping,
    /// Status codes that the state rule could ask for: any other one stands for "nothing asked".
    states: Vec<i32>,
    /// Rows that are the load's whatever their keys.
    removed: HashSet<String>,
}

impl<'a> CurrentRows<'a> {
    pub(crate) fn of(scope: &Scope<'_>, mapping: &'a Mapping) -> Result<Self, RunError> {
        let states =
            state_codes(scope.load.state.as_ref(), &mapping.shape)?.into_iter().map(|(_, code)| code).collect();
        Ok(Self { mapping, states, removed: HashSet::new() })
    }

    /// The canonical columns of a page.
    pub(crate) fn canonical(&self, page: &RecordBatch) -> Result<RecordBatch, RunError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.mapping.columns.len());
        for mapped in &self.mapping.columns {
            columns.push(if mapped.name == STATE_COLUMN {
                asked_states(&column_of(page, STATE_COLUMN)?, &self.states)
            } else {
                column_of(page, &mapped.name)?
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.mapping.schema), columns)?)
    }
}

fn column_of(page: &RecordBatch, name: &str) -> Result<ArrayRef, RunError> {
    page.column_by_name(name).map(Arc::clone).ok_or(RunError::Defect("a page of current rows without a column"))
}

fn take_page(
    spill: &mut SpillWriter,
    current: &CurrentRows<'_>,
    schema: &SchemaRef,
    wanted: &[KeyHash],
    page: &RecordBatch,
) -> Result<u64, RunError> {
    let canonical = current.canonical(page)?;
    let keys = key_hashes(&canonical.project(&current.mapping.match_positions)?)?;
    let hashes = row_hashes(&canonical, current.mapping.rules_seed())?;
    let mut columns = canonical.columns().to_vec();
    columns.push(column_of(page, ID_COLUMN)?);
    let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
    let ids = rows.column_by_name(ID_COLUMN).and_then(|ids| ids.as_string_opt::<i32>());
    let is_back = |row: usize| ids.is_some_and(|ids| current.removed.contains(ids.value(row)));
    let is_wanted =
        |row: usize, key: KeyHash| wanted.binary_search(&key).is_ok() || (!current.removed.is_empty() && is_back(row));
    let is_kept: Vec<bool> =
        keys.iter().enumerate().map(|(row, key)| key.is_some_and(|key| is_wanted(row, key))).collect();
    let kept = keys.iter().zip(&hashes).zip(&is_kept).filter(|(_, is_kept)| **is_kept);
    let kept: Vec<(KeyHash, u64)> = kept.filter_map(|((key, hash), _)| Some(((*key)?, *hash))).collect();
    let mask = BooleanArray::from(is_kept);
    let (keys, hashes): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
    spill.push(&filter_record_batch(&rows, &mask)?, &keys, &hashes)?;
    Ok(keys.len() as u64)
}

fn asked_states(statuses: &ArrayRef, states: &[i32]) -> ArrayRef {
    let statuses = statuses.as_any().downcast_ref::<Int32Array>();
    let asked = statuses.into_iter().flatten().map(|status| status.filter(|status| states.contains(status)));
    Arc::new(asked.collect::<Int32Array>())
}

/// Index and values of one bucket, and how many keys more than one row has of which none is known to be ours.
/// `known`: the ids that the last state has, as far as it can be read.
fn state_rows(
    mapping: &Mapping,
    sorted: &SortedRows,
    known: impl FnOnce() -> Index,
) -> Result<(Index, RecordBatch, u64), RunError> {
    let ids: Vec<Uuid> = if sorted.is_empty() { Vec::new() } else { row_ids(&sorted.rows)? };
    let known = LazyCell::new(known);
    let known_id = |key: KeyHash| Some(known.entry(known.find(key)?)).filter(|entry| !entry.is_ambiguous());
    let mut index = Index::default();
    let mut taken = vec![false; sorted.len()];
    let mut ambiguous = 0;
    for group in groups(&sorted.keys) {
        let key = sorted.keys[group.start];
        let ours = match group.len() {
            1 => Some(group.start),
            _ => known_id(key).and_then(|known| group.clone().find(|at| ids[*at] == known.id)),
        };
        let at = ours.unwrap_or(group.start);
        taken[at] = true;
        index.push(match ours {
            Some(at) => Entry { key, row_hash: sorted.row_hashes[at], id: ids[at], sequence: 0, flags: 0 },
            None => Entry { key, row_hash: 0, id: Uuid::nil(), sequence: 0, flags: TOMBSTONE | AMBIGUOUS },
        });
        ambiguous += u64::from(ours.is_none());
    }
    let canonical: Vec<usize> = (0..mapping.columns.len()).collect();
    let values = filter_record_batch(&sorted.rows.project(&canonical)?, &BooleanArray::from(taken))?;
    Ok((index, values, ambiguous))
}
