//! The schema of a new environment and of schema files: from their YAML to tables.
//!
//! Promise: lookups may point forwards, so the order of tables is free; an unknown target or
//! column is an error with its place.

use std::sync::{Arc, OnceLock};

use super::build::{
    DECIMAL_MAX, MONEY_MAX, NewColumn, NewTable, add_column, add_lookup, add_many_to_many, add_table, choice_set,
};
use super::kinds::{ColumnKind, DateBehavior, IntegerFormat, Opt, Required, State};
use super::label::Label;
use super::model::{AlternateKey, Cascade, KeyStatus, Ordinal, Relationship, Schema, Table, TableId};
use super::spec::{
    ColumnSpec, FullRelationshipSpec, RelationshipSpec, SpecError, TableSpec, TypeSpec, parse_table, parse_tables,
};
use super::stable_id;
use super::standard::{add_owner_lookup, add_system_lookups};

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
    "sharepointsite",
    "sharepointdocumentlocation",
    "fileattachment",
    "bulkdeleteoperation",
    "bulkdeletefailure",
    "duplicaterule",
    "duplicaterulecondition",
    "serviceendpoint",
    "sdkmessageprocessingstep",
    "sla",
    "slakpiinstance",
    "entitlement",
    "contract",
    "contractdetail",
    "equipment",
    "service",
    "territory",
    "pricelevel",
    "uom",
    "uomschedule",
    "kbarticle",
    "knowledgearticle",
    "socialprofile",
    "site",
    "position",
    "calendar",
    "mailbox",
    "template",
    "teamtemplate",
    "mobileofflineprofile",
    "emailserverprofile",
    "externalparty",
    "appointment",
    "letter",
    "fax",
    "role",
    "principalobjectaccess",
    "savedquery",
    "userquery",
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
    ("systemuserroles_association", "SystemUserRoles", "systemuserrolescollection", ["systemuser", "role"]),
    ("teamroles_association", "TeamRoles", "teamrolescollection", ["team", "role"]),
    (
        "entitlementcontacts_association",
        "EntitlementContacts",
        "entitlementcontactscollection",
        ["entitlement", "contact"],
    ),
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
        check_names(spec)?;
        added.push(add_table(schema, new_table(spec)));
    }
    for (spec, table) in specs.iter().zip(&added) {
        for (name, column) in &spec.columns.0 {
            add_spec_column(schema, *table, spec, name, column)?;
        }
    }
    for (spec, table) in specs.iter().zip(&added) {
        if spec.complete {
            add_owner_lookup(schema, *table);
        } else {
            add_system_lookups(schema, &[*table]);
        }
    }
    for (spec, table) in specs.iter().zip(&added) {
        finish_table(schema, *table, spec)?;
    }
    schema.reindex();
    Ok(())
}

/// Refuses names that documents, addresses and queries could not carry.
fn check_names(spec: &TableSpec) -> Result<(), SpecError> {
    let of_columns = spec.columns.0.iter().flat_map(|(name, column)| [name.as_str(), column.schema.as_str()]);
    let of_table = [Some(spec.table.as_str()), Some(&spec.schema), spec.set.as_deref(), spec.collection.as_deref()];
    let mut names = of_table.into_iter().flatten().chain(spec.keys.keys().map(String::as_str)).chain(of_columns);
    match names.find(|name| !super::is_identifier(name)) {
        Some(name) => Err(SpecError::Name { table: spec.table.clone(), name: name.to_owned() }),
        None => Ok(()),
    }
}

fn new_table(spec: &TableSpec) -> NewTable {
    let states = spec.states.iter().map(|state| {
        let options: Vec<Opt> =
            state.status.0.iter().map(|(value, label)| option(value, label, Some(state.value))).collect();
        let default_status = options.first().map_or(0, |option| option.value);
        (State { value: state.value, label: state.label.as_str().into(), default_status }, options)
    });
    NewTable {
        logical: spec.table.clone(),
        schema_name: spec.schema.clone(),
        set_name: spec.set.clone(),
        label: spec.label.as_str().into(),
        description: Label::default(),
        plural: spec.plural.as_str().into(),
        object_type_code: spec.code,
        ownership: spec.ownership,
        is_activity: spec.activity,
        is_elastic: spec.elastic,
        is_custom: spec.custom,
        has_notes: spec.notes,
        has_activities: spec.activities,
        change_tracking: spec.tracked,
        standard: spec.complete.then(|| spec.columns.0.iter().map(|(name, _)| name.clone()).collect()),
        states: states.collect(),
    }
}

