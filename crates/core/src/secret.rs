//! Secrets as a type: they deserialize from text, compare in tests and print as `****`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::redaction;

/// A resolved secret. It never shows its value through `Debug`, `Display` or `Serialize`;
/// [`Secret::expose`] is the one way to read it, at the point of use.
#[derive(Clone, Default, PartialEq, Eq)]
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

/// One that comes from a configuration is masked in everything that is shown from then on.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        // `check` reads references before they are resolved: those may be shown.
        if !value.contains("${") {
            redaction::remember(&value, "****");
        }
        Ok(Self(value))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("****")
    }
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
}
