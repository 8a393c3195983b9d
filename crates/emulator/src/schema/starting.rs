//! The schema of a new environment and of schema files: from their YAML to tables.
//!
//! Promise: lookups may point forwards, so the order of tables is free; an unknown target or
//! column is an error with its place.

use std::sync::{Arc, OnceLock};

use super::build::{
    DECIMAL_MAX, MONEY_MAX, NewColumn, NewTable, add_column, add_lookup, add_many_to_many, add_system_lookups,
    add_table, choice_set,
};
use super::model::{
    AlternateKey, Cascade, ColumnKind, DateBehavior, KeyStatus, Opt, Ordinal, Required, Schema, State, Table, TableId,
};
use super::spec::{ColumnSpec, SpecError, TableSpec, TypeSpec, parse_table, parse_tables};
use super::stable_id;

macro_rules! starting_files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("starting/", $name, ".yaml")))),*] };
}

/// The tables of a new environment. Lookups may point forwards, so order is free.
const STARTING_TABLES: &[(&str, &str)] = starting_files![
    "systemuser",
    "team",
    "businessunit",
    "organization",
    "transactioncurrency",
    "account",
    "contact",
    "incident",
    "incidentresolution",
    "task",
    "phonecall",
    "email",
    "activitypointer",
    "activityparty",
    "annotation",
    "subject",
    "queue",
    "queueitem",
    "product",
    "publisher",
    "solution",
    "solutioncomponent",
    "sdkmessage",
    "sdkmessagefilter",
    "asyncoperation",
    "fileattachment",
    "bulkdeleteoperation",
    "bulkdeletefailure",
    "duplicaterule",
    "duplicaterulecondition",
    "serviceendpoint",
    "sdkmessageprocessingstep",
];

/// The schema of a new environment, parsed once per process.
pub(crate) fn starting_schema() -> Result<Schema, SpecError> {
    static PARSED: OnceLock<Schema> = OnceLock::new();
    if let Some(schema) = PARSED.get() {
        return Ok(schema.clone());
    }
    let mut specs = Vec::new();
    for (file, text) in STARTING_TABLES {
        specs.push(parse_table(file, text)?);
    }
    let mut schema = Schema::default();
    extend(&mut schema, &specs)?;
    add_memberships(&mut schema);
    schema.reindex();
    Ok(PARSED.get_or_init(|| schema).clone())
}

/// Many-to-many relationships of a new environment: name, intersect table, its set, both tables.
const MEMBERSHIPS: &[(&str, &str, &str, [&str; 2])] = &[
    ("teammembership_association", "TeamMembership", "teammemberships", ["systemuser", "team"]),
    ("queuemembership_association", "QueueMembership", "queuememberships", ["queue", "systemuser"]),
];

fn add_memberships(schema: &mut Schema) {
    for (name, intersect, set, tables) in MEMBERSHIPS {
        let found = tables.map(|name| schema.tables.iter().find(|table| table.logical == name).map(|table| table.id));
        if let [Some(first), Some(second)] = found {
            let id =
                add_many_to_many(schema, name, intersect, [first, second], [(*name).to_owned(), (*name).to_owned()]);
            let table = Arc::make_mut(&mut schema.tables[usize::from(id)]);
            (*set).clone_into(&mut table.set_name);
            table.is_custom = false;
        }
    }
}

/// Adds the tables of a schema file: `tables:` and a list in the form of the starting ones.
pub(crate) fn extend_from_file(schema: &mut Schema, file: &str, text: &str) -> Result<(), SpecError> {
    extend(schema, &parse_tables(file, text)?)
}

fn extend(schema: &mut Schema, specs: &[TableSpec]) -> Result<(), SpecError> {
    let mut added = Vec::new();
    for spec in specs {
        added.push(add_table(schema, new_table(spec)));
    }
    for (spec, table) in specs.iter().zip(&added) {
        for (name, column) in &spec.columns.0 {
            add_spec_column(schema, *table, spec, name, column)?;
        }
    }
    add_system_lookups(schema, &added);
    for (spec, table) in specs.iter().zip(&added) {
        finish_table(schema, *table, spec)?;
    }
    schema.reindex();
    Ok(())
}

