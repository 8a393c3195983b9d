//! `flowgate emulator`: a stand-in for Dataverse, served until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use flowgate_core::Code;
use flowgate_emulator::{Emulator, Options, ProfileName};
use serde_json::json;

use super::{App, Ended};
use crate::emulation;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve HTTPS with a certificate of its own, whose authority is written to `ca_file`
    #[arg(long)]
    tls: bool,
    /// What requests cost, and which limits hold
    #[arg(long, value_enum, default_value_t = Profile::Instant)]
    profile: Profile,
    /// Web servers behind the address, each with limits of its own [default: the profile's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: Option<u16>,
    /// How many simulated seconds pass in a real one
    #[arg(long, value_name = "K", default_value_t = 1.0, value_parser = at_least_one)]
    time_scale: f64,
    /// Keep rows and metadata in this directory [default: in memory only]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file with tables besides the standard ones
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Behave as an environment that `flowgate doctor --verify` has observed in this file
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What chance begins with, so that a run can be repeated
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End when no process holds a lock on this file any more
    #[arg(long, value_name = "FILE", hide = true)]
    while_used: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    /// No latency and no limits
    Instant,
    /// The documented limits and the measured costs
    Realistic,
    /// As instant, and rows keep their keys only
    Sink,
}

impl Serve {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let while_used = self.while_used.clone();
        let emulator = Emulator::start(self.options())
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

    fn options(self) -> Options {
        Options {
            listen: self.listen,
            tls: self.tls,
            profile: match self.profile {
                Profile::Instant => ProfileName::Instant,
                Profile::Realistic => ProfileName::Realistic,
                Profile::Sink => ProfileName::Sink,
            },
            servers: self.servers,
            time_scale: self.time_scale,
            data: self.data,
            schema: self.schema,
            settings: self.settings,
            seed: self.seed.unwrap_or(Options::default().seed),
        }
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale >= 1.0);
    scale.ok_or_else(|| "a time scale is a number of at least 1".to_owned())
}
