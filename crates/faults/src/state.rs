//! Damaged local state is found and named, the named command mends it; and two processes never share a flow.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &["index damaged", "values damaged", "second process"];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(2)?;
    let is_met = match kind {
        "index damaged" => damage(bench, ".index", random)?,
        "values damaged" => damage(bench, ".values", random)?,
        _ => second_process(bench)?,
    };
    bench.finish()?;
    Ok(Outcome::of(kind, u64::from(is_met)))
}

/// Flips a bit, or cuts the file, of one state file. Says whether the run needed it.
fn damage(bench: &mut Bench, ending: &str, random: &mut Random) -> Result<bool> {
    let files = bench.state_files(ending)?;
    ensure!(!files.is_empty(), "there is no file `*{ending}`");
    let file = random.of_list(&files);
    let mut bytes = fs_err::read(&file)?;
    let at = random.between(0, bytes.len() as u64 - 1) as usize;
    if random.between(0, 3) == 0 {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << random.between(0, 7);
    }
    fs_err::write(file, bytes)?;
    let ended = bench.run(None)?;
    if ended.status.code() == Some(0) {
        // A part that this run did not read, or one that no checksum needs to cover.
        return Ok(false);
    }
    let is_named = ended.said.contains("FG0401") || ended.said.contains("FG0402");
    ensure!(ended.status.code() == Some(1) && is_named, "damage is not named: {}", ended.said);
    ensure!(ended.said.contains("--adopt"), "the command that mends it is not named: {}", ended.said);
    let adopted = bench.run_with(&["run", "offices", "--adopt", "--json"])?;
    ensure!(adopted.status.code() == Some(0), "the named command does not mend it: {}", adopted.said);
    Ok(true)
}

/// Two runs at once: one does the work, the other is refused or finds nothing to do.
fn second_process(bench: &mut Bench) -> Result<bool> {
    let first = bench.spawn()?;
    let second = bench.run(None)?;
    let first = first.wait_with_output()?;
    let statuses = [first.status.code(), second.status.code()];
    let said = String::from_utf8_lossy(&first.stderr).into_owned() + &second.said;
    ensure!(statuses.contains(&Some(0)), "neither run is complete: {said}");
    let is_refused = statuses.contains(&Some(1));
    ensure!(!is_refused || said.contains("FG0400"), "the other run is not told why: {said}");
    Ok(is_refused)
}
