//! The one gate every request passes: who may send, when, and what was used.
//!
//! `Budget` is the plumbing: it asks the [`Policy`], waits, wakes and counts. What the limits are and
//! how they are shared is the policy's, which is a pure state machine: simulations run it as it is.

mod classes;
mod discovery;
mod entitlement;
mod facts;
mod gate;
mod keeper;
mod lane;
mod limits;
mod network;
mod pacer;
mod policy;
#[cfg(test)]
mod policy_tests;
mod random;
pub(crate) mod retry_after;
mod share;
mod snapshot;
mod waits;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowgate_core::destination::{Class, RequestCounts};
use flowgate_core::{Clock, ConnectorError, Elapsed};
use tokio::sync::Notify;

pub use classes::Role;
pub use facts::{AnswerFacts, Cost, Ended, Grant, Throttled, ThrottledBy, Verdict};
pub use keeper::LaneKeeper;
pub(crate) use keeper::{Sharing, SharingState};
pub use policy::{Policy, PolicySettings};
pub(crate) use share::Shares;
pub use snapshot::{
    ConnectionSnapshot, EntitlementSnapshot, LaneSnapshot, MessageSnapshot, Snapshot, UserSnapshot, WaitingSnapshot,
};
use waits::WaitCounts;
pub use waits::Waits;

/// Why a request may not go, now or later.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// The daily budget is used up: nothing more of this class today.
    DailyBudgetUsed { daily: u64 },
    /// Which lanes are ours cannot be known.
    NotShared(ConnectorError),
}

/// The limits of one application user, shared by everything that uses the connection.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: Mutex<Policy>,
    changed: Notify,
    clock: Arc<dyn Clock>,
    shares: Shares,
    /// How lanes are shared with other processes; alone without.
    sharing: Option<Sharing>,
    sent: AtomicU64,
    throttled: AtomicU64,
    waits: WaitCounts,
}

impl Budget {
    pub(crate) fn new(clock: Arc<dyn Clock>, shares: Shares, policy: Policy, sharing: Option<Sharing>) -> Self {
        Self {
            policy: Mutex::new(policy),
            changed: Notify::new(),
            clock,
            shares,
            sharing,
            sent: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            waits: WaitCounts::default(),
        }
    }

    /// Waits until a request of this class and cost may go.
    ///
    /// Dropping the future gives the turn back. The permit must be completed with what the answer
    /// told; a permit that is dropped counts as a request that took what it was expected to.
    pub(crate) async fn admit(self: &Arc<Self>, class: Class, cost: Cost) -> Result<Permit<'_>, NotAdmitted> {
        self.join().await.map_err(NotAdmitted::NotShared)?;
        let waiting = Waiting::start(self, class);
        let since = self.clock.elapsed();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before asking, so that a completion in between is not missed.
            changed.as_mut().enable();
            let now = self.clock.elapsed();
            if let Some(error) = self.sharing_failure(now, class) {
                return Err(NotAdmitted::NotShared(error));
            }
            match self.ask(now, class, cost) {
                Verdict::Admitted(grant) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    self.waits.add(class, self.clock.elapsed().since(since));
                    drop(waiting);
                    return Ok(Permit { budget: self, grant: Some(grant), sent_at: now });
                }
                Verdict::DailyBudgetUsed { daily } => return Err(NotAdmitted::DailyBudgetUsed { daily }),
                Verdict::AfterCompletion => changed.await,
                Verdict::NotBefore(moment) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.clock.sleep(moment.since(now)) => {}
                    }
                }
            }
        }
    }

    /// Batch requests that may be under way at once.
    pub(crate) fn parallel_max(&self) -> u32 {
        self.policy().parallel_max(self.clock.elapsed())
    }

    /// All that is known of the limits now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.policy().snapshot(self.clock.elapsed())
    }

    /// How long requests of a class waited to be let in.
    pub(crate) fn waits(&self, class: Class) -> Waits {
        self.waits.of(class)
    }

    pub(crate) fn requests(&self) -> RequestCounts {
        RequestCounts { sent: self.sent.load(Ordering::Relaxed), throttled: self.throttled.load(Ordering::Relaxed) }
    }

    fn ask(&self, now: Elapsed, class: Class, cost: Cost) -> Verdict {
        let share = self.shares.at(self.clock.now());
        let mut policy = self.policy();
        policy.set_share(share);
        // The asker itself must not stand in its own way.
        policy.stop_waiting(class);
        let verdict = policy.ask(now, class, cost);
        policy.start_waiting(class);
        verdict
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        // The policy is numbers only: a panic elsewhere leaves nothing half done in it.
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that may go.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    budget: &'a Budget,
    /// `None` once it was given back.
    grant: Option<Grant>,
    sent_at: Elapsed,
}

impl Permit<'_> {
    /// Which of the application users sends it.
    pub(crate) fn user(&self) -> usize {
        self.grant.as_ref().map_or(0, |grant| usize::from(grant.user))
    }

    /// The affinity cookie to send with the request.
    pub(crate) fn cookie(&self) -> Option<&str> {
        self.grant.as_ref()?.cookie.as_deref()
    }

    /// Whether it is there to look if a server is back, and for nothing else.
    pub(crate) fn is_trial(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.is_trial)
    }

    /// The same without a cookie: the service chooses the web server.
    pub(crate) fn unbound(mut self) -> Self {
        if let Some(grant) = &mut self.grant {
            grant.cookie = None;
        }
        self
    }

    /// The time since the request was let in.
    pub(crate) fn elapsed(&self) -> Duration {
        self.budget.clock.elapsed().since(self.sent_at)
    }

    /// Gives the permit back. Returns what the request took of the service's time.
    pub(crate) fn complete(mut self, ended: &Ended) -> Duration {
        if matches!(ended, Ended::Throttled(..)) {
            self.budget.throttled.fetch_add(1, Ordering::Relaxed);
        }
        self.give_back(ended)
    }

    fn give_back(&mut self, ended: &Ended) -> Duration {
        let Some(grant) = self.grant.take() else { return Duration::ZERO };
        let now = self.budget.clock.elapsed();
        let mut policy = self.budget.policy();
        let busy = policy.complete(now, &grant, ended);
        let has_news = policy.has_news();
        drop(policy);
        if has_news {
            self.budget.tell_soon();
        }
        self.budget.changed.notify_waiters();
        busy
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.give_back(&Ended::Abandoned);
    }
}

/// Counts a request among those that wait, until it is let in or given up.
struct Waiting<'a> {
    budget: &'a Budget,
    class: Class,
}

impl<'a> Waiting<'a> {
    fn start(budget: &'a Budget, class: Class) -> Self {
        budget.policy().start_waiting(class);
        Self { budget, class }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.budget.policy().stop_waiting(self.class);
        self.budget.changed.notify_waiters();
    }
}
