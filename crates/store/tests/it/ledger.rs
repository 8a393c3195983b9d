//! The ledger's promises: what was acknowledged comes back, and nothing else does.

use std::path::Path;
use std::sync::Arc;

use flowgate_core::{Code, KeyHash, Operation, Outcome};
use flowgate_store::ledger::{IntentRow, LedgerError, LedgerWriter, OutcomeCode, Record, Replay, read};
use fs_err as fs;
use proptest::prelude::*;
use uuid::Uuid;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Appends one record after the other, so that each is a group of its own.
fn append_all(writer: &LedgerWriter, records: &[Record]) {
    runtime().block_on(async {
        for record in records {
            writer.append(record).await.unwrap();
        }
    });
}

fn read_all(path: &Path) -> Result<Vec<Record>, LedgerError> {
    read(path)?.collect()
}

fn row(number: u64) -> IntentRow {
    IntentRow { key: KeyHash(u128::from(number) << 64), id: Uuid::from_u128(number.into()), row_hash: number * 3 }
}

fn intent(sequence: u64, rows: std::ops::Range<u64>) -> Record {
    Record::Intent { sequence, operation: Operation::Update, rows: rows.map(row).collect() }
}

fn sample() -> Vec<Record> {
    let exists = Outcome::Exists { id: Uuid::from_u128(77) };
    vec![
        Record::Mark { what: "loading".to_owned() },
        intent(0, 0..3),
        Record::answer(0, &[Outcome::Applied, exists, Outcome::Missing]),
        intent(1, 3..5),
        intent(2, 5..6),
        Record::answer(2, &[Outcome::Ambiguous]),
        Record::answer(1, &[Outcome::Applied, Outcome::Applied]),
    ]
}

#[test]
fn what_was_appended_comes_back_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/cases.ledger");
    let records = sample();
    append_all(&LedgerWriter::create(&path).unwrap(), &records[..4]);
    append_all(&LedgerWriter::open_append(&path).unwrap(), &records[4..]);
    assert_eq!(read_all(&path).unwrap(), records);
    assert!(matches!(LedgerWriter::create(&path), Err(LedgerError::Exists { .. })));
}

/// A file of the first version, as released: it must be read for ever, and gone on with.
#[test]
fn version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.ledger");
    let records = [
        intent(7, 1..2),
        Record::answer(7, &[Outcome::Exists { id: Uuid::from_u128(9) }]),
        Record::Outcomes { sequence: 7, outcomes: vec![OutcomeCode::Applied, OutcomeCode::Missing], ids: vec![] },
        Record::Mark { what: "done".to_owned() },
    ];
    fs::write(&path, VERSION_1).unwrap();
    assert_eq!(read_all(&path).unwrap(), records);
    fs::write(&path, [VERSION_1, b"FGGR torn"].concat()).unwrap();
    append_all(&LedgerWriter::open_append(&path).unwrap(), &[intent(8, 2..3)]);
    assert_eq!(read_all(&path).unwrap(), [&records[..], &[intent(8, 2..3)]].concat());
    assert_eq!(fs::read(&path).unwrap()[..VERSION_1.len()], *VERSION_1);
}

const VERSION_1: &[u8] = include_bytes!("../data/version_1.ledger");

#[test]
fn many_tasks_append_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.ledger");
    let writer = Arc::new(LedgerWriter::create(&path).unwrap());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for sequence in 0..600 {
            let writer = Arc::clone(&writer);
            tasks.spawn(async move { writer.append(&intent(sequence, 0..sequence % 5)).await });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap().unwrap();
        }
    });
    drop(writer);
    let mut records = read_all(&path).unwrap();
    records.sort_by_key(|record| match record {
        Record::Intent { sequence, .. } => *sequence,
        _ => u64::MAX,
    });
    let expected: Vec<Record> = (0..600).map(|sequence| intent(sequence, 0..sequence % 5)).collect();
    assert_eq!(records, expected);
}

