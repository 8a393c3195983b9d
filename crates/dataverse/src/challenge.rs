//! Where an environment's tokens are issued, asked of the environment itself.
//!
//! An unauthenticated call is answered with 401 and a challenge that names the tenant (dossier section
//! 2.4). It saves the person a setting, and nothing more is believed of it: the secret goes only to an
//! address of Entra, or, while a loopback stand-in is used, back to that stand-in.

use std::sync::LazyLock;

use flowgate_core::{Code, ConnectorError, ErrorKind};
use flowgate_http::{Answer, HttpClient, Origin, Request};
use http::Method;
use url::Url;

/// The sign-in addresses of the public and the sovereign clouds.
const AUTHORITIES: [&str; 3] = [
    "https://login.microsoftonline.com",
    "https://login.microsoftonline.us",
    "https://login.partner.microsoftonline.cn",
];

static AUTHORITY_ORIGINS: LazyLock<Vec<Origin>> =
    LazyLock::new(|| AUTHORITIES.iter().filter_map(|text| Origin::parse(text).ok()).collect());

/// Where the service may send us to sign in.
pub(crate) fn trusted_origins(service: &Origin) -> Vec<Origin> {
    let mut origins = AUTHORITY_ORIGINS.clone();
    if service.is_loopback() {
        origins.push(service.clone());
    }
    origins
}

/// Asks the environment for the address that issues its tokens.
pub(crate) async fn token_url(http: &HttpClient, api: &Url, trusted: &[Origin]) -> Result<Url, ConnectorError> {
    let answer = http.send(Request::new(Method::GET, api.clone())).await.map_err(ConnectorError::from)?;
    let announced =
        announced_authority(&answer).ok_or_else(|| unknown("the environment does not say where to sign in"))?;
    let is_trusted = Origin::of(&announced).is_some_and(|origin| trusted.contains(&origin));
    if !is_trusted {
        let host = announced.host_str().unwrap_or_default();
        return Err(unknown(&format!("the environment sends clients to `{host}` to sign in, which is not Entra")));
    }
    let tenant = announced.path_segments().and_then(|mut segments| segments.next()).unwrap_or_default();
    announced.join(&format!("/{tenant}/oauth2/v2.0/token")).map_err(|_| unknown("the environment names no tenant"))
}

/// `authorization_uri` of `WWW-Authenticate: Bearer authorization_uri=…, resource_id=…`, quoted or not.
fn announced_authority(answer: &Answer) -> Option<Url> {
    let challenge = answer.header("www-authenticate")?.trim().strip_prefix("Bearer ")?;
    let value = challenge.split(',').find_map(|part| part.trim().strip_prefix("authorization_uri="))?;
    Url::parse(value.trim().trim_matches('"')).ok()
}

fn unknown(message: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::Configuration, Code::SIGN_IN_FAILED, message)
        .hint("name the tenant: `credential: { tenant: agency.onmicrosoft.com, … }`, or `token_url`")
}
