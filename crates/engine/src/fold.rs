//! The next state of a part's buckets: what is known to be at the destination after sending.
//!
//! A row advances only by its own acknowledgement. Rows that were refused keep what the state knew
//! of them; rows left in place although they are gone become tombstones.

use std::ops::Range;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_select::interleave::interleave;
use flowgate_core::KeyHash;
use flowgate_sorted::{BucketMeta, DEACTIVATED, Entry, Index, RowChanges, State, StateWriter, TOMBSTONE, UNCERTAIN};
use uuid::Uuid;

use crate::RunError;
use crate::diff::{Diff, Rules};
use crate::mapping::Mapping;
use crate::under_way::{End, Ends, GoneEnd};

/// Where the values of one changed entry come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The prepared row, over the old one under the column rules.
    New {
        new: usize,
        old: Option<usize>,
        with_state: bool,
    },
    Old(usize),
    /// Nothing is known but that the row is there.
    Nothing,
}

/// Writes the next state of the diff's buckets, in their order. `None`: a bucket holds no rows.
pub(crate) fn fold(
    mapping: &Mapping,
    known_columns: &[String],
    (last, writer, bits): (&State, &StateWriter, u8),
    diff: &Diff,
    ends: &Ends,
    sequence: u64,
) -> Result<Vec<Option<BucketMeta>>, RunError> {
    let (index, sources) = entries(diff, ends, sequence);
    let values = values(mapping, known_columns, diff, &sources)?;
    let changes = RowChanges { index, values };
    let mut metas = Vec::with_capacity(diff.buckets.len());
    for bucket in diff.buckets.clone() {
        let here = changes.slice(rows_of(&changes.index.keys, bits, bucket));
        metas.push(writer.change(last, bucket, &diff.old.index, &here)?);
    }
    Ok(metas)
}

fn rows_of(keys: &[KeyHash], bits: u8, bucket: usize) -> Range<usize> {
    keys.partition_point(|key| key.bucket(bits) < bucket)..keys.partition_point(|key| key.bucket(bits) <= bucket)
}

/// The entries that become other ones, by key.
fn entries(diff: &Diff, ends: &Ends, sequence: u64) -> (Index, Vec<From>) {
    let old = &diff.old.index;
    let mut entries: Vec<(Entry, From)> = Vec::with_capacity(diff.decided.len() + diff.gone.len());
    for (row, end) in diff.decided.iter().zip(&ends.rows) {
        let new_entry =
            |id: Uuid, row_hash: u64| Entry { key: diff.new.keys[row.at], row_hash, id, sequence, flags: 0 };
        let row_hash = diff.new.row_hashes[row.at];
        match (*end, row.old) {
            (End::Written { id, .. }, at) => {
                entries.push((new_entry(id, row_hash), From::New { new: row.at, old: at, with_state: true }));
            }
            // The content arrived, the status did not: the next run compares again.
            (End::Refused { written: Some(id) }, at) => {
                entries.push((new_entry(id, !row_hash), From::New { new: row.at, old: at, with_state: false }));
            }
            (End::Unchanged, Some(at)) => {
                let entry = Entry { row_hash, flags: old.flags[at] & !(TOMBSTONE | UNCERTAIN), ..old.entry(at) };
                entries.push((entry, From::Old(at)));
            }
            (End::Refused { written: None } | End::Waiting, _) | (End::Unchanged, None) => {}
        }
    }
    for (gone, end) in diff.gone.iter().zip(&ends.gone) {
        let at = gone.at;
        let entry = old.entry(at);
        let flags = match end {
            GoneEnd::Deleted => {
                entries.push((RowChanges::remove(entry), From::Nothing));
                continue;
            }
            GoneEnd::Kept => TOMBSTONE,
            GoneEnd::Deactivated => TOMBSTONE | DEACTIVATED,
            GoneEnd::Refused | GoneEnd::Waiting => 0,
        };
        let uncertain = if gone.is_rewritten { UNCERTAIN } else { 0 };
        entries.push((Entry { flags: entry.flags | flags | uncertain, ..entry }, From::Old(at)));
    }
    entries.retain(|(entry, from)| !matches!(from, From::Old(at) if *entry == old.entry(*at)));
    entries.extend(
        diff.stray
            .iter()
            .map(|(key, id)| (Entry { key: *key, row_hash: 0, id: *id, sequence, flags: UNCERTAIN }, From::Nothing)),
    );
    entries.sort_unstable_by_key(|(entry, _)| entry.key);
    let index = entries.iter().map(|(entry, _)| *entry).collect();
    (index, entries.into_iter().map(|(_, from)| from).collect())
}

/// The value columns of the entries, each value from the side that counts.
fn values(mapping: &Mapping, known_columns: &[String], diff: &Diff, sources: &[From]) -> Result<RecordBatch, RunError> {
    let needs_old = sources.iter().any(|from| matches!(from, From::Old(_) | From::New { old: Some(_), .. }));
    let read;
    let old_values = match (&diff.old_values, needs_old) {
        (Some(values), _) => Some(values),
        (None, true) => {
            read = diff.old.values(&mapping.schema)?;
            Some(&read)
        }
        (None, false) => None,
    };
    let rules = Rules::new(mapping, known_columns, &diff.new.rows, old_values)?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(mapping.columns.len());
    for (column, field) in mapping.schema.fields().iter().enumerate() {
        let nothing = new_null_array(field.data_type(), 1);
        let old = old_values.map_or(&nothing, |values| values.column(column));
        let sides = [diff.new.rows.column(column).as_ref(), old.as_ref(), nothing.as_ref()];
        let is_state = Some(column) == mapping.state_position();
        let side = |from: &From| match *from {
            From::Nothing => (2, 0),
            From::Old(at) => (1, at),
            From::New { old: Some(at), with_state: false, .. } if is_state => (1, at),
            From::New { old: None, with_state: false, .. } if is_state => (2, 0),
            From::New { new, old: Some(at), .. } if !is_state && !rules.takes_new(column, new, at) => (1, at),
            From::New { new, .. } => (0, new),
        };
        let places: Vec<(usize, usize)> = sources.iter().map(side).collect();
        columns.push(interleave(&sides, &places)?);
    }
    Ok(RecordBatch::try_new(mapping.schema.clone(), columns)?)
}
