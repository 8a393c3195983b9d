//! Holds a file against its definition: unknown and missing keys, values of the wrong kind.
//!
//! After this the readers of single blocks need not complain about forms again: a value that is
//! not of its kind was reported here, and they pass it over.

use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::{Code, FlowName};
use serde_json::Value;

use crate::definition::{Block, Form, Key, Kind, Others, Word, Written};
use crate::node::{Data, Entry, Node};
use crate::place::Place;
use crate::report::{Problem, Report};

/// Checks a whole file against the block that describes it.
pub(crate) fn check_file(root: &Node, block: &'static Block, report: &mut Report) {
    if matches!(root.data, Data::Map(_)) {
        return check_block(root, block, &root.place, report);
    }
    let message = format!("expected {} as a block of keys, found {}", block.title, root.found());
    report.add(Problem::new(Code::WRONG_TYPE, message).at(&root.place));
}

/// `at` is where the block is named, for keys that are missing.
fn check_block(node: &Node, block: &'static Block, at: &Place, report: &mut Report) {
    // Required keys that an unknown one was meant to be, or is there instead of.
    let mut excused: Vec<String> = Vec::new();
    for entry in node.entries() {
        match (block.key(&entry.key), block.others) {
            (Some(key), _) => check_value(entry, &key.kind, report),
            (None, Others::Free(kind)) => check_value(entry, kind, report),
            (None, Others::None) => {
                let problem = unknown_key(entry, block);
                excused.extend(problem.nearest.clone());
                if problem.code == Code::NOT_SUPPORTED {
                    excused.extend(block.key_names().into_iter().map(str::to_owned));
                }
                report.add(problem);
            }
            // Only the registry knows these: `connector_block` checks them.
            (None, Others::Connector | Others::ConnectorKeys) => {}
        }
    }
    let is_missing = |key: &Key| key.is_required && node.entry(key.name).is_none();
    for key in block.keys.iter().filter(|key| is_missing(key) && !excused.iter().any(|name| name == key.name)) {
        let message = format!("{} needs `{}`", block.title, key.name);
        report.add(Problem::new(Code::MISSING_KEY, message).at(at).hint(format!("`{}`: {}", key.name, key.doc)));
    }
}

fn unknown_key(entry: &Entry, block: &'static Block) -> Problem {
    if let Some(refused) = block.refused.iter().find(|word| word.name == entry.key) {
        let message = format!("`{}` is not supported in this version", entry.key);
        return Problem::new(Code::NOT_SUPPORTED, message).at(&entry.key_place).value(&entry.key).hint(refused.doc);
    }
    unknown_key_among(entry, block.title, &block.key_names())
}

/// The problem of a key that is none of `valid`.
pub(crate) fn unknown_key_among(entry: &Entry, title: &str, valid: &[&str]) -> Problem {
    let near = nearest(&entry.key, valid.iter().copied());
    let message = format!("unknown key `{}` in {title}", entry.key);
    let problem = Problem::new(Code::UNKNOWN_KEY, message).at(&entry.key_place).value(&entry.key);
    match near {
        Some(near) => problem.nearest(Some(near)),
        None => problem.hint(format!("valid keys: {}", quoted_list(valid.iter().copied()))),
    }
}

fn check_value(entry: &Entry, kind: &'static Kind, report: &mut Report) {
    check_kind(&entry.value, kind, &Named { key: &entry.key, place: &entry.key_place }, report);
}

/// The key that a value belongs to.
struct Named<'a> {
    key: &'a str,
    place: &'a Place,
}

fn check_kind(node: &Node, kind: &'static Kind, named: &Named<'_>, report: &mut Report) {
    match (kind, &node.data) {
        (Kind::Either(kinds), _) => {
            let form = form_of(node);
            match kinds.iter().find(|kind| kind.form() == form && !node.is_null()) {
                Some(kind) => check_kind(node, kind, named, report),
                None => report.add(wrong_type(node, kind, named)),
            }
        }
        (Kind::List(kind), Data::List(items)) => {
            if items.is_empty() {
                let message = format!("`{}` is an empty list", named.key);
                report.add(Problem::new(Code::WRONG_TYPE, message).at(&node.place).hint("leave the key out instead"));
            }
            for item in items {
                check_kind(item, kind, named, report);
            }
        }
        (Kind::Map(kind), Data::Map(entries)) => {
            for entry in entries {
                check_value(entry, kind, report);
            }
        }
        (Kind::Named(kind), Data::Map(entries)) => {
            for entry in entries {
                check_name(&entry.key, &entry.key_place, report);
                check_value(entry, kind, report);
            }
        }
        (Kind::Block(block), Data::Map(_)) => check_block(node, block, named.place, report),
        (kind, Data::Scalar { .. }) if kind.form() == Form::Scalar && !node.is_null() => {
            check_scalar(node, kind, named, report);
        }
        _ => report.add(wrong_type(node, kind, named)),
    }
}

fn form_of(node: &Node) -> Form {
    match node.data {
        Data::Scalar { .. } => Form::Scalar,
        Data::List(_) => Form::List,
        Data::Map(_) => Form::Block,
    }
}

fn check_scalar(node: &Node, kind: &'static Kind, named: &Named<'_>, report: &mut Report) {
    let text = node.text().unwrap_or_default();
    let value = node.to_json();
    let is_valid = match kind {
        Kind::Name => return check_name(text, &node.place, report),
        Kind::Word(words) => return check_word(node, text, words, named, report),
        Kind::Text => value.is_string(),
        Kind::Scalar => true,
        Kind::Boolean => value.is_boolean(),
        Kind::Whole { min, max } => value.as_u64().is_some_and(|number| (min..=max).contains(&&number)),
        Kind::Number => value.is_number(),
        Kind::Written(written) => is_written(text, &value, written),
        _ => false,
    };
    if !is_valid {
        report.add(wrong_type(node, kind, named));
    }
}

fn is_written(text: &str, value: &Value, written: &Written) -> bool {
    (written.may_be_number || value.is_string()) && (written.accepts)(text)
}

fn check_name(text: &str, place: &Place, report: &mut Report) {
    if let Err(error) = FlowName::new(text) {
        report.add(Problem::new(Code::WRONG_TYPE, error.to_string()).at(place).value(text));
    }
}

fn check_word(node: &Node, text: &str, words: &'static [Word], named: &Named<'_>, report: &mut Report) {
    if words.iter().any(|word| word.name == text) {
        return;
    }
    let near = nearest(text, words.iter().map(|word| word.name));
    let mut problem = wrong_type(node, &Kind::Word(words), named).nearest(near);
    for word in words {
        problem = problem.hint(format!("`{}`: {}", word.name, word.doc));
    }
    report.add(problem);
}

fn wrong_type(node: &Node, kind: &Kind, named: &Named<'_>) -> Problem {
    let message = format!("`{}` must be {}, found {}", named.key, kind.describe(), node.found());
    let place = if node.is_null() { named.place } else { &node.place };
    let mut problem = Problem::new(Code::WRONG_TYPE, message).at(place);
    if let Some(text) = node.text() {
        problem = problem.value(text);
        if text.contains('(') && !text.contains(')') {
            problem = problem.hint("inside `{ }` or `[ ]`, a value that holds a comma needs quotes");
        }
        if matches!(kind, Kind::Text) {
            problem = problem.hint(format!("put it in quotes if it is meant as text: `\"{text}\"`"));
        }
    }
    problem
}
