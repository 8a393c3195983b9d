//! Connections that close, stop in the middle of an answer, or say everything twice.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;
use crate::relay::Trouble;

pub(crate) const KINDS: &[&str] = &["every second connection closes", "answers twice", "answers cut"];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = case % KINDS.len();
    bench.begin(random.of_list(&[1, 2, 2]))?;
    bench.service.relay.set([Trouble::CloseEverySecond, Trouble::AnswerTwice, Trouble::CutAnswers][kind]);
    const RUNS: u32 = 2;
    for _ in 0..RUNS {
        let ended = bench.run(None)?;
        ensure!(matches!(ended.status.code(), Some(0 | 1)), "exit status {:?}: {}", ended.status, ended.said);
    }
    let hits = bench.service.relay.hits();
    bench.service.relay.set(Trouble::None);
    bench.finish()?;
    Ok(Outcome::of(KINDS[kind], hits))
}
