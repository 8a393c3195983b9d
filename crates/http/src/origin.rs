//! Where requests may go: scheme, host and port, compared exactly.

use std::fmt;

use url::{Host, Url};

use crate::HttpError;

/// The scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
    is_loopback: bool,
}

impl Origin {
    /// The origin of `url`; `None` unless it is `http` or `https` with a host.
    pub fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host()?;
        let is_loopback = match &host {
            Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let port = url.port_or_known_default()?;
        Some(Self { scheme: url.scheme().to_owned(), host: host.to_string(), port, is_loopback })
    }

    /// Parses a URL and takes its origin.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let url = Url::parse(text).map_err(|_| HttpError::BadUrl { url: crate::redact_url(text) })?;
        Self::of(&url).ok_or_else(|| HttpError::BadUrl { url: crate::redact_url(text) })
    }

    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Whether a secret may travel there: over TLS, or without leaving this machine.
    pub fn is_confidential(&self) -> bool {
        self.is_https() || self.is_loopback
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        let default = if self.is_https() { 443 } else { 80 };
        if self.port == default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_port_and_a_written_one_are_the_same_origin() {
        let written = Origin::parse("https://contoso.crm.dynamics.com:443/api").unwrap();
        assert_eq!(written, Origin::parse("https://CONTOSO.crm.dynamics.com").unwrap());
        assert_eq!(written.to_string(), "https://contoso.crm.dynamics.com");
    }

    #[test]
    fn hosts_that_only_begin_alike_are_different() {
        let ours = Origin::parse("https://contoso.crm.dynamics.com").unwrap();
        for other in [
            "https://contoso.crm.dynamics.com.evil.example/",
            "https://contoso.crm.dynamics.com@evil.example/",
            "http://contoso.crm.dynamics.com/",
            "https://contoso.crm.dynamics.com:8443/",
        ] {
            assert_ne!(Origin::parse(other).unwrap(), ours, "{other}");
        }
        assert!(Origin::parse("file:///etc/passwd").is_err());
    }

    #[test]
    fn secrets_stay_on_tls_or_on_this_machine() {
        assert!(Origin::parse("http://127.0.0.1:8080").unwrap().is_confidential());
        assert!(Origin::parse("http://[::1]:8080").unwrap().is_confidential());
        assert!(!Origin::parse("http://crm.example").unwrap().is_confidential());
    }
}
