//! Faults as ordinary tests: the built binary is killed, its disk fails, its answers are lost, and every row must
//! still end where it belongs.
//!
//! Each case runs `flowgate` against an emulator, injects one kind of fault, runs again without it until the run is
//! complete, and compares the destination with the source, row by row, over plain HTTP. A case is decided by its
//! area, the seed and its number, so that a failure can be repeated: `--area kills --seed 1 --only 17`. A fault that
//! was not really met does not count, and a tier in which a kind of fault was met too seldom fails.
//!
//! Left out: reads that fail and syncs that fail within SQLite, which its own tests cover; writes of it that fail are the
//! area `small files`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks by printing")]

mod answers;
mod area;
mod clock;
mod companions;
mod data;
mod disk;
mod forger;
mod kills;
mod late;
mod lost;
mod place;
mod power;
mod random;
mod relay;
mod restores;
mod rollbacks;
mod schema;
mod service;
mod small_files;
mod state;
mod unearned;
mod wire;
mod zombies;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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
    /// So many cases of each area, whatever the tier says; then it is not judged whether faults were met often enough
    #[arg(long, value_name = "N")]
    cases: Option<usize>,
    /// Cases at a time
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// What came of one case in which every row is where it belongs.
pub(crate) struct Outcome {
    kind: String,
    /// How often the fault came to pass. Never: nothing is proved.
    faults: u64,
}

impl Outcome {
    pub(crate) fn of(kind: &str, faults: u64) -> Self {
        Self { kind: kind.to_owned(), faults }
    }
}

/// Cases of one kind.
#[derive(Default)]
struct Count {
    held: usize,
    not_met: usize,
    faults: u64,
}

/// What came of the cases of one area.
#[derive(Default)]
struct Tally {
    kinds: BTreeMap<String, Count>,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        let count = self.kinds.entry(outcome.kind).or_default();
        count.faults += outcome.faults;
        if outcome.faults > 0 {
            count.held += 1;
        } else {
            count.not_met += 1;
        }
    }

    fn held(&self) -> usize {
        self.kinds.values().map(|count| count.held).sum()
    }

    fn not_met(&self) -> usize {
        self.kinds.values().map(|count| count.not_met).sum()
    }

    fn faults(&self) -> u64 {
        self.kinds.values().map(|count| count.faults).sum()
    }
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
        let started = Instant::now();
        let tally = run_area(arguments, area)?;
        let problems = problems(arguments, area, &tally);
        println!(
            "{:<8} {} held with {} faults, {} not met, {} wrong, {:.0} s",
            area.name,
            tally.held(),
            tally.faults(),
            tally.not_met(),
            tally.wrong.len(),
            started.elapsed().as_secs_f64()
        );
        for (kind, count) in &tally.kinds {
            println!("         {:>5}  {:>6} faults  {kind}", count.held, count.faults);
        }
        for problem in &problems {
            println!("         ✗ {problem}");
        }
        passed += tally.held();
        failed += problems.len();
    }
    println!("test result: {passed} passed; {failed} failed");
    Ok(failed == 0)
}

/// Why an area fails: cases with wrong rows, and faults that were not met often enough to prove anything.
fn problems(arguments: &Arguments, area: &Area, tally: &Tally) -> Vec<String> {
    let mut problems = tally.wrong.clone();
    if arguments.only.is_some() || arguments.cases.is_some() {
        return problems;
    }
    let held = tally.held();
    for kind in area.kinds {
        let met: usize =
            tally.kinds.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, count)| count.held).sum();
        if met * 100 < held * area.share_percent_min || met == 0 {
            problems.push(format!("`{kind}` was met {met} times in {held} cases, which is too seldom"));
        }
    }
    let (faults, faults_min) = (tally.faults(), area.of(arguments.tier).faults_min);
    if faults < faults_min {
        problems.push(format!("{faults} faults were met, and {faults_min} are asked for"));
    }
    problems
}

/// Runs the cases of an area, some at a time, each worker with an emulator and a directory of its own.
fn run_area(arguments: &Arguments, area: &Area) -> Result<Tally> {
    let cases = arguments.cases.unwrap_or(area.of(arguments.tier).cases);
    let next = AtomicUsize::new(arguments.only.unwrap_or(0));
    let end = arguments.only.map_or(cases, |only| only + 1);
    let tally = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        let mut bench = Bench::new(&arguments.flowgate, area.rows)?;
        loop {
            let case = next.fetch_add(1, Ordering::SeqCst);
            if case >= end {
                return Ok(());
            }
            let outcome = (area.run)(&mut bench, case, &mut Random::of(arguments.seed, area.name, case));
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(outcome) => tally.add(outcome),
                Err(error) => {
                    eprintln!("{} {case}: {error:#}", area.name);
                    tally.wrong.push(format!("case {case}: {error:#}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.workers.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}
