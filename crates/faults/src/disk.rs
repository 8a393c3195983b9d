//! One step of the disk fails: the run stops with an error that names it, and the next one goes on.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

/// Every step that makes something durable, and the one before it.
pub(crate) const KINDS: &[&str] = &[
    "image.create",
    "image.sync",
    "image.rename",
    "image.renamed",
    "store.commit",
    "store.committed",
    "ledger.create",
    "ledger.created",
    "ledger.write",
    "ledger.torn",
    "ledger.sync",
    "state_file.open",
    "state_file.write",
    "state_file.sync",
    "state_file.rename",
    "state_dir.sync",
    "manifest.swap",
    "manifest.swapped",
];

/// A named step fails.
pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let point = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2]))?;
    let passed_often =
        ["store.", "ledger.write", "ledger.torn", "ledger.sync"].iter().any(|part| point.starts_with(part));
    let nth = if passed_often { random.between(1, 5) } else { 1 };
    let is_met = fail(bench, point, nth, random.of_list(ACTIONS))?;
    bench.finish()?;
    Ok(Outcome::of(point, u64::from(is_met)))
}

const ACTIONS: &[&str] = &["eio", "enospc"];

pub(crate) const SWEEP_KINDS: &[&str] =
    &["first day, eio", "first day, enospc", "second day, eio", "second day, enospc"];

/// More steps than a run takes: the sweep ends only where nothing is left to fail.
pub(crate) const STEPS_MAX: usize = 110;

/// Steps from one case of a kind to the next, so that a few cases are far apart and all cases meet every step.
const STRIDE: usize = 37;

/// The n-th step fails, whichever it is, for every n until a run passes untouched.
pub(crate) fn sweep(bench: &mut Bench, case: usize, _random: &mut Random) -> Result<Outcome> {
    let (kind, round) = (case % SWEEP_KINDS.len(), case / SWEEP_KINDS.len());
    let nth = (1 + round) * STRIDE % STEPS_MAX + 1;
    bench.begin(1 + kind as u32 / 2)?;
    let is_met = fail(bench, "*", nth as u64, ACTIONS[kind % ACTIONS.len()])?;
    ensure!(!is_met || nth < STEPS_MAX, "a run has more than {STEPS_MAX} steps that may fail");
    bench.finish()?;
    Ok(Outcome::of(SWEEP_KINDS[kind], u64::from(is_met)))
}

/// Runs with the n-th step made to fail, and says whether there was one: then the run says so.
fn fail(bench: &Bench, point: &str, nth: u64, action: &str) -> Result<bool> {
    let ended = bench.run(Some(&format!("{point}:{nth}:{action}")))?;
    let is_met = ended.status.code() == Some(1);
    ensure!(is_met || ended.status.code() == Some(0), "exit status {:?}: {}", ended.status, ended.said);
    ensure!(
        !is_met || ended.said.contains("error[FG04"),
        "step {nth}: not told as a failure of storage: {}",
        ended.said
    );
    let is_full = ended.said.contains("FG0404");
    ensure!(!is_met || is_full == (action == "enospc"), "step {nth}: a full disk is not told as one: {}", ended.said);
    Ok(is_met)
}
