//! The options of the emulator as a command, for its own binary and for any that serves it.
//!
//! Promise: what is accepted here can be started; what is not says why before anything listens.
//! Left out: the process around it, with its signals and its output.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::{Options, ProfileName};

/// The options, as a person writes them.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve HTTPS with a certificate of its own, whose authority is written to `ca_file`
    #[arg(long)]
    tls: bool,
    /// What requests cost, and which limits hold
    #[arg(long, value_enum, default_value_t = ProfileName::Instant)]
    profile: ProfileName,
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
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        Options {
            listen: arguments.listen,
            tls: arguments.tls,
            profile: arguments.profile,
            servers: arguments.servers,
            time_scale: arguments.time_scale,
            data: arguments.data,
            schema: arguments.schema,
            settings: arguments.settings,
            seed: arguments.seed.unwrap_or(Options::default().seed),
        }
    }
}

/// Reads a time scale.
pub fn at_least_one(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale >= 1.0);
    scale.ok_or_else(|| "a time scale is a number of at least 1".to_owned())
}
