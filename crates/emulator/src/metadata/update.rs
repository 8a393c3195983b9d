//! Definitions put in place of old ones, and PublishXml.
//!
//! Promise: what a definition may not change (its name, its type, its table) is compared and
//! refused; what cannot be turned off again stays on. With `MSCRM.MergeLabels: true` a label that
//! is not sent is kept, else it is cleared. Updates show at once to callers of the API; whether
//! the product shows them before publishing is UNVERIFIED. Left out: options, which have actions.

use std::sync::Arc;

use serde_json::Value as Json;

use super::columns::{column_kind, required_level};
use super::render;
use super::write::{body_of, change, given_label, kind_of, label_of};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::parse_xml;
use crate::schema::{Column, ColumnKind, DateBehavior, Label, Relationship, Schema, Table};
use crate::web::{Access, Answer, Call, Request};

/// Members that make the difference between a label kept and a label cleared.
struct Labels {
    merge: bool,
}

impl Labels {
    fn read(request: &Request) -> Self {
        let value = request.headers.get("mscrm.mergelabels").and_then(|value| value.to_str().ok());
        Labels { merge: value.is_some_and(|value| value.eq_ignore_ascii_case("true")) }
    }

    fn apply(&self, body: &Json, member: &str, label: &mut Label) {
        if !self.merge {
            *label = Label::default();
        }
        label.merge(&given_label(body, member));
    }
}

/// A flag of the definition, plain or as a managed property.
fn given(body: &Json, name: &str) -> Option<bool> {
    let value = body.get(name)?;
    value.as_bool().or_else(|| value.get("Value")?.as_bool())
}

fn turn_on(flag: &mut bool, body: &Json, name: &str) -> Result<(), ApiError> {
    match given(body, name) {
        Some(false) if *flag => Err(ApiError::bad_request(format!("{name} cannot be turned off again."))),
        Some(value) => {
            *flag = value;
            Ok(())
        }
        None => Ok(()),
    }
}

fn check_name(body: &Json, member: &str, name: &str) -> Result<(), ApiError> {
    match body.get(member).and_then(Json::as_str) {
        Some(found) if !found.eq_ignore_ascii_case(name) => {
            Err(ApiError::bad_request(format!("{member} '{found}' differs from '{name}', which cannot be changed.")))
        }
        _ => Ok(()),
    }
}

