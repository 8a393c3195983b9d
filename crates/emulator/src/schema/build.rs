//! Builds schemas, each from the one before it.
//!
//! Promise: a table made here carries the columns the product adds by itself, in the same order
//! on every start, so ordinals and ids are stable. Left out: whether the caller may make it.

use std::sync::Arc;

use super::kinds::{ColumnKind, LookupTarget, Opt, OptionSet, Required, State};
use super::label::Label;
use super::model::{Cascade, Column, ManyToMany, OneToMany, Ordinal, Ownership, Relationship, Schema, Table, TableId};
use super::stable_id;
use super::standard::{add_standard_columns, add_state_columns};

/// First object type code of custom tables.
const CUSTOM_TYPE_CODE_MIN: i32 = 10_000;
/// Documented bounds of decimal and money columns.
pub(super) const DECIMAL_MAX: f64 = 100_000_000_000.0;
pub(super) const MONEY_MAX: f64 = 922_337_203_685_477.0;

/// A table to be made; the standard columns are added to it.
pub(crate) struct NewTable {
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) set_name: Option<String>,
    pub(crate) label: Label,
    pub(crate) plural: Label,
    pub(crate) description: Label,
    pub(crate) object_type_code: Option<i32>,
    pub(crate) ownership: Ownership,
    pub(crate) is_activity: bool,
    pub(crate) is_elastic: bool,
    pub(crate) is_custom: bool,
    pub(crate) has_notes: bool,
    pub(crate) has_activities: bool,
    pub(crate) change_tracking: bool,
    /// Which of the columns that every table gets by itself it has; all, where none are named.
    pub(crate) standard: Option<Vec<String>>,
    /// States with their status options; empty for tables without a state.
    pub(crate) states: Vec<(State, Vec<Opt>)>,
}

/// A column to be made.
pub(crate) struct NewColumn {
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) label: Label,
    pub(crate) description: Label,
    pub(crate) kind: ColumnKind,
    pub(crate) required: Required,
    pub(crate) is_custom: bool,
    pub(crate) for_create: bool,
    pub(crate) for_update: bool,
    pub(crate) default: Option<i64>,
}

impl NewColumn {
    /// A column of the server's own that callers only read.
    pub(super) fn system(schema_name: &str, label: &str, kind: ColumnKind) -> Self {
        NewColumn {
            logical: schema_name.to_lowercase(),
            schema_name: schema_name.to_owned(),
            label: label.into(),
            description: Label::default(),
            kind,
            required: Required::None,
            is_custom: false,
            for_create: false,
            for_update: false,
            default: None,
        }
    }

    pub(super) fn writable(mut self) -> Self {
        self.for_create = true;
        self.for_update = true;
        self
    }
}

