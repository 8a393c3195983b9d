//! Reads a connector's block of YAML into its struct, and says what is wrong with it, key by key.
//!
//! serde reports errors as sentences. Here a small deserializer keeps what it knows: the path to
//! the value, the keys that exist, the type that was expected. So an editor can underline the
//! offending key and a person gets the nearest valid one. Values are never shown: one of them may
//! be a secret.
//!
//! Left out: enums with fields and untagged enums, which no block uses.

use std::fmt::{self, Display};

use flowgate_core::connector::FieldError;
use flowgate_core::nearest::quoted_list;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::suggest::did_you_mean;

/// Errors shown for one block at most: it is finite, but nobody reads more.
const ERRORS_MAX: usize = 20;

/// A connector's block, as a struct.
pub(crate) trait Settings: DeserializeOwned + JsonSchema {
    /// What the types cannot say: ranges, formats, keys that exclude each other.
    fn problems(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

/// One problem with the value of a top-level key.
pub(crate) fn problem(key: &str, message: impl Into<String>, hint: Option<&str>) -> FieldError {
    FieldError { hint: hint.map(str::to_owned), ..FieldError::new([key], message) }
}

/// Whether `text` still waits for a value from the environment or a file.
pub(crate) fn is_reference(text: &str) -> bool {
    text.contains("${")
}

/// The JSON Schema of a block, in one piece.
pub(crate) fn schema<T: Settings>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Checks a block and reports everything that is wrong with it.
pub(crate) fn check<T: Settings>(block: &Value) -> Result<(), Vec<FieldError>> {
    let mut block = block_of(block);
    let mut errors = Vec::new();
    let mut taken_out = Vec::new();
    while errors.len() < ERRORS_MAX {
        let fault = match T::deserialize(BlockDeserializer(&block)) {
            Ok(settings) => {
                errors.extend(settings.problems());
                break;
            }
            Err(fault) => fault,
        };
        // Without the offending value, the rest can be checked; but then it is missing.
        let is_known = taken_out.contains(&fault.missing_path());
        let removed = take_out(&mut block, &fault.error.path);
        if !is_known {
            errors.push(fault.error);
        }
        match removed {
            Some(path) => taken_out.push(path),
            None => break,
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Reads a block whose references are resolved.
pub(crate) fn read<T: Settings>(connector: &str, block: &Value) -> Result<T, ConnectorError> {
    let settings = T::deserialize(BlockDeserializer(&block_of(block))).map_err(|fault| fault.error);
    let error = match settings {
        Ok(settings) => match settings.problems().into_iter().next() {
            None => return Ok(settings),
            Some(error) => error,
        },
        Err(error) => error,
    };
    let place = if error.path.is_empty() { String::new() } else { format!(" at `{}`", error.path.join(".")) };
    let message = format!("settings of `{connector}` are wrong{place}: {}", error.message);
    let mut failure = ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message);
    failure.hints.extend(error.hint);
    Err(failure)
}

/// `files:` without anything below it is an empty block.
fn block_of(value: &Value) -> Value {
    if value.is_null() { Value::Object(serde_json::Map::new()) } else { value.clone() }
}

/// Removes the value at `path`, or the list that holds it: the other items keep their numbers so.
fn take_out(block: &mut Value, path: &[String]) -> Option<Vec<String>> {
    let mut parent = block;
    for (depth, key) in path.iter().enumerate() {
        let object = parent.as_object_mut()?;
        let is_last = depth + 1 == path.len();
        if is_last || object.get(key)?.is_array() {
            object.remove(key)?;
            return Some(path[..=depth].to_vec());
        }
        parent = object.get_mut(key)?;
    }
    None
}

/// The error of [`BlockDeserializer`].
#[derive(Debug)]
struct Fault {
    error: FieldError,
    /// The key that is missing at the error's path.
    missing_key: Option<&'static str>,
}

impl Fault {
    fn new(message: String, hint: Option<String>) -> Self {
        let error = FieldError { hint, ..FieldError::new([""; 0], message) };
        Self { error, missing_key: None }
    }

    fn at(mut self, step: impl Into<String>) -> Self {
        self.error.path.insert(0, step.into());
        self
    }

    /// Where the missing key would be; the error's own path when none is missing.
    fn missing_path(&self) -> Vec<String> {
        self.error.path.iter().cloned().chain(self.missing_key.map(str::to_owned)).collect()
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", expectation(expected), kind_of(&unexpected)), None)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let hint = did_you_mean(field, "the keys are", known.iter().copied());
        let mut fault = Self::new(format!("unknown key `{field}`"), hint);
        fault.error.code = Code::UNKNOWN_KEY;
        fault.at(field)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let hint = did_you_mean(variant, "it is one of", known.iter().copied());
        Self::new(format!("`{variant}` is not known here"), hint)
    }

    fn missing_field(field: &'static str) -> Self {
        Self { error: FieldError::missing([""; 0], field), missing_key: Some(field) }
    }
}

/// serde speaks of Rust types; a person thinks in YAML.
fn expectation(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "a string" | "string or map" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") => "a block of keys".to_owned(),
        other => other.to_owned(),
    }
}

fn kind_of(unexpected: &Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a block of keys",
        _ => "nothing",
    }
}

/// Reads a JSON value and remembers the path to what is wrong.
#[derive(Clone, Copy)]
struct BlockDeserializer<'v>(&'v Value);

impl<'de> Deserializer<'de> for BlockDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Object(object) => visitor.visit_map(Entries { entries: object.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::String(text) = self.0 else {
            return Err(Fault::new(format!("expected one of {}", quoted_list(variants.iter().copied())), None));
        };
        visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text.as_str()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'v> {
    items: std::iter::Enumerate<std::slice::Iter<'v, Value>>,
}

impl<'v> SeqAccess<'v> for Items<'v> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        seed.deserialize(BlockDeserializer(item)).map(Some).map_err(|fault| fault.at(index.to_string()))
    }
}

