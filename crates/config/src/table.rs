//! `tables/*.yaml`: tables, columns and keys that `flowgate provision` may create.

use std::collections::BTreeMap;

use flowgate_core::Code;
use flowgate_core::project::{ColumnSpec, ColumnSpecKind, TableSpec};

use crate::connection::Role;
use crate::context::Context;
use crate::definition::{Block, Key, Kind, TEXTS, Written};
use crate::node::{Entry, Node};
use crate::report::{Problem, Report};

/// Columns of one alternate key, as the service allows.
const KEY_COLUMNS_MAX: usize = 16;

pub(crate) static TABLE: Block = Block::of(
    "a table",
    &[
        Key::required("table", Kind::Name, "the logical name, with the publisher's prefix: `wr_asset`"),
        Key::required("in", Kind::Text, "the connection whose table it is"),
        Key::optional("display", Kind::List(&Kind::Text), "singular and plural names; needed to create the table"),
        Key::optional(
            "primary_name",
            Kind::Named(&Kind::Whole { min: 1, max: 4_000 }),
            "the column that names a row, and its length: `{ wr_name: 200 }`; needed to create the table",
        ),
        Key::optional(
            "change_tracking",
            Kind::Boolean,
            "whether changes of the table are tracked; `false` if left out",
        ),
        Key::optional(
            "columns",
            Kind::Named(&Kind::Either(&[Kind::Written(&COLUMN_TYPE), Kind::Block(&COLUMN)])),
            "columns by their logical names, each with its type",
        ),
        Key::optional("keys", Kind::Named(&TEXTS), "alternate keys: name to columns"),
    ],
);

static COLUMN: Block = Block::of(
    "a column",
    &[
        Key::optional("type", Kind::Written(&COLUMN_TYPE), "the type, when `display` is wanted too"),
        Key::optional("memo", Kind::Whole { min: 1, max: 1_048_576 }, "a long text, and its length"),
        Key::optional("choice", Kind::List(&Kind::Text), "the labels of a choice, in order"),
        Key::optional("lookup", Kind::Text, "the table that the column refers to"),
        Key::optional("display", Kind::Text, "the name people see; made from the logical name if left out"),
    ],
);

static COLUMN_TYPE: Written = Written {
    expected: "a column type: `text(100)`, `memo(2000)`, `integer`, `bigint`, `decimal(2)`, `double(5)`, `money`, \
               `boolean`, `date` or `datetime`",
    pattern: r"^(integer|bigint|money|boolean|date|datetime|(text|memo|decimal|double)\([0-9]+\))$",
    accepts: |text| column_kind(text).is_some(),
    may_be_number: false,
};

fn column_kind(text: &str) -> Option<ColumnSpecKind> {
    let kind = match text {
        "integer" => ColumnSpecKind::Integer,
        "bigint" => ColumnSpecKind::BigInteger,
        "money" => ColumnSpecKind::Money,
        "boolean" => ColumnSpecKind::Boolean,
        "date" => ColumnSpecKind::Date,
        "datetime" => ColumnSpecKind::DateTime,
        _ => return sized_kind(text),
    };
    Some(kind)
}

/// The limits are those of the service's own forms.
fn sized_kind(text: &str) -> Option<ColumnSpecKind> {
    let (word, size) = text.strip_suffix(')')?.split_once('(')?;
    let size: u32 = size.trim().parse().ok()?;
    match (word, size) {
        ("text", 1..=4_000) => Some(ColumnSpecKind::Text { length: size }),
        ("memo", 1..=1_048_576) => Some(ColumnSpecKind::Memo { length: size }),
        ("decimal", 0..=10) => Some(ColumnSpecKind::Decimal { scale: size as u8 }),
        ("double", 0..=5) => Some(ColumnSpecKind::Double { precision: size as u8 }),
        _ => None,
    }
}

/// Reads a table whose form has been checked.
pub(crate) fn read_table(root: &Node, context: &mut Context<'_>) -> Option<TableSpec> {
    let connection = root.get("in").and_then(|into| {
        let found = context.connections.find(into, Role::Destination, context.registry, &mut context.report);
        found.map(|(connection, _)| connection.name.clone())
    });
    let report = &mut context.report;
    let display = read_display(root, report);
    let primary_name = read_primary_name(root, report);
    if display.is_some() != primary_name.is_some() {
        let (has, lacks) = if display.is_some() { ("display", "primary_name") } else { ("primary_name", "display") };
        let message = format!("a table with `{has}` needs `{lacks}` too");
        let place = root.entry(has).map_or(&root.place, |entry| &entry.key_place);
        let problem = Problem::new(Code::MISSING_KEY, message).at(place);
        report.add(problem.hint("both are needed to create a table; leave both out for one that exists"));
    }
    let entries = root.get("columns").map_or(&[][..], Node::entries);
    let table = root.get("table").and_then(Node::text).unwrap_or_default();
    let names = root.get("primary_name").map_or(&[][..], Node::entries).iter().chain(entries);
    names.for_each(|entry| refuse_reserved(table, entry, report));
    let columns = entries.iter().filter_map(|entry| read_column(entry, report)).collect();
    let keys = read_keys(root, report);
    Some(TableSpec {
        table: root.get("table")?.text()?.to_owned(),
        connection: connection?,
        display,
        primary_name,
        change_tracking: root.get("change_tracking").is_some_and(|node| node.to_json() == true),
        columns,
        keys,
    })
}

