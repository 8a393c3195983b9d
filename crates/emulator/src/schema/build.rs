//! Builds schemas: the starting one from its files, and each later one from the last.
//!
//! Promise: a table made here carries the columns the product adds by itself, in the same order
//! on every start, so ordinals and ids are stable. Left out: whether the caller may make it.

use std::sync::{Arc, OnceLock};

use super::model::{
    AlternateKey, Cascade, Column, ColumnKind, DateBehavior, KeyStatus, Label, LookupTarget,
    ManyToMany, OneToMany, Opt, OptionSet, Ordinal, Ownership, Relationship, Required, Schema,
    State, Table, TableId,
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
    "bulkdeletefailure",
    "duplicaterule",
    "duplicaterulecondition",
    "serviceendpoint",
    "sdkmessageprocessingstep",
];

/// First object type code of custom tables.
const CUSTOM_TYPE_CODE_MIN: i32 = 10_000;
/// Documented bounds of decimal and money columns.
const DECIMAL_MAX: f64 = 100_000_000_000.0;
const MONEY_MAX: f64 = 922_337_203_685_477.0;

/// A table to be made; the standard columns are added to it.
pub(crate) struct NewTable {
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) set_name: Option<String>,
    pub(crate) label: Label,
    pub(crate) plural: Label,
    pub(crate) object_type_code: Option<i32>,
    pub(crate) ownership: Ownership,
    pub(crate) is_activity: bool,
    pub(crate) is_elastic: bool,
    pub(crate) is_custom: bool,
    pub(crate) has_notes: bool,
    pub(crate) has_activities: bool,
    pub(crate) change_tracking: bool,
    /// States with their status options; empty for tables without a state.
    pub(crate) states: Vec<(State, Vec<Opt>)>,
}

/// A column to be made.
pub(crate) struct NewColumn {
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) label: Label,
    pub(crate) kind: ColumnKind,
    pub(crate) required: Required,
    pub(crate) is_custom: bool,
    pub(crate) for_create: bool,
    pub(crate) for_update: bool,
    pub(crate) default: Option<i64>,
}

impl NewColumn {
    /// A column of the server's own that callers only read.
    fn system(schema_name: &str, label: &str, kind: ColumnKind) -> Self {
        NewColumn {
            logical: schema_name.to_lowercase(),
            schema_name: schema_name.to_owned(),
            label: label.to_owned(),
            kind,
            required: Required::None,
            is_custom: false,
            for_create: false,
            for_update: false,
            default: None,
        }
    }

    fn writable(mut self) -> Self {
        self.for_create = true;
        self.for_update = true;
        self
    }
}

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
    Ok(PARSED.get_or_init(|| schema).clone())
}

/// Adds the tables of a schema file: `tables:` and a list in the form of the starting ones.
pub(crate) fn extend_from_file(
    schema: &mut Schema,
    file: &str,
    text: &str,
) -> Result<(), SpecError> {
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
        let options: Vec<Opt> = state
            .status
            .0
            .iter()
            .map(|(value, label)| option(value, label, Some(state.value)))
            .collect();
        let default_status = options.first().map_or(0, |option| option.value);
        (
            State {
                value: state.value,
                label: state.label.clone(),
                default_status,
            },
            options,
        )
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
    Opt {
        value: value.parse().unwrap_or_default(),
        label: label.to_owned(),
        state,
    }
}

/// Adds a table with its standard columns and returns its id. Lookups to users and the owner
/// follow in [`add_system_lookups`] for starting tables and here for later ones.
pub(crate) fn add_table(schema: &mut Schema, new: NewTable) -> TableId {
    let id = schema.tables.len() as TableId;
    let next_code = CUSTOM_TYPE_CODE_MIN.max(
        schema
            .tables
            .iter()
            .map(|table| table.object_type_code + 1)
            .max()
            .unwrap_or(0),
    );
    let set_name = new.set_name.unwrap_or_else(|| plural_of(&new.logical));
    let mut table = Table {
        id,
        metadata_id: stable_id(&new.logical),
        set_name,
        logical: new.logical,
        schema_name: new.schema_name,
        label: new.label,
        plural: new.plural,
        object_type_code: new.object_type_code.unwrap_or(next_code),
        primary_name: None,
        ownership: new.ownership,
        is_activity: new.is_activity,
        is_elastic: new.is_elastic,
        is_custom: new.is_custom,
        is_principal: false,
        is_intersect: false,
        has_notes: new.has_notes,
        has_activities: new.has_activities,
        duplicates: false,
        change_tracking: new.change_tracking,
        optimistic: !new.is_elastic,
        bulk: true,
        writable: true,
        close_action: None,
        deleted: false,
        columns: Vec::new(),
        keys: Vec::new(),
        properties: hashbrown::HashMap::new(),
        logical_names: hashbrown::HashMap::new(),
        odata_type: String::new(),
        known: super::Known::default(),
        defaults: Vec::new(),
    };
    add_standard_columns(&mut table);
    add_state_columns(&mut table, new.states);
    schema.tables.push(Arc::new(table));
    schema.version += 1;
    id
}

