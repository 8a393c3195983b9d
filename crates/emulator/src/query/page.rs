//! Paging cookies, in the product's layout.
//!
//! `<cookie pagenumber="2" pagingcookie="..." istracking="False" />`, percent-encoded; the inner
//! cookie, percent-encoded twice more, names the last and first row of the page before. Promise:
//! a cookie that was tampered with is refused. Left out: what the keys mean.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::error::{ApiError, Code};

/// Most rows of a page, and the default.
pub(crate) const PAGE_ROWS_MAX: usize = 5000;

/// What a query string keeps as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where a page starts: after this row of this page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub(crate) page: u64,
    /// Order columns of the last row as plain text; `None` is null.
    pub(crate) keys: Vec<(String, Option<String>)>,
    pub(crate) last: Uuid,
    pub(crate) first: Uuid,
    pub(crate) is_tracking: bool,
}

/// Percent-encodes with lower-case digits, as the service does.
pub(crate) fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for piece in utf8_percent_encode(text, QUERY) {
        if piece.starts_with('%') { out.push_str(&piece.to_ascii_lowercase()) } else { out.push_str(piece) }
    }
    out
}

impl Cookie {
    /// The value of `$skiptoken`, ready for a query string.
    pub(crate) fn encode(&self, primary_id: &str) -> String {
        encode_query(&self.outer(primary_id))
    }

    /// The cookie with its inner one encoded, as annotations carry it.
    pub(crate) fn outer(&self, primary_id: &str) -> String {
        let inner = encode_query(&encode_query(&self.inner(primary_id)));
        let tracking = if self.is_tracking { "True" } else { "False" };
        format!(r#"<cookie pagenumber="{}" pagingcookie="{inner}" istracking="{tracking}" />"#, self.page)
    }

    /// The inner cookie, as XML.
    pub(crate) fn inner(&self, primary_id: &str) -> String {
        let mut keys = Vec::new();
        for (name, value) in &self.keys {
            keys.push(match value {
                Some(text) => format!(r#"<{name} last="{}" />"#, escape(text)),
                None => format!(r#"<{name} lastnull="1" />"#),
            });
        }
        let (page, keys) = (self.page.saturating_sub(1), keys.concat());
        let (last, first) = (braced(self.last), braced(self.first));
        format!(r#"<cookie page="{page}">{keys}<{primary_id} last="{last}" first="{first}" /></cookie>"#)
    }

    /// Reads a decoded `$skiptoken`.
    pub(crate) fn decode(token: &str) -> Result<Cookie, ApiError> {
        let page = attribute(token, "pagenumber").and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        let is_tracking = attribute(token, "istracking").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let encoded = attribute(token, "pagingcookie").ok_or_else(malformed)?;
        let once = percent_decode_str(encoded).decode_utf8_lossy();
        let inner = percent_decode_str(&once).decode_utf8_lossy();
        Cookie::decode_inner(&inner, page, is_tracking)
    }

    pub(crate) fn decode_inner(inner: &str, page: u64, is_tracking: bool) -> Result<Cookie, ApiError> {
        let body = inner.split_once('>').map(|(_, rest)| rest).ok_or_else(malformed)?;
        let mut elements: Vec<&str> = body.split('<').filter(|part| part.contains("/>")).collect();
        let id = elements.pop().ok_or_else(malformed)?;
        let guid = |name: &str| attribute(id, name).and_then(|text| Uuid::parse_str(text).ok());
        let keys = elements.into_iter().map(|element| {
            let name = element.split_whitespace().next().unwrap_or_default().to_owned();
            (name, attribute(element, "last").map(unescape))
        });
        let last = guid("last").ok_or_else(malformed)?;
        Ok(Cookie { page, keys: keys.collect(), last, first: guid("first").unwrap_or(last), is_tracking })
    }
}

fn malformed() -> ApiError {
    ApiError::new(Code::InvalidPagingCookie, "Malformed XML in the Paging Cookie")
}

fn braced(id: Uuid) -> String {
    id.braced().to_string().to_uppercase()
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let start = element.find(&format!(" {name}=\""))? + name.len() + 3;
    let rest = element.get(start..)?;
    rest.find('"').map(|end| &rest[..end])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_comes_back_as_it_went() {
        let cookie = Cookie {
            page: 2,
            keys: vec![("wr_name".into(), Some("a<\"&'%é".into())), ("createdon".into(), None)],
            last: Uuid::from_u128(7),
            first: Uuid::from_u128(1),
            is_tracking: false,
        };
        let encoded = cookie.encode("wr_orderid");
        assert!(encoded.starts_with("%3ccookie%20pagenumber%3d%222%22%20pagingcookie%3d%22%25253ccookie"));
        let decoded = percent_decode_str(&encoded).decode_utf8().unwrap();
        assert_eq!(Cookie::decode(&decoded).unwrap(), cookie);
    }

    #[test]
    fn a_broken_cookie_is_refused() {
        for token in ["", "x", "<cookie pagenumber=\"2\" pagingcookie=\"%253c\" istracking=\"False\" />"] {
            assert!(Cookie::decode(token).is_err(), "{token}");
        }
    }
}
