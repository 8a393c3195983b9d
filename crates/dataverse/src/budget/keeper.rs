//! Sharing lanes with the other processes of the host: what is told to them each second, and what is
//! done with their answer.
//!
//! The rule, in full:
//!
//! * A lane is held whole, by one budget, for [`LANE_LEASE`]; each beat renews it. Batches go only into
//!   lanes that are held, and not after the lease has ended, whatever else is known.
//! * A budget that is asked for a lane sends no more batches there, and gives it up when none is under way.
//!   Its ledger goes with the lane, so the next holder continues the window and does not wait for it to
//!   pass. So does the ledger of a process that died, and that of the last run: a run that begins at once
//!   after another does not take the window for empty.
//! * Urgent requests never wait for a lease. They go into lanes that are held, or as a guest into any
//!   other: its holder learns with the next beat what they used, counts it as used, and keeps room for as
//!   much again.
//! * A budget that cannot reach the others keeps its lanes until the lease ends. Then batches fail with the
//!   reason: to send on would use the limits twice.
//!
//! Who gets how many lanes is the other side's to say ([`LaneSeat`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::ports::{Beat, Beaten, LANE_LEASE, LaneLeases, LaneSeat, RowsBeat, UserBeat};
use flowgate_core::{Clock, ConnectorError, Elapsed};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OnceCell};

use super::classes::is_paced;
use super::entitlement::DAY_S;
use super::policy::{Ages, LanesTold};
use super::{Budget, Policy, Snapshot};

/// Time between two beats, in real time, and the same while somebody waits for a lane.
const BEAT: Duration = Duration::from_secs(1);
const BEAT_PRESSED: Duration = Duration::from_millis(200);

/// Lanes are kept for so long after the last batch, in real time.
const IDLE_S: f64 = 5.0;

/// A budget's seat among those that share, and what it tells there.
#[derive(Debug)]
pub struct LaneKeeper {
    seat: Box<dyn LaneSeat>,
    /// Of each application user.
    identities: Vec<String>,
    /// Under which rows of a day are counted.
    pool: String,
    time_scale: f64,
}

impl LaneKeeper {
    /// Joins those who share. `clock` runs `time_scale` times as fast as real time.
    pub fn enter(
        leases: &dyn LaneLeases,
        connection: &str,
        identities: Vec<String>,
        pool: String,
        time_scale: f64,
        now: Timestamp,
    ) -> Result<Self, ConnectorError> {
        let seat = leases.enter(connection, now)?;
        Ok(Self { seat, identities, pool, time_scale })
    }

    /// The first beat: from now on every lane of `policy` is another's until it is given to it.
    pub fn join(
        &self,
        policy: &Mutex<Policy>,
        clock: &dyn Clock,
        describe: impl FnOnce(Snapshot) -> String,
    ) -> Result<(), ConnectorError> {
        hold(policy).share_lanes();
        self.beat(policy, clock, describe)
    }

    /// Tells what `policy` did and gives it the lanes that are its own from now on.
    pub fn beat(
        &self,
        policy: &Mutex<Policy>,
        clock: &dyn Clock,
        describe: impl FnOnce(Snapshot) -> String,
    ) -> Result<(), ConnectorError> {
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let mut told = LanesTold::default();
        let beat = self.report(&mut hold(policy), (now, elapsed), describe, false, &mut told);
        let beaten = self.seat.beat(now, &beat)?;
        self.take(&mut hold(policy), (now, elapsed), clock.elapsed(), &told, &beaten);
        Ok(())
    }

    /// Gives everything back.
    pub fn leave(
        &self,
        policy: &Mutex<Policy>,
        clock: &dyn Clock,
        describe: impl FnOnce(Snapshot) -> String,
    ) -> Result<(), ConnectorError> {
        let moment = (clock.now(), clock.elapsed());
        let beat = self.report(&mut hold(policy), moment, describe, true, &mut LanesTold::default());
        self.seat.leave(moment.0, &beat)
    }

    fn report(
        &self,
        policy: &mut Policy,
        (now, elapsed): (Timestamp, Elapsed),
        describe: impl FnOnce(Snapshot) -> String,
        is_last: bool,
        told: &mut LanesTold,
    ) -> Beat {
        let idle_s = IDLE_S * self.time_scale;
        let users = self.identities.iter().enumerate().map(|(user, identity)| UserBeat {
            identity: identity.clone(),
            wants_lanes: !is_last && policy.wants_lanes(elapsed, user as u16, idle_s),
            lanes: policy.report(elapsed, user as u16, is_last, told),
        });
        let users = users.collect();
        let day = SignedDuration::try_from_secs_f64(DAY_S / self.time_scale).unwrap_or(SignedDuration::ZERO);
        let since = now.checked_sub(day).unwrap_or(Timestamp::MIN);
        let rows = Some(RowsBeat { pool: self.pool.clone(), rows: told.rows, since });
        Beat { users, rows, snapshot: describe(policy.snapshot(elapsed)) }
    }

