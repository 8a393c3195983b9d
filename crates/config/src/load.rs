//! A load: where rows go, the SELECT that makes them, and what may happen to rows that are gone.
//!
//! `missing:` other than `keep` turns absence into deletion. It is refused when a stream that the
//! SELECT may use has `deletes: unseen`, because absence from such a stream means nothing. A stream
//! whose name occurs nowhere in the SELECT's text cannot be used by it; every other one counts, with
//! or without a driver, since a join can lose rows through any of its sides.

use std::collections::BTreeMap;

use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::project::{DeletedThere, Deletes, Load, Missing, Sql, Stream};
use flowgate_core::{Code, LoadName, StreamName};

use crate::connection::Role;
use crate::context::Context;
use crate::definition::{Block, Key, Kind, TEXTS, Word};
use crate::flow::FlowFile;
use crate::node::{Entry, Node};
use crate::report::{Problem, Report};
use crate::rules::{self, CHECK, COLUMN, GUARDS, HISTORY, LOOKUP, STATE};
use crate::select::read_select;

pub(crate) static LOAD: Block = Block::of(
    "a load",
    &[
        Key::required("into", Kind::Text, "the connection it writes to"),
        Key::required("table", Kind::Text, "the destination table, by its logical name"),
        Key::required(
            "select",
            Kind::Text,
            "one SELECT, or the name of a `.sql` file beside the flow; its columns are the table's columns",
        ),
        Key::required(
            "match",
            TEXTS,
            "the columns that find a row: an alternate key, unique columns or the primary id",
        ),
        Key::optional("driver", Kind::Name, "the stream whose rows must all be represented"),
        Key::optional("latest_by", Kind::Text, "of rows with one key, the greatest value of this column wins"),
        Key::optional("lookups", Kind::Map(&Kind::Block(&LOOKUP)), "how values of lookup columns find their rows"),
        Key::optional("columns", Kind::Map(&Kind::Block(&COLUMN)), "rules for single columns"),
        Key::optional("state", Kind::Block(&STATE), "the status a row should be in, by the value of one column"),
        Key::optional("history", Kind::Block(&HISTORY), "dates and logic of a migration"),
        Key::optional(
            "missing",
            Kind::Word(&[
                Word { name: "keep", doc: "they stay as they are (the default)" },
                Word { name: "deactivate", doc: "they are made inactive" },
                Word { name: "delete", doc: "they are deleted" },
            ]),
            "what happens to rows that the SELECT no longer returns",
        ),
        Key::optional(
            "shares_table",
            Kind::Boolean,
            "`true`: other loads write this table too; a row that one of them keeps is not deleted or deactivated by this one",
        ),
        Key::optional(
            "deleted_there",
            Kind::Word(&[
                Word { name: "quarantine", doc: "the row becomes a letter (the default)" },
                Word { name: "recreate", doc: "the row is created again" },
            ]),
            "what happens to a changed row that was deleted at the destination",
        ),
        Key::optional("guards", Kind::Block(&GUARDS), "limits beyond which nothing is sent"),
        Key::optional("checks", Kind::List(&Kind::Block(&CHECK)), "conditions; rows that fail one become letters"),
    ],
);

/// Reads a load whose form has been checked.
pub(crate) fn read_load(
    entry: &Entry,
    file: &FlowFile,
    streams: &BTreeMap<StreamName, Stream>,
    context: &mut Context<'_>,
) -> Option<Load> {
    let node = &entry.value;
    let into = node.get("into").and_then(|into| {
        let found = context.connections.find(into, Role::Destination, context.registry, &mut context.report);
        found.map(|(connection, _)| connection.name.clone())
    });
    let sql = node.get("select").and_then(|select| read_select(select, &file.path, context));
    let report = &mut context.report;
    let driver = read_driver(node, file, report);
    let match_columns = read_match(node, report);
    let lookups = rules::read_lookups(node.get("lookups"), report);
    let state = node.entry("state").and_then(|state| rules::read_state(state, report));
    let checks = rules::read_checks(node.get("checks"), report);
    let missing = read_missing(node, sql.as_ref(), streams, report);
    Some(Load {
        name: LoadName::new(&entry.key).ok()?,
        into: into?,
        table: node.get("table")?.text()?.to_owned(),
        sql: sql?,
        driver,
        match_columns,
        latest_by: node.get("latest_by").and_then(Node::text).map(str::to_owned),
        lookups,
        columns: rules::read_columns(node.get("columns")),
        state,
        history: node.get("history").map(rules::read_history),
        missing,
        shares_table: node.get("shares_table").is_some_and(|node| node.to_json() == true),
        deleted_there: match node.get("deleted_there").and_then(Node::text) {
            Some("recreate") => DeletedThere::Recreate,
            _ => DeletedThere::Quarantine,
        },
        guards: rules::read_guards(node.get("guards")),
        checks,
    })
}

