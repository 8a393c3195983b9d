//! The rules inside a load: lookups, columns, state, history, guards and checks.

use std::collections::BTreeMap;

use flowgate_core::Code;
use flowgate_core::key::fold_label;
use flowgate_core::project::{
    Check, ColumnRule, Guards, History, Lookup, LookupRule, Master, Nulls, StateAction, StateRule,
};

use crate::definition::{Block, COUNT_MAX, Key, Kind, Others, TEXTS, Word, Written};
use crate::node::{Entry, Node};
use crate::report::{Problem, Report};

/// The word for a table's primary id in a lookup.
const PRIMARY_ID: &str = "primary_id";

pub(crate) static LOOKUP: Block = Block {
    title: "a lookup",
    keys: &[Key::optional("else", Kind::Scalar, "the value to look up when the row's own is empty or not found")],
    // Table to column, columns, or `primary_id`; several tables are tried in order.
    others: Others::Free(&TEXTS),
    refused: &[],
};

pub(crate) static COLUMN: Block = Block::of(
    "a column rule",
    &[
        Key::optional(
            "nulls",
            Kind::Word(&[
                Word { name: "clear", doc: "a null empties the column (the default)" },
                Word { name: "keep", doc: "a null leaves the value that is there" },
            ]),
            "what a null does to a value that is there",
        ),
        Key::optional(
            "master",
            Kind::Word(&[
                Word { name: "source", doc: "the source decides, always (the default)" },
                Word { name: "destination", doc: "set when the row is created, never changed again" },
                Word { name: "fill_if_empty", doc: "set only while the destination has no value" },
            ]),
            "who decides about the value after the row was created",
        ),
    ],
);

pub(crate) static STATE: Block = Block {
    title: "a state rule",
    keys: &[
        Key::required("column", Kind::Text, "the column of the SELECT whose values choose the action"),
        Key::optional(
            "else",
            Kind::Word(&[
                Word { name: "leave", doc: "the status is left alone (the default)" },
                Word { name: "refuse", doc: "the row is set aside" },
            ]),
            "what happens to a row whose value has no entry; an empty value asks for nothing",
        ),
    ],
    // Value of that column to what it means.
    others: Others::Free(&Kind::Block(&STATE_ACTION)),
    refused: &[],
};

static STATE_ACTION: Block = Block::of(
    "a state action",
    &[
        Key::optional("close", Kind::Text, "close the row by its closing message, with this status label"),
        Key::optional("status", Kind::Text, "set the status with this label"),
    ],
);

pub(crate) static HISTORY: Block = Block::of(
    "history",
    &[
        Key::optional("createdon", Kind::Text, "the column of the SELECT that becomes the date of creation"),
        Key::optional(
            "logic",
            Kind::Word(&[
                Word { name: "run", doc: "custom business logic runs (the default)" },
                Word { name: "bypass", doc: "custom business logic is skipped" },
            ]),
            "whether custom business logic runs for these rows",
        ),
    ],
);

static PERCENT: Written = Written {
    expected: "a percentage from 0 to 100, such as `1` or `0.5%`",
    pattern: r"^[0-9]{1,3}(\.[0-9]+)?%?$",
    accepts: |text| percent(text).is_some(),
    may_be_number: true,
};

const ROWS: Kind = Kind::Whole { min: 0, max: COUNT_MAX };

pub(crate) static GUARDS: Block = Block::of(
    "guards",
    &[
        Key::optional("delete_percent_max", Kind::Written(&PERCENT), "rows that may go, of those in state"),
        Key::optional("delete_max", ROWS, "rows that may go"),
        Key::optional("create_max", ROWS, "rows that may be created"),
        Key::optional("update_percent_max", Kind::Written(&PERCENT), "rows that may change, of those in state"),
        Key::optional("dropped_max", ROWS, "driver rows that the SELECT may leave out"),
        Key::optional("quarantined_percent_max", Kind::Written(&PERCENT), "rows that may be set aside"),
        Key::optional(
            "missing_files_max",
            ROWS,
            "files that the last run read and that may be missing now when rows go with them; none by default",
        ),
    ],
);

pub(crate) static CHECK: Block = Block::of(
    "a check",
    &[
        Key::optional("not_null", TEXTS, "these columns must have a value"),
        Key::optional("unique", TEXTS, "these columns together must tell rows apart"),
        Key::optional("accepted", Kind::Map(&Kind::List(&Kind::Scalar)), "column to the values it may have"),
        Key::optional("range", Kind::Map(&Kind::Block(&RANGE)), "column to the least and the greatest value"),
        Key::optional("that", Kind::Text, "a SQL condition over the prepared columns"),
    ],
);

static RANGE: Block = Block::of(
    "a range",
    &[Key::optional("min", Kind::Number, "the least value"), Key::optional("max", Kind::Number, "the greatest value")],
);

