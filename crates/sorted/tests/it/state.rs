//! A state comes back as it was written, however it is cut, or says which file is damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use flowgate_core::{Code, KeyHash};
use flowgate_sorted::{
    Digest, Entry, Index, Manifest, RowChanges, SortedError, State, StateWriter, TOMBSTONE, UNCERTAIN, sweep,
};
use fs_err as fs;
use proptest::prelude::*;
use uuid::Uuid;

use crate::{key, rows};

/// A state as a map from key to number, from which all else follows.
pub(crate) type Model = BTreeMap<KeyHash, u64>;

pub(crate) fn model(numbers: impl IntoIterator<Item = u64>) -> Model {
    numbers.into_iter().map(|number| (key(number), number)).collect()
}

fn entry(key: KeyHash, number: u64) -> Entry {
    Entry {
        key,
        row_hash: number * 7,
        id: Uuid::from_u128(number.into()),
        sequence: number + 1,
        flags: (number % 4) as u8,
    }
}

pub(crate) fn write(dir: &Path, version: u64, bits: u8, model: &Model) -> Manifest {
    let writer = StateWriter::create(dir, version, bits).unwrap();
    let mut buckets = Vec::new();
    for bucket in 0..1 << bits {
        let here: Vec<_> = model.iter().filter(|(key, _)| key.bucket(bits) == bucket).collect();
        let index: Index = here.iter().map(|(key, number)| entry(**key, **number)).collect();
        let numbers: Vec<u64> = here.iter().map(|(_, number)| **number).collect();
        buckets.push(writer.write(bucket, &index, &rows(&numbers)).unwrap());
    }
    writer.finish(rows(&[]).schema_ref(), buckets, 9).unwrap()
}

fn small(dir: &Path) -> (State, Model) {
    let model = model(0..12);
    (State::open(dir, write(dir, 1, 1, &model)), model)
}

#[test]
fn a_load_that_never_ran_has_an_empty_state() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), Manifest::empty());
    let bucket = state.bucket(3, 5).unwrap();
    assert!(bucket.index.is_empty());
    assert_eq!(bucket.values(&rows(&[]).schema()).unwrap(), rows(&[]));
}

#[test]
fn a_bucket_knows_when_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    // Living rows and a tombstone, none of them uncertain.
    let state = State::open(dir.path(), write(dir.path(), 1, 0, &model([4, 5, 8, 12, 16])));
    let meta = state.meta(0, 0).unwrap();
    let living = model([4, 8, 12, 16]);
    let mut digests: Vec<Digest> =
        living.iter().enumerate().map(|(at, (key, number))| Digest::new(*key, number * 7, at as u64, false)).collect();
    assert!(meta.holds_exactly(&digests, 0));
    assert!(!meta.holds_exactly(&digests[1..], 0));
    assert!(meta.holds_exactly(&[], 4), "all settled when they arrived");
    assert!(!meta.holds_exactly(&[], 3));
    assert!(!meta.holds_exactly(&digests[3..], 3), "one that waited must be looked at");
    let faulty = Digest::new(digests[0].key, digests[0].row_hash, 0, true);
    assert!(!meta.holds_exactly(&[&[faulty], &digests[1..]].concat(), 0), "a faulty row is not the one in state");
    let hash = digests[0].row_hash;
    digests[0].row_hash = digests[1].row_hash;
    digests[1].row_hash = hash;
    assert!(!meta.holds_exactly(&digests, 0), "values moved between keys");
    assert_eq!(state.meta(1, 0), None, "no short cut when the bits change");

    let uncertain = write(dir.path(), 2, 0, &model([4, 6]));
    let digests = [4, 6].map(|number| Digest::new(key(number), number * 7, number, false));
    assert!(!uncertain.buckets[0].as_ref().unwrap().holds_exactly(&digests, 0));
}

#[test]
fn flags_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = small(dir.path());
    let manifest = state.manifest();
    let uncertain: u64 = manifest.buckets.iter().flatten().map(|bucket| bucket.totals.uncertain).sum();
    assert_eq!((manifest.rows(), manifest.tombstones(), uncertain), (12, 6, 6));
    let index = state.bucket(0, 0).unwrap().index;
    let row = index.find(key(3)).unwrap();
    assert_eq!(index.entry(row).flags, TOMBSTONE | UNCERTAIN);
    assert_eq!(index.find(key(99)), None);
}

