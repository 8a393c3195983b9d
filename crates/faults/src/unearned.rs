//! Successes that nobody earned: an intermediary says that it is done, whether or not it is.
//!
//! A run that ends complete must have left the truth behind, at once: what a later run mends was silent until then.

use anyhow::{Context, Result, ensure};

use crate::Outcome;
use crate::forger::{Forgery, Lie};
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] =
    &["an empty 200", "202", "204", "an error with 200", "a page", "nothing", "an older answer", "an echo"];

const LIES: &[Lie] = &[
    Lie::Empty200,
    Lie::Accepted,
    Lie::NoContent,
    Lie::ErrorWith200,
    Lie::Page,
    Lie::EmptyCollection,
    Lie::OlderAnswer,
    Lie::Echo,
];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = case % KINDS.len();
    let forgery = Forgery {
        lie: LIES[kind],
        passes_on: random.between(0, 2) == 0,
        is_of_reads: random.between(0, 3) == 0,
        one_in: random.of_list(&[1, 2, 2, 3, 5]),
    };
    bench.begin(random.of_list(&[1, 2, 2]))?;
    bench.service.relay.forge(Some(forgery));
    let ended = bench.run(None)?;
    let hits = bench.service.relay.hits();
    bench.service.relay.forge(None);
    ensure!(matches!(ended.status.code(), Some(0 | 1 | 4)), "exit status {:?}: {}", ended.status, ended.said);
    if ended.status.code() == Some(0) {
        bench.compare().with_context(|| format!("{forgery:?}: silent"))?;
    }
    bench.finish().with_context(|| format!("{forgery:?}"))?;
    Ok(Outcome::of(KINDS[kind], hits))
}
