//! How much of an answer's time was the network's and not the service's.
//!
//! Only execution time is limited, so the shortest round trip is taken off every duration. What is
//! too much taken off cheap requests that way comes back through the headers, which show it as
//! somebody else's use.

use std::time::Duration;

/// The floor rises this much a second, so that a slower network is noticed: 1 % a minute.
const RISE_PER_S: f64 = 0.01 / 60.0;

/// A round trip is not longer than this; what is, is the service's work.
const FLOOR_S_MAX: f64 = 0.25;

#[derive(Debug, Clone, Default)]
pub(super) struct Network {
    floor_s: Option<f64>,
    at_s: f64,
}

impl Network {
    pub(super) fn observe(&mut self, now_s: f64, duration: Duration) {
        let duration_s = duration.as_secs_f64();
        let risen = self.floor_s.map(|floor_s| floor_s * (1.0 + RISE_PER_S * (now_s - self.at_s).max(0.0)));
        self.floor_s = Some(risen.unwrap_or(FLOOR_S_MAX).min(duration_s).min(FLOOR_S_MAX));
        self.at_s = now_s;
    }

    pub(super) fn floor_s(&self) -> f64 {
        self.floor_s.unwrap_or(0.0)
    }

    /// The service's part of a duration.
    pub(super) fn service_s(&self, duration: Duration) -> f64 {
        (duration.as_secs_f64() - self.floor_s()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_is_taken_off() {
        let mut network = Network::default();
        for milliseconds in [300, 80, 1_000] {
            network.observe(1.0, Duration::from_millis(milliseconds));
        }
        assert!((network.service_s(Duration::from_millis(1_080)) - 1.0).abs() < 1e-9);
        assert!(network.service_s(Duration::from_millis(10)).abs() < 1e-9);
        // A network that has become slower is believed in the end.
        network.observe(3_601.0, Duration::from_millis(500));
        assert!((network.floor_s() - 0.128).abs() < 1e-9, "{}", network.floor_s());
    }
}
