//! Secrets as a type: they deserialize from text, compare in tests and print as `****`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A resolved secret. It never shows its value through `Debug`, `Display` or `Serialize`;
/// [`Secret::expose`] is the one way to read it, at the point of use.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Call it where the secret is used, never where it is stored or logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("****")
    }
}

/// Masks the password of a URL or of a `key=value` connection string, for messages.
///
/// `postgres://app:s3cret@db/works` becomes `postgres://app:****@db/works`.
pub fn mask_url(text: &str) -> String {
    if let Some((head, rest)) = text.split_once("://") {
        let (authority, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let masked = match authority.rsplit_once('@') {
            Some((user, host)) => match user.split_once(':') {
                Some((name, _)) => format!("{name}:****@{host}"),
                None => authority.to_owned(),
            },
            None => authority.to_owned(),
        };
        let tail = tail.split_once('?').map_or(tail.to_owned(), |(path, _)| format!("{path}?****"));
        return format!("{head}://{masked}{tail}");
    }
    let masked = text.split_whitespace().map(|pair| match pair.split_once('=') {
        Some((key, _)) if key.eq_ignore_ascii_case("password") => format!("{key}=****"),
        _ => pair.to_owned(),
    });
    masked.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_stars() {
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret} {secret:?} {}", serde_json::json!(secret)), r#"**** **** "****""#);
        assert_eq!(secret.expose(), "s3cret");
    }

    #[test]
    fn passwords_inside_urls_are_masked() {
        assert_eq!(mask_url("postgres://app:s3@cret@db:5432/works?x=1"), "postgres://app:****@db:5432/works?****");
        assert_eq!(mask_url("postgres://db/works"), "postgres://db/works");
        assert_eq!(mask_url("host=db password=s3cret user=app"), "host=db password=**** user=app");
    }
}
