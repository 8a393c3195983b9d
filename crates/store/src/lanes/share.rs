//! Who gets how many lanes: whole ones, as equally as whole ones can be shared.
//!
//! Those who want lanes stand in a fixed order. Each gets `lanes / askers`, and those whose turn it is
//! one more, until none is left over. The turn passes on with the clock, which all processes of a host
//! share. So with fewer lanes than askers a lane goes round in time slices, and nobody starves.

/// How long a turn lasts, in real time. At each its holder first waits for what is under way; with
/// batches of a second or two that costs about a twentieth of the slice.
pub(super) const TURN_MS: i64 = 30_000;

/// How many lanes the asker at `place` of `askers` may hold.
pub(super) fn fair_share(lanes: usize, askers: usize, place: usize, now_ms: i64) -> usize {
    let askers = askers.max(1);
    let turn = now_ms.div_euclid(TURN_MS).rem_euclid(askers as i64) as usize;
    let is_its_turn = (place + turn) % askers < lanes % askers;
    lanes / askers + usize::from(is_its_turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(lanes: usize, askers: usize, now_ms: i64) -> Vec<usize> {
        (0..askers).map(|place| fair_share(lanes, askers, place, now_ms)).collect()
    }

    #[test]
    fn every_lane_is_somebodys_and_no_share_differs_by_more_than_one() {
        for lanes in 0..10 {
            for askers in 1..10 {
                for now_ms in [-1, 0, TURN_MS, 7 * TURN_MS + 5] {
                    let shares = shares(lanes, askers, now_ms);
                    assert_eq!(shares.iter().sum::<usize>(), lanes, "{lanes} lanes, {askers} askers");
                    let most = shares.iter().max().unwrap();
                    assert!(shares.iter().all(|share| most - share <= 1), "{shares:?}");
                }
            }
        }
    }

    #[test]
    fn with_too_few_lanes_everybody_has_a_turn() {
        assert_eq!(shares(1, 2, 0), [1, 0]);
        assert_eq!(shares(1, 2, TURN_MS - 1), [1, 0]);
        assert_eq!(shares(1, 2, TURN_MS), [0, 1]);
        assert_eq!(shares(2, 3, 0), [1, 1, 0]);
        assert_eq!(shares(2, 3, TURN_MS), [1, 0, 1]);
    }
}
