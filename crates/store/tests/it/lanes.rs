//! Lanes shared by several budgets of one host.

use flowgate_core::ports::{
    Beat, LANE_LEASE, LaneLeases, LaneReport, LaneSeat, RowsBeat, SharedLane, Standing, Tenure, UserBeat,
};
use flowgate_store::SqliteLanes;
use jiff::Timestamp;

const IDENTITY: &str = "https://agency.crm11.dynamics.com 51f81489";

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

/// A budget that gives up what it is asked for at its next beat.
struct Budget {
    seat: Box<dyn LaneSeat>,
    wants_lanes: bool,
    lanes: Vec<SharedLane>,
}

impl Budget {
    fn enter(lanes: &SqliteLanes) -> Self {
        Self { seat: lanes.enter("crm", at(0)).unwrap(), wants_lanes: true, lanes: Vec::new() }
    }

    fn report(&self, checkpoint: &str) -> Beat {
        let report = |lane: &SharedLane| {
            let checkpoint = checkpoint.to_owned();
            let standing = match lane.tenure {
                Tenure::Held { epoch } => Standing::Holder { epoch, checkpoint },
                Tenure::Asked { epoch } => Standing::Left { epoch, checkpoint },
                Tenure::NotHeld => Standing::Guest,
            };
            LaneReport { server: lane.server.clone(), standing, used_as_guest: None }
        };
        let lanes = self.lanes.iter().map(report).collect();
        let user = UserBeat { identity: IDENTITY.to_owned(), wants_lanes: self.wants_lanes, lanes };
        Beat { users: vec![user], ..Beat::default() }
    }

    fn beat(&mut self, ms: i64) -> usize {
        self.beat_with(ms, &self.report("state"))
    }

    fn beat_with(&mut self, ms: i64, beat: &Beat) -> usize {
        self.lanes = self.seat.beat(at(ms), beat).unwrap().users.remove(0);
        self.held().len()
    }

    /// Meets web servers that nobody knew.
    fn meet(&mut self, servers: &[&str]) -> usize {
        let mut beat = self.report("state");
        beat.users[0].lanes.extend(servers.iter().map(|server| guest(server, None)));
        self.beat_with(0, &beat)
    }

    fn held(&self) -> Vec<&str> {
        let is_held = |lane: &&SharedLane| matches!(lane.tenure, Tenure::Held { .. });
        self.lanes.iter().filter(is_held).map(|lane| lane.server.as_str()).collect()
    }

    fn lane(&self, server: &str) -> &SharedLane {
        self.lanes.iter().find(|lane| lane.server == server).unwrap()
    }
}

fn guest(server: &str, used: Option<&str>) -> LaneReport {
    LaneReport { server: server.to_owned(), standing: Standing::Guest, used_as_guest: used.map(str::to_owned) }
}

fn open(dir: &tempfile::TempDir) -> SqliteLanes {
    SqliteLanes::open(dir.path()).unwrap()
}

#[test]
fn a_second_budget_gets_half_once_the_first_has_left_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    assert_eq!(first.meet(&["a", "b", "c", "d"]), 4);
    assert_eq!(second.beat(1), 0, "nothing is free yet");
    assert_eq!(first.beat(2), 2, "asked for two");
    assert_eq!(second.beat(3), 0, "which it has not left yet");
    assert_eq!(first.beat(4), 2);
    assert_eq!(second.beat(5), 2);
    assert_eq!((first.held(), second.held()), (vec!["a", "b"], vec!["c", "d"]));
    assert_eq!(second.lane("c").tenure, Tenure::Held { epoch: 2 }, "rises with each holder");
    assert_eq!(second.lane("c").checkpoint.as_ref().unwrap().state, "state");

    second.wants_lanes = false;
    assert_eq!(second.beat(6), 0);
    second.beat(7);
    assert_eq!(first.beat(8), 4, "who wants nothing gives all to who does");
}

#[test]
fn a_budget_that_leaves_hands_over_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Budget::enter(&open(&dir));
    first.meet(&["a"]);
    let mut beat = first.report("what was used");
    beat.users[0].lanes[0].standing = Standing::Left { epoch: 1, checkpoint: "what was used".to_owned() };
    first.seat.leave(at(5_000), &beat).unwrap();
    drop(first);
    let mut next = Budget::enter(&open(&dir));
    assert_eq!(next.beat(60_000), 1);
    let checkpoint = next.lane("a").checkpoint.clone().unwrap();
    assert_eq!(
        (checkpoint.state.as_str(), checkpoint.at, checkpoint.open_until),
        ("what was used", at(5_000), at(5_000))
    );
}

#[test]
fn a_budget_that_died_frees_its_lanes_at_once_and_what_followed_its_checkpoint_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    first.meet(&["a"]);
    first.beat(1_000);
    drop(first);
    assert_eq!(second.beat(1_700), 1);
    let checkpoint = second.lane("a").checkpoint.clone().unwrap();
    assert_eq!((checkpoint.at, checkpoint.open_until), (at(1_000), at(1_700)));
}

