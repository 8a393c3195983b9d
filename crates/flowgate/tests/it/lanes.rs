//! Budgets of several processes over one table of lanes, in simulated time: together they never use more
//! than the service allows, and each comes forward.
#![expect(clippy::unwrap_used, reason = "in a simulation, a step that fails is a test that fails")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::ports::LaneLeases;
use flowgate_core::{Clock, Elapsed};
use flowgate_dataverse::budget::{AnswerFacts, Cost, Ended, Grant, LaneKeeper, Policy, PolicySettings, Verdict};
use flowgate_store::SqliteLanes;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

const TICK_S: f64 = 0.1;
const WINDOW_S: f64 = 300.0;
const EXECUTION_S: f64 = 1_200.0;

/// Of every answer; learnt from those that take nothing else.
const NETWORK_S: f64 = 0.06;

/// A batch takes a second, an interactive request a twenty-fifth.
const BATCH: Cost = Cost { busy: Duration::from_secs(1), entitlement: 100 };
const CALL: Cost = Cost { busy: Duration::from_millis(40), entitlement: 1 };

/// A process's clock: they agree about the time of day and about nothing else.
#[derive(Debug)]
struct SimulatedClock {
    started_s: f64,
    now_s: Mutex<f64>,
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let now = SignedDuration::from_secs_f64(*self.now_s.lock().unwrap());
        Timestamp::from_second(1_800_000_000).unwrap() + now
    }

    fn elapsed(&self) -> Elapsed {
        Elapsed(Duration::from_secs_f64(*self.now_s.lock().unwrap() - self.started_s))
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        unreachable!("simulated time does not wait")
    }
}

/// The servers' own counters: when each request ended and what it took.
struct Service {
    servers: Vec<VecDeque<(f64, f64)>>,
    /// The most that any server ever held in its window.
    most_s: f64,
    drawn: usize,
    has_headers: bool,
}

impl Service {
    fn new(servers: usize, has_headers: bool) -> Self {
        Self { servers: vec![VecDeque::new(); servers], most_s: 0.0, drawn: 0, has_headers }
    }

    fn used_s(&mut self, server: usize, now_s: f64) -> f64 {
        let window = &mut self.servers[server];
        while window.front().is_some_and(|(at_s, _)| *at_s <= now_s - WINDOW_S) {
            window.pop_front();
        }
        window.iter().map(|(_, busy_s)| busy_s).sum()
    }

    fn answer(&mut self, server: usize, now_s: f64, busy_s: f64) -> AnswerFacts {
        self.servers[server].push_back((now_s, busy_s));
        let used_s = self.used_s(server, now_s);
        self.most_s = self.most_s.max(used_s);
        AnswerFacts {
            duration: Duration::from_secs_f64(NETWORK_S + busy_s),
            cookie: Some(Arc::from(format!("server-{server}"))),
            remaining_seconds: self.has_headers.then_some(EXECUTION_S - used_s),
            remaining_requests: self.has_headers.then_some(5_000.0),
            parallel_hint: Some(16),
        }
    }

    fn server(&mut self, grant: &Grant) -> usize {
        if let Some(cookie) = &grant.cookie {
            return cookie.trim_start_matches("server-").parse().unwrap();
        }
        self.drawn += 1;
        self.drawn % self.servers.len()
    }
}

struct Process {
    policy: Mutex<Policy>,
    clock: SimulatedClock,
    keeper: LaneKeeper,
    beat_at: Elapsed,
    under_way: Vec<(f64, usize, Grant)>,
    /// Batches that ended, and interactive requests; the longest that one of these waited.
    batches: u32,
    calls: u32,
    call_since_s: Option<f64>,
    call_wait_s: f64,
    has_batches: bool,
}

