//! `flowgate.yaml` and the file of the chosen environment.

use std::path::{Path, PathBuf};

use flowgate_core::moment::{LocalTimes, NonexistentTimes, RepeatedTimes};
use flowgate_core::nearest::nearest;
use flowgate_core::project::{ProvisionPolicy, Staging};
use flowgate_core::{Code, EnvironmentName};
use jiff::tz::TimeZone;

use crate::connection::CONNECTION;
use crate::definition::{Block, Key, Kind, Others, Word, Written};
use crate::node::Node;
use crate::report::{Problem, Report};

/// The project version this program reads.
pub(crate) const VERSION: u64 = 1;
const MEMORY_BYTES_DEFAULT: usize = 256_000_000;
const IMAGES_KEPT_DEFAULT: usize = 3;
/// Where local state is kept when the project does not say.
const STATE_DIR_DEFAULT: &str = ".flowgate";

pub(crate) static PROJECT: Block = Block::of(
    "the project",
    &[
        Key::required(
            "flowgate",
            Kind::Whole { min: 1, max: VERSION },
            "the version of this configuration: `1`. It rises only when something breaks",
        ),
        Key::optional("time_zone", Kind::Text, "the IANA zone of naive times and of schedules; `UTC` if left out"),
        NONEXISTENT_TIMES,
        REPEATED_TIMES,
        CONNECTIONS,
        Key::optional("staging", Kind::Block(&STAGING), "where extracted rows wait and SQL shapes them"),
        Key::optional("state", Kind::Block(&STATE), "where Flowgate remembers what it loaded"),
        PROVISION,
        VARS,
    ],
);

const NONEXISTENT_TIMES: Key = Key::optional(
    "nonexistent_times",
    Kind::Word(&[
        Word { name: "next", doc: "it is read as the first moment after the change, counted and shown (the default)" },
        Word { name: "set_aside", doc: "its row is set aside" },
    ]),
    "what becomes of a time without an offset that a clock change of `time_zone` skips",
);

const REPEATED_TIMES: Key = Key::optional(
    "repeated_times",
    Kind::Word(&[
        Word { name: "first", doc: "it is read as the first of the two moments, counted and shown (the default)" },
        Word { name: "second", doc: "it is read as the second of the two moments, counted and shown" },
        Word { name: "set_aside", doc: "its row is set aside" },
    ]),
    "what becomes of a time without an offset that a clock change of `time_zone` brings twice",
);

pub(crate) static ENVIRONMENT: Block = Block::of("an environment", &[VARS, PROVISION, CONNECTIONS]);

static A_CONNECTION: Kind = Kind::Block(&CONNECTION);

const CONNECTIONS: Key = Key::optional(
    "connections",
    Kind::Named(&A_CONNECTION),
    "the systems, by a name of your choice; one of the environment takes the place of the project's whole",
);

const PROVISION: Key = Key::optional(
    "provision",
    Kind::Word(&[
        Word { name: "allow", doc: "`flowgate provision` may create tables, columns and keys" },
        Word { name: "refuse", doc: "nothing is ever created at the destination but rows (the default)" },
    ]),
    "whether missing tables, columns and keys may be created; the environment's word wins",
);

const VARS: Key = Key::optional(
    "vars",
    Kind::Named(&Kind::Scalar),
    "values for `${var:name}`; those of the environment win over those of the project",
);

static STAGING: Block = Block {
    title: "staging",
    keys: &[Key::required("embedded", Kind::Block(&EMBEDDED), "Parquet files and DataFusion, inside Flowgate")],
    others: Others::None,
    refused: &[Word { name: "postgres", doc: "use `embedded`" }, Word { name: "sqlserver", doc: "use `embedded`" }],
};

static EMBEDDED: Block = Block::of(
    "embedded staging",
    &[
        Key::optional("path", Kind::Text, "the folder; each environment gets its own below it"),
        Key::optional("memory", Kind::Written(&BYTES), "memory of one transform; `256MB` if left out"),
        Key::optional("keep", Kind::Whole { min: 1, max: 1_000 }, "images kept of each stream; 3 if left out"),
    ],
);

static STATE: Block = Block {
    title: "state",
    keys: &[Key::required("sqlite", Kind::Block(&SQLITE), "files on a local disk")],
    others: Others::None,
    refused: &[
        Word { name: "postgres", doc: "use `sqlite`" },
        Word { name: "key", doc: "encryption of letters comes in a later version" },
    ],
};

