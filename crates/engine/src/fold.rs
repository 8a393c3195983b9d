//! The next state of one bucket: what is known to be at the destination after sending.
//!
//! A row advances only by its own acknowledgement. Rows that were refused keep what the state knew
//! of them; rows left in place although they are gone become tombstones.

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_select::interleave::interleave;
use flowgate_sorted::{BucketMeta, DEACTIVATED, Entry, Index, StateWriter, TOMBSTONE, UNCERTAIN};
use uuid::Uuid;

use crate::RunError;
use crate::diff::{Action, BucketDiff, Rules};
use crate::load::{End, Ends, GoneEnd};
use crate::mapping::Mapping;

/// Where the values of one entry of the next state come from.
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

/// Writes the bucket's next state. `None`: it holds no rows.
pub(crate) fn fold(
    mapping: &Mapping,
    known_columns: &[String],
    writer: &StateWriter,
    bucket: usize,
    diff: &BucketDiff,
    ends: &Ends,
    sequence: u64,
) -> Result<Option<BucketMeta>, RunError> {
    let (index, sources) = entries(diff, ends, sequence);
    let values = values(mapping, known_columns, diff, &sources)?;
    Ok(writer.write(bucket, &index, &values)?)
}

/// Whether sending changed nothing that the bucket's files say.
pub(crate) fn is_unchanged(diff: &BucketDiff) -> bool {
    diff.gone.is_empty()
        && diff.decided.iter().all(|row| match (&row.action, row.old) {
            (Action::Unchanged { is_hash_current: true }, Some(old)) => diff.old.index.flags[old] == 0,
            (Action::Held, _) => true,
            _ => false,
        })
}

fn entries(diff: &BucketDiff, ends: &Ends, sequence: u64) -> (Index, Vec<From>) {
    let old = &diff.old.index;
    let mut entries: Vec<(Entry, From)> = Vec::with_capacity(diff.decided.len() + diff.gone.len());
    let mut replaced = vec![false; old.len()];
    for (row, end) in diff.decided.iter().zip(&ends.rows) {
        if let Some(at) = row.old {
            replaced[at] = true;
        }
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
            (End::Refused { written: None } | End::Waiting, Some(at)) => entries.push((old.entry(at), From::Old(at))),
            (End::Refused { written: None } | End::Waiting | End::Unchanged, None) => {}
        }
    }
    for (at, end) in diff.gone.iter().zip(&ends.gone) {
        replaced[*at] = true;
        let flags = match end {
            GoneEnd::Deleted => continue,
            GoneEnd::Kept => TOMBSTONE,
            GoneEnd::Deactivated => TOMBSTONE | DEACTIVATED,
            GoneEnd::Refused | GoneEnd::Waiting => 0,
        };
        entries.push((Entry { flags: old.flags[*at] | flags, ..old.entry(*at) }, From::Old(*at)));
    }
    let untouched = (0..old.len()).filter(|at| !replaced[*at]).map(|at| (old.entry(at), From::Old(at)));
    entries.extend(untouched);
    entries.extend(
        diff.stray
            .iter()
            .map(|(key, id)| (Entry { key: *key, row_hash: 0, id: *id, sequence, flags: UNCERTAIN }, From::Nothing)),
    );
    entries.sort_unstable_by_key(|(entry, _)| entry.key);
    let mut index = Index::default();
    let mut sources = Vec::with_capacity(entries.len());
    for (entry, from) in entries {
        index.push(entry);
        sources.push(from);
    }
    (index, sources)
}

/// The value columns of the entries, each value from the side that counts.
fn values(
    mapping: &Mapping,
    known_columns: &[String],
    diff: &BucketDiff,
    sources: &[From],
) -> Result<RecordBatch, RunError> {
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
