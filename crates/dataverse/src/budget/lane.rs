//! One lane: what one application user may use of one web server, and whether it is open.
//!
//! A lane answers one question: may a request of this cost go now, and if not, when? Its parts are
//! the ledger ([`Window`]), the learnt limits ([`Limit`]), the pace ([`Pacer`]) and the gate. Rules
//! and constants are those of section 2.2 of the performance notes where no other reason is given.

mod handover;

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::destination::Class;

use super::classes::{UrgentUse, is_paced};
use super::gate::Gate;
use super::limits::{CONCURRENT, EXECUTION_S, Limit, REQUESTS};
use super::pacer::Pacer;
use super::snapshot::LaneSnapshot;
use super::window::{Spent, Usage, WINDOW_S, Window};
pub(super) use handover::{Hold, LaneState, Told};

/// Which lane, for as long as the process lives.
pub(super) type LaneId = u32;

/// The share of a limit that batches fill, by what is known of it: answers say what is left; only
/// the own ledger is known; many servers behind one ledger, on which requests fall unevenly. At 0.990
/// the steady simulation met 0.02 refusals in 1,000 requests, at 0.988 none.
const FILLED_WITH_HEADERS: f64 = 0.988;
const FILLED_BY_LEDGER: f64 = 0.985;
const FILLED_POOLED: f64 = 0.92;

/// What interactive requests and events may use of a limit: all but what is lost to rounding.
const FILLED_BY_URGENT: f64 = 0.995;

/// An empty window is used up faster: `pace (1 + gain * credit)`.
///
/// In the two windows after a lane was empty (at its start, after a restart, after its limit rose) the
/// gain is 2: three times the steady pace at first. Later it is small, so that what was used in a
/// burst does not come back as one in each window: with 2 always, callers of the simulation with
/// halved limits are held in 5.5 % of the time and not in 4.7 %, of which 4.3 % nobody can avoid;
/// with 0.6 always, throughput under restarts falls from 0.875 of the oracle's to 0.86.
const CREDIT_GAIN_EMPTY: f64 = 2.0;
const CREDIT_GAIN: f64 = 0.6;
const EMPTY_FOR_S: f64 = 2.0 * WINDOW_S;

/// A limit that is shown to be so much higher than just before is an emptier window too.
const RISEN: f64 = 1.25;

/// Batches under way in a lane: three times what runs on average when the time limit is used up
/// (1,200 s in 300 s is 4), as the greatest pace needs, and never more than most of the concurrency
/// limit.
const PARALLEL_GAIN: f64 = 3.0;
const PARALLEL_MIN: f64 = 3.0;
const CONCURRENT_USED: f64 = 0.9;

/// All requests under way, urgent ones included: what waited while a lane was closed must not meet
/// the concurrency limit when it opens. Without this bound the simulation with halved limits met 1.25
/// refusals in 1,000 requests, with it 0.09.
const URGENT_GAIN: f64 = 4.0;
const URGENT_MIN: f64 = 6.0;

/// After a refusal for concurrency this part of what was under way is the limit, and one more
/// each half minute.
const CONCURRENT_KEPT: f64 = 0.95;
const CONCURRENT_RECOVERY_S: f64 = 30.0;

/// After a refusal, and after an outage, the pace starts here and grows by a third each 10 s.
const RAMP_AFTER_REFUSAL: f64 = 0.3;
const RAMP_AFTER_OUTAGE: f64 = 0.5;
const RAMP_S: f64 = 30.0;

/// How far one batch moves the expectation for a server that is slower than others. Without it a
/// server three times as slow gets three times too many.
const SLOWNESS_FOLLOW: f64 = 0.2;
const SLOWNESS_MAX: f64 = 20.0;

/// Shorter requests tell more of the network than of the server.
const SLOWNESS_FROM_S: f64 = 0.25;

/// So many answers in a row after an outage must show a window that is not ours. Trials bring them:
/// where the window is full, no batch could.
const FORGOTTEN_ANSWERS: u32 = 3;

/// A server that restarts is away for longer than this; a connection that is cut is no restart.
const RESTART_S_MIN: f64 = 2.0;

/// How a lane meets a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Room {
    /// It may go; the lane with the most credit is the best.
    Now {
        credit: f64,
    },
    At(f64),
    AfterCompletion,
}

/// The end of the last outage, and the limit that was known by then.
#[derive(Debug, Clone, Copy)]
struct Outage {
    ended_s: f64,
    limit_before_s: f64,
}

