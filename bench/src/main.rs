//! `flowgate-bench NAME`: one benchmark, its figures as one JSON object on standard output.

use std::process::ExitCode;

use clap::Parser;
use flowgate_bench::Arguments;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().benchmark.run(|line| println!("{line}")).await {
        Ok(Some(figures)) => println!("{figures:#}"),
        Ok(None) => {}
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
