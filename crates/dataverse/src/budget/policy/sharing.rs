//! What the policy tells other budgets of its lanes, and what it makes of their answer.
//!
//! The side that talks to them is the [`LaneKeeper`](crate::budget::LaneKeeper); here is no I/O either.

use std::collections::HashSet;
use std::sync::Arc;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;
use flowgate_core::ports::{LaneReport, SharedLane, Standing, Tenure};
use jiff::Timestamp;

use super::Policy;
use crate::budget::lane::{Hold, Lane, LaneState, Told};
use crate::budget::window::{Spent, Usage};

/// Servers that another budget told of within this time need not be searched again.
const FOUND_FOR_S: f64 = 3_600.0;

/// What was told in a beat, to be taken off once it has arrived.
#[derive(Debug, Default)]
pub(in crate::budget) struct LanesTold {
    /// Of each lane what was used there as a guest.
    guests: Vec<(u16, Option<Arc<str>>, [Usage; 4])>,
    gone: usize,
    pub(in crate::budget) rows: u64,
}

/// How old what is told is, in the policy's seconds.
#[derive(Debug, Clone, Copy)]
pub(in crate::budget) struct Ages {
    pub(in crate::budget) now: Timestamp,
    pub(in crate::budget) time_scale: f64,
}

impl Ages {
    fn age_s(self, at: Timestamp) -> f64 {
        self.time_scale * self.now.duration_since(at).as_secs_f64().max(0.0)
    }
}

impl Policy {
    /// From now on every lane is another's until it is given to us.
    pub(in crate::budget) fn share_lanes(&mut self) {
        self.is_shared = true;
        for lane in &mut self.lanes {
            lane.hold = Hold::Guest;
        }
    }

    /// Whether a user's lanes are needed: batches wait, are under way, or were until `idle_s` ago.
    pub(in crate::budget) fn wants_lanes(&self, now: Elapsed, user: u16, idle_s: f64) -> bool {
        let is_busy = self.waiting[Class::Batch as usize..].iter().any(|waiting| *waiting > 0)
            || self.batches_in_flight > 0
            || now.0.as_secs_f64() - self.batch_asked_s < idle_s;
        is_busy && self.users[usize::from(user)].fits(Class::Batch)
    }

    /// Whether a batch waits for a lane, or others do for one of ours.
    pub(in crate::budget) fn is_pressed(&self, now: Elapsed) -> bool {
        let now_s = now.0.as_secs_f64();
        let waits = self.waiting[Class::Batch as usize..].iter().any(|waiting| *waiting > 0);
        let has_lanes = self.lanes.is_empty() || self.lanes.iter().any(|lane| lane.is_ours(now_s));
        (waits && !has_lanes) || self.lanes.iter().any(|lane| matches!(lane.hold, Hold::Asked { .. }))
    }

    /// Whether the others should hear of it at once: a lane was met, or can be given up.
    pub(in crate::budget) fn has_news(&self) -> bool {
        self.is_shared && self.lanes.iter().any(|lane| !lane.is_told || lane.is_left())
    }

    /// What others are told of a user's lanes. `is_last`: everything is given back.
    pub(in crate::budget) fn report(
        &mut self,
        now: Elapsed,
        user: u16,
        is_last: bool,
        told: &mut LanesTold,
    ) -> Vec<LaneReport> {
        let now_s = now.0.as_secs_f64();
        let mut reports = Vec::new();
        for (_, cookie) in self.gone.iter().filter(|(of, _)| *of == user) {
            let standing = Standing::Gone;
            reports.push(LaneReport { server: server(cookie.as_ref()), standing, used_as_guest: None });
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.user == user) {
            let spent = lane.spent_as_guest();
            told.guests.push((user, lane.cookie.clone(), lane.as_guest));
            reports.push(LaneReport {
                server: server(lane.cookie.as_ref()),
                standing: standing(lane, now_s, is_last),
                used_as_guest: (!spent.is_empty()).then(|| to_json(&spent)),
            });
        }
        told.gone = self.gone.len();
        told.rows = self.entitlement.untold();
        reports
    }

    /// The report arrived: nothing of it is told again.
    pub(in crate::budget) fn was_told(&mut self, told: &LanesTold, rows: u64) {
        for (user, cookie, used) in &told.guests {
            let Some(lane) = self.lanes.iter_mut().find(|lane| lane.user == *user && lane.cookie == *cookie) else {
                continue;
            };
            for (left, used) in lane.as_guest.iter_mut().zip(used) {
                left.calls = (left.calls - used.calls).max(0.0);
                left.busy_s = (left.busy_s - used.busy_s).max(0.0);
            }
        }
        self.gone.drain(..told.gone.min(self.gone.len()));
        self.entitlement.share(told.rows, rows);
    }

