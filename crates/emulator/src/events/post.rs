//! One HTTP POST, of which only the status matters.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::Clock;

/// Simulated seconds an endpoint has to answer.
const TIMEOUT_S: f64 = 60.0;

#[derive(Debug)]
pub(super) enum Outcome {
    Answered(u16),
    TimedOut,
    Failed(String),
}

pub(super) async fn post(clock: &Clock, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Outcome {
    tokio::select! {
        outcome = send(url, headers, body) => outcome.unwrap_or_else(Outcome::Failed),
        () = clock.sleep(TIMEOUT_S) => Outcome::TimedOut,
    }
}

async fn send(url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<Outcome, String> {
    let uri: Uri = url.parse().map_err(|_| format!("The address '{url}' is not valid."))?;
    if uri.scheme_str() != Some("http") {
        return Err("The Flowgate emulator posts to http:// addresses only.".to_owned());
    }
    let host = uri.host().ok_or_else(|| format!("The address '{url}' names no host."))?;
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = request(&uri, headers, body)?;
    let driver = tokio::spawn(connection);
    let answered = sender.send_request(request).await.map_err(|error| error.to_string());
    driver.abort();
    answered.map(|response| Outcome::Answered(response.status().as_u16()))
}

fn request(uri: &Uri, headers: &[(String, String)], body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let mut request = Request::post(target).header("host", authority);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("'{name}' is not a header name."))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("The value of header '{name}' is not valid."))?;
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())
}
