//! Sign-in: a token when one is needed, a new one before the old one ends.
//!
//! Errors of the token endpoint are OAuth-shaped and never Dataverse-shaped (dossier section 2.2).
//! Token requests do not count against the limits of the environment and pass no budget.

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::{Clock, Code, ConnectorError, Elapsed, ErrorKind, Secret};
use flowgate_http::{Answer, HttpClient, Origin, Request};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use url::Url;

use crate::challenge;
use crate::options::{Addresses, Credential};

/// A token is renewed this long before it ends, so that no request is under way with a dying one.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// Tries for a token while the endpoint cannot be reached.
const TRIES_MAX: u32 = 4;

/// Hands out tokens for one environment.
#[derive(Debug)]
pub(crate) struct Authority {
    grant: Grant,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
enum Grant {
    Fixed(Secret),
    ClientSecret { address: Box<TokenAddress>, client_id: String, secret: Secret, scope: String },
}

/// The clients that sign-in needs.
#[derive(Debug)]
pub(crate) struct SignIn {
    /// Reaches the environment.
    pub(crate) http: HttpClient,
    /// Reaches the `trusted` origins, and no other.
    pub(crate) token_http: HttpClient,
    pub(crate) trusted: Vec<Origin>,
}

/// Where tokens are issued: configured, or announced by the environment when it is first asked.
#[derive(Debug)]
struct TokenAddress {
    sign_in: SignIn,
    api: Url,
    url: OnceCell<Url>,
}

impl TokenAddress {
    async fn get(&self) -> Result<&Url, ConnectorError> {
        self.url.get_or_try_init(|| challenge::token_url(&self.sign_in.http, &self.api, &self.sign_in.trusted)).await
    }
}

#[derive(Debug, Clone)]
struct Held {
    token: Secret,
    renew_at: Elapsed,
    /// Rises with each new token, so that many refused requests renew it once.
    generation: u64,
}

/// A token and which one it is.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    pub(crate) generation: u64,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default = "default_lifetime_seconds")]
    expires_in: u64,
}

fn default_lifetime_seconds() -> u64 {
    3_600
}

#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Authority {
    pub(crate) fn new(
        credential: &Credential,
        addresses: &Addresses,
        token_url: Option<Url>,
        sign_in: SignIn,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let grant = match credential {
            Credential::ClientSecret { client_id, secret, .. } => Grant::ClientSecret {
                address: Box::new(TokenAddress {
                    sign_in,
                    api: addresses.api.clone(),
                    url: OnceCell::new_with(token_url),
                }),
                client_id: client_id.clone(),
                secret: secret.clone(),
                scope: format!("{}/.default", addresses.service),
            },
            Credential::Token(token) => Grant::Fixed(token.clone()),
        };
        Self { grant, clock, held: Mutex::new(None) }
    }

    /// A token that is good for a while. `refused` is the generation of one the service refused.
    pub(crate) async fn token(&self, refused: Option<u64>) -> Result<Token, ConnectorError> {
        let (address, client_id, secret, scope) = match &self.grant {
            Grant::Fixed(secret) => return fixed(secret, refused),
            Grant::ClientSecret { address, client_id, secret, scope } => (address, client_id, secret, scope),
        };
        // Held across the request on purpose: whoever needs a token waits for the one being fetched.
        let mut held = self.held.lock().await;
        let now = self.clock.elapsed();
        if let Some(held) = held.as_ref() {
            if now < held.renew_at && refused.is_none_or(|generation| generation != held.generation) {
                return Ok(Token { secret: held.token.clone(), generation: held.generation });
            }
        }
        let generation = held.as_ref().map_or(1, |held| held.generation + 1);
        let request = token_request(address.get().await?, client_id, secret, scope);
        let answer = self.fetch(&address.sign_in.token_http, request).await?;
        let lifetime = Duration::from_secs(answer.expires_in);
        let usable = lifetime.saturating_sub(RENEW_BEFORE).max(lifetime / 2);
        let token = Secret::new(answer.access_token);
        *held = Some(Held { token: token.clone(), renew_at: now.after(usable), generation });
        Ok(Token { secret: token, generation })
    }

    /// A new token for another audience than the environment's address, and its life; `None` if
    /// the credential is a fixed token. For those who study the service.
    pub(crate) async fn token_for(&self, audience: &str) -> Option<Result<(Secret, Duration), ConnectorError>> {
        match &self.grant {
            Grant::Fixed(_) => None,
            Grant::ClientSecret { address, client_id, secret, .. } => {
                Some(self.grant_for(address, client_id, secret, audience).await)
            }
        }
    }

    async fn grant_for(
        &self,
        address: &TokenAddress,
        client_id: &str,
        secret: &Secret,
        audience: &str,
    ) -> Result<(Secret, Duration), ConnectorError> {
        let request = token_request(address.get().await?, client_id, secret, &format!("{audience}/.default"));
        let answer = self.fetch(&address.sign_in.token_http, request).await?;
        Ok((Secret::new(answer.access_token), Duration::from_secs(answer.expires_in)))
    }

    async fn fetch(&self, http: &HttpClient, request: Request) -> Result<TokenAnswer, ConnectorError> {
        let mut tries = 1;
        loop {
            let is_last = tries >= TRIES_MAX;
            match http.send(request.clone()).await {
                Ok(answer) if answer.status == StatusCode::OK => return read_token(&answer),
                Ok(answer) if answer.status.is_server_error() && !is_last => {}
                Ok(answer) => return Err(refused_sign_in(&answer)),
                Err(error) if error.is_passing() && !is_last => {}
                Err(error) => {
                    return Err(ConnectorError::from(error).hint("this was the sign-in address (`token_url`)"));
                }
            }
            self.clock.sleep(Duration::from_secs(1 << tries)).await;
            tries += 1;
        }
    }
}

