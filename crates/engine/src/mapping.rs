//! How the columns of a SELECT become columns of the destination table.
//!
//! Decided once per run against live metadata, before anything is sent. Every SELECT column is
//! either a column of the table, part of a lookup, the column of the state or history rule, or
//! bookkeeping (its name begins with `_`).

use std::sync::Arc;

use arrow_schema::{DataType, Schema, SchemaRef};
use flowgate_core::nearest::nearest;
use flowgate_core::project::{ColumnRule, Load, Lookup, Master, Nulls};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::source::ROW_COLUMN;
use flowgate_core::{Code, ColumnKind, TableShape};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::RunError;
use crate::transform::{CHECK_PREFIX, describe};

/// Where the value of a canonical column comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// A SELECT column, by position.
    Column(usize),
    /// A reference, found by the values of these SELECT columns (none: always the default).
    Lookup { positions: Vec<usize>, lookup: Lookup },
    /// The status that the value of this SELECT column stands for.
    State(usize),
}

/// One column of the canonical rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MappedColumn {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) rule: ColumnRule,
}

/// The whole mapping of a load.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) shape: Arc<TableShape>,
    /// Canonical columns, in the order of `columns`.
    pub(crate) schema: SchemaRef,
    pub(crate) columns: Vec<MappedColumn>,
    /// Positions of the match columns in `columns`.
    pub(crate) match_positions: Vec<usize>,
    /// SELECT positions of `_row`, of the `latest_by` column, and of each check with its description.
    pub(crate) row_position: Option<usize>,
    pub(crate) latest_position: Option<usize>,
    pub(crate) checks: Vec<(usize, String)>,
    /// Changes whenever the table's shape does: letters are tried again then.
    pub(crate) metadata_version: String,
}

impl Mapping {
    /// Maps the SELECT with `select` columns, or says what does not fit.
    pub(crate) fn build(load: &Load, select: &Schema, shape: Arc<TableShape>) -> Result<Self, RunError> {
        let columns = map_columns(load, select, &shape)?;
        let names = columns.iter().map(|column| column.name.as_str());
        let schema = shape.canonical_schema(names).ok_or(RunError::Defect("a mapped column without a shape"))?;
        let match_positions = match_positions(load, &columns)?;
        refuse_unmatched_id(load, &shape, &columns)?;
        require_rules_to_apply(load, &columns)?;
        require_required_columns(load, &shape, &columns)?;
        require_owner(load, &shape, &columns)?;
        let position = |name: &str| select.fields().iter().position(|field| field.name() == name);
        let row_position = position(ROW_COLUMN);
        if load.driver.is_some() && row_position.is_none() {
            return Err(missing_driver_row(load));
        }
        let latest_position = match &load.latest_by {
            None => None,
            Some(name) => Some(position(name).ok_or_else(|| not_selected("latest_by", name))?),
        };
        let checks = load.checks.iter().enumerate().filter_map(|(number, check)| {
            position(&format!("{CHECK_PREFIX}{number}")).map(|position| (position, describe(check)))
        });
        let metadata_version = format!("{:016x}", xxh3_64(format!("{shape:?}").as_bytes()));
        Ok(Self {
            schema: Arc::new(schema),
            match_positions,
            row_position,
            latest_position,
            checks: checks.collect(),
            metadata_version,
            columns,
            shape,
        })
    }

    /// The canonical columns that a destination really has (not the state rule's).
    pub(crate) fn stored_columns(&self) -> Vec<String> {
        self.columns.iter().filter(|column| column.name != STATE_COLUMN).map(|column| column.name.clone()).collect()
    }

