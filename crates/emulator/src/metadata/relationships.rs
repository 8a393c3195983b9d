//! Relationships posted as definitions, with the lookups they bring.
//!
//! Promise: navigation names follow the product's defaults. Left out: cascades that choose
//! among rows (`Active`, `UserOwned`), which are refused by name.

use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::render;
use super::write::{
    add_component, body_of, change, created, given_label, kind_of, label_of, optional_name, require_prefix, solution,
    text,
};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::schema::{
    Cascade, ColumnKind, Follow, Follows, NewColumn, Ordinal, Relationship, Required, Schema, TableId, add_lookup,
    add_lookup_target, add_many_to_many, stable_id,
};
use crate::web::{Access, Answer, Call, Request};

pub(super) fn cascade_of(body: &Json) -> Cascade {
    match body.get("CascadeConfiguration").and_then(|config| config.get("Delete")).and_then(Json::as_str) {
        Some("Cascade") => Cascade::Cascade,
        Some("Restrict") => Cascade::Restrict,
        Some("NoCascade") => Cascade::NoCascade,
        _ => Cascade::RemoveLink,
    }
}

/// The operations that a definition's rows follow. `Active` and `UserOwned`, which choose among
/// the rows, are not offered.
pub(super) fn follows_of(body: &Json) -> Result<Follows, ApiError> {
    let operations = [
        ("Assign", Follow::Assign),
        ("Merge", Follow::Merge),
        ("Reparent", Follow::Reparent),
        ("Share", Follow::Share),
        ("Unshare", Follow::Unshare),
    ];
    let mut follows = Follows::new();
    for (name, operation) in operations {
        match body.get("CascadeConfiguration").and_then(|config| config.get(name)).and_then(Json::as_str) {
            Some("Cascade") => follows.push(operation),
            None | Some("NoCascade" | "RemoveLink" | "Restrict") => {}
            Some(other) => {
                return Err(ApiError::not_here(&format!("The cascade type {other}")));
            }
        }
    }
    Ok(follows)
}

fn table_named(schema: &Schema, body: &Json, member: &str) -> Result<TableId, ApiError> {
    let name = text(body, member)?;
    let found = schema.by_logical(&name.to_lowercase()).map(|table| table.id);
    found.ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{name}' was not found in the MetadataCache."),
        )
    })
}

pub(super) fn create_relationship(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let name = text(&body, "SchemaName")?.to_owned();
    require_prefix(&name)?;
    let id = access.write(|database| {
        let solution = solution(database, request)?;
        let id = change(call, database, |schema| {
            let exists = |relationship: &Relationship| match relationship {
                Relationship::OneToMany(one) => one.schema_name.eq_ignore_ascii_case(&name),
                Relationship::ManyToMany(many) => many.schema_name.eq_ignore_ascii_case(&name),
            };
            if schema.relationships.iter().any(exists) {
                return Err(ApiError::new(
                    Code::NameExists,
                    format!("A relationship with the name {name} already exists."),
                ));
            }
            match kind_of(&body) {
                "OneToManyRelationshipMetadata" => add_one_to_many(schema, &body)?,
                "ManyToManyRelationshipMetadata" => {
                    let tables = [
                        table_named(schema, &body, "Entity1LogicalName")?,
                        table_named(schema, &body, "Entity2LogicalName")?,
                    ];
                    let navigation = |member: &str| {
                        optional_name(&body, member).map(|given| given.map_or_else(|| name.clone(), str::to_owned))
                    };
                    let names =
                        [navigation("Entity1NavigationPropertyName")?, navigation("Entity2NavigationPropertyName")?];
                    for (table, name) in tables.iter().zip(&names) {
                        check_free(schema, *table, name)?;
                    }
                    let intersect = optional_name(&body, "IntersectEntityName")?.unwrap_or(&name);
                    if schema.by_logical(&intersect.to_lowercase()).is_some() {
                        let message = format!("An entity with the specified name {intersect} already exists.");
                        return Err(ApiError::new(Code::NameExists, message));
                    }
                    add_many_to_many(schema, &name, intersect, tables, names);
                }
                other => {
                    return Err(ApiError::bad_request(format!("The relationship type '{other}' cannot be created.")));
                }
            }
            Ok(stable_id(&format!("relationship:{name}")))
        })?;
        add_component(database, solution, 10, id);
        Ok(id)
    })?;
    Ok(created(call, &format!("RelationshipDefinitions({id})")))
}

/// Whether a path segment names this relationship.
pub(super) fn is_named(relationship: &Relationship, inner: &str) -> bool {
    let (id, name) = match relationship {
        Relationship::OneToMany(one) => (one.id, &one.schema_name),
        Relationship::ManyToMany(many) => (many.id, &many.schema_name),
    };
    render::is_named(inner, id, "SchemaName", name)
}

/// Deletes a custom relationship: with it goes its lookup, or the lookup's target if it has
/// several, or the intersect table.
pub(super) fn delete_relationship(call: &Call<'_>, access: &mut Access<'_>, inner: &str) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            let found = schema.relationships.iter().position(|relationship| is_named(relationship, inner));
            let found = schema.relationships.remove(found.ok_or_else(|| ApiError::no_resource(inner))?);
            match found {
                Relationship::OneToMany(one) if one.is_custom => {
                    let entry = Arc::make_mut(&mut schema.tables[usize::from(one.referencing)]);
                    if entry.keys.iter().any(|key| key.columns.contains(&one.column)) {
                        let message = "The relationship's lookup is part of an alternate key.";
                        return Err(ApiError::new(Code::DependencyExists, message));
                    }
                    let column = &mut entry.columns[usize::from(one.column)];
                    if let ColumnKind::Lookup { targets } = &mut column.kind {
                        targets.retain(|target| target.table != one.referenced);
                        column.deleted = targets.is_empty();
                    }
                    Ok(())
                }
                Relationship::ManyToMany(many) => {
                    Arc::make_mut(&mut schema.tables[usize::from(many.intersect)]).deleted = true;
                    Ok(())
                }
                Relationship::OneToMany(one) => Err(ApiError::bad_request(format!(
                    "The system relationship '{}' cannot be deleted.",
                    one.schema_name
                ))),
            }
        })
    })?;
    Ok(Answer::no_content())
}

