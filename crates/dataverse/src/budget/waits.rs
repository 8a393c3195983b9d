//! How long requests waited to be let in, by class: counted in buckets, so that a run of any length
//! takes the same room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flowgate_core::destination::Class;
use serde::Serialize;

const CLASSES: usize = 4;

/// Each bucket reaches so much further than the one before it, from a microsecond to half an hour.
const GROWTH: f64 = 1.25;
const BUCKETS: usize = 97;

/// What requests of one class waited. Percentiles are not too low, and too high by a quarter at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Waits {
    pub count: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub max_ms: f64,
}

#[derive(Debug)]
pub(super) struct WaitCounts {
    classes: [Counts; CLASSES],
}

#[derive(Debug)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

impl Default for WaitCounts {
    fn default() -> Self {
        let counts = || Counts { buckets: std::array::from_fn(|_| AtomicU64::new(0)), max_us: AtomicU64::new(0) };
        Self { classes: std::array::from_fn(|_| counts()) }
    }
}

impl WaitCounts {
    pub(super) fn add(&self, class: Class, wait: Duration) {
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let counts = &self.classes[class as usize];
        counts.buckets[bucket(wait_us)].fetch_add(1, Ordering::Relaxed);
        counts.max_us.fetch_max(wait_us, Ordering::Relaxed);
    }

    pub(super) fn of(&self, class: Class) -> Waits {
        let counts = &self.classes[class as usize];
        let buckets: Vec<u64> = counts.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let (count, max_us) = (buckets.iter().sum::<u64>(), counts.max_us.load(Ordering::Relaxed) as f64);
        let at = |share: f64| {
            let mut passed = 0;
            let reached = buckets.iter().position(|bucket| {
                passed += bucket;
                passed as f64 >= share * count as f64
            });
            reached.map_or(0.0, |index| GROWTH.powi(index as i32).min(max_us) / 1_000.0)
        };
        Waits { count, p50_ms: at(0.5), p95_ms: at(0.95), max_ms: max_us / 1_000.0 }
    }
}

/// The bucket whose upper bound, `1.25^n` microseconds, is the first that is not below the wait.
fn bucket(wait_us: u64) -> usize {
    let exact = (wait_us.max(1) as f64).ln() / GROWTH.ln();
    (exact.ceil() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_not_too_low_and_a_quarter_too_high_at_most() {
        let counts = WaitCounts::default();
        for wait_us in 1..=1_000_u64 {
            counts.add(Class::Interactive, Duration::from_micros(10 * wait_us));
        }
        let waits = counts.of(Class::Interactive);
        assert_eq!((waits.count, waits.max_ms), (1_000, 10.0));
        assert!((5.0..6.25).contains(&waits.p50_ms) && (9.5..=10.0).contains(&waits.p95_ms), "{waits:?}");
        assert_eq!(counts.of(Class::Batch), Waits::default());
    }

    #[test]
    fn the_longest_wait_of_all_has_a_bucket() {
        let counts = WaitCounts::default();
        counts.add(Class::Batch, Duration::ZERO);
        counts.add(Class::Batch, Duration::from_hours(1));
        assert_eq!(counts.of(Class::Batch).count, 2);
        assert!(GROWTH.powi(BUCKETS as i32 - 1) > 1_800e6);
    }
}