    /// The position of the state rule's column, if there is a rule.
    pub(crate) fn state_position(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.name == STATE_COLUMN)
    }

    /// The one match column is the table's primary id: rows bring their ids with them.
    pub(crate) fn is_matched_by_id(&self) -> bool {
        matches!(self.match_positions.as_slice(), [one] if self.columns[*one].name == self.shape.primary_id)
    }

    /// What of the column rules makes another row of the same values: a row that was written under other rules is
    /// compared anew. Stored with the row hashes, so the numbers never change.
    pub(crate) fn rules_seed(&self) -> u64 {
        self.columns.iter().filter(|column| column.rule != ColumnRule::default()).fold(0, |seed, column| {
            let nulls = match column.rule.nulls {
                Nulls::Clear => 0,
                Nulls::Keep => 1,
            };
            let master = match column.rule.master {
                Master::Source => 0,
                Master::Destination => 1,
                Master::FillIfEmpty => 2,
            };
            xxh3_64_with_seed(&[column.name.as_bytes(), &[0, nulls, master]].concat(), seed)
        })
    }

    /// Whether the state of a row holds what was prepared, with nothing kept of what was there before.
    pub(crate) fn state_is_as_prepared(&self) -> bool {
        self.columns.iter().all(|column| column.rule == ColumnRule::default())
    }

    /// Whether the match columns are an active alternate key, a building one, or none.
    pub(crate) fn key_state(&self) -> KeyState {
        if self.is_matched_by_id() {
            return KeyState::Active;
        }
        let mut wanted: Vec<&str> = self.match_positions.iter().map(|at| self.columns[*at].name.as_str()).collect();
        wanted.sort_unstable();
        let found = self.shape.keys.iter().filter(|key| {
            let mut columns: Vec<&str> = key.columns.iter().map(String::as_str).collect();
            columns.sort_unstable();
            columns == wanted
        });
        match found.map(|key| (key.active, &key.name)).max() {
            Some((true, _)) => KeyState::Active,
            Some((false, name)) => KeyState::Building(name.clone()),
            None => KeyState::None,
        }
    }
}

/// What the destination knows of the match columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyState {
    Active,
    Building(String),
    None,
}

fn map_columns(load: &Load, select: &Schema, shape: &TableShape) -> Result<Vec<MappedColumn>, RunError> {
    let mut columns = Vec::new();
    let mut lookups_seen = Vec::new();
    for (position, field) in select.fields().iter().enumerate() {
        let name = field.name().as_str();
        let is_state = load.state.as_ref().is_some_and(|rule| rule.column == name);
        let is_created_on = load.history.as_ref().is_some_and(|history| history.created_on.as_deref() == Some(name));
        let lookup_name = name.split_once('.').map_or(name, |(lookup, _)| lookup);
        if is_state {
            columns.push(mapped(load, STATE_COLUMN, Origin::State(position)));
        } else if is_created_on {
            columns.push(created_on_column(shape, position)?);
        } else if load.lookups.contains_key(lookup_name) {
            if !lookups_seen.contains(&lookup_name.to_owned()) {
                lookups_seen.push(lookup_name.to_owned());
                columns.push(lookup_column(load, shape, select, lookup_name)?);
            }
        } else if !name.starts_with('_') {
            columns.push(plain_column(load, shape, name, position, field.data_type())?);
        }
    }
    for (name, lookup) in &load.lookups {
        if !lookups_seen.contains(name) {
            columns.push(default_lookup(load, shape, name, lookup)?);
        }
    }
    if let Some(rule) = &load.state
        && !columns.iter().any(|column| column.name == STATE_COLUMN)
    {
        return Err(not_selected("state", &rule.column));
    }
    if let Some(created_on) = load.history.as_ref().and_then(|history| history.created_on.as_ref())
        && !columns.iter().any(|column| Some(&column.name) == shape.created_on.as_ref())
    {
        return Err(not_selected("history", created_on));
    }
    Ok(columns)
}

fn mapped(load: &Load, name: &str, origin: Origin) -> MappedColumn {
    let rule = load.columns.get(name).copied().unwrap_or_default();
    MappedColumn { name: name.to_owned(), origin, rule }
}

fn plain_column(
    load: &Load,
    shape: &TableShape,
    name: &str,
    position: usize,
    from: &DataType,
) -> Result<MappedColumn, RunError> {
    let column = shape.column(name).ok_or_else(|| column_not_found(shape, name))?;
    match &column.kind {
        ColumnKind::Lookup { targets } => {
            let tables: Vec<_> = targets.iter().map(|target| target.table.as_str()).collect();
            return Err(RunError::refused(
                Code::LOOKUP_RULE_MISSING,
                format!("`{name}` refers to rows of `{}`, and the load has no rule to find them", tables.join("`, `")),
            )
            .hint(format!("add `lookups: {{ {name}: {{ {}: COLUMN }} }}`", tables.first().unwrap_or(&"TABLE"))));
        }
        ColumnKind::Unsupported { name: kind } => {
            return Err(RunError::refused(
                Code::COLUMN_READ_ONLY,
                format!("`{}.{name}` is of the kind `{kind}`, which loads do not write", shape.table),
            ));
        }
        _ if matches!(from, DataType::List(_) | DataType::Struct(_) | DataType::Map(..)) => {
            return Err(RunError::refused(
                Code::TYPE_MISMATCH,
                format!("the SELECT returns `{name}` as {from}, which no column of a table can hold"),
            ));
        }
        _ => {}
    }
    writable(load, shape, name, Origin::Column(position))
}

