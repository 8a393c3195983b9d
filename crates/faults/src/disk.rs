//! One step of the disk fails: the run stops with an error that names it, and the next one goes on.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

/// Every step that makes something durable.
pub(crate) const KINDS: &[&str] = &[
    "image.sync",
    "image.rename",
    "store.commit",
    "store.committed",
    "ledger.write",
    "ledger.torn",
    "ledger.sync",
    "state_file.sync",
    "state_file.rename",
    "manifest.swap",
    "manifest.swapped",
];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let point = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2]))?;
    let action = random.of_list(&["eio", "enospc"]);
    let passed_often = ["store.", "ledger."].iter().any(|part| point.starts_with(part));
    let nth = if passed_often { random.between(1, 5) } else { 1 };
    let ended = bench.run(Some(&format!("{point}:{nth}:{action}")))?;
    let is_met = ended.status.code() == Some(1);
    ensure!(is_met || ended.status.code() == Some(0), "exit status {:?}: {}", ended.status, ended.said);
    ensure!(!is_met || ended.said.contains("error[FG04"), "not told as a failure of storage: {}", ended.said);
    let is_full = ended.said.contains("FG0404");
    ensure!(!is_met || is_full == (action == "enospc"), "a full disk is not told as one: {}", ended.said);
    bench.finish()?;
    Ok(Outcome::of(point, u64::from(is_met)))
}
