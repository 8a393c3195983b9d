//! A JSON Schema of a block as a table of its keys.
//!
//! It knows the part of JSON Schema that our own structs produce; a form it does not know is shown
//! as the schema's text rather than left out.

use serde_json::Value;

/// One row for each key, in the order of the schema.
pub(super) fn table(schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|keys| !keys.is_empty()) else {
        return "None.\n".to_owned();
    };
    let mut text = "| key | value | default | |\n|---|---|---|---|\n".to_owned();
    for (name, property) in properties {
        let property = resolve(property, schema);
        let default = if is_required(schema, name) {
            "required".to_owned()
        } else {
            property
                .get("default")
                .filter(|value| !value.is_null())
                .map(|value| format!("`{value}`"))
                .unwrap_or_default()
        };
        text += &format!("| `{name}` | {} | {default} | {} |\n", kind(property, schema), cell(property));
    }
    text
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|other| other == name))
}

/// What `$ref` stands for, for references within the schema.
fn resolve<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = property.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| schema.pointer(pointer)).unwrap_or(property)
}

/// The values a key takes, in words.
fn kind(property: &Value, schema: &Value) -> String {
    if let Some(values) = property.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| format!("`{}`", plain(value))).collect::<Vec<_>>().join(", ");
    }
    if let Some(value) = property.get("const") {
        return format!("`{}`", plain(value));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(forms) = property.get(key).and_then(Value::as_array) {
            let forms = forms.iter().map(|form| kind(resolve(form, schema), schema));
            return forms.filter(|form| form != "nothing").collect::<Vec<_>>().join(" or ");
        }
    }
    match property.get("type") {
        Some(Value::String(name)) => named(name, property, schema),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.map(|name| named(name, property, schema)).collect::<Vec<_>>().join(" or ")
        }
        _ => format!("`{property}`"),
    }
}

fn named(name: &str, property: &Value, schema: &Value) -> String {
    match name {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        "null" => "nothing".to_owned(),
        "object" => "block".to_owned(),
        "array" => match property.get("items") {
            Some(items) => format!("list of {}", kind(resolve(items, schema), schema)),
            None => "list".to_owned(),
        },
        other => other.to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The description in one line that cannot break the table.
fn cell(property: &Value) -> String {
    let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_show_values_defaults_and_meaning() {
        let schema = json!({
            "properties": {
                "path": { "type": "string", "description": "A glob:\n`a|b`." },
                "format": { "$ref": "#/$defs/Format" },
                "header": { "type": ["boolean", "null"], "default": true },
                "columns": { "type": "array", "items": { "type": "string" } }
            },
            "required": ["path"],
            "$defs": { "Format": { "enum": ["csv", "parquet"] } }
        });
        let table = table(&schema);
        assert!(table.contains("| `path` | text | required | A glob: `a\\|b`. |\n"), "{table}");
        assert!(table.contains("| `format` | `csv`, `parquet` |  |  |\n"), "{table}");
        assert!(table.contains("| `header` | `true`, `false` | `true` |  |\n"), "{table}");
        assert!(table.contains("| `columns` | list of text |  |  |\n"), "{table}");
    }

    #[test]
    fn a_block_without_keys_says_so() {
        assert_eq!(table(&json!({ "type": "object" })), "None.\n");
    }
}