fn new_table(spec: &TableSpec) -> NewTable {
    let states = spec.states.iter().map(|state| {
        let options: Vec<Opt> =
            state.status.0.iter().map(|(value, label)| option(value, label, Some(state.value))).collect();
        let default_status = options.first().map_or(0, |option| option.value);
        (State { value: state.value, label: state.label.clone(), default_status }, options)
    });
    NewTable {
        logical: spec.table.clone(),
        schema_name: spec.schema.clone(),
        set_name: spec.set.clone(),
        label: spec.label.clone(),
        plural: spec.plural.clone(),
        object_type_code: spec.code,
        ownership: spec.ownership,
        is_activity: spec.activity,
        is_elastic: spec.elastic,
        is_custom: spec.custom,
        has_notes: spec.notes,
        has_activities: spec.activities,
        change_tracking: spec.tracked,
        states: states.collect(),
    }
}

fn option(value: &str, label: &str, state: Option<i32>) -> Opt {
    Opt { value: value.parse().unwrap_or_default(), label: label.to_owned(), state }
}

fn add_spec_column(
    schema: &mut Schema,
    table: TableId,
    spec: &TableSpec,
    name: &str,
    column: &ColumnSpec,
) -> Result<(), SpecError> {
    let new = NewColumn {
        logical: name.to_owned(),
        schema_name: column.schema.clone(),
        label: column.label.clone(),
        kind: spec_kind(spec, name, column),
        required: column.required,
        is_custom: spec.custom,
        for_create: !column.read_only,
        for_update: !column.read_only,
        default: column.default,
    };
    let ordinal = if column.kind == TypeSpec::Lookup {
        let targets = spec_targets(schema, spec, name, column)?;
        let implied = if column.required == Required::System { Cascade::Cascade } else { Cascade::RemoveLink };
        let on_delete = column.on_delete.unwrap_or(implied);
        add_lookup(schema, table, new, &targets, on_delete)
    } else {
        add_column(schema, table, new)
    };
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let made = &mut entry.columns[usize::from(ordinal)];
    made.enforced = column.enforced;
    made.for_read = !column.write_only;
    made.auto_number.clone_from(&column.auto_number);
    Ok(())
}

/// Navigation names: the logical name for one target, `<lookup>_<target>` for several, and on
/// activities `<lookup>_<target>_<activity>`.
fn spec_targets(
    schema: &Schema,
    spec: &TableSpec,
    name: &str,
    column: &ColumnSpec,
) -> Result<Vec<(TableId, String, String)>, SpecError> {
    let base = if spec.custom { &column.schema } else { name };
    let mut targets = Vec::new();
    for target in &column.targets {
        let id = schema.tables.iter().find(|table| table.logical == *target).map(|table| table.id);
        let id = id.ok_or_else(|| SpecError::UnknownTarget {
            table: spec.table.clone(),
            column: name.to_owned(),
            target: target.clone(),
        })?;
        let navigation = match (column.targets.len(), name == "regardingobjectid" && spec.activity) {
            (1, _) => base.to_owned(),
            (_, true) => format!("{base}_{target}_{}", spec.table),
            (_, false) => format!("{base}_{target}"),
        };
        let relationship = column.relationships.get(target).cloned();
        targets.push((id, navigation, relationship.unwrap_or_else(|| format!("{target}_{}_{name}", spec.table))));
    }
    Ok(targets)
}

