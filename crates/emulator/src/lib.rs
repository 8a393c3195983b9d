//! A local Dataverse Web API stand-in over HTTP, usable alone.
//!
//! [`Emulator::start`] listens, [`Emulator::ready`] says where and with which credentials. It
//! promises documented behaviour: rows, keys, batches, change tracking, metadata, and the limits
//! with their refusals. What it does not have it refuses by name with the service's own error
//! shape. It shares no code with any client.

mod address;
mod auth;
mod clock;
mod collation;
pub mod command;
mod control;
mod digests;
mod distort;
mod engine;
mod error;
mod events;
mod faults;
mod guard;
mod limits;
mod metadata;
mod page;
mod profile;
mod query;
mod random;
mod schema;
mod server;
mod service;
mod settings;
mod sign_in;
mod storage;
mod throttle;
mod tls;
mod web;
mod write;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use profile::ProfileName;
pub use storage::is_in_use;

/// The law of the service, for simulations that need it without HTTP: what requests cost, and when
/// they are refused.
pub mod model {
    pub use crate::limits::{Lane, LimitKind, LimitSettings, Limits, Refusal, Remaining};
    pub use crate::profile::{Cost, Costs, Message, Profile, ProfileName, Work};
    pub use crate::random::Random;
}

use clock::Clock;
use engine::Engine;
use profile::Profile;
use settings::Observed;
use storage::{Database, DirectoryLock, StorageError};

/// How an emulator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS with an authority of its own.
    pub tls: bool,
    pub profile: ProfileName,
    /// Web servers to imitate; the profile's number when absent.
    pub servers: Option<u16>,
    /// Simulated seconds per wall second.
    pub time_scale: f64,
    /// Keep everything here; in memory when absent.
    pub data: Option<PathBuf>,
    /// A file of further tables.
    pub schema: Option<PathBuf>,
    /// A file of what was observed of an environment, to behave as it does.
    pub settings: Option<PathBuf>,
    /// Decides ids, credentials and every random choice.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            profile: ProfileName::Instant,
            servers: None,
            time_scale: 1.0,
            data: None,
            schema: None,
            settings: None,
            seed: 1,
        }
    }
}

/// Where a running emulator is and how to sign in: the line the command prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The environment's address, without a trailing slash.
    pub url: String,
    pub token_url: String,
    pub tenant: String,
    pub client_id: String,
    pub client_secret: String,
    /// A long-lived bearer token for simple clients.
    pub token: String,
    /// The authority to trust, with TLS.
    pub ca_file: Option<PathBuf>,
    pub time_scale: f64,
    /// The organisation's id.
    pub organization: String,
}

/// Why an emulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on `{address}`")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("file cannot be used")]
    Io(#[from] std::io::Error),
    #[error("time scale `{0}` is not a positive number")]
    TimeScale(f64),
    #[error("the number of servers must be at least 1")]
    Servers,
    #[error("{0}")]
    Schema(String),
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Data(String),
    #[error("profile does not parse: {0}")]
    Profile(String),
    #[error("tls cannot be set up: {0}")]
    Tls(String),
}

impl From<rcgen::Error> for StartError {
    fn from(error: rcgen::Error) -> Self {
        StartError::Tls(error.to_string())
    }
}

impl From<rustls::Error> for StartError {
    fn from(error: rustls::Error) -> Self {
        StartError::Tls(error.to_string())
    }
}

/// A running server. It stops when dropped.
#[derive(Debug)]
pub struct Emulator {
    ready: Ready,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    /// Goes with the emulator, if it was made for it.
    _ca_file: Option<tls::AuthorityFile>,
}

/// Simulated seconds until the long-lived token expires: ten years.
const LONG_LIFE_S: f64 = 315_360_000.0;