/// Columns that the service gives every table.
const RESERVED_COLUMNS: [&str; 16] = [
    "createdby",
    "createdon",
    "createdonbehalfby",
    "importsequencenumber",
    "modifiedby",
    "modifiedon",
    "modifiedonbehalfby",
    "overriddencreatedon",
    "ownerid",
    "owningbusinessunit",
    "owningteam",
    "owninguser",
    "statecode",
    "statuscode",
    "timezoneruleversionnumber",
    "versionnumber",
];

/// A column with the name of one that is there anyway would never be made, and loads would fill the other one.
fn refuse_reserved(table: &str, entry: &Entry, report: &mut Report) {
    let name = entry.key.to_lowercase();
    let message = if name == format!("{}id", table.to_lowercase()) {
        format!("column `{}` has the name of the primary id of `{table}`", entry.key)
    } else if RESERVED_COLUMNS.contains(&name.as_str()) {
        format!("column `{}` has the name of one that every table has", entry.key)
    } else {
        return;
    };
    let problem = Problem::new(Code::RESERVED_COLUMN, message).at(&entry.key_place).value(&entry.key);
    report.add(problem.hint("give it another name"));
}

fn read_display(root: &Node, report: &mut Report) -> Option<[String; 2]> {
    let node = root.get("display")?;
    match <[String; 2]>::try_from(node.texts()) {
        Ok(names) => Some(names),
        Err(names) => {
            let message = format!("`display` must be a singular and a plural name, found {} names", names.len());
            let problem = Problem::new(Code::WRONG_TYPE, message).at(&node.place);
            report.add(problem.hint("for example `display: [Asset, Assets]`"));
            None
        }
    }
}

fn read_primary_name(root: &Node, report: &mut Report) -> Option<(String, u32)> {
    let node = root.get("primary_name")?;
    match node.entries() {
        [entry] => Some((entry.key.clone(), u32::try_from(entry.value.to_json().as_u64()?).ok()?)),
        entries => {
            let message = format!("`primary_name` must be one column, found {}", entries.len());
            let problem = Problem::new(Code::WRONG_TYPE, message).at(&node.place);
            report.add(problem.hint("for example `primary_name: { wr_name: 200 }`"));
            None
        }
    }
}

fn read_column(entry: &Entry, report: &mut Report) -> Option<ColumnSpec> {
    let node = &entry.value;
    let display = node.get("display").and_then(Node::text).map(str::to_owned);
    let mut kinds: Vec<ColumnSpecKind> = Vec::new();
    kinds.extend(node.text().and_then(column_kind));
    kinds.extend(node.get("type").and_then(Node::text).and_then(column_kind));
    if let Some(length) = node.get("memo").and_then(|memo| memo.to_json().as_u64()) {
        kinds.push(ColumnSpecKind::Memo { length: length as u32 });
    }
    if let Some(choice) = node.get("choice") {
        kinds.push(ColumnSpecKind::Choice { labels: choice.texts() });
    }
    if let Some(target) = node.get("lookup").and_then(Node::text) {
        kinds.push(ColumnSpecKind::Lookup { target: target.to_owned() });
    }
    if kinds.len() != 1 && !node.entries().is_empty() {
        let message = format!("column `{}` must have one type, found {}", entry.key, kinds.len());
        let problem = Problem::new(Code::WRONG_TYPE, message).at(&entry.key_place);
        report.add(problem.hint("give one of `type`, `memo`, `choice` and `lookup`"));
    }
    Some(ColumnSpec { name: entry.key.clone(), display, kind: kinds.pop()? })
}

fn read_keys(root: &Node, report: &mut Report) -> BTreeMap<String, Vec<String>> {
    let mut keys = BTreeMap::new();
    for entry in root.get("keys").map_or(&[][..], Node::entries) {
        let columns = entry.value.texts();
        if columns.len() > KEY_COLUMNS_MAX {
            let message = format!("key `{}` has {} columns, more than {KEY_COLUMNS_MAX}", entry.key, columns.len());
            report.add(Problem::new(Code::WRONG_TYPE, message).at(&entry.key_place));
        }
        keys.insert(entry.key.clone(), columns);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_types_carry_their_size() {
        assert_eq!(column_kind("text(10)"), Some(ColumnSpecKind::Text { length: 10 }));
        assert_eq!(column_kind("decimal(2)"), Some(ColumnSpecKind::Decimal { scale: 2 }));
        for bad in ["text", "text(0)", "text(4001)", "decimal(11)", "integer(4)", "lookup(account)"] {
            assert_eq!(column_kind(bad), None, "{bad}");
        }
    }
}
