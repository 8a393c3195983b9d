//! When a request may go, and to which web server: a state machine over times and numbers that are
//! passed in.
//!
//! The service limits what each user may use of each of its servers in 300 s. All of that use is
//! ours to count, so nothing has to be learnt by being refused: requests are paced along a ledger for
//! each (user, server), a [`Lane`], and go to the lane with the most room. The rules, each in the file
//! of its concern, are those of section 2.2 of the performance notes.
//!
//! Promised: nothing is sent into a closed lane; urgent requests never wait for batches; an answer's
//! headers lower what a lane is believed to have left, and raise it only after a whole window, or
//! after an outage with the same story told several times. Where lanes are shared with other budgets,
//! batches go only into those that this one holds.
//!
//! Left out: clocks, waiting and waking (the budget's), and retrying (the client's).

mod sharing;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;

use super::classes::{Role, is_paced};
use super::discovery::{DRAWS_AT_ONCE, Discovery};
use super::entitlement::Entitlement;
use super::facts::{AnswerFacts, Cost, Ended, Grant, Throttled, ThrottledBy, Verdict};
use super::lane::{Hold, Lane, LaneId, Room};
use super::network::Network;
use super::random::Random;
use super::retry_after;
use super::snapshot::{EntitlementSnapshot, Snapshot, WaitingSnapshot};
use super::window::Usage;
pub(super) use sharing::{Ages, LanesTold};

/// Until a hint is known: one web server, four requests at a time.
const PARALLEL_UNKNOWN: u32 = 4;

/// More than this many times the hint is never under way (the hint is used for nothing else).
const HINT_EXCEEDED_MAX: u32 = 4;

/// A busy server runs this many requests at a time within its time limit (1,200 s in 300 s).
const PARALLEL_PER_SERVER: u32 = 4;

/// Blocks end a little later than asked, so that processes do not return together: by a tenth, and by
/// no more than matters to callers who wait.
const BLOCK_JITTER: f64 = 0.1;
const BLOCK_JITTER_S_MAX: f64 = 3.0;

/// A lane without a server is given up after this long; its server would be found again by a draw.
const DOWN_FOR_S_MAX: f64 = 300.0;

/// While a lane is down for less than this, no draw is made that could land on it.
const DRAW_AVOIDS_DOWN_S: f64 = 60.0;

/// Urgent requests that may be under way before any server is known.
const FIRST_IN_FLIGHT_MAX: u32 = 8;

/// What a trial is expected to take: WhoAmI, the cheapest request there is.
const TRIAL: Cost = Cost { busy: Duration::from_millis(40), entitlement: 1 };

/// The bound on lanes, against a service that sets a new cookie with every answer.
const LANES_MAX: usize = 256;

/// What the policy is set up with.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// Application users, each with limits of its own.
    pub users: u16,
    /// Rows a day.
    pub daily: Option<u64>,
    /// Spreads the returns of several processes after a refusal.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Policy {
    lanes: Vec<Lane>,
    next_lane: LaneId,
    /// What each application user is for.
    users: Vec<Role>,
    discovery: Discovery,
    batches_in_flight: u32,
    next_user: u16,
    network: Network,
    parallel_hint: Option<u32>,
    entitlement: Entitlement,
    /// Requests that wait, by class.
    waiting: [u32; 4],
    share: f64,
    refusals_in_a_row: u32,
    random: Random,
    /// New lanes belong to others until they are given to us.
    is_shared: bool,
    /// When a batch last asked.
    batch_asked_s: f64,
    /// Lanes without a server that the others have not been told of.
    gone: Vec<(u16, Option<Arc<str>>)>,
}

impl Policy {
    pub fn new(settings: &PolicySettings) -> Self {
        Self {
            lanes: Vec::new(),
            next_lane: 0,
            users: vec![Role::All; usize::from(settings.users.max(1))],
            discovery: Discovery::new(0.0),
            batches_in_flight: 0,
            next_user: 0,
            network: Network::default(),
            parallel_hint: None,
            entitlement: Entitlement::new(settings.daily),
            waiting: [0; 4],
            share: 1.0,
            refusals_in_a_row: 0,
            random: Random::new(settings.seed),
            is_shared: false,
            batch_asked_s: f64::NEG_INFINITY,
            gone: Vec::new(),
        }
    }

    /// Says what each application user is for; those not named are for all.
    pub fn set_roles(&mut self, roles: &[Role]) {
        for (user, role) in self.users.iter_mut().zip(roles) {
            *user = *role;
        }
    }