#[test]
fn a_replay_tells_acknowledged_from_unanswered() {
    let mut records = sample();
    records.push(intent(3, 6..8));
    let replay = Replay::of(records.into_iter().map(Ok)).unwrap();
    let outcomes: Vec<_> = replay.rows().map(|row| row.outcome).collect();
    let applied = Some(OutcomeCode::Applied);
    let expected = [
        applied,
        Some(OutcomeCode::Exists),
        Some(OutcomeCode::Missing),
        applied,
        applied,
        Some(OutcomeCode::Ambiguous),
        None,
        None,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(replay.row(1).id, Uuid::from_u128(77), "the id that the answer gave");
    assert_eq!((replay.next_sequence(), replay.marks()), (4, [(0, "loading".to_owned())].as_slice()));
}

#[test]
fn a_later_answer_clears_up_an_ambiguous_one() {
    let records = [intent(0, 0..1), Record::answer(0, &[Outcome::Ambiguous]), Record::answer(0, &[Outcome::Applied])];
    let replay = Replay::of(records.into_iter().map(Ok)).unwrap();
    assert_eq!(replay.row(0).outcome, Some(OutcomeCode::Applied));
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let cases = [
        vec![Record::answer(0, &[Outcome::Applied])],
        vec![intent(0, 0..2), intent(0, 0..2)],
        vec![intent(0, 0..2), Record::answer(0, &[Outcome::Applied])],
        vec![
            intent(0, 0..1),
            Record::Outcomes { sequence: 0, outcomes: vec![OutcomeCode::Exists], ids: vec![(1, Uuid::nil())] },
        ],
    ];
    for records in cases {
        let error = Replay::of(records.into_iter().map(Ok)).unwrap_err();
        assert!(matches!(error, LedgerError::Contradiction { .. }), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.ledger");
    drop(LedgerWriter::create(&path).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 3;
    let checksum = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = read_all(&path).unwrap_err();
    assert_eq!(error.code(), Code::STATE_NEWER, "{error}");
}

#[test]
fn damage_before_the_tail_names_file_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.ledger");
    append_all(&LedgerWriter::create(&path).unwrap(), &sample());
    let mut bytes = fs::read(&path).unwrap();
    // The length of the first group: without the search it would look like the end.
    bytes[16 + 6] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = read_all(&path).unwrap_err();
    assert_eq!(error.code(), Code::STATE_DAMAGED);
    let expected =
        format!("ledger `{}` is damaged at byte 16: a group header does not match its checksum", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(LedgerWriter::open_append(&path).is_err(), "damage is not cut away");
}

/// The bytes of `records`, each a group of its own, and where each group ends.
fn segment(dir: &Path, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let path = dir.join("whole.ledger");
    let writer = LedgerWriter::create(&path).unwrap();
    let mut ends = vec![HEADER_BYTES];
    for record in records {
        append_all(&writer, std::slice::from_ref(record));
        let bytes = fs::read(&path).unwrap();
        ends.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    }
    drop(writer);
    // A record may end in zeros: only the header of the next group tells where it really ends.
    let bytes = fs::read(&path).unwrap();
    let begins: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, is)| is == b"FGGR").map(|(at, _)| at).collect();
    if begins.len() == records.len() {
        ends[1..records.len()].copy_from_slice(&begins[1..]);
    }
    (bytes, ends)
}

const HEADER_BYTES: usize = 16;

/// What a power cut leaves while a group is written: its place, and the first bytes of it.
fn torn(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut torn = bytes.to_vec();
    torn[at..].fill(0);
    torn
}

#[test]
fn what_a_power_cut_leaves_reads_back_what_was_whole_and_can_be_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let records = sample();
    let (bytes, ends) = segment(dir.path(), &records);
    let path = dir.path().join("torn.ledger");
    for at in (ends[0]..*ends.last().unwrap()).step_by(3) {
        fs::write(&path, torn(&bytes, at)).unwrap();
        let read = read_all(&path).unwrap();
        let whole = ends.iter().filter(|end| **end <= at).count() - 1;
        // A group whose last bytes are zeros is whole without them.
        assert!(read == records[..whole] || read == records[..=whole], "torn at {at}");
        if at % 12 == 1 {
            let next = &records[read.len()..records.len().min(read.len() + 1)];
            append_all(&LedgerWriter::open_append(&path).unwrap(), next);
            assert_eq!(read_all(&path).unwrap(), records[..read.len() + next.len()], "continued after {at}");
        }
    }
}

#[test]
fn every_cut_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = segment(dir.path(), &sample());
    let path = dir.path().join("cut.ledger");
    let beyond = [bytes.len() / 2, bytes.len() - 1];
    for cut in (0..=*ends.last().unwrap()).step_by(5).chain(ends.iter().copied()).chain(beyond) {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert_eq!(read_all(&path).unwrap_err().code(), Code::STATE_DAMAGED, "cut at {cut}");
        assert!(LedgerWriter::open_append(&path).is_err(), "cut at {cut}, and gone on with");
    }
}

