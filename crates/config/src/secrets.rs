//! `${env:NAME}` and `${file:PATH}`: resolved when a connection is opened, never earlier.
//!
//! A resolved value is handed to the connector; whatever is shown has its reference in place of it
//! ([`flowgate_core::redaction`]). One line break at the end of a file is not part of the secret.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flowgate_core::{Code, redaction};
use serde_json::Value;

use crate::template::{Part, parts};

/// The largest secret file that is read.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Why a reference cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("environment variable `{name}` is not set")]
    AbsentVariable { name: String },
    #[error("environment variable `{name}` is not text")]
    VariableNotText { name: String },
    #[error("secret file `{}` cannot be read", path.display())]
    UnreadableFile { path: PathBuf, source: io::Error },
    #[error("secret file `{}` is larger than {SECRET_BYTES_MAX} bytes", path.display())]
    FileTooLarge { path: PathBuf },
    #[error("reference `{written}` cannot be resolved")]
    NotAReference { written: String },
}

impl ConfigError {
    pub fn code(&self) -> Code {
        match self {
            Self::NotAReference { .. } => Code::UNKNOWN_REFERENCE,
            _ => Code::ABSENT_SECRET,
        }
    }

    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::AbsentVariable { name } => {
                format!("`${{env:{name}}}` names it: export it in the process that runs Flowgate")
            }
            Self::VariableNotText { .. } => "its value must be UTF-8".to_owned(),
            Self::UnreadableFile { path, .. } | Self::FileTooLarge { path } => {
                format!("`${{file:…}}` names `{}`: put the secret alone into it", path.display())
            }
            Self::NotAReference { .. } => "there are `${env:NAME}` and `${file:/path}`".to_owned(),
        };
        vec![hint]
    }
}

/// Resolves every reference in a connection's settings. Relative file paths start at `dir`.
pub fn resolve_secrets(settings: &Value, dir: &Path) -> Result<Value, ConfigError> {
    Ok(match settings {
        Value::String(text) if text.contains("${") => Value::String(resolve_text(text, dir)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| resolve_secrets(item, dir)).collect::<Result<_, _>>()?)
        }
        Value::Object(entries) => {
            let resolve = |(key, value): (&String, &Value)| Ok((key.clone(), resolve_secrets(value, dir)?));
            Value::Object(entries.iter().map(resolve).collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

fn resolve_text(text: &str, dir: &Path) -> Result<String, ConfigError> {
    let mut resolved = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Text(text) => resolved.push_str(text),
            Part::Escape => resolved.push_str("${"),
            Part::Reference { kind: "env", name, written } => {
                resolved.push_str(&remembered(environment_variable(name)?, written));
            }
            Part::Reference { kind: "file", name, written } => {
                resolved.push_str(&remembered(file_contents(&dir.join(name))?, written));
            }
            Part::Reference { written, .. } | Part::Unclosed(written) => {
                return Err(ConfigError::NotAReference { written: written.to_owned() });
            }
        }
    }
    Ok(resolved)
}

/// Nothing shows the value from now on, but its reference. A short number, such as a port, would be taken for every count
/// that is the same; where it is a secret, [`flowgate_core::Secret`] has it masked all the same.
fn remembered(value: String, written: &str) -> String {
    let is_short_number = value.len() < 8 && value.bytes().all(|byte| byte.is_ascii_digit());
    if !is_short_number {
        redaction::remember(&value, written);
    }
    value
}

fn environment_variable(name: &str) -> Result<String, ConfigError> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => ConfigError::AbsentVariable { name: name.to_owned() },
        std::env::VarError::NotUnicode(_) => ConfigError::VariableNotText { name: name.to_owned() },
    })
}

fn file_contents(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::UnreadableFile { path: path.to_owned(), source };
    let file = fs_err::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(ConfigError::FileTooLarge { path: path.to_owned() });
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_resolved_wherever_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("secret"), "s3cret\r\n").unwrap();
        // CARGO_PKG_NAME is set for every test that cargo runs.
        let settings = json!({ "url": "${env:CARGO_PKG_NAME}/$${x}", "keys": ["${file:secret}", 5] });
        let resolved = resolve_secrets(&settings, dir.path()).unwrap();
        assert_eq!(resolved, json!({ "url": "flowgate-config/${x}", "keys": ["s3cret", 5] }));
    }

    #[test]
    fn only_one_line_break_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs_err::write(&path, "two\n\n").unwrap();
        assert_eq!(file_contents(&path).unwrap(), "two\n");
    }

    #[test]
    fn an_absent_secret_is_named_by_its_reference() {
        let error = resolve_secrets(&json!("x${env:FLOWGATE_NOT_SET}"), Path::new(".")).unwrap_err();
        assert_eq!(error.code(), Code::ABSENT_SECRET);
        assert_eq!(error.to_string(), "environment variable `FLOWGATE_NOT_SET` is not set");
        let error = resolve_secrets(&json!("${file:/nowhere/at/all}"), Path::new(".")).unwrap_err();
        assert_eq!(error.code(), Code::ABSENT_SECRET);
        assert_eq!(error.to_string(), "secret file `/nowhere/at/all` cannot be read");
    }

    #[test]
    fn a_large_file_is_not_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs_err::write(&path, vec![b'x'; SECRET_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(file_contents(&path), Err(ConfigError::FileTooLarge { .. })));
    }
}