    /// Takes what was answered for a user; leases last until `until_s`.
    pub(in crate::budget) fn take(&mut self, now: Elapsed, user: u16, lanes: &[SharedLane], until_s: f64, ages: Ages) {
        let now_s = now.0.as_secs_f64();
        self.forget_unknown(user, lanes);
        for shared in lanes {
            let cookie = (!shared.server.is_empty()).then(|| Arc::<str>::from(shared.server.as_str()));
            if self.gone.iter().any(|(of, gone)| *of == user && *gone == cookie) {
                continue;
            }
            let index = self.lanes.iter().position(|lane| lane.user == user && lane.cookie == cookie);
            let index = index.unwrap_or_else(|| self.hear_of(now_s, user, cookie, shared, ages));
            let lane = &mut self.lanes[index];
            settle(lane, now_s, shared, until_s, ages);
        }
    }

    /// A server that another budget met.
    fn hear_of(&mut self, now_s: f64, user: u16, cookie: Option<Arc<str>>, shared: &SharedLane, ages: Ages) -> usize {
        let is_new_server = !self.lanes.iter().any(|lane| lane.cookie == cookie);
        let servers = if cookie.is_some() { 1.0 } else { f64::from(self.pooled_servers()) };
        self.add_lane(now_s, user, cookie, servers);
        if let Some(lane) = self.lanes.last_mut() {
            lane.is_told = true;
        }
        if is_new_server {
            self.discovery.found();
        }
        if shared.checkpoint.as_ref().is_some_and(|checkpoint| ages.age_s(checkpoint.at) < FOUND_FOR_S) {
            self.discovery.complete(self.servers());
        }
        self.lanes.len() - 1
    }

    /// Removes lanes that another budget found to be gone: those that were told of and are not there.
    fn forget_unknown(&mut self, user: u16, lanes: &[SharedLane]) {
        let known: HashSet<&str> = lanes.iter().map(|lane| lane.server.as_str()).collect();
        self.lanes.retain(|lane| {
            lane.user != user || !lane.is_told || known.contains(lane.cookie.as_deref().unwrap_or_default())
        });
    }

    pub(super) fn note_gone(&mut self, lane: &Lane) {
        if self.is_shared {
            self.gone.push((lane.user, lane.cookie.clone()));
        }
    }
}

fn standing(lane: &mut Lane, now_s: f64, is_last: bool) -> Standing {
    lane.is_told = true;
    match lane.hold {
        Hold::Held { epoch, .. } if !is_last => Standing::Holder { epoch, checkpoint: to_json(&lane.state(now_s)) },
        Hold::Asked { epoch } if !is_last && !lane.is_left() => {
            Standing::Holder { epoch, checkpoint: to_json(&lane.state(now_s)) }
        }
        Hold::Held { epoch, .. } | Hold::Asked { epoch } => {
            Standing::Left { epoch, checkpoint: to_json(&lane.state(now_s)) }
        }
        Hold::Alone | Hold::Guest => Standing::Guest,
    }
}

/// Gives the lane the standing that was answered.
///
/// What is ours and stays so keeps its own ledger. All else is known from what others tell, each time anew:
/// the checkpoint, what guests used since, and what we used ourselves and did not tell yet.
fn settle(lane: &mut Lane, now_s: f64, shared: &SharedLane, until_s: f64, ages: Ages) {
    let held = match lane.hold {
        Hold::Held { epoch, .. } | Hold::Asked { epoch } => Some(epoch),
        Hold::Alone | Hold::Guest => None,
    };
    let (epoch, hold) = match shared.tenure {
        Tenure::Held { epoch } => (Some(epoch), Hold::Held { epoch, until_s }),
        Tenure::Asked { epoch } => (Some(epoch), Hold::Asked { epoch }),
        Tenure::NotHeld => (None, Hold::Guest),
    };
    let goes_on = epoch.is_some() && epoch == held;
    lane.hold = hold;
    if !goes_on {
        take_over(lane, now_s, shared, ages, epoch.is_some());
        let own = lane.spent_as_guest();
        lane.add_past(now_s, 0.0, &own);
    }
    for guest in &shared.guests {
        if let Ok(spent) = serde_json::from_str::<Vec<Spent>>(&guest.used) {
            lane.add_past(now_s, ages.age_s(guest.at), &spent);
        }
    }
    if epoch.is_some() {
        lane.as_guest = [Usage::default(); 4];
    }
}

fn take_over(lane: &mut Lane, now_s: f64, shared: &SharedLane, ages: Ages, is_ours: bool) {
    let state = shared.checkpoint.as_ref().and_then(|checkpoint| {
        // One that cannot be read is as good as none: the lane counts as full.
        let state: LaneState = serde_json::from_str(&checkpoint.state).ok()?;
        let age_s = ages.age_s(checkpoint.at);
        let open_s = if is_ours { age_s - ages.age_s(checkpoint.open_until) } else { 0.0 };
        Some((state, age_s, open_s))
    });
    let told = state.as_ref().map(|(state, age_s, open_s)| Told { state, age_s: *age_s, open_s: *open_s });
    lane.take_over(now_s, told);
}

fn server(cookie: Option<&Arc<str>>) -> String {
    cookie.map(ToString::to_string).unwrap_or_default()
}

/// Numbers only: that they cannot be written as JSON is not possible.
fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
