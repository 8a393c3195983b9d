//! What was used in the last while: a ring of equal cells.

use std::collections::VecDeque;
use std::time::Duration;

use flowgate_core::Elapsed;

/// Sums over a sliding window, kept in cells so that its size does not grow with the load.
#[derive(Debug)]
pub(super) struct Window {
    cell: Duration,
    length: Duration,
    /// (start of the cell, amount), oldest first.
    cells: VecDeque<(Duration, f64)>,
    sum: f64,
}

impl Window {
    pub(super) fn new(length: Duration, cell: Duration) -> Self {
        Self { cell, length, cells: VecDeque::new(), sum: 0.0 }
    }

    pub(super) fn add(&mut self, now: Elapsed, amount: f64) {
        let cells_passed = now.0.as_nanos() / self.cell.as_nanos();
        let start = self.cell.saturating_mul(u32::try_from(cells_passed).unwrap_or(u32::MAX));
        match self.cells.back_mut() {
            Some((last, held)) if *last == start => *held += amount,
            _ => self.cells.push_back((start, amount)),
        }
        self.sum += amount;
    }

    /// The sum of what was added in the last `length`, rounded to whole cells upward.
    pub(super) fn used(&mut self, now: Elapsed) -> f64 {
        while let Some((start, amount)) = self.cells.front().copied() {
            if start + self.cell + self.length > now.0 {
                break;
            }
            self.cells.pop_front();
            self.sum -= amount;
        }
        if self.cells.is_empty() {
            self.sum = 0.0;
        }
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Elapsed {
        Elapsed(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_older_than_the_window_no_longer_counts() {
        let mut window = Window::new(Duration::from_mins(5), Duration::from_secs(1));
        window.add(at(10), 4.0);
        window.add(at(10), 1.0);
        window.add(at(200), 2.0);
        assert!((window.used(at(310)) - 7.0).abs() < 1e-9);
        assert!((window.used(at(311)) - 2.0).abs() < 1e-9);
        assert!(window.used(at(502)).abs() < 1e-9);
    }

    #[test]
    fn the_ring_stays_as_small_as_its_window() {
        let mut window = Window::new(Duration::from_mins(5), Duration::from_secs(1));
        for second in 0..10_000 {
            window.add(at(second), 1.0);
            window.used(at(second));
        }
        assert!(window.cells.len() <= 302);
    }
}
