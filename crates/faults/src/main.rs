//! Faults as ordinary tests: the built binary is killed, its disk fails, its answers are lost, and every row must
//! still end where it belongs.
//!
//! Each case runs `flowgate` against an emulator, injects one kind of fault, runs again without it until the run is
//! complete, and compares the destination with the source, row by row, over plain HTTP. A case is decided by its
//! area, the seed and its number, so that a failure can be repeated: `--area kills --seed 1 --only 17`. A fault that
//! was not really met does not count, and a tier in which a kind of fault was met too seldom fails.
//!
//! Left out: loss of unsynced writes at a power cut, which tests of the files' own crates replay.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks by printing")]

mod answers;
mod area;
mod data;
mod disk;
mod kills;
mod place;
mod random;
mod service;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use clap::Parser;

use crate::area::{AREAS, Area, Tier};
use crate::place::Bench;
use crate::random::Random;

#[derive(Parser)]
#[command(name = "flowgate-faults", about = "Breaks the built binary and checks that no row is lost, doubled or wrong")]
struct Arguments {
    /// How much: `pr` takes minutes, `night` hours
    #[arg(long, value_enum, default_value = "pr")]
    tier: Tier,
    /// The binary, built with the dev profile (release builds have no failpoints)
    #[arg(long, value_name = "PATH")]
    flowgate: PathBuf,
    /// Only this area
    #[arg(long, value_name = "NAME")]
    area: Option<String>,
    /// Decides every choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the case of this number
    #[arg(long, value_name = "N", requires = "area")]
    only: Option<usize>,
    /// Cases at a time
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// What came of one case.
pub(crate) enum Outcome {
    /// The fault was met, and every row is where it belongs. Names what was met.
    Held(String),
    /// The fault did not come to pass; nothing is proved.
    NotMet(String),
}

/// What came of the cases of one area.
#[derive(Default)]
struct Tally {
    held: BTreeMap<String, usize>,
    not_met: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let (mut passed, mut failed) = (0, 0);
    for area in AREAS.iter().filter(|area| arguments.area.as_ref().is_none_or(|name| name == area.name)) {
        let tally = run_area(arguments, area)?;
        let held: usize = tally.held.values().sum();
        let problems = problems(area, &tally, arguments.only.is_some());
        println!("{:<8} {held} held, {} not met, {} wrong", area.name, sum(&tally.not_met), tally.wrong.len());
        for (kind, count) in &tally.held {
            println!("         {count:>5}  {kind}");
        }
        for problem in &problems {
            println!("         ✗ {problem}");
        }
        passed += held;
        failed += problems.len();
    }
    println!("test result: {passed} passed; {failed} failed");
    Ok(failed == 0)
}

fn sum(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

/// Why an area fails: cases with wrong rows, and faults that were not met often enough to prove anything.
fn problems(area: &Area, tally: &Tally, is_single: bool) -> Vec<String> {
    let mut problems = tally.wrong.clone();
    let held: usize = tally.held.values().sum();
    if is_single {
        return problems;
    }
    for kind in area.kinds {
        let met: usize = tally.held.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, count)| count).sum();
        if met * 100 < held * area.share_percent_min || met == 0 {
            problems.push(format!("`{kind}` was met {met} times in {held} cases, which is too seldom"));
        }
    }
    problems
}

/// Runs the cases of an area, some at a time, each worker with an emulator and a directory of its own.
fn run_area(arguments: &Arguments, area: &Area) -> Result<Tally> {
    let cases = area.cases(arguments.tier);
    let next = AtomicUsize::new(arguments.only.unwrap_or(0));
    let end = arguments.only.map_or(cases, |only| only + 1);
    let tally = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        let mut bench = Bench::new(&arguments.flowgate)?;
        loop {
            let case = next.fetch_add(1, Ordering::SeqCst);
            if case >= end {
                return Ok(());
            }
            let outcome = (area.run)(&mut bench, case, &mut Random::of(arguments.seed, area.name, case));
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(Outcome::Held(kind)) => *tally.held.entry(kind).or_default() += 1,
                Ok(Outcome::NotMet(kind)) => *tally.not_met.entry(kind).or_default() += 1,
                Err(error) => tally.wrong.push(format!("case {case}: {error:#}")),
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.workers.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}
