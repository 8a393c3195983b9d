//! Sign-in: the token endpoint's tokens and their check.
//!
//! A token is `header.claims.checksum`, shaped like a JWT so that clients may read its claims;
//! the checksum is keyed by the seed and proves origin, not more: this is a local stand-in.
//! Promise: a token names its application, audience and expiry, survives a restart with the same
//! seed, and is refused when any of them is wrong. Left out: certificates and federation.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) secret: String,
    pub(crate) organization: Uuid,
    pub(crate) business_unit: Uuid,
    pub(crate) user: Uuid,
    pub(crate) team: Uuid,
    /// The Entra object id of the application user.
    pub(crate) object: Uuid,
    key: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    pub(crate) appid: Uuid,
    pub(crate) tid: Uuid,
    /// Expiry in simulated seconds since 1970.
    pub(crate) exp: u64,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenFault {
    Malformed,
    Expired,
    Audience,
}

impl Identity {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut next = || random.uuid();
        let (tenant, client, organization, business_unit) = (next(), next(), next(), next());
        let (user, team, object, secret) = (next(), next(), next(), next().simple().to_string());
        let key = Random::new(seed.wrapping_add(1)).next_bits();
        Identity { tenant, client, secret, organization, business_unit, user, team, object, key }
    }

    pub(crate) fn sign(&self, application: Uuid, audience: &str, expires_at: f64) -> String {
        let claims =
            Claims { aud: audience.to_owned(), appid: application, tid: self.tenant, exp: expires_at.max(0.0) as u64 };
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let signed = format!("{header}.{body}");
        let checksum = URL_SAFE_NO_PAD.encode(self.checksum(&signed).to_be_bytes());
        format!("{signed}.{checksum}")
    }

    fn checksum(&self, signed: &str) -> u128 {
        xxh3_128_with_seed(signed.as_bytes(), self.key)
    }

    /// Checks a token; `audience` is the address the request came to, without a path.
    pub(crate) fn check(&self, token: &str, audience: Option<&str>, now: f64) -> Result<Claims, TokenFault> {
        let (signed, checksum) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let given = URL_SAFE_NO_PAD.decode(checksum).map_err(|_| TokenFault::Malformed)?;
        if given != self.checksum(signed).to_be_bytes() {
            return Err(TokenFault::Malformed);
        }
        let body = signed.split_once('.').map(|(_, body)| body).ok_or(TokenFault::Malformed)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenFault::Malformed)?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| TokenFault::Malformed)?;
        if now >= claims.exp as f64 {
            return Err(TokenFault::Expired);
        }
        // `*` is the audience of the long-lived token handed out at the start.
        if claims.aud != "*" && audience.is_some_and(|audience| !same_host(audience, &claims.aud)) {
            return Err(TokenFault::Audience);
        }
        Ok(claims)
    }
}

/// Compares addresses without scheme, trailing slash and case.
fn same_host(a: &str, b: &str) -> bool {
    let host =
        |text: &str| text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/').to_ascii_lowercase();
    host(a) == host(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_audience_until_it_expires() {
        let identity = Identity::from_seed(1);
        let token = identity.sign(identity.client, "http://localhost:1/", 100.0);
        let check = |token: &str, audience, now| identity.check(token, audience, now).err();
        assert_eq!(check(&token, Some("http://localhost:1"), 99.0), None);
        assert_eq!(check(&token, Some("http://localhost:1"), 100.0), Some(TokenFault::Expired));
        assert_eq!(check(&token, Some("http://other:1"), 99.0), Some(TokenFault::Audience));
        assert_eq!(check("abc", None, 0.0), Some(TokenFault::Malformed));
        let other = Identity::from_seed(2).sign(identity.client, "*", 100.0);
        assert_eq!(check(&other, None, 0.0), Some(TokenFault::Malformed));
    }
}
