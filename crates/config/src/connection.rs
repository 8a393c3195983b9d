//! A connection: one key that names a connector, with the connector's own block, and the budget.

use std::collections::{BTreeMap, BTreeSet};

use flowgate_core::connector::ConnectorSpec;
use flowgate_core::hours::WeekHours;
use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::project::{BudgetShare, BudgetSpec, Connection};
use flowgate_core::{Code, ConnectionName, redaction};

use crate::check::unknown_key_among;
use crate::connector_block::ConnectorBlock;
use crate::definition::{Block, COUNT_MAX, Key, Kind, Others, Written};
use crate::mask;
use crate::node::{Data, Entry, Node};
use crate::report::{Problem, Report};

pub(crate) static CONNECTION: Block = Block {
    title: "a connection",
    keys: &[Key::optional("budget", Kind::Block(&BUDGET), "how much of the service's limits this project may use")],
    others: Others::Connector,
    refused: &[],
};

static BUDGET: Block = Block::of(
    "a budget",
    &[
        Key::optional("daily", Kind::Whole { min: 1, max: COUNT_MAX }, "requests in 24 hours; each row is one"),
        Key::optional(
            "batch",
            Kind::Either(&[Kind::Written(&SHARE), Kind::List(&Kind::Block(&BUDGET_SHARE))]),
            "the share of the limits that batch loads may use; of several, the first that matches the time counts",
        ),
    ],
);

static BUDGET_SHARE: Block = Block::of(
    "a share of the budget",
    &[
        Key::required("share", Kind::Written(&SHARE), "a percentage such as `40%`"),
        Key::optional(
            "during",
            Kind::Written(&DURING),
            "when it holds, in the project's time zone: `Mon-Fri 08:00-18:00`, `Sat,Sun 00:00-24:00`, `22:00-06:00`; always if left out",
        ),
    ],
);

/// The sign is required: `0.4` and `40` would both be read wrongly by someone.
static SHARE: Written = Written {
    expected: "a percentage such as `40%`",
    pattern: r"^(100|[0-9]{1,2})(\.[0-9]+)?%$",
    accepts: |text| share(text).is_some(),
    may_be_number: false,
};

static DURING: Written = Written {
    expected: "days and hours such as `Mon-Fri 08:00-18:00`",
    pattern: r"^([A-Z][a-z]{2}([-,][A-Z][a-z]{2})* )?[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$",
    accepts: |text| WeekHours::parse(text).is_some(),
    may_be_number: false,
};

/// From 0 to 1.
fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
    (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0)
}

/// The connections of a project, those with mistakes left out.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) by_name: BTreeMap<ConnectionName, Connection>,
    /// Every name written, so that a connection with a mistake is not called unknown as well.
    declared: BTreeSet<String>,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Destination,
}

impl Connections {
    /// Reads the blocks of the project and of the environment.
    pub(crate) fn read<'a>(
        blocks: impl Iterator<Item = &'a Node>,
        registry: &[ConnectorSpec],
        report: &mut Report,
    ) -> Self {
        let mut connections = Self::default();
        for entry in blocks.flat_map(Node::entries) {
            connections.declared.insert(entry.key.clone());
            remember_secrets(&entry.key, &entry.value);
            if let Data::Scalar { text, .. } = &entry.value.data {
                // An address with its password, perhaps: a connection is a block, so all of this is a slip of the pen.
                redaction::remember(text, "****");
            }
            if let Some(connection) = read_connection(entry, registry, report) {
                connections.by_name.insert(connection.name.clone(), connection);
            }
        }
        connections
    }

    /// The connection a value names, if its connector can play the role.
    pub(crate) fn find<'a>(
        &self,
        named: &Node,
        role: Role,
        registry: &'a [ConnectorSpec],
        report: &mut Report,
    ) -> Option<(&Connection, &'a ConnectorSpec)> {
        let name = named.text().filter(|_| named.to_json().is_string())?;
        let Some(connection) = self.by_name.get(name) else {
            if !self.declared.contains(name) {
                report.add(self.unknown(named, name));
            }
            return None;
        };
        let spec = registry.iter().find(|spec| spec.name == connection.connector)?;
        let (can, what) = match role {
            Role::Source => (spec.is_source, "read from"),
            Role::Destination => (spec.is_destination, "loaded into"),
        };
        if !can {
            let message = format!("connection `{name}` cannot be {what}: `{}` does not offer it", spec.name);
            report.add(Problem::new(Code::NOT_SUPPORTED, message).at(&named.place).value(name));
            return None;
        }
        Some((connection, spec))
    }

    fn unknown(&self, named: &Node, name: &str) -> Problem {
        let names = self.declared.iter().map(String::as_str);
        let problem = Problem::new(Code::UNKNOWN_REFERENCE, format!("no connection is called `{name}`"));
        let problem = problem.at(&named.place).value(name).nearest(nearest(name, names.clone()));
        match (&problem.nearest, self.declared.is_empty()) {
            (Some(_), _) => problem,
            (None, true) => problem.hint("add it under `connections:` in `flowgate.yaml`"),
            (None, false) => problem.hint(format!("connections: {}", quoted_list(names))),
        }
    }
}

