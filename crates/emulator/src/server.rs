//! Sockets: listening, TLS, HTTP/1.1, and which part answers which path.
//!
//! Promise: every request runs in a task of its own, so a caller that goes away does not stop
//! what the service has begun. What a caller without a token can take up is bounded: connections, the time
//! for a handshake, for headers and between requests, the number and size of headers, and the size of a
//! body. Left out: HTTP/2, as the limits count requests, not streams.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::control;
use crate::engine::Engine;
use crate::error::{ApiError, Code};
use crate::guard::{self, Visit};
use crate::page;
use crate::service::{self, Address, Reply};
use crate::sign_in;
use crate::web::{Answer, Request};

/// A cut connection, to hyper.
#[derive(Debug, thiserror::Error)]
#[error("connection cut by an injected fault")]
struct Cut;

/// Time for the first part of a truncated answer to leave.
const CUT_AFTER: Duration = Duration::from_millis(20);
/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// For the headers of a request, from the end of the one before it: so a connection may be idle so long, too.
const HEADER_TIME_MAX: Duration = Duration::from_mins(2);
const HEADER_BYTES_MAX: usize = 128 << 10;
/// The longest address of a request; a part of a batch may have twice as long a one.
const ADDRESS_BYTES_MAX: usize = 32_768;
/// Until the next piece of a body.
const BODY_PAUSE_MAX: Duration = Duration::from_mins(1);
/// What is kept of the body of a request that brings no valid token.
const UNKNOWN_BODY_BYTES_MAX: usize = 64 << 10;
const CONTROL_BODY_BYTES_MAX: usize = 4 << 20;

type CutStream = Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Cut>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<CutStream>>;

pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    /// `http://127.0.0.1:port`, for links when a request has no Host.
    pub(crate) origin: String,
}

/// Accepts connections until `stop` changes.
pub(crate) async fn run(listener: Listener, engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let listener = Arc::new(listener);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((place, stream, peer)) => {
                let (listener, engine, stop) = (Arc::clone(&listener), Arc::clone(&engine), stop.clone());
                tokio::spawn(async move {
                    connection(listener, engine, stream, peer.ip(), stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file handles, most likely: give others time to close some.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a place for it.
async fn accept(listener: &Listener, connections: &Arc<Semaphore>) -> std::io::Result<(Place, TcpStream, SocketAddr)> {
    let place = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.tcp.accept().await?;
    Ok((place, stream, peer))
}

async fn connection(
    listener: Arc<Listener>,
    engine: Arc<Engine>,
    stream: TcpStream,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no delay not set");
    }
    match &listener.tls {
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http1(&listener, engine, TokioIo::new(stream), peer, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
            Err(_) => tracing::debug!("tls handshake takes too long"),
        },
        None => http1(&listener, engine, TokioIo::new(stream), peer, stop).await,
    }
}

async fn http1<I>(listener: &Arc<Listener>, engine: Arc<Engine>, io: I, peer: IpAddr, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
        let (engine, listener) = (Arc::clone(&engine), Arc::clone(listener));
        async move {
            // A task of its own outlives a caller that hangs up.
            match tokio::spawn(handle(engine, listener, peer, request)).await {
                Ok(answered) => answered,
                Err(_) => Err(Cut),
            }
        }
    });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX);
    // It takes 100 headers, which is its own default.
    http1.max_header_size(HEADER_BYTES_MAX);
    let connection = http1.serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => {
            if let Err(error) = done {
                tracing::debug!(%error, "connection ended");
            }
        }
        _ = stop.changed() => {}
    }
}

async fn handle(
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    peer: IpAddr,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let origin = host.map_or_else(|| listener.origin.clone(), |host| format!("{scheme}://{host}"));
    if parts.uri.path_and_query().is_some_and(|address| address.as_str().len() > ADDRESS_BYTES_MAX) {
        return refused(http::StatusCode::URI_TOO_LONG, Code::RequestTooLarge, "The request URL is too long.");
    }
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or(""));
    if let Some(rest) = path.strip_prefix("/__emulator") {
        let listens_on = listener.tcp.local_addr().map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip());
        let visit = Visit { method: &parts.method, headers: &parts.headers, scheme, listens_on, peer };
        if let Err(refusal) = guard::check(&engine, &visit) {
            return reply(Reply::Answer(control::refused(refusal.status, &refusal.message)));
        }
        if let Some(page) = page::answer(&engine, &origin, rest, query).filter(|_| parts.method == http::Method::GET) {
            return reply(Reply::Answer(page));
        }
        let Some(body) = collect(body, CONTROL_BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX).await? else {
            return too_large();
        };
        return reply(Reply::Answer(control::answer(&engine, &parts.method, rest, query, &body)));
    }
    if let Some(resource) = sign_in::resource(path) {
        let Some(body) = collect(body, UNKNOWN_BODY_BYTES_MAX, UNKNOWN_BODY_BYTES_MAX).await? else {
            return too_large();
        };
        return reply(sign_in::answer(&engine, &origin, &parts.method, resource, &parts.headers, &body).await);
    }
    match service_path(path) {
        Some((version, rest)) => {
            let address = Address { origin, version: version.to_owned() };
            let read_max = engine.settings().body_bytes_max;
            // A stranger is refused whatever the body says, so the most of it is not kept.
            let is_known = service::is_known(&engine, &address, &parts.headers);
            let kept_max = if is_known { read_max } else { UNKNOWN_BODY_BYTES_MAX };
            let Some(body) = collect(body, read_max, kept_max).await? else { return too_large() };
            let (path, query) = (rest.to_owned(), query.to_owned());
            let request = Request { method: parts.method, path, query, headers: parts.headers, body };
            reply(service::serve(&engine, &address, request).await)
        }
        None => reply(Reply::Answer(elsewhere(path))),
    }
}

