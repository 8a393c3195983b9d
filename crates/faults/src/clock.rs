//! The wall clock is set while a run is under way, or before it: nothing is lost, doubled or waited for without end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &["an hour on", "an hour back", "400 days on", "400 days back"];

const JUMPS_S: [i64; 4] = [3_600, -3_600, 400 * 86_400, -400 * 86_400];

/// When: at the start, among the requests, and while the state is folded.
const POINTS: &[&str] = &["store.commit", "image.sync", "intent.written", "answer.received", "manifest.swap"];

/// A run without trouble takes a few seconds.
const RUN_MAX: Duration = Duration::from_mins(1);

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = case % KINDS.len();
    bench.begin(random.of_list(&[1, 2]))?;
    let started = Instant::now();
    let point = random.of_list(POINTS);
    let ended = bench.run(Some(&format!("{point}:1:clock={}", JUMPS_S[kind])))?;
    ensure!(ended.status.code() == Some(0), "not complete: {}", ended.said);
    ensure!(started.elapsed() < RUN_MAX, "the run took {} s", started.elapsed().as_secs());
    bench.compare()?;
    // The clock is right again: to the state it was set a second time.
    bench.next_day()?;
    bench.finish()?;
    Ok(Outcome::of(KINDS[kind], 1))
}