/// The set name the product derives: the English plural of the logical name.
fn plural_of(logical: &str) -> String {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| logical.ends_with(suffix));
    if ends(&["ay", "ey", "oy", "uy"]) {
        return format!("{logical}s");
    }
    match logical.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if ends(&["s", "x", "z", "ch", "sh"]) => format!("{logical}es"),
        None => format!("{logical}s"),
    }
}

fn add_standard_columns(table: &mut Table) {
    let id_name = if table.is_activity {
        "ActivityId".to_owned()
    } else {
        format!("{}Id", table.schema_name)
    };
    let integer = || ColumnKind::Integer {
        min: i64::from(i32::MIN),
        max: i64::from(i32::MAX),
    };
    let time = || ColumnKind::DateTime {
        behavior: DateBehavior::UserLocal,
        date_format: false,
    };
    let mut id = NewColumn::system(&id_name, &table.label, ColumnKind::Guid);
    id.for_create = true;
    id.required = Required::System;
    push_column(table, id);
    push_column(table, NewColumn::system("CreatedOn", "Created On", time()));
    push_column(
        table,
        NewColumn::system("ModifiedOn", "Modified On", time()),
    );
    push_column(
        table,
        NewColumn::system("VersionNumber", "Version Number", ColumnKind::BigInt),
    );
    push_column(
        table,
        NewColumn::system("ImportSequenceNumber", "Import Sequence Number", integer()).writable(),
    );
    let date = ColumnKind::DateTime {
        behavior: DateBehavior::UserLocal,
        date_format: true,
    };
    let mut overridden = NewColumn::system("OverriddenCreatedOn", "Record Created On", date);
    overridden.for_create = true;
    push_column(table, overridden);
    push_column(
        table,
        NewColumn::system(
            "TimeZoneRuleVersionNumber",
            "Time Zone Rule Version Number",
            integer(),
        )
        .writable(),
    );
    push_column(
        table,
        NewColumn::system(
            "UTCConversionTimeZoneCode",
            "UTC Conversion Time Zone Code",
            integer(),
        )
        .writable(),
    );
    add_elastic_columns(table);
}

fn add_elastic_columns(table: &mut Table) {
    if table.is_elastic {
        let integer = || ColumnKind::Integer {
            min: i64::from(i32::MIN),
            max: i64::from(i32::MAX),
        };
        let mut partition = NewColumn::system(
            "PartitionId",
            "Partition Id",
            ColumnKind::Text {
                max: 1024,
                format: "Text".into(),
            },
        );
        partition.for_create = true;
        push_column(table, partition);
        push_column(
            table,
            NewColumn::system("TTLInSeconds", "Time to live", integer()).writable(),
        );
    }
}

fn add_state_columns(table: &mut Table, states: Vec<(State, Vec<Opt>)>) {
    if states.is_empty() {
        return;
    }
    let (states, options): (Vec<_>, Vec<_>) = states.into_iter().unzip();
    let set = choice_set(
        &format!("{}_statuscode", table.logical),
        "Status Reason",
        options.concat(),
    );
    let mut state =
        NewColumn::system("StateCode", "Status", ColumnKind::State { states }).writable();
    state.required = Required::System;
    push_column(table, state);
    push_column(
        table,
        NewColumn::system("StatusCode", "Status Reason", ColumnKind::Status { set }).writable(),
    );
}

/// A choice's local set of options.
pub(crate) fn choice_set(name: &str, label: &str, options: Vec<Opt>) -> OptionSet {
    OptionSet {
        id: stable_id(&format!("set:{name}")),
        name: name.to_owned(),
        label: label.to_owned(),
        is_global: false,
        options,
    }
}

