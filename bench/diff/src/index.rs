//! Two states of the same load, index against index.

use arrow_array::{Int64Array, RecordBatch};
use flowgate_core::KeyHash;
use flowgate_sorted::{Entry, Index, Manifest, State, StateWriter, Step, bits_for, merge};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Options, cpu_seconds};

#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    rows: u64,
    changed: u64,
    only_one_side: u64,
    cpu_seconds: f64,
    rows_per_cpu_second: f64,
}

/// Walks the two states; the best of five passes counts, because the first ones fill the page cache.
pub(crate) fn run(options: &Options) -> Result<Figures, Error> {
    let dir = options.dir.join("state");
    let states = [(1, 0), (2, 100)].map(|(version, changed_in)| -> Result<State, Error> {
        Ok(State::open(&dir, write(&dir, version, options.rows, changed_in)?))
    });
    let [old, new] = states;
    let (old, new) = (old?, new?);
    let mut best: Option<Figures> = None;
    for _ in 0..5 {
        let figures = compare(&old, &new, options.rows)?;
        if best.as_ref().is_none_or(|best| figures.cpu_seconds < best.cpu_seconds) {
            best = Some(figures);
        }
    }
    best.ok_or(Error::Thread)
}

fn compare(old: &State, new: &State, rows: u64) -> Result<Figures, Error> {
    let begun = cpu_seconds();
    let bits = old.manifest().bits;
    let (mut changed, mut only_one_side) = (0, 0);
    for bucket in 0..1 << bits {
        let (old, new) = (old.heads(bits, bucket)?, new.heads(bits, bucket)?);
        for step in merge(&new.keys, &old.keys) {
            match step {
                Step::Both { new: at, old: before } => {
                    changed += u64::from(new.row_hashes[at] != old.row_hashes[before]);
                }
                Step::New(_) | Step::Gone(_) => only_one_side += 1,
            }
        }
    }
    let cpu_seconds = cpu_seconds() - begun;
    Ok(Figures { rows, changed, only_one_side, cpu_seconds, rows_per_cpu_second: rows as f64 / cpu_seconds })
}

/// A state of `rows` rows whose values are one number; every `changed_in`-th has another hash.
fn write(dir: &std::path::Path, version: u64, rows: u64, changed_in: u64) -> Result<Manifest, Error> {
    let bits = bits_for(rows);
    let mut keys: Vec<(KeyHash, u64)> =
        (0..rows).map(|row| (KeyHash(xxhash_rust::xxh3::xxh3_128(&row.to_le_bytes())), row)).collect();
    keys.sort_unstable();
    let writer = StateWriter::create(dir, version, bits)?;
    let mut metas = Vec::new();
    for bucket in 0..1 << bits {
        let start = keys.partition_point(|(key, _)| key.bucket(bits) < bucket);
        let end = keys.partition_point(|(key, _)| key.bucket(bits) <= bucket);
        let here = &keys[start..end];
        let row_hash = |row: u64| row ^ u64::from(changed_in > 0 && row.is_multiple_of(changed_in));
        let entry = |(key, row): &(KeyHash, u64)| Entry {
            key: *key,
            row_hash: row_hash(*row),
            id: Uuid::from_u128(key.0),
            sequence: 1,
            flags: 0,
        };
        let index: Index = here.iter().map(entry).collect();
        metas.push(writer.write(bucket, &index, &numbers(here.iter().map(|(_, row)| *row as i64))?)?);
    }
    Ok(writer.finish(numbers(std::iter::empty())?.schema_ref(), metas, 1)?)
}

fn numbers(rows: impl Iterator<Item = i64>) -> Result<RecordBatch, Error> {
    let column = std::sync::Arc::new(Int64Array::from_iter_values(rows));
    Ok(RecordBatch::try_from_iter([("number", column as arrow_array::ArrayRef)])?)
}
