//! A backup of the state is put back: what was loaded since is not forgotten in silence, and where nothing was, nobody is
//! troubled.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &[
    "a day back, the same day",
    "a day back, the next day",
    "a day back, the day before",
    "amid a run",
    "nothing since",
];

const WAYS: &[&str] = &["over", "in place", "moved"];

const CODES: &[&str] = &["FG0414", "FG0411"];

/// Where a run is when the backup is made.
const POINTS: &[&str] = &["intent.written", "answer.received", "answer.recorded", "manifest.swap", "manifest.swapped"];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2]))?;
    let way = random.of_list(WAYS);
    match kind {
        "amid a run" => return amid(bench, way, random).map(|faults| Outcome::of(kind, faults)),
        "nothing since" => {
            bench.complete()?;
            bench.back_up()?;
            bench.put_back(way)?;
            bench.next_day()?;
            let refusals = bench.run_guarded(CODES)?;
            ensure!(refusals == 0, "nothing is newer than the state, and it was refused");
            bench.finish_with(&bench.rows())?;
            return Ok(Outcome::of(kind, 1));
        }
        _ => {}
    }
    bench.complete()?;
    bench.back_up()?;
    let before = bench.rows();
    bench.next_day()?;
    bench.complete()?;
    bench.put_back(way)?;
    match kind {
        "a day back, the next day" => bench.next_day()?,
        "a day back, the day before" => bench.set_source(&before)?,
        _ => {}
    }
    let refusals = bench.run_guarded(CODES)?;
    ensure!(refusals > 0, "the state is a day old, and nobody noticed");
    if kind == "a day back, the day before" {
        // Rows that only the lost day had are nobody's now: the refusal says so.
        bench.compare_among(&before)?;
    } else {
        bench.finish_with(&bench.rows())?;
    }
    Ok(Outcome::of(kind, refusals))
}

/// The backup is made while a run is under way, and put back after it.
fn amid(bench: &Bench, way: &str, random: &mut Random) -> Result<u64> {
    let point = random.of_list(POINTS);
    let nth = if point.starts_with("manifest") { 1 } else { random.between(1, 4) };
    let ended = bench.run(Some(&format!("{point}:{nth}:kill")))?;
    ensure!(ended.was_killed() || ended.status.code() == Some(0), "neither killed nor complete: {}", ended.said);
    bench.back_up()?;
    bench.complete()?;
    bench.put_back(way)?;
    bench.run_guarded(CODES)?;
    bench.finish_with(&bench.rows())?;
    Ok(1)
}