/// Has secrets that are written out masked in whatever is said of them.
fn remember_secrets(name: &str, node: &Node) {
    match &node.data {
        Data::Scalar { text, .. } => mask::remember(name, text),
        Data::List(items) => items.iter().for_each(|item| remember_secrets(name, item)),
        Data::Map(entries) => entries.iter().for_each(|entry| {
            remember_secrets(&entry.key, &entry.value);
            if mask::is_secret(name) {
                remember_secrets(name, &entry.value);
            }
        }),
    }
}

fn read_connection(entry: &Entry, registry: &[ConnectorSpec], report: &mut Report) -> Option<Connection> {
    let (block, spec) = choose_connector(entry, registry, report)?;
    if !matches!(block.value.data, Data::Map(_)) && !block.value.is_null() {
        let message = format!("`{}` must be a block of keys, found {}", block.key, block.value.found());
        report.add(Problem::new(Code::WRONG_TYPE, message).at(&block.value.place));
        return None;
    }
    let connector = ConnectorBlock {
        title: format!("a `{}` connection", spec.name),
        at: &block.key_place,
        entries: block.value.entries().iter().collect(),
        our_keys: Vec::new(),
        may_hold_secrets: true,
        schema: (spec.connection_schema)(),
        check: spec.check_connection,
    };
    let settings = connector.read(report);
    let budget = entry.value.entry("budget");
    if let Some(budget) = budget.filter(|_| !spec.is_destination) {
        let message = format!("a budget has no meaning for `{}`, which is only read from", spec.name);
        report.add(Problem::new(Code::NOT_SUPPORTED, message).at(&budget.key_place));
    }
    let name = ConnectionName::new(&entry.key).ok()?;
    let budget = budget.map(|budget| read_budget(&budget.value));
    Some(Connection { name, connector: spec.name.to_owned(), settings, budget })
}

/// The one key of a connection that is a connector's name.
fn choose_connector<'a>(
    entry: &'a Entry,
    registry: &'a [ConnectorSpec],
    report: &mut Report,
) -> Option<(&'a Entry, &'a ConnectorSpec)> {
    if !matches!(entry.value.data, Data::Map(_)) {
        return None;
    }
    let mut chosen: Vec<(&Entry, &ConnectorSpec)> = Vec::new();
    let mut has_unknown = false;
    for key in entry.value.entries().iter().filter(|key| CONNECTION.key(&key.key).is_none()) {
        if let Some(spec) = registry.iter().find(|spec| spec.name == key.key) {
            chosen.push((key, spec));
            continue;
        }
        has_unknown = true;
        let mut valid: Vec<&str> = registry.iter().map(|spec| spec.name).collect();
        valid.extend(CONNECTION.key_names());
        report.add(unknown_key_among(key, "a connection", &valid));
    }
    match chosen.as_slice() {
        [one] => return Some(*one),
        [] if has_unknown => {}
        [] => {
            let message = format!("connection `{}` names no connector", entry.key);
            let hint = format!("connectors: {}", quoted_list(registry.iter().map(|spec| spec.name)));
            report.add(Problem::new(Code::MISSING_KEY, message).at(&entry.key_place).hint(hint));
        }
        [(first, _), (second, _), ..] => {
            let message = format!("connection `{}` names two connectors", entry.key);
            let problem = Problem::new(Code::DUPLICATE_NAME, message).at(&second.key_place).value(&second.key);
            report.add(problem.also(&first.key_place, "the first").hint("make it two connections"));
        }
    }
    None
}

fn read_budget(node: &Node) -> BudgetSpec {
    let mut budget =
        BudgetSpec { daily: node.get("daily").and_then(|daily| daily.to_json().as_u64()), batch: Vec::new() };
    for item in node.get("batch").map_or(&[][..], Node::items) {
        let written = item.get("share").unwrap_or(item);
        if let Some(share) = written.text().and_then(share) {
            let during = item.get("during").and_then(Node::text).map(str::to_owned);
            budget.batch.push(BudgetShare { share, during });
        }
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_its_sign() {
        assert_eq!(share("40%"), Some(0.4));
        for bad in ["40", "0.4", "0%", "101%", "%"] {
            assert_eq!(share(bad), None, "{bad}");
        }
    }
}
