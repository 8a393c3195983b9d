//! Spilled rows come back sorted, each once, from memory and from files alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use flowgate_core::{Code, KeyHash};
use flowgate_sorted::{SortedError, Spill, SpillWriter, Step, groups, merge};
use fs_err as fs;
use proptest::prelude::*;

use crate::{key, rows};

/// Spills one row for each number, in chunks, keyed by the number.
fn spill(dir: &std::path::Path, chunks: &[Vec<u64>], bits: u8, buffer_bytes_max: usize) -> Spill {
    let mut writer =
        SpillWriter::create(dir, rows(&[]).schema(), bits).unwrap().with_buffer_bytes_max(buffer_bytes_max);
    for numbers in chunks {
        let keys: Vec<KeyHash> = numbers.iter().map(|number| key(*number)).collect();
        let hashes: Vec<u64> = numbers.iter().map(|number| number * 7).collect();
        writer.push(&rows(numbers), &keys, &hashes).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_few_rows_need_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let spill = spill(dir.path(), &[vec![3, 1], vec![2]], 8, 1 << 20);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!((spill.rows(), spill.file_bytes().unwrap()), (3, 0));
    let found: usize = (0..256).map(|bucket| spill.bucket(bucket).unwrap().len()).sum();
    assert_eq!(found, 3);
}

#[test]
fn files_go_with_the_spill_and_old_ones_go_first() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00007.spill"), "left by a killed run").unwrap();
    let spill = spill(dir.path(), &[(0..100).collect()], 1, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert!(spill.file_bytes().unwrap() > 0);
    drop(spill);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn rows_without_columns_are_only_keys() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
    for buffer_bytes_max in [0, 1 << 20] {
        let writer = SpillWriter::create(dir.path(), Arc::clone(&schema), 0).unwrap();
        let mut writer = writer.with_buffer_bytes_max(buffer_bytes_max);
        writer.push(&batch, &[key(9), key(4)], &[1, 2]).unwrap();
        let mut expected = vec![key(9), key(4)];
        expected.sort();
        let sorted = writer.finish().unwrap().bucket(0).unwrap();
        assert_eq!((sorted.keys, sorted.rows.num_rows()), (expected, 2));
    }
}

#[test]
fn every_altered_byte_of_a_file_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let spill = spill(dir.path(), &[(0..4).collect()], 0, 0);
    let path = dir.path().join("00000.spill");
    let bytes = fs::read(&path).unwrap();
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let error = spill.bucket(0).unwrap_err();
        assert!(error.to_string().contains("00000.spill"), "byte {position}: {error}");
    }
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert_eq!(spill.bucket(0).unwrap_err().code(), Code::STATE_DAMAGED, "cut at {cut}");
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SpillWriter::create(dir.path(), rows(&[]).schema(), 0).unwrap();
    assert!(matches!(writer.push(&rows(&[1]), &[], &[1]), Err(SortedError::Misused(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn buckets_are_the_rows_in_order(
        chunks in prop::collection::vec(prop::collection::vec(0_u64..50, 0..30), 0..6),
        bits in 0_u8..4,
        buffer_bytes_max in prop::sample::select(vec![0, 3_000, 1 << 20]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spill = spill(dir.path(), &chunks, bits, buffer_bytes_max);
        let mut expected: Vec<(KeyHash, u64, u64)> = Vec::new();
        for (ordinal, number) in chunks.iter().flatten().enumerate() {
            expected.push((key(*number), ordinal as u64, *number));
        }
        expected.sort_unstable();

        let mut found = Vec::new();
        for bucket in 0..1 << bits {
            let sorted = spill.bucket(bucket).unwrap();
            prop_assert_eq!(sorted.len() as u64, spill.bucket_rows(bucket));
            let numbers: Vec<u64> = sorted.row_hashes.iter().map(|hash| hash / 7).collect();
            prop_assert_eq!(&sorted.rows, &rows(&numbers));
            for (row, number) in numbers.into_iter().enumerate() {
                prop_assert_eq!(sorted.keys[row].bucket(bits), bucket);
                found.push((sorted.keys[row], sorted.ordinals[row], number));
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_merge_is_what_maps_would_say(new in prop::collection::btree_set(0_u64..60, 0..40), old in prop::collection::btree_set(0_u64..60, 0..40)) {
        let sorted = |numbers: &BTreeSet<u64>| {
            numbers.iter().map(|number| (key(*number), *number)).collect::<BTreeMap<KeyHash, u64>>()
        };
        let (new_map, old_map) = (sorted(&new), sorted(&old));
        let (new_keys, old_keys): (Vec<_>, Vec<_>) = (new_map.keys().copied().collect(), old_map.keys().copied().collect());
        let (mut only_new, mut gone, mut both) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for step in merge(&new_keys, &old_keys) {
            let is_first = match step {
                Step::New(row) => only_new.insert(new_map[&new_keys[row]]),
                Step::Gone(row) => gone.insert(old_map[&old_keys[row]]),
                Step::Both { new, old } => {
                    prop_assert_eq!(new_keys[new], old_keys[old]);
                    both.insert(new_map[&new_keys[new]])
                }
            };
            prop_assert!(is_first);
        }
        prop_assert_eq!(only_new, new.difference(&old).copied().collect());
        prop_assert_eq!(gone, old.difference(&new).copied().collect());
        prop_assert_eq!(both, new.intersection(&old).copied().collect());
    }

    #[test]
    fn groups_cover_all_keys(mut numbers in prop::collection::vec(0_u64..10, 0..40)) {
        numbers.sort_unstable();
        let keys: Vec<KeyHash> = numbers.iter().map(|number| KeyHash(u128::from(*number))).collect();
        let ranges: Vec<_> = groups(&keys).collect();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        prop_assert_eq!(ranges.len(), distinct.len());
        let mut next = 0;
        for range in ranges {
            prop_assert_eq!(range.start, next);
            prop_assert!(keys[range.clone()].iter().all(|key| *key == keys[range.start]));
            next = range.end;
        }
        prop_assert_eq!(next, keys.len());
    }
}
