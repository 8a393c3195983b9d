//! Whether a lane is open, closed by a refusal, or without a server behind it.
//!
//! A closed lane gets nothing at all, not even a probe: each request sent to it lengthens the
//! block. A lane that is down gets one request at a time, ever more rarely.

/// Waits between tries of a lane that is down: 0.25 s, doubled up to 4 s, a fifth more or less.
const DOWN_FIRST_S: f64 = 0.25;
const DOWN_MAX_S: f64 = 4.0;
const DOWN_JITTER: f64 = 0.2;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Gate {
    #[default]
    Open,
    Closed {
        until_s: f64,
    },
    Down {
        since_s: f64,
        until_s: f64,
        failures: u32,
    },
}

impl Gate {
    pub(super) fn is_open(self, now_s: f64) -> bool {
        match self {
            Self::Open => true,
            Self::Closed { until_s } => now_s >= until_s,
            Self::Down { .. } => false,
        }
    }

    pub(super) fn open_if_due(&mut self, now_s: f64) {
        if matches!(self, Self::Closed { until_s } if now_s >= *until_s) {
            *self = Self::Open;
        }
    }

    pub(super) fn close(&mut self, until_s: f64) {
        let until_s = match self {
            Self::Closed { until_s: earlier_s } => until_s.max(*earlier_s),
            Self::Open | Self::Down { .. } => until_s,
        };
        *self = Self::Closed { until_s };
    }

    /// Nobody was there. `jitter` is from 0 to 1.
    pub(super) fn fail(&mut self, now_s: f64, jitter: f64) {
        let (since_s, failures) = match self {
            Self::Closed { until_s } if now_s < *until_s => return,
            // Requests that were under way together fail together: that is one failure.
            Self::Down { until_s, .. } if now_s < *until_s => return,
            Self::Down { since_s, failures, .. } => (*since_s, *failures + 1),
            Self::Open | Self::Closed { .. } => (now_s, 0),
        };
        let wait_s = (DOWN_FIRST_S * 2.0_f64.powi(failures.min(10) as i32)).min(DOWN_MAX_S);
        let wait_s = wait_s * (1.0 + DOWN_JITTER * (2.0 * jitter - 1.0));
        *self = Self::Down { since_s, until_s: now_s + wait_s, failures };
    }

    /// Somebody answered. True if that ends an outage.
    pub(super) fn reached(&mut self) -> bool {
        let was_down = matches!(self, Self::Down { .. });
        if was_down {
            *self = Self::Open;
        }
        was_down
    }

    pub(super) fn name(self, now_s: f64) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Closed { until_s } if now_s < until_s => "closed",
            Self::Open | Self::Closed { .. } => "open",
        }
    }

    pub(super) fn is_down(self) -> bool {
        matches!(self, Self::Down { .. })
    }

    /// Seconds without a server.
    pub(super) fn down_for_s(self, now_s: f64) -> f64 {
        match self {
            Self::Down { since_s, .. } => now_s - since_s,
            Self::Open | Self::Closed { .. } => 0.0,
        }
    }

    /// When a request may be tried again; `None` if the lane is open.
    pub(super) fn next_s(self, now_s: f64) -> Option<f64> {
        match self {
            Self::Open => None,
            Self::Closed { until_s } | Self::Down { until_s, .. } => Some(until_s.max(now_s)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_down_is_tried_ever_more_rarely() {
        let mut gate = Gate::Open;
        let mut now_s = 100.0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            gate.fail(now_s, 0.5);
            let next_s = gate.next_s(now_s).unwrap();
            waits.push(next_s - now_s);
            now_s = next_s;
        }
        assert_eq!(waits, [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]);
        assert!(gate.reached() && gate == Gate::Open && !gate.reached());
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let mut gate = Gate::Open;
        for _ in 0..8 {
            gate.fail(100.0, 0.5);
        }
        assert_eq!(gate, Gate::Down { since_s: 100.0, until_s: 100.25, failures: 0 });
    }

    #[test]
    fn a_shorter_refusal_does_not_shorten_a_block() {
        let mut gate = Gate::Open;
        gate.close(50.0);
        gate.close(20.0);
        gate.fail(30.0, 0.5);
        assert!(!gate.is_open(49.9) && gate.is_open(50.0));
    }
}
