//! Finding the web servers behind one address.
//!
//! A request without an affinity cookie is a draw: the service chooses a server and says which. Draws
//! go on until so many found nothing new that another server is unlikely (performance notes, section
//! 2.2: about `3 n ln n`). Later one draw from time to time finds servers that were added.

/// Draws without anything new that are enough, at least.
const DRAWS_MIN: f64 = 8.0;
const DRAWS_FACTOR: f64 = 3.0;

/// Draws under way at once, so that a first batch does not go to unknown lanes as a whole.
pub(super) const DRAWS_AT_ONCE: u32 = 4;

/// Once all servers seem to be known, the time between draws.
const REDRAW_S: f64 = 15.0;

#[derive(Debug, Clone)]
pub(super) struct Discovery {
    without_news: u32,
    under_way: u32,
    last_s: f64,
}

impl Discovery {
    pub(super) fn new(now_s: f64) -> Self {
        Self { without_news: 0, under_way: 0, last_s: now_s }
    }

    /// Whether the next request should be a draw, where `known` servers are known.
    pub(super) fn wants_draw(&self, now_s: f64, known: usize) -> bool {
        self.under_way < DRAWS_AT_ONCE && (!self.is_complete(known) || now_s - self.last_s >= REDRAW_S)
    }

    pub(super) fn is_complete(&self, known: usize) -> bool {
        known > 0 && self.without_news >= draws_needed(known)
    }

    /// Another budget found them all, not long ago.
    pub(super) fn complete(&mut self, known: usize) {
        self.without_news = self.without_news.max(draws_needed(known));
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    pub(super) fn draw(&mut self, now_s: f64) {
        self.under_way += 1;
        self.last_s = now_s;
    }

    /// A draw ended; `is_new` if it found a server, `None` if it told nothing.
    pub(super) fn drawn(&mut self, is_new: Option<bool>) {
        self.under_way = self.under_way.saturating_sub(1);
        match is_new {
            Some(true) => self.found(),
            Some(false) => self.without_news = self.without_news.saturating_add(1),
            None => {}
        }
    }

    /// A server was met, by a draw or otherwise.
    pub(super) fn found(&mut self) {
        self.without_news = 0;
    }
}

fn draws_needed(known: usize) -> u32 {
    let known = known as f64;
    (DRAWS_FACTOR * known * (known + 1.0).ln()).ceil().max(DRAWS_MIN) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::budget::random::Random;

    /// Servers found among `servers`, and the draws that took.
    fn find(servers: u32, seed: u64) -> (usize, u32) {
        let (mut discovery, mut random) = (Discovery::new(0.0), Random::new(seed));
        let (mut found, mut draws) = (HashSet::new(), 0);
        while discovery.wants_draw(0.0, found.len()) {
            discovery.draw(0.0);
            draws += 1;
            let server = (random.fraction() * f64::from(servers)) as u32;
            discovery.drawn(Some(found.insert(server)));
        }
        (found.len(), draws)
    }

    #[test]
    fn all_servers_are_found_nearly_always() {
        for servers in [1, 2, 4, 8] {
            let complete = (0..500).filter(|seed| find(servers, *seed).0 == servers as usize).count();
            assert!(complete >= 485, "{servers}: {complete} of 500");
        }
        assert!(find(4, 1).1 < 60);
    }

    #[test]
    fn later_a_draw_is_made_now_and_then() {
        let mut discovery = Discovery::new(0.0);
        discovery.draw(0.0);
        discovery.drawn(Some(true));
        for _ in 0..8 {
            discovery.draw(1.0);
            discovery.drawn(Some(false));
        }
        assert!(!discovery.wants_draw(15.9, 1) && discovery.wants_draw(16.0, 1));
    }
}