fn fixed(secret: &Secret, refused: Option<u64>) -> Result<Token, ConnectorError> {
    if refused.is_some() {
        let message = "the service refused the configured token";
        return Err(ConnectorError::new(ErrorKind::Authentication, Code::SIGN_IN_FAILED, message)
            .hint("a fixed token cannot be renewed: use a client id and a secret"));
    }
    Ok(Token { secret: secret.clone(), generation: 0 })
}

fn token_request(token_url: &Url, client_id: &str, secret: &Secret, scope: &str) -> Request {
    let mut request = Request::new(Method::POST, token_url.clone());
    request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", client_id)
        .append_pair("client_secret", secret.expose())
        .append_pair("scope", scope)
        .finish();
    request.body = form.into();
    request
}

fn read_token(answer: &Answer) -> Result<TokenAnswer, ConnectorError> {
    serde_json::from_slice(&answer.body).map_err(|_| {
        let message = "the sign-in address did not answer with a token";
        ConnectorError::new(ErrorKind::Authentication, Code::UNEXPECTED_ANSWER, message)
            .hint("check `token_url`; a proxy or a sign-in page may stand in between")
    })
}

fn refused_sign_in(answer: &Answer) -> ConnectorError {
    let Ok(refusal) = serde_json::from_slice::<TokenRefusal>(&answer.body) else {
        let message = format!("sign-in was refused with status {}", answer.status.as_u16());
        return ConnectorError::new(ErrorKind::Authentication, Code::SIGN_IN_FAILED, message)
            .hint("check `token_url`, the client id and the secret");
    };
    // The first line says what is wrong; the rest are trace ids.
    let detail = refusal.error_description.lines().next().unwrap_or_default().trim();
    let message = format!("sign-in was refused: `{}` {detail}", refusal.error);
    let hint = match refusal.error.as_str() {
        "invalid_client" => "the client id or the secret is wrong, or the secret has expired",
        "unauthorized_client" => "the application is not known in this tenant: check the tenant in `token_url`",
        "invalid_scope" | "invalid_resource" => "the environment's address is not one the tenant knows: check `url`",
        _ => "check `token_url`, the client id and the secret",
    };
    ConnectorError::new(ErrorKind::Authentication, Code::SIGN_IN_FAILED, message.trim_end()).hint(hint)
}