fn percent(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

pub(crate) fn read_lookups(node: Option<&Node>, report: &mut Report) -> BTreeMap<String, Lookup> {
    let entries = node.map_or(&[][..], Node::entries).iter();
    entries.map(|entry| (entry.key.clone(), read_lookup(entry, report))).collect()
}

fn read_lookup(entry: &Entry, report: &mut Report) -> Lookup {
    let mut rules = Vec::new();
    for rule in entry.value.entries().iter().filter(|rule| LOOKUP.key(&rule.key).is_none()) {
        let mut columns = rule.value.texts();
        if columns.iter().any(|column| column == PRIMARY_ID) {
            if columns.len() > 1 {
                let message = format!("`{PRIMARY_ID}` stands alone: an id needs no further columns");
                report.add(Problem::new(Code::WRONG_TYPE, message).at(&rule.value.place));
            }
            columns.clear();
        }
        rules.push(LookupRule { table: rule.key.clone(), columns });
    }
    if rules.is_empty() {
        let message = format!("lookup `{}` names no table", entry.key);
        let hint = format!("for example `{}: {{ account: accountnumber }}`", entry.key);
        report.add(Problem::new(Code::MISSING_KEY, message).at(&entry.key_place).hint(hint));
    }
    Lookup { rules, otherwise: entry.value.get("else").and_then(Node::text).map(str::to_owned) }
}

pub(crate) fn read_columns(node: Option<&Node>) -> BTreeMap<String, ColumnRule> {
    let entries = node.map_or(&[][..], Node::entries).iter();
    let rule = |value: &Node| ColumnRule {
        nulls: match value.get("nulls").and_then(Node::text) {
            Some("keep") => Nulls::Keep,
            _ => Nulls::Clear,
        },
        master: match value.get("master").and_then(Node::text) {
            Some("destination") => Master::Destination,
            Some("fill_if_empty") => Master::FillIfEmpty,
            _ => Master::Source,
        },
    };
    entries.map(|entry| (entry.key.clone(), rule(&entry.value))).collect()
}

pub(crate) fn read_state(entry: &Entry, report: &mut Report) -> Option<StateRule> {
    let column = entry.value.get("column")?.text()?.to_owned();
    let mut actions = BTreeMap::new();
    for action in entry.value.entries().iter().filter(|action| STATE.key(&action.key).is_none()) {
        let is_same = |other: &&String| fold_label(other) == fold_label(&action.key);
        if let Some(other) = actions.keys().find(is_same) {
            let message =
                format!("state `{}` is the same value as `{other}`: case and blanks do not count", action.key);
            report.add(Problem::new(Code::DUPLICATE_NAME, message).at(&action.key_place).value(&action.key));
            continue;
        }
        let text = |key: &str| action.value.get(key).and_then(Node::text).map(str::to_owned);
        match (text("close"), text("status")) {
            (Some(label), None) => actions.insert(action.key.clone(), StateAction::Close(label)),
            (None, Some(label)) => actions.insert(action.key.clone(), StateAction::Status(label)),
            _ => {
                let message = format!("state `{}` must either `close` the row or set its `status`", action.key);
                report.add(Problem::new(Code::WRONG_TYPE, message).at(&action.key_place));
                None
            }
        };
    }
    if entry.value.entries().iter().all(|action| STATE.key(&action.key).is_some()) {
        let problem = Problem::new(Code::MISSING_KEY, "a state rule without a value to act on").at(&entry.key_place);
        report
            .add(problem.hint(format!("for example `Completed: {{ close: Problem Solved }}`, by value of `{column}`")));
    }
    let refuses_others = entry.value.get("else").and_then(Node::text) == Some("refuse");
    Some(StateRule { column, actions, refuses_others })
}

pub(crate) fn read_history(node: &Node) -> History {
    History {
        created_on: node.get("createdon").and_then(Node::text).map(str::to_owned),
        bypass_logic: node.get("logic").and_then(Node::text) == Some("bypass"),
    }
}

pub(crate) fn read_guards(node: Option<&Node>) -> Guards {
    let get = |key: &str| node.and_then(|node| node.get(key));
    let percent = |key: &str| get(key).and_then(Node::text).and_then(percent);
    let rows = |key: &str| get(key).and_then(|value| value.to_json().as_u64());
    Guards {
        delete_percent_max: percent("delete_percent_max"),
        delete_max: rows("delete_max"),
        create_max: rows("create_max"),
        update_percent_max: percent("update_percent_max"),
        dropped_max: rows("dropped_max"),
        quarantined_percent_max: percent("quarantined_percent_max"),
        missing_files_max: rows("missing_files_max"),
    }
}

pub(crate) fn read_checks(node: Option<&Node>, report: &mut Report) -> Vec<Check> {
    let mut checks = Vec::new();
    for item in node.map_or(&[][..], Node::items) {
        if item.entries().len() != 1 {
            let message = format!("a check has one condition, found {}", item.entries().len());
            let problem = Problem::new(Code::WRONG_TYPE, message).at(&item.place);
            report.add(problem.hint("for example `checks: [ { not_null: [title] }, { unique: [number] } ]`"));
        }
        for condition in item.entries() {
            read_check(condition, &mut checks, report);
        }
    }
    checks
}

fn read_check(condition: &Entry, checks: &mut Vec<Check>, report: &mut Report) {
    let value = &condition.value;
    match condition.key.as_str() {
        "not_null" => checks.push(Check::NotNull(value.texts())),
        "unique" => checks.push(Check::Unique(value.texts())),
        "that" => checks.extend(value.text().map(|text| Check::That(text.to_owned()))),
        "accepted" => {
            for entry in value.entries() {
                checks.push(Check::Accepted { column: entry.key.clone(), values: entry.value.texts() });
            }
        }
        "range" => {
            for entry in value.entries() {
                checks.push(read_range(entry, report));
            }
        }
        // Reported as an unknown key before.
        _ => {}
    }
}

fn read_range(entry: &Entry, report: &mut Report) -> Check {
    let number = |key: &str| entry.value.get(key).and_then(|value| value.to_json().as_f64());
    let (min, max) = (number("min"), number("max"));
    let mistake = match (min, max) {
        (None, None) => Some("has neither `min` nor `max`"),
        (Some(min), Some(max)) if min > max => Some("is empty: `min` is greater than `max`"),
        _ => None,
    };
    if let Some(mistake) = mistake {
        let message = format!("the range of `{}` {mistake}", entry.key);
        report.add(Problem::new(Code::WRONG_TYPE, message).at(&entry.key_place));
    }
    Check::Range { column: entry.key.clone(), min, max }
}
