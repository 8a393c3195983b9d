//! Who may use `/__emulator/*`, which asks nobody for a token.
//!
//! A page in a browser on this machine reaches every port of it. Promise: such a page learns nothing
//! here and changes nothing. The name that a request was sent to must be one that no foreign page can
//! carry (an address, `localhost`, or what the emulator listens on), so that a name which is pointed at
//! this machine afterwards does not serve; a request that says which page it comes from must come from
//! the emulator's own; and a body must be of a type that a page cannot send without asking. Programs send
//! none of these headers and go on as before. What comes from another machine needs the token as soon as it
//! changes something. Left out: other users of the same machine, who could as well stop the process.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode};

use crate::engine::Engine;

/// Where a control request comes from and was sent to.
pub(crate) struct Visit<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Where the emulator listens.
    pub(crate) listens_on: IpAddr,
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
}

/// Why a control request is not heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { status, message: message.into() }
}

/// Media types of bodies that any page may send to anybody.
const FROM_PAGES: &[&str] = &["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"];

/// Refuses what a foreign page may have sent, and changes from elsewhere that bring no token.
pub(crate) fn check(engine: &Engine, visit: &Visit<'_>) -> Result<(), Refusal> {
    check_with(visit, |token| engine.identity.check(token, None, engine.clock.now()).is_ok())
}

fn check_with(visit: &Visit<'_>, is_valid: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    let header = |name: &str| visit.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = header("host");
    if let Some(host) = host.filter(|host| !is_own_host(host, visit.listens_on)) {
        let message = format!("`/__emulator/` does not answer to the host `{host}`; use `localhost` or an address");
        return Err(refusal(StatusCode::FORBIDDEN, message));
    }
    let own = host.map(|host| format!("{}://{host}", visit.scheme));
    if let Some(origin) = header("origin").filter(|origin| own.as_deref() != Some(*origin)) {
        let message = format!("`/__emulator/` does not answer pages of `{origin}`");
        return Err(refusal(StatusCode::FORBIDDEN, message));
    }
    if header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(refusal(StatusCode::FORBIDDEN, "`/__emulator/` does not answer pages of another site"));
    }
    if *visit.method == Method::GET
        || header("authorization")
            .and_then(|text| text.strip_prefix("Bearer "))
            .is_some_and(|token| is_valid(token.trim()))
    {
        return Ok(());
    }
    if !visit.peer.to_canonical().is_loopback() {
        return Err(refusal(
            StatusCode::UNAUTHORIZED,
            "changes from another machine need the `token` of the ready line",
        ));
    }
    match header("content-type") {
        Some(kind) if comes_from_pages(kind) && !is_programs_default(visit.headers, kind) => {
            let message = format!(
                "a body of type `{kind}` is not taken; send `application/json`, or the `token` of the ready line"
            );
            Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
        _ => Ok(()),
    }
}

fn media_type(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

fn comes_from_pages(kind: &str) -> bool {
    FROM_PAGES.iter().any(|known| media_type(kind).eq_ignore_ascii_case(known))
}

/// The type that `curl -d` and Python's `urllib` give every body. Browsers, which could send it as well, say so
/// in headers that those do not send.
fn is_programs_default(headers: &HeaderMap, kind: &str) -> bool {
    let is_browser = ["origin", "referer", "sec-fetch-site", "sec-fetch-mode", "cookie"];
    media_type(kind).eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && !is_browser.iter().any(|name| headers.contains_key(*name))
}

/// Whether a `Host` is an address, `localhost`, or a name below it. Names of anybody else's can be made to lead here.
fn is_own_host(host: &str, listens_on: IpAddr) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.to_canonical().is_loopback() || listens_on.is_unspecified() || address == listens_on;
    }
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &Method, peer: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        let visit = Visit {
            method,
            headers: &headers,
            scheme: "http",
            listens_on: "127.0.0.1".parse().unwrap(),
            peer: peer.parse().unwrap(),
        };
        check_with(&visit, |token| token == "good").map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn programs_of_this_machine_are_heard_whatever_they_call_their_json() {
        let host = ("host", "127.0.0.1:8080");
        for kind in [
            None,
            Some("application/json"),
            Some("application/json; charset=utf-8"),
            Some("application/x-www-form-urlencoded"),
            Some("application/octet-stream"),
        ] {
            let mut headers = vec![host];
            headers.extend(kind.map(|kind| ("content-type", kind)));
            assert_eq!(status(&Method::POST, "127.0.0.1", &headers), 200, "{kind:?}");
        }
        for name in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.3.4.5:80",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
            "crm.localhost:1",
        ] {
            assert_eq!(status(&Method::POST, "::1", &[("host", name)]), 200, "{name}");
        }
        assert_eq!(status(&Method::POST, "127.0.0.1", &[]), 200, "HTTP/1.0 has no host");
    }

    #[test]
    fn pages_are_not_heard_whatever_they_send() {
        let own = ("host", "localhost:8080");
        for name in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:1",
            "",
            "notlocalhost",
        ] {
            assert_eq!(status(&Method::GET, "127.0.0.1", &[("host", name)]), 403, "{name}");
            assert_eq!(status(&Method::POST, "127.0.0.1", &[("host", name)]), 403, "{name}");
        }
        for origin in
            ["http://evil.example", "null", "https://localhost:8080", "http://localhost", "http://localhost:8081", ""]
        {
            assert_eq!(status(&Method::POST, "127.0.0.1", &[own, ("origin", origin)]), 403, "{origin}");
            assert_eq!(status(&Method::GET, "127.0.0.1", &[own, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(status(&Method::GET, "127.0.0.1", &[own, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status(&Method::GET, "127.0.0.1", &[own, ("sec-fetch-site", "none")]), 200);
        for kind in ["text/plain", "Text/Plain;charset=UTF-8", "multipart/form-data; boundary=x"] {
            assert_eq!(status(&Method::POST, "127.0.0.1", &[own, ("content-type", kind)]), 415, "{kind}");
        }
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(status(&Method::POST, "127.0.0.1", &[own, form, ("referer", "http://evil.example/")]), 415);
        assert_eq!(
            status(
                &Method::POST,
                "127.0.0.1",
                &[own, ("origin", "http://localhost:8080"), ("content-type", "application/json")]
            ),
            200
        );
    }

    #[test]
    fn a_token_opens_what_no_page_could_have_sent_and_other_machines_need_it() {
        let own = ("host", "127.0.0.1:1");
        let good = ("authorization", "Bearer good");
        assert_eq!(status(&Method::POST, "127.0.0.1", &[own, good, ("content-type", "text/plain")]), 200);
        assert_eq!(
            status(&Method::POST, "127.0.0.1", &[own, ("authorization", "Bearer bad"), ("content-type", "text/plain")]),
            415
        );
        assert_eq!(status(&Method::POST, "127.0.0.1", &[("host", "evil.example"), good]), 403);
        assert_eq!(status(&Method::POST, "10.1.2.3", &[own]), 401);
        assert_eq!(status(&Method::POST, "10.1.2.3", &[own, good]), 200);
        assert_eq!(status(&Method::GET, "10.1.2.3", &[own]), 200);
    }
}
