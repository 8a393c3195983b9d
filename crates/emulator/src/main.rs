//! `flowgate-emulator`: the emulator without the rest of Flowgate.
//!
//! Prints one line of JSON once it answers (where it is, and how to sign in), then serves until
//! Ctrl-C or SIGTERM. Exit status: 0 stopped, 1 it cannot start, 2 usage. Left out: anything that
//! `flowgate emulator` adds for connections that share an emulator.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use flowgate_emulator::command::Arguments;
use flowgate_emulator::{Emulator, Options};

/// Serve a stand-in for Dataverse on this machine until it is stopped
#[derive(Debug, Parser)]
#[command(name = "flowgate-emulator", version)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a command that fails says why")]
async fn main() -> ExitCode {
    match serve(Command::parse().arguments.into()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the emulator cannot start: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let emulator = Emulator::start(options).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(emulator.ready())?)?;
    out.flush()?;
    drop(out);
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminated.recv() => {}
    }
    emulator.stop().await;
    Ok(())
}
