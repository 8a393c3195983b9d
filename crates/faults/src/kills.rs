//! `kill -9`, by where in a row's journey it comes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Outcome;
use crate::place::{Bench, WRITES};
use crate::random::Random;

pub(crate) const KINDS: &[&str] =
    &["intent written", "bytes sent", "committed unanswered", "answered unrecorded", "state folding", "recovery"];

/// Moments while the state is folded and the manifest swapped.
const FOLDING: &[&str] = &["state_file.sync", "state_file.rename", "manifest.swap", "manifest.swapped"];
/// Moments of a run that goes on after a kill.
const RECOVERY: &[&str] = &["recovery.replayed", "recovery.confirmed", "intent.written", "ledger.torn", "store.commit"];
/// Moments of the first kill, of which a recovery is the second.
const ANY: &[&str] =
    &["intent.written", "answer.received", "ledger.write", "ledger.torn", "ledger.sync", "answer.recorded"];
/// One kill, or two for a recovery; the kinds take turns.
pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2, 2]))?;
    let is_met = match kind {
        "intent written" => kill_at(bench, "intent.written", random.between(1, 6))?,
        "answered unrecorded" => kill_at(bench, "answer.received", random.between(1, 6))?,
        "state folding" => kill_at(bench, random.of_list(FOLDING), 1)?,
        "bytes sent" => kill_at_request(bench, random, &json!({ "delay": "3600s" }))?,
        "committed unanswered" => kill_at_request(bench, random, &json!({ "delay_commit": 0, "answer": "timeout" }))?,
        _ => {
            let first = kill_at(bench, random.of_list(ANY), random.between(1, 4))?;
            first && kill_at(bench, random.of_list(RECOVERY), 1)?
        }
    };
    bench.finish()?;
    Ok(Outcome::of(kind, u64::from(is_met)))
}

/// Ends the run at the n-th passing of a failpoint, or at the first if it is not passed so often.
fn kill_at(bench: &Bench, point: &str, nth: u64) -> Result<bool> {
    let ended = bench.run(Some(&format!("{point}:{nth}:kill")))?;
    ensure!(ended.was_killed() || ended.status.code() == Some(0), "neither killed nor complete: {}", ended.said);
    Ok(ended.was_killed())
}

/// Kills the run while the service holds one of its requests.
fn kill_at_request(bench: &mut Bench, random: &mut Random, effect: &serde_json::Value) -> Result<bool> {
    let chosen = json!({ "op": random.of_list(WRITES), "nth": random.between(1, 2) });
    // A run that did not get so far is over by now; its first request is one that every day has.
    let first = json!({ "op": WRITES[0], "nth": 1 });
    for matched in [chosen, first] {
        bench.service.control("faults", &json!([{ "match": matched, "do": effect }]))?;
        if bench.run_and_kill_at_hit(Duration::from_millis(random.between(0, 20)))? {
            return Ok(true);
        }
        bench.begin(2)?;
    }
    Ok(false)
}
