//! What a lane may use: one estimate for each limit, learnt from headers and refusals.
//!
//! A [`Limit`] is in seconds of execution or in requests; the rules are the same (performance notes,
//! section 2.2). What is left by the headers, plus what our ledger knows to be used at that moment,
//! is the limit, less what others use of it. So a lower limit, a limit that was halved and another
//! client on the same user all look alike, and all are treated alike: less is ours.

use serde::{Deserialize, Serialize};

use super::window::WINDOW_S;

/// The documented defaults per user and web server (performance notes, section 1.2).
pub(super) const EXECUTION_S: f64 = 1_200.0;
pub(super) const REQUESTS: f64 = 6_000.0;
pub(super) const CONCURRENT: f64 = 52.0;

/// How far one answer moves the estimate. With some answers a second it follows within seconds, and
/// one answer that lies moves it little.
const FOLLOW: f64 = 0.2;

/// A limit is raised above what was believed only when all answers of a whole window, and of half a
/// minute more, show a higher one. A window that a restarted server forgot looks the same for 300 s.
const ABOVE: f64 = 1.02;
const ABOVE_FOR_S: f64 = WINDOW_S + 30.0;

/// The first answer of a lane of which we used hardly anything tells the environment's own limit (8,000 requests
/// in some), up to twice the documented one. Later ones might be those of a server that forgot.
const FRESH_SHARE: f64 = 0.02;
const FRESH_MAX: f64 = 2.0;

/// After a refusal less than what was used counts as the limit.
const REFUSED_KEPT: f64 = 0.985;

/// A service whose answers told what is left is taken for one that does so for this long: a lane with a
/// full window is silent for minutes, and must not be probed for that.
const HEADERS_EXPECTED_S: f64 = 900.0;

/// Headers that left more than this share of the limit when the service refused were wrong, and are
/// not believed for a while.
const LIE_SHARE: f64 = 0.10;
const LIE_FOR_S: f64 = 1_800.0;

/// Without headers the limit is found from below: after each period at the limit without a refusal
/// it is raised, in steps that double, up to twice the documented one. Each lane does so for itself:
/// a refusal closes one lane for some seconds, and what it lost comes back as credit. With periods of
/// 120 s and a first step of 2 % the simulation without headers reached 0.87 of the oracle, with these
/// 0.95, at 0.7 refusals in 1,000 requests.
const PROBE_EVERY_S: f64 = 60.0;
const PROBE_STEP_FIRST: f64 = 0.08;
const PROBE_STEP_MIN: f64 = 0.02;
const PROBE_STEP_MAX: f64 = 0.16;
const PROBE_USE: f64 = 0.93;
const PROBE_MAX: f64 = 2.0;

/// A limit is never taken for less than this share of the documented one.
const LEAST: f64 = 0.05;

/// What another budget says is taken for an error above so many times the documented limit.
const RESUMED_MAX: f64 = 10.0;

/// One limit of one lane.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    documented: f64,
    estimate: f64,
    /// The highest that headers may raise the estimate to.
    believed: f64,
    above: Option<Above>,
    /// What the last answer showed.
    observed: f64,
    headers_at_s: Option<f64>,
    disbelieved_until_s: f64,
    probe: Probe,
}

/// Answers in a row that showed more than is believed.
#[derive(Debug, Clone, Copy)]
struct Above {
    since_s: f64,
    least: f64,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    since_s: f64,
    step: f64,
}

/// What one budget tells another of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct LimitState {
    estimate: f64,
    believed: f64,
    has_headers: bool,
}

impl Limit {
    pub(super) fn new(documented: f64, now_s: f64) -> Self {
        Self {
            documented,
            estimate: documented,
            believed: documented,
            above: None,
            observed: documented,
            headers_at_s: None,
            disbelieved_until_s: 0.0,
            probe: Probe { since_s: now_s, step: PROBE_STEP_FIRST },
        }
    }

    pub(super) fn state(&self, now_s: f64) -> LimitState {
        LimitState { estimate: self.estimate, believed: self.believed, has_headers: self.has_headers(now_s) }
    }

