//! Writes that nobody was told the end of, and for how long they may still take effect.
//!
//! A write that was given up may be run minutes later, after it was sent again and after a newer version of its rows
//! (reliability notes, section 7.3). Nothing there can tell such a late write from a new one, so whoever sends a
//! newer version waits until there can be none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// How long after we gave up on it a write may still take effect, in the service's time, unless the connection says it.
/// UNVERIFIED: the service ends plug-ins and SQL commands after two minutes each, and no source says how long a request
/// may wait before.
pub(crate) const LATENESS_DEFAULT: Duration = Duration::from_mins(5);

/// When writes were last given up, by table.
#[derive(Debug)]
pub(crate) struct Unanswered {
    last: Mutex<HashMap<String, Timestamp>>,
    lateness: Duration,
    time_scale: f64,
}

impl Unanswered {
    /// `lateness` is the service's time.
    pub(crate) fn new(lateness: Duration, time_scale: f64) -> Self {
        Self { last: Mutex::default(), lateness, time_scale }
    }

    pub(crate) fn note(&self, table: &str, now: Timestamp) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned(), now);
    }

    pub(crate) fn of(&self, table: &str) -> Option<Timestamp> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(table).copied()
    }

    /// In real time.
    pub(crate) fn lateness_max(&self) -> Duration {
        self.lateness.div_f64(self.time_scale.max(f64::MIN_POSITIVE))
    }
}
