//! The `flowgate` command line.
//!
//! [`cli`] reads the command line and does what a command says; [`wiring`] opens the parts of a
//! project; [`render`] is all that a person or a script reads. Nothing is retried here: a connector
//! retries a request, and a person runs a run again.

mod cli;
mod demo;
mod emulation;
mod exit;
#[cfg(debug_assertions)]
mod failpoints;
mod failure;
mod render;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main().into()
}
