//! How a table is written down: the YAML of `starting/*.yaml` and of `--schema FILE`.
//!
//! Promise: unknown keys are refused, and an error names the file. Left out: what the keys lead
//! to, which is `build`'s part.

use std::collections::BTreeMap;

use ordered_map::OrderedMap;
use serde::Deserialize;

use super::kinds::{DateBehavior, Required};
use super::model::{Cascade, Follows, Ownership};

/// Why a schema file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("schema file `{file}` does not parse: {message}")]
    Parse { file: String, message: String },
    #[error("column `{column}` of table `{table}` points at unknown table `{target}`")]
    UnknownTarget { table: String, column: String, target: String },
    #[error("table `{table}` has the name `{name}`, which is not of letters, digits and underscores after a letter")]
    Name { table: String, name: String },
    #[error("table `{table}` has no column `{column}`, named as its primary name or in a key")]
    UnknownColumn { table: String, column: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableSpec {
    pub(super) table: String,
    pub(super) schema: String,
    pub(super) label: String,
    pub(super) plural: String,
    /// The object type code; handed out when absent.
    pub(super) code: Option<i32>,
    pub(super) set: Option<String>,
    /// The collection's schema name, where it is not the schema name and an `s`.
    pub(super) collection: Option<String>,
    /// Of the columns that every table gets by itself, only those that are listed exist.
    #[serde(default)]
    pub(super) complete: bool,
    #[serde(default = "user_owned")]
    pub(super) ownership: Ownership,
    pub(super) primary_name: Option<String>,
    #[serde(default)]
    pub(super) tracked: bool,
    #[serde(default)]
    pub(super) notes: bool,
    #[serde(default)]
    pub(super) activities: bool,
    #[serde(default)]
    pub(super) activity: bool,
    #[serde(default)]
    pub(super) principal: bool,
    #[serde(default)]
    pub(super) duplicates: bool,
    #[serde(default)]
    pub(super) elastic: bool,
    #[serde(default)]
    pub(super) custom: bool,
    #[serde(default = "yes")]
    pub(super) bulk: bool,
    #[serde(default = "yes")]
    pub(super) write: bool,
    pub(super) close: Option<String>,
    #[serde(default)]
    pub(super) states: Vec<StateSpec>,
    #[serde(default)]
    pub(super) keys: BTreeMap<String, Vec<String>>,
    pub(super) columns: OrderedMap<ColumnSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateSpec {
    pub(super) value: i32,
    pub(super) label: String,
    /// Status values and labels; the first is the state's default.
    pub(super) status: OrderedMap<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TypeSpec {
    String,
    Memo,
    Integer,
    Bigint,
    Decimal,
    Double,
    Money,
    Boolean,
    Datetime,
    Choice,
    Choices,
    Lookup,
    Guid,
    EntityName,
    File,
    Image,
    PartyList,
    State,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnSpec {
    #[serde(rename = "type")]
    pub(super) kind: TypeSpec,
    pub(super) schema: String,
    pub(super) label: String,
    /// Greatest length of a text.
    pub(super) max: Option<u32>,
    pub(super) min: Option<f64>,
    pub(super) max_value: Option<f64>,
    pub(super) precision: Option<u8>,
    /// Where a money column's decimals come from: 0 itself, 1 the organisation, 2 its currency.
    pub(super) precision_source: Option<u8>,
    pub(super) format: Option<String>,
    #[serde(default)]
    pub(super) required: Required,
    #[serde(default)]
    pub(super) enforced: bool,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) create_only: bool,
    #[serde(default)]
    pub(super) update_only: bool,
    /// Never shown, as secrets are.
    #[serde(default)]
    pub(super) write_only: bool,
    #[serde(default)]
    pub(super) behavior: DateBehavior,
    #[serde(default)]
    pub(super) options: OrderedMap<String>,
    #[serde(default)]
    pub(super) targets: Vec<String>,
    /// Relationships by target, where the product's own are known.
    #[serde(default)]
    pub(super) relationships: BTreeMap<String, RelationshipSpec>,
    /// What deleting the row pointed at does; by default the link is removed.
    pub(super) on_delete: Option<Cascade>,
    pub(super) default: Option<i64>,
    pub(super) auto_number: Option<String>,
    pub(super) true_label: Option<String>,
    pub(super) false_label: Option<String>,
    #[serde(default)]
    pub(super) mask: i32,
}

/// A relationship's name, alone or with what it does.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RelationshipSpec {
    Name(String),
    Full(FullRelationshipSpec),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FullRelationshipSpec {
    pub(super) name: String,
    /// The lookup's property, where it is not named after the column.
    pub(super) to_one: Option<String>,
    /// The collection's property, where it is not the relationship's name.
    pub(super) to_many: Option<String>,
    #[serde(default = "no_cascade")]
    pub(super) delete: Cascade,
    /// Operations on the row pointed at that the rows pointing at it follow.
    #[serde(default)]
    pub(super) follows: Follows,
}

fn no_cascade() -> Cascade {
    Cascade::NoCascade
}

fn user_owned() -> Ownership {
    Ownership::User
}

fn yes() -> bool {
    true
}

/// Parses one table. `file` only serves the message.
pub(super) fn parse_table(file: &str, text: &str) -> Result<TableSpec, SpecError> {
    serde_saphyr::from_str(text).map_err(|error| SpecError::Parse { file: file.to_owned(), message: error.to_string() })
}

/// Parses a file of several tables.
pub(super) fn parse_tables(file: &str, text: &str) -> Result<Vec<TableSpec>, SpecError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        tables: Vec<TableSpec>,
    }
    let parsed: File = serde_saphyr::from_str(text)
        .map_err(|error| SpecError::Parse { file: file.to_owned(), message: error.to_string() })?;
    Ok(parsed.tables)
}

/// A map that keeps the order of its file: column order is ordinal order, and the first status
/// of a state is its default.
pub(super) mod ordered_map {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

    #[derive(Debug)]
    pub(in crate::schema) struct OrderedMap<V>(pub(in crate::schema) Vec<(String, V)>);

    impl<V> Default for OrderedMap<V> {
        fn default() -> Self {
            OrderedMap(Vec::new())
        }
    }

    impl<'de, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<V> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Entries<V>(PhantomData<V>);
            impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
                type Value = OrderedMap<V>;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("a map")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut entries = Vec::new();
                    while let Some(entry) = map.next_entry()? {
                        entries.push(entry);
                    }
                    Ok(OrderedMap(entries))
                }
            }
            deserializer.deserialize_map(Entries(PhantomData))
        }
    }
}
