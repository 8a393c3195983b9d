//! What a state settles as rows arrive is what it would have settled afterwards.

use std::collections::BTreeSet;
use std::path::Path;

use flowgate_core::KeyHash;
use flowgate_sorted::{Known, RowSet, Sifted, State, sift};
use proptest::prelude::*;

use crate::arrivals::arrive_known;
use crate::key;
use crate::state::{model, write};

/// What sifting leaves to be looked at: for each bucket what it found, and the keys of the rows, by how often.
#[derive(Debug, PartialEq)]
struct Left {
    buckets: Vec<(u64, u64, Vec<usize>)>,
    keys: Vec<KeyHash>,
    waited: u64,
}

fn left(dir: &Path, state: &State, chunks: &[Vec<u64>], known: Known, open: &BTreeSet<u64>) -> Left {
    let bits = state.manifest().bits;
    let mut arrivals = arrive_known(dir, chunks, bits, 1 << 20, known);
    let known = arrivals.take_known();
    let open: BTreeSet<KeyHash> = open.iter().map(|number| key(*number)).collect();
    let is_open = |key: KeyHash| open.contains(&key);
    let is_open: Option<&dyn Fn(KeyHash) -> bool> = if open.is_empty() { None } else { Some(&is_open) };
    let mut wanted = RowSet::none(arrivals.rows() as usize);
    let mut buckets = Vec::new();
    let mut keys = Vec::new();
    for bucket in 0..arrivals.buckets() {
        let Sifted { settled, touched, recalled, in_state } =
            sift((&arrivals, &known), state, bucket, is_open, &mut wanted).unwrap();
        keys.extend(state.bucket(bits, bucket).unwrap().subset(&recalled).index.keys);
        buckets.push((settled, in_state, touched.iter().collect()));
    }
    let kept = arrivals.keep(&wanted).unwrap().finish().unwrap();
    keys.extend(kept.buckets(0..arrivals.buckets()).unwrap().keys);
    keys.sort_unstable();
    Left { buckets, keys, waited: arrivals.rows() }
}

#[test]
fn rows_that_did_not_change_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // Every fourth number has no flag; multiples of 5 are faulty.
    let numbers: Vec<u64> = (0..4_000).map(|number| number * 4).filter(|number| number % 5 != 0).collect();
    let state = State::open(dir.path(), write(dir.path(), 1, 2, &model(numbers.clone())));
    let known = Known::read(&state, 2, 1 << 20).unwrap();
    let found = left(dir.path(), &state, &[numbers], known, &BTreeSet::new());
    assert_eq!((found.waited, found.keys.len()), (0, 0));
    assert_eq!(found.buckets.iter().map(|(settled, ..)| settled).sum::<u64>(), 3_200);
}

#[test]
fn a_state_in_other_buckets_settles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), write(dir.path(), 1, 2, &model([4, 8])));
    let known = Known::read(&state, 1, 1 << 20).unwrap();
    assert_eq!(arrive_known(dir.path(), &[vec![4, 8]], 1, 1 << 20, known).rows(), 2);
}

#[test]
fn a_damaged_index_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), write(dir.path(), 1, 0, &model([4, 8])));
    let index = dir.path().join("0000000001-00-00000.index");
    fs_err::write(&index, b"something else").unwrap();
    let error = Known::read(&state, 0, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("0000000001-00-00000.index"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_settles_what_sifting_would(
        stored in prop::collection::btree_set(0_u64..60, 0..50),
        chunks in prop::collection::vec(prop::collection::vec(0_u64..70, 0..30), 0..5),
        open in prop::collection::btree_set(0_u64..60, 0..4),
        bits in 0_u8..4,
        bytes_max in prop::sample::select(vec![0, 200, 1 << 20]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        // One row in seven is otherwise than the one that arrives.
        let model = stored.iter().map(|number| (key(*number), number + 60 * (number % 7 / 6))).collect();
        let state = State::open(dir.path(), write(dir.path(), 1, bits, &model));
        let known = Known::read(&state, bits, bytes_max).unwrap();
        let early = left(dir.path(), &state, &chunks, known, &open);
        let late = left(dir.path(), &state, &chunks, Known::nothing(), &open);
        prop_assert_eq!(late.waited, chunks.concat().len() as u64);
        prop_assert_eq!(Left { waited: 0, ..early }, Left { waited: 0, ..late });
    }
}