fn push_column(table: &mut Table, new: NewColumn) -> Ordinal {
    // A starting file may describe a standard column more closely: the later word counts.
    if let Some(index) = table
        .columns
        .iter()
        .position(|column| column.logical == new.logical && !column.deleted)
    {
        return index as Ordinal;
    }
    let ordinal = table.columns.len() as Ordinal;
    let wire = if new.kind.is_lookup() {
        format!("_{}_value", new.logical)
    } else {
        new.logical.clone()
    };
    table.columns.push(Column {
        id: stable_id(&format!("{}.{}", table.logical, new.logical)),
        ordinal,
        logical: new.logical,
        schema_name: new.schema_name,
        label: new.label,
        kind: new.kind,
        required: new.required,
        enforced: false,
        for_create: new.for_create,
        for_update: new.for_update,
        default: new.default,
        auto_number: None,
        is_custom: new.is_custom,
        deleted: false,
        wire,
    });
    ordinal
}

/// Adds a column, and for the first money column the currency columns, for each its base twin.
pub(crate) fn add_column(schema: &mut Schema, table: TableId, new: NewColumn) -> Ordinal {
    let is_money = matches!(new.kind, ColumnKind::Money { .. });
    let (schema_name, label, is_custom) =
        (new.schema_name.clone(), new.label.clone(), new.is_custom);
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let ordinal = push_column(entry, new);
    schema.version += 1;
    if is_money {
        add_base_column(entry, ordinal, &schema_name, &label, is_custom);
        if !entry
            .columns
            .iter()
            .any(|column| column.logical == "exchangerate")
        {
            let rate = ColumnKind::Decimal {
                min: 0.0,
                max: DECIMAL_MAX,
                precision: 10,
            };
            push_column(
                entry,
                NewColumn::system("ExchangeRate", "Exchange Rate", rate),
            );
        }
        add_currency_lookup(schema, table);
    }
    ordinal
}

fn add_base_column(
    table: &mut Table,
    money: Ordinal,
    schema_name: &str,
    label: &str,
    is_custom: bool,
) {
    let kind = ColumnKind::Money {
        min: -MONEY_MAX,
        max: MONEY_MAX,
        precision: 4,
        base: None,
        is_base: true,
    };
    let mut base = NewColumn::system(
        &format!("{schema_name}_Base"),
        &format!("{label} (Base)"),
        kind,
    );
    base.is_custom = is_custom;
    let twin = push_column(table, base);
    if let ColumnKind::Money { base, .. } = &mut table.columns[usize::from(money)].kind {
        *base = Some(twin);
    }
}

fn add_currency_lookup(schema: &mut Schema, table: TableId) {
    let has = schema
        .table(table)
        .columns
        .iter()
        .any(|column| column.logical == "transactioncurrencyid");
    let Some(currency) = schema
        .tables
        .iter()
        .find(|table| table.logical == "transactioncurrency")
        .map(|table| table.id)
    else {
        return;
    };
    if !has {
        let name = format!("TransactionCurrency_{}", schema.table(table).schema_name);
        let mut column = NewColumn::system(
            "TransactionCurrencyId",
            "Currency",
            ColumnKind::Lookup {
                targets: Vec::new(),
            },
        );
        column = column.writable();
        add_lookup(
            schema,
            table,
            column,
            &[(currency, "transactioncurrencyid".into(), name)],
            Cascade::NoCascade,
        );
    }
}

/// Adds a lookup with one relationship per target: (table, navigation property, schema name).
pub(crate) fn add_lookup(
    schema: &mut Schema,
    table: TableId,
    mut new: NewColumn,
    targets: &[(TableId, String, String)],
    on_delete: Cascade,
) -> Ordinal {
    let is_custom = new.is_custom;
    new.kind = ColumnKind::Lookup {
        targets: targets
            .iter()
            .map(|(table, navigation, _)| LookupTarget {
                table: *table,
                navigation: navigation.clone(),
            })
            .collect(),
    };
    let column = push_column(Arc::make_mut(&mut schema.tables[usize::from(table)]), new);
    for (target, navigation, name) in targets {
        schema
            .relationships
            .push(Relationship::OneToMany(OneToMany {
                id: stable_id(&format!("relationship:{name}")),
                schema_name: name.clone(),
                referenced: *target,
                referencing: table,
                column,
                to_one: navigation.clone(),
                to_many: name.clone(),
                on_delete,
                is_custom,
            }));
    }
    schema.version += 1;
    column
}