/// The column with its rule; what can only be set on create is the destination's afterwards.
fn writable(load: &Load, shape: &TableShape, name: &str, origin: Origin) -> Result<MappedColumn, RunError> {
    let column = shape.column(name).ok_or_else(|| column_not_found(shape, name))?;
    if !column.can_create && !column.can_update {
        return Err(RunError::refused(Code::COLUMN_READ_ONLY, format!("`{}.{name}` cannot be written", shape.table))
            .hint(format!("take `{name}` out of the SELECT")));
    }
    let mut mapped = mapped(load, name, origin);
    if !column.can_update {
        mapped.rule.master = Master::Destination;
    }
    Ok(mapped)
}

fn created_on_column(shape: &TableShape, position: usize) -> Result<MappedColumn, RunError> {
    let Some(name) = shape.created_on.clone() else {
        let message = format!(
            "`{}` has no column for the moment a row was created, so `history: createdon` cannot be kept",
            shape.table
        );
        return Err(RunError::refused(Code::COLUMN_NOT_FOUND, message));
    };
    let rule = ColumnRule { master: Master::Destination, ..ColumnRule::default() };
    Ok(MappedColumn { name, origin: Origin::Column(position), rule })
}

fn lookup_column(load: &Load, shape: &TableShape, select: &Schema, name: &str) -> Result<MappedColumn, RunError> {
    let lookup = load.lookups.get(name).ok_or(RunError::Defect("a lookup that is not there"))?;
    require_targets(shape, name, lookup)?;
    let position = |wanted: &str| select.fields().iter().position(|field| field.name() == wanted);
    let positions = if let Some(position) = position(name) {
        vec![position]
    } else {
        let columns = lookup.rules.first().map(|rule| rule.columns.as_slice()).unwrap_or_default();
        let found: Option<Vec<usize>> = columns.iter().map(|column| position(&format!("{name}.{column}"))).collect();
        found.ok_or_else(|| not_selected("lookups", &format!("{name}.{}", columns.join(&format!(", {name}.")))))?
    };
    if let Some(rule) = lookup.rules.iter().find(|rule| rule.columns.len().max(1) != positions.len()) {
        return Err(RunError::refused(
            Code::SQL_MISSING_KEY,
            format!(
                "`{name}` is found in `{}` by {} columns, and the SELECT returns {}",
                rule.table,
                rule.columns.len(),
                positions.len()
            ),
        )
        .hint(format!("select one column `{name}.COLUMN` for each, in double quotes")));
    }
    writable(load, shape, name, Origin::Lookup { positions, lookup: lookup.clone() })
}

/// A lookup that the SELECT does not return is only meaningful with a default.
fn default_lookup(load: &Load, shape: &TableShape, name: &str, lookup: &Lookup) -> Result<MappedColumn, RunError> {
    if lookup.otherwise.is_none() {
        return Err(not_selected("lookups", name));
    }
    require_targets(shape, name, lookup)?;
    writable(load, shape, name, Origin::Lookup { positions: Vec::new(), lookup: lookup.clone() })
}

fn require_targets(shape: &TableShape, name: &str, lookup: &Lookup) -> Result<(), RunError> {
    let column = shape.column(name).ok_or_else(|| column_not_found(shape, name))?;
    let ColumnKind::Lookup { targets } = &column.kind else {
        return Err(RunError::refused(
            Code::UNKNOWN_REFERENCE,
            format!("`{}.{name}` is not a lookup, so it has no rule under `lookups:`", shape.table),
        ));
    };
    let wrong = lookup.rules.iter().find(|rule| !targets.iter().any(|target| target.table == rule.table));
    match wrong {
        None => Ok(()),
        Some(rule) => {
            let tables: Vec<_> = targets.iter().map(|target| format!("`{}`", target.table)).collect();
            Err(RunError::refused(
                Code::UNKNOWN_REFERENCE,
                format!("`{name}` cannot refer to `{}`, only to {}", rule.table, tables.join(", ")),
            ))
        }
    }
}

