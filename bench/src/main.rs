//! `flowgate-bench NAME`: one benchmark, its figures as one JSON object on standard output.

use std::process::ExitCode;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
#[tokio::main]
async fn main() -> ExitCode {
    let mut names = std::env::args().skip(1).filter(|argument| argument != "--json");
    let name = names.next().unwrap_or_else(|| "ceiling".to_owned());
    if name == "emulator" {
        // For `http`, which starts this program again.
        let served = flowgate_bench::serve(|line| println!("{line}")).await;
        return if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match flowgate_bench::run(&name).await {
        Ok(figures) => {
            println!("{figures:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
