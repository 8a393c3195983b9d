//! What a column may hold: its type with bounds, formats and options.
//!
//! Left out: checking and converting values, which is done where rows are written.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::label::Label;
use super::model::{Ordinal, TableId};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Required {
    #[default]
    None,
    Recommended,
    Application,
    System,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DateBehavior {
    #[default]
    UserLocal,
    DateOnly,
    TimeZoneIndependent,
}

/// What the number of an integer column means to forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IntegerFormat {
    #[default]
    None,
    Duration,
    TimeZone,
    Language,
    Locale,
}

impl IntegerFormat {
    pub(crate) const ALL: [IntegerFormat; 5] = [
        IntegerFormat::None,
        IntegerFormat::Duration,
        IntegerFormat::TimeZone,
        IntegerFormat::Language,
        IntegerFormat::Locale,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            IntegerFormat::None => "None",
            IntegerFormat::Duration => "Duration",
            IntegerFormat::TimeZone => "TimeZone",
            IntegerFormat::Language => "Language",
            IntegerFormat::Locale => "Locale",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        IntegerFormat::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// One option of a choice column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opt {
    pub(crate) value: i32,
    pub(crate) label: Label,
    /// For options of a status column: the state they belong to.
    pub(crate) state: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OptionSet {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) label: Label,
    pub(crate) is_global: bool,
    pub(crate) options: Vec<Opt>,
}

/// A value of `statecode` with the status it takes when none is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) value: i32,
    pub(crate) label: Label,
    pub(crate) default_status: i32,
}

/// One table a lookup may point at, and the navigation property that says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LookupTarget {
    pub(crate) table: TableId,
    pub(crate) navigation: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ColumnKind {
    Text {
        max: u32,
        format: String,
    },
    Memo {
        max: u32,
    },
    Integer {
        min: i64,
        max: i64,
        #[serde(default)]
        format: IntegerFormat,
    },
    BigInt,
    Decimal {
        min: f64,
        max: f64,
        precision: u8,
    },
    Double {
        min: f64,
        max: f64,
        precision: u8,
    },
    Money {
        min: f64,
        max: f64,
        precision: u8,
        /// Where the decimals come from: 0 the column, 1 the organisation, 2 the currency.
        #[serde(default)]
        precision_source: u8,
        base: Option<Ordinal>,
        is_base: bool,
    },
    Boolean {
        true_label: Label,
        false_label: Label,
    },
    DateTime {
        behavior: DateBehavior,
        date_format: bool,
    },
    Choice {
        set: OptionSet,
    },
    Choices {
        set: OptionSet,
    },
    State {
        states: Vec<State>,
    },
    Status {
        set: OptionSet,
    },
    Lookup {
        targets: Vec<LookupTarget>,
    },
    Guid,
    EntityName,
    File {
        max_kb: u32,
    },
    Image {
        max_kb: u32,
    },
    PartyList {
        mask: i32,
    },
}

impl ColumnKind {
    /// Whether the column reads and writes as `_name_value` and navigation properties.
    pub(crate) fn is_lookup(&self) -> bool {
        matches!(self, ColumnKind::Lookup { .. })
    }

    /// The type of its property in `$metadata`.
    pub(crate) fn edm_type(&self) -> &'static str {
        match self {
            ColumnKind::Text { .. } | ColumnKind::Memo { .. } | ColumnKind::Choices { .. } | ColumnKind::EntityName => {
                "Edm.String"
            }
            ColumnKind::BigInt => "Edm.Int64",
            ColumnKind::Decimal { .. } | ColumnKind::Money { .. } => "Edm.Decimal",
            ColumnKind::Double { .. } => "Edm.Double",
            ColumnKind::Boolean { .. } => "Edm.Boolean",
            ColumnKind::DateTime { behavior: DateBehavior::DateOnly, .. } => "Edm.Date",
            ColumnKind::DateTime { .. } => "Edm.DateTimeOffset",
            ColumnKind::Guid | ColumnKind::Lookup { .. } => "Edm.Guid",
            ColumnKind::File { .. } | ColumnKind::Image { .. } | ColumnKind::PartyList { .. } => "Edm.Binary",
            ColumnKind::Integer { .. }
            | ColumnKind::Choice { .. }
            | ColumnKind::State { .. }
            | ColumnKind::Status { .. } => "Edm.Int32",
        }
    }

    /// Whether rows hold a value of their own for it.
    pub(crate) fn is_stored(&self) -> bool {
        !matches!(self, ColumnKind::PartyList { .. })
    }

    /// The options a value must be one of, if it is a choice of any kind.
    pub(crate) fn options(&self) -> Option<&[Opt]> {
        match self {
            ColumnKind::Choice { set } | ColumnKind::Choices { set } | ColumnKind::Status { set } => Some(&set.options),
            _ => None,
        }
    }
}
