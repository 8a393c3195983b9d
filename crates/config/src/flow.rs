//! A flow: its streams, its schedule, and its loads in the order they run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flowgate_core::project::{Deletes, Flow, Stream};
use flowgate_core::{Code, FlowName, StreamName};

use crate::connection::Role;
use crate::connector_block::ConnectorBlock;
use crate::context::Context;
use crate::cron;
use crate::definition::{Block, Key, Kind, Others, TEXTS, Word, Written};
use crate::load::{LOAD, read_load};
use crate::node::{Entry, Node};
use crate::order::order_loads;
use crate::report::Problem;

/// Ordering loads takes the cube of their number.
const LOADS_MAX: usize = 200;

pub(crate) static FLOW: Block = Block::of(
    "a flow",
    &[
        Key::required("flow", Kind::Name, "the name of the flow"),
        Key::optional("schedule", Kind::Text, "when it runs by itself: five cron fields, in the project's time zone"),
        Key::optional(
            "after",
            Kind::Either(&[Kind::Name, Kind::List(&Kind::Name)]),
            "flows that must have ended before this one begins",
        ),
        Key::required("streams", Kind::Named(&Kind::Block(&STREAM)), "what is read, by the names SQL uses"),
        Key::required("loads", Kind::Named(&Kind::Block(&LOAD)), "the destination tables that are filled"),
    ],
);

pub(crate) static STREAM: Block = Block {
    title: "a stream",
    keys: &[
        Key::required("from", Kind::Text, "the connection it is read from"),
        Key::optional("key", TEXTS, "the columns that tell rows apart; needed to merge changes into the last image"),
        Key::optional(
            "deletes",
            Kind::Word(&[
                Word { name: "seen", doc: "a row that is not there any more was deleted" },
                Word { name: "by_reconcile", doc: "only a reconciling whole read shows deleted rows" },
                Word { name: "unseen", doc: "a row that is not there may still exist" },
            ]),
            "how deleted rows become known; `seen` if the connector can see them, else `unseen`",
        ),
        Key::optional(
            "may_be_empty",
            Kind::Boolean,
            "`true`: no rows at all are meant, even where there were some last time; otherwise a load that reads the stream \
             stops before it changes anything",
        ),
        Key::optional(
            "columns",
            Kind::Map(&Kind::Written(&COLUMN_TYPE)),
            "types for columns of text formats; the others stay text",
        ),
    ],
    others: Others::ConnectorKeys,
    refused: &[],
};

static COLUMN_TYPE: Written = Written {
    expected: "a column type: `text`, `integer`, `bigint`, `double`, `decimal(10,2)`, `boolean`, `date` or `timestamp`",
    pattern: r"^(text|integer|bigint|double|boolean|date|timestamp|decimal\([0-9]+, ?[0-9]+\))$",
    accepts: |text| column_type(text).is_some(),
    may_be_number: false,
};

