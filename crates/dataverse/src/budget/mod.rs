//! The one gate every request passes: who may send, when, and what was used.
//!
//! [`Budget`] is the plumbing: it asks the [`Policy`], waits, wakes and counts. What the limits are
//! and how they are shared is the policy's, so that a better one replaces a file and no caller.

mod policy;
#[cfg(test)]
mod policy_tests;
mod share;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowgate_core::destination::{Class, RequestCounts};
use flowgate_core::{Clock, Elapsed};
use tokio::sync::Notify;

pub(crate) use policy::{AnswerFacts, Cost, Throttled};
use policy::{Policy, Verdict};
pub(crate) use share::Shares;

/// The daily budget is used up: nothing more of this class today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DailyBudgetUsed {
    pub(crate) daily: u64,
}

/// The limits of one application user, shared by everything that uses the connection.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: Mutex<Policy>,
    changed: Notify,
    clock: Arc<dyn Clock>,
    shares: Shares,
    sent: AtomicU64,
    throttled: AtomicU64,
}

impl Budget {
    pub(crate) fn new(clock: Arc<dyn Clock>, shares: Shares, daily: Option<u64>, seed: u64) -> Self {
        Self {
            policy: Mutex::new(Policy::new(daily, seed)),
            changed: Notify::new(),
            clock,
            shares,
            sent: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
        }
    }

    /// Waits until a request of this class and cost may go.
    ///
    /// Dropping the future gives the turn back. The permit must be completed with what the answer
    /// told; a permit that is dropped counts as a request that took what it was expected to.
    pub(crate) async fn admit(&self, class: Class, cost: Cost) -> Result<Permit<'_>, DailyBudgetUsed> {
        let waiting = Waiting::start(self, class);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before asking, so that a completion in between is not missed.
            changed.as_mut().enable();
            let now = self.clock.elapsed();
            match self.ask(now, class, cost) {
                Verdict::Admitted => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    drop(waiting);
                    return Ok(Permit { budget: self, class, cost, started: now, facts: None });
                }
                Verdict::DailyBudgetUsed { daily } => return Err(DailyBudgetUsed { daily }),
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
        self.policy().parallel_max()
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
        let verdict = policy.admit(now, class, cost);
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
    class: Class,
    cost: Cost,
    started: Elapsed,
    facts: Option<AnswerFacts>,
}

impl Permit<'_> {
    /// The time since the request was let in.
    pub(crate) fn elapsed(&self) -> Duration {
        self.budget.clock.elapsed().since(self.started)
    }

    pub(crate) fn complete(mut self, facts: AnswerFacts) {
        if facts.throttled.is_some() {
            self.budget.throttled.fetch_add(1, Ordering::Relaxed);
        }
        self.facts = Some(facts);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = self.budget.clock.elapsed();
        self.budget.policy().complete(now, self.class, self.cost, self.facts);
        self.budget.changed.notify_waiters();
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