/// Reads that look whether the server is back, one at a time, and what it remembers once it is.
#[derive(Debug, Clone, Copy, Default)]
struct Trials {
    is_under_way: bool,
    /// Still to be made after the one that reached the server.
    left: u32,
    /// When the last outage was over.
    reached_s: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) user: u16,
    /// The affinity cookie; `None` for all servers together, when the service sets none.
    pub(super) cookie: Option<Arc<str>>,
    /// How many web servers the lane stands for.
    pub(super) servers: f64,
    pub(super) gate: Gate,
    pub(super) in_flight: u32,
    pub(super) urgent: UrgentUse,
    batches_in_flight: u32,
    predicted_s: f64,
    window: Window,
    /// Since when the lane is known without its past being known.
    past_unknown_since_s: Option<f64>,
    time: Limit,
    calls: Limit,
    concurrent: (f64, f64),
    time_pacer: Pacer,
    calls_pacer: Pacer,
    ramp: (f64, f64),
    outage: Option<Outage>,
    trials: Trials,
    /// Since when the window is known to have been filled by us alone.
    empty_since_s: f64,
    forgotten_answers: u32,
    /// How much longer this server works than all do on average.
    slowness: f64,
    pub(super) hold: Hold,
    /// The budgets that share it know of it.
    pub(super) is_told: bool,
    /// Used as a guest, by class, and not told to the holder yet.
    pub(super) as_guest: [Usage; 4],
}

impl Lane {
    /// A lane that is met for the first time. Its past is unknown until an answer tells what is left.
    pub(super) fn new(id: LaneId, user: u16, cookie: Option<Arc<str>>, servers: f64, now_s: f64) -> Self {
        Self {
            id,
            user,
            cookie,
            servers,
            gate: Gate::default(),
            in_flight: 0,
            urgent: UrgentUse::new(now_s),
            batches_in_flight: 0,
            predicted_s: 0.0,
            window: Window::new(now_s),
            past_unknown_since_s: Some(now_s),
            time: Limit::new(EXECUTION_S * servers, now_s),
            calls: Limit::new(REQUESTS * servers, now_s),
            concurrent: (CONCURRENT * servers, now_s),
            time_pacer: Pacer::new(now_s),
            calls_pacer: Pacer::new(now_s),
            ramp: (1.0, now_s),
            outage: None,
            trials: Trials::default(),
            empty_since_s: now_s,
            forgotten_answers: 0,
            slowness: 1.0,
            hold: Hold::Alone,
            is_told: false,
            as_guest: [Usage::default(); 4],
        }
    }

    /// What a request is expected to take here.
    pub(super) fn expected_s(&self, cost_s: f64) -> f64 {
        self.slowness * cost_s
    }

    /// The share of the limits that is filled.
    fn filled(&self, now_s: f64) -> f64 {
        if self.cookie.is_none() {
            FILLED_POOLED
        } else if self.time.has_headers(now_s) {
            FILLED_WITH_HEADERS
        } else {
            FILLED_BY_LEDGER
        }
    }

    /// What counts as used: the ledger and, while the past is unknown, what somebody may have used who
    /// went at the steady pace and left when we came. It leaves the window evenly.
    pub(super) fn used(&mut self, now_s: f64) -> Usage {
        let used = self.window.used(now_s);
        self.with_unknown_past(now_s, used)
    }

    fn with_unknown_past(&self, now_s: f64, mut used: Usage) -> Usage {
        let unknown = self.past_unknown(now_s) * self.filled(now_s);
        used.busy_s += unknown * self.time.estimate();
        // Once answers tell how many requests are left, what others sent before is in that number.
        if !self.calls.has_headers(now_s) {
            used.calls += unknown * self.calls.estimate();
        }
        used
    }

    /// The part of the window of which nothing is known.
    fn past_unknown(&self, now_s: f64) -> f64 {
        self.past_unknown_since_s.map_or(0.0, |since_s| (1.0 - (now_s - since_s) / WINDOW_S).max(0.0))
    }