    /// The lease counts from when the report was made.
    fn take(
        &self,
        policy: &mut Policy,
        (now, reported): (Timestamp, Elapsed),
        elapsed: Elapsed,
        told: &LanesTold,
        beaten: &Beaten,
    ) {
        policy.was_told(told, beaten.rows);
        let until_s = reported.0.as_secs_f64() + self.time_scale * LANE_LEASE.as_secs_f64();
        let ages = Ages { now, time_scale: self.time_scale };
        for (user, lanes) in beaten.users.iter().enumerate() {
            policy.take(elapsed, user as u16, lanes, until_s, ages);
        }
    }

    /// How long until the next beat is due, in the policy's time.
    pub fn until_beat(&self, policy: &Mutex<Policy>, now: Elapsed) -> Duration {
        let is_pressed = hold(policy).is_pressed(now);
        self.scaled(if is_pressed { BEAT_PRESSED } else { BEAT })
    }

    fn scaled(&self, real: Duration) -> Duration {
        real.mul_f64(self.time_scale)
    }
}

/// How a budget shares, before and after it has joined the others.
pub(crate) struct Sharing {
    pub(crate) leases: Arc<dyn LaneLeases>,
    pub(crate) connection: String,
    pub(crate) identities: Vec<String>,
    pub(crate) pool: String,
    pub(crate) time_scale: f64,
    /// Makes the text that people are shown.
    pub(crate) describe: Box<dyn Fn(Snapshot) -> String + Send + Sync>,
    pub(crate) state: SharingState,
}

#[derive(Debug, Default)]
pub(crate) struct SharingState {
    keeper: OnceCell<LaneKeeper>,
    /// Somebody should hear of something before the next beat is due.
    soon: Arc<Notify>,
    /// When a beat last succeeded, and why none did since.
    last: Mutex<(Elapsed, Option<ConnectorError>)>,
}

impl std::fmt::Debug for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sharing")
            .field("connection", &self.connection)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Sharing {
    fn enter(&self, now: Timestamp) -> Result<LaneKeeper, ConnectorError> {
        let (identities, pool) = (self.identities.clone(), self.pool.clone());
        LaneKeeper::enter(self.leases.as_ref(), &self.connection, identities, pool, self.time_scale, now)
    }
}

impl Budget {
    /// Joins those who share the lanes, once.
    pub(super) async fn join(self: &Arc<Self>) -> Result<(), ConnectorError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        let mut is_first = false;
        let joining = sharing.state.keeper.get_or_try_init(|| async {
            is_first = true;
            let budget = Arc::clone(self);
            blocking(move || budget.first_beat()).await
        });
        joining.await?;
        if is_first {
            tokio::spawn(keep(Arc::downgrade(self)));
        }
        Ok(())
    }

    fn first_beat(&self) -> Result<LaneKeeper, ConnectorError> {
        let Some(sharing) = &self.sharing else { return Err(not_beaten()) };
        let keeper = sharing.enter(self.clock.now())?;
        keeper.join(&self.policy, self.clock.as_ref(), &sharing.describe)?;
        *hold(&sharing.state.last) = (self.clock.elapsed(), None);
        Ok(keeper)
    }

    /// One beat, and what waits for lanes may ask again.
    fn beat(&self) {
        let Some((sharing, keeper)) = self.keeper() else { return };
        let began = self.clock.elapsed();
        match keeper.beat(&self.policy, self.clock.as_ref(), &sharing.describe) {
            Ok(()) => *hold(&sharing.state.last) = (began, None),
            Err(error) => {
                tracing::warn!(%error, connection = sharing.connection, "the lanes could not be renewed");
                hold(&sharing.state.last).1 = Some(error);
            }
        }
        self.changed.notify_waiters();
    }

    /// Why batches may not go, once the lease has ended without a beat.
    pub(super) fn sharing_failure(&self, now: Elapsed, class: Class) -> Option<ConnectorError> {
        let (sharing, keeper) = self.keeper().filter(|_| is_paced(class))?;
        let last = hold(&sharing.state.last);
        let (at, error) = (last.0, last.1.as_ref()?);
        let is_over = now.since(at) >= keeper.scaled(LANE_LEASE);
        is_over.then(|| {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let mut again = ConnectorError::new(error.kind, error.code, format!("{}{cause}", error.message));
            again.hints.clone_from(&error.hints);
            again
        })
    }

    /// The next beat is brought forward.
    pub(super) fn tell_soon(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.state.soon.notify_one();
        }
    }

    fn keeper(&self) -> Option<(&Sharing, &LaneKeeper)> {
        let sharing = self.sharing.as_ref()?;
        Some((sharing, sharing.state.keeper.get()?))
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let Some((sharing, keeper)) = self.keeper() else { return };
        if let Err(error) = keeper.leave(&self.policy, self.clock.as_ref(), &sharing.describe) {
            // The others see it from the seat's lock, and from the last beat what was used.
            tracing::warn!(%error, connection = sharing.connection, "the lanes could not be given back");
        }
    }
}

