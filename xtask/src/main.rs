//! What CI runs, runnable here: `cargo xtask test`, and the parts of it by themselves.
//!
//! It promises that nothing is skipped: what could not run is a failure and is named. It links no
//! crate of Flowgate; generated pages come from the built binary (`flowgate reference`).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks by printing")]
#![expect(clippy::format_push_string, reason = "pages are small, and `+=` reads better than a write that cannot fail")]

mod changelog;
mod count;
mod generate;
mod layering;
mod needs;
mod steps;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What CI runs, runnable here")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every check and test, cheapest first.
    Test {
        /// Install what is missing (Debian and Ubuntu); implied by CI=true.
        #[arg(long)]
        install: bool,
    },
    /// Kills the binary, breaks its disk and its answers, and checks that every row is where it belongs.
    Faults {
        /// `pr` takes a few minutes, `night` hours.
        #[arg(long, default_value = "pr", value_parser = ["pr", "night"])]
        tier: String,
        /// Passed on: `--area kills --seed 7 --only 12`.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Checks that crates depend only on what ARCHITECTURE.md allows.
    Layering,
    /// Writes the JSON Schemas and the reference pages.
    Generate {
        /// Write nothing; fail if a file is not current.
        #[arg(long)]
        check: bool,
    },
    /// Checks the fragments in changelog.d, or folds them into CHANGELOG.md as a release.
    Changelog {
        /// The version that is released.
        #[arg(requires = "date")]
        version: Option<String>,
        /// Its date, as YYYY-MM-DD.
        date: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Test { install } => {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            return steps::test(&workspace, install || is_ci);
        }
        Command::Faults { tier, more } => return steps::faults(&workspace, &tier, &more),
        Command::Layering => layering::check(&workspace)?,
        Command::Generate { check: true } => generate::check(&workspace)?,
        Command::Generate { check: false } => generate::write(&workspace)?,
        Command::Changelog { version: Some(version), date: Some(date) } => {
            changelog::release(&workspace, &version, &date)?;
        }
        Command::Changelog { .. } => changelog::check(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