    /// Whether a batch of this cost may go.
    ///
    /// `used when it ends + under way + cost <= filled * limit - reserve`, the pace allows it, and fewer than
    /// `parallel` are under way. `share` of the limits is the batches'.
    pub(super) fn batch_room(&mut self, now_s: f64, cost_s: f64, share: f64) -> Room {
        match self.gate {
            Gate::Open => {}
            Gate::Closed { until_s } if now_s < until_s => return Room::At(until_s),
            Gate::Closed { .. } => {}
            Gate::Down { until_s, .. } if now_s < until_s => return Room::At(until_s),
            // A trial is under way.
            Gate::Down { .. } => return Room::AfterCompletion,
        }
        if f64::from(self.batches_in_flight) >= self.parallel(now_s, share)
            || f64::from(self.in_flight) >= CONCURRENT_USED * self.concurrent(now_s)
        {
            return Room::AfterCompletion;
        }
        let used = self.used(now_s);
        // The service counts a request when it ends: what leaves the window by then makes room for it.
        let ahead = Usage { busy_s: self.window.used_ahead(now_s, cost_s).busy_s, ..self.window.used(now_s) };
        let ahead = self.with_unknown_past(now_s, ahead);
        let budget = self.batch_budget(now_s, ahead, share);
        let is_alone = self.batches_in_flight == 0 && used.busy_s < budget.busy_s / 2.0;
        if (budget.busy_s < self.predicted_s + cost_s && !is_alone) || budget.calls < 1.0 {
            return Room::At(now_s.floor() + 1.0);
        }
        let pace = self.pace(now_s, used, share);
        self.time_pacer.refill(now_s, pace.busy_s, cost_s);
        self.calls_pacer.refill(now_s, pace.calls, 1.0);
        let wait_s = self.time_pacer.wait_s(pace.busy_s, cost_s).max(self.calls_pacer.wait_s(pace.calls, 1.0));
        if wait_s > 0.0 { Room::At(now_s + wait_s) } else { Room::Now { credit: self.credit(now_s, used) } }
    }

    /// Whether somebody should look now if the server is back, or what it remembers.
    ///
    /// Requests that were under way when it went may hang for minutes; they are not waited for.
    pub(super) fn wants_trial(&self, now_s: f64) -> bool {
        let is_due = match self.gate {
            Gate::Down { until_s, .. } => now_s >= until_s,
            Gate::Open => self.trials.left > 0,
            Gate::Closed { .. } => false,
        };
        is_due && !self.trials.is_under_way
    }

    pub(super) fn begin_trial(&mut self) {
        self.trials.is_under_way = true;
        self.trials.left = self.trials.left.saturating_sub(1);
    }

    pub(super) fn end_trial(&mut self) {
        self.trials.is_under_way = false;
    }

    /// What is left for batches in the window, without what is under way.
    fn batch_budget(&mut self, now_s: f64, used: Usage, share: f64) -> Usage {
        let filled = self.filled(now_s);
        // Somebody's past that counts as a full window holds the urgent requests of that time too.
        let known = 1.0 - self.past_unknown(now_s);
        let reserve = self.urgent.reserve(now_s, &mut self.window);
        let reserve = Usage { calls: known * reserve.calls, busy_s: known * reserve.busy_s };
        let by_batches = self.window.used_by(now_s, Class::Batch);
        let by_exports = self.window.used_by(now_s, Class::Export);
        let left = |limit: f64, used: f64, reserve: f64, batches: f64| {
            let all = filled * limit - used - reserve;
            if share < 1.0 { all.min(share * filled * limit - batches) } else { all }
        };
        Usage {
            busy_s: left(self.time.estimate(), used.busy_s, reserve.busy_s, by_batches.busy_s + by_exports.busy_s),
            calls: left(self.calls.estimate(), used.calls, reserve.calls, by_batches.calls + by_exports.calls),
        }
    }

    /// How empty the window is: 1 nothing used, 0 all of it.
    fn credit(&self, now_s: f64, used: Usage) -> f64 {
        let filled = self.filled(now_s);
        let time = 1.0 - used.busy_s / (filled * self.time.estimate()).max(1e-9);
        let calls = 1.0 - used.calls / (filled * self.calls.estimate()).max(1e-9);
        time.min(calls).clamp(0.0, 1.0)
    }

    /// Execution seconds and requests a second that batches may begin.
    ///
    /// `share (filled * limit / 300 s - urgent) (1 + gain * credit) ramp`: in an empty window up to
    /// three times the steady pace, in a full one exactly it.
    fn pace(&self, now_s: f64, used: Usage, share: f64) -> Usage {
        let filled = self.filled(now_s);
        let urgent = self.urgent.rate(now_s);
        let gain = if now_s - self.empty_since_s < EMPTY_FOR_S { CREDIT_GAIN_EMPTY } else { CREDIT_GAIN };
        let factor = share * (1.0 + gain * self.credit(now_s, used)) * self.ramp(now_s);
        let least = 0.05;
        let pace =
            |limit: f64, urgent: f64| factor * (filled * limit / WINDOW_S - urgent).max(least * limit / WINDOW_S);
        Usage { busy_s: pace(self.time.estimate(), urgent.busy_s), calls: pace(self.calls.estimate(), urgent.calls) }
    }

