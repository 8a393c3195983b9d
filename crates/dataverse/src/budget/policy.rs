//! When a request may go: a state machine over times and numbers that are passed in.
//!
//! The rules of this first policy, all for one application user:
//!
//! * Batch and export requests under way never exceed `x-ms-dop-hint`, nor the share of it that is
//!   configured; a concurrency refusal lowers the bound, quiet time raises it again.
//! * They are paced to 0.9 of the request limit, and their summed duration to 0.9 of the time
//!   limit, for as many web servers as the hint suggests (four requests under way each).
//! * A refusal closes the whole user until `Retry-After` has passed, a little later rather than
//!   earlier; nothing is sent meanwhile, not even a probe.
//! * Interactive requests and events are counted but never wait for a batch; they only wait while
//!   the user is closed, and go first when it opens.
//!
//! Left out until the ledger per web server replaces this module: affinity, learning the limits,
//! sharing between processes.

use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;

use super::window::Window;

/// The service-protection window and what one user may use of one web server in it.
const WINDOW: Duration = Duration::from_mins(5);
const REQUESTS_PER_SERVER: f64 = 6_000.0;
const BUSY_SECONDS_PER_SERVER: f64 = 1_200.0;

/// What all classes together may have under way: 0.9 of the 52 that one web server takes, because
/// requests without an affinity cookie could all meet the same one.
const CONCURRENT_MAX: u32 = 46;

/// The part of a limit that is used: the rest absorbs requests that land unevenly on the servers.
const USED_PART: f64 = 0.9;

/// A busy web server runs this many requests at a time within its time limit (1,200 s in 300 s).
const PARALLEL_PER_SERVER: u32 = 4;

/// Until a hint is known. One web server is the least there can be.
const PARALLEL_UNKNOWN: u32 = 4;
const PARALLEL_MAX: u32 = 208;

/// `Retry-After` outside these bounds is not believed.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Quiet time after which one more request may be under way again.
const RECOVERY: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_hours(24);

/// What one request is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Of the service's execution time.
    pub(crate) busy: Duration,
    /// Counted against the daily entitlement: each row of a write is one.
    pub(crate) entitlement: u64,
}

/// What the answer told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct AnswerFacts {
    pub(crate) busy: Duration,
    pub(crate) parallel_hint: Option<u32>,
    pub(crate) throttled: Option<Throttled>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Throttled {
    pub(crate) retry_after: Option<Duration>,
    pub(crate) is_concurrency: bool,
}

