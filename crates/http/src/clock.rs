//! The machine's clock, and the same clock run faster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowgate_core::{Clock, Elapsed};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// The machine's clock. `elapsed` and `sleep` are in seconds that last `1 / time_scale` real ones.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    time_scale: f64,
}

impl SystemClock {
    /// A clock whose seconds pass `time_scale` times as fast as real ones.
    ///
    /// Scales that are not positive numbers count as 1: a clock that stands still helps nobody.
    pub fn new(time_scale: f64) -> Self {
        Self { origin: Instant::now(), time_scale: usable_scale(time_scale) }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Elapsed {
        Elapsed(self.origin.elapsed().mul_f64(self.time_scale))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration.div_f64(self.time_scale)).boxed()
    }
}

/// Another clock, run `time_scale` times as fast.
#[derive(Debug)]
pub struct ScaledClock {
    inner: Arc<dyn Clock>,
    time_scale: f64,
}

impl ScaledClock {
    pub fn new(inner: Arc<dyn Clock>, time_scale: f64) -> Self {
        Self { inner, time_scale: usable_scale(time_scale) }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn elapsed(&self) -> Elapsed {
        Elapsed(self.inner.elapsed().0.mul_f64(self.time_scale))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration.div_f64(self.time_scale))
    }
}

fn usable_scale(time_scale: f64) -> f64 {
    if time_scale.is_finite() && time_scale > 0.0 { time_scale } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Elapsed {
            Elapsed(Duration::from_secs(3))
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            assert_eq!(duration, Duration::from_secs(2));
            futures::future::ready(()).boxed()
        }
    }

    #[test]
    fn a_scaled_clock_measures_longer_and_waits_shorter() {
        let clock = ScaledClock::new(Arc::new(Fixed), 10.0);
        assert_eq!(clock.elapsed().0, Duration::from_secs(30));
        assert!(clock.sleep(Duration::from_secs(20)).now_or_never().is_some());
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn an_unusable_scale_counts_as_one() {
        assert_eq!(ScaledClock::new(Arc::new(Fixed), 0.0).elapsed().0, Duration::from_secs(3));
        assert_eq!(ScaledClock::new(Arc::new(Fixed), f64::NAN).elapsed().0, Duration::from_secs(3));
    }
}
