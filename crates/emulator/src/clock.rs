//! Simulated time: wall time stretched by the time scale.
//!
//! Promise: at scale 1 the clock is the wall clock of the start plus elapsed monotonic time, so
//! it never goes back; at scale K it runs K times as fast, and [`Clock::sleep`] is K times as
//! short. This is the only module that reads the machine's clock. Left out: time zones.

use std::time::{Duration, Instant, SystemTime};

#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: f64,
    scale: f64,
    /// Seconds added by the control interface, in thousandths.
    skipped_ms: std::sync::atomic::AtomicU64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub(crate) fn new(scale: f64) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), started_at: wall.as_secs_f64(), scale, skipped_ms: 0.into() }
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// Simulated seconds since 1970.
    pub(crate) fn now(&self) -> f64 {
        self.started_at + self.elapsed()
    }

    /// Simulated seconds since the start.
    pub(crate) fn elapsed(&self) -> f64 {
        let skipped = self.skipped_ms.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1000.0;
        self.started.elapsed().as_secs_f64() * self.scale + skipped
    }

    /// Jumps forward, so that tests need not wait for windows and tokens to pass.
    pub(crate) fn skip(&self, seconds: f64) {
        self.skipped_ms.fetch_add((seconds.max(0.0) * 1000.0) as u64, std::sync::atomic::Ordering::Relaxed);
    }

    /// Waits for simulated seconds.
    pub(crate) async fn sleep(&self, seconds: f64) {
        let wall = seconds / self.scale;
        if wall > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(wall)).await;
        }
    }
}