/// Adds an intersect table and the relationship that hides it.
pub(crate) fn add_many_to_many(
    schema: &mut Schema,
    schema_name: &str,
    intersect: &str,
    tables: [TableId; 2],
    navigation: [String; 2],
) {
    let new = NewTable {
        logical: intersect.to_lowercase(),
        schema_name: intersect.to_owned(),
        set_name: Some(format!("{}set", intersect.to_lowercase())),
        label: intersect.to_owned(),
        plural: intersect.to_owned(),
        object_type_code: None,
        ownership: Ownership::None,
        is_activity: false,
        is_elastic: false,
        is_custom: true,
        has_notes: false,
        has_activities: false,
        change_tracking: false,
        states: Vec::new(),
    };
    let id = add_table(schema, new);
    let names = tables.map(|table| schema.table(table).primary_id().to_owned());
    let entry = Arc::make_mut(&mut schema.tables[usize::from(id)]);
    entry.is_intersect = true;
    entry.writable = false;
    entry.bulk = false;
    // A table related to itself needs two names for its two sides.
    let second = if names[0] == names[1] {
        format!("{}two", names[1])
    } else {
        names[1].clone()
    };
    let columns = [&names[0], &second]
        .map(|name| push_column(entry, NewColumn::system(name, name, ColumnKind::Guid)));
    let relationship = ManyToMany {
        id: stable_id(&format!("relationship:{schema_name}")),
        schema_name: schema_name.to_owned(),
        intersect: id,
        tables,
        columns,
        navigation,
    };
    schema
        .relationships
        .push(Relationship::ManyToMany(relationship));
}

/// Lookups every table has: who made and changed it, and who owns it.
pub(crate) fn add_system_lookups(schema: &mut Schema, tables: &[TableId]) {
    let find = |schema: &Schema, name: &str| {
        schema
            .tables
            .iter()
            .find(|table| table.logical == name)
            .map(|table| table.id)
    };
    let (Some(user), Some(team), Some(unit), Some(organization)) = (
        find(schema, "systemuser"),
        find(schema, "team"),
        find(schema, "businessunit"),
        find(schema, "organization"),
    ) else {
        return;
    };
    for table in tables {
        let ownership = schema.table(*table).ownership;
        for (name, label) in [
            ("CreatedBy", "Created By"),
            ("CreatedOnBehalfBy", "Created By (Delegate)"),
            ("ModifiedBy", "Modified By"),
            ("ModifiedOnBehalfBy", "Modified By (Delegate)"),
        ] {
            system_lookup(schema, *table, name, label, &[user], false);
        }
        match ownership {
            Ownership::User => {
                system_lookup(schema, *table, "OwnerId", "Owner", &[user, team], true);
                system_lookup(
                    schema,
                    *table,
                    "OwningBusinessUnit",
                    "Owning Business Unit",
                    &[unit],
                    false,
                );
                system_lookup(schema, *table, "OwningUser", "Owning User", &[user], false);
                system_lookup(schema, *table, "OwningTeam", "Owning Team", &[team], false);
            }
            Ownership::Organization => system_lookup(
                schema,
                *table,
                "OrganizationId",
                "Organization",
                &[organization],
                false,
            ),
            Ownership::None => {}
        }
    }
}

fn system_lookup(
    schema: &mut Schema,
    table: TableId,
    name: &str,
    label: &str,
    targets: &[TableId],
    writable: bool,
) {
    let logical = schema.table(table).logical.clone();
    let targets: Vec<_> = targets
        .iter()
        .map(|target| {
            let relationship = format!(
                "{}_{logical}_{}",
                schema.table(*target).logical,
                name.to_lowercase()
            );
            (*target, name.to_lowercase(), relationship)
        })
        .collect();
    let mut column = NewColumn::system(
        name,
        label,
        ColumnKind::Lookup {
            targets: Vec::new(),
        },
    );
    if writable {
        column = column.writable();
        column.required = Required::System;
    }
    add_lookup(schema, table, column, &targets, Cascade::NoCascade);
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
        let on_delete = if column.required == Required::System {
            Cascade::Cascade
        } else {
            Cascade::RemoveLink
        };
        add_lookup(schema, table, new, &targets, on_delete)
    } else {
        add_column(schema, table, new)
    };
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let made = &mut entry.columns[usize::from(ordinal)];
    made.enforced = column.enforced;
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
        let id = schema
            .tables
            .iter()
            .find(|table| table.logical == *target)
            .map(|table| table.id);
        let id = id.ok_or_else(|| SpecError::UnknownTarget {
            table: spec.table.clone(),
            column: name.to_owned(),
            target: target.clone(),
        })?;
        let navigation = match (
            column.targets.len(),
            name == "regardingobjectid" && spec.activity,
        ) {
            (1, _) => base.to_owned(),
            (_, true) => format!("{base}_{target}_{}", spec.table),
            (_, false) => format!("{base}_{target}"),
        };
        let relationship = column.relationships.get(target).cloned();
        targets.push((
            id,
            navigation,
            relationship.unwrap_or_else(|| format!("{target}_{}_{name}", spec.table)),
        ));
    }
    Ok(targets)
}

