//! Connections that end before the answer: the request was run, or it was not, and nobody was told which.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Outcome;
use crate::place::{Bench, WRITES};
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &["after commit, new rows", "after commit, changes", "before commit"];

/// Each write of a run may lose its answer, its repetitions too; a run that gives up is gone on with, and loses more.
pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(if kind.ends_with("new rows") { 1 } else { 2 })?;
    let effect = if kind == "before commit" { "drop_before_commit" } else { "commit_then_drop" };
    let probability = random.between(20, 60) as f64 / 100.0;
    let rule = |op: &&str| json!({ "match": { "op": op, "probability": probability }, "do": effect });
    bench.service.control("faults", &WRITES.iter().map(rule).collect())?;
    const RUNS: usize = 3;
    for _ in 0..RUNS {
        let ended = bench.run(None)?;
        ensure!(matches!(ended.status.code(), Some(0 | 1)), "exit status {:?}: {}", ended.status, ended.said);
    }
    let hits = bench.service.hits()?;
    bench.finish()?;
    Ok(Outcome::of(kind, hits))
}