    /// Batches that may be under way.
    pub(super) fn parallel(&self, now_s: f64, share: f64) -> f64 {
        let steady = self.time.estimate() / WINDOW_S;
        let parallel = (PARALLEL_GAIN * steady).max(PARALLEL_MIN * self.servers) * share;
        parallel.min(CONCURRENT_USED * self.concurrent(now_s)).max(1.0).floor()
    }

    fn concurrent(&self, now_s: f64) -> f64 {
        let (bound, since_s) = self.concurrent;
        (bound + ((now_s - since_s) / CONCURRENT_RECOVERY_S).floor()).min(CONCURRENT * self.servers)
    }

    fn ramp(&self, now_s: f64) -> f64 {
        let (value, since_s) = self.ramp;
        (value + (now_s - since_s) / RAMP_S).min(1.0)
    }

    /// Whether an interactive request or an event may go. It never waits for batches.
    pub(super) fn has_urgent_room(&mut self, now_s: f64, cost_s: f64) -> bool {
        let steady = self.time.estimate() / WINDOW_S;
        let parallel = (URGENT_GAIN * steady).max(URGENT_MIN * self.servers);
        let parallel = parallel.min(CONCURRENT_USED * self.concurrent(now_s)).max(1.0);
        if !self.gate.is_open(now_s) || f64::from(self.in_flight) + 1.0 > parallel {
            return false;
        }
        let used = self.window.used(now_s);
        used.busy_s + cost_s <= FILLED_BY_URGENT * self.time.estimate()
            && used.calls < FILLED_BY_URGENT * self.calls.estimate()
    }

    /// A request goes. Returns what the ledger knew then, itself included.
    pub(super) fn send(&mut self, now_s: f64, class: Class, cost_s: f64) -> Usage {
        self.gate.open_if_due(now_s);
        self.in_flight += 1;
        self.charge(now_s, class, Usage { calls: 1.0, busy_s: 0.0 });
        if is_paced(class) {
            self.batches_in_flight += 1;
            self.predicted_s += cost_s;
            self.time_pacer.take(cost_s);
            self.calls_pacer.take(1.0);
        } else {
            self.urgent.add(now_s, Usage { calls: 1.0, busy_s: cost_s });
        }
        self.window.used(now_s)
    }

    /// A batch took `busy_s` and not the `cost_s` that it takes on average.
    pub(super) fn learn_slowness(&mut self, cost_s: f64, busy_s: f64) {
        if cost_s < SLOWNESS_FROM_S {
            return;
        }
        let seen = (busy_s / cost_s.max(1e-3)).clamp(1.0 / SLOWNESS_MAX, SLOWNESS_MAX);
        self.slowness += SLOWNESS_FOLLOW * (seen - self.slowness);
    }

    /// A request that [`Self::send`] let go is over and took `busy_s`.
    pub(super) fn finish(&mut self, now_s: f64, class: Class, cost_s: f64, busy_s: f64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.charge(now_s, class, Usage { calls: 0.0, busy_s });
        if is_paced(class) {
            self.batches_in_flight = self.batches_in_flight.saturating_sub(1);
            self.predicted_s = (self.predicted_s - cost_s).max(0.0);
            self.time_pacer.take(busy_s - cost_s);
        } else {
            self.urgent.add(now_s, Usage { calls: 0.0, busy_s: busy_s - cost_s });
        }
    }

    /// Counts what was used, with the holder's budget too if the lane is another's.
    pub(super) fn charge(&mut self, now_s: f64, class: Class, usage: Usage) {
        self.window.add(now_s, class, usage);
        if self.hold == Hold::Guest {
            let told = &mut self.as_guest[class as usize];
            *told = Usage { calls: told.calls + usage.calls, busy_s: told.busy_s + usage.busy_s };
        }
    }

    /// What is still to be told to the holder.
    pub(super) fn spent_as_guest(&self) -> Vec<Spent> {
        let classes = self.as_guest.iter().enumerate().filter(|(_, used)| used.calls > 0.0 || used.busy_s > 0.0);
        classes
            .map(|(class, used)| Spent { age_s: 0, class: class as u8, calls: used.calls, busy_s: used.busy_s })
            .collect()
    }

