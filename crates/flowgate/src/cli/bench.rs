//! `flowgate bench NAME`: the measurements of `bench/` that need nothing but this program.

use clap::Args;
use flowgate_bench::Benchmark;
use flowgate_core::Code;

use super::{App, Ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

/// Figures are always one JSON object on standard output.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    benchmark: Benchmark,
}

impl Bench {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let figures = tokio::select! {
            figures = self.benchmark.run(Printer::raw) => figures,
            () = app.cancel.cancelled() => return Ok(Exit::Interrupted),
        };
        if let Some(figures) = figures.map_err(|error| Failure::new(Code::INTERNAL, error.to_string()))? {
            Printer::raw(&format!("{figures:#}"));
        }
        Ok(Exit::Complete)
    }
}