/// The type without blanks, if it is one.
fn column_type(text: &str) -> Option<String> {
    if matches!(text, "text" | "integer" | "bigint" | "double" | "boolean" | "date" | "timestamp") {
        return Some(text.to_owned());
    }
    let inner = text.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    let (precision, scale): (u8, u8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let is_possible = (1..=38).contains(&precision) && scale <= precision;
    is_possible.then(|| format!("decimal({precision},{scale})"))
}

/// A flow's file, read as far as its name.
pub(crate) struct FlowFile {
    pub(crate) path: PathBuf,
    pub(crate) root: Node,
    pub(crate) name: FlowName,
}

impl FlowFile {
    /// The values of `after:`.
    pub(crate) fn after(&self) -> &[Node] {
        self.root.get("after").map_or(&[], Node::items)
    }
}

/// Reads a flow whose form has been checked. `None` when a part of it could not be read.
pub(crate) fn read_flow(file: &FlowFile, context: &mut Context<'_>) -> Option<Flow> {
    check_schedule(&file.root, context);
    let mut streams = BTreeMap::new();
    for entry in file.root.get("streams").map_or(&[][..], Node::entries) {
        if let Some(stream) = read_stream(entry, context) {
            streams.insert(stream.name.clone(), stream);
        }
    }
    require_one(&file.root, "streams", "nothing is read", context);
    require_one(&file.root, "loads", "nothing is loaded", context);
    let entries = file.root.get("loads").map_or(&[][..], Node::entries);
    if entries.len() > LOADS_MAX {
        let message = format!("more than {LOADS_MAX} loads in one flow");
        context
            .report
            .add(Problem::new(Code::NOT_SUPPORTED, message).at(&file.root.place).hint("make it several flows"));
        return None;
    }
    // All are read before one that could not be ends it: every mistake is told.
    let loads: Vec<_> = entries.iter().map(|entry| read_load(entry, file, &streams, context)).collect();
    let loads: Option<Vec<_>> = loads.into_iter().collect();
    let after = file.after().iter().filter_map(|node| FlowName::new(node.text()?).ok()).collect();
    Some(Flow {
        name: file.name.clone(),
        schedule: file.root.get("schedule").and_then(Node::text).map(str::to_owned),
        after,
        streams,
        loads: order_loads(loads?),
        path: file.path.clone(),
    })
}

fn require_one(root: &Node, key: &str, consequence: &str, context: &mut Context<'_>) {
    if let Some(entry) = root.entry(key).filter(|entry| !entry.value.is_null() && entry.value.entries().is_empty()) {
        let message = format!("`{key}` is empty: {consequence}");
        context.report.add(Problem::new(Code::MISSING_KEY, message).at(&entry.key_place));
    }
}

fn check_schedule(root: &Node, context: &mut Context<'_>) {
    let Some(node) = root.get("schedule") else { return };
    let Some(schedule) = node.text() else { return };
    if let Err(mistake) = cron::check(schedule) {
        let problem = Problem::new(Code::WRONG_TYPE, format!("schedule `{schedule}`: {mistake}"));
        let hint = "for example `0 2 * * *`: every day at two o'clock in the project's time zone";
        context.report.add(problem.at(&node.place).value(schedule).hint(hint));
    }
}

fn read_stream(entry: &Entry, context: &mut Context<'_>) -> Option<Stream> {
    let name = StreamName::new(&entry.key).ok()?;
    let node = &entry.value;
    let from = node.get("from")?;
    let report = &mut context.report;
    let (connection, spec) = context.connections.find(from, Role::Source, context.registry, report)?;
    let block = ConnectorBlock {
        title: format!("a stream from `{}`", spec.name),
        at: &entry.key_place,
        entries: node.entries().iter().filter(|entry| STREAM.key(&entry.key).is_none()).collect(),
        our_keys: STREAM.key_names(),
        may_hold_secrets: false,
        schema: (spec.stream_schema)(),
        check: spec.check_stream,
    };
    let settings = block.read(report);
    let from = connection.name.clone();
    let sees_deletes = (spec.sees_deletes)(&settings);
    let is_incremental = settings.get("cursor").is_some_and(|cursor| !cursor.is_null());
    let key = node.get("key").map(Node::texts).unwrap_or_default();
    if is_incremental && key.is_empty() {
        let message = format!("stream `{name}` has a `cursor` but no `key`");
        let problem = Problem::new(Code::MISSING_KEY, message).at(&entry.key_place);
        context.report.add(problem.hint("changes are merged into the last image by `key`"));
    }
    let deletes = read_deletes(node, sees_deletes, spec.name, context);
    let columns = read_columns(node.get("columns"));
    let may_be_empty = node.get("may_be_empty").is_some_and(|node| node.to_json() == true);
    Some(Stream { name, from, settings, key, deletes, columns, is_incremental, may_be_empty })
}

fn read_deletes(stream: &Node, sees_deletes: bool, connector: &str, context: &mut Context<'_>) -> Deletes {
    let Some(node) = stream.get("deletes") else {
        return if sees_deletes { Deletes::Seen } else { Deletes::Unseen };
    };
    match node.text() {
        Some("seen") if !sees_deletes => {
            let message = format!("`deletes: seen`, but `{connector}` cannot see deleted rows with these settings");
            let problem = Problem::new(Code::UNSAFE_COMBINATION, message).at(&node.place).value("seen");
            context.report.add(problem.hint("use `by_reconcile` or `unseen`, or read the whole stream each time"));
            Deletes::Seen
        }
        Some("seen") => Deletes::Seen,
        Some("by_reconcile") => Deletes::ByReconcile,
        _ => Deletes::Unseen,
    }
}

fn read_columns(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.map_or(&[][..], Node::entries).iter();
    entries.filter_map(|entry| Some((entry.key.clone(), column_type(entry.value.text()?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_types_are_written_one_way() {
        assert_eq!(column_type("decimal(10, 2)"), Some("decimal(10,2)".to_owned()));
        assert_eq!(column_type("timestamp"), Some("timestamp".to_owned()));
        for bad in ["decimal", "decimal(2,10)", "decimal(39,0)", "int", "Date"] {
            assert_eq!(column_type(bad), None, "{bad}");
        }
    }
}