    /// An answer with what is left; `used_then` is what the ledger knew when its request went.
    /// Each of the two headers is worth something alone.
    pub(super) fn observe(&mut self, now_s: f64, used_then: Usage, seconds: Option<f64>, requests: Option<f64>) {
        if let Some(requests) = requests {
            self.calls.observe(now_s, used_then.calls, requests * self.servers);
        }
        let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) else { return };
        self.past_unknown_since_s = None;
        if (used_then.busy_s + seconds * self.servers).min(self.time.believed()) > RISEN * self.time.estimate() {
            self.empty_since_s = now_s;
        }
        self.time.observe(now_s, used_then.busy_s, seconds * self.servers);
        self.forget_if_restarted(now_s);
    }

    /// A server that was away and whose answers now show more than there can be has forgotten the
    /// window. Headers raise what is left in this one case, and only with both witnesses.
    fn forget_if_restarted(&mut self, now_s: f64) {
        let Some(outage) = self.outage.filter(|outage| now_s - outage.ended_s < WINDOW_S) else { return };
        let is_shown = self.time.is_shown_above(outage.limit_before_s);
        self.forgotten_answers = if is_shown { self.forgotten_answers + 1 } else { 0 };
        if self.forgotten_answers >= FORGOTTEN_ANSWERS {
            self.trials.left = 0;
            self.window.forget_before(now_s, outage.ended_s);
            self.empty_since_s = outage.ended_s;
            self.time.forget_above();
            self.calls.forget_above();
            self.outage = None;
            self.forgotten_answers = 0;
        }
    }

    /// An answer of any kind that the application gave: somebody is there.
    pub(super) fn is_reached(&mut self, now_s: f64) {
        let was_restarted = self.gate.down_for_s(now_s) >= RESTART_S_MIN;
        if self.gate.reached() {
            self.ramp = (RAMP_AFTER_OUTAGE, now_s);
            self.outage = Some(Outage { ended_s: now_s, limit_before_s: self.time.estimate() });
            self.forgotten_answers = 0;
            let left = if was_restarted { FORGOTTEN_ANSWERS - 1 } else { 0 };
            self.trials = Trials { left, reached_s: now_s, ..self.trials };
        }
    }

    /// A request that was sent at `sent_s` met nobody, or its connection was cut.
    pub(super) fn is_unreachable(&mut self, now_s: f64, sent_s: f64, jitter: f64) {
        // What was cut by an outage says nothing of the time after it.
        if sent_s >= self.trials.reached_s {
            self.gate.fail(now_s, jitter);
        }
    }

    pub(super) fn refused_time(&mut self, now_s: f64) {
        let used = self.used(now_s).busy_s;
        self.time.refused(now_s, used);
        self.ramp = (RAMP_AFTER_REFUSAL, now_s);
    }

    pub(super) fn refused_requests(&mut self, now_s: f64) {
        let used = self.used(now_s).calls;
        self.calls.refused(now_s, used);
        self.ramp = (RAMP_AFTER_REFUSAL, now_s);
    }

    /// `in_flight` counts the refused request no more.
    pub(super) fn refused_concurrency(&mut self, now_s: f64) {
        let bound = (CONCURRENT_KEPT * f64::from(self.in_flight)).max(1.0);
        self.concurrent = (bound.min(self.concurrent(now_s)), now_s);
    }

    /// Closes the lane, never for less than it is closed already.
    pub(super) fn close(&mut self, now_s: f64, wait: Duration) {
        self.gate.close(now_s + wait.as_secs_f64());
    }

    /// Rules that need no event but time.
    pub(super) fn tick(&mut self, now_s: f64) {
        let used = self.window.used(now_s);
        let filled = self.filled(now_s);
        self.time.probe(now_s, used.busy_s / filled);
        self.calls.probe(now_s, used.calls / filled);
    }

    pub(super) fn limits(&self) -> Usage {
        Usage { calls: self.calls.estimate(), busy_s: self.time.estimate() }
    }

    pub(super) fn snapshot(&mut self, now_s: f64, share: f64) -> LaneSnapshot {
        let used = self.used(now_s);
        let urgent =
            self.window.used_by(now_s, Class::Interactive).busy_s + self.window.used_by(now_s, Class::Events).busy_s;
        LaneSnapshot {
            user: self.user,
            server: self.cookie.as_deref().map(str::to_owned),
            state: self.gate.name(now_s).to_owned(),
            is_ours: self.is_ours(now_s),
            wait_s: self.gate.next_s(now_s).map_or(0.0, |at_s| at_s - now_s),
            in_flight: self.in_flight,
            parallel_max: self.parallel(now_s, share) as u32,
            used_s: used.busy_s,
            limit_s: self.time.estimate(),
            documented_s: self.time.documented(),
            used_requests: used.calls,
            limit_requests: self.calls.estimate(),
            documented_requests: self.calls.documented(),
            urgent_s: urgent,
            is_past_known: self.is_past_known(now_s),
        }
    }

    pub(super) fn is_past_known(&self, now_s: f64) -> bool {
        self.past_unknown_since_s.is_none_or(|since_s| now_s - since_s >= WINDOW_S)
    }
}
