//! JSON Schema for editors, made from the tables the reader itself uses.
//!
//! A connector's fragments are merged in: its connection block under its name, its stream keys
//! beside ours. Which connector a stream reads from is not visible in a schema, so a stream offers
//! the keys of all of them; the reader is stricter.

use std::collections::{BTreeMap, BTreeSet};

use flowgate_core::connector::ConnectorSpec;
use flowgate_core::name::NAME_LENGTH_MAX;
use serde_json::{Map, Value, json};

use crate::definition::{Block, Key, Kind, Others, Written};
use crate::flow::FLOW;
use crate::flowgate_yaml::{ENVIRONMENT, PROJECT};
use crate::table::TABLE;

/// One schema for each kind of file, by the name it is saved under.
pub fn schema(connectors: &[ConnectorSpec]) -> BTreeMap<String, Value> {
    let files = [
        ("flowgate.schema.json", &PROJECT),
        ("environment.schema.json", &ENVIRONMENT),
        ("flow.schema.json", &FLOW),
        ("table.schema.json", &TABLE),
    ];
    files.into_iter().map(|(name, block)| (name.to_owned(), file_schema(block, connectors))).collect()
}

fn file_schema(block: &Block, connectors: &[ConnectorSpec]) -> Value {
    let mut writer = Writer { connectors, definitions: Map::new() };
    let mut schema = writer.block(block);
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!(block.title));
        if !writer.definitions.is_empty() {
            object.insert("$defs".to_owned(), Value::Object(writer.definitions));
        }
    }
    schema
}

struct Writer<'a> {
    connectors: &'a [ConnectorSpec],
    /// Definitions of the connectors, under names that say whose they are.
    definitions: Map<String, Value>,
}

impl Writer<'_> {
    fn block(&mut self, block: &Block) -> Value {
        let mut properties: Map<String, Value> =
            block.keys.iter().map(|key| (key.name.to_owned(), self.key(key))).collect();
        let mut others = Value::Bool(false);
        match block.others {
            Others::None => {}
            Others::Free(kind) => others = self.kind(kind),
            Others::Connector => self.add_connections(&mut properties),
            Others::ConnectorKeys => self.add_stream_keys(&mut properties),
        }
        let required: Vec<&str> = block.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": others,
        })
    }

    fn key(&mut self, key: &Key) -> Value {
        let mut schema = self.kind(&key.kind);
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), json!(key.doc));
        }
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Text => json!({ "type": "string" }),
            Kind::Name => or_variable(&name_schema()),
            Kind::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Kind::Boolean => or_variable(&json!({ "type": "boolean" })),
            Kind::Whole { min, max } => or_variable(&json!({ "type": "integer", "minimum": min, "maximum": max })),
            Kind::Number => or_variable(&json!({ "type": "number" })),
            Kind::Written(written) => or_variable(&written_schema(written)),
            Kind::Word(words) => {
                let words: Vec<Value> =
                    words.iter().map(|word| json!({ "const": word.name, "description": word.doc })).collect();
                or_variable(&json!({ "oneOf": words }))
            }
            Kind::List(kind) => json!({ "type": "array", "items": self.kind(kind), "minItems": 1 }),
            Kind::Map(kind) => json!({ "type": "object", "additionalProperties": self.kind(kind) }),
            Kind::Named(kind) => {
                json!({ "type": "object", "additionalProperties": self.kind(kind), "propertyNames": name_schema() })
            }
            Kind::Block(block) => self.block(block),
            Kind::Either(kinds) => {
                json!({ "anyOf": kinds.iter().map(|kind| self.kind(kind)).collect::<Vec<_>>() })
            }
        }
    }

    fn add_connections(&mut self, properties: &mut Map<String, Value>) {
        for spec in self.connectors {
            let mut schema = self.adopt(spec, "connection", (spec.connection_schema)());
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".to_owned(), json!(spec.summary));
            }
            properties.insert(spec.name.to_owned(), schema);
        }
    }

    /// The stream keys of all connectors; one that several share takes what any of them takes.
    fn add_stream_keys(&mut self, properties: &mut Map<String, Value>) {
        let ours: BTreeSet<String> = properties.keys().cloned().collect();
        let mut merged: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for spec in self.connectors.iter().filter(|spec| spec.is_source) {
            let schema = self.adopt(spec, "stream", (spec.stream_schema)());
            let keys = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (key, value) in keys.filter(|(key, _)| !ours.contains(*key)) {
                let known = merged.entry(key.clone()).or_default();
                if !known.contains(value) {
                    known.push(value.clone());
                }
            }
        }
        for (key, mut schemas) in merged {
            let schema = if schemas.len() == 1 { schemas.remove(0) } else { json!({ "anyOf": schemas }) };
            properties.insert(key, schema);
        }
    }

    /// Moves a fragment's definitions to the top, under a name of their own, and its references along.
    fn adopt(&mut self, spec: &ConnectorSpec, part: &str, mut fragment: Value) -> Value {
        let prefix = format!("{}_{part}_", spec.name);
        rename_references(&mut fragment, &prefix);
        let Some(object) = fragment.as_object_mut() else { return fragment };
        object.remove("$schema");
        object.remove("title");
        if let Some(Value::Object(definitions)) = object.remove("$defs") {
            for (name, definition) in definitions {
                self.definitions.insert(format!("{prefix}{name}"), definition);
            }
        }
        fragment
    }
}

