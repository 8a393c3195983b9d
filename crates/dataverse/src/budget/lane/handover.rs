//! A lane as it passes from budget to budget: what its holder tells of it, and what the next one makes
//! of that.
//!
//! A checkpoint tells the window second by second, the learnt limits, and how long the lane is closed.
//! For the time that no checkpoint tells of, the next holder assumes the most that its predecessor can
//! have sent. A lane without a checkpoint counts as full for a whole window, as every lane does whose
//! past is unknown.

use flowgate_core::destination::Class;
use serde::{Deserialize, Serialize};

use super::super::classes::UrgentUse;
use super::super::limits::LimitState;
use super::super::pacer::Pacer;
use super::super::window::WINDOW_S;
use super::super::window::{Spent, Usage, Window};
use super::Lane;

/// The greatest pace of a lane, in steady ones: what may have been used in a time nobody told of.
const PACE_MAX: f64 = 3.0;

/// Limits that were learnt longer ago are learnt again.
const LIMITS_KNOWN_FOR_S: f64 = 3_600.0;

/// Whose a lane is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::budget) enum Hold {
    /// There is nobody to share with.
    Alone,
    Held {
        epoch: u64,
        until_s: f64,
    },
    /// Ours until what is under way has ended: another budget needs it.
    Asked {
        epoch: u64,
    },
    /// Another budget's, or nobody's: only urgent requests go there, and its holder is told.
    Guest,
}

/// What is told of a lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::budget) struct LaneState {
    spent: Vec<Spent>,
    /// What the requests under way are expected to take.
    under_way_s: f64,
    closed_for_s: f64,
    time: LimitState,
    calls: LimitState,
    concurrent: f64,
    slowness: f64,
    /// Of urgent requests, recently.
    urgent: Usage,
    /// How long ago the past was unknown; nothing if it is known.
    past_unknown_for_s: Option<f64>,
    /// For how long the window is known to have been filled by us alone.
    empty_for_s: f64,
}

/// A checkpoint, and its age when it is read.
#[derive(Debug, Clone, Copy)]
pub(in crate::budget) struct Told<'a> {
    pub(in crate::budget) state: &'a LaneState,
    pub(in crate::budget) age_s: f64,
    /// For how long after it the holder may have sent more.
    pub(in crate::budget) open_s: f64,
}

impl Lane {
    /// Whether batches may go there, as far as others are concerned.
    pub(in crate::budget) fn is_ours(&self, now_s: f64) -> bool {
        match self.hold {
            Hold::Alone => true,
            Hold::Held { until_s, .. } => now_s < until_s,
            Hold::Asked { .. } | Hold::Guest => false,
        }
    }

    /// Whether what was asked for can be given.
    pub(in crate::budget) fn is_left(&self) -> bool {
        matches!(self.hold, Hold::Asked { .. }) && self.batches_in_flight == 0
    }

    pub(in crate::budget) fn state(&mut self, now_s: f64) -> LaneState {
        LaneState {
            spent: self.window.spent(now_s),
            under_way_s: self.predicted_s,
            closed_for_s: if self.gate.is_down() {
                0.0
            } else {
                self.gate.next_s(now_s).map_or(0.0, |at_s| at_s - now_s)
            },
            time: self.time.state(now_s),
            calls: self.calls.state(now_s),
            concurrent: self.concurrent(now_s),
            slowness: self.slowness,
            urgent: self.urgent.recent(now_s),
            past_unknown_for_s: self.past_unknown_since_s.map(|since_s| now_s - since_s),
            empty_for_s: now_s - self.empty_since_s,
        }
    }

    /// Takes the ledger over from whoever kept it; what guests used follows by [`Self::add_past`].
    pub(in crate::budget) fn take_over(&mut self, now_s: f64, told: Option<Told<'_>>) {
        self.window = Window::new(now_s);
        self.urgent = UrgentUse::new(now_s);
        self.time_pacer = Pacer::new(now_s);
        self.calls_pacer = Pacer::new(now_s);
        let Some(Told { state, age_s, open_s }) = told else { return };
        self.window.restore(now_s, age_s, &state.spent);
        self.urgent = UrgentUse::resume(now_s, age_s, state.urgent);
        if age_s < LIMITS_KNOWN_FOR_S {
            self.time.resume(now_s, &state.time);
            self.calls.resume(now_s, &state.calls);
            self.concurrent = (state.concurrent, now_s - age_s);
            self.slowness = state.slowness;
        }
        if state.closed_for_s > age_s {
            self.gate.close(now_s + state.closed_for_s - age_s);
        }
        self.past_unknown_since_s = state.past_unknown_for_s.map(|ago_s| now_s - age_s - ago_s);
        let is_empty = age_s > WINDOW_S;
        self.empty_since_s = if is_empty { now_s } else { now_s - age_s - state.empty_for_s };
        self.assume(now_s, state.under_way_s, open_s);
    }

    /// What the last holder may have used that its checkpoint does not tell, up to all there is.
    fn assume(&mut self, now_s: f64, under_way_s: f64, open_s: f64) {
        let used = self.window.used(now_s);
        let pace = PACE_MAX * open_s.clamp(0.0, WINDOW_S) / WINDOW_S;
        let calls = (pace * self.calls.estimate()).min(self.calls.estimate() - used.calls).max(0.0);
        let busy_s = (under_way_s + pace * self.time.estimate()).min(self.time.estimate() - used.busy_s).max(0.0);
        self.window.add(now_s, Class::Batch, Usage { calls, busy_s });
    }

    /// Counts what a guest used `age_s` ago.
    pub(in crate::budget) fn add_past(&mut self, now_s: f64, age_s: f64, spent: &[Spent]) {
        self.window.restore(now_s, age_s, spent);
        for spent in spent {
            if spent.class < Class::Batch as u8 {
                self.urgent.add(now_s, Usage { calls: spent.calls, busy_s: spent.busy_s });
            }
        }
    }
}
