//! Who goes first: interactive requests and events before batches, batches before exports.
//!
//! Urgent requests never wait for batches, and batches leave them what they are seen to need in a
//! whole window. So the batches of a busy day do not use up in the morning what a person needs at
//! noon, and the other way round nothing is kept for nobody.

use flowgate_core::destination::Class;

use super::window::{Usage, WINDOW_S, Window};

/// What is kept for urgent requests: their rate for a whole window, and this much on top.
const RESERVE: f64 = 1.15;

/// The rate is that of about the last minute.
const RATE_MEMORY_S: f64 = 60.0;

/// Whether a class waits its turn. The others are counted only.
pub(super) fn is_paced(class: Class) -> bool {
    match class {
        Class::Interactive | Class::Events => false,
        Class::Batch | Class::Export => true,
    }
}

/// What an application user is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    All,
    /// Interactive requests and events.
    Urgent,
    /// Batches and exports.
    Batch,
}

impl Role {
    pub(super) fn fits(self, class: Class) -> bool {
        match self {
            Self::All => true,
            Self::Urgent => !is_paced(class),
            Self::Batch => is_paced(class),
        }
    }
}

/// How much urgent requests use of a lane.
#[derive(Debug, Clone)]
pub(super) struct UrgentUse {
    recent: Usage,
    at_s: f64,
}

impl UrgentUse {
    pub(super) fn new(now_s: f64) -> Self {
        Self { recent: Usage::default(), at_s: now_s }
    }

    /// Goes on from the [`Self::recent`] of another budget, `age_s` ago.
    pub(super) fn resume(now_s: f64, age_s: f64, recent: Usage) -> Self {
        Self { recent, at_s: now_s - age_s }
    }

    pub(super) fn recent(&self, now_s: f64) -> Usage {
        self.faded(now_s)
    }

    pub(super) fn add(&mut self, now_s: f64, usage: Usage) {
        let faded = self.faded(now_s);
        self.recent = Usage { calls: faded.calls + usage.calls, busy_s: (faded.busy_s + usage.busy_s).max(0.0) };
        self.at_s = self.at_s.max(now_s);
    }

    /// Requests and execution seconds, a second.
    pub(super) fn rate(&self, now_s: f64) -> Usage {
        let faded = self.faded(now_s);
        Usage { calls: faded.calls / RATE_MEMORY_S, busy_s: faded.busy_s / RATE_MEMORY_S }
    }

    /// What is kept beyond what urgent requests have in the window already:
    /// `1.15 * 300 s * rate - used by them`.
    pub(super) fn reserve(&self, now_s: f64, window: &mut Window) -> Usage {
        let rate = self.rate(now_s);
        let interactive = window.used_by(now_s, Class::Interactive);
        let events = window.used_by(now_s, Class::Events);
        let kept = |rate: f64, used: f64| (RESERVE * WINDOW_S * rate - used).max(0.0);
        Usage {
            calls: kept(rate.calls, interactive.calls + events.calls),
            busy_s: kept(rate.busy_s, interactive.busy_s + events.busy_s),
        }
    }

    fn faded(&self, now_s: f64) -> Usage {
        let factor = (-(now_s - self.at_s).max(0.0) / RATE_MEMORY_S).exp();
        Usage { calls: self.recent.calls * factor, busy_s: self.recent.busy_s * factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interactive_requests_will_need_is_kept_for_them() {
        let (mut urgent, mut window) = (UrgentUse::new(0.0), Window::new(0.0));
        let call = Usage { calls: 1.0, busy_s: 0.04 };
        for tick in 0..1_500 {
            let now_s = f64::from(tick) * 0.2;
            urgent.add(now_s, call);
            window.add(now_s, Class::Interactive, call);
        }
        let reserve = urgent.reserve(300.0, &mut window);
        assert!((reserve.busy_s - 0.15 * 60.0).abs() < 1.5, "{reserve:?}");
        // A minute of silence, and less is kept; what was used still counts as used.
        assert_eq!(urgent.reserve(500.0, &mut window), Usage::default());
    }
}