    /// The part of the limits that batch and export work may use from now on.
    pub fn set_share(&mut self, share: f64) {
        self.share = if share.is_finite() { share.clamp(0.01, 1.0) } else { 1.0 };
    }

    pub fn start_waiting(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    pub fn stop_waiting(&mut self, class: Class) {
        self.waiting[class as usize] = self.waiting[class as usize].saturating_sub(1);
    }

    /// Batches that may be under way at once.
    pub fn parallel_max(&self, now: Elapsed) -> u32 {
        let now_s = now.0.as_secs_f64();
        let unknown = self.parallel_hint.unwrap_or(PARALLEL_UNKNOWN);
        let known: f64 = self.lanes.iter().map(|lane| lane.parallel(now_s, self.share)).sum();
        let least = if self.has_found_all() { 1.0 } else { (f64::from(unknown) * self.share).max(1.0) };
        known.max(least).min(f64::from(self.hint_max())) as u32
    }

    /// Whether a request of this class and cost may go now.
    pub fn ask(&mut self, now: Elapsed, class: Class, cost: Cost) -> Verdict {
        let now_s = now.0.as_secs_f64();
        if is_paced(class) {
            self.batch_asked_s = now_s;
            if let Some(daily) = self.entitlement.refuses(now_s, cost.entitlement) {
                return Verdict::DailyBudgetUsed { daily };
            }
            if self.waiting[..class as usize].iter().any(|waiting| *waiting > 0) {
                return Verdict::AfterCompletion;
            }
        }
        self.retire_dead(now_s);
        if self.lanes.is_empty() {
            let most = if is_paced(class) { DRAWS_AT_ONCE } else { FIRST_IN_FLIGHT_MAX };
            let may_go = self.discovery.under_way() < most;
            return if may_go { self.grant(now, class, cost, None) } else { Verdict::AfterCompletion };
        }
        if is_paced(class) {
            if let Some(index) = self.lane_to_try(now_s) {
                return self.grant_trial(now, class, index);
            }
        }
        match self.choose(now_s, class, cost.busy.as_secs_f64()) {
            Choice::Lane(_) if self.may_draw(now_s) => self.grant(now, class, cost, None),
            Choice::Lane(index) => self.grant(now, class, cost, Some(index)),
            Choice::Trial(index) => self.grant_trial(now, class, index),
            Choice::At(at_s) => Verdict::NotBefore(later(now, at_s)),
            Choice::AfterCompletion => Verdict::AfterCompletion,
        }
    }

    /// A request is over. Returns what it took of the service's time.
    pub fn complete(&mut self, now: Elapsed, grant: &Grant, ended: &Ended) -> Duration {
        let now_s = now.0.as_secs_f64();
        if is_paced(grant.class) {
            self.batches_in_flight = self.batches_in_flight.saturating_sub(1);
        }
        let facts = match ended {
            Ended::Answered(facts) => {
                self.network.observe(now_s, facts.duration);
                self.parallel_hint = facts.parallel_hint.filter(|hint| *hint > 0).or(self.parallel_hint);
                self.refusals_in_a_row = 0;
                Some(facts)
            }
            Ended::Throttled(facts, _) | Ended::Unavailable(facts) => Some(facts),
            Ended::Abandoned => None,
        };
        let busy_s = self.service_s(grant, ended);
        let lane = self.settle(now_s, grant, busy_s, facts);
        match ended {
            Ended::Answered(facts) => self.answered(now_s, lane, grant, facts),
            Ended::Throttled(_, throttled) => self.throttled(now_s, lane, grant.user, *throttled),
            Ended::Abandoned if !grant.is_trial => {}
            // A trial that nobody answered has told what it was to tell.
            Ended::Unavailable(_) | Ended::Abandoned => {
                let jitter = self.random.fraction();
                if let Some(lane) = lane {
                    self.lanes[lane].is_unreachable(now_s, grant.sent_s, jitter);
                }
            }
        }
        Duration::from_secs_f64(busy_s)
    }

    pub fn snapshot(&mut self, now: Elapsed) -> Snapshot {
        let now_s = now.0.as_secs_f64();
        let parallel_max = self.parallel_max(now);
        let share = self.share;
        let [interactive, events, batch, export] = self.waiting;
        Snapshot {
            lanes: self.lanes.iter_mut().map(|lane| lane.snapshot(now_s, share)).collect(),
            discovery_is_complete: self.has_found_all(),
            parallel_hint: self.parallel_hint,
            parallel_max,
            share,
            network_ms: 1_000.0 * self.network.floor_s(),
            waiting: WaitingSnapshot { interactive, events, batch, export },
            entitlement: EntitlementSnapshot { used: self.entitlement.used(now_s), daily: self.entitlement.daily() },
        }
    }

    /// Whether a request that has room in some lane should go without a cookie instead, to whichever
    /// server the service chooses.
    fn may_draw(&self, now_s: f64) -> bool {
        // Where no cookies are, or where a draw could land in a closed lane, none is made.
        let avoids = |lane: &Lane| {
            let is_avoided = !lane.gate.is_down() || lane.gate.down_for_s(now_s) < DRAW_AVOIDS_DOWN_S;
            lane.cookie.is_none() || (!lane.gate.is_open(now_s) && is_avoided)
        };
        // A draw lands anywhere: who holds no lane has no business there.
        let has_lanes = self.lanes.iter().any(|lane| lane.is_ours(now_s));
        has_lanes && self.discovery.wants_draw(now_s, self.servers()) && !self.lanes.iter().any(avoids)
    }

    fn choose(&mut self, now_s: f64, class: Class, cost_s: f64) -> Choice {
        if is_paced(class) { self.choose_for_batch(now_s, cost_s) } else { self.choose_for_urgent(now_s, cost_s) }
    }

    /// The lane with the most credit of those that have room.
    fn choose_for_batch(&mut self, now_s: f64, cost_s: f64) -> Choice {
        let parallel_max = self.hint_max();
        if self.batches_in_flight >= parallel_max {
            return Choice::AfterCompletion;
        }
        let share = self.share;
        let (mut best, mut earliest_s) = (None, f64::INFINITY);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if !lane.is_ours(now_s) || !self.users[usize::from(lane.user)].fits(Class::Batch) {
                continue;
            }
            lane.tick(now_s);
            match lane.batch_room(now_s, lane.expected_s(cost_s), share) {
                Room::Now { credit } if best.is_none_or(|(most, _)| credit > most) => best = Some((credit, index)),
                Room::Now { .. } | Room::AfterCompletion => {}
                Room::At(at_s) => earliest_s = earliest_s.min(at_s),
            }
        }
        match best {
            Some((_, index)) => Choice::Lane(index),
            None if earliest_s.is_finite() => Choice::At(earliest_s),
            None => Choice::AfterCompletion,
        }
    }