impl Emulator {
    /// Starts listening and returns once requests are answered.
    pub async fn start(options: Options) -> Result<Emulator, StartError> {
        if !(options.time_scale.is_finite() && options.time_scale > 0.0) {
            return Err(StartError::TimeScale(options.time_scale));
        }
        let profile = Profile::named(options.profile).map_err(StartError::Profile)?;
        let observed = match &options.settings {
            Some(path) => Observed::read(path).map_err(StartError::Settings)?,
            None => Observed::default(),
        };
        let servers = options.servers.or(observed.servers).unwrap_or(profile.servers);
        if servers == 0 {
            return Err(StartError::Servers);
        }
        let lock = match &options.data {
            Some(directory) => Some(take_directory(directory).await?),
            None => None,
        };
        let (database, is_new) = open_database(&options, lock)?;
        let clock = Clock::new(options.time_scale);
        let profile = (profile, options.profile);
        let engine = Engine::new(database, is_new, clock, profile, servers, options.seed, observed.settings);
        let engine = Arc::new(engine);
        let listen = |source| StartError::Listen { address: options.listen, source };
        let tcp = server::bind(options.listen).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let (tls, ca_file) = if options.tls {
            let (acceptor, file) = tls::acceptor(options.data.as_deref(), &address.ip().to_string())?;
            (Some(acceptor), Some(file))
        } else {
            (None, None)
        };
        let scheme = if options.tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let ready = ready(&engine, url.clone(), ca_file.as_ref().map(|file| file.path.clone()));
        let (stop, stopped) = watch::channel(false);
        let listener = server::Listener { tcp, tls, origin: url };
        let task = tokio::spawn(server::run(listener, engine, stopped));
        Ok(Emulator { ready, stop, task: Some(task), _ca_file: ca_file })
    }

    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Stops listening and cuts open connections.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.wait_for_task().await;
    }

    /// Runs until the server ends, which it does only when stopped.
    pub async fn wait(mut self) {
        self.wait_for_task().await;
    }

    async fn wait_for_task(&mut self) {
        if let Some(task) = self.task.take() {
            if let Err(error) = task.await {
                tracing::error!(%error, "emulator ended unexpectedly");
            }
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn ready(engine: &Engine, url: String, ca_file: Option<PathBuf>) -> Ready {
    let identity = &engine.identity;
    Ready {
        token_url: format!("{url}/{}/oauth2/v2.0/token", identity.tenant),
        url,
        tenant: identity.tenant.to_string(),
        client_id: identity.client.to_string(),
        client_secret: identity.secret.clone(),
        token: identity.sign(identity.client, "*", engine.clock.now() + LONG_LIFE_S * engine.clock.scale().max(1.0)),
        ca_file,
        time_scale: engine.clock.scale(),
        organization: engine.organization().to_string(),
    }
}

/// How long a directory may stay taken by an emulator that is just ending.
const DIRECTORY_WAIT: Duration = Duration::from_secs(2);
const DIRECTORY_RETRY: Duration = Duration::from_millis(25);

/// Takes a data directory for this process. One that was stopped gives it back when its last request ends.
async fn take_directory(directory: &Path) -> Result<DirectoryLock, StartError> {
    let mut waited = Duration::ZERO;
    loop {
        match DirectoryLock::take(directory) {
            Err(StorageError::InUse { .. }) if waited < DIRECTORY_WAIT => {
                tokio::time::sleep(DIRECTORY_RETRY).await;
                waited += DIRECTORY_RETRY;
            }
            taken => return taken.map_err(|error| StartError::Data(error.to_string())),
        }
    }
}

/// The database, and whether it still needs its starting rows.
fn open_database(options: &Options, lock: Option<DirectoryLock>) -> Result<(Database, bool), StartError> {
    let mut schema = schema::starting_schema().map_err(|error| StartError::Schema(error.to_string()))?;
    if let Some(file) = &options.schema {
        let text = fs_err::read_to_string(file)?;
        let extended = schema::extend_from_file(&mut schema, &file.display().to_string(), &text);
        extended.map_err(|error| StartError::Schema(error.to_string()))?;
    }
    let mut database = Database::new(schema);
    let found = match (&options.data, lock) {
        (Some(directory), Some(lock)) => {
            database.attach_log(directory, lock).map_err(|error| StartError::Data(error.to_string()))?
        }
        _ => false,
    };
    Ok((database, !found))
}

/// Every error code the emulator can answer, with its name in the catalogue.
pub fn error_codes() -> Vec<(u32, &'static str)> {
    error::Code::ALL.iter().map(|code| (*code as u32, code.name())).collect()
}
