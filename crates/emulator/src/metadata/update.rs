//! Definitions put in the place of others, and relationships and choices deleted.
//!
//! Promise: a PUT carries the whole definition, as the product wants it; what it may not change
//! (a column's type, the tables of a relationship) is refused, what the stand-in does not keep is
//! ignored as it is on create. Left out: labels in other languages than 1033, so that
//! `MSCRM.MergeLabels` changes nothing; publishing, as definitions are in force at once (6.5).

use std::mem::discriminant;
use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::columns::{new_kind, required_of};
use super::relationships::cascade_of;
use super::render;
use super::write::{body_of, change, flag, label_of};
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, Relationship, Schema, Table};
use crate::web::{Access, Answer, Call, Request};

pub(super) fn update_table(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    access.write(|database| {
        change(call, database, |schema| {
            let table = Arc::make_mut(&mut schema.tables[usize::from(table.id)]);
            table.label = label_of(&body, "DisplayName", &table.label);
            table.plural = label_of(&body, "DisplayCollectionName", &table.plural);
            if table.change_tracking && body.get("ChangeTrackingEnabled") == Some(&Json::Bool(false)) {
                return Err(ApiError::bad_request("Change tracking cannot be turned off once it is on."));
            }
            // These turn on and never off again.
            table.change_tracking |= flag(&body, "ChangeTrackingEnabled");
            table.has_notes |= flag(&body, "HasNotes");
            table.has_activities |= flag(&body, "HasActivities");
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

pub(super) fn update_column(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let found = table.live_columns().find(|column| render::is_named(inner, column.id, "LogicalName", &column.logical));
    let ordinal = found.ok_or_else(|| ApiError::no_resource(inner))?.ordinal;
    access.write(|database| {
        change(call, database, |schema| {
            let column = schema.table(table.id).column(ordinal);
            let kind = changed_kind(schema, column, &body)?;
            let table = Arc::make_mut(&mut schema.tables[usize::from(table.id)]);
            let column = &mut table.columns[usize::from(ordinal)];
            column.kind = kind;
            column.label = label_of(&body, "DisplayName", &column.label);
            column.required = required_of(&body).unwrap_or(column.required);
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

/// The column's kind with the bounds and format of a definition.
fn changed_kind(schema: &Schema, column: &Column, body: &Json) -> Result<ColumnKind, ApiError> {
    let fixed = column.kind.options().is_some() || column.kind.is_lookup();
    if fixed || matches!(column.kind, ColumnKind::State { .. } | ColumnKind::EntityName | ColumnKind::PartyList { .. })
    {
        // Options have actions of their own; lookups change with their relationship.
        return Ok(column.kind.clone());
    }
    let mut kind = new_kind(schema, body, &column.schema_name)?;
    if discriminant(&kind) != discriminant(&column.kind) {
        let message = format!("The type of the attribute '{}' cannot be changed.", column.logical);
        return Err(ApiError::bad_request(message));
    }
    if let (ColumnKind::Money { base, is_base, .. }, ColumnKind::Money { base: kept, is_base: kept_base, .. }) =
        (&mut kind, &column.kind)
    {
        (*base, *is_base) = (*kept, *kept_base);
    }
    Ok(kind)
}

pub(super) fn update_relationship(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    inner: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    access.write(|database| {
        change(call, database, |schema| {
            let position = position(schema, inner)?;
            if let Relationship::OneToMany(one) = &mut schema.relationships[position] {
                if body.get("CascadeConfiguration").is_some() {
                    one.on_delete = cascade_of(&body);
                }
            }
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

pub(super) fn update_choice(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    inner: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    access.write(|database| {
        change(call, database, |schema| {
            let found = schema.option_sets.iter_mut().find(|set| render::is_named(inner, set.id, "Name", &set.name));
            let set = found.ok_or_else(|| missing("option set", inner))?;
            set.label = label_of(&body, "DisplayName", &set.label);
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

/// Deletes a relationship, and with it the lookup or the intersect table that it made.
pub(super) fn delete_relationship(call: &Call<'_>, access: &mut Access<'_>, inner: &str) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            let position = position(schema, inner)?;
            match &schema.relationships[position] {
                Relationship::OneToMany(one) if !one.is_custom => {
                    return Err(ApiError::new(Code::InvalidArgument, "A system relationship cannot be deleted."));
                }
                _ => {}
            }
            match schema.relationships.remove(position) {
                Relationship::OneToMany(one) => {
                    let table = Arc::make_mut(&mut schema.tables[usize::from(one.referencing)]);
                    let column = &mut table.columns[usize::from(one.column)];
                    if let ColumnKind::Lookup { targets } = &mut column.kind {
                        targets.retain(|target| target.table != one.referenced);
                        column.deleted = targets.is_empty();
                    }
                }
                Relationship::ManyToMany(many) => {
                    Arc::make_mut(&mut schema.tables[usize::from(many.intersect)]).deleted = true;
                }
            }
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

pub(super) fn delete_choice(call: &Call<'_>, access: &mut Access<'_>, inner: &str) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            let mut sets = schema.option_sets.iter();
            let found = sets.position(|set| render::is_named(inner, set.id, "Name", &set.name));
            let position = found.ok_or_else(|| missing("option set", inner))?;
            let id = schema.option_sets[position].id;
            if schema.live_tables().any(|table| uses(table, id)) {
                let message = "The choice cannot be deleted: columns refer to it.";
                return Err(ApiError::new(Code::InvalidArgument, message));
            }
            schema.option_sets.remove(position);
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

fn uses(table: &Table, option_set: Uuid) -> bool {
    table.live_columns().any(|column| match &column.kind {
        ColumnKind::Choice { set } | ColumnKind::Choices { set } => set.id == option_set,
        _ => false,
    })
}

fn position(schema: &Schema, inner: &str) -> Result<usize, ApiError> {
    let is_named = |relationship: &Relationship| {
        let (id, name) = match relationship {
            Relationship::OneToMany(one) => (one.id, &one.schema_name),
            Relationship::ManyToMany(many) => (many.id, &many.schema_name),
        };
        render::is_named(inner, id, "SchemaName", name)
    };
    schema.relationships.iter().position(is_named).ok_or_else(|| missing("relationship", inner))
}

fn missing(what: &str, inner: &str) -> ApiError {
    ApiError::new(Code::ObjectDoesNotExist, format!("Could not find the {what} {inner}."))
}
