//! What arrives comes back: digests by key, and the rows that are wanted, from memory and files alike.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::BooleanArray;
use flowgate_core::{Code, KeyHash};
use flowgate_sorted::{Arrivals, ArrivalsWriter, Digest, Known, RowSet, SortedError};
use fs_err as fs;
use proptest::prelude::*;

use crate::{key, rows};

fn arrive(dir: &Path, chunks: &[Vec<u64>], bits: u8, buffer_bytes_max: usize) -> Arrivals {
    arrive_known(dir, chunks, bits, buffer_bytes_max, Known::nothing())
}

/// One row for each number, in chunks, keyed by the number; multiples of 5 are faulty.
pub(crate) fn arrive_known(
    dir: &Path,
    chunks: &[Vec<u64>],
    bits: u8,
    buffer_bytes_max: usize,
    known: Known,
) -> Arrivals {
    let writer = ArrivalsWriter::create(dir, rows(&[]).schema(), bits, known).unwrap();
    let mut writer = writer.with_buffer_bytes_max(buffer_bytes_max);
    for numbers in chunks {
        let keys: Vec<KeyHash> = numbers.iter().map(|number| key(*number)).collect();
        let hashes: Vec<u64> = numbers.iter().map(|number| number * 7).collect();
        let faulty: BooleanArray = numbers.iter().map(|number| Some(number.is_multiple_of(5))).collect();
        writer.push(&rows(numbers), &keys, &hashes, &faulty).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_few_rows_need_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let arrivals = arrive(dir.path(), &[vec![3, 1], vec![2]], 3, 1 << 20);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(arrivals.rows(), 3);
}

#[test]
fn what_an_earlier_process_left_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    drop(arrive(dir.path(), &[(0..40).collect()], 1, 0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    let arrivals = arrive(dir.path(), &[vec![7]], 1, 0);
    let found: Vec<Digest> = (0..2).flat_map(|bucket| arrivals.digests(bucket).unwrap()).collect();
    assert_eq!(found, [Digest::new(key(7), 49, 0, false)]);
    assert_eq!(arrivals.keep(&RowSet::all(1)).unwrap().finish().unwrap().rows(), 1);
}

#[test]
fn every_altered_byte_of_a_file_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let arrivals = arrive(dir.path(), &[(0..4).collect()], 0, 0);
    for name in ["00000.digests", "rows.log"] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let read = || arrivals.digests(0).and_then(|_| arrivals.keep(&RowSet::all(4))?.finish());
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let error = read().unwrap_err();
            assert!(error.to_string().contains(name), "byte {position}: {error}");
        }
        for cut in 1..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let outcome = read().map(|kept| kept.rows());
            assert!(outcome.is_err_and(|error| error.code() == Code::STATE_DAMAGED), "{name} cut at {cut}");
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ArrivalsWriter::create(dir.path(), rows(&[]).schema(), 0, Known::nothing()).unwrap();
    let faulty = BooleanArray::from(vec![false]);
    assert!(matches!(writer.push(&rows(&[1]), &[], &[1], &faulty), Err(SortedError::Misused(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_arrives_comes_back(
        chunks in prop::collection::vec(prop::collection::vec(0_u64..50, 0..30), 0..6),
        bits in 0_u8..4,
        buffer_bytes_max in prop::sample::select(vec![0, 3_000, 1 << 20]),
        wanted in prop::collection::btree_set(0_usize..150, 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let arrivals = arrive(dir.path(), &chunks, bits, buffer_bytes_max);
        let numbers: Vec<u64> = chunks.concat();
        let mut expected: Vec<Digest> = (0_u64..)
            .zip(&numbers)
            .map(|(ordinal, number)| Digest::new(key(*number), number * 7, ordinal, number % 5 == 0))
            .collect();
        expected.sort_by_key(|digest| (digest.key, digest.ordinal()));
        let mut found = Vec::new();
        for bucket in 0..1 << bits {
            let mut digests = arrivals.digests(bucket).unwrap();
            prop_assert!(digests.iter().all(|digest| digest.key.bucket(bits) == bucket));
            digests.sort_by_key(|digest| (digest.key, digest.ordinal()));
            found.extend(digests);
        }
        prop_assert_eq!(found, expected);

        let mut set = RowSet::none(numbers.len());
        for row in &wanted {
            set.insert(*row);
        }
        let wanted: BTreeSet<usize> = wanted.into_iter().filter(|row| *row < numbers.len()).collect();
        let kept = arrivals.keep(&set).unwrap().finish().unwrap();
        let mut found = BTreeSet::new();
        for bucket in 0..1 << bits {
            let sorted = kept.bucket(bucket).unwrap();
            let here: Vec<u64> = sorted.ordinals.iter().map(|ordinal| numbers[*ordinal as usize]).collect();
            prop_assert_eq!(&sorted.rows, &rows(&here));
            found.extend(sorted.ordinals.iter().map(|ordinal| *ordinal as usize));
        }
        prop_assert_eq!(found, wanted);
    }
}
