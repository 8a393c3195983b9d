//! Time as a parameter.
//!
//! One clock serves one connection. Against the real service it runs at 1; against the emulator it
//! may run faster (`time_scale`), and then every wait and every measured duration is in the
//! service's simulated seconds.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// Where time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock, for records a person reads. Never used to measure.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment before the process did anything, in the connection's seconds.
    /// It never goes back.
    fn elapsed(&self) -> Elapsed;

    /// Completes after `duration` of the connection's seconds.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A moment of a [`Clock`], as time since the clock's fixed origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Elapsed(pub Duration);

impl Elapsed {
    /// The time from `earlier` to `self`, zero if the two are the wrong way round.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