fn read_driver(node: &Node, file: &FlowFile, report: &mut Report) -> Option<StreamName> {
    let driver = node.get("driver")?;
    let name = driver.text()?;
    let streams: Vec<&str> =
        file.root.get("streams").map_or(&[][..], Node::entries).iter().map(|entry| entry.key.as_str()).collect();
    if !streams.contains(&name) {
        let message = format!("driver `{name}` is not a stream of this flow");
        let problem = Problem::new(Code::UNKNOWN_REFERENCE, message).at(&driver.place).value(name);
        let problem = problem.nearest(nearest(name, streams.iter().copied()));
        report.add(problem.hint(format!("streams: {}", quoted_list(streams))));
    }
    StreamName::new(name).ok()
}

fn read_match(node: &Node, report: &mut Report) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for item in node.get("match").map_or(&[][..], Node::items) {
        let Some(column) = item.text() else { continue };
        if columns.iter().any(|known| known == column) {
            let message = format!("column `{column}` stands twice in `match`");
            report.add(Problem::new(Code::DUPLICATE_NAME, message).at(&item.place).value(column));
            continue;
        }
        columns.push(column.to_owned());
    }
    columns
}

fn read_missing(
    node: &Node,
    sql: Option<&Sql>,
    streams: &BTreeMap<StreamName, Stream>,
    report: &mut Report,
) -> Missing {
    let missing = match node.get("missing").and_then(Node::text) {
        Some("deactivate") => Missing::Deactivate,
        Some("delete") => Missing::Delete,
        _ => return Missing::Keep,
    };
    let (Some(entry), Some(sql)) = (node.entry("missing"), sql) else { return missing };
    let word = entry.value.text().unwrap_or_default();
    for stream in streams.values().filter(|stream| has_word(&sql.text, stream.name.as_str())) {
        let name = &stream.name;
        match stream.deletes {
            Deletes::Seen => {}
            Deletes::Unseen => {
                let message = format!("`missing: {word}`, but stream `{name}` does not see deletes");
                let problem = Problem::new(Code::UNSAFE_COMBINATION, message).at(&entry.value.place).value(word);
                report.add(problem.hint(format!(
                    "a row that is not in `{name}` may still exist: use `missing: keep`, or set `deletes: seen` on \
                     the stream if every read returns all of its rows"
                )));
            }
            Deletes::ByReconcile => {
                let message = format!("`missing: {word}` acts on stream `{name}` only after a reconciling read");
                report.add(Problem::warning(Code::UNSAFE_COMBINATION, message).at(&entry.value.place).value(word));
            }
        }
    }
    missing
}

/// Whether a name stands in a SQL text as a word, in any case.
fn has_word(sql: &str, name: &str) -> bool {
    let sql = sql.to_lowercase();
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    sql.match_indices(name).any(|(at, _)| {
        let before = sql[..at].chars().next_back();
        let after = sql[at + name.len()..].chars().next();
        !is_part(before) && !is_part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_used_only_where_its_name_stands() {
        assert!(has_word("SELECT * FROM Enquiry e", "enquiry"));
        assert!(has_word("select \"enquiry\".x", "enquiry"));
        assert!(!has_word("SELECT enquiry_id FROM old_enquiry", "enquiry"));
    }
}