#[test]
fn a_ledger_that_grew_is_damaged_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.ledger");
    // Groups of half a megabyte: some reach over the end of the room that was there.
    let records: Vec<Record> = (0..9).map(|sequence| intent(sequence, 0..12_000)).collect();
    append_all(&LedgerWriter::create(&path).unwrap(), &records);
    assert_eq!(read_all(&path).unwrap(), records);
    let bytes = fs::read(&path).unwrap();
    let rooms = bytes.len() >> 18;
    assert!(rooms > 4 && bytes.len().is_multiple_of(1 << 18), "{rooms} rooms");
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Behind the last group there is only room: whoever takes some of it takes nothing.
    for cut in (1..rooms).map(|room| room << 18).filter(|cut| *cut <= end) {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(read_all(&path).is_err_and(|error| error.code() == Code::STATE_DAMAGED), "cut at {cut}");
    }
    fs::write(&path, &bytes).unwrap();
    let more = LedgerWriter::open_append(&path).unwrap();
    append_all(&more, &[intent(9, 0..1)]);
    drop(more);
    assert_eq!(read_all(&path).unwrap().len(), 10);
}

#[test]
fn every_flipped_bit_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let records = sample();
    let (bytes, ends) = segment(dir.path(), &records);
    let path = dir.path().join("flipped.ledger");
    let last_group = ends[ends.len() - 2];
    // One bit of each byte: all eight in turn.
    for bit in (0..ends[ends.len() - 1]).map(|byte| byte * 8 + byte % 8) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        match read_all(&path) {
            Err(error) => assert!(bit / 8 < last_group, "bit {bit}: {error}"),
            Ok(read) => {
                assert!(bit / 8 >= last_group, "bit {bit} was not detected");
                assert_eq!(read, records[..records.len() - 1], "bit {bit}");
            }
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let operation = prop::sample::select(vec![Operation::Create, Operation::SetState, Operation::Delete]);
    let rows = prop::collection::vec(any::<(u128, u128, u64)>(), 0..20);
    let intent = (any::<u64>(), operation, rows).prop_map(|(sequence, operation, rows)| Record::Intent {
        sequence,
        operation,
        rows: rows
            .into_iter()
            .map(|(key, id, row_hash)| IntentRow { key: KeyHash(key), id: Uuid::from_u128(id), row_hash })
            .collect(),
    });
    let code = prop::sample::select(vec![OutcomeCode::Applied, OutcomeCode::Refused, OutcomeCode::Unsent]);
    let ids = prop::collection::vec(any::<(u32, u128)>(), 0..3);
    let outcomes = (any::<u64>(), prop::collection::vec(code, 0..20), ids).prop_map(|(sequence, outcomes, ids)| {
        let ids = ids.into_iter().map(|(row, id)| (row, Uuid::from_u128(id))).collect();
        Record::Outcomes { sequence, outcomes, ids }
    });
    prop_oneof![intent, outcomes, ".*".prop_map(|what| Record::Mark { what })]
}

proptest! {
    // Each case syncs the disk a few times.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_torn_write_reads_back_a_prefix(records in prop::collection::vec(any_record(), 1..8), at in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, ends) = segment(dir.path(), &records);
        let path = dir.path().join("torn.ledger");
        let at = ends[0] + at.index(ends[ends.len() - 1] - ends[0] + 1);
        fs::write(&path, torn(&bytes, at)).unwrap();
        let whole = ends.iter().filter(|end| **end <= at).count() - 1;
        let read = read_all(&path).unwrap();
        prop_assert!(read == records[..whole] || read == records[..records.len().min(whole + 1)]);
    }

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.ledger");
        drop(LedgerWriter::create(&path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER_BYTES..HEADER_BYTES + tail.len()].copy_from_slice(&tail);
        fs::write(&path, bytes).unwrap();
        prop_assert_eq!(read_all(&path).unwrap(), vec![]);
    }
}
