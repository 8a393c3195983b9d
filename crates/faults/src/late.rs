//! Writes that take effect after everybody gave up on them, and a next run that does not simply go on: it reads the sources
//! afresh, adopts, or has lost its state. What it sends is newer, and it stays.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Outcome;
use crate::place::{Bench, FLOW_NAME, WRITES};
use crate::random::Random;
use crate::service::TIME_SCALE;

pub(crate) const KINDS: &[&str] =
    &["killed, then fresh", "given up, then fresh", "killed, then adopted afresh", "killed, then the state is lost"];

/// Simulated seconds after which the last abandoned write takes effect. Flowgate counts on five minutes.
const LATE_S_MAX: u64 = 280;

const RUNS_MAX: usize = 4;

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2]))?;
    let late = |random: &mut Random| {
        let effect = json!({ "delay_commit": random.between(LATE_S_MAX / 2, LATE_S_MAX), "answer": random.of_list(&[502, 504]) });
        let probability = random.between(30, 60) as f64 / 100.0;
        WRITES
            .iter()
            .map(|op| json!({ "match": { "op": op, "probability": probability }, "do": effect }))
            .collect::<Vec<_>>()
    };
    let rules = late(random);
    bench.service.control("faults", &json!(rules))?;
    if kind.starts_with("killed") {
        bench.run_and_kill_at_hit(Duration::from_millis(random.between(200, 2_000)))?;
    } else {
        let ended = bench.run(None)?;
        ensure!(matches!(ended.status.code(), Some(0 | 1 | 3)), "exit status {:?}: {}", ended.status, ended.said);
        if ended.status.code() == Some(3) {
            // Rows that a service in such a state refused, which was told, are tried again.
            let asked = bench.run_with(&["letters", "retry", "--flow", FLOW_NAME, "--json"])?;
            ensure!(asked.status.code() == Some(0), "letters cannot be tried again: {}", asked.said);
        }
    }
    let hits = bench.service.hits()?;
    bench.service.control("faults", &json!([]))?;
    bench.next_day()?;
    let is_lost = kind.ends_with("lost");
    let arguments: &[&str] = match kind {
        _ if is_lost => {
            fs_err::remove_dir_all(bench.state_dir())?;
            &["run", "offices", "--json"]
        }
        "killed, then adopted afresh" => &["run", "offices", "--adopt", "--fresh", "--json"],
        _ => &["run", "offices", "--fresh", "--json"],
    };
    let mut last = bench.run_with(arguments)?;
    // What was sent before the kill and is gone since is met by the run after this one.
    let has_waited = last.said.contains("waiting");
    for _ in 1..RUNS_MAX {
        if last.status.code() == Some(0) {
            break;
        }
        last = bench.run_with(arguments)?;
    }
    if last.status.code() != Some(0) {
        let told = bench.run_with(&["letters", "list", "--json"])?.report;
        anyhow::bail!("the run does not end: {} {told}", last.said);
    }
    bench.complete()?;
    std::thread::sleep(Duration::from_secs_f64(LATE_S_MAX as f64 / TIME_SCALE));
    if is_lost && !has_waited {
        // Nothing that the dead process did could be seen: nobody can know of the rest.
        return Ok(Outcome::of(kind, 0));
    }
    // A state that is lost is the memory of rows that are gone, too.
    let compared = if is_lost { bench.compare_among(&bench.rows()) } else { bench.compare_with(&bench.rows()) };
    compared.with_context(|| last.said.clone())?;
    Ok(Outcome::of(kind, hits.min(1)))
}