/// The answer to "may I send now".
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Admitted,
    /// Ask again at this moment, or earlier if something completes.
    NotBefore(Elapsed),
    /// Ask again when something completes.
    AfterCompletion,
    /// Not today.
    DailyBudgetUsed {
        daily: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Policy {
    parallel_hint: u32,
    /// The bound that concurrency refusals lower; `None` while there was none.
    parallel_lowered: Option<(u32, Elapsed)>,
    batch_in_flight: u32,
    other_in_flight: u32,
    expected_busy_seconds: f64,
    busy_seconds: Window,
    requests: Window,
    entitlement: Window,
    daily: Option<u64>,
    /// The earliest moment of the next paced request.
    next_paced: Elapsed,
    closed_until: Elapsed,
    consecutive_throttled: u32,
    /// Requests that wait, by class.
    waiting: [u32; 4],
    share: f64,
    jitter: u64,
}

impl Policy {
    /// `seed` spreads the returns of several processes after a refusal.
    pub(crate) fn new(daily: Option<u64>, seed: u64) -> Self {
        Self {
            parallel_hint: PARALLEL_UNKNOWN,
            parallel_lowered: None,
            batch_in_flight: 0,
            other_in_flight: 0,
            expected_busy_seconds: 0.0,
            busy_seconds: Window::new(WINDOW, Duration::from_secs(1)),
            requests: Window::new(WINDOW, Duration::from_secs(1)),
            entitlement: Window::new(DAY, Duration::from_mins(10)),
            daily,
            next_paced: Elapsed::default(),
            closed_until: Elapsed::default(),
            consecutive_throttled: 0,
            waiting: [0; 4],
            share: 1.0,
            jitter: seed | 1,
        }
    }

    /// The part of the limits that batch and export work may use from now on.
    pub(crate) fn set_share(&mut self, share: f64) {
        self.share = share.clamp(0.01, 1.0);
    }

    pub(crate) fn start_waiting(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    pub(crate) fn stop_waiting(&mut self, class: Class) {
        self.waiting[class as usize] = self.waiting[class as usize].saturating_sub(1);
    }

    /// Batch requests that may be under way at once.
    pub(crate) fn parallel_max(&self) -> u32 {
        let hint = self.parallel_lowered.map_or(self.parallel_hint, |(lowered, _)| lowered.min(self.parallel_hint));
        ((f64::from(hint) * self.share) as u32).max(1)
    }

    pub(crate) fn admit(&mut self, now: Elapsed, class: Class, cost: Cost) -> Verdict {
        if now < self.closed_until {
            return Verdict::NotBefore(self.closed_until);
        }
        if !is_paced(class) {
            if self.batch_in_flight + self.other_in_flight >= CONCURRENT_MAX {
                return Verdict::AfterCompletion;
            }
            self.count(now, class, cost);
            return Verdict::Admitted;
        }
        if let Some(daily) = self.daily {
            if self.entitlement.used(now) + cost.entitlement as f64 > daily as f64 {
                return Verdict::DailyBudgetUsed { daily };
            }
        }
        if self.waiting[..class as usize].iter().any(|waiting| *waiting > 0) {
            return Verdict::AfterCompletion;
        }
        self.recover(now);
        if self.batch_in_flight >= self.parallel_max() {
            return Verdict::AfterCompletion;
        }
        if now < self.next_paced {
            return Verdict::NotBefore(self.next_paced);
        }
        if !self.fits_window(now, cost) {
            return Verdict::NotBefore(now.after(Duration::from_secs(1)));
        }
        self.next_paced = self.next_paced.max(now).after(Duration::from_secs_f64(self.seconds_between_requests()));
        self.count(now, class, cost);
        Verdict::Admitted
    }

    /// A request that was admitted with `cost` is over. Without facts it counts as it was expected.
    pub(crate) fn complete(&mut self, now: Elapsed, class: Class, cost: Cost, facts: Option<AnswerFacts>) {
        let in_flight = if is_paced(class) { &mut self.batch_in_flight } else { &mut self.other_in_flight };
        let in_flight_before = *in_flight;
        *in_flight = in_flight.saturating_sub(1);
        self.expected_busy_seconds = (self.expected_busy_seconds - cost.busy.as_secs_f64()).max(0.0);
        let facts = facts.unwrap_or(AnswerFacts { busy: cost.busy, ..AnswerFacts::default() });
        if let Some(hint) = facts.parallel_hint {
            self.parallel_hint = hint.clamp(1, PARALLEL_MAX);
        }
        let Some(throttled) = facts.throttled else {
            self.consecutive_throttled = 0;
            self.busy_seconds.add(now, facts.busy.as_secs_f64());
            return;
        };
        self.close(now, throttled);
        if throttled.is_concurrency {
            let lowered = (self.parallel_max().min(in_flight_before) * 7 / 10).max(1);
            self.parallel_lowered = Some((lowered, now));
        }
    }

    fn close(&mut self, now: Elapsed, throttled: Throttled) {
        self.consecutive_throttled = self.consecutive_throttled.saturating_add(1);
        let own_back_off = Duration::from_secs(1 << self.consecutive_throttled.min(9));
        let wait = throttled.retry_after.unwrap_or(own_back_off).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        let wait = wait.mul_f64(1.0 + 0.1 * self.next_fraction());
        self.closed_until = self.closed_until.max(now.after(wait));
    }

    fn count(&mut self, now: Elapsed, class: Class, cost: Cost) {
        if is_paced(class) {
            self.batch_in_flight += 1;
        } else {
            self.other_in_flight += 1;
        }
        self.expected_busy_seconds += cost.busy.as_secs_f64();
        self.requests.add(now, 1.0);
        self.entitlement.add(now, cost.entitlement as f64);
    }

    fn fits_window(&mut self, now: Elapsed, cost: Cost) -> bool {
        let part = self.servers() * USED_PART * self.share;
        let requests = self.requests.used(now) + 1.0;
        let busy = self.busy_seconds.used(now) + self.expected_busy_seconds + cost.busy.as_secs_f64();
        let is_alone = self.batch_in_flight == 0 && self.busy_seconds.used(now) == 0.0;
        is_alone || (requests <= REQUESTS_PER_SERVER * part && busy <= BUSY_SECONDS_PER_SERVER * part)
    }

    fn seconds_between_requests(&self) -> f64 {
        WINDOW.as_secs_f64() / (REQUESTS_PER_SERVER * USED_PART * self.servers() * self.share)
    }

    /// How many web servers the hint suggests.
    fn servers(&self) -> f64 {
        f64::from((self.parallel_hint / PARALLEL_PER_SERVER).max(1))
    }

    fn recover(&mut self, now: Elapsed) {
        let Some((lowered, since)) = self.parallel_lowered else { return };
        if now.since(since) < RECOVERY {
            return;
        }
        self.parallel_lowered = (lowered + 1 < self.parallel_hint).then_some((lowered + 1, now));
    }

    /// The next number of a small generator (SplitMix64), from 0 to 1.
    fn next_fraction(&mut self) -> f64 {
        self.jitter = self.jitter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Whether a class waits its turn. The others are counted only.
fn is_paced(class: Class) -> bool {
    match class {
        Class::Interactive | Class::Events => false,
        Class::Batch | Class::Export => true,
    }
}