fn option(value: &str, label: &str, state: Option<i32>) -> Opt {
    Opt { value: value.parse().unwrap_or_default(), label: label.into(), state }
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
        label: column.label.as_str().into(),
        description: Label::default(),
        kind: spec_kind(spec, name, column),
        required: column.required,
        is_custom: spec.custom,
        for_create: !column.read_only && !column.update_only,
        for_update: !column.read_only && !column.create_only,
        default: column.default,
    };
    let known = schema.table(table).columns.iter().find(|known| known.logical == *name).map(|known| known.ordinal);
    let ordinal = if let Some(ordinal) = known {
        describe(schema, table, ordinal, new);
        ordinal
    } else if column.kind == TypeSpec::Lookup {
        add_spec_lookup(schema, table, spec, (name, column), new)?
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

/// Describes a column that every table gets by itself more closely: the file's word counts.
fn describe(schema: &mut Schema, table: TableId, ordinal: Ordinal, new: NewColumn) {
    let column = &mut Arc::make_mut(&mut schema.tables[usize::from(table)]).columns[usize::from(ordinal)];
    column.schema_name = new.schema_name;
    column.label = new.label;
    if !matches!(new.kind, ColumnKind::State { .. }) {
        column.kind = new.kind;
    }
    column.required = new.required;
    (column.for_create, column.for_update) = (new.for_create, new.for_update);
}

fn add_spec_lookup(
    schema: &mut Schema,
    table: TableId,
    spec: &TableSpec,
    (name, column): (&str, &ColumnSpec),
    new: NewColumn,
) -> Result<Ordinal, SpecError> {
    let targets = spec_targets(schema, spec, name, column)?;
    let implied = if column.required == Required::System { Cascade::Cascade } else { Cascade::RemoveLink };
    let ordinal = add_lookup(schema, table, new, &targets, column.on_delete.unwrap_or(implied));
    let added = schema.relationships.iter_mut().rev().take(targets.len()).rev();
    for (relationship, target) in added.zip(&column.targets) {
        if let (Relationship::OneToMany(one), Some(RelationshipSpec::Full(full))) =
            (relationship, column.relationships.get(target))
        {
            one.on_delete = full.delete;
            one.follows.clone_from(&full.follows);
            if let Some(property) = &full.to_many {
                one.to_many.clone_from(property);
            }
        }
    }
    Ok(ordinal)
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
        let navigation = match column.relationships.get(target) {
            Some(RelationshipSpec::Full(FullRelationshipSpec { to_one: Some(property), .. })) => property.clone(),
            _ => navigation,
        };
        let relationship = match column.relationships.get(target) {
            Some(RelationshipSpec::Name(name)) => name.clone(),
            Some(RelationshipSpec::Full(full)) => full.name.clone(),
            None => format!("{target}_{}_{name}", spec.table),
        };
        targets.push((id, navigation, relationship));
    }
    Ok(targets)
}

fn spec_kind(spec: &TableSpec, name: &str, column: &ColumnSpec) -> ColumnKind {
    let number = |value: Option<f64>, otherwise: f64| value.unwrap_or(otherwise);
    let set = || {
        let options = column.options.0.iter().map(|(value, label)| option(value, label, None)).collect();
        choice_set(&format!("{}_{name}", spec.table), &column.label.as_str().into(), options)
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
            format: column.format.as_deref().and_then(IntegerFormat::named).unwrap_or_default(),
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
            precision_source: column.precision_source.unwrap_or(2),
            base: None,
            is_base: false,
        },
        TypeSpec::Boolean => ColumnKind::Boolean {
            true_label: column.true_label.as_deref().unwrap_or("Yes").into(),
            false_label: column.false_label.as_deref().unwrap_or("No").into(),
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
        // The states stand in a list of their own.
        TypeSpec::State => ColumnKind::State { states: Vec::new() },
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
        let (schema_name, label) = (name.clone(), name.as_str().into());
        entry.keys.push(AlternateKey { id, schema_name, label, columns, status: KeyStatus::Active });
    }
    entry.collection_name.clone_from(&spec.collection);
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
        let location = schema.by_logical("sharepointdocumentlocation").unwrap();
        assert!(location.properties.contains_key("parentsiteorlocation_sharepointsite"));
        assert_eq!(schema.by_logical("task").unwrap().primary_id(), "activityid");
        assert!(schema.by_logical("account").unwrap().find("revenue_base").is_some());
    }
}
