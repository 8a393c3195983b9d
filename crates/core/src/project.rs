//! A project: one directory of configuration, checked and typed.
//!
//! `flowgate-config` makes it from YAML; nothing here is checked again. Paths are absolute.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::moment::{LocalTimes, UnknownZone, WallClock};
use crate::{ConnectionName, EnvironmentName, FlowName, LoadName, StreamName};

/// The whole configuration for one environment.
#[derive(Debug, Clone)]
pub struct Project {
    pub dir: PathBuf,
    pub environment: EnvironmentName,
    /// IANA name of the zone of naive times and schedules.
    pub time_zone: String,
    /// How local times that do not exist, or come twice, are read.
    pub local_times: LocalTimes,
    pub connections: BTreeMap<ConnectionName, Connection>,
    /// Tables, columns and keys that `flowgate provision` may create.
    pub tables: Vec<TableSpec>,
    pub flows: BTreeMap<FlowName, Flow>,
    pub staging: Staging,
    /// The directory of the local state of this environment.
    pub state_dir: PathBuf,
    pub provision: ProvisionPolicy,
    /// Hash of every file that made this project, secrets unresolved: rows quarantined under one
    /// version are tried again under another.
    pub version: String,
}

impl Project {
    /// The clock on the wall of this project.
    pub fn clock(&self) -> Result<WallClock, UnknownZone> {
        WallClock::new(&self.time_zone, self.local_times)
    }
}

/// One configured access to a system.
#[derive(Debug, Clone)]
pub struct Connection {
    pub name: ConnectionName,
    /// The registry's name of the connector.
    pub connector: String,
    /// The connector's block, variables filled in, secret references not yet resolved.
    pub settings: Value,
    pub budget: Option<BudgetSpec>,
}

/// How much of the service's limits this project may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetSpec {
    /// Requests in 24 hours, as the entitlement counts them (each row is one).
    pub daily: Option<u64>,
    /// Share of the limits for batch work, from 0 to 1, with the time it holds; the first that matches counts.
    pub batch: Vec<BudgetShare>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetShare {
    pub share: f64,
    /// `Mon-Fri 08:00-18:00`, in the project's zone; `None`: always.
    pub during: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    pub dir: PathBuf,
    /// Memory of one transform, in bytes.
    pub memory_bytes_max: usize,
    /// Images kept per stream, the newest included.
    pub keep_images: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisionPolicy {
    Allow,
    Refuse,
}

/// One configured movement.
#[derive(Debug, Clone)]
pub struct Flow {
    pub name: FlowName,
    pub schedule: Option<String>,
    pub after: Vec<FlowName>,
    pub streams: BTreeMap<StreamName, Stream>,
    /// In the order they run: a load comes after the loads of the tables it looks up.
    pub loads: Vec<Load>,
    /// The file it was read from.
    pub path: PathBuf,
}

impl Project {
    /// Whether both loads write the same table of the same system.
    pub fn have_one_target(&self, one: &Load, other: &Load) -> bool {
        let address =
            |load: &Load| self.connections.get(&load.into).and_then(|connection| connection.settings.get("url"));
        let is_one_system = one.into == other.into || (address(one).is_some() && address(one) == address(other));
        is_one_system && one.table == other.table
    }
}

/// One readable collection.
#[derive(Debug, Clone)]
pub struct Stream {
    pub name: StreamName,
    pub from: ConnectionName,
    /// The connector's own keys of the block.
    pub settings: Value,
    pub key: Vec<String>,
    pub deletes: Deletes,
    /// Types given to columns of text formats, by column; others stay as they come.
    pub columns: BTreeMap<String, String>,
    /// Columns after which a read goes on from where the last one stopped.
    pub is_incremental: bool,
    /// Without rows it is what it is: no load stops because it had some before.
    pub may_be_empty: bool,
}

/// How rows that disappear at the source become known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// Every read shows them: whole images, or a source that reports deletes.
    Seen,
    /// Only a reconciling whole read shows them.
    ByReconcile,
    /// They never become known; a row that is not there is not gone.
    Unseen,
}