/// A body, read whole, and of it the first `kept_max` bytes; none if it is larger than it may be. A caller that
/// stops sending is cut off.
async fn collect(mut body: Incoming, read_max: usize, kept_max: usize) -> Result<Option<Bytes>, Cut> {
    let mut kept = bytes::BytesMut::new();
    let mut read = 0;
    loop {
        match tokio::time::timeout(BODY_PAUSE_MAX, body.frame()).await {
            Err(_) | Ok(Some(Err(_))) => return Err(Cut),
            Ok(None) => return Ok(Some(kept.freeze())),
            Ok(Some(Ok(frame))) => {
                let Ok(piece) = frame.into_data() else { continue };
                read += piece.len();
                if read > read_max {
                    return Ok(None);
                }
                kept.extend_from_slice(&piece[..piece.len().min(kept_max - kept.len())]);
            }
        }
    }
}

fn too_large() -> Result<Response<Body>, Cut> {
    refused(Code::RequestTooLarge.status(), Code::RequestTooLarge, "The request body is too large.")
}

/// A refusal before anything of the request was looked at; the connection ends with it, as its body was not read.
fn refused(status: http::StatusCode, code: Code, message: &str) -> Result<Response<Body>, Cut> {
    let mut answer = Answer::error(&ApiError::new(code, message).with_status(status), false);
    answer.set("connection", "close");
    reply(Reply::Answer(answer))
}

/// Services that an environment has beside the Web API, refused by name.
fn elsewhere(path: &str) -> Answer {
    let path_lower = path.to_ascii_lowercase();
    let named = [
        ("/xrmservices/2011/organization", "The SOAP Organization service"),
        ("/xrmservices/", "The SOAP discovery service"),
        ("/api/discovery", "The discovery service"),
        ("/api/search", "Dataverse search"),
    ];
    let Some((_, name)) = named.iter().find(|(prefix, _)| path_lower.starts_with(prefix)) else {
        return Answer::error(&ApiError::no_resource(path), false);
    };
    let error = ApiError::not_here(name);
    let mut answer = Answer::error(&error, false);
    if path_lower.starts_with("/xrmservices/") {
        // A SOAP client shows the text of a fault and nothing of JSON.
        let fault = format!(
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>{}</faultstring></s:Fault></s:Body></s:Envelope>",
            error.message
        );
        let status = answer.status;
        answer = Answer::text("text/xml; charset=utf-8", fault.into_bytes());
        answer.status = status;
    }
    answer
}

/// Version and rest of `/api/data/v9.x/rest`.
fn service_path(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/api/data/")?;
    let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
    matches!(version, "v9.0" | "v9.1" | "v9.2").then_some((version, rest))
}

fn reply(reply: Reply) -> Result<Response<Body>, Cut> {
    match reply {
        Reply::Drop => Err(Cut),
        Reply::Answer(answer) => Ok(response(answer, |body| Either::Left(Full::new(body)))),
        Reply::Truncated(answer, bytes) => {
            let length = answer.body.len();
            let mut response = response(answer, |body| {
                let kept = body.slice(..bytes.min(body.len()));
                // What was sent must be on its way before the connection is cut.
                let cut = stream::once(async {
                    tokio::time::sleep(CUT_AFTER).await;
                    Err(Cut)
                });
                let pieces = stream::iter([Ok(Frame::data(kept))]).chain(cut);
                Either::Right(StreamBody::new(Box::pin(pieces) as CutStream))
            });
            response.headers_mut().insert("content-length", HeaderValue::from(length));
            Ok(response)
        }
    }
}

fn response(answer: Answer, body: impl FnOnce(Bytes) -> Body) -> Response<Body> {
    let mut response = Response::new(body(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// Binds the listening socket.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