impl Process {
    fn start(dir: &Path, now_s: f64) -> Self {
        let clock = SimulatedClock { started_s: now_s - 77.7, now_s: Mutex::new(now_s) };
        let leases: Arc<dyn LaneLeases> = Arc::new(SqliteLanes::open(dir).unwrap());
        let policy = Mutex::new(Policy::new(&PolicySettings { users: 1, daily: None, seed: 3 }));
        let (identity, pool) = ("crm app".to_owned(), "crm".to_owned());
        let keeper = LaneKeeper::enter(leases.as_ref(), "crm", vec![identity], pool, 1.0, clock.now()).unwrap();
        keeper.join(&policy, &clock, |_| String::new()).unwrap();
        let beat_at = clock.elapsed();
        Self {
            policy,
            clock,
            keeper,
            beat_at,
            under_way: Vec::new(),
            batches: 0,
            calls: 0,
            call_since_s: None,
            call_wait_s: 0.0,
            has_batches: true,
        }
    }

    fn tick(&mut self, now_s: f64, service: &mut Service) {
        *self.clock.now_s.lock().unwrap() = now_s;
        let now = self.clock.elapsed();
        let (ended, under_way) = std::mem::take(&mut self.under_way).into_iter().partition(|(at_s, ..)| *at_s <= now_s);
        self.under_way = under_way;
        for (_, server, grant) in ended {
            self.end(now, now_s, server, &grant, service);
        }
        if now >= self.beat_at.after(self.keeper.until_beat(&self.policy, now)) {
            self.keeper.beat(&self.policy, &self.clock, |_| String::new()).unwrap();
            self.beat_at = now;
        }
        if self.call_since_s.is_none() && (now_s * 10.0).round() as i64 % 10 == 0 {
            self.call_since_s = Some(now_s);
        }
        if let Some(since_s) = self.call_since_s
            && self.send(now, now_s, Class::Interactive, CALL, service)
        {
            self.call_wait_s = self.call_wait_s.max(now_s - since_s);
            self.call_since_s = None;
        }
        while self.has_batches && self.send(now, now_s, Class::Batch, BATCH, service) {}
    }

    fn send(&mut self, now: Elapsed, now_s: f64, class: Class, cost: Cost, service: &mut Service) -> bool {
        let mut policy = self.policy.lock().unwrap();
        let verdict = policy.ask(now, class, cost);
        // Whoever is not let in waits.
        if let Verdict::Admitted(grant) = verdict {
            drop(policy);
            let server = service.server(&grant);
            self.under_way.push((now_s + cost.busy.as_secs_f64(), server, grant));
            return true;
        }
        policy.start_waiting(class);
        policy.stop_waiting(class);
        false
    }

    fn end(&mut self, now: Elapsed, now_s: f64, server: usize, grant: &Grant, service: &mut Service) {
        // What asks for nothing takes no time, and shows what the network takes.
        let busy_s = if self.calls == 0 { 0.0 } else { grant.cost.busy.as_secs_f64() };
        let facts = service.answer(server, now_s, busy_s);
        self.policy.lock().unwrap().complete(now, grant, &Ended::Answered(facts));
        match grant.class {
            Class::Batch => self.batches += 1,
            _ => self.calls += 1,
        }
    }

    fn leave(self) {
        self.keeper.leave(&self.policy, &self.clock, |_| String::new()).unwrap();
    }
}

fn run(processes: &mut [Process], service: &mut Service, from_s: f64, to_s: f64) {
    let ticks = ((to_s - from_s) / TICK_S).round() as u32;
    for tick in 0..ticks {
        let now_s = from_s + f64::from(tick) * TICK_S;
        for process in &mut *processes {
            process.tick(now_s, service);
        }
    }
}

fn assert_within_limits(service: &Service) {
    assert!(service.most_s <= EXECUTION_S, "{} s were used of {EXECUTION_S}", service.most_s);
}

#[test]
fn two_processes_share_four_servers_within_the_limits_and_equally() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(4, true);
    let mut first = vec![Process::start(dir.path(), 0.0)];
    run(&mut first, &mut service, 0.0, 60.0);
    let alone = first[0].batches;
    let mut both = vec![first.remove(0), Process::start(dir.path(), 60.0)];
    run(&mut both, &mut service, 60.0, 900.0);
    assert_within_limits(&service);
    let (one, other) = (f64::from(both[0].batches - alone), f64::from(both[1].batches));
    assert!(other > 0.8 * one, "{one} and {other}");
    let all_s = 4.0 * EXECUTION_S * 900.0 / WINDOW_S;
    assert!(f64::from(alone) + one + other > 0.95 * all_s, "{alone}, {one} and {other} of {all_s}");
}

