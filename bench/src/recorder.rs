//! A recorder between loader and service: passes everything on, and writes one line for each request.
//!
//! It sees what anybody between the two could see and nothing else: when a request came and was
//! answered, the affinity cookie, the status and the code, how many rows it held. A line is JSON
//! ([`Line`]); [`crate::windows`] makes figures of a file of them. Times are seconds of the service
//! since the recorder began. Control requests to the emulator are passed on and not recorded.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flowgate_core::{Clock, ConnectorError};
use flowgate_emulator::ProfileName;
use flowgate_emulator::model::Profile;
use flowgate_http::{Answer, HttpClient, HttpOptions, Origin, Request, SystemClock};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use crate::Error;

const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub sent_s: f64,
    pub answered_s: f64,
    /// The affinity cookie: of the answer, or of the request if the answer set none.
    pub lane: Option<String>,
    pub class: LineClass,
    pub operation: String,
    /// 0 if the connection was cut.
    pub status: u16,
    /// The service's code of a refusal.
    pub code: Option<String>,
    /// Rows written.
    pub rows: u64,
    /// What the request took beyond the round trip; 0 if it was not run.
    pub charged_s: f64,
}

/// As the wire shows it: a message for one row is a person's, everything else a load's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineClass {
    Interactive,
    Batch,
}

/// The connection was cut on the other side, so it is cut on this one.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
struct Cut;

/// A running recorder. It stops when dropped.
pub struct Recorder {
    url: String,
    task: JoinHandle<()>,
}

/// What all connections share.
struct Wire {
    target: String,
    http: HttpClient,
    clock: SystemClock,
    round_trip_s: f64,
    file: Mutex<fs_err::File>,
}

impl Recorder {
    /// Listens in front of `target`, whose profile is `realistic`.
    pub async fn start(target: &str, path: &Path, time_scale: f64) -> Result<Self, Error> {
        let profile = Profile::named(ProfileName::Realistic).map_err(Error::Profile)?;
        let origin = Origin::parse(target).map_err(ConnectorError::from)?;
        let http = HttpClient::new(HttpOptions::to(vec![origin])).map_err(ConnectorError::from)?;
        let wire = Arc::new(Wire {
            target: target.to_owned(),
            http,
            clock: SystemClock::new(time_scale),
            round_trip_s: profile.round_trip_ms / 1_000.0,
            file: Mutex::new(fs_err::File::create(path)?),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&wire), stream));
            }
        });
        Ok(Self { url, task })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(wire: Arc<Wire>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no delay not set");
    }
    let service = hyper::service::service_fn(move |request| {
        let wire = Arc::clone(&wire);
        // A task of its own: the service goes on when the caller has hung up.
        async move { tokio::spawn(async move { wire.pass(request).await }).await.unwrap_or(Err(Cut)) }
    });
    if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    {
        tracing::debug!(%error, "connection ended");
    }
}

impl Wire {
    async fn pass(&self, request: http::Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let sent_s = self.now_s();
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Cut)?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = Url::parse(&format!("{}{path}", self.target)).map_err(|_| Cut)?;
        let mut headers = parts.headers;
        headers.remove(CONTENT_LENGTH);
        headers.remove(CONNECTION);
        let seen = Seen::of(&parts.method, parts.uri.path(), &headers, &body);
        let request = Request { method: parts.method, url, headers, body, bearer: None };
        let answer = self.http.send(request).await.ok();
        if parts.uri.path().starts_with("/api/") {
            self.write(&seen.line(sent_s, self.now_s(), answer.as_ref(), self.round_trip_s));
        }
        let answer = answer.ok_or(Cut)?;
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        for name in [CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    fn now_s(&self) -> f64 {
        self.clock.elapsed().0.as_secs_f64()
    }

    /// At once and as a whole: the process may be killed after any line.
    fn write(&self, line: &Line) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&text) {
            tracing::error!(%error, "a request was not recorded");
        }
    }
}

/// A request, before its answer.
struct Seen {
    cookie: Option<String>,
    class: LineClass,
    operation: String,
    rows: u64,
}

#[derive(Deserialize)]
struct Bulk {
    #[serde(rename = "Targets")]
    targets: Vec<serde::de::IgnoredAny>,
}

impl Seen {
    fn of(method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let last = path.rsplit('/').next().unwrap_or_default();
        let (operation, rows, class) = match last.strip_prefix("Microsoft.Dynamics.CRM.") {
            Some(bulk) => {
                let rows = serde_json::from_slice::<Bulk>(body).map_or(0, |bulk| bulk.targets.len());
                (bulk.to_owned(), rows as u64, LineClass::Batch)
            }
            None if last == "$batch" => ("$batch".to_owned(), 0, LineClass::Batch),
            None if *method == Method::GET => (format!("GET {last}"), 0, LineClass::Batch),
            None => (format!("{method} {last}"), 1, LineClass::Interactive),
        };
        let cookie = headers.get(COOKIE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { cookie, class, operation, rows }
    }

    fn line(self, sent_s: f64, answered_s: f64, answer: Option<&Answer>, round_trip_s: f64) -> Line {
        let status = answer.map_or(0, |answer| answer.status.as_u16());
        let was_run = answer.is_some_and(|answer| !matches!(answer.status.as_u16(), 401 | 429 | 502..=504));
        let is_done = answer.is_some_and(|answer| answer.status.is_success());
        Line {
            sent_s,
            answered_s,
            lane: answer.and_then(set_cookie).or(self.cookie),
            class: self.class,
            operation: self.operation,
            status,
            code: answer.and_then(code),
            rows: if is_done { self.rows } else { 0 },
            charged_s: if was_run { (answered_s - sent_s - round_trip_s).max(0.0) } else { 0.0 },
        }
    }
}

fn set_cookie(answer: &Answer) -> Option<String> {
    let value = answer.headers.get(SET_COOKIE)?.to_str().ok()?;
    value.split(';').next().map(str::to_owned)
}

fn code(answer: &Answer) -> Option<String> {
    if answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    body["error"]["code"].as_str().map(str::to_owned)
}
