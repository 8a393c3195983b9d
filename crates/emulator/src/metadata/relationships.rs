//! Relationships posted as definitions, with the lookups they bring.
//!
//! Promise: navigation names follow the product's defaults. Left out: cascades other than delete.

use serde_json::Value as Json;
use uuid::Uuid;

use super::write::{add_component, body_of, change, created, kind_of, label_of, require_prefix, solution, text};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::schema::{
    Cascade, ColumnKind, NewColumn, Relationship, Required, Schema, TableId, add_lookup, add_many_to_many, stable_id,
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
                        body.get(member).and_then(Json::as_str).map_or_else(|| name.clone(), str::to_owned)
                    };
                    let names =
                        [navigation("Entity1NavigationPropertyName"), navigation("Entity2NavigationPropertyName")];
                    add_many_to_many(schema, &name, text(&body, "IntersectEntityName")?, tables, names);
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

fn add_one_to_many(schema: &mut Schema, body: &Json) -> Result<(), ApiError> {
    let parent = table_named(schema, body, "ReferencedEntity")?;
    let child = table_named(schema, body, "ReferencingEntity")?;
    let lookup = body.get("Lookup").ok_or_else(|| ApiError::bad_request("Required field 'Lookup' is missing"))?;
    let new = lookup_column(schema, child, lookup)?;
    // The default name on the many side is the lookup's schema name, capitals and all.
    let navigation = body.get("ReferencingEntityNavigationPropertyName").and_then(Json::as_str);
    let navigation = navigation.unwrap_or(&new.schema_name).to_owned();
    let name = text(body, "SchemaName")?.to_owned();
    add_lookup(schema, child, new, &[(parent, navigation, name)], cascade_of(body));
    Ok(())
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
                targets.push((target, navigation, text(relationship, "SchemaName")?.to_owned()));
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
