//! The shape of a destination table, and the canonical form of its values.
//!
//! A prepared row is compared, hashed, kept in state and sent in the form *the destination column
//! stores* (design section 6, "Types"). [`ColumnKind::canonical`] fixes the Arrow type of that form:
//!
//! | kind | Arrow type | form |
//! |---|---|---|
//! | text | `Utf8` | `''` is null |
//! | guid | `Utf8` | lower case, hyphens |
//! | lookup | `Utf8` | `account/<guid>`: target table and id |
//! | integer, choice, status | `Int32` | |
//! | big integer | `Int64` | |
//! | decimal, money | `Decimal128(38, scale)` | rounded half away from zero to the column's scale |
//! | double | `Float64` | rounded to the column's precision |
//! | boolean | `Boolean` | |
//! | date and time | `Timestamp(Second, None)` | whole seconds, UTC; as given for time-zone independent columns |
//! | date | `Date32` | |
//! | several choices | `Utf8` | ascending numbers with commas: `1,3` |

use std::collections::BTreeMap;

use arrow_schema::{DataType, Field, Schema, TimeUnit};

/// The name of the bookkeeping column in canonical batches that holds the status a row should be in
/// (`Int32`, null: the table's default). It stands for `state:` rules, never for a real column.
pub const STATE_COLUMN: &str = "@state";

/// What a table looks like to a loader.
#[derive(Debug, Clone, PartialEq)]
pub struct TableShape {
    /// Logical name, as configured: `incident`.
    pub table: String,
    /// The name in addresses: `incidents`.
    pub set: String,
    pub primary_id: String,
    pub columns: BTreeMap<String, ColumnShape>,
    pub keys: Vec<TableKey>,
    /// Rows of one request succeed or fail together.
    pub atomic: bool,
    /// The column that must say who owns a row: several users create rows, and each would own what it happens to send.
    pub owner: Option<String>,
    /// The column that takes the moment a row was created elsewhere.
    pub created_on: Option<String>,
    /// The status values and the state each belongs to: (state, status, label).
    pub statuses: Vec<StatusShape>,
}

impl TableShape {
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.get(name)
    }

    /// The Arrow schema of canonical rows with these columns, in this order. Every field is nullable.
    pub fn canonical_schema<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> Option<Schema> {
        let field = |name: &str| {
            if name == STATE_COLUMN {
                return Some(Field::new(STATE_COLUMN, DataType::Int32, true));
            }
            Some(Field::new(name, self.column(name)?.kind.canonical(), true))
        };
        columns.into_iter().map(field).collect::<Option<Vec<_>>>().map(Schema::new)
    }
}

/// An alternate key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableKey {
    pub name: String,
    pub columns: Vec<String>,
    /// Only an active key is unique; a building or failed one must not be relied on.
    pub active: bool,
}

/// One value of the table's status column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusShape {
    pub state: i32,
    pub status: i32,
    pub label: String,
    /// The status that `state` alone stands for.
    pub is_default: bool,
}

/// What a column accepts and stores.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnShape {
    pub name: String,
    pub kind: ColumnKind,
    /// Refused when null, by the API and not only by forms.
    pub required: bool,
    pub can_create: bool,
    pub can_update: bool,
}

/// How a column's values are typed.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnKind {
    /// `length_max` in UTF-16 code units, as the service counts.
    Text {
        length_max: u32,
    },
    Integer {
        min: i32,
        max: i32,
    },
    BigInteger,
    Decimal {
        scale: i8,
        min: f64,
        max: f64,
    },
    Money {
        scale: i8,
        min: f64,
        max: f64,
    },
    Double {
        precision: u8,
        min: f64,
        max: f64,
    },
    /// Labels of false and true.
    Boolean {
        labels: [String; 2],
    },
    /// `user_local`: stored in UTC. Otherwise stored as given.
    DateTime {
        user_local: bool,
    },
    Date,
    Choice {
        options: Vec<ChoiceOption>,
    },
    Choices {
        options: Vec<ChoiceOption>,
    },
    Guid,
    Lookup {
        targets: Vec<LookupTarget>,
    },
    /// A kind that loads cannot write (file, image, party list…), by its service name.
    Unsupported {
        name: String,
    },
}

impl ColumnKind {
    /// The Arrow type of canonical values; see the module's table.
    pub fn canonical(&self) -> DataType {
        match self {
            Self::Text { .. } | Self::Choices { .. } | Self::Guid | Self::Lookup { .. } | Self::Unsupported { .. } => {
                DataType::Utf8
            }
            Self::Integer { .. } | Self::Choice { .. } => DataType::Int32,
            Self::BigInteger => DataType::Int64,
            Self::Decimal { scale, .. } | Self::Money { scale, .. } => DataType::Decimal128(38, *scale),
            Self::Double { .. } => DataType::Float64,
            Self::Boolean { .. } => DataType::Boolean,
            Self::DateTime { .. } => DataType::Timestamp(TimeUnit::Second, None),
            Self::Date => DataType::Date32,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceOption {
    pub value: i32,
    pub label: String,
}

/// One table a lookup may refer to, and how a row names it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupTarget {
    pub table: String,
    pub set: String,
    /// The navigation property to bind, exactly as the service spells it.
    pub navigation: String,
}
