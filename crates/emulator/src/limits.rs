//! Service protection: what one application user may use of one web server.
//!
//! A pure state machine; time is passed in, in simulated seconds. Per (user, server) it counts
//! requests when they arrive and execution time when they end, over a sliding window, and the
//! requests that run. The first two limits open a block that lasts until usage would be below
//! [`LimitSettings::resume_share`], at least [`LimitSettings::retry_after_min_s`], and every call
//! during the block lengthens it; the third refuses one call. Promise: a refused request leaves
//! no trace in the counters. Left out: the 24-hour entitlement, which refuses nothing.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The limits of a profile. `None` switches one off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    pub window_s: f64,
    pub requests: Option<u32>,
    pub execution_ms: Option<f64>,
    pub concurrent: Option<u32>,
    pub retry_after_min_s: f64,
    /// A block ends when usage falls below this share of the limit.
    pub resume_share: f64,
    /// Each call during a block lengthens it by this.
    pub penalty_s: f64,
    /// Usage is looked at no more often than this; in between, calls pass. 0 is exact.
    pub evaluation_interval_s: f64,
}

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    Requests,
    ExecutionTime,
    Concurrency,
}

/// A refusal: which limit, and when to come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    pub kind: LimitKind,
    pub retry_after_s: u64,
}

/// What is left on the server that answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remaining {
    pub requests: u32,
    pub execution_s: f64,
}

#[derive(Debug, Default)]
struct Window {
    arrivals: VecDeque<f64>,
    finished: VecDeque<(f64, f64)>,
    busy_ms: f64,
    running: u32,
    blocked: Option<(LimitKind, f64)>,
    evaluated_at: f64,
}

/// What a user has used of a web server, as it stands now.
#[derive(Clone, Debug)]
pub(crate) struct LaneUsage {
    pub(crate) user: Uuid,
    pub(crate) server: u16,
    pub(crate) calls: usize,
    pub(crate) busy_ms: f64,
    pub(crate) running: u32,
    /// Seconds until calls are let in again.
    pub(crate) blocked: Option<(LimitKind, f64)>,
}

/// A user on a web server.
pub type Lane = (Uuid, u16);

#[derive(Debug)]
pub struct Limits {
    pub settings: LimitSettings,
    windows: HashMap<Lane, Window>,
    running: HashMap<u16, u32>,
}

impl Limits {
    pub fn new(settings: LimitSettings) -> Self {
        Limits { settings, windows: HashMap::new(), running: HashMap::new() }
    }

    /// Lets a request in or refuses it.
    pub fn admit(&mut self, lane: Lane, now: f64) -> Result<Remaining, Refusal> {
        let settings = self.settings.clone();
        let window = self.windows.entry(lane).or_default();
        window.forget(now - settings.window_s);
        if let Some((kind, until)) = window.blocked {
            if now < until {
                let until = until + settings.penalty_s;
                window.blocked = Some((kind, until));
                return Err(Refusal { kind, retry_after_s: whole_seconds(until - now) });
            }
            window.blocked = None;
        }
        if settings.concurrent.is_some_and(|limit| window.running >= limit) {
            let retry_after_s = whole_seconds(settings.retry_after_min_s);
            return Err(Refusal { kind: LimitKind::Concurrency, retry_after_s });
        }
        if let Some((kind, wait)) = window.exceeded(&settings, now) {
            window.blocked = Some((kind, now + wait));
            return Err(Refusal { kind, retry_after_s: whole_seconds(wait) });
        }
        window.arrivals.push_back(now);
        window.running += 1;
        let remaining = window.remaining(&settings);
        *self.running.entry(lane.1).or_default() += 1;
        Ok(remaining)
    }

    /// Charges a request that [`Limits::admit`] let in.
    pub fn finish(&mut self, lane: Lane, now: f64, busy_ms: f64) {
        let window = self.windows.entry(lane).or_default();
        window.running = window.running.saturating_sub(1);
        window.finished.push_back((now, busy_ms));
        window.busy_ms += busy_ms;
        if let Some(running) = self.running.get_mut(&lane.1) {
            *running = running.saturating_sub(1);
        }
    }

    /// Requests that run on a server now, of all users.
    pub fn running_on(&self, server: u16) -> u32 {
        self.running.get(&server).copied().unwrap_or(0)
    }

    /// Requests and milliseconds in the window now, and whether a block is open.
    pub fn used(&mut self, lane: Lane, now: f64) -> (usize, f64, bool) {
        let before = now - self.settings.window_s;
        let window = self.windows.entry(lane).or_default();
        window.forget(before);
        (window.arrivals.len(), window.busy_ms, window.blocked.is_some_and(|(_, until)| now < until))
    }

    /// Forgets the usage of one server, as a restart does; requests that still run end uncounted.
    pub fn forget_server(&mut self, server: u16) {
        for (_, window) in self.windows.iter_mut().filter(|((_, at), _)| *at == server) {
            let running = window.running;
            *window = Window { running, ..Window::default() };
        }
    }

    /// The usage of every lane, by server.
    pub(crate) fn usage(&mut self, now: f64) -> Vec<LaneUsage> {
        let window_s = self.settings.window_s;
        let mut usage: Vec<LaneUsage> = self
            .windows
            .iter_mut()
            .map(|((user, server), window)| {
                window.forget(now - window_s);
                let blocked = window.blocked.map(|(kind, until)| (kind, until - now)).filter(|(_, left)| *left > 0.0);
                let (calls, busy_ms, running) = (window.arrivals.len(), window.busy_ms, window.running);
                LaneUsage { user: *user, server: *server, calls, busy_ms, running, blocked }
            })
            .collect();
        usage.sort_by_key(|lane| (lane.user, lane.server));
        usage
    }