pub(super) fn put_table(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
) -> Result<Answer, ApiError> {
    let (body, labels, id) = (body_of(request)?, Labels::read(request), table.id);
    check_name(&body, "LogicalName", &table.logical)?;
    check_name(&body, "SchemaName", &table.schema_name)?;
    access.write(|database| {
        change(call, database, |schema| {
            let entry = Arc::make_mut(&mut schema.tables[usize::from(id)]);
            labels.apply(&body, "DisplayName", &mut entry.label);
            labels.apply(&body, "DisplayCollectionName", &mut entry.plural);
            labels.apply(&body, "Description", &mut entry.description);
            turn_on(&mut entry.change_tracking, &body, "ChangeTrackingEnabled")?;
            turn_on(&mut entry.has_notes, &body, "HasNotes")?;
            turn_on(&mut entry.has_activities, &body, "HasActivities")?;
            if let Some(detects) = given(&body, "IsDuplicateDetectionEnabled") {
                entry.duplicates = detects;
            }
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

pub(super) fn put_column(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let found = table.live_columns().find(|column| render::is_named(inner, column.id, "LogicalName", &column.logical));
    let column = found.ok_or_else(|| ApiError::no_resource(inner))?;
    let (body, labels, id, ordinal) = (body_of(request)?, Labels::read(request), table.id, column.ordinal);
    check_name(&body, "LogicalName", &column.logical)?;
    check_name(&body, "SchemaName", &column.schema_name)?;
    let (.., own_type) = render::type_names(column);
    if kind_of(&body) != own_type {
        let message = format!("The type of the attribute '{}' is {own_type} and cannot be changed.", column.logical);
        return Err(ApiError::bad_request(message));
    }
    access.write(|database| {
        change(call, database, |schema| {
            let kind = updated_kind(schema, schema.table(id).column(ordinal), &body)?;
            let entry = Arc::make_mut(&mut schema.tables[usize::from(id)]);
            let column = &mut entry.columns[usize::from(ordinal)];
            labels.apply(&body, "DisplayName", &mut column.label);
            labels.apply(&body, "Description", &mut column.description);
            if body.get("RequiredLevel").is_some() && column.is_custom {
                column.required = required_level(&body);
            }
            column.kind = kind;
            let default = body.get("DefaultValue").and_then(|value| value.as_bool().map(i64::from));
            let default = default.or_else(|| body.get("DefaultFormValue").and_then(Json::as_i64));
            if let Some(default) = default {
                column.default = (default >= 0).then_some(default);
            }
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

/// The kind a definition describes, with what only the stored one knows.
fn updated_kind(schema: &Schema, column: &Column, body: &Json) -> Result<ColumnKind, ApiError> {
    let keeps_options = |set: &crate::schema::OptionSet| {
        let mut set = set.clone();
        if let Some(given) = body.get("OptionSet").filter(|_| !set.is_global) {
            set.label = label_of(given, "DisplayName", &set.label);
        }
        set
    };
    Ok(match &column.kind {
        ColumnKind::Lookup { .. }
        | ColumnKind::State { .. }
        | ColumnKind::Guid
        | ColumnKind::BigInt
        | ColumnKind::EntityName
        | ColumnKind::PartyList { .. } => column.kind.clone(),
        ColumnKind::Choice { set } => ColumnKind::Choice { set: keeps_options(set) },
        ColumnKind::Choices { set } => ColumnKind::Choices { set: keeps_options(set) },
        ColumnKind::Status { set } => ColumnKind::Status { set: keeps_options(set) },
        old => {
            let new = column_kind(schema, body, &column.schema_name)?;
            check_change(column, old, &new)?;
            match (old, new) {
                (
                    ColumnKind::Money { base, is_base, .. },
                    ColumnKind::Money { min, max, precision, precision_source, .. },
                ) => ColumnKind::Money { min, max, precision, precision_source, base: *base, is_base: *is_base },
                (_, new) => new,
            }
        }
    })
}

/// UserLocal may turn once into another behaviour; nothing turns back.
fn check_change(column: &Column, old: &ColumnKind, new: &ColumnKind) -> Result<(), ApiError> {
    match (old, new) {
        (ColumnKind::DateTime { behavior: before, .. }, ColumnKind::DateTime { behavior: after, .. })
            if before != after && *before != DateBehavior::UserLocal =>
        {
            let message = format!("The behaviour of the attribute '{}' cannot be changed.", column.logical);
            Err(ApiError::bad_request(message))
        }
        _ => Ok(()),
    }
}

pub(super) fn put_relationship(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    inner: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    access.write(|database| {
        change(call, database, |schema| {
            let found = schema.relationships.iter_mut().find(|found| super::relationships::is_named(found, inner));
            match found.ok_or_else(|| ApiError::no_resource(inner))? {
                Relationship::OneToMany(one) => {
                    check_name(&body, "SchemaName", &one.schema_name)?;
                    if body.get("CascadeConfiguration").is_some() {
                        one.on_delete = super::relationships::cascade_of(&body);
                        one.follows = super::relationships::follows_of(&body)?;
                    }
                    if let Some(is_hierarchical) = given(&body, "IsHierarchical") {
                        one.is_hierarchical = is_hierarchical && one.referenced == one.referencing;
                    }
                }
                Relationship::ManyToMany(many) => check_name(&body, "SchemaName", &many.schema_name)?,
            }
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

pub(super) fn put_choice(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    inner: &str,
) -> Result<Answer, ApiError> {
    let (body, labels) = (body_of(request)?, Labels::read(request));
    access.write(|database| {
        change(call, database, |schema| {
            let found = schema.option_sets.iter_mut().find(|set| render::is_named(inner, set.id, "Name", &set.name));
            let set = found.ok_or_else(|| ApiError::no_resource(inner))?;
            check_name(&body, "Name", &set.name)?;
            labels.apply(&body, "DisplayName", &mut set.label);
            let set = set.clone();
            super::options::share(schema, &set);
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

/// `PublishXml` and `PublishAllXml`: nothing waits for them, but what they name must exist.
///
/// Nothing needs publishing here, and for the simulated seconds that a setting names it takes its time: another
/// publication meanwhile is refused with 429, which is no limit of the service and says nothing of one.
pub(crate) fn publish(
    call: &Call<'_>,
    access: &mut Access<'_>,
    schema: &Schema,
    request: &Request,
    name: &str,
) -> Result<Answer, ApiError> {
    if name == "PublishXml" {
        let body = body_of(request)?;
        let xml = super::write::text(&body, "ParameterXml")?;
        let document = parse_xml(xml)?;
        if document.root_element().tag_name().name() != "importexportxml" {
            let message = "ParameterXml is not valid: its root is not 'importexportxml'.";
            return Err(ApiError::new(Code::InvalidXml, message));
        }
        let entities = document.descendants().filter(|node| node.has_tag_name("entity"));
        for entity in entities.filter_map(|node| node.text()) {
            if schema.by_logical(entity.trim()).is_none() {
                let message = format!("The entity with a name = '{entity}' was not found in the MetadataCache.");
                return Err(ApiError::new(Code::NoSuchTable, message));
            }
        }
    }
    access.write(|database| {
        if database.publishing_until > call.now {
            let message = "Cannot start the requested operation [Publish] because there is another [Publish] running at this moment. \
                           Use Solution History for more details.";
            return Err(ApiError::new(Code::SolutionConcurrencyFailure, message));
        }
        database.publishing_until = call.now + call.settings.publish_s;
        Ok(())
    })?;
    Ok(Answer::no_content().with_work(Message::Metadata, 1))
}