fn add_one_to_many(schema: &mut Schema, body: &Json) -> Result<(), ApiError> {
    let parent = table_named(schema, body, "ReferencedEntity")?;
    let child = table_named(schema, body, "ReferencingEntity")?;
    let lookup = body.get("Lookup").ok_or_else(|| ApiError::bad_request("Required field 'Lookup' is missing"))?;
    let name = text(body, "SchemaName")?.to_owned();
    check_free(schema, parent, &name)?;
    let navigation = optional_name(body, "ReferencingEntityNavigationPropertyName")?;
    if let Some(ordinal) = existing_lookup(schema, child, lookup)? {
        add_lookup_target(schema, child, ordinal, parent, &name, navigation, cascade_of(body));
        return Ok(());
    }
    let new = lookup_column(schema, child, lookup)?;
    // The default name on the many side is the lookup's schema name, capitals and all.
    let navigation = navigation.unwrap_or(&new.schema_name).to_owned();
    check_free(schema, child, &navigation)?;
    let is_hierarchical = parent == child && body.get("IsHierarchical").and_then(Json::as_bool) == Some(true);
    add_lookup(schema, child, new, &[(parent, navigation, name)], cascade_of(body));
    if let Some(Relationship::OneToMany(one)) = schema.relationships.last_mut() {
        one.is_hierarchical = is_hierarchical;
        one.follows = follows_of(body)?;
    }
    Ok(())
}

/// Refuses a navigation property under a name that the table has in use.
fn check_free(schema: &Schema, table: TableId, name: &str) -> Result<(), ApiError> {
    // A lookup's own column is another property than the one that leads to its row.
    if !schema.table(table).properties.contains_key(name) {
        return Ok(());
    }
    let table = &schema.table(table).logical;
    Err(ApiError::new(Code::NameExists, format!("The name {name} is in use on the entity {table}.")))
}

/// A custom lookup with several targets takes a further one.
fn existing_lookup(schema: &Schema, table: TableId, lookup: &Json) -> Result<Option<Ordinal>, ApiError> {
    let name = text(lookup, "SchemaName")?.to_lowercase();
    let column = schema.table(table).find(&name).filter(|column| column.is_custom);
    Ok(column.and_then(|column| match &column.kind {
        ColumnKind::Lookup { targets } if targets.len() > 1 => Some(column.ordinal),
        _ => None,
    }))
}

fn lookup_column(schema: &Schema, table: TableId, lookup: &Json) -> Result<NewColumn, ApiError> {
    let schema_name = text(lookup, "SchemaName")?.to_owned();
    require_prefix(&schema_name)?;
    if schema.table(table).find(&schema_name.to_lowercase()).is_some() {
        return Err(ApiError::new(
            Code::NameExists,
            format!("An attribute with the specified name {schema_name} already exists."),
        ));
    }
    Ok(NewColumn {
        logical: schema_name.to_lowercase(),
        label: label_of(lookup, "DisplayName", &schema_name),
        description: given_label(lookup, "Description"),
        schema_name,
        kind: ColumnKind::Lookup { targets: Vec::new() },
        required: Required::None,
        is_custom: true,
        for_create: true,
        for_update: true,
        default: None,
    })
}

/// CreateCustomerRelationships and CreatePolymorphicLookupAttribute.
pub(crate) fn create_polymorphic(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    action: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let relationships = body.get("OneToManyRelationships").and_then(Json::as_array).cloned().unwrap_or_default();
    let lookup = body.get("Lookup").ok_or_else(|| ApiError::bad_request("Required field 'Lookup' is missing"))?;
    let first = relationships
        .first()
        .ok_or_else(|| ApiError::bad_request("Required field 'OneToManyRelationships' is missing"))?;
    let (column, ids) = access.write(|database| {
        change(call, database, |schema| {
            let child = table_named(schema, first, "ReferencingEntity")?;
            let new = lookup_column(schema, child, lookup)?;
            let mut targets = Vec::new();
            for relationship in &relationships {
                let target = table_named(schema, relationship, "ReferencedEntity")?;
                let navigation = format!("{}_{}", new.schema_name, schema.table(target).logical);
                let name = text(relationship, "SchemaName")?.to_owned();
                require_prefix(&name)?;
                check_free(schema, target, &name)?;
                targets.push((target, navigation, name));
            }
            let ordinal = add_lookup(schema, child, new, &targets, cascade_of(first));
            let ids: Vec<Uuid> =
                targets.iter().map(|(_, _, name)| stable_id(&format!("relationship:{name}"))).collect();
            Ok((schema.table(child).column(ordinal).id, ids))
        })
    })?;
    let context = format!("{}/$metadata#Microsoft.Dynamics.CRM.{action}Response", call.base);
    let answer = serde_json::json!({ "@odata.context": context, "RelationshipIds": ids, "AttributeId": column });
    Ok(Answer::json(answer.to_string().into_bytes()).with_work(Message::Metadata, 1))
}