    /// Goes on from what another budget learnt, within what could be learnt here.
    pub(super) fn resume(&mut self, now_s: f64, state: &LimitState) {
        let within = |value: f64, least: f64| {
            if value.is_finite() {
                value.clamp(least * self.documented, RESUMED_MAX * self.documented)
            } else {
                self.documented
            }
        };
        (self.estimate, self.believed) = (within(state.estimate, LEAST), within(state.believed, 1.0));
        self.headers_at_s = state.has_headers.then_some(now_s);
        self.observed = self.estimate;
        self.above = None;
        self.probe = Probe { since_s: now_s, step: PROBE_STEP_FIRST };
    }

    /// The documented default.
    pub(super) fn documented(&self) -> f64 {
        self.documented
    }

    /// What may be used in a window, by us.
    pub(super) fn estimate(&self) -> f64 {
        self.estimate
    }

    /// The highest that headers may raise the estimate to.
    pub(super) fn believed(&self) -> f64 {
        self.believed
    }

    /// Whether answers say what is left.
    pub(super) fn has_headers(&self, now_s: f64) -> bool {
        now_s >= self.disbelieved_until_s && self.headers_at_s.is_some_and(|at_s| now_s - at_s < HEADERS_EXPECTED_S)
    }

    /// What the last answer showed, and `before` something happened was known, cannot both be.
    pub(super) fn is_shown_above(&self, before: f64) -> bool {
        self.observed > ABOVE * before
    }

    /// What was shown had another reason.
    pub(super) fn forget_above(&mut self) {
        self.above = None;
    }

    /// An answer says that `remaining` was left when we knew of `used`.
    ///
    /// `observed = used + remaining; estimate += 0.2 (min(observed, believed) - estimate)`.
    pub(super) fn observe(&mut self, now_s: f64, used: f64, remaining: f64) {
        if !remaining.is_finite() || remaining < 0.0 || now_s < self.disbelieved_until_s {
            return;
        }
        let observed = used + remaining;
        let is_first = self.headers_at_s.is_none();
        self.headers_at_s = Some(now_s);
        self.observed = observed;
        if is_first && used <= FRESH_SHARE * observed && observed <= FRESH_MAX * self.documented {
            self.believed = self.believed.max(observed);
        }
        self.rise(now_s, observed);
        let target = observed.min(self.believed);
        self.estimate += if is_first { 1.0 } else { FOLLOW } * (target - self.estimate);
        self.probe = Probe { since_s: now_s, step: PROBE_STEP_FIRST };
    }

    fn rise(&mut self, now_s: f64, observed: f64) {
        if observed <= ABOVE * self.believed {
            self.above = None;
            return;
        }
        let above = self.above.get_or_insert(Above { since_s: now_s, least: observed });
        above.least = above.least.min(observed);
        if now_s - above.since_s >= ABOVE_FOR_S {
            self.believed = above.least;
            self.above = None;
        }
    }

    /// The service refused when we knew of `used`.
    pub(super) fn refused(&mut self, now_s: f64, used: f64) {
        if self.has_headers(now_s) && used < (1.0 - LIE_SHARE) * self.estimate {
            self.disbelieved_until_s = now_s + LIE_FOR_S;
        }
        // A refusal while hardly anything is used tells of others, not of the limit.
        let least = LEAST * self.documented;
        self.estimate = self.estimate.min(REFUSED_KEPT * used).max(least);
        self.probe = Probe { since_s: now_s, step: PROBE_STEP_MIN };
    }