#[test]
fn without_headers_two_processes_fill_one_window_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(4, false);
    let mut both = vec![Process::start(dir.path(), 0.0), Process::start(dir.path(), 0.0)];
    run(&mut both, &mut service, 0.0, 250.0);
    assert_within_limits(&service);
    let all = f64::from(both[0].batches + both[1].batches);
    // Servers that were never met count as full for a window.
    assert!(all > 0.45 * 4.0 * EXECUTION_S, "{all}");
}

#[test]
fn one_server_goes_round() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(1, true);
    let mut both = vec![Process::start(dir.path(), 0.0), Process::start(dir.path(), 0.0)];
    run(&mut both, &mut service, 0.0, 900.0);
    assert_within_limits(&service);
    let (one, other) = (f64::from(both[0].batches), f64::from(both[1].batches));
    assert!(one.min(other) > 0.6 * one.max(other), "{one} and {other}");
    assert!(one + other > 0.85 * 4.0 * 900.0, "{one} and {other}");
    for process in &both {
        assert!(process.calls > 880 && process.call_wait_s < 1.5, "{}: {} s", process.calls, process.call_wait_s);
    }
}

#[test]
fn interactive_requests_of_a_process_without_a_lane_do_not_wait_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(1, true);
    let mut both = vec![Process::start(dir.path(), 0.0), Process::start(dir.path(), 0.0)];
    both[1].has_batches = false;
    run(&mut both, &mut service, 0.0, 700.0);
    assert_within_limits(&service);
    assert!(both[1].calls > 680 && both[1].call_wait_s < 1.5, "{}: {} s", both[1].calls, both[1].call_wait_s);
    assert!(both[0].batches > 2_500, "{}", both[0].batches);
}

#[test]
fn a_process_that_dies_leaves_its_lanes_and_what_it_used() {
    // Without headers the ledger alone has to know it.
    for (has_headers, dies_s, ends_s) in [(true, 400.3, 900.0), (false, 150.3, 200.0)] {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::new(4, has_headers);
        let mut both = vec![Process::start(dir.path(), 0.0), Process::start(dir.path(), 0.0)];
        run(&mut both, &mut service, 0.0, dies_s);
        let dead = both.remove(0);
        // What was under way ends, and nobody hears of it.
        for (_, server, grant) in &dead.under_way {
            service.answer(*server, dies_s, grant.cost.busy.as_secs_f64());
        }
        drop(dead);
        let before = both[0].batches;
        run(&mut both, &mut service, dies_s, ends_s);
        assert_within_limits(&service);
        let all_s = 4.0 * EXECUTION_S * (ends_s - dies_s) / WINDOW_S;
        let after = f64::from(both[0].batches - before);
        assert!(!has_headers || after > 0.85 * all_s, "{after} of {all_s}");
    }
}

#[test]
fn a_run_that_follows_at_once_continues_the_window_and_waits_for_nothing() {
    // Without headers limits are sought above the documented ones, but not in the first minute.
    for (has_headers, ends_s) in [(true, 451.0), (false, 209.0)] {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::new(4, has_headers);
        let mut first = vec![Process::start(dir.path(), 0.0)];
        run(&mut first, &mut service, 0.0, 150.0);
        let used = first[0].batches;
        first.remove(0).leave();
        let mut second = vec![Process::start(dir.path(), 151.0)];
        run(&mut second, &mut service, 151.0, ends_s);
        assert_within_limits(&service);
        let both = f64::from(used + second[0].batches);
        assert!(!has_headers || both > 0.9 * 4.0 * EXECUTION_S * ends_s / WINDOW_S, "{both}");
        assert!(has_headers || second[0].batches > 300, "{used} and {}", second[0].batches);
    }
}
