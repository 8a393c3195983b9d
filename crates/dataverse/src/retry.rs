//! The one retry layer: whether and when the same request is sent again.
//!
//! Pure. A `Retry-After` is the budget's business and no attempt: a throttled request was not run.
//! Everything else has a bounded number of tries, by class of error.

use std::time::Duration;

use crate::fault::FaultClass;

/// Tries after passing failures, with waits of 1, 2, 4 … 60 s: about two minutes altogether.
const PASSING_TRIES_MAX: u32 = 8;

/// Tries after errors that may as well be the row's (dossier section 25.4, rule 6).
const LIMITED_TRIES_MAX: u32 = 3;

/// An environment that is switched off or moving is asked again this often, and as often.
const PAUSED_WAIT: Duration = Duration::from_mins(1);
const PAUSED_TRIES_MAX: u32 = 15;

const WAIT_MAX: Duration = Duration::from_mins(1);

/// What happened to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// No connection: nothing was sent.
    NotSent,
    /// Sent; no usable answer.
    Unknown,
    Refused(FaultClass),
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send again after this time. The budget adds its own wait.
    Again(Duration),
    RenewToken,
    /// The last end stands.
    Stop,
}

/// The attempts of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    passing: u32,
    limited: u32,
    paused: u32,
    has_renewed_token: bool,
}

impl Retry {
    /// Whether an attempt met nobody, or its end is not known.
    pub(crate) fn has_failed(&self) -> bool {
        self.passing > 0
    }

    /// Decides after an attempt. `jitter` is from 0 to 1.
    pub(crate) fn after(&mut self, attempt: Attempt, is_repeatable: bool, jitter: f64) -> Next {
        match attempt {
            Attempt::NotSent | Attempt::Refused(FaultClass::Transient) => self.passing(jitter),
            Attempt::Unknown | Attempt::Refused(FaultClass::Gateway) if is_repeatable => self.passing(jitter),
            Attempt::Unknown | Attempt::Refused(FaultClass::Gateway) => Next::Stop,
            Attempt::Refused(class) => self.refused(class, jitter),
        }
    }

    fn refused(&mut self, class: FaultClass, jitter: f64) -> Next {
        match class {
            FaultClass::Throttled => Next::Again(Duration::ZERO),
            FaultClass::Unauthenticated if !self.has_renewed_token => {
                self.has_renewed_token = true;
                Next::RenewToken
            }
            FaultClass::Limited => {
                self.limited += 1;
                if self.limited < LIMITED_TRIES_MAX { Next::Again(back_off(self.limited, jitter)) } else { Next::Stop }
            }
            FaultClass::Paused => {
                self.paused += 1;
                if self.paused < PAUSED_TRIES_MAX { Next::Again(PAUSED_WAIT) } else { Next::Stop }
            }
            FaultClass::Transient
            | FaultClass::Gateway
            | FaultClass::Unauthenticated
            | FaultClass::Split
            | FaultClass::Row
            | FaultClass::RowOrConfiguration
            | FaultClass::Duplicate
            | FaultClass::Missing
            | FaultClass::Conflict
            | FaultClass::NoMessage
            | FaultClass::ExpiredToken
            | FaultClass::Configuration
            | FaultClass::Permission => Next::Stop,
        }
    }

    fn passing(&mut self, jitter: f64) -> Next {
        self.passing += 1;
        if self.passing < PASSING_TRIES_MAX { Next::Again(back_off(self.passing, jitter)) } else { Next::Stop }
    }
}

/// 1, 2, 4 … 60 s, from half of it to all of it.
fn back_off(failures: u32, jitter: f64) -> Duration {
    let whole = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(WAIT_MAX);
    whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_failures_back_off_and_end() {
        let mut retry = Retry::default();
        let mut waits = Vec::new();
        while let Next::Again(wait) = retry.after(Attempt::NotSent, false, 1.0) {
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
    }

    #[test]
    fn an_unknown_end_is_repeated_only_when_that_does_no_harm() {
        for attempt in [Attempt::Unknown, Attempt::Refused(FaultClass::Gateway)] {
            assert_eq!(Retry::default().after(attempt, false, 1.0), Next::Stop);
            assert_eq!(Retry::default().after(attempt, true, 1.0), Next::Again(Duration::from_secs(1)));
        }
    }

    #[test]
    fn a_token_is_renewed_once() {
        let mut retry = Retry::default();
        let refused = Attempt::Refused(FaultClass::Unauthenticated);
        assert_eq!(retry.after(refused, true, 0.0), Next::RenewToken);
        assert_eq!(retry.after(refused, true, 0.0), Next::Stop);
    }

    #[test]
    fn throttling_is_no_attempt() {
        let mut retry = Retry::default();
        for _ in 0..1_000 {
            assert_eq!(retry.after(Attempt::Refused(FaultClass::Throttled), false, 0.0), Next::Again(Duration::ZERO));
        }
    }

    #[test]
    fn a_row_is_not_sent_again() {
        for class in [FaultClass::Row, FaultClass::Duplicate, FaultClass::Missing, FaultClass::Permission] {
            assert_eq!(Retry::default().after(Attempt::Refused(class), true, 0.0), Next::Stop);
        }
    }
}