    /// Without headers: raises the estimate when it has been used up for a while and nothing happened.
    pub(super) fn probe(&mut self, now_s: f64, used: f64) {
        if self.has_headers(now_s) || used < PROBE_USE * self.estimate {
            self.probe.since_s = now_s;
            return;
        }
        if now_s - self.probe.since_s < PROBE_EVERY_S {
            return;
        }
        self.estimate = (self.estimate * (1.0 + self.probe.step)).min(PROBE_MAX * self.documented);
        self.probe = Probe { since_s: now_s, step: (2.0 * self.probe.step).min(PROBE_STEP_MAX) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit::new(EXECUTION_S, 0.0)
    }

    #[test]
    fn the_first_answer_says_how_much_is_ours() {
        let mut limit = limit();
        limit.observe(1.0, 0.0, 600.0);
        assert!((limit.estimate() - 600.0).abs() < 1e-9);
        // What others used leaves the window, and the estimate follows within seconds.
        for step in 0..40 {
            limit.observe(2.0 + f64::from(step), 100.0, 1_100.0);
        }
        assert!((limit.estimate() - 1_200.0).abs() < 1.0, "{}", limit.estimate());
    }

    #[test]
    fn a_higher_limit_is_believed_after_a_whole_window_and_not_before() {
        let mut limit = limit();
        for second in 0..=330 {
            assert!(limit.estimate() <= 1_200.0, "at {second} s");
            limit.observe(f64::from(second), 500.0, 1_300.0);
        }
        for step in 0..40 {
            limit.observe(331.0 + f64::from(step), 500.0, 1_300.0);
        }
        assert!((limit.estimate() - 1_800.0).abs() < 1.0, "{}", limit.estimate());
    }

    #[test]
    fn the_limits_of_an_environment_are_taken_as_its_first_answer_tells_them() {
        for limit in [40.0, 100.0, 5_999.0, 6_000.0, 7_999.0, 8_000.0] {
            let mut calls = Limit::new(REQUESTS, 0.0);
            calls.observe(1.0, 1.0, limit - 1.0);
            assert!((calls.estimate() - limit).abs() < 1e-9, "{limit}: {}", calls.estimate());
        }
        let mut calls = Limit::new(REQUESTS, 0.0);
        calls.observe(1.0, 1.0, 1_000_000.0);
        assert!((calls.estimate() - REQUESTS).abs() < 1e-9, "nonsense is not believed at once");
    }

    #[test]
    fn one_answer_that_shows_less_starts_the_window_again() {
        let mut limit = limit();
        for second in 0..=600 {
            let remaining = if second % 200 == 0 { 700.0 } else { 1_300.0 };
            limit.observe(f64::from(second), 500.0, remaining);
        }
        assert!(limit.estimate() <= 1_200.0);
    }

    #[test]
    fn headers_that_promised_room_when_the_service_refused_are_not_believed() {
        let mut limit = limit();
        limit.observe(1.0, 500.0, 700.0);
        limit.refused(2.0, 500.0);
        assert!((limit.estimate() - 492.5).abs() < 1e-9);
        limit.observe(3.0, 480.0, 720.0);
        assert!((limit.estimate() - 492.5).abs() < 1e-9, "not raised by the same headers");
        assert!(!limit.has_headers(3.0));
    }

    #[test]
    fn nonsense_in_headers_is_nothing() {
        let mut limit = limit();
        for remaining in [f64::NAN, f64::INFINITY, -5.0] {
            limit.observe(1.0, 0.0, remaining);
        }
        assert!((limit.estimate() - EXECUTION_S).abs() < 1e-9 && !limit.has_headers(1.0));
    }

    #[test]
    fn without_headers_a_limit_is_found_from_below() {
        let mut limit = limit();
        limit.refused(0.0, 900.0);
        let lowered = limit.estimate();
        assert!((lowered - 886.5).abs() < 1e-9);
        limit.probe(59.0, 880.0);
        assert!((limit.estimate() - lowered).abs() < 1e-9);
        limit.probe(61.0, 880.0);
        assert!((limit.estimate() - 1.02 * lowered).abs() < 1e-6);
        for second in 122..2_000 {
            let used = 0.95 * limit.estimate();
            limit.probe(f64::from(second), used);
        }
        assert!((limit.estimate() - 2_400.0).abs() < 1e-6, "never above twice the documented one");
    }

    #[test]
    fn a_lane_that_is_silent_because_it_is_full_is_not_probed() {
        let mut limit = limit();
        limit.observe(0.0, 1_190.0, 10.0);
        for second in 0..300 {
            limit.probe(f64::from(second), 1_190.0);
        }
        assert!((limit.estimate() - EXECUTION_S).abs() < 1e-9);
    }

    #[test]
    fn a_limit_that_is_not_used_up_is_not_probed() {
        let mut limit = limit();
        for second in 0..10_000 {
            limit.probe(f64::from(second), 600.0);
        }
        assert!((limit.estimate() - EXECUTION_S).abs() < 1e-9);
    }

    #[test]
    fn a_refusal_without_use_of_ours_leaves_something_to_live_on() {
        let mut limit = limit();
        limit.refused(0.0, 0.0);
        assert!((limit.estimate() - 60.0).abs() < 1e-9);
    }
}