fn spec_kind(spec: &TableSpec, name: &str, column: &ColumnSpec) -> ColumnKind {
    let number = |value: Option<f64>, otherwise: f64| value.unwrap_or(otherwise);
    let set = || {
        let options = column
            .options
            .0
            .iter()
            .map(|(value, label)| option(value, label, None))
            .collect();
        choice_set(&format!("{}_{name}", spec.table), &column.label, options)
    };
    match column.kind {
        TypeSpec::String => ColumnKind::Text {
            max: column.max.unwrap_or(100),
            format: column.format.clone().unwrap_or_else(|| "Text".to_owned()),
        },
        TypeSpec::Memo => ColumnKind::Memo {
            max: column.max.unwrap_or(2000),
        },
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
            true_label: column
                .true_label
                .clone()
                .unwrap_or_else(|| "Yes".to_owned()),
            false_label: column
                .false_label
                .clone()
                .unwrap_or_else(|| "No".to_owned()),
        },
        TypeSpec::Datetime => ColumnKind::DateTime {
            behavior: column.behavior,
            date_format: column.behavior == DateBehavior::DateOnly
                || column.format.as_deref() == Some("DateOnly"),
        },
        TypeSpec::Choice => ColumnKind::Choice { set: set() },
        TypeSpec::Choices => ColumnKind::Choices { set: set() },
        TypeSpec::Lookup => ColumnKind::Lookup {
            targets: Vec::new(),
        },
        TypeSpec::Guid => ColumnKind::Guid,
        TypeSpec::EntityName => ColumnKind::EntityName,
        TypeSpec::File => ColumnKind::File {
            max_kb: column.max.unwrap_or(32_768),
        },
        TypeSpec::Image => ColumnKind::Image {
            max_kb: column.max.unwrap_or(10_240),
        },
        TypeSpec::PartyList => ColumnKind::PartyList { mask: column.mask },
    }
}

fn finish_table(schema: &mut Schema, table: TableId, spec: &TableSpec) -> Result<(), SpecError> {
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let find = |entry: &Table, name: &str| {
        let position = entry
            .columns
            .iter()
            .position(|column| column.logical == name);
        position
            .map(|index| index as Ordinal)
            .ok_or_else(|| SpecError::UnknownColumn {
                table: spec.table.clone(),
                column: name.to_owned(),
            })
    };
    if let Some(name) = &spec.primary_name {
        entry.primary_name = Some(find(entry, name)?);
    }
    for (name, columns) in &spec.keys {
        let columns = columns
            .iter()
            .map(|column| find(entry, column))
            .collect::<Result<Vec<_>, _>>()?;
        let id = stable_id(&format!("{}.key.{name}", spec.table));
        let (schema_name, label) = (name.clone(), name.clone());
        entry.keys.push(AlternateKey {
            id,
            schema_name,
            label,
            columns,
            status: KeyStatus::Active,
        });
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
        assert_eq!(
            schema.by_logical("task").unwrap().primary_id(),
            "activityid"
        );
        assert!(
            schema
                .by_logical("account")
                .unwrap()
                .find("revenue_base")
                .is_some()
        );
    }

    #[test]
    fn set_names_follow_english_plurals() {
        assert_eq!(plural_of("wr_order"), "wr_orders");
        assert_eq!(plural_of("wr_category"), "wr_categories");
        assert_eq!(plural_of("wr_key"), "wr_keys");
        assert_eq!(plural_of("wr_branch"), "wr_branches");
    }
}
