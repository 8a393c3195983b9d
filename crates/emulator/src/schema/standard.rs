//! The columns that tables get by themselves: id, times, versions, state, owner, who wrote.
//!
//! Promise: the same columns in the same order on every start, so ordinals are stable.

use super::build::{NewColumn, add_lookup, choice_set, push_column};
use super::kinds::{ColumnKind, DateBehavior, IntegerFormat, Opt, Required, State};
use super::model::{Cascade, Ownership, Schema, Table, TableId};

/// Adds the primary id, and of the columns that tables get by themselves those named.
pub(super) fn add_standard_columns(table: &mut Table, named: Option<&[String]>) {
    let id_name = if table.is_activity { "ActivityId".to_owned() } else { format!("{}Id", table.schema_name) };
    let integer =
        || ColumnKind::Integer { min: i64::from(i32::MIN), max: i64::from(i32::MAX), format: IntegerFormat::None };
    let time = || ColumnKind::DateTime { behavior: DateBehavior::UserLocal, date_format: false };
    let mut id = NewColumn::system(&id_name, &table.label, ColumnKind::Guid);
    id.for_create = true;
    id.required = Required::System;
    push_column(table, id);
    let mut push = |new: NewColumn| {
        if named.is_none_or(|named| named.contains(&new.logical)) {
            push_column(table, new);
        }
    };
    push(NewColumn::system("CreatedOn", "Created On", time()));
    push(NewColumn::system("ModifiedOn", "Modified On", time()));
    push(NewColumn::system("VersionNumber", "Version Number", ColumnKind::BigInt));
    push(NewColumn::system("ImportSequenceNumber", "Import Sequence Number", integer()).writable());
    let date = ColumnKind::DateTime { behavior: DateBehavior::UserLocal, date_format: true };
    let mut overridden = NewColumn::system("OverriddenCreatedOn", "Record Created On", date);
    overridden.for_create = true;
    push(overridden);
    push(NewColumn::system("TimeZoneRuleVersionNumber", "Time Zone Rule Version Number", integer()).writable());
    push(NewColumn::system("UTCConversionTimeZoneCode", "UTC Conversion Time Zone Code", integer()).writable());
    add_elastic_columns(table);
}

fn add_elastic_columns(table: &mut Table) {
    if table.is_elastic {
        let integer =
            || ColumnKind::Integer { min: i64::from(i32::MIN), max: i64::from(i32::MAX), format: IntegerFormat::None };
        let mut partition =
            NewColumn::system("PartitionId", "Partition Id", ColumnKind::Text { max: 1024, format: "Text".into() });
        partition.for_create = true;
        push_column(table, partition);
        push_column(table, NewColumn::system("TTLInSeconds", "Time to live", integer()).writable());
    }
}

pub(super) fn add_state_columns(table: &mut Table, states: Vec<(State, Vec<Opt>)>) {
    if states.is_empty() {
        return;
    }
    let (states, options): (Vec<_>, Vec<_>) = states.into_iter().unzip();
    let set = choice_set(&format!("{}_statuscode", table.logical), &"Status Reason".into(), options.concat());
    let mut state = NewColumn::system("StateCode", "Status", ColumnKind::State { states }).writable();
    state.required = Required::System;
    push_column(table, state);
    push_column(table, NewColumn::system("StatusCode", "Status Reason", ColumnKind::Status { set }).writable());
}

/// Lookups every table has: who made and changed it, and who owns it.
pub(crate) fn add_system_lookups(schema: &mut Schema, tables: &[TableId]) {
    let find =
        |schema: &Schema, name: &str| schema.tables.iter().find(|table| table.logical == name).map(|table| table.id);
    let (Some(user), Some(team), Some(unit), Some(organization)) =
        (find(schema, "systemuser"), find(schema, "team"), find(schema, "businessunit"), find(schema, "organization"))
    else {
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
                add_owner_lookup(schema, *table);
                system_lookup(schema, *table, "OwningBusinessUnit", "Owning Business Unit", &[unit], false);
                system_lookup(schema, *table, "OwningUser", "Owning User", &[user], false);
                system_lookup(schema, *table, "OwningTeam", "Owning Team", &[team], false);
            }
            Ownership::Organization => {
                system_lookup(schema, *table, "OrganizationId", "Organization", &[organization], false);
            }
            Ownership::Business | Ownership::None => {}
        }
    }
}

/// The owner of a row, a user or a team, in tables whose rows have one.
pub(super) fn add_owner_lookup(schema: &mut Schema, table: TableId) {
    let find = |name: &str| schema.tables.iter().find(|table| table.logical == name).map(|table| table.id);
    if let (Some(user), Some(team), Ownership::User) = (find("systemuser"), find("team"), schema.table(table).ownership)
    {
        system_lookup(schema, table, "OwnerId", "Owner", &[user, team], true);
    }
}

fn system_lookup(schema: &mut Schema, table: TableId, name: &str, label: &str, targets: &[TableId], writable: bool) {
    // A starting file describes it more closely.
    if schema.table(table).columns.iter().any(|column| column.logical == name.to_lowercase()) {
        return;
    }
    let logical = schema.table(table).logical.clone();
    let targets: Vec<_> = targets
        .iter()
        .map(|target| {
            let relationship = format!("{}_{logical}_{}", schema.table(*target).logical, name.to_lowercase());
            (*target, name.to_lowercase(), relationship)
        })
        .collect();
    let mut column = NewColumn::system(name, label, ColumnKind::Lookup { targets: Vec::new() });
    if writable {
        column = column.writable();
        column.required = Required::System;
    }
    add_lookup(schema, table, column, &targets, Cascade::NoCascade);
}