#[test]
fn a_budget_that_hangs_loses_its_lanes_with_the_lease_and_finds_its_epoch_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    first.meet(&["a"]);
    first.beat(1_000);
    let ends_ms = 1_000 + LANE_LEASE.as_millis() as i64;
    assert_eq!(second.beat(ends_ms - 1), 0);
    assert_eq!(second.beat(ends_ms), 1);
    let checkpoint = second.lane("a").checkpoint.clone().unwrap();
    assert_eq!((checkpoint.at, checkpoint.open_until), (at(1_000), at(ends_ms)));

    let late = first.report("from long ago");
    assert_eq!(first.beat_with(ends_ms + 1, &late), 0);
    second.beat(ends_ms + 2);
    assert_eq!(second.lane("a").checkpoint.as_ref().unwrap().state, "state", "what it told is not taken");
}

#[test]
fn one_lane_goes_round() {
    let dir = tempfile::tempdir().unwrap();
    let mut budgets = [Budget::enter(&open(&dir)), Budget::enter(&open(&dir)), Budget::enter(&open(&dir))];
    budgets[0].meet(&["a"]);
    let mut beats_held = [0; 3];
    for second in 0..360 {
        let held: Vec<usize> = budgets.iter_mut().map(|budget| budget.beat(second * 1_000)).collect();
        for (beats, held) in beats_held.iter_mut().zip(&held) {
            *beats += held;
        }
        let holders = budgets.iter().filter(|budget| !budget.held().is_empty()).count();
        assert!(holders <= 2, "a view is as old as its beat");
    }
    assert!(beats_held.iter().all(|beats| (90..=125).contains(beats)), "{beats_held:?}");
}

#[test]
fn what_guests_used_is_told_to_the_holder_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    first.meet(&["a"]);
    second.wants_lanes = false;
    let mut beat = second.report("");
    beat.users[0].lanes.push(guest("a", Some("two calls")));
    second.beat_with(500, &beat);
    assert_eq!(second.lane("a").guests.len(), 1, "the guest sees what the holder has not counted");
    first.beat(1_000);
    let guests = &first.lane("a").guests;
    assert_eq!((guests[0].used.as_str(), guests[0].at), ("two calls", at(500)));
    first.beat(2_000);
    assert_eq!(first.lane("a").guests, []);
}

#[test]
fn what_guests_used_of_a_lane_nobody_holds_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = open(&dir);
    let mut only = Budget::enter(&lanes);
    only.wants_lanes = false;
    only.meet(&["a"]);
    for minute in 0..30 {
        let mut beat = only.report("state");
        beat.users[0].lanes = vec![guest("a", Some("a call"))];
        only.beat_with(minute * 60_000, &beat);
    }
    assert_eq!(only.lane("a").guests.len(), 11, "ten minutes and this one");
}

#[test]
fn a_server_that_is_gone_is_gone_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    first.meet(&["a", "b"]);
    let mut beat = first.report("state");
    beat.users[0].lanes[0].standing = Standing::Gone;
    first.beat_with(1_000, &beat);
    second.beat(1_001);
    assert_eq!(second.lanes.iter().map(|lane| lane.server.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn rows_of_a_day_are_counted_over_all_budgets() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Budget::enter(&open(&dir)), Budget::enter(&open(&dir)));
    let day_ms = 24 * 3_600 * 1_000;
    let count = |budget: &Budget, ms: i64, rows: u64| {
        let rows = RowsBeat { pool: "crm".to_owned(), rows, since: at(ms - day_ms) };
        budget.seat.beat(at(ms), &Beat { rows: Some(rows), ..Beat::default() }).unwrap().rows
    };
    assert_eq!(count(&first, 0, 100), 100);
    assert_eq!(count(&second, 1_000, 50), 150);
    assert_eq!(count(&first, day_ms - 1_000, 0), 150);
    assert_eq!(count(&first, day_ms + 120_000, 1), 1, "a day later they are free again");
}

#[test]
fn the_newest_word_of_a_budget_can_be_read_while_it_runs_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = open(&dir);
    let mut budget = Budget::enter(&lanes);
    budget.meet(&["a"]);
    let beat = Beat { snapshot: "{}".to_owned(), ..budget.report("state") };
    budget.beat_with(1_000, &beat);
    let record = lanes.budgets().unwrap().remove(0);
    assert_eq!((record.connection.as_str(), record.is_alive, record.at), ("crm", true, at(1_000)));
    let holder = lanes.holders().unwrap().remove(0);
    assert_eq!((holder.server.as_str(), holder.pid), ("a", std::process::id()));
    drop(budget);
    assert!(!lanes.budgets().unwrap()[0].is_alive);
    assert_eq!(lanes.holders().unwrap(), []);
}

#[test]
fn a_file_of_something_else_and_a_newer_one_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let database = rusqlite::Connection::open(dir.path().join("lanes.db")).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    let error = SqliteLanes::open(dir.path()).unwrap_err();
    assert_eq!(error.code(), flowgate_core::Code::STATE_NEWER);
    database.pragma_update(None, "application_id", 7).unwrap();
    assert!(SqliteLanes::open(dir.path()).unwrap_err().to_string().ends_with("is not a state file of Flowgate"));
}
