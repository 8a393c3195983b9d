//! Files may not grow beyond a limit that the operating system keeps: a write behind it fails, in the middle of a
//! transaction of SQLite too. The run says so, and the next one goes on.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &["the database", "another file"];

/// Blocks of 512 bytes. Below the first nothing begins, above the last all is written.
const BLOCKS: (u64, u64) = (4, 500);

pub(crate) fn case(bench: &mut Bench, _case: usize, random: &mut Random) -> Result<Outcome> {
    bench.begin(random.of_list(&[1, 2]))?;
    let blocks = random.between(BLOCKS.0, BLOCKS.1);
    let ended = bench.run_with_small_files(blocks)?;
    let is_met = ended.status.code() == Some(1);
    ensure!(is_met || ended.status.code() == Some(0), "{blocks} blocks: {:?}: {}", ended.status, ended.said);
    ensure!(
        !is_met || ended.said.contains("error[FG04"),
        "{blocks} blocks: not told as a failure of storage: {}",
        ended.said
    );
    bench.finish()?;
    let kind = KINDS[usize::from(!ended.said.contains(".db"))];
    Ok(Outcome::of(kind, u64::from(is_met)))
}