#[test]
fn a_column_that_was_not_stored_comes_as_nulls() {
    let dir = tempfile::tempdir().unwrap();
    let (state, model) = small(dir.path());
    let schema = Arc::new(Schema::new(vec![
        Field::new("added", DataType::Int32, true),
        Field::new("number", DataType::Int64, true),
        Field::new("amount", DataType::Decimal128(38, 4), true),
    ]));
    let values = state.bucket(0, 0).unwrap().values(&schema).unwrap();
    assert_eq!(values.schema(), schema);
    assert_eq!((values.column(0).null_count(), values.column(2).null_count()), (model.len(), model.len()));
    let numbers: Vec<u64> = model.values().copied().collect();
    assert_eq!(values.column(1), rows(&numbers).column(0));
    assert!(!state.manifest().has_columns(&schema));
    assert!(state.manifest().has_columns(rows(&[]).schema_ref()));
}

#[test]
fn a_new_version_takes_over_what_stayed_and_the_rest_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = small(dir.path());
    let old = state.manifest();
    let writer = StateWriter::create(dir.path(), 2, 1).unwrap();
    let numbers: Vec<u64> =
        model(0..20).iter().filter(|(key, _)| key.bucket(1) == 1).map(|(_, number)| *number).collect();
    let index: Index = numbers.iter().map(|number| entry(key(*number), *number)).collect();
    let changed = writer.write(1, &index, &rows(&numbers)).unwrap();
    let new = writer.finish(rows(&[]).schema_ref(), vec![old.buckets[0].clone(), changed], 20).unwrap();
    assert_eq!(new.version, 2);

    fs::write(dir.path().join("0000000003-01-00000.index.temp"), "left by a killed run").unwrap();
    assert_eq!(sweep(dir.path(), &new).unwrap(), 3);
    let new = State::open(dir.path(), Manifest::from_json(dir.path(), &new.to_json().unwrap()).unwrap());
    assert_eq!(new.bucket(1, 0).unwrap().index, State::open(dir.path(), old.clone()).bucket(1, 0).unwrap().index);
    assert_eq!(new.bucket(1, 1).unwrap().values(&rows(&[]).schema()).unwrap(), rows(&numbers));
    assert!(state.bucket(1, 1).is_err(), "the old version is gone");
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = small(dir.path());
    let path = dir.path().join("0000000001-01-00000.index");
    fs::remove_file(&path).unwrap();
    let error = state.bucket(1, 0).unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` is damaged: it is not there", path.display()));
}

#[test]
fn every_altered_byte_is_detected_and_its_file_named() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = small(dir.path());
    for suffix in ["index", "values"] {
        let path = dir.path().join(format!("0000000001-01-00000.{suffix}"));
        let bytes = fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            fs::write(&path, damaged).unwrap();
            let error = state.bucket(1, 0).and_then(|bucket| bucket.values(&rows(&[]).schema())).unwrap_err();
            assert_eq!(error.code(), Code::STATE_DAMAGED);
            assert!(error.to_string().contains(&*path.to_string_lossy()), "byte {position}: {error}");
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_bucket_that_is_not_in_order_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let writer = StateWriter::create(dir.path(), 1, 1).unwrap();
    let refused = |keys: &[u128], values: usize| {
        let index: Index = keys.iter().map(|key| entry(KeyHash(*key), 0)).collect();
        matches!(writer.write(0, &index, &rows(&vec![0; values])), Err(SortedError::Misused(_)))
    };
    assert!(refused(&[2, 1], 2));
    assert!(refused(&[1, 1], 2));
    assert!(refused(&[1, 2], 1));
    assert!(refused(&[1, u128::MAX], 2));
    assert!(!refused(&[1, 2], 2));
}

fn model_key(model: &Model, bits: u8, bucket: usize, row: usize) -> KeyHash {
    expected(model, bits, bucket).0.keys[row]
}

/// What the model says a bucket's rows are.
fn expected(model: &Model, bits: u8, bucket: usize) -> (Index, Vec<u64>) {
    let here = || model.iter().filter(|(key, _)| key.bucket(bits) == bucket);
    (here().map(|(key, number)| entry(*key, *number)).collect(), here().map(|(_, number)| *number).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is changed, run after run, in layers or whole, the state is what a map would be.
    #[test]
    fn changes_add_up(
        runs in prop::collection::vec((prop::collection::btree_map(0_u64..80, any::<bool>(), 0..40), 0_u8..3), 1..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let schema = rows(&[]).schema();
        let mut model = Model::new();
        let mut state = State::open(dir.path(), Manifest::empty());
        for (round, (touched, bits)) in runs.into_iter().enumerate() {
            let round = round as u64;
            let mut changes: BTreeMap<KeyHash, Option<u64>> = BTreeMap::new();
            for (number, is_there) in touched {
                changes.insert(key(number), is_there.then_some(number + 100 * round));
            }
            let writer = StateWriter::create(dir.path(), round + 1, bits).unwrap();
            let mut buckets = Vec::new();
            for bucket in 0..1 << bits {
                let before = state.bucket(bits, bucket).unwrap().index;
                let here: Vec<_> = changes.iter().filter(|(key, _)| key.bucket(bits) == bucket).collect();
                let change = |(key, number): &(&KeyHash, &Option<u64>)| match **number {
                    Some(number) => entry(**key, number),
                    None => RowChanges::remove(entry(**key, 0)),
                };
                let index: Index = here.iter().map(change).collect();
                let numbers: Vec<u64> = here.iter().map(|(_, number)| number.unwrap_or_default()).collect();
                let changed = RowChanges { index, values: rows(&numbers) };
                buckets.push(writer.change(&state, bucket, &before, &changed).unwrap());
            }
            let manifest = writer.finish(&schema, buckets, round).unwrap();
            sweep(dir.path(), &manifest).unwrap();
            state = State::open(dir.path(), manifest);
            for (key, number) in changes {
                match number {
                    Some(number) => model.insert(key, number),
                    None => model.remove(&key),
                };
            }
            for asked in [0, bits, 2] {
                for bucket in 0..1 << asked {
                    let found = state.bucket(asked, bucket).unwrap();
                    let (index, numbers) = expected(&model, asked, bucket);
                    prop_assert_eq!(&found.index, &index);
                    prop_assert_eq!(found.values(&schema).unwrap(), rows(&numbers));
                    let heads = state.heads(asked, bucket).unwrap();
                    prop_assert_eq!((heads.keys, heads.row_hashes), (index.keys, index.row_hashes));
                    if let Some(meta) = state.meta(asked, bucket) {
                        prop_assert_eq!(meta.totals.rows as usize, index.flags.len());
                        let tombstones = index.flags.iter().filter(|flags| **flags & TOMBSTONE != 0).count();
                        prop_assert_eq!(meta.totals.tombstones as usize, tombstones);
                        let living = (0..index.flags.len()).map(|row| entry(model_key(&model, asked, bucket, row), numbers[row]));
                        let digests: Vec<Digest> = living
                            .filter(|entry| !entry.is_tombstone())
                            .map(|entry| Digest::new(entry.key, entry.row_hash, 0, false))
                            .collect();
                        prop_assert_eq!(meta.holds_exactly(&digests, 0), meta.totals.uncertain == 0);
                    }
                }
            }
        }
    }

    #[test]
    fn a_state_is_the_same_however_it_is_cut(
        numbers in prop::collection::btree_set(0_u64..500, 0..120),
        stored in 0_u8..4,
        asked in 0_u8..6,
        wanted in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let model = model(numbers);
        let state = State::open(dir.path(), write(dir.path(), 1, stored, &model));
        let schema = rows(&[]).schema();
        for bucket in 0..1 << asked {
            let found = state.bucket(asked, bucket).unwrap();
            let (index, numbers) = expected(&model, asked, bucket);
            prop_assert_eq!(&found.index, &index);
            prop_assert_eq!(found.values(&schema).unwrap(), rows(&numbers));

            let some: Vec<usize> = (0..index.len()).filter(|row| wanted >> (row % 64) & 1 == 1).collect();
            let numbers: Vec<u64> = some.iter().map(|row| numbers[*row]).collect();
            let values: RecordBatch = found.values_of(&schema, &some).unwrap();
            prop_assert_eq!(values, rows(&numbers));
        }
    }
}