fn spec_kind(spec: &TableSpec, name: &str, column: &ColumnSpec) -> ColumnKind {
    let number = |value: Option<f64>, otherwise: f64| value.unwrap_or(otherwise);
    let set = || {
        let options = column.options.0.iter().map(|(value, label)| option(value, label, None)).collect();
        choice_set(&format!("{}_{name}", spec.table), &column.label, options)
    };
    match column.kind {
        TypeSpec::String => ColumnKind::Text {
            max: column.max.unwrap_or(100),
            format: column.format.clone().unwrap_or_else(|| "Text".to_owned()),
        },
        TypeSpec::Memo => ColumnKind::Memo { max: column.max.unwrap_or(2000) },
        TypeSpec::Integer => ColumnKind::Integer {
            min: number(column.min, f64::from(i32::MIN)) as i64,
            max: number(column.max_value, f64::from(i32::MAX)) as i64,
        },
        TypeSpec::Bigint => ColumnKind::BigInt,
        TypeSpec::Decimal => ColumnKind::Decimal {
            min: number(column.min, -DECIMAL_MAX),
            max: number(column.max_value, DECIMAL_MAX),
            precision: column.precision.unwrap_or(2),
        },
        TypeSpec::Double => ColumnKind::Double {
            min: number(column.min, -DECIMAL_MAX),
            max: number(column.max_value, DECIMAL_MAX),
            precision: column.precision.unwrap_or(2),
        },
        TypeSpec::Money => ColumnKind::Money {
            min: number(column.min, -MONEY_MAX),
            max: number(column.max_value, MONEY_MAX),
            precision: column.precision.unwrap_or(2),
            base: None,
            is_base: false,
        },
        TypeSpec::Boolean => ColumnKind::Boolean {
            true_label: column.true_label.clone().unwrap_or_else(|| "Yes".to_owned()),
            false_label: column.false_label.clone().unwrap_or_else(|| "No".to_owned()),
        },
        TypeSpec::Datetime => ColumnKind::DateTime {
            behavior: column.behavior,
            date_format: column.behavior == DateBehavior::DateOnly || column.format.as_deref() == Some("DateOnly"),
        },
        TypeSpec::Choice => ColumnKind::Choice { set: set() },
        TypeSpec::Choices => ColumnKind::Choices { set: set() },
        TypeSpec::Lookup => ColumnKind::Lookup { targets: Vec::new() },
        TypeSpec::Guid => ColumnKind::Guid,
        TypeSpec::EntityName => ColumnKind::EntityName,
        TypeSpec::File => ColumnKind::File { max_kb: column.max.unwrap_or(32_768) },
        TypeSpec::Image => ColumnKind::Image { max_kb: column.max.unwrap_or(10_240) },
        TypeSpec::PartyList => ColumnKind::PartyList { mask: column.mask },
    }
}

fn finish_table(schema: &mut Schema, table: TableId, spec: &TableSpec) -> Result<(), SpecError> {
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let find = |entry: &Table, name: &str| {
        let position = entry.columns.iter().position(|column| column.logical == name);
        position
            .map(|index| index as Ordinal)
            .ok_or_else(|| SpecError::UnknownColumn { table: spec.table.clone(), column: name.to_owned() })
    };
    if let Some(name) = &spec.primary_name {
        entry.primary_name = Some(find(entry, name)?);
    }
    for (name, columns) in &spec.keys {
        let columns = columns.iter().map(|column| find(entry, column)).collect::<Result<Vec<_>, _>>()?;
        let id = stable_id(&format!("{}.key.{name}", spec.table));
        let (schema_name, label) = (name.clone(), name.clone());
        entry.keys.push(AlternateKey { id, schema_name, label, columns, status: KeyStatus::Active });
    }
    entry.is_principal = spec.principal;
    entry.duplicates = spec.duplicates;
    entry.bulk = spec.bulk;
    entry.writable = spec.write;
    entry.close_action.clone_from(&spec.close);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starting_files_parse_and_refer_to_each_other() {
        let schema = starting_schema().unwrap();
        let incident = schema.by_logical("incident").unwrap();
        assert_eq!(incident.set_name, "incidents");
        assert!(incident.properties.contains_key("customerid_account"));
        assert!(incident.properties.contains_key("Incident_Tasks"));
        assert_eq!(schema.by_logical("task").unwrap().primary_id(), "activityid");
        assert!(schema.by_logical("account").unwrap().find("revenue_base").is_some());
    }
}
