//! Records of files that others own: staged images, and manifests of load state.

use std::collections::BTreeMap;

use flowgate_core::{Cursor, FlowName, RunId, StreamName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A complete image of a stream in the staging directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub flow: FlowName,
    pub stream: StreamName,
    /// The run that took it.
    pub run: RunId,
    /// Relative to the staging directory.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// Algorithm and value: `xxh3:0123456789abcdef`.
    pub checksum: String,
    /// The Arrow schema, as JSON.
    pub schema_json: String,
    /// The position after the image, if the next read can go on from here.
    pub cursor: Option<Cursor>,
    pub taken: Timestamp,
    /// A malformed row whose key could not be read was met: nothing may be called gone.
    pub malformed_key_unknown: bool,
    /// The files that it was made of, and the rows of each.
    #[serde(default)]
    pub parts: BTreeMap<String, u64>,
    /// Files that an earlier image was made of, and that were not there this time, or had no row any more.
    #[serde(default)]
    pub missing_parts: Vec<String>,
    /// Why rows may be missing from it: nothing may be called gone.
    #[serde(default)]
    pub doubt: Option<String>,
}

/// The manifest of one load's state. What `json` says is `flowgate-sorted`'s matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Rises by one with each swap; the first manifest has version 1.
    pub version: u64,
    pub json: String,
}
