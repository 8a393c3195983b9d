//! A connection to a PostgreSQL server, and its errors in our terms.
//!
//! TLS is demanded, unless the address says `sslmode=disable` or the server is on this machine: there it is used when
//! the server offers it. A server elsewhere that says it has no TLS, or whoever says so in its place, gets no password.
//! Certificates are always verified in full. Nothing here ever shows the address: it holds a password.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::{Code, ConnectorError, ErrorKind, Secret, redaction};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads an address; the words for what is wrong with it never repeat it.
pub(crate) fn parse_url(url: &str) -> Option<Config> {
    // Our TLS always verifies, so these two ask for nothing more than `require`.
    let url = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    let config = Config::from_str(&url).ok()?;
    (!config.get_hosts().is_empty()).then_some(config)
}

/// A server and how to reach it.
#[derive(Clone)]
pub(crate) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
    /// Host, port and database, for messages.
    pub(crate) shown: String,
}

impl Server {
    pub(crate) fn new(url: &Secret, ca_file: Option<&Path>) -> Result<Self, ConnectorError> {
        let Some(mut config) = parse_url(url.expose()) else {
            let message = "the `url` is not the address of a PostgreSQL database";
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message)
                .hint("it looks like `postgres://user:password@host:5432/database`"));
        };
        if let Some(password) = config.get_password() {
            redaction::remember(&String::from_utf8_lossy(password), "****");
        }
        if config.get_ssl_mode() == SslMode::Prefer && !is_on_this_machine(&config) {
            config.ssl_mode(SslMode::Require);
        }
        config.application_name("flowgate");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let shown = show(&config);
        Ok(Self { config, tls: MakeRustlsConnect::new(tls_config(ca_file)?), shown })
    }

    /// Signs in, and sets what the form of values depends on.
    pub(crate) async fn connect(&self) -> Result<Client, ConnectorError> {
        let failed = |error| failed(&self.shown, error);
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(failed)?;
        let shown = self.shown.clone();
        tokio::spawn(async move {
            // The client's next call reports it too; here it is for the log.
            if let Err(error) = connection.await {
                tracing::debug!(server = shown, %error, "connection ended");
            }
        });
        client
            .batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = ISO; SET IntervalStyle = iso_8601")
            .await
            .map_err(failed)?;
        Ok(client)
    }

    /// Asks the server to stop what a connection is doing. Best effort: the connection is dropped anyway.
    pub(crate) async fn cancel(&self, token: CancelToken) {
        if let Err(error) = token.cancel_query(self.tls.clone()).await {
            tracing::debug!(server = self.shown, %error, "a query could not be cancelled");
        }
    }
}