    /// The lane that urgent requests have used least, for its limit, of those that have room. It
    /// depends on urgent requests alone, so batches change neither their spread nor their speed.
    ///
    /// They never wait for a lane to be given to us: if ours have no room, or we hold none, they go into
    /// any other as guests. Its holder is told within a second, counts it, and keeps room for as much.
    fn choose_for_urgent(&mut self, now_s: f64, cost_s: f64) -> Choice {
        let (mut best, mut earliest_s) = (None, now_s + 1.0);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if !self.users[usize::from(lane.user)].fits(Class::Interactive) {
                continue;
            }
            if !lane.has_urgent_room(now_s, cost_s) {
                earliest_s = earliest_s.min(lane.gate.next_s(now_s).unwrap_or(f64::INFINITY));
                continue;
            }
            let use_share = lane.urgent.rate(now_s).busy_s / lane.limits().busy_s;
            let order = (lane.hold == Hold::Guest, use_share);
            if best.is_none_or(|(least, _)| order < least) {
                best = Some((order, index));
            }
        }
        if let Some((_, index)) = best {
            return Choice::Lane(index);
        }
        // With no server to serve them, they look themselves whether one is back.
        match self.lane_to_try(now_s) {
            Some(index) => Choice::Trial(index),
            None => Choice::At(earliest_s.max(now_s + 0.01)),
        }
    }

    fn lane_to_try(&self, now_s: f64) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.wants_trial(now_s))
    }

    /// A server that was away is first met by a read: a write that is cut must be looked for
    /// afterwards, row by row, and would find nobody to ask.
    fn grant_trial(&mut self, now: Elapsed, class: Class, lane: usize) -> Verdict {
        self.lanes[lane].begin_trial();
        match self.grant(now, class, TRIAL, Some(lane)) {
            Verdict::Admitted(grant) => Verdict::Admitted(Grant { is_trial: true, ..grant }),
            other => other,
        }
    }

    fn grant(&mut self, now: Elapsed, class: Class, cost: Cost, lane: Option<usize>) -> Verdict {
        let now_s = now.0.as_secs_f64();
        self.entitlement.add(now_s, cost.entitlement);
        if is_paced(class) {
            self.batches_in_flight += 1;
        }
        let expected_s = cost.busy.as_secs_f64();
        let mut grant = Grant {
            class,
            cost,
            user: 0,
            cookie: None,
            is_trial: false,
            sent_s: now_s,
            lane: None,
            expected_s,
            used_then: Usage::default(),
        };
        if let Some(lane) = lane.map(|index| &mut self.lanes[index]) {
            if is_paced(class) {
                grant.expected_s = lane.expected_s(expected_s);
            }
            grant.used_then = lane.send(now_s, class, grant.expected_s);
            (grant.user, grant.lane, grant.cookie) = (lane.user, Some(lane.id), lane.cookie.clone());
        } else {
            self.discovery.draw(now_s);
            grant.user = self.draw_user(class);
        }
        Verdict::Admitted(grant)
    }

    /// The users take turns to look for servers, those who may send such requests.
    fn draw_user(&mut self, class: Class) -> u16 {
        let count = self.users.len() as u16;
        let turns = (0..count).map(|turn| (self.next_user + turn) % count);
        let user = turns.into_iter().find(|user| self.users[usize::from(*user)].fits(class)).unwrap_or(0);
        self.next_user = (user + 1) % count;
        user
    }

    /// What a request took: measured, or as expected if nobody measured it.
    fn service_s(&self, grant: &Grant, ended: &Ended) -> f64 {
        match ended {
            Ended::Answered(facts) => self.network.service_s(facts.duration),
            Ended::Unavailable(facts) => self.network.service_s(facts.duration).min(grant.cost.busy.as_secs_f64()),
            Ended::Throttled(..) => 0.0,
            Ended::Abandoned => grant.cost.busy.as_secs_f64(),
        }
    }

    /// Charges the lane that answered, which is met here if it is new. `None`: nobody said who it was.
    fn settle(&mut self, now_s: f64, grant: &Grant, busy_s: f64, facts: Option<&AnswerFacts>) -> Option<usize> {
        let said = facts.and_then(|facts| facts.cookie.as_ref());
        let sent_to = grant.lane.and_then(|id| self.lanes.iter().position(|lane| lane.id == id));
        if let Some(index) = sent_to {
            let lane = &mut self.lanes[index];
            lane.finish(now_s, grant.class, grant.expected_s, busy_s);
            if grant.is_trial {
                lane.end_trial();
            }
            // Sent without the lane's cookie, a request may be answered by anybody.
            let is_bound = lane.cookie.is_none() || grant.cookie.is_some();
            match said {
                Some(said) if is_bound && lane.cookie.as_ref() != Some(said) => {}
                _ => return Some(index),
            }
            // Another server answered: this one is gone, or there was no telling them apart until now.
            let gone = lane.cookie.clone();
            self.retire(|lane| lane.cookie == gone);
        }
        let was_drawn = grant.lane.is_none();
        let answerer = if let Some(cookie) = said {
            Some(self.meet(now_s, grant.user, cookie, was_drawn))
        } else {
            if was_drawn {
                self.discovery.drawn(None);
            }
            let has_answered = facts.is_some_and(|facts| facts.duration > Duration::ZERO);
            (was_drawn && has_answered).then(|| self.pooled(now_s, grant.user)).flatten()
        };
        if let Some(index) = answerer {
            self.lanes[index].charge(now_s, grant.class, Usage { calls: 1.0, busy_s });
        }
        answerer
    }

    /// The lane of a server that named itself. A server that is new to one user is new to all.
    fn meet(&mut self, now_s: f64, user: u16, cookie: &Arc<str>, was_drawn: bool) -> usize {
        let find =
            |lanes: &[Lane]| lanes.iter().position(|lane| lane.user == user && lane.cookie.as_ref() == Some(cookie));
        let known = find(&self.lanes);
        match (was_drawn, known.is_none()) {
            (true, is_new) => self.discovery.drawn(Some(is_new)),
            (false, true) => self.discovery.found(),
            (false, false) => {}
        }
        if let Some(index) = known {
            return index;
        }
        self.retire(|lane| lane.cookie.is_none());
        if self.lanes.len() + self.users.len() > LANES_MAX {
            let oldest = self.lanes.remove(0);
            self.note_gone(&oldest);
        }
        for each in 0..self.users.len() as u16 {
            self.add_lane(now_s, each, Some(Arc::clone(cookie)), 1.0);
        }
        find(&self.lanes).unwrap_or_default()
    }

    /// The one lane of a service that sets no cookies; as many servers as the hint suggests.
    fn pooled(&mut self, now_s: f64, user: u16) -> Option<usize> {
        let servers = self.pooled_servers();
        if self.lanes.is_empty() {
            for each in 0..self.users.len() as u16 {
                self.add_lane(now_s, each, None, f64::from(servers));
            }
        }
        self.lanes.iter().position(|lane| lane.user == user && lane.cookie.is_none())
    }

    fn pooled_servers(&self) -> u32 {
        self.parallel_hint.unwrap_or(PARALLEL_UNKNOWN).div_ceil(PARALLEL_PER_SERVER).max(1)
    }

    fn add_lane(&mut self, now_s: f64, user: u16, cookie: Option<Arc<str>>, servers: f64) {
        let mut lane = Lane::new(self.next_lane, user, cookie, servers, now_s);
        if self.is_shared {
            lane.hold = Hold::Guest;
        }
        self.lanes.push(lane);
        self.next_lane += 1;
    }

    /// How many servers there are lanes of, whoever the user.
    fn servers(&self) -> usize {
        let cookies: HashSet<Option<&str>> = self.lanes.iter().map(|lane| lane.cookie.as_deref()).collect();
        cookies.len()
    }

    fn has_found_all(&self) -> bool {
        self.discovery.is_complete(self.servers())
    }

    fn retire(&mut self, is_gone: impl Fn(&Lane) -> bool) {
        let gone: Vec<Lane> = self.lanes.extract_if(.., |lane| is_gone(lane)).collect();
        for lane in &gone {
            self.note_gone(lane);
        }
    }

    fn retire_dead(&mut self, now_s: f64) {
        if self.lanes.iter().any(|lane| lane.gate.down_for_s(now_s) > DOWN_FOR_S_MAX) {
            self.retire(|lane| lane.gate.down_for_s(now_s) > DOWN_FOR_S_MAX);
        }
    }

    fn answered(&mut self, now_s: f64, lane: Option<usize>, grant: &Grant, facts: &AnswerFacts) {
        let Some(lane) = lane.map(|index| &mut self.lanes[index]) else { return };
        lane.is_reached(now_s);
        if is_paced(grant.class) {
            lane.learn_slowness(grant.cost.busy.as_secs_f64(), self.network.service_s(facts.duration));
        }
        // What the ledger knew is known only for requests that were sent to this lane, or met it first.
        let is_bound = grant.lane == Some(lane.id) && (grant.cookie.is_some() || lane.cookie.is_none());
        let is_known = is_bound || (grant.lane.is_none() && !lane.is_past_known(now_s));
        // Of another's lane the ledger knows too little to learn from what is left.
        if is_known && lane.hold != Hold::Guest {
            lane.observe(now_s, grant.used_then, facts.remaining_seconds, facts.remaining_requests);
        }
    }

    /// Closes the lane that refused; all of the user's if it did not say who it is.
    fn throttled(&mut self, now_s: f64, lane: Option<usize>, user: u16, throttled: Throttled) {
        self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
        let wait = throttled.retry_after.unwrap_or_else(|| retry_after::without(self.refusals_in_a_row));
        let jitter_s = (BLOCK_JITTER * wait.as_secs_f64()).min(BLOCK_JITTER_S_MAX) * self.random.fraction();
        let wait = wait + Duration::from_secs_f64(jitter_s);
        let Some(lane) = lane.map(|index| &mut self.lanes[index]) else {
            for lane in self.lanes.iter_mut().filter(|lane| lane.user == user) {
                lane.close(now_s, wait);
            }
            return;
        };
        lane.is_reached(now_s);
        match throttled.kind {
            ThrottledBy::ExecutionTime => lane.refused_time(now_s),
            ThrottledBy::Requests => lane.refused_requests(now_s),
            ThrottledBy::Concurrency => lane.refused_concurrency(now_s),
            ThrottledBy::Other => {}
        }
        lane.close(now_s, wait);
    }

    fn hint_max(&self) -> u32 {
        self.parallel_hint.map_or(u32::MAX, |hint| hint.saturating_mul(HINT_EXCEEDED_MAX))
    }
}

/// Where a request goes.
enum Choice {
    Lane(usize),
    /// To look whether the lane's server is back.
    Trial(usize),
    At(f64),
    AfterCompletion,
}

/// The moment `at_s`, a little after `now` at least.
fn later(now: Elapsed, at_s: f64) -> Elapsed {
    let at = Elapsed(Duration::from_secs_f64(at_s.clamp(0.0, 1e12)));
    at.max(now.after(Duration::from_millis(1)))
}
