//! `flowgate demo`: not yet here.
use clap::Args;

use crate::cli::{App, Ended};

#[derive(Debug, Args)]
pub(crate) struct Demo {}

impl Demo {
    pub(crate) async fn run(self, _app: &App) -> Ended {
        Err(crate::failure::Failure::new(flowgate_core::Code::NOT_SUPPORTED, "`demo` is not there yet"))
    }
}