/// Adds a table with its standard columns and returns its id. Lookups to users and the owner
/// follow in [`add_system_lookups`] for starting tables and here for later ones.
pub(crate) fn add_table(schema: &mut Schema, new: NewTable) -> TableId {
    let id = schema.tables.len() as TableId;
    let next_code =
        CUSTOM_TYPE_CODE_MIN.max(schema.tables.iter().map(|table| table.object_type_code + 1).max().unwrap_or(0));
    let set_name = new.set_name.unwrap_or_else(|| plural_of(&new.logical));
    let mut table = Table {
        id,
        metadata_id: stable_id(&new.logical),
        set_name,
        logical: new.logical,
        schema_name: new.schema_name,
        collection_name: None,
        label: new.label,
        plural: new.plural,
        description: new.description,
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
    add_standard_columns(&mut table, new.standard.as_deref());
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

/// A choice's local set of options.
pub(crate) fn choice_set(name: &str, label: &Label, options: Vec<Opt>) -> OptionSet {
    OptionSet {
        id: stable_id(&format!("set:{name}")),
        name: name.to_owned(),
        label: label.clone(),
        is_global: false,
        options,
    }
}

pub(super) fn push_column(table: &mut Table, new: NewColumn) -> Ordinal {
    if let Some(index) = table.columns.iter().position(|column| column.logical == new.logical && !column.deleted) {
        return index as Ordinal;
    }
    let ordinal = table.columns.len() as Ordinal;
    let wire = if new.kind.is_lookup() { format!("_{}_value", new.logical) } else { new.logical.clone() };
    table.columns.push(Column {
        id: stable_id(&format!("{}.{}", table.logical, new.logical)),
        ordinal,
        logical: new.logical,
        schema_name: new.schema_name,
        label: new.label,
        description: new.description,
        kind: new.kind,
        required: new.required,
        enforced: false,
        for_create: new.for_create,
        for_update: new.for_update,
        for_read: true,
        default: new.default,
        auto_number: None,
        is_custom: new.is_custom,
        deleted: false,
        wire,
    });
    ordinal
}

/// A column that comes with another: what its name ends in, and its kind.
type Part = (&'static str, fn() -> ColumnKind);

/// Adds a column, and for the first money column the currency columns, for each its base twin.
pub(crate) fn add_column(schema: &mut Schema, table: TableId, new: NewColumn) -> Ordinal {
    let is_money = matches!(new.kind, ColumnKind::Money { .. });
    let parts: &[Part] = match new.kind {
        ColumnKind::File { .. } => &[("_Name", || ColumnKind::Text { max: 512, format: "Text".to_owned() })],
        ColumnKind::Image { .. } => &[
            ("Id", || ColumnKind::Guid),
            ("_Timestamp", || ColumnKind::BigInt),
            ("_URL", || ColumnKind::Text { max: 200, format: "Url".to_owned() }),
        ],
        _ => &[],
    };
    let (schema_name, label, is_custom) = (new.schema_name.clone(), new.label.clone(), new.is_custom);
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let ordinal = push_column(entry, new);
    for (suffix, kind) in parts {
        let text = if *suffix == "Id" { &*label } else { "" };
        let mut part = NewColumn::system(&format!("{schema_name}{suffix}"), text, kind());
        part.is_custom = is_custom;
        push_column(entry, part);
    }
    schema.version += 1;
    if is_money {
        add_base_column(entry, ordinal, &schema_name, &label, is_custom);
        if !entry.columns.iter().any(|column| column.logical == "exchangerate") {
            let rate = ColumnKind::Decimal { min: 0.0, max: DECIMAL_MAX, precision: 10 };
            push_column(entry, NewColumn::system("ExchangeRate", "Exchange Rate", rate));
        }
        add_currency_lookup(schema, table);
    }
    ordinal
}

fn add_base_column(table: &mut Table, money: Ordinal, schema_name: &str, label: &str, is_custom: bool) {
    let kind = ColumnKind::Money {
        min: -MONEY_MAX,
        max: MONEY_MAX,
        precision: 4,
        precision_source: 2,
        base: None,
        is_base: true,
    };
    let mut base = NewColumn::system(&format!("{schema_name}_Base"), &format!("{label} (Base)"), kind);
    base.is_custom = is_custom;
    let twin = push_column(table, base);
    if let ColumnKind::Money { base, .. } = &mut table.columns[usize::from(money)].kind {
        *base = Some(twin);
    }
}

fn add_currency_lookup(schema: &mut Schema, table: TableId) {
    let has = schema.table(table).columns.iter().any(|column| column.logical == "transactioncurrencyid");
    let Some(currency) =
        schema.tables.iter().find(|table| table.logical == "transactioncurrency").map(|table| table.id)
    else {
        return;
    };
    if !has {
        let name = format!("TransactionCurrency_{}", schema.table(table).schema_name);
        let mut column =
            NewColumn::system("TransactionCurrencyId", "Currency", ColumnKind::Lookup { targets: Vec::new() });
        column = column.writable();
        add_lookup(schema, table, column, &[(currency, "transactioncurrencyid".into(), name)], Cascade::NoCascade);
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
            .map(|(table, navigation, _)| LookupTarget { table: *table, navigation: navigation.clone() })
            .collect(),
    };
    let column = push_column(Arc::make_mut(&mut schema.tables[usize::from(table)]), new);
    for (target, navigation, name) in targets {
        schema.relationships.push(Relationship::OneToMany(OneToMany {
            id: stable_id(&format!("relationship:{name}")),
            schema_name: name.clone(),
            referenced: *target,
            referencing: table,
            column,
            to_one: navigation.clone(),
            to_many: name.clone(),
            on_delete,
            follows: Vec::new(),
            is_custom,
            is_hierarchical: is_hierarchy(name),
        }));
    }
    schema.version += 1;
    column
}

/// Adds what every activity has: the columns of `activitypointer`, the regarding row, parties.
pub(crate) fn add_activity_columns(schema: &mut Schema, table: TableId) {
    let find = |schema: &Schema, name: &str| schema.tables.iter().find(|table| table.logical == name).map(Arc::clone);
    let (Some(pointer), Some(parties)) = (find(schema, "activitypointer"), find(schema, "activityparty")) else {
        return;
    };
    let logical = schema.table(table).logical.clone();
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    for column in pointer.live_columns().filter(|column| !column.kind.is_lookup()) {
        let mut new = NewColumn::system(&column.schema_name, &column.label, column.kind.clone());
        (new.for_create, new.for_update) = (column.for_create, column.for_update);
        (new.required, new.default) = (column.required, column.default);
        push_column(entry, new);
    }
    if let Some(ColumnKind::Lookup { targets }) = pointer.find("regardingobjectid").map(|column| &column.kind) {
        let targets: Vec<_> = targets
            .iter()
            .map(|target| {
                let name = &schema.table(target.table).logical;
                (target.table, format!("regardingobjectid_{name}_{logical}"), format!("{name}_{logical}s"))
            })
            .collect();
        let new = NewColumn::system("RegardingObjectId", "Regarding", ColumnKind::Lookup { targets: Vec::new() });
        add_lookup(schema, table, new.writable(), &targets, Cascade::Cascade);
    }
    if let Some(of) = parties.ordinal("activityid") {
        let (name, navigation) = (format!("{logical}_activity_parties"), format!("activityid_{logical}"));
        add_lookup_target(schema, parties.id, of, table, &name, Some(&navigation), Cascade::Cascade);
    }
}

/// Gives a lookup a further table to point at.
pub(crate) fn add_lookup_target(
    schema: &mut Schema,
    table: TableId,
    column: Ordinal,
    target: TableId,
    name: &str,
    navigation: Option<&str>,
    on_delete: Cascade,
) {
    let logical = schema.table(target).logical.clone();
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    let lookup = &mut entry.columns[usize::from(column)];
    let navigation = navigation.map_or_else(|| format!("{}_{logical}", lookup.schema_name), str::to_owned);
    let is_custom = lookup.is_custom;
    if let ColumnKind::Lookup { targets } = &mut lookup.kind {
        targets.push(LookupTarget { table: target, navigation: navigation.clone() });
    }
    schema.relationships.push(Relationship::OneToMany(OneToMany {
        id: stable_id(&format!("relationship:{name}")),
        schema_name: name.to_owned(),
        referenced: target,
        referencing: table,
        column,
        to_one: navigation,
        to_many: name.to_owned(),
        on_delete,
        follows: Vec::new(),
        is_custom,
        is_hierarchical: false,
    }));
    schema.version += 1;
}

/// The product's own hierarchies; custom ones say so in their definition.
fn is_hierarchy(relationship: &str) -> bool {
    matches!(
        relationship,
        "account_parent_account" | "user_parent_user" | "business_unit_parent_business_unit" | "product_parent_product"
    )
}

/// Adds an intersect table and the relationship that hides it.
pub(crate) fn add_many_to_many(
    schema: &mut Schema,
    schema_name: &str,
    intersect: &str,
    tables: [TableId; 2],
    navigation: [String; 2],
) -> TableId {
    let new = NewTable {
        logical: intersect.to_lowercase(),
        schema_name: intersect.to_owned(),
        set_name: Some(format!("{}set", intersect.to_lowercase())),
        label: intersect.into(),
        plural: intersect.into(),
        description: Label::default(),
        object_type_code: None,
        ownership: Ownership::None,
        is_activity: false,
        is_elastic: false,
        is_custom: true,
        has_notes: false,
        has_activities: false,
        change_tracking: false,
        standard: Some(["versionnumber"].map(str::to_owned).to_vec()),
        states: Vec::new(),
    };
    let id = add_table(schema, new);
    let names = tables.map(|table| schema.table(table).primary_id().to_owned());
    let entry = Arc::make_mut(&mut schema.tables[usize::from(id)]);
    entry.is_intersect = true;
    entry.writable = false;
    entry.bulk = false;
    // A table related to itself needs two names for its two sides.
    let second = if names[0] == names[1] { format!("{}two", names[1]) } else { names[1].clone() };
    let columns = [&names[0], &second].map(|name| push_column(entry, NewColumn::system(name, name, ColumnKind::Guid)));
    let relationship = ManyToMany {
        id: stable_id(&format!("relationship:{schema_name}")),
        schema_name: schema_name.to_owned(),
        intersect: id,
        tables,
        columns,
        navigation,
    };
    schema.relationships.push(Relationship::ManyToMany(relationship));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_names_follow_english_plurals() {
        assert_eq!(plural_of("wr_order"), "wr_orders");
        assert_eq!(plural_of("wr_category"), "wr_categories");
        assert_eq!(plural_of("wr_key"), "wr_keys");
        assert_eq!(plural_of("wr_branch"), "wr_branches");
    }
}
