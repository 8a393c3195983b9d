//! `flowgate emulator`: a stand-in for Dataverse, served until it is stopped.

use std::path::PathBuf;

use clap::Args;
use flowgate_core::Code;
use flowgate_emulator::{Emulator, command};
use serde_json::json;

use super::{App, Ended};
use crate::emulation;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    arguments: command::Arguments,
    /// End when no process holds a lock on this file any more
    #[arg(long, value_name = "FILE", hide = true)]
    while_used: Option<PathBuf>,
}

impl Serve {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let Serve { arguments, while_used } = self;
        let emulator = Emulator::start(arguments.into())
            .await
            .map_err(|error| Failure::new(Code::CONNECTION_FAILED, format!("the emulator cannot start: {error}")))?;
        Printer::raw(&json!(emulator.ready()).to_string());
        let unused = async {
            match while_used {
                Some(path) => emulation::until_unused(&path).await.map(Some),
                None => std::future::pending().await,
            }
        };
        // The lock is held to the end: whoever comes meanwhile waits and starts another.
        let _lock = tokio::select! {
            () = app.cancel.cancelled() => None,
            lock = unused => lock?,
        };
        emulator.stop().await;
        Ok(Exit::Complete)
    }
}
