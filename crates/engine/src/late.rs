//! Waiting out writes that may take effect late.
//!
//! A write that was given up and sent again may be run by the destination once more, minutes later. Within a run that
//! is no harm, because it says the same; after the next run wrote newer values it would undo them, and nothing would
//! tell. So each state remembers when a write of its rows was last given up, and the next run sends nothing before
//! the destination can no longer run it. Runs are hours apart; the wait is for those that are not.
//!
//! Left out: a wall clock that is set forward while a write is late, which shortens the wait by as much.

use std::time::Duration;

use jiff::Timestamp;

use crate::RunError;
use crate::run::Scope;

/// Waits until nothing that was given up at `unanswered` can take effect any more.
pub(crate) async fn outwait(scope: &Scope<'_>, unanswered: Option<Timestamp>) -> Result<(), RunError> {
    let Some(wait) = unanswered.and_then(|at| left(at, scope.clock().now(), scope.destination.lateness_max())) else {
        return Ok(());
    };
    scope.engine.warn(&format!(
        "load `{}`: a write to `{}` was never answered and may still take effect: waiting {} s before anything newer is sent",
        scope.load.name,
        scope.load.table,
        wait.as_secs() + 1
    ));
    scope.cancel.run_until_cancelled(scope.clock().sleep(wait)).await.ok_or(RunError::Cancelled)
}

/// Waits as long as anything of a process whose state is lost could take effect: nothing says when it was given up.
pub(crate) async fn outwait_unknown(scope: &Scope<'_>) -> Result<(), RunError> {
    let wait = scope.destination.lateness_max();
    scope.engine.warn(&format!(
        "load `{}`: rows of `{}` were written by us within the last hour, and there is no state of it: waiting {} s for what may still be under way, \
         then they are read again",
        scope.load.name,
        scope.load.table,
        wait.as_secs() + 1
    ));
    scope.cancel.run_until_cancelled(scope.clock().sleep(wait)).await.ok_or(RunError::Cancelled)
}

/// When a write was last given up, for the next state. `was_stopped`: what this run sent before it was stopped is
/// known from its ledger only, which does not say whether it was answered at once.
pub(crate) fn unanswered(scope: &Scope<'_>, before: Option<Timestamp>, was_stopped: bool) -> Option<Timestamp> {
    let now = scope.clock().now();
    let of_this_run = scope.destination.unanswered(&scope.load.table).max(was_stopped.then_some(now));
    of_this_run.max(before).filter(|at| left(*at, now, scope.destination.lateness_max()).is_some())
}

/// The rest of `lateness_max` since `at`; never more than all of it, wherever the wall clock was set meanwhile.
fn left(at: Timestamp, now: Timestamp, lateness_max: Duration) -> Option<Duration> {
    let passed = now.duration_since(at);
    let passed = Duration::try_from(passed).unwrap_or_default();
    lateness_max.checked_sub(passed).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_with_the_lateness_and_is_never_longer() {
        let max = Duration::from_mins(5);
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        assert_eq!(left(at(0), at(100), max), Some(Duration::from_secs(200)));
        assert_eq!(left(at(0), at(300), max), None);
        assert_eq!(left(at(0), at(-9_999_999), max), Some(max), "the clock was set back");
    }
}
