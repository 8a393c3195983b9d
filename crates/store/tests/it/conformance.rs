//! Every clause of the contract of [`Store`], for any store.

use std::sync::Arc;

use flowgate_core::{Code, Cursor, FlowName, KeyHash, LoadName, LoadRows, RunId, StreamName, StreamRows};
use flowgate_store::{
    FlowLease, ImageRecord, Letter, LetterFilter, LetterSelection, LetterStatus, LoadProgress, ManifestRecord, Phase,
    RunRecord, RunState, Store, StoreError, StreamProgress, letter_id,
};
use jiff::Timestamp;
use uuid::Uuid;

/// Holds `open` to the contract. Each call of it gives a new and empty store.
pub(crate) fn conformance(open: impl Fn() -> Arc<dyn Store>) {
    let clauses: [fn(&dyn Store); 16] = [
        a_flow_has_one_holder,
        a_record_comes_back_whole,
        the_newest_runs_come_first,
        a_new_run_closes_what_is_left_open,
        the_next_run_goes_on_from_what_is_unfinished,
        counts_that_do_not_add_up_are_refused,
        the_lease_of_another_flow_is_refused,
        the_newest_image_is_the_current_one,
        a_manifest_is_swapped_once,
        a_swap_and_its_run_are_one,
        a_letter_is_one_and_grows_older,
        letters_come_in_pages,
        marks_come_in_the_order_of_keys,
        letters_go_when_they_are_resolved_or_old,
        a_touched_or_discarded_letter_is_not_old,
        what_is_not_met_again_is_resolved,
    ];
    for clause in clauses {
        clause(&*open());
    }
}

pub(crate) fn flow(name: &str) -> FlowName {
    FlowName::new(name).unwrap()
}

fn load(name: &str) -> LoadName {
    LoadName::new(name).unwrap()
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + second, 123_456_000).unwrap()
}

