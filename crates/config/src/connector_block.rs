//! Hands a connector's keys to the connector, and brings its answer back to file and line.
//!
//! Keys that its schema does not know are found here, because only here the nearest valid key can
//! be named over our keys and the connector's together. Everything else its own struct decides.

use flowgate_core::Code;
use flowgate_core::connector::FieldError;
use serde_json::Value;

use crate::check::unknown_key_among;
use crate::node::{Data, Entry, Node};
use crate::place::Place;
use crate::report::{Problem, Report};

/// The connector's half of a block.
pub(crate) struct ConnectorBlock<'a> {
    /// "a stream from `files`"
    pub(crate) title: String,
    /// Where the block is named.
    pub(crate) at: &'a Place,
    pub(crate) entries: Vec<&'a Entry>,
    /// Keys of ours in the same block.
    pub(crate) our_keys: Vec<&'static str>,
    /// A value may be a secret written out, and is not repeated.
    pub(crate) may_hold_secrets: bool,
    pub(crate) schema: Value,
    pub(crate) check: fn(&Value) -> Result<(), Vec<FieldError>>,
}

impl ConnectorBlock<'_> {
    /// The connector's settings, after its own check.
    pub(crate) fn read(&self, report: &mut Report) -> Value {
        let known = known_keys(&self.schema);
        let mut settings = serde_json::Map::new();
        for entry in &self.entries {
            match &known {
                Some(known) if !known.contains(&entry.key) => {
                    let theirs = known.iter().map(String::as_str);
                    let valid: Vec<&str> = self.our_keys.iter().copied().chain(theirs).collect();
                    report.add(unknown_key_among(entry, &self.title, &valid));
                }
                _ => {
                    settings.insert(entry.key.clone(), entry.value.to_json());
                }
            }
        }
        let settings = Value::Object(settings);
        if let Err(errors) = (self.check)(&settings) {
            for error in &errors {
                report.add(self.problem(error));
            }
        }
        settings
    }

    fn problem(&self, error: &FieldError) -> Problem {
        let found = self.locate(&error.path);
        let is_about_a_key = matches!(error.code, Code::UNKNOWN_KEY | Code::MISSING_KEY);
        let place = match &found {
            Found::Value(node, key_place) if is_about_a_key || is_long(node) => *key_place,
            Found::Value(node, _) => &node.place,
            Found::Absent(place) => *place,
        };
        let mut problem = Problem::new(error.code, format!("{}: {}", self.title, error.message)).at(place);
        if let Found::Value(node, _) = found {
            problem.value = node.text().filter(|_| !self.may_hold_secrets).map(str::to_owned);
        }
        problem.hints.extend(error.hint.clone());
        problem
    }

    /// The value a path leads to, or the innermost block on the way to where it should be.
    fn locate<'b>(&'b self, path: &[String]) -> Found<'b> {
        let Some((first, rest)) = path.split_first() else { return Found::Absent(self.at) };
        let Some(entry) = self.entries.iter().find(|entry| &entry.key == first) else {
            return Found::Absent(self.at);
        };
        let (mut node, mut key_place) = (&entry.value, &entry.key_place);
        for step in rest {
            match child(node, step) {
                Some((next, place)) => (node, key_place) = (next, place),
                None => return Found::Absent(key_place),
            }
        }
        Found::Value(node, key_place)
    }
}

enum Found<'a> {
    Value(&'a Node, &'a Place),
    Absent(&'a Place),
}

fn is_long(node: &Node) -> bool {
    matches!(node.data, Data::Map(_)) || node.is_null()
}

fn child<'a>(node: &'a Node, step: &str) -> Option<(&'a Node, &'a Place)> {
    if let Data::List(items) = &node.data {
        let item = items.get(step.parse::<usize>().ok()?)?;
        return Some((item, &item.place));
    }
    node.entry(step).map(|entry| (&entry.value, &entry.key_place))
}

/// The keys a schema allows at its top, when it allows no others.
pub(crate) fn known_keys(schema: &Value) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut is_closed = false;
    collect_keys(schema, schema, &mut keys, &mut is_closed, 0);
    keys.sort();
    keys.dedup();
    is_closed.then_some(keys)
}

fn collect_keys(root: &Value, schema: &Value, keys: &mut Vec<String>, is_closed: &mut bool, depth: usize) {
    // References may lead in a circle; a schema this deep is no block a person writes.
    const DEPTH_MAX: usize = 8;
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    for closing in ["additionalProperties", "unevaluatedProperties"] {
        *is_closed |= schema.get(closing) == Some(&Value::Bool(false));
    }
    for branches in ["oneOf", "anyOf", "allOf"] {
        for branch in schema.get(branches).and_then(Value::as_array).into_iter().flatten() {
            collect_keys(root, branch, keys, is_closed, depth + 1);
        }
    }
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    if let Some(target) = target {
        collect_keys(root, target, keys, is_closed, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_known_only_when_the_schema_is_closed() {
        let open = json!({ "properties": { "path": {} } });
        assert_eq!(known_keys(&open), None);
        let closed = json!({
            "$defs": { "url": { "properties": { "url": {} }, "additionalProperties": false } },
            "oneOf": [{ "$ref": "#/$defs/url" }, { "properties": { "emulator": {} } }],
        });
        assert_eq!(known_keys(&closed), Some(vec!["emulator".to_owned(), "url".to_owned()]));
    }
}