/// Beats for as long as the budget lives.
async fn keep(budget: Weak<Budget>) {
    loop {
        let Some((wait, soon)) = budget.upgrade().and_then(|budget| {
            let soon = Arc::clone(&budget.sharing.as_ref()?.state.soon);
            let keeper = budget.keeper()?.1;
            Some((budget.clock.sleep(keeper.until_beat(&budget.policy, budget.clock.elapsed())), soon))
        }) else {
            return;
        };
        tokio::select! {
            () = wait => {}
            () = soon.notified() => {}
        }
        let Some(budget) = budget.upgrade() else { return };
        let beat = move || {
            budget.beat();
            Ok(())
        };
        if let Err(error) = blocking(beat).await {
            tracing::warn!(%error, "a beat was lost");
        }
    }
}

/// Files are waited for where nobody else has to.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(not_beaten()))
}

fn not_beaten() -> ConnectorError {
    let message = "the limits of the service could not be shared with other processes";
    ConnectorError::new(flowgate_core::ErrorKind::Internal, flowgate_core::Code::INTERNAL, message)
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use flowgate_core::ports::{SharedLane, Standing, Tenure};
    use flowgate_core::{Code, ErrorKind};
    use flowgate_http::SystemClock;

    use super::*;
    use crate::budget::{AnswerFacts, Cost, Ended, NotAdmitted, PolicySettings, Shares};

    /// Leases last some milliseconds.
    const TIME_SCALE: f64 = 1_000.0;

    const COST: Cost = Cost { busy: Duration::from_millis(10), entitlement: 1 };

    /// Others who give all that is asked for, until they cannot be reached.
    #[derive(Debug, Default, Clone)]
    struct Others {
        is_broken: Arc<AtomicBool>,
        has_left: Arc<AtomicBool>,
    }

    impl LaneLeases for Others {
        fn enter(&self, _: &str, _: Timestamp) -> Result<Box<dyn LaneSeat>, ConnectorError> {
            Ok(Box::new(self.clone()))
        }
    }

    impl LaneSeat for Others {
        fn beat(&self, _: Timestamp, beat: &Beat) -> Result<Beaten, ConnectorError> {
            if self.is_broken.load(Ordering::Relaxed) {
                return Err(ConnectorError::new(ErrorKind::Resource, Code::DISK_FULL, "no space left"));
            }
            let lane = |server: &str| SharedLane {
                server: server.to_owned(),
                tenure: Tenure::Held { epoch: 1 },
                checkpoint: None,
                guests: Vec::new(),
            };
            let lanes = beat.users[0].lanes.iter().map(|report| lane(&report.server)).collect();
            Ok(Beaten { users: vec![lanes], rows: 0 })
        }

        fn leave(&self, _: Timestamp, beat: &Beat) -> Result<(), ConnectorError> {
            let is_left = |standing: &Standing| matches!(standing, Standing::Left { .. });
            let all = beat.users[0].lanes.iter().all(|lane| is_left(&lane.standing));
            self.has_left.store(all, Ordering::Relaxed);
            Ok(())
        }
    }

    fn budget(others: &Others) -> Arc<Budget> {
        let sharing = Sharing {
            leases: Arc::new(others.clone()),
            connection: "crm".to_owned(),
            identities: vec!["crm app".to_owned()],
            pool: "crm".to_owned(),
            time_scale: TIME_SCALE,
            describe: Box::new(|_| String::new()),
            state: SharingState::default(),
        };
        let policy = Policy::new(&PolicySettings { users: 1, daily: None, seed: 1 });
        Arc::new(Budget::new(Arc::new(SystemClock::new(TIME_SCALE)), Shares::default(), policy, Some(sharing)))
    }

    async fn send(budget: &Arc<Budget>, class: Class) -> Result<(), NotAdmitted> {
        let permit = budget.admit(class, COST).await?;
        let facts = AnswerFacts {
            duration: Duration::from_millis(10),
            cookie: Some(Arc::from("a")),
            remaining_seconds: Some(1_000.0),
            ..AnswerFacts::default()
        };
        permit.complete(&Ended::Answered(facts));
        Ok(())
    }

    #[tokio::test]
    async fn a_lane_is_used_once_it_is_given_and_given_back_at_the_end() {
        let others = Others::default();
        let budget = budget(&others);
        for _ in 0..20 {
            send(&budget, Class::Batch).await.unwrap();
        }
        assert!(budget.snapshot().lanes[0].is_ours);
        drop(budget);
        assert!(others.has_left.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn batches_end_with_the_lease_and_say_why_and_interactive_requests_go_on() {
        let others = Others::default();
        let budget = budget(&others);
        send(&budget, Class::Batch).await.unwrap();
        others.is_broken.store(true, Ordering::Relaxed);
        let refused = loop {
            if let Err(refused) = send(&budget, Class::Batch).await {
                break refused;
            }
        };
        let NotAdmitted::NotShared(error) = refused else { panic!("{refused:?}") };
        assert_eq!((error.code, error.to_string().as_str()), (Code::DISK_FULL, "no space left"));
        send(&budget, Class::Interactive).await.unwrap();
    }
}