fn run_id(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

fn lease(store: &dyn Store) -> FlowLease {
    store.lease_flow(&flow("enquiries"), at(0)).unwrap()
}

fn image(number: u128) -> ImageRecord {
    ImageRecord {
        flow: flow("enquiries"),
        stream: stream("enquiry"),
        run: run_id(number),
        path: format!("enquiries/enquiry/{number}.parquet"),
        rows: 10,
        bytes: 4_096,
        checksum: "xxh3:0123456789abcdef".to_owned(),
        schema_json: "{}".to_owned(),
        cursor: Some(Cursor("2026-01-31".to_owned())),
        taken: at(5),
        malformed_key_unknown: false,
        parts: [("data/a.csv".to_owned(), 3)].into(),
        missing_parts: vec!["data/b.csv".to_owned()],
        doubt: Some("`data/a.csv` ends in the middle of line 4".to_owned()),
    }
}

/// A run in which every field says something.
fn full_record(number: u128) -> RunRecord {
    let mut record = RunRecord::begin(run_id(number), flow("enquiries"), "v1", at(1));
    let rows = LoadRows { prepared: 10, created: 6, quarantined: 1, pending: 3, dropped: 2, ..LoadRows::default() };
    let progress = LoadProgress { phase: Phase::Loading, rows, driver_keys: Some(12), represented: 10, stopped: None };
    record.loads.insert(load("cases"), progress);
    let rows = StreamRows { extracted: 13, staged: 12, malformed: 1 };
    record.streams.insert(stream("enquiry"), StreamProgress { rows, image: Some(image(number)), done: true });
    record.seconds.insert("extract".to_owned(), 0.25);
    record.state = RunState::Failed;
    record.finished = Some(at(9));
    record.error = Some("the service failed".to_owned());
    record.error_code = Some(Code::SERVICE_FAILED);
    record.requests_sent = 7;
    record.requests_throttled = 1;
    record
}

pub(crate) fn letter(key: u128) -> Letter {
    let key_hash = Some(KeyHash(key));
    let key_text = format!("A-{key}");
    Letter {
        id: letter_id(&flow("enquiries"), "cases", key_hash, &key_text),
        flow: flow("enquiries"),
        place: "cases".to_owned(),
        key_hash,
        key_text,
        row_hash: u64::MAX - 1,
        project_version: "v1".to_owned(),
        metadata_version: "m1".to_owned(),
        attempts: 1,
        first_at: at(1),
        last_at: at(1),
        code: Code::ROW_TOO_LONG,
        column: Some("title".to_owned()),
        reason: "`title` has 300 characters".to_owned(),
        service_code: Some("0x80044331".to_owned()),
        request_id: Some("r-1".to_owned()),
        file: Some("a.csv".to_owned()),
        line: Some(3),
        offset: Some(120),
        payload: "{}".to_owned(),
        status: LetterStatus::Quarantined,
    }
}

fn a_flow_has_one_holder(store: &dyn Store) {
    let first = lease(store);
    let error = store.lease_flow(&flow("enquiries"), at(1)).unwrap_err();
    assert_eq!(error.code(), Code::FLOW_IS_RUNNING);
    let expected =
        format!("flow `enquiries` is running already, in process {} since 2027-01-15 08:00:00 UTC", std::process::id());
    assert_eq!(error.to_string(), expected);
    store.lease_flow(&flow("assets"), at(1)).unwrap();

    let epoch = first.epoch();
    drop(first);
    assert_eq!(lease(store).epoch(), epoch + 1);
}

fn a_record_comes_back_whole(store: &dyn Store) {
    let lease = lease(store);
    let record = full_record(1);
    assert_eq!(store.run(record.run).unwrap(), None);
    store.begin_run(&lease, &RunRecord::begin(record.run, record.flow.clone(), "v1", record.started)).unwrap();
    store.save_run(&lease, &record).unwrap();
    assert_eq!(store.run(record.run).unwrap(), Some(record));
}

fn the_newest_runs_come_first(store: &dyn Store) {
    let lease = lease(store);
    for number in [1, 2, 3] {
        store.begin_run(&lease, &RunRecord::begin(run_id(number), flow("enquiries"), "v1", at(1))).unwrap();
    }
    let other = store.lease_flow(&flow("assets"), at(0)).unwrap();
    store.begin_run(&other, &RunRecord::begin(run_id(4), flow("assets"), "v1", at(1))).unwrap();

    let ids = |records: Vec<RunRecord>| records.iter().map(|record| record.run.0.as_u128()).collect::<Vec<_>>();
    assert_eq!(ids(store.runs(None, 10).unwrap()), [4, 3, 2, 1]);
    assert_eq!(ids(store.runs(Some(&flow("enquiries")), 2).unwrap()), [3, 2]);
    assert_eq!(store.forget_runs(&lease, 1).unwrap(), 2);
    assert_eq!(ids(store.runs(None, 10).unwrap()), [4, 3]);
}

fn a_new_run_closes_what_is_left_open(store: &dyn Store) {
    let lease = lease(store);
    store.begin_run(&lease, &RunRecord::begin(run_id(1), flow("enquiries"), "v1", at(1))).unwrap();
    store.begin_run(&lease, &RunRecord::begin(run_id(2), flow("enquiries"), "v2", at(2))).unwrap();
    let first = store.run(run_id(1)).unwrap().unwrap();
    assert_eq!((first.state, first.finished), (RunState::Abandoned, Some(at(2))));
    assert_eq!(store.run(run_id(2)).unwrap().unwrap().state, RunState::Running);
}

fn the_next_run_goes_on_from_what_is_unfinished(store: &dyn Store) {
    let lease = lease(store);
    let name = flow("enquiries");
    assert_eq!(store.unfinished_run(&name).unwrap(), None);
    let mut record = RunRecord::begin(run_id(1), name.clone(), "v1", at(1));
    for (state, is_unfinished) in [
        (RunState::Running, true),
        (RunState::Interrupted, true),
        (RunState::Failed, true),
        (RunState::StoppedByGuard, false),
        (RunState::Complete, false),
    ] {
        record.state = state;
        store.save_run(&lease, &record).unwrap();
        assert_eq!(store.unfinished_run(&name).unwrap().is_some(), is_unfinished, "{state:?}");
        assert_eq!(store.last_run(&name).unwrap().unwrap().state, state);
    }
}

fn counts_that_do_not_add_up_are_refused(store: &dyn Store) {
    let lease = lease(store);
    let mut record = full_record(1);
    store.save_run(&lease, &record).unwrap();
    record.loads.get_mut("cases").unwrap().rows.pending -= 1;
    let error = store.save_run(&lease, &record).unwrap_err();
    assert_eq!(error.code(), Code::IMBALANCE);
    assert!(error.to_string().contains("in load `cases`: prepared = "), "{error}");
    assert_eq!(store.run(record.run).unwrap(), Some(full_record(1)));
}

fn the_lease_of_another_flow_is_refused(store: &dyn Store) {
    let other = store.lease_flow(&flow("assets"), at(0)).unwrap();
    assert!(matches!(store.save_run(&other, &full_record(1)), Err(StoreError::WrongFlow { .. })));
    assert!(matches!(store.record_image(&other, &image(1)), Err(StoreError::WrongFlow { .. })));
    assert!(matches!(store.save_letters(&other, &[letter(1)]), Err(StoreError::WrongFlow { .. })));
    assert_eq!(store.count_letters(&LetterFilter::default()).unwrap(), 0);
}

fn the_newest_image_is_the_current_one(store: &dyn Store) {
    let lease = lease(store);
    let current = || store.current_image(&flow("enquiries"), &stream("enquiry")).unwrap();
    assert_eq!(current(), None);
    for number in [1, 2, 3] {
        store.record_image(&lease, &image(number)).unwrap();
        assert_eq!(current(), Some(image(number)));
    }
    let mut retired = store.retire_images(&lease, &stream("enquiry"), 1).unwrap();
    retired.sort();
    assert_eq!(retired, [image(1).path, image(2).path]);
    assert_eq!(store.images(&flow("enquiries"), &stream("enquiry")).unwrap(), [image(3)]);
}

fn a_manifest_is_swapped_once(store: &dyn Store) {
    let lease = lease(store);
    let (flow, load) = (flow("enquiries"), load("cases"));
    assert_eq!(store.manifest(&flow, &load).unwrap(), None);
    store.swap_manifest(&lease, &load, 0, "one", None).unwrap();
    store.swap_manifest(&lease, &load, 1, "two", None).unwrap();
    let error = store.swap_manifest(&lease, &load, 1, "late", None).unwrap_err();
    assert!(matches!(error, StoreError::ManifestMoved { expected: 1, found: 2, .. }), "{error}");
    assert_eq!(store.manifest(&flow, &load).unwrap(), Some(ManifestRecord { version: 2, json: "two".to_owned() }));
}

fn a_swap_and_its_run_are_one(store: &dyn Store) {
    let lease = lease(store);
    let record = full_record(1);
    assert!(store.swap_manifest(&lease, &load("cases"), 9, "late", Some(&record)).is_err());
    assert_eq!(store.run(record.run).unwrap(), None);
    store.swap_manifest(&lease, &load("cases"), 0, "one", Some(&record)).unwrap();
    assert_eq!(store.run(record.run).unwrap(), Some(record.clone()));

    let mut wrong = record;
    wrong.streams.get_mut("enquiry").unwrap().rows.staged = 1;
    assert!(store.swap_manifest(&lease, &load("cases"), 1, "two", Some(&wrong)).is_err());
    assert_eq!(store.manifest(&flow("enquiries"), &load("cases")).unwrap().unwrap().version, 1);
}

fn a_letter_is_one_and_grows_older(store: &dyn Store) {
    let lease = lease(store);
    let first = letter(1);
    store.save_letters(&lease, std::slice::from_ref(&first)).unwrap();
    assert_eq!(store.letter(&first.id).unwrap(), Some(first.clone()));
    assert_eq!(store.letter(&first.id[..8]).unwrap(), Some(first.clone()));
    assert_eq!(store.letter(&first.id[..7]).unwrap(), None);

    let again = Letter { first_at: at(50), last_at: at(50), reason: "still".to_owned(), attempts: 2, ..letter(1) };
    store.save_letters(&lease, std::slice::from_ref(&again)).unwrap();
    let expected = Letter { first_at: first.first_at, attempts: 3, ..again };
    assert_eq!(store.letter(&first.id).unwrap(), Some(expected));

    let ids = LetterSelection::Ids(vec![first.id.clone(), "unknown".to_owned()]);
    let status = || store.letter(&first.id).unwrap().unwrap().status;
    assert_eq!(store.request_retry(&ids).unwrap(), 1);
    assert_eq!(status(), LetterStatus::RetryRequested);
    assert_eq!(store.discard(&ids).unwrap(), 1);
    store.save_letters(&lease, std::slice::from_ref(&first)).unwrap();
    assert_eq!(status(), LetterStatus::Discarded, "the same row stays out");
    store.save_letters(&lease, &[Letter { row_hash: 1, ..first.clone() }]).unwrap();
    assert_eq!(status(), LetterStatus::Quarantined, "a changed row is new");
}

fn letters_come_in_pages(store: &dyn Store) {
    let lease = lease(store);
    let mut letters: Vec<Letter> = (0..5).map(letter).collect();
    letters[3].code = Code::ROW_ORPHAN;
    store.save_letters(&lease, &letters).unwrap();

    let all = LetterFilter::default();
    let first = store.letters(&all, None, 3).unwrap();
    assert_eq!(first.letters, letters[..3]);
    let second = store.letters(&all, first.next, 3).unwrap();
    assert_eq!((second.letters.as_slice(), second.next), (&letters[3..], None));

    let orphans = LetterFilter { code: Some(Code::ROW_ORPHAN), ..all };
    assert_eq!(store.letters(&orphans, None, 9).unwrap().letters, letters[3..4]);
    assert_eq!(store.count_letters(&orphans).unwrap(), 1);
    assert_eq!(store.request_retry(&LetterSelection::Matching(orphans)).unwrap(), 1);
    let elsewhere = LetterFilter { flow: Some(flow("assets")), ..LetterFilter::default() };
    assert_eq!(store.count_letters(&elsewhere).unwrap(), 0);
    let groups = store.letter_groups(Some(&flow("enquiries"))).unwrap();
    let counts: Vec<_> = groups.iter().map(|group| (group.code, group.status, group.letters)).collect();
    let expected =
        [(Code::ROW_TOO_LONG, LetterStatus::Quarantined, 4), (Code::ROW_ORPHAN, LetterStatus::RetryRequested, 1)];
    assert_eq!(counts, expected);
}

fn marks_come_in_the_order_of_keys(store: &dyn Store) {
    let lease = lease(store);
    let unreadable = Letter { key_hash: None, id: "0".repeat(32), ..letter(0) };
    let elsewhere = Letter { place: "offices".to_owned(), id: "1".repeat(32), ..letter(0) };
    let letters = [letter(u128::MAX), letter(1), unreadable, letter(1 << 127), elsewhere];
    store.save_letters(&lease, &letters).unwrap();
    let marks = store.letters_of(&flow("enquiries"), "cases").unwrap();
    let keys: Vec<u128> = marks.iter().map(|mark| mark.key_hash.0).collect();
    assert_eq!(keys, [1, 1 << 127, u128::MAX]);
    assert_eq!((marks[0].row_hash, marks[0].metadata_version.as_str()), (u64::MAX - 1, "m1"));
}

fn letters_go_when_they_are_resolved_or_old(store: &dyn Store) {
    let lease = lease(store);
    let old = Letter { last_at: at(10), ..letter(1) };
    let new = Letter { last_at: at(11), ..letter(2) };
    let resolved = Letter { last_at: at(12), ..letter(3) };
    store.save_letters(&lease, &[old, new.clone(), resolved.clone()]).unwrap();
    assert_eq!(store.resolve_letters(&lease, &[resolved.id]).unwrap(), 1);
    assert_eq!(store.expire_letters(at(11)).unwrap(), 1);
    assert_eq!(store.letters(&LetterFilter::default(), None, 9).unwrap().letters, [new]);
}

fn a_touched_or_discarded_letter_is_not_old(store: &dyn Store) {
    let lease = lease(store);
    let unreadable = Letter { key_hash: None, id: "0".repeat(32), ..letter(0) };
    let full = |key| Letter { payload: "{\"number\":\"1\"}".to_owned(), ..letter(key) };
    store.save_letters(&lease, &[full(1), full(2), full(3), unreadable.clone()]).unwrap();
    assert_eq!(store.touch_letters(&lease, &[full(1).id, "unknown".to_owned()], at(20)).unwrap(), 1);
    store.discard(&LetterSelection::Ids(vec![full(2).id, unreadable.id])).unwrap();
    assert_eq!(store.expire_letters(at(11)).unwrap(), 2, "no row is kept out by a letter without a key");
    let discarded = Letter { status: LetterStatus::Discarded, ..letter(2) };
    let left = store.letters(&LetterFilter::default(), None, 9).unwrap().letters;
    assert_eq!(left, [Letter { last_at: at(20), ..full(1) }, discarded]);
}

fn what_is_not_met_again_is_resolved(store: &dyn Store) {
    let lease = lease(store);
    let line = |number: u64, last_at| Letter {
        id: format!("{number:032x}"),
        key_hash: None,
        code: Code::ROW_MALFORMED,
        last_at,
        ..letter(0)
    };
    let of_a_load = Letter { code: Code::ROW_TOO_LONG, ..line(3, at(1)) };
    let elsewhere = Letter { place: "offices".to_owned(), ..line(4, at(1)) };
    let keyed = Letter { code: Code::ROW_MALFORMED, ..letter(5) };
    let kept = [line(2, at(2)), of_a_load, elsewhere, keyed];
    store.save_letters(&lease, &[line(1, at(1))]).unwrap();
    store.save_letters(&lease, &kept).unwrap();
    assert_eq!(store.resolve_unmet_letters(&lease, "cases", Code::ROW_MALFORMED, at(2)).unwrap(), 1);
    assert_eq!(store.letters(&LetterFilter::default(), None, 9).unwrap().letters, kept);
    // One of a time to come was written under a wrong clock.
    let of_a_wrong_clock = line(6, at(4_000_000_000));
    store.save_letters(&lease, &[of_a_wrong_clock]).unwrap();
    assert_eq!(store.correct_letters(&lease, at(3)).unwrap(), 1);
    assert_eq!(store.resolve_unmet_letters(&lease, "cases", Code::ROW_MALFORMED, at(4)).unwrap(), 2);
}
