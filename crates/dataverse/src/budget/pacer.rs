//! A token bucket that spreads requests evenly (GCRA), in seconds of execution or in requests.
//!
//! Debt is allowed: a request that took longer than expected is paid for by those after it.

#[derive(Debug, Clone)]
pub(super) struct Pacer {
    tokens: f64,
    at_s: f64,
}

impl Pacer {
    pub(super) fn new(now_s: f64) -> Self {
        Self { tokens: 0.0, at_s: now_s }
    }

    /// Adds what `rate` brought since the last time, up to a second of it or one request.
    pub(super) fn refill(&mut self, now_s: f64, rate: f64, cost: f64) {
        let elapsed_s = (now_s - self.at_s).max(0.0);
        self.at_s = self.at_s.max(now_s);
        self.tokens = (self.tokens + rate * elapsed_s).min(rate.max(cost));
    }

    /// Seconds until a request of this cost may go: when half of it has been saved up.
    pub(super) fn wait_s(&self, rate: f64, cost: f64) -> f64 {
        ((cost / 2.0 - self.tokens) / rate.max(1e-6)).max(0.0)
    }

    pub(super) fn take(&mut self, amount: f64) {
        self.tokens -= amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_exactly_the_rate_goes() {
        let mut pacer = Pacer::new(0.0);
        let mut sent = 0.0;
        for tick in 0..100_000 {
            let now_s = f64::from(tick) * 0.01;
            pacer.refill(now_s, 4.0, 1.5);
            if pacer.wait_s(4.0, 1.5) <= 0.0 {
                pacer.take(1.5);
                sent += 1.5;
            }
        }
        assert!((sent - 4_000.0_f64).abs() < 5.0, "{sent}");
    }

    #[test]
    fn a_pause_is_not_saved_up_beyond_a_second() {
        let mut pacer = Pacer::new(0.0);
        pacer.refill(1_000.0, 4.0, 1.0);
        pacer.take(4.0);
        assert!(pacer.wait_s(4.0, 1.0) > 0.0);
    }
}