struct Entries<'v> {
    entries: serde_json::map::Iter<'v>,
    current: Option<(&'v String, &'v Value)>,
}

impl<'v> MapAccess<'v> for Entries<'v> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'v>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, value)) = self.current.take() else {
            return Err(Fault::new("a value was asked for before its key".to_owned(), None));
        };
        seed.deserialize(BlockDeserializer(value)).map_err(|fault| fault.at(key))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only its type matters here")]
        path: String,
        #[serde(default)]
        inner: Option<Inner>,
        #[expect(dead_code, reason = "only its type matters here")]
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        sizes: Vec<u64>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Fast,
        Safe,
    }

    impl Settings for Example {}

    fn errors(block: &Value) -> Vec<String> {
        let show = |error: FieldError| format!("{}: {} ({:?})", error.path.join("."), error.message, error.hint);
        check::<Example>(block).err().unwrap_or_default().into_iter().map(show).collect()
    }

    #[test]
    fn every_wrong_key_is_reported_with_its_path() {
        let block = json!({"pth": "x", "path": 5, "inner": {"sizes": [1, "two"], "size": 3}, "mode": "fats"});
        let expected = [
            "inner.size: unknown key `size` (Some(\"did you mean `sizes`?\"))",
            "inner.sizes.1: expected a whole number of at least 0, found text (None)",
            "mode: `fats` is not known here (Some(\"did you mean `fast`?\"))",
            "path: expected text, found a number (None)",
            "pth: unknown key `pth` (Some(\"did you mean `path`?\"))",
        ];
        let mut found = errors(&block);
        found.sort();
        // A missing `path` follows from taking out the wrong one, and is not reported.
        assert_eq!(found, expected);
    }

    #[test]
    fn a_missing_key_is_named() {
        assert_eq!(errors(&Value::Null), [": `path` is missing (None)"]);
        let example =
            read::<Example>("example", &json!({"path": "x", "inner": {"sizes": [3]}, "mode": "safe"})).unwrap();
        assert_eq!(example.inner.unwrap().sizes, [3]);
    }

    #[test]
    fn a_wrong_value_is_not_repeated() {
        let error = read::<Example>("example", &json!({"path": ["s3cret"]})).unwrap_err();
        assert_eq!(error.message, "settings of `example` are wrong at `path`: expected text, found a list");
    }
}