fn match_positions(load: &Load, columns: &[MappedColumn]) -> Result<Vec<usize>, RunError> {
    let position = |name: &String| {
        columns.iter().position(|column| &column.name == name).ok_or_else(|| {
            RunError::refused(
                Code::SQL_MISSING_KEY,
                format!("the SELECT of `{}` does not return the match column `{name}`", load.name),
            )
        })
    };
    load.match_columns.iter().map(position).collect()
}

/// An id beside other match columns would say two things of which row is meant, and be left out on create.
fn refuse_unmatched_id(load: &Load, shape: &TableShape, columns: &[MappedColumn]) -> Result<(), RunError> {
    let id = &shape.primary_id;
    let is_match = load.match_columns.iter().any(|column| column == id);
    if is_match && load.match_columns.len() == 1 || columns.iter().all(|column| &column.name != id) {
        return Ok(());
    }
    let message = format!(
        "`{}` selects `{id}`, the primary id of `{}`, and finds its rows by `{}`",
        load.name,
        shape.table,
        load.match_columns.join("`, `")
    );
    Err(RunError::refused(Code::COLUMN_READ_ONLY, message).hint(format!(
        "to create rows under ids of your own write `match: [{id}]`; otherwise leave `{id}` out of the SELECT"
    )))
}

/// A rule for a column that is not loaded would silently do nothing.
fn require_rules_to_apply(load: &Load, columns: &[MappedColumn]) -> Result<(), RunError> {
    match load.columns.keys().find(|name| !columns.iter().any(|column| &column.name == *name)) {
        None => Ok(()),
        Some(name) => Err(not_selected("columns", name)),
    }
}

fn require_required_columns(load: &Load, shape: &TableShape, columns: &[MappedColumn]) -> Result<(), RunError> {
    let missing = shape.columns.values().find(|column| {
        column.required && column.can_create && !columns.iter().any(|mapped| mapped.name == column.name)
    });
    match missing {
        None => Ok(()),
        Some(column) => Err(RunError::refused(
            Code::REQUIRED_COLUMN,
            format!(
                "`{}.{}` is required by the system, and `{}` does not select it",
                shape.table, column.name, load.name
            ),
        )),
    }
}

/// With several application users a row without an owner would belong to whoever happened to send it.
fn require_owner(load: &Load, shape: &TableShape, columns: &[MappedColumn]) -> Result<(), RunError> {
    let Some(owner) = shape.owner.as_ref().filter(|owner| columns.iter().all(|column| column.name != **owner)) else {
        return Ok(());
    };
    let message = format!(
        "`{}` creates rows of `{}` without `{owner}`, and `{}` has several application users",
        load.name, shape.table, load.into
    );
    Err(RunError::refused(Code::OWNER_NOT_MAPPED, message)
        .hint(format!("add `lookups: {{ {owner}: {{ team: name, else: TEAM }} }}`, or leave one user that creates")))
}

fn missing_driver_row(load: &Load) -> RunError {
    let driver = load.driver.as_ref().map(ToString::to_string).unwrap_or_default();
    RunError::refused(
        Code::MISSING_DRIVER_ROW,
        format!("`{}` must represent every row of `{driver}`, and its SELECT does not return `_row`", load.name),
    )
    .hint(format!("add `{driver}._row` to the SELECT"))
}

fn not_selected(place: &str, name: &str) -> RunError {
    RunError::refused(Code::SQL_UNKNOWN_COLUMN, format!("`{place}:` names `{name}`, which the SELECT does not return"))
}

fn column_not_found(shape: &TableShape, name: &str) -> RunError {
    let error = RunError::refused(Code::COLUMN_NOT_FOUND, format!("`{}` has no column `{name}`", shape.table));
    match nearest(name, shape.columns.keys().map(String::as_str)) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("a custom column can be created by `flowgate provision`, from `tables/*.yaml`"),
    }
}