/// Whether nothing that is sent leaves the machine.
fn is_on_this_machine(config: &Config) -> bool {
    let is_local = |host: &Host| match host {
        Host::Tcp(host) => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(is_local) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn show(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{host}:{port}/{database}")
}

fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, ConnectorError> {
    let unusable = |error: rustls::Error| {
        ConnectorError::new(ErrorKind::Resource, Code::CONNECTION_FAILED, "TLS cannot be set up").caused_by(error)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(unusable)?;
    let builder = match ca_file {
        None => builder.with_platform_verifier().map_err(unusable)?,
        Some(path) => builder.with_root_certificates(authorities(path)?),
    };
    Ok(builder.with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore, ConnectorError> {
    let wrong = |what: &str| {
        let message = format!("`ca_file` `{}` {what}", path.display());
        ConnectorError::new(ErrorKind::Configuration, Code::MISSING_FILE, message)
    };
    let text = fs_err::read(path).map_err(|error| wrong("cannot be read").caused_by(error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|_| wrong("is not PEM"))?;
        roots.add(certificate).map_err(|error| wrong("holds a certificate that cannot be used").caused_by(error))?;
    }
    if roots.is_empty() { Err(wrong("holds no certificate")) } else { Ok(roots) }
}

/// An error of the server or of the way to it.
pub(crate) fn failed(shown: &str, error: Error) -> ConnectorError {
    let Some(said) = error.as_db_error() else {
        let message = format!("the PostgreSQL server `{shown}` cannot be reached");
        let hint = "with a certificate of your own authority, set `ca_file:`; without TLS, add `?sslmode=disable`";
        let is_about_tls = |cause: &dyn std::error::Error| {
            let said = cause.to_string();
            said.contains("certificate") || said.contains("does not support TLS")
        };
        let is_tls = std::error::Error::source(&error).is_some_and(is_about_tls) || is_about_tls(&error);
        let failure = ConnectorError::new(ErrorKind::Transient, Code::CONNECTION_FAILED, message);
        return if is_tls { failure.hint(hint).caused_by(error) } else { failure.caused_by(error) };
    };
    let (kind, code) = classify(said.code());
    let (what, state) = (said.message(), said.code().code());
    let message = format!("the PostgreSQL server `{shown}` refused: {what} (SQLSTATE {state})");
    ConnectorError::new(kind, code, message)
}

fn classify(state: &SqlState) -> (ErrorKind, Code) {
    let text = state.code();
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        return (ErrorKind::Permission, Code::NOT_ALLOWED);
    }
    match &text[..2] {
        "28" => (ErrorKind::Authentication, Code::SIGN_IN_FAILED),
        "3D" | "3F" | "42" => (ErrorKind::NotFound, Code::STREAM_NOT_FOUND),
        // Lost connections, deadlocks and serialization failures, too many connections, restarts.
        "08" | "40" | "53" | "57" => (ErrorKind::Transient, Code::SOURCE_FAILED),
        "22" => (ErrorKind::Data, Code::SOURCE_FAILED),
        "XX" => (ErrorKind::Corrupt, Code::SOURCE_FAILED),
        _ => (ErrorKind::Resource, Code::SOURCE_FAILED),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url = Secret::new("postgres://app:s3cret@db.example:6000/works?sslmode=verify-full");
        assert_eq!(Server::new(&url, None).unwrap().shown, "db.example:6000/works");
    }

    #[test]
    fn a_wrong_address_is_not_repeated() {
        let error = Server::new(&Secret::new("postgres://app:s3/cret@:x"), None).err().unwrap();
        assert!(!format!("{error:?}").contains("s3"), "{error:?}");
        assert!(parse_url("works database").is_none());
    }

    #[test]
    fn a_password_leaves_the_machine_over_tls_only_unless_that_is_written() {
        let mode = |url: &str| Server::new(&Secret::new(url), None).unwrap().config.get_ssl_mode();
        for (url, expected) in [
            ("postgres://a:b@db.example/x", SslMode::Require),
            ("postgres://a:b@db.example/x?sslmode=prefer", SslMode::Require),
            ("postgres://a:b@db.example/x?sslmode=disable", SslMode::Disable),
            ("postgres://a:b@10.0.0.1/x", SslMode::Require),
            ("postgres://a:b@localhost,db.example/x", SslMode::Require),
            ("host=localhost hostaddr=10.0.0.1 user=a password=b", SslMode::Require),
            ("postgres://a:b@localhost/x", SslMode::Prefer),
            ("postgres://a:b@127.0.0.1/x", SslMode::Prefer),
            ("postgres://a:b@[::1]/x", SslMode::Prefer),
            ("host=/run/postgresql user=a password=b", SslMode::Prefer),
        ] {
            assert_eq!(mode(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_server_that_says_it_has_no_tls_gets_no_password() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"N").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            rest
        });
        // Only the address counts as this machine's, so that this one does not.
        let url = Secret::new(format!("host=db.example hostaddr=127.0.0.1 port={port} user=app password=s3cret-word"));
        let error = Server::new(&url, None).unwrap().connect().await.err().unwrap();
        assert!(error.hints.iter().any(|hint| hint.contains("sslmode=disable")), "{error:?}");
        assert_eq!(heard.await.unwrap(), b"");
    }

    #[test]
    fn what_passes_may_be_tried_again() {
        assert_eq!(classify(&SqlState::T_R_DEADLOCK_DETECTED).0, ErrorKind::Transient);
        assert_eq!(classify(&SqlState::INVALID_PASSWORD), (ErrorKind::Authentication, Code::SIGN_IN_FAILED));
        assert_eq!(classify(&SqlState::INSUFFICIENT_PRIVILEGE).0, ErrorKind::Permission);
    }
}
