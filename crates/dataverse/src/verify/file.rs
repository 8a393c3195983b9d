//! The file of observations: what the emulator loads to behave as the environment did.
//!
//! ```json
//! { "version": 1, "settings": { "key_violation_status": 412 }, "servers": 4, "probes": [ … ] }
//! ```
//!
//! It holds no host, no id and no text of the service: findings are values, statuses, codes and our
//! own words, and a last look refuses whatever has the form of an id or an address.

use std::collections::BTreeMap;

use flowgate_core::{Code, ConnectorError, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ProbeResult;
use super::probe::{Place, Probe};
use super::table::PROBES;

const VERSION: u32 = 1;

/// What was observed of an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observations {
    version: u32,
    settings: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    servers: Option<u64>,
    /// For people; nothing reads it back.
    #[serde(default)]
    probes: Vec<Value>,
}

impl Observations {
    pub(super) fn of(results: &[ProbeResult]) -> Self {
        let mut observed = Self {
            version: VERSION,
            settings: BTreeMap::new(),
            servers: None,
            probes: Vec::with_capacity(results.len()),
        };
        for (probe, result) in results.iter().filter_map(|result| Some((find(result.probe.name)?, result))) {
            match (probe.place, &result.value) {
                (Place::Setting, Some(value)) => {
                    observed.settings.insert(probe.name.to_owned(), value.clone());
                }
                (Place::Servers, Some(value)) => observed.servers = value.as_u64(),
                _ => {}
            }
            observed.probes.push(result.to_json());
        }
        observed
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<String, ConnectorError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| fault("the observations cannot be written").caused_by(error))?;
        match text.lines().find(|line| is_telling(line)) {
            None => Ok(text + "\n"),
            Some(_) => {
                Err(fault("the observations hold what has the form of an id or an address, and are not written"))
            }
        }
    }

    /// Reads a file that was written by a verification.
    pub fn from_text(text: &str) -> Result<Self, ConnectorError> {
        let bad = |message: &str| ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message);
        let observed: Self = serde_json::from_str(text)
            .map_err(|error| bad("the file is not one that `doctor --verify` writes").caused_by(error))?;
        if observed.version != VERSION {
            return Err(bad(&format!("the file is of version {}, and this program reads {VERSION}", observed.version)));
        }
        Ok(observed)
    }

    /// The values of the emulator's settings.
    pub fn settings(&self) -> &BTreeMap<String, Value> {
        &self.settings
    }

    /// What these observations let expect of a probe, if they say anything about it.
    pub(super) fn expected(&self, probe: &Probe) -> Option<Value> {
        match probe.place {
            Place::Setting => self.settings.get(probe.name).cloned(),
            Place::Servers => self.servers.map(Value::from),
            Place::Nowhere => None,
        }
    }
}

fn find(name: &str) -> Option<&'static Probe> {
    PROBES.iter().find(|probe| probe.name == name)
}

fn fault(message: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message)
}

/// Whether a line holds a GUID, an address or a host of the service.
fn is_telling(line: &str) -> bool {
    let is_guid = |word: &str| word.len() >= 32 && uuid::Uuid::parse_str(word).is_ok();
    line.contains("://")
        || line.contains(".dynamics.")
        || line.split(|c: char| !(c.is_ascii_hexdigit() || c == '-')).any(is_guid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn observations(value: Value) -> Observations {
        let settings = BTreeMap::from([("affinity_cookie".to_owned(), value)]);
        Observations { version: VERSION, settings, servers: Some(2), probes: Vec::new() }
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let observed = observations(json!("ARRAffinity"));
        assert_eq!(Observations::from_text(&observed.to_text().unwrap()).unwrap(), observed);
        assert!(Observations::from_text("{\"version\": 9, \"settings\": {}}").is_err());
        assert!(Observations::from_text("{}").is_err());
    }

    #[test]
    fn what_tells_of_an_environment_is_not_written() {
        for text in [
            "https://a",
            "org.crm4.dynamics.com",
            "x 5a1c2f8e-0000-4000-8000-000000000003",
            "5a1c2f8e000040008000000000000003",
        ] {
            assert!(observations(json!(text)).to_text().is_err(), "{text}");
        }
        assert!(observations(json!("0x80040217")).to_text().is_ok());
    }
}