fn rename_references(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                let target = value.as_str().and_then(|text| text.strip_prefix("#/$defs/"));
                match target {
                    Some(name) if key == "$ref" => *value = json!(format!("#/$defs/{prefix}{name}")),
                    _ => rename_references(value, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, prefix)),
        _ => {}
    }
}

fn name_schema() -> Value {
    json!({ "type": "string", "pattern": format!("^[a-z][a-z0-9_]{{0,{}}}$", NAME_LENGTH_MAX - 1) })
}

fn written_schema(written: &Written) -> Value {
    let text = json!({ "type": "string", "pattern": written.pattern });
    if written.may_be_number { json!({ "anyOf": [{ "type": "number" }, text] }) } else { text }
}

/// A value that may also come from a variable.
fn or_variable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": r"\$\{var:" }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks below a kind, each with its schema.
    fn blocks<'s>(kind: &'static Kind, schema: &'s Value) -> Vec<(&'static Block, &'s Value)> {
        match kind {
            Kind::Block(block) => vec![(block, schema)],
            Kind::List(kind) => blocks(kind, &schema["items"]),
            Kind::Map(kind) | Kind::Named(kind) => blocks(kind, &schema["additionalProperties"]),
            Kind::Either(kinds) => {
                let schemas = schema["anyOf"].as_array().unwrap();
                kinds.iter().zip(schemas).flat_map(|(kind, schema)| blocks(kind, schema)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Compares a block with its schema, all the way down, and counts the keys.
    fn compare(block: &'static Block, schema: &Value) -> usize {
        let properties = schema["properties"].as_object().unwrap();
        let mut names = block.key_names();
        names.sort_unstable();
        assert!(properties.keys().map(String::as_str).eq(names), "{}", block.title);
        let mut below: Vec<(&Block, &Value)> =
            block.keys.iter().flat_map(|key| blocks(&key.kind, &properties[key.name])).collect();
        if let Others::Free(kind) = block.others {
            below.extend(blocks(kind, &schema["additionalProperties"]));
        }
        block.keys.len() + below.into_iter().map(|(block, schema)| compare(block, schema)).sum::<usize>()
    }

    #[test]
    fn every_key_of_the_reader_is_in_the_schema_and_no_other() {
        let schemas = schema(&[]);
        let files = [("flowgate", &PROJECT), ("environment", &ENVIRONMENT), ("flow", &FLOW), ("table", &TABLE)];
        let keys: usize =
            files.iter().map(|(name, block)| compare(block, &schemas[&format!("{name}.schema.json")])).sum();
        assert!(keys > 60, "only {keys} keys were compared");
    }
}
