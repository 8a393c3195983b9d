//! One bounded exchange: a request out through the egress gate, a whole answer back.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flowgate_core::Secret;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use crate::{HttpError, Origin, redact_url};

/// How a client is built.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The only origins requests go to.
    pub allowed_origins: Vec<Origin>,
    /// A proxy for every request; the environment's proxy variables are not read.
    pub proxy: Option<Url>,
    pub user_agent: String,
    /// Real time, not a connection's: it bounds the network, not the service.
    pub connect_timeout: Duration,
    /// From the first byte sent to the last one read, in real time.
    pub exchange_timeout: Duration,
    pub answer_bytes_max: usize,
    /// Connections kept open to one origin.
    pub idle_connections_max: usize,
}

impl HttpOptions {
    /// Careful defaults for a client of these origins.
    pub fn to(allowed_origins: Vec<Origin>) -> Self {
        Self {
            ca_file: None,
            allowed_origins,
            proxy: None,
            user_agent: concat!("flowgate/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(15),
            exchange_timeout: Duration::from_mins(5),
            answer_bytes_max: 256 * 1024 * 1024,
            idle_connections_max: 64,
        }
    }
}

/// A request, complete but for the token.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// A token and the one origin that may see it.
    pub bearer: Option<(Secret, Origin)>,
}

impl Request {
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), bearer: None }
    }
}

/// A complete answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The text of a header, if it is there once and readable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The one HTTP client.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    allowed_origins: Vec<Origin>,
    answer_bytes_max: usize,
}

impl HttpClient {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that builds a client")]
    pub fn new(options: HttpOptions) -> Result<Self, HttpError> {
        install_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .timeout(options.exchange_timeout)
            .pool_max_idle_per_host(options.idle_connections_max)
            .tcp_nodelay(true)
            .tls_version_min(reqwest::tls::Version::TLS_1_2);
        builder = match options.proxy {
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy).map_err(build_error)?),
            None => builder.no_proxy(),
        };
        if let Some(path) = &options.ca_file {
            builder = builder.tls_certs_merge(read_certificates(path)?);
        } else if !options.allowed_origins.iter().any(Origin::is_https) {
            // A machine without any certificates must still reach a plain address on itself.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(build_error)?;
        Ok(Self { client, allowed_origins: options.allowed_origins, answer_bytes_max: options.answer_bytes_max })
    }

    /// Sends one request and reads the whole answer.
    ///
    /// Dropping the future abandons the exchange: what the service did is then unknown.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let shown_url = redact_url(request.url.as_str());
        let mut headers = request.headers;
        self.pass_gate(&request.url, request.bearer.as_ref(), &mut headers)?;
        let sent = self.client.request(request.method, request.url).headers(headers).body(request.body).send().await;
        let response = sent.map_err(|error| exchange_error(&shown_url, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read_body(response, &shown_url).await?;
        Ok(Answer { status, headers, body })
    }

    /// The egress gate: the origin is allowed, and the token goes only where it belongs.
    fn pass_gate(
        &self,
        url: &Url,
        bearer: Option<&(Secret, Origin)>,
        headers: &mut HeaderMap,
    ) -> Result<(), HttpError> {
        let origin = Origin::of(url).ok_or_else(|| HttpError::BadUrl { url: redact_url(url.as_str()) })?;
        if !self.allowed_origins.contains(&origin) {
            return Err(HttpError::ForeignOrigin { origin: origin.to_string() });
        }
        let Some((token, expected)) = bearer else { return Ok(()) };
        if origin != *expected {
            return Err(HttpError::ForeignToken { expected: expected.clone(), origin });
        }
        if !origin.is_confidential() {
            return Err(HttpError::PlainText { origin });
        }
        let text = format!("Bearer {}", token.expose());
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| HttpError::Build { source: "the token holds characters a header cannot carry".into() })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    async fn read_body(&self, mut response: reqwest::Response, shown_url: &str) -> Result<Bytes, HttpError> {
        let too_large = || HttpError::TooLarge { url: shown_url.to_owned(), bytes_max: self.answer_bytes_max };
        let expected = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
        if expected > self.answer_bytes_max {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(expected);
        while let Some(chunk) = response.chunk().await.map_err(|error| exchange_error(shown_url, &error))? {
            if body.len() + chunk.len() > self.answer_bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Ring serves every TLS connection of the process; another default is left alone.
fn install_crypto_provider() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed before ours");
        }
    });
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let ca_file_error = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::CaFile {
        path: path.display().to_string(),
        source,
    };
    let pem = fs_err::read(path).map_err(|error| ca_file_error(error.into()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| ca_file_error(error.into()))?;
    if certificates.is_empty() {
        return Err(ca_file_error("it holds no certificate".into()));
    }
    Ok(certificates)
}

fn build_error(error: reqwest::Error) -> HttpError {
    HttpError::Build { source: error.into() }
}

/// Only a failed connect proves that nothing was sent; every other failure leaves the end open.
fn exchange_error(shown_url: &str, error: &reqwest::Error) -> HttpError {
    let url = shown_url.to_owned();
    if error.is_connect() {
        return HttpError::NotSent { url, reason: innermost_reason(error) };
    }
    if error.is_builder() {
        return HttpError::BadUrl { url };
    }
    if error.is_timeout() {
        return HttpError::TimedOut { url };
    }
    HttpError::Unknown { url, reason: innermost_reason(error) }
}

/// The last cause in the chain: the outer ones repeat the URL, unredacted.
fn innermost_reason(error: &reqwest::Error) -> String {
    let Some(mut cause) = error.source() else { return "no reason was given".to_owned() };
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
