//! The emulator as a process of its own, and the recorder before it.
//!
//! The child is this program again, with the command `emulator`. It ends with its parent, however
//! that ends. Left out: what is loaded into it.

use std::path::PathBuf;
use std::process::Stdio;

use flowgate_core::ConnectorError;
use flowgate_emulator::{Emulator, Options, ProfileName, Ready};
use flowgate_http::{Answer, HttpClient, HttpOptions, Origin, Request};
use tokio::io::{AsyncBufReadExt, BufReader};
use url::Url;

use crate::Error;
use crate::recorder::Recorder;
use crate::scenario::Step;

/// How the emulator is set up. The profile is `realistic`.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Web servers behind the address
    #[arg(long, default_value_t = 4)]
    pub servers: u16,
    /// Seconds of the service in a real one
    #[arg(long, default_value_t = 1.0)]
    pub time_scale: f64,
    /// HTTPS, for clients that insist on it
    #[arg(long, conflicts_with = "record")]
    pub tls: bool,
    /// Write one line for each request to this file
    #[arg(long)]
    pub record: Option<PathBuf>,
}

/// Runs an emulator for a parent process until its standard input is closed.
pub(crate) async fn serve(place: &Place, print: impl Fn(&str)) -> Result<(), Error> {
    let options = Options {
        profile: ProfileName::Realistic,
        servers: Some(place.servers),
        time_scale: place.time_scale,
        tls: place.tls,
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.map_err(|error| Error::Emulator(error.to_string()))?;
    let mut ready = emulator.ready().clone();
    let recorder = match &place.record {
        Some(path) => Some(Recorder::start(&ready.url, path, place.time_scale).await?),
        None => None,
    };
    if let Some(recorder) = &recorder {
        ready.url = recorder.url().to_owned();
    }
    print(&serde_json::to_string(&ready)?);
    let mut input = BufReader::new(tokio::io::stdin());
    while input.read_line(&mut String::new()).await.is_ok_and(|read| read > 0) {}
    emulator.stop().await;
    Ok(())
}

/// A running child.
pub(crate) struct Process {
    child: tokio::process::Child,
    pub(crate) ready: Ready,
}

impl Process {
    pub(crate) async fn start(place: &Place) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let is_flowgate = program.file_stem().is_some_and(|name| name == "flowgate");
        let mut command = tokio::process::Command::new(program);
        // This program again, whichever of the two it is.
        command.args(is_flowgate.then_some("bench")).arg("emulator").args(["--servers", &place.servers.to_string()]);
        command.args(["--time-scale", &place.time_scale.to_string()]);
        if place.tls {
            command.arg("--tls");
        }
        if let Some(path) = &place.record {
            command.arg("--record").arg(path);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Error::Emulator("it has no output".to_owned()))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        Ok(Self { child, ready: serde_json::from_str(&line)? })
    }

    pub(crate) fn control(&self) -> Result<Control, Error> {
        Control::new(&self.ready.url)
    }

    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        Ok(self.child.kill().await?)
    }
}

/// The emulator's control interface.
pub(crate) struct Control {
    http: HttpClient,
    url: String,
}

impl Control {
    fn new(url: &str) -> Result<Self, Error> {
        let origin = Origin::parse(url).map_err(ConnectorError::from)?;
        let http = HttpClient::new(HttpOptions::to(vec![origin])).map_err(ConnectorError::from)?;
        Ok(Self { http, url: url.to_owned() })
    }

    pub(crate) async fn apply(&self, step: Step) -> Result<(), Error> {
        let body = match step {
            Step::Slow(server, slow) => serde_json::json!({ "server": server, "slow": slow }),
            Step::Stop(server) => serde_json::json!({ "server": server, "down_s": crate::scenario::OUTAGE_S }),
            // It comes back by itself.
            Step::Start(_) => return Ok(()),
            Step::ScaleLimits(_) | Step::Servers(_) | Step::Second(_) => {
                return Err(Error::Emulator("it cannot do this while it runs".to_owned()));
            }
        };
        self.send(http::Method::POST, "servers", body.to_string()).await?;
        Ok(())
    }

    /// Execution seconds that the emulator has charged, all servers together, and its refusals.
    pub(crate) async fn counted(&self) -> Result<Counted, Error> {
        let answer = self.send(http::Method::GET, "stats", String::new()).await?;
        let stats: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let sum = |values: Vec<&serde_json::Value>| values.iter().filter_map(|value| value.as_f64()).sum::<f64>();
        let busy = stats["busy"].as_array().map(|lanes| lanes.iter().map(|lane| &lane["busy_ms"]).collect());
        let refused = stats["throttled"].as_object().map(|kinds| kinds.values().collect());
        Ok(Counted {
            busy_s: sum(busy.unwrap_or_default()) / 1_000.0,
            refused: sum(refused.unwrap_or_default()) as u64,
            rows: stats["rows"].as_u64().unwrap_or_default(),
        })
    }

    async fn send(&self, method: http::Method, what: &str, body: String) -> Result<Answer, Error> {
        let url = format!("{}/__emulator/{what}", self.url);
        let url = Url::parse(&url).map_err(|_| Error::Emulator(format!("`{url}` is no address")))?;
        let mut request = Request::new(method, url);
        request.body = body.into();
        Ok(self.http.send(request).await.map_err(ConnectorError::from)?)
    }
}

/// What the emulator counted itself.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Counted {
    pub busy_s: f64,
    pub refused: u64,
    pub rows: u64,
}
