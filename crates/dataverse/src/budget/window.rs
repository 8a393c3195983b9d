//! What was used in the last 300 seconds: a ring of one-second cells.
//!
//! Requests are counted when they are sent and execution time when it has ended, as the service
//! does. A cell leaves when all of it is older than the window, so the sums are never too low.

use flowgate_core::destination::Class;
use serde::{Deserialize, Serialize};

/// The service-protection window, in seconds (performance notes, section 1.2).
pub(super) const WINDOW_S: f64 = 300.0;

/// One more than the window has seconds: the second that has begun counts too.
const CELLS: i64 = 301;

const CLASSES: usize = 4;

/// One second, or the sum of all: by class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cell {
    calls: [f64; CLASSES],
    busy_s: [f64; CLASSES],
}

/// An amount of both things that are limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) calls: f64,
    pub(super) busy_s: f64,
}

/// What one class used in one second, as it is told to others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "(u16, u8, f64, f64)", from = "(u16, u8, f64, f64)")]
pub(super) struct Spent {
    pub(super) age_s: u16,
    pub(super) class: u8,
    pub(super) calls: f64,
    pub(super) busy_s: f64,
}

impl From<Spent> for (u16, u8, f64, f64) {
    fn from(spent: Spent) -> Self {
        (spent.age_s, spent.class, spent.calls, (spent.busy_s * 1_000.0).ceil() / 1_000.0)
    }
}

impl From<(u16, u8, f64, f64)> for Spent {
    fn from((age_s, class, calls, busy_s): (u16, u8, f64, f64)) -> Self {
        Self { age_s, class, calls, busy_s }
    }
}

/// Requests and execution time of one lane, second by second.
#[derive(Debug, Clone)]
pub(super) struct Window {
    cells: Vec<Cell>,
    /// The second that the newest cell stands for.
    newest: i64,
    sum: Cell,
}

impl Window {
    pub(super) fn new(now_s: f64) -> Self {
        Self { cells: vec![Cell::default(); CELLS as usize], newest: second(now_s), sum: Cell::default() }
    }

    fn clear(&mut self) {
        self.cells.fill(Cell::default());
        self.sum = Cell::default();
    }

    pub(super) fn add(&mut self, now_s: f64, class: Class, usage: Usage) {
        self.advance(now_s);
        let at = index(self.newest);
        self.cells[at].add(class, usage);
        self.sum.add(class, usage);
    }

    /// All classes together.
    pub(super) fn used(&mut self, now_s: f64) -> Usage {
        self.advance(now_s);
        Usage { calls: self.sum.calls.iter().sum(), busy_s: self.sum.busy_s.iter().sum() }
    }

    /// What is used now and will still count `ahead_s` later.
    pub(super) fn used_ahead(&mut self, now_s: f64, ahead_s: f64) -> Usage {
        let mut used = self.used(now_s);
        let oldest = self.newest - CELLS + 1;
        for leaving in oldest..=second(now_s + ahead_s.max(0.0)).min(self.newest + CELLS) - CELLS {
            let cell = &self.cells[index(leaving)];
            used.calls -= cell.calls.iter().sum::<f64>();
            used.busy_s -= cell.busy_s.iter().sum::<f64>();
        }
        used
    }

    /// One class alone.
    pub(super) fn used_by(&mut self, now_s: f64, class: Class) -> Usage {
        self.advance(now_s);
        Usage { calls: self.sum.calls[class as usize], busy_s: self.sum.busy_s[class as usize] }
    }

    /// Forgets what is older than the second of `until_s`.
    pub(super) fn forget_before(&mut self, now_s: f64, until_s: f64) {
        self.advance(now_s);
        for older in self.newest - CELLS + 1..second(until_s).min(self.newest) {
            let at = index(older);
            let old = std::mem::take(&mut self.cells[at]);
            self.sum.remove(&old);
        }
    }

    /// All that counts now.
    pub(super) fn spent(&mut self, now_s: f64) -> Vec<Spent> {
        self.advance(now_s);
        let mut spent = Vec::new();
        for age in 0..CELLS {
            let cell = &self.cells[index(self.newest - age)];
            for class in 0..CLASSES {
                let (calls, busy_s) = (cell.calls[class], cell.busy_s[class]);
                if calls > 0.0 || busy_s > 0.0 {
                    spent.push(Spent { age_s: age as u16, class: class as u8, calls, busy_s });
                }
            }
        }
        spent
    }

    /// Adds what [`Self::spent`] told `age_s` ago.
    pub(super) fn restore(&mut self, now_s: f64, age_s: f64, spent: &[Spent]) {
        self.advance(now_s);
        for spent in spent {
            let age = (f64::from(spent.age_s) + age_s.max(0.0)).floor() as i64;
            let class = usize::from(spent.class);
            let is_number = spent.calls.is_finite() && spent.busy_s.is_finite();
            if age >= CELLS || class >= CLASSES || !is_number {
                continue;
            }
            for cell in [&mut self.cells[index(self.newest - age)], &mut self.sum] {
                cell.calls[class] += spent.calls.max(0.0);
                cell.busy_s[class] += spent.busy_s.max(0.0);
            }
        }
    }

