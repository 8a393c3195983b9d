//! What a connection to one environment needs to know.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::ports::LaneLeases;
use flowgate_core::project::BudgetSpec;
use flowgate_core::redaction::redacted;
use flowgate_core::{Code, ConnectorError, ErrorKind, Secret};
use flowgate_http::{HttpError, Origin};
use url::Url;
use uuid::Uuid;

use crate::budget::Role;
use crate::unanswered::LATENESS_DEFAULT;

/// The version of the Web API that is spoken.
const API_PATH: &str = "/api/data/v9.2/";

/// What Azure's front ends call the affinity cookie.
const AFFINITY_COOKIE: &str = "ARRAffinity";

/// How to reach an environment, and as whom.
#[derive(Debug, Clone)]
pub struct DataverseOptions {
    /// `https://agency.crm11.dynamics.com`, without a path.
    pub url: String,
    pub credential: Credential,
    /// Several application users, each with limits of its own; then `credential` is not used.
    pub users: Vec<UserOptions>,
    /// How limits are shared with the other processes of the host; this one is alone without.
    pub sharing: Option<SharingOptions>,
    /// The id of the organisation that must answer; another one refuses to run.
    pub organization: Option<Uuid>,
    /// The unmanaged solution that provisioned parts go into.
    pub solution: Option<String>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<Url>,
    /// How many seconds of the service pass in a real one. More than 1 only for the emulator.
    pub time_scale: f64,
    /// Which part of the service's limits this project uses.
    pub budget: BudgetSpec,
    /// The name of the cookie that binds a client to one web server; UNVERIFIED for the real service.
    pub affinity_cookie: String,
    /// How long after we gave up on it a write may still take effect, in the service's time.
    pub late_writes: Duration,
    /// IANA name of the zone the budget's times of day are in.
    pub time_zone: String,
}

impl DataverseOptions {
    /// Defaults for everything but the address and the credential.
    pub fn new(url: impl Into<String>, credential: Credential) -> Self {
        Self {
            url: url.into(),
            credential,
            users: Vec::new(),
            sharing: None,
            organization: None,
            solution: None,
            ca_file: None,
            proxy: None,
            time_scale: 1.0,
            budget: BudgetSpec::default(),
            affinity_cookie: AFFINITY_COOKIE.to_owned(),
            late_writes: LATENESS_DEFAULT,
            time_zone: "UTC".to_owned(),
        }
    }
}

/// One of several application users.
#[derive(Debug, Clone)]
pub struct UserOptions {
    /// Its key in the configuration, for messages.
    pub key: Option<String>,
    pub role: Role,
    pub credential: Credential,
}

/// Where limits are shared, and under which name.
#[derive(Debug, Clone)]
pub struct SharingOptions {
    pub leases: Arc<dyn LaneLeases>,
    pub connection: String,
}

/// How to sign in.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The client-credentials grant. `token_url` is
    /// `https://login.microsoftonline.com/<tenant>/oauth2/v2.0/token` for Entra; without it the environment is asked.
    ClientSecret { token_url: Option<String>, client_id: String, secret: Secret },
    /// A bearer token that lives as long as the process needs it.
    Token(Secret),
}

/// The addresses of a connection, checked.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) service: Origin,
    /// Ends with a slash, so that relative addresses append to it.
    pub(crate) api: Url,
}

impl Credential {
    /// Where tokens are issued, if that is configured.
    pub(crate) fn token_address(&self) -> Result<Option<(Url, Origin)>, ConnectorError> {
        let Self::ClientSecret { token_url: Some(token_url), .. } = self else { return Ok(None) };
        let url = parse(token_url, "token_url")?;
        let origin = Origin::of(&url).ok_or_else(|| bad_address("token_url", token_url))?;
        if !origin.is_confidential() {
            return Err(HttpError::PlainText { origin }.into());
        }
        Ok(Some((url, origin)))
    }
}

/// Whether secrets may be sent to the address: over TLS, or on this machine. One that is none is for others to refuse.
pub fn may_carry_secrets(address: &str) -> bool {
    Origin::parse(address).map_or(true, |origin| origin.is_confidential())
}

impl Addresses {
    pub(crate) fn of(options: &DataverseOptions) -> Result<Self, ConnectorError> {
        let url = parse(&options.url, "url")?;
        let path = url.path().trim_end_matches('/');
        if !path.is_empty() && path != API_PATH.trim_end_matches('/') {
            return Err(
                bad_address("url", &options.url).hint("write only the host: `https://agency.crm11.dynamics.com`")
            );
        }
        let service = Origin::of(&url).ok_or_else(|| bad_address("url", &options.url))?;
        let api = url.join(API_PATH).map_err(|_| bad_address("url", &options.url))?;
        Ok(Self { service, api })
    }
}

fn parse(text: &str, key: &str) -> Result<Url, ConnectorError> {
    let mut url = Url::parse(text).map_err(|_| bad_address(key, text))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad_address(key, text).hint("an address holds no credentials"));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn bad_address(key: &str, text: &str) -> ConnectorError {
    let shown = flowgate_http::redact_url(&redacted(text));
    let message = format!("`{key}` is not an address of a Dataverse environment: `{shown}`");
    ConnectorError::new(ErrorKind::Configuration, Code::CONNECTION_FAILED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> Result<Addresses, String> {
        let options = DataverseOptions::new(url, Credential::Token(Secret::new("t")));
        Addresses::of(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_api_address_is_made_from_the_host() {
        for url in
            ["https://a.crm.dynamics.com", "https://a.crm.dynamics.com/", "https://a.crm.dynamics.com/api/data/v9.2/"]
        {
            assert_eq!(addresses(url).unwrap().api.as_str(), "https://a.crm.dynamics.com/api/data/v9.2/");
        }
    }

    #[test]
    fn an_address_with_a_path_or_credentials_is_refused_without_showing_them() {
        assert_eq!(
            addresses("https://a.crm.dynamics.com/main.aspx?token=s3cret").unwrap_err(),
            "`url` is not an address of a Dataverse environment: `https://a.crm.dynamics.com/main.aspx?****`"
        );
        assert_eq!(
            addresses("https://app:s3cret@a.crm.dynamics.com").unwrap_err(),
            "`url` is not an address of a Dataverse environment: `https://a.crm.dynamics.com/`"
        );
        assert!(addresses("agency.crm11.dynamics.com").is_err());
    }
}
