//! Names a person gives to things, and the ids Flowgate gives to runs.
//!
//! A name is lower-case ASCII letters, digits and underscores, starts with a letter and has at most
//! 64 characters, so that it can stand in a file name, a URL and a metric without escaping.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name accepted, in characters.
pub const NAME_LENGTH_MAX: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name: use a lower-case letter, then letters, digits and underscores, at most {NAME_LENGTH_MAX}"
)]
pub struct InvalidName {
    text: String,
}

fn check(text: &str) -> Result<(), InvalidName> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
    let holds_only = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if starts_well && holds_only && text.len() <= NAME_LENGTH_MAX {
        Ok(())
    } else {
        Err(InvalidName { text: text.to_owned() })
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes `text` as a name, or says what a name looks like.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// One configured access to a system: connector, address, credentials, limits.
    ConnectionName
    /// One configured movement: streams, transforms, loads.
    FlowName
    /// One readable collection within a flow.
    StreamName
    /// One destination table within a flow.
    LoadName
    /// The environment chosen by `--env`; each has its own state.
    EnvironmentName
}

/// One execution of a flow. Ids are UUID version 7, so they sort by the time the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_file_name() {
        assert!(FlowName::new("asset_register2").is_ok());
        for bad in ["", "Cases", "2nd", "a-b", "a/b", "ä", &"x".repeat(65)] {
            assert!(FlowName::new(bad).is_err(), "{bad}");
        }
    }
}