    fn advance(&mut self, now_s: f64) {
        let now = second(now_s);
        if now - self.newest >= CELLS {
            self.clear();
            self.newest = now;
        }
        while self.newest < now {
            self.newest += 1;
            let at = index(self.newest);
            let old = std::mem::take(&mut self.cells[at]);
            self.sum.remove(&old);
        }
    }
}

impl Cell {
    fn add(&mut self, class: Class, usage: Usage) {
        self.calls[class as usize] += usage.calls;
        self.busy_s[class as usize] += usage.busy_s;
    }

    /// Sums of many fractions drift; what is left of nothing must be nothing.
    fn remove(&mut self, other: &Self) {
        for class in 0..CLASSES {
            self.calls[class] = (self.calls[class] - other.calls[class]).max(0.0);
            self.busy_s[class] = (self.busy_s[class] - other.busy_s[class]).max(0.0);
        }
    }
}

/// Where the cell of a second is kept.
fn index(second: i64) -> usize {
    second.rem_euclid(CELLS) as usize
}

fn second(now_s: f64) -> i64 {
    now_s.floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(window: &mut Window, now_s: f64) -> f64 {
        window.used(now_s).busy_s
    }

    fn usage(calls: f64, busy_s: f64) -> Usage {
        Usage { calls, busy_s }
    }

    #[test]
    fn what_is_older_than_the_window_no_longer_counts() {
        let mut window = Window::new(10.0);
        window.add(10.2, Class::Batch, usage(1.0, 4.0));
        window.add(10.9, Class::Interactive, usage(1.0, 1.0));
        window.add(200.0, Class::Batch, usage(1.0, 2.0));
        assert!((busy(&mut window, 310.9) - 7.0).abs() < 1e-9, "never less than the service counts");
        assert!((busy(&mut window, 311.0) - 2.0).abs() < 1e-9);
        assert!(busy(&mut window, 502.0).abs() < 1e-9);
    }

    #[test]
    fn what_will_have_left_by_then_is_known_now() {
        let mut window = Window::new(0.0);
        for at_s in [10.0, 11.0, 12.0] {
            window.add(at_s, Class::Batch, usage(1.0, 2.0));
        }
        assert_eq!(window.used_ahead(310.5, 0.4), usage(3.0, 6.0));
        assert_eq!(window.used_ahead(310.5, 0.5), usage(2.0, 4.0));
        assert_eq!(window.used_ahead(310.5, 1.6), usage(1.0, 2.0));
        assert_eq!(window.used_ahead(310.5, 1_000.0), usage(0.0, 0.0));
    }

    #[test]
    fn classes_are_told_apart() {
        let mut window = Window::new(0.0);
        window.add(1.0, Class::Batch, usage(2.0, 5.0));
        window.add(1.0, Class::Events, usage(1.0, 0.5));
        assert_eq!(window.used_by(2.0, Class::Batch), usage(2.0, 5.0));
        assert_eq!(window.used(2.0), usage(3.0, 5.5));
    }

    #[test]
    fn what_was_before_a_moment_can_be_forgotten() {
        let mut window = Window::new(0.0);
        for at_s in [10.0, 200.0, 250.0] {
            window.add(at_s, Class::Batch, usage(1.0, 2.0));
        }
        window.forget_before(260.0, 200.5);
        assert_eq!(window.used(260.0), usage(2.0, 4.0));
        window.forget_before(260.0, 9_000.0);
        assert_eq!(window.used(260.0), usage(0.0, 0.0));
    }

    #[test]
    fn what_was_told_counts_until_it_is_older_than_the_window() {
        let mut window = Window::new(0.0);
        for at_s in [10.0, 11.5, 12.0] {
            window.add(at_s, Class::Export, usage(1.0, 2.0));
        }
        let told = window.spent(20.0);
        // Another process has another clock.
        let mut next = Window::new(5_000.7);
        next.restore(5_000.7, 30.0, &told);
        assert_eq!(next.used_by(5_000.7, Class::Export), usage(3.0, 6.0));
        assert_eq!(next.used(5_260.0), usage(3.0, 6.0), "never less than the service counts");
        assert_eq!(next.used(5_263.0), usage(0.0, 0.0));
        let mut late = Window::new(0.0);
        late.restore(0.0, 291.0, &told);
        assert_eq!(late.used(0.0), usage(2.0, 4.0));
    }

    #[test]
    fn a_long_silence_empties_it_at_once() {
        let mut window = Window::new(0.0);
        window.add(5.0, Class::Batch, usage(1.0, 9.0));
        assert_eq!(window.used(100_000.0), usage(0.0, 0.0));
    }
}
