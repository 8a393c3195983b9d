//! `load`: so many rows of ten columns into a place that runs already, and how long that took.

use std::path::PathBuf;

use flowgate_core::{Clock, Destination, Secret};
use flowgate_dataverse::{Credential, DataverseOptions};
use flowgate_http::SystemClock;
use serde::Serialize;

use crate::Error;
use crate::loader::{Ends, Loader, accounts};

/// Where the rows go. Nothing is known of the place but its address and a token.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    #[arg(long)]
    pub url: String,
    #[arg(long)]
    pub token: String,
    /// The authority to trust
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    #[arg(long, default_value_t = 20_000)]
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Loaded {
    pub rows: u64,
    /// From the first request, sign-in and metadata included, to the last acknowledgement.
    pub seconds: f64,
    pub rows_per_s: f64,
    pub requests: u64,
    pub throttled: u64,
}

pub async fn load(target: &Target) -> Result<Loaded, Error> {
    let clock = SystemClock::new(1.0);
    let credential = Credential::Token(Secret::new(&target.token));
    let options =
        DataverseOptions { ca_file: target.ca_file.clone(), ..DataverseOptions::new(&target.url, credential) };
    let mut loader = Loader::connect(options, 1.0, "account", accounts).await?;
    let mut sum = Ends::default();
    loop {
        loader.begin(target.rows)?;
        let Some(ends) = loader.next().await? else { break };
        sum.applied += ends.applied;
        sum.others += ends.others + ends.ambiguous;
    }
    if sum.others > 0 {
        return Err(Error::NotLoaded(sum.others));
    }
    let (seconds, requests) = (clock.elapsed().0.as_secs_f64(), loader.dataverse.requests());
    Ok(Loaded {
        rows: sum.applied,
        seconds,
        rows_per_s: sum.applied as f64 / seconds,
        requests: requests.sent,
        throttled: requests.throttled,
    })
}