/// One destination table within a flow.
#[derive(Debug, Clone)]
pub struct Load {
    pub name: LoadName,
    pub into: ConnectionName,
    pub table: String,
    pub sql: Sql,
    pub driver: Option<StreamName>,
    pub match_columns: Vec<String>,
    pub latest_by: Option<String>,
    pub lookups: BTreeMap<String, Lookup>,
    pub columns: BTreeMap<String, ColumnRule>,
    pub state: Option<StateRule>,
    pub history: Option<History>,
    pub missing: Missing,
    /// Other loads of the project write the same table, and that is meant.
    pub shares_table: bool,
    pub deleted_there: DeletedThere,
    pub guards: Guards,
    pub checks: Vec<Check>,
}

/// The SELECT of a load and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    pub path: PathBuf,
    pub text: String,
    /// Lines before the SELECT when it stands inside a YAML file.
    pub line_offset: usize,
}

/// How values of one lookup column find their row: one rule for each target table, tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub rules: Vec<LookupRule>,
    /// The text to look up when the value is null or not found.
    pub otherwise: Option<String>,
}

/// `{ account: accountnumber }`; with several columns the SELECT returns `<lookup>.<column>` for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupRule {
    pub table: String,
    /// Empty: the value is the primary id.
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ColumnRule {
    pub nulls: Nulls,
    pub master: Master,
}

/// What a null in a prepared row does to a value that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    #[default]
    Clear,
    Keep,
}

/// Who decides about a column's value after the row was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Master {
    #[default]
    Source,
    Destination,
    FillIfEmpty,
}

/// Which status a row should be in, by the value of one prepared column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRule {
    /// The column of the SELECT. It need not be a column of the table.
    pub column: String,
    /// By value of that column, compared without regard to case and to blanks around it. A value without an entry
    /// leaves the status alone.
    pub actions: BTreeMap<String, StateAction>,
    /// Rows whose value has no entry are set aside instead. An empty value asks for nothing.
    pub refuses_others: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateAction {
    /// Close the row by its closing message (CloseIncident), with this status label.
    Close(String),
    /// Set the status with this label.
    Status(String),
}

/// Dates and logic of a migration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The prepared column that becomes `overriddencreatedon`.
    pub created_on: Option<String>,
    /// Skip custom business logic.
    pub bypass_logic: bool,
}

/// What happens to rows of the state that the SELECT no longer returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    #[default]
    Keep,
    Deactivate,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedThere {
    #[default]
    Quarantine,
    Recreate,
}

/// Limits beyond which a load stops before anything of it is sent (exit status 4).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guards {
    /// Of the rows in state, in per cent.
    pub delete_percent_max: Option<f64>,
    pub delete_max: Option<u64>,
    pub create_max: Option<u64>,
    pub update_percent_max: Option<f64>,
    pub dropped_max: Option<u64>,
    pub quarantined_percent_max: Option<f64>,
    /// Files that the last run read and that are not there. Unlike the others, this one holds unless it is set.
    pub missing_files_max: Option<u64>,
}

/// A condition on prepared rows; failing rows become letters, the rest goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    NotNull(Vec<String>),
    Unique(Vec<String>),
    /// Values of a column.
    Accepted {
        column: String,
        values: Vec<String>,
    },
    Range {
        column: String,
        min: Option<f64>,
        max: Option<f64>,
    },
    /// A SQL condition over the prepared columns that must be true.
    That(String),
}

/// A table, column or key that may be created at a destination.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSpec {
    pub table: String,
    pub connection: ConnectionName,
    /// Singular and plural display names; required to create the table.
    pub display: Option<[String; 2]>,
    /// The primary name column and its length in characters; required to create the table.
    pub primary_name: Option<(String, u32)>,
    pub change_tracking: bool,
    pub columns: Vec<ColumnSpec>,
    /// Key name to columns.
    pub keys: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSpec {
    pub name: String,
    pub display: Option<String>,
    pub kind: ColumnSpecKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ColumnSpecKind {
    Text {
        length: u32,
    },
    Memo {
        length: u32,
    },
    Integer,
    BigInteger,
    Decimal {
        scale: u8,
    },
    Double {
        precision: u8,
    },
    Money,
    Boolean,
    DateTime,
    Date,
    /// Labels; values are numbered by the publisher's prefix.
    Choice {
        labels: Vec<String>,
    },
    Lookup {
        target: String,
    },
}
