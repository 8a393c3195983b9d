//! The sign-in service beside the environment: discovery documents and the token endpoint.
//!
//! Promise: a client library that is given this address as its authority finds what it looks for
//! (`openid-configuration`, instance discovery), gets tokens for client credentials, and is
//! refused as OAuth refuses. Left out: everything with a person or a browser; the key set is
//! empty, as tokens carry a checksum and no signature (`auth`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::engine::Engine;
use crate::query::decode_pairs;
use crate::service::{self, Reply};
use crate::web::Answer;

/// What a path of the sign-in service names, with its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Token(&'a str),
    OpenIdConfiguration(&'a str),
    InstanceDiscovery,
    Keys,
}

/// The sign-in resource a path names, if it is one.
pub(crate) fn resource(path: &str) -> Option<Resource<'_>> {
    let (tenant, rest) = path.strip_prefix('/')?.split_once('/')?;
    match (tenant, rest) {
        (_, "oauth2/v2.0/token" | "oauth2/token") => Some(Resource::Token(tenant)),
        (_, "v2.0/.well-known/openid-configuration" | ".well-known/openid-configuration") => {
            Some(Resource::OpenIdConfiguration(tenant))
        }
        ("common", "discovery/instance") => Some(Resource::InstanceDiscovery),
        (_, "discovery/keys" | "discovery/v2.0/keys") => Some(Resource::Keys),
        _ => None,
    }
}

pub(crate) async fn answer(
    engine: &Engine,
    origin: &str,
    method: &Method,
    resource: Resource<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let Resource::Token(tenant) = resource else {
        return Reply::Answer(document(engine, origin, method, resource));
    };
    if let Some(effect) = service::token_fault(engine) {
        engine.clock.sleep(effect.delay_s()).await;
        if effect.drop_before_commit || effect.commit_then_drop {
            return Reply::Drop;
        }
        if let Some(answer) = service::injected(&effect, engine) {
            return Reply::Answer(answer);
        }
    }
    Reply::Answer(match grant(engine, method, tenant, headers, body) {
        Ok(answer) => answer,
        Err(refusal) => refused(&refusal),
    })
}

/// A document that client libraries read before they ask for a token.
fn document(engine: &Engine, origin: &str, method: &Method, resource: Resource<'_>) -> Answer {
    let content = match resource {
        _ if *method != Method::GET => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, 900_561, "GET is required.")),
        Resource::OpenIdConfiguration(tenant) => match tenant_id(engine, tenant) {
            Ok(tenant) => Ok(open_id_configuration(origin, tenant)),
            Err(refusal) => Err(refusal),
        },
        Resource::InstanceDiscovery => Ok(instance_discovery(origin, engine.identity.tenant)),
        Resource::Keys | Resource::Token(_) => Ok(json!({ "keys": [] })),
    };
    match content {
        Ok(content) => Answer::json(content.to_string().into_bytes()),
        Err(refusal) => refused(&refusal),
    }
}

fn open_id_configuration(origin: &str, tenant: Uuid) -> Json {
    let host = host_of(origin);
    json!({
        "issuer": format!("{origin}/{tenant}/v2.0"),
        "authorization_endpoint": format!("{origin}/{tenant}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{origin}/{tenant}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "jwks_uri": format!("{origin}/{tenant}/discovery/v2.0/keys"),
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "scopes_supported": ["openid"],
        "cloud_instance_name": host,
        "tenant_region_scope": null,
    })
}

fn instance_discovery(origin: &str, tenant: Uuid) -> Json {
    let host = host_of(origin);
    json!({
        "tenant_discovery_endpoint": format!("{origin}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
    })
}

fn host_of(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, host)| host)
}

/// Why no token is granted: status, the number of the Entra error, its text.
struct Refusal(StatusCode, u32, &'static str);

fn bad<T>(number: u32, description: &'static str) -> Result<T, Refusal> {
    Err(Refusal(StatusCode::BAD_REQUEST, number, description))
}

/// The tenant a path names: by id, or by a name that stands for any.
fn tenant_id(engine: &Engine, tenant: &str) -> Result<Uuid, Refusal> {
    let own = engine.identity.tenant;
    if tenant == "common" || tenant == "organizations" || Uuid::parse_str(tenant).is_ok_and(|id| id == own) {
        return Ok(own);
    }
    bad(90_002, "Tenant not found.")
}

/// Grants a token, or says why not.
fn grant(engine: &Engine, method: &Method, tenant: &str, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Refusal> {
    if *method != Method::POST {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, 900_561, "POST is required."));
    }
    tenant_id(engine, tenant)?;
    let pairs = decode_pairs(&String::from_utf8_lossy(body));
    let basic = basic(headers)?;
    let field = |name: &str| {
        let found = pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let by_header = basic.as_ref().and_then(|(client, secret)| match name {
            "client_id" => Some(client.as_str()),
            "client_secret" => Some(secret.as_str()),
            _ => None,
        });
        found.or(by_header).unwrap_or_default()
    };
    if field("grant_type") != "client_credentials" {
        return bad(70_003, "Only client_credentials is supported.");
    }
    let Ok(client) = Uuid::parse_str(field("client_id")) else {
        return bad(700_016, "Application not found.");
    };
    if field("client_secret") != engine.identity.secret {
        return Err(Refusal(StatusCode::UNAUTHORIZED, 7_000_215, "Invalid client secret provided."));
    }
    let scope = if field("scope").is_empty() { field("resource") } else { field("scope") };
    if scope.is_empty() {
        return bad(70_011, "The scope is not valid.");
    }
    let audience = scope.strip_suffix("/.default").unwrap_or(scope);
    tracing::debug!(%client, audience, "token granted");
    let life = engine.settings().token_life_s;
    let token = engine.identity.sign(client, audience, engine.clock.now() + life);
    let body = json!({
        "token_type": "Bearer", "expires_in": life as u64, "ext_expires_in": life as u64, "access_token": token,
    });
    Ok(Answer::json(body.to_string().into_bytes()))
}

/// Client and secret of `Authorization: Basic`, each form-encoded before they were joined (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(encoded) = header.and_then(|value| value.strip_prefix("Basic ")) else { return Ok(None) };
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let Some((client, secret)) = pair else {
        return Err(Refusal(
            StatusCode::UNAUTHORIZED,
            7_000_218,
            "The client credentials in the Authorization header do not parse.",
        ));
    };
    let plain = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    Ok(Some((plain(client), plain(secret))))
}

/// The refusal in OAuth's terms. Which Entra number goes with which of them is UNVERIFIED.
fn refused(Refusal(status, number, description): &Refusal) -> Answer {
    let error = match number {
        70_003 => "unsupported_grant_type",
        70_011 => "invalid_scope",
        700_016 => "unauthorized_client",
        7_000_215 | 7_000_218 => "invalid_client",
        _ => "invalid_request",
    };
    let description = format!("AADSTS{number}: {description}");
    let body = json!({ "error": error, "error_description": description, "error_codes": [number] });
    let mut answer = Answer::json(body.to_string().into_bytes());
    answer.status = *status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_both_versions_are_known() {
        assert_eq!(resource("/t/oauth2/v2.0/token"), Some(Resource::Token("t")));
        assert_eq!(resource("/t/oauth2/token"), Some(Resource::Token("t")));
        let configuration = resource("/t/v2.0/.well-known/openid-configuration");
        assert_eq!(configuration, Some(Resource::OpenIdConfiguration("t")));
        assert_eq!(resource("/common/discovery/instance"), Some(Resource::InstanceDiscovery));
        assert_eq!(resource("/api/data/v9.2/accounts"), None);
    }
}
