//! Sockets: listening, TLS, HTTP/1.1, and which part answers which path.
//!
//! Promise: every request runs in a task of its own, so a caller that goes away does not stop
//! what the service has begun. Left out: HTTP/2, as the limits count requests, not streams.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::control;
use crate::engine::Engine;
use crate::error::{ApiError, Code};
use crate::page;
use crate::service::{self, Address, Reply};
use crate::sign_in;
use crate::web::{Answer, Request};

/// A cut connection, to hyper.
#[derive(Debug, thiserror::Error)]
#[error("connection cut by an injected fault")]
struct Cut;

/// Time for the first part of a truncated answer to leave.
const CUT_AFTER: std::time::Duration = std::time::Duration::from_millis(20);

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
    loop {
        let accepted = tokio::select! {
            accepted = listener.tcp.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (listener, engine, stop) = (Arc::clone(&listener), Arc::clone(&engine), stop.clone());
                tokio::spawn(async move { connection(listener, engine, stream, stop).await });
            }
            Err(error) => {
                // Out of file handles, most likely: give others time to close some.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(listener: Arc<Listener>, engine: Arc<Engine>, stream: TcpStream, stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no delay not set");
    }
    match &listener.tls {
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => http1(&listener, engine, TokioIo::new(stream), stop).await,
            Err(error) => tracing::debug!(%error, "tls handshake failed"),
        },
        None => http1(&listener, engine, TokioIo::new(stream), stop).await,
    }
}

async fn http1<I>(listener: &Arc<Listener>, engine: Arc<Engine>, io: I, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
        let (engine, origin, is_tls) = (Arc::clone(&engine), listener.origin.clone(), listener.tls.is_some());
        async move {
            // A task of its own outlives a caller that hangs up.
            match tokio::spawn(handle(engine, origin, is_tls, request)).await {
                Ok(answered) => answered,
                Err(_) => Err(Cut),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
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
    fallback: String,
    is_tls: bool,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let (parts, body) = request.into_parts();
    let limit = engine.settings().body_bytes_max;
    let body = match Limited::new(body, limit).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let error = ApiError::new(Code::RequestTooLarge, "The request body is too large.");
            return reply(Reply::Answer(Answer::error(&error, false)));
        }
        Err(_) => return Err(Cut),
    };
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
    let scheme = if is_tls { "https" } else { "http" };
    let origin = host.map_or(fallback, |host| format!("{scheme}://{host}"));
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or("").to_owned();
    if let Some(rest) = path.strip_prefix("/__emulator") {
        if let Some(page) = page::answer(&engine, &origin, rest, &query).filter(|_| parts.method == http::Method::GET) {
            return reply(Reply::Answer(page));
        }
        return reply(Reply::Answer(control::answer(&engine, &parts.method, rest, &query, &body)));
    }
    if let Some(resource) = sign_in::resource(&path) {
        return reply(sign_in::answer(&engine, &origin, &parts.method, resource, &body).await);
    }
    match service_path(&path) {
        Some((version, rest)) => {
            let address = Address { origin, version: version.to_owned() };
            let request = Request { method: parts.method, path: rest.to_owned(), query, headers: parts.headers, body };
            reply(service::serve(&engine, &address, request).await)
        }
        None => reply(Reply::Answer(elsewhere(&path))),
    }
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