    /// Forgets all usage; requests that still run end uncounted.
    pub fn clear(&mut self) {
        for window in self.windows.values_mut() {
            let running = window.running;
            *window = Window { running, ..Window::default() };
        }
    }
}

impl Window {
    fn forget(&mut self, before: f64) {
        while self.arrivals.front().is_some_and(|at| *at <= before) {
            self.arrivals.pop_front();
        }
        while let Some((at, busy_ms)) = self.finished.front().copied() {
            if at > before {
                break;
            }
            self.finished.pop_front();
            self.busy_ms -= busy_ms;
        }
    }

    /// The limit that usage has reached, with the seconds until it may be tried again.
    fn exceeded(&mut self, settings: &LimitSettings, now: f64) -> Option<(LimitKind, f64)> {
        if now - self.evaluated_at < settings.evaluation_interval_s {
            return None;
        }
        self.evaluated_at = now;
        let over_requests = settings.requests.is_some_and(|limit| self.arrivals.len() >= limit as usize);
        let over_time = settings.execution_ms.is_some_and(|limit| self.busy_ms >= limit);
        let kind = match (over_requests, over_time) {
            (true, _) => LimitKind::Requests,
            (_, true) => LimitKind::ExecutionTime,
            _ => return None,
        };
        let frees_at = match kind {
            LimitKind::Requests => self.requests_free_at(settings),
            _ => self.time_free_at(settings),
        };
        Some((kind, (frees_at - now).max(settings.retry_after_min_s)))
    }

    fn requests_free_at(&self, settings: &LimitSettings) -> f64 {
        let allowed = f64::from(settings.requests.unwrap_or(0)) * settings.resume_share;
        let leaving = self.arrivals.len().saturating_sub(allowed as usize);
        let last = leaving.checked_sub(1).and_then(|index| self.arrivals.get(index));
        last.copied().unwrap_or(0.0) + settings.window_s
    }

    fn time_free_at(&self, settings: &LimitSettings) -> f64 {
        let allowed = settings.execution_ms.unwrap_or(0.0) * settings.resume_share;
        let mut left = self.busy_ms;
        for (at, busy_ms) in &self.finished {
            left -= busy_ms;
            if left < allowed {
                return at + settings.window_s;
            }
        }
        0.0
    }

    fn remaining(&self, settings: &LimitSettings) -> Remaining {
        // Without limits the headers show the documented defaults, as they would on a quiet server.
        let requests = settings.requests.unwrap_or(6000).saturating_sub(self.arrivals.len() as u32);
        let execution_ms = settings.execution_ms.unwrap_or(1_200_000.0);
        Remaining { requests, execution_s: ((execution_ms - self.busy_ms) / 1000.0).max(0.0) }
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil().max(1.0) as u64
}

#[cfg(test)]
mod ceiling;

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = (Uuid::nil(), 0);

    fn limits(requests: u32, execution_ms: f64, concurrent: u32) -> Limits {
        Limits::new(LimitSettings {
            window_s: 300.0,
            requests: Some(requests),
            execution_ms: Some(execution_ms),
            concurrent: Some(concurrent),
            retry_after_min_s: 5.0,
            resume_share: 0.95,
            penalty_s: 0.2,
            evaluation_interval_s: 0.0,
        })
    }

    fn run(limits: &mut Limits, at: f64, busy_ms: f64) -> Result<Remaining, Refusal> {
        let admitted = limits.admit(LANE, at)?;
        limits.finish(LANE, at + busy_ms / 1000.0, busy_ms);
        Ok(admitted)
    }

    #[test]
    fn the_request_limit_blocks_until_usage_is_below_95_percent() {
        let mut limits = limits(100, 1e9, 52);
        for second in 0..100 {
            run(&mut limits, f64::from(second), 1.0).unwrap();
        }
        // 95 may stay: the five oldest must leave the window, the last of them at 304.
        let refusal = run(&mut limits, 100.0, 1.0).unwrap_err();
        assert_eq!(refusal, Refusal { kind: LimitKind::Requests, retry_after_s: 204 });
        assert!(run(&mut limits, 303.0, 1.0).is_err());
        run(&mut limits, 304.5, 1.0).unwrap();
    }

    #[test]
    fn calls_during_a_block_lengthen_it() {
        let mut limits = limits(1, 1e9, 52);
        run(&mut limits, 0.0, 1.0).unwrap();
        run(&mut limits, 299.0, 1.0).unwrap_err();
        for _ in 0..10 {
            run(&mut limits, 300.0, 1.0).unwrap_err();
        }
        // Five seconds at least, and ten calls of 0.2 s: until 306.
        assert!(run(&mut limits, 305.5, 1.0).is_err());
        run(&mut limits, 306.5, 1.0).unwrap();
    }

    #[test]
    fn execution_time_is_charged_when_a_request_ends() {
        let mut limits = limits(6000, 1_200_000.0, 52);
        for index in 0..52 {
            limits.admit(LANE, f64::from(index) * 0.01).unwrap();
        }
        assert_eq!(limits.admit(LANE, 1.0).unwrap_err().kind, LimitKind::Concurrency);
        for _ in 0..52 {
            limits.finish(LANE, 24.0, 24_000.0);
        }
        assert_eq!(limits.admit(LANE, 25.0).unwrap_err().kind, LimitKind::ExecutionTime);
    }

    #[test]
    fn lanes_do_not_share_a_window() {
        let mut limits = limits(1, 1e9, 52);
        limits.admit((Uuid::nil(), 0), 0.0).unwrap();
        limits.admit((Uuid::nil(), 1), 0.0).unwrap();
        limits.admit((Uuid::max(), 0), 0.0).unwrap();
        limits.admit((Uuid::nil(), 0), 0.0).unwrap_err();
    }
}