static SQLITE: Block = Block::of(
    "state in SQLite",
    &[Key::optional("path", Kind::Text, "the folder; each environment gets its own below it; `.flowgate` if left out")],
);

static BYTES: Written = Written {
    expected: "a size such as `256MB`",
    pattern: r"^[0-9]+ ?([KMG]i?B)$",
    accepts: |text| bytes(text).is_some(),
    may_be_number: false,
};

/// A size of at least 16 MB: below that no transform runs.
fn bytes(text: &str) -> Option<usize> {
    const BYTES_MIN: usize = 16_000_000;
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit.trim_start() {
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes >= BYTES_MIN)
}

/// A project for a newer program is not read further: what else is wrong with it cannot be known.
pub(crate) fn newer_version(root: &Node) -> Option<Problem> {
    let node = root.get("flowgate")?;
    let version = node.to_json().as_u64().filter(|version| *version > VERSION)?;
    let message = format!("the project is of version {version}, and this Flowgate reads version {VERSION}");
    let problem = Problem::new(Code::NEWER_VERSION, message).at(&node.place).value(version.to_string());
    Some(problem.hint("update Flowgate"))
}

pub(crate) fn time_zone(root: &Node, report: &mut Report) -> String {
    let Some(node) = root.get("time_zone") else { return "UTC".to_owned() };
    let name = node.text().unwrap_or("UTC");
    if TimeZone::get(name).is_err() {
        let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
        let near = nearest(name, known.iter().map(String::as_str));
        let problem = Problem::new(Code::WRONG_TYPE, format!("`{name}` is not a time zone")).at(&node.place);
        report.add(problem.value(name).nearest(near).hint("use an IANA name such as `Europe/London`"));
    }
    name.to_owned()
}

/// How times that are not exactly one moment are read.
pub(crate) fn local_times(root: &Node) -> LocalTimes {
    let word = |key| root.get(key).and_then(Node::text);
    LocalTimes {
        nonexistent: match word("nonexistent_times") {
            Some("set_aside") => NonexistentTimes::SetAside,
            _ => NonexistentTimes::Next,
        },
        repeated: match word("repeated_times") {
            Some("set_aside") => RepeatedTimes::SetAside,
            Some("second") => RepeatedTimes::Second,
            _ => RepeatedTimes::First,
        },
    }
}

/// The environment's word, else the project's, else refuse.
pub(crate) fn provision(root: &Node, environment: Option<&Node>) -> ProvisionPolicy {
    let written = environment.and_then(|node| node.get("provision")).or_else(|| root.get("provision"));
    match written.and_then(Node::text) {
        Some("allow") => ProvisionPolicy::Allow,
        _ => ProvisionPolicy::Refuse,
    }
}

/// Every environment has a folder of its own, whatever the project says.
pub(crate) fn state_dir(root: &Node, dir: &Path, environment: &EnvironmentName) -> PathBuf {
    let path = root.get("state").and_then(|state| state.get("sqlite")).and_then(|sqlite| sqlite.get("path"));
    dir.join(path.and_then(Node::text).unwrap_or(STATE_DIR_DEFAULT)).join(environment.as_str())
}

pub(crate) fn staging(root: &Node, dir: &Path, environment: &EnvironmentName, state_dir: &Path) -> Staging {
    let embedded = root.get("staging").and_then(|staging| staging.get("embedded"));
    let get = |key: &str| embedded.and_then(|embedded| embedded.get(key));
    let path = get("path").and_then(Node::text);
    Staging {
        dir: match path {
            Some(path) => dir.join(path).join(environment.as_str()),
            None => state_dir.join("staging"),
        },
        memory_bytes_max: get("memory").and_then(Node::text).and_then(bytes).unwrap_or(MEMORY_BYTES_DEFAULT),
        keep_images: get("keep")
            .and_then(|keep| keep.to_json().as_u64())
            .map_or(IMAGES_KEPT_DEFAULT, |keep| keep as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("256MB"), Some(256_000_000));
        assert_eq!(bytes("1 GiB"), Some(1 << 30));
        for bad in ["256", "MB", "1KB", "256mb", "99999999999GB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
