//! What is missing, in the order it must be created: tables, then columns, then keys.

use std::collections::BTreeMap;

use flowgate_core::destination::{ProvisionKind, ProvisionStep};
use flowgate_core::project::{ColumnSpec, ColumnSpecKind, TableSpec};
use flowgate_core::shape::{ColumnKind, TableShape};
use flowgate_core::{Code, ConnectorError, ErrorKind};

use super::Publisher;
use crate::Dataverse;
use crate::metadata::is_name;

/// One thing to create.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Table { spec: TableSpec },
    Column { table: String, column: ColumnSpec },
    Key { table: String, name: String, columns: Vec<String> },
}

#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) step: ProvisionStep,
    pub(super) action: Action,
}

impl Action {
    pub(super) fn table(&self) -> &str {
        match self {
            Self::Table { spec } => &spec.table,
            Self::Column { table, .. } | Self::Key { table, .. } => table,
        }
    }

    /// The name that must carry the publisher's prefix.
    fn new_name(&self) -> &str {
        match self {
            Self::Table { spec } => &spec.table,
            Self::Column { column, .. } => &column.name,
            Self::Key { name, .. } => name,
        }
    }

    pub(super) fn is_done(&self, shape: &TableShape) -> bool {
        match self {
            Self::Table { .. } => true,
            Self::Column { column, .. } => shape.column(&column.name).is_some(),
            Self::Key { columns, .. } => shape.keys.iter().any(|key| same_columns(&key.columns, columns)),
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Table { spec } => format!("table {}", spec.table),
            Self::Column { table, column } => format!("column {table}.{} ({})", column.name, type_words(&column.kind)),
            Self::Key { table, name, columns } => format!("key {table}.{name} ({})", columns.join(", ")),
        }
    }

    fn planned(self) -> Planned {
        let kind = match &self {
            Self::Table { .. } => ProvisionKind::Table,
            Self::Column { .. } => ProvisionKind::Column,
            Self::Key { .. } => ProvisionKind::Key,
        };
        Planned { step: ProvisionStep { what: self.words(), kind }, action: self }
    }
}

pub(super) async fn plan(dataverse: &Dataverse, tables: &[TableSpec]) -> Result<Vec<Planned>, ConnectorError> {
    let mut shapes = BTreeMap::new();
    for spec in tables {
        if let Some(shape) = live_shape(dataverse, &spec.table).await? {
            shapes.insert(spec.table.clone(), shape);
        }
    }
    missing(tables, &shapes)
}

async fn live_shape(dataverse: &Dataverse, table: &str) -> Result<Option<std::sync::Arc<TableShape>>, ConnectorError> {
    match dataverse.metadata.table_now(&dataverse.client, table).await {
        Ok(facts) => Ok(Some(facts.shape.clone())),
        Err(error) if error.code == Code::TABLE_NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

fn missing(
    tables: &[TableSpec],
    shapes: &BTreeMap<String, std::sync::Arc<TableShape>>,
) -> Result<Vec<Planned>, ConnectorError> {
    let (mut new_tables, mut columns, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for spec in tables {
        let shape = shapes.get(&spec.table);
        if shape.is_none() {
            new_tables.push(Action::Table { spec: spec.clone() });
        }
        for column in &spec.columns {
            match shape.and_then(|shape| shape.column(&column.name)) {
                Some(there) => check_same(&spec.table, column, &there.kind)?,
                None => columns.push(Action::Column { table: spec.table.clone(), column: column.clone() }),
            }
        }
        for (name, key_columns) in &spec.keys {
            let is_there =
                shape.is_some_and(|shape| shape.keys.iter().any(|key| same_columns(&key.columns, key_columns)));
            if !is_there {
                let columns = key_columns.clone();
                keys.push(Action::Key { table: spec.table.clone(), name: name.clone(), columns });
            }
        }
    }
    let actions = new_tables.into_iter().chain(columns).chain(keys);
    Ok(actions.map(Action::planned).collect())
}

pub(super) fn same_columns(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|column| other.contains(column))
}

/// A column that is there must be able to hold what the project means it to hold.
fn check_same(table: &str, wanted: &ColumnSpec, there: &ColumnKind) -> Result<(), ConnectorError> {
    let fits = match (&wanted.kind, there) {
        (ColumnSpecKind::Text { length } | ColumnSpecKind::Memo { length }, ColumnKind::Text { length_max }) => {
            length_max >= length
        }
        (ColumnSpecKind::Integer, ColumnKind::Integer { .. })
        | (ColumnSpecKind::BigInteger, ColumnKind::BigInteger)
        | (ColumnSpecKind::Money, ColumnKind::Money { .. })
        | (ColumnSpecKind::Boolean, ColumnKind::Boolean { .. })
        | (ColumnSpecKind::DateTime, ColumnKind::DateTime { .. })
        | (ColumnSpecKind::Date, ColumnKind::Date)
        | (ColumnSpecKind::Choice { .. }, ColumnKind::Choice { .. }) => true,
        (ColumnSpecKind::Decimal { scale }, ColumnKind::Decimal { scale: there, .. }) => {
            i16::from(*there) >= i16::from(*scale)
        }
        (ColumnSpecKind::Double { precision }, ColumnKind::Double { precision: there, .. }) => there >= precision,
        (ColumnSpecKind::Lookup { target }, ColumnKind::Lookup { targets }) => {
            targets.iter().any(|candidate| candidate.table == *target)
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let message = format!("column `{table}.{}` is there, but not as {}", wanted.name, type_words(&wanted.kind));
    Err(ConnectorError::new(ErrorKind::Schema, Code::TYPE_MISMATCH, message)
        .hint("columns are never changed or removed: widen it in the environment, or describe it as it is"))
}

pub(super) fn check_prefixes(planned: &[Planned], publisher: &Publisher) -> Result<(), ConnectorError> {
    let prefix = format!("{}_", publisher.prefix);
    for planned in planned {
        let name = planned.action.new_name();
        let has_prefix = name.strip_prefix(&prefix).is_some_and(|rest| !rest.is_empty());
        if !has_prefix || !is_name(name) {
            let message = format!("{} cannot be created: its name must begin with `{prefix}`", planned.step.what);
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::PROVISION_REFUSED, message).hint(
                "the prefix is that of the solution's publisher; names have lower-case letters, digits and `_`",
            ));
        }
    }
    Ok(())
}

fn type_words(kind: &ColumnSpecKind) -> String {
    match kind {
        ColumnSpecKind::Text { length } => format!("text, {length}"),
        ColumnSpecKind::Memo { length } => format!("memo, {length}"),
        ColumnSpecKind::Integer => "integer".to_owned(),
        ColumnSpecKind::BigInteger => "big integer".to_owned(),
        ColumnSpecKind::Decimal { scale } => format!("decimal, {scale}"),
        ColumnSpecKind::Double { precision } => format!("double, {precision}"),
        ColumnSpecKind::Money => "money".to_owned(),
        ColumnSpecKind::Boolean => "boolean".to_owned(),
        ColumnSpecKind::DateTime => "date and time".to_owned(),
        ColumnSpecKind::Date => "date".to_owned(),
        ColumnSpecKind::Choice { labels } => format!("choice of {}", labels.len()),
        ColumnSpecKind::Lookup { target } => format!("lookup to {target}"),
    }
}
