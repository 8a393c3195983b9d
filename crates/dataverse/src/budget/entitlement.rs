//! The daily entitlement: a second bucket, of rows instead of requests, over 24 hours.
//!
//! Licences count each row of a write, also inside a batch (performance notes, section 1.2). The
//! service does not refuse at once when it is overdrawn, so the bucket is the configured `daily` of the
//! connection. Only batch and export work is held back by it; what is used is kept in ten-minute
//! cells. Where budgets share lanes they share the day as well: then the count is all of theirs, and
//! what this one used since it last told is added to it.

use std::collections::VecDeque;

pub(super) const DAY_S: f64 = 86_400.0;
const CELL_S: f64 = 600.0;

#[derive(Debug, Clone)]
pub(super) struct Entitlement {
    daily: Option<u64>,
    /// (start, rows), oldest first; at most 145 of them.
    cells: VecDeque<(f64, u64)>,
    used: u64,
    /// What all budgets of the host used, this one's share of it included.
    shared: Option<u64>,
    untold: u64,
}

impl Entitlement {
    pub(super) fn new(daily: Option<u64>) -> Self {
        Self { daily, cells: VecDeque::new(), used: 0, shared: None, untold: 0 }
    }

    pub(super) fn daily(&self) -> Option<u64> {
        self.daily
    }

    /// Rows that the others have not been told of.
    pub(super) fn untold(&self) -> u64 {
        self.untold
    }

    /// `told` more rows are known to all, and `shared` is what all have used.
    pub(super) fn share(&mut self, told: u64, shared: u64) {
        self.untold = self.untold.saturating_sub(told);
        self.shared = Some(shared);
    }

    pub(super) fn used(&mut self, now_s: f64) -> u64 {
        let own = self.used_alone(now_s);
        self.shared.map_or(own, |shared| shared.saturating_add(self.untold))
    }

    fn used_alone(&mut self, now_s: f64) -> u64 {
        while let Some((start_s, rows)) = self.cells.front().copied() {
            if start_s + CELL_S + DAY_S > now_s {
                break;
            }
            self.cells.pop_front();
            self.used -= rows;
        }
        self.used
    }

    /// The configured bucket, if `rows` more do not fit into it.
    pub(super) fn refuses(&mut self, now_s: f64, rows: u64) -> Option<u64> {
        let used = self.used(now_s);
        self.daily.filter(|daily| used.saturating_add(rows) > *daily)
    }

    pub(super) fn add(&mut self, now_s: f64, rows: u64) {
        let start_s = (now_s / CELL_S).floor() * CELL_S;
        match self.cells.back_mut() {
            Some((last_s, held)) if *last_s >= start_s => *held += rows,
            _ => self.cells.push_back((start_s, rows)),
        }
        self.used += rows;
        self.untold += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_later_the_rows_are_free_again() {
        let mut entitlement = Entitlement::new(Some(150));
        entitlement.add(0.0, 100);
        assert_eq!(entitlement.refuses(1.0, 51), Some(150));
        assert_eq!(entitlement.refuses(1.0, 50), None);
        assert_eq!(entitlement.refuses(90_000.0, 150), None);
    }

    #[test]
    fn what_others_used_counts_too() {
        let mut entitlement = Entitlement::new(Some(150));
        entitlement.add(0.0, 100);
        entitlement.share(100, 140);
        entitlement.add(1.0, 5);
        assert_eq!((entitlement.used(1.0), entitlement.untold()), (145, 5));
        assert_eq!(entitlement.refuses(1.0, 6), Some(150));
    }

    #[test]
    fn the_day_takes_no_more_room_than_its_cells() {
        let mut entitlement = Entitlement::new(None);
        for minute in 0..100_000 {
            entitlement.add(f64::from(minute) * 60.0, 1);
            entitlement.used(f64::from(minute) * 60.0);
        }
        assert!(entitlement.cells.len() <= 146);
        assert_eq!(entitlement.refuses(0.0, u64::MAX), None);
    }
}
