//! Writing definitions: tables, columns, keys, relationships, choices; deleting them.
//!
//! Promise: what is created is usable at once through `Consistency: Strong` and, for everybody
//! else, after the metadata lag; an alternate key becomes active by a job, or fails when rows
//! share its values. Left out: changing definitions in place (`update`).

use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::changes::record;
use super::columns::{create_choice, create_column, delete_choice, delete_column, new_column};
use super::keys::{add_elastic_key, create_key, delete_key};
use super::read::find_table;
use super::relationships::{create_relationship, delete_relationship};
use super::update::{put_choice, put_column, put_relationship, put_table};
use crate::address::split_segment;
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::QueryOptions;
use crate::schema::{
    LANGUAGE, Label, NewTable, Opt, Ownership, Relationship, Schema, State, TableId, add_activity_columns, add_column,
    add_system_lookups, add_table, stable_id,
};
use crate::storage::{Database, Value, encode};
use crate::web::{Access, Answer, Call, Request};

/// `componenttype` of a table and of a column.
const COMPONENT_TABLE: i64 = 1;
pub(super) const COMPONENT_COLUMN: i64 = 2;

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    segments: &[String],
) -> Result<Answer, ApiError> {
    let (set, inner) = split_segment(&segments[0]);
    let parts: Vec<(&str, Option<&str>)> = segments[1..].iter().map(|segment| split_segment(segment)).collect();
    let answer = match (request.method.as_str(), set, inner, parts.as_slice()) {
        ("POST", "EntityDefinitions", None, []) => create_table(call, access, request),
        ("POST", "EntityDefinitions", Some(inner), [("Attributes", None)]) => {
            create_column(call, access, request, find_table(schema, inner)?)
        }
        ("POST", "EntityDefinitions", Some(inner), [("Keys", None)]) => {
            create_key(call, access, request, find_table(schema, inner)?)
        }
        ("POST", "RelationshipDefinitions", None, []) => create_relationship(call, access, request),
        ("POST", "GlobalOptionSetDefinitions", None, []) => create_choice(call, access, request),
        ("DELETE", "EntityDefinitions", Some(inner), []) => delete_table(call, access, find_table(schema, inner)?.id),
        ("DELETE", "EntityDefinitions", Some(inner), [("Attributes", Some(column))]) => {
            delete_column(call, access, find_table(schema, inner)?, column)
        }
        ("DELETE", "EntityDefinitions", Some(inner), [("Keys", Some(key))]) => {
            delete_key(call, access, find_table(schema, inner)?, key)
        }
        ("DELETE", "RelationshipDefinitions", Some(inner), []) => delete_relationship(call, access, inner),
        ("DELETE", "GlobalOptionSetDefinitions", Some(inner), []) => delete_choice(call, access, inner),
        ("PUT", "EntityDefinitions", Some(inner), []) => put_table(call, access, request, find_table(schema, inner)?),
        // The name of the type may follow, as when reading.
        ("PUT", "EntityDefinitions", Some(inner), [("Attributes", Some(column)), ..]) => {
            put_column(call, access, request, find_table(schema, inner)?, column)
        }
        ("PUT", "RelationshipDefinitions", Some(inner), [] | [_]) => put_relationship(call, access, request, inner),
        ("PUT", "GlobalOptionSetDefinitions", Some(inner), [] | [_]) => put_choice(call, access, request, inner),
        // One recording has this code here.
        _ => Err(ApiError::new(
            Code::UnsupportedQuery,
            format!("The requested resource does not support http method '{}'.", request.method),
        )
        .with_status(http::StatusCode::METHOD_NOT_ALLOWED)),
    };
    answer.map(|answer| answer.with_work(Message::Metadata, 1))
}

pub(super) fn body_of(request: &Request) -> Result<Json, ApiError> {
    serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("The request body does not parse: {error}")))
}

pub(super) fn text<'a>(body: &'a Json, name: &str) -> Result<&'a str, ApiError> {
    let value = body.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    value.ok_or_else(|| ApiError::bad_request(format!("Required field '{name}' is missing")))
}

pub(super) fn flag(body: &Json, name: &str) -> bool {
    let value = body.get(name);
    value.and_then(Json::as_bool).or_else(|| value?.get("Value")?.as_bool()).unwrap_or(false)
}

/// The label of a definition in every language it is given in, or another text.
pub(super) fn label_of(body: &Json, name: &str, otherwise: &str) -> Label {
    let given = given_label(body, name);
    if given.languages().next().is_none() { otherwise.into() } else { given }
}

/// The label of a definition, in no language where it has none.
pub(super) fn given_label(body: &Json, name: &str) -> Label {
    let labels = body.get(name).and_then(|label| label.get("LocalizedLabels")).and_then(Json::as_array);
    let mut found = Label::default();
    for label in labels.into_iter().flatten() {
        let language = label.get("LanguageCode").and_then(Json::as_u64).and_then(|code| u32::try_from(code).ok());
        if let Some(text) = label.get("Label").and_then(Json::as_str) {
            found.set(language.unwrap_or(LANGUAGE), text);
        }
    }
    found
}

pub(super) fn kind_of(body: &Json) -> &str {
    let kind = body.get("@odata.type").and_then(Json::as_str).unwrap_or_default();
    kind.trim_start_matches('#').trim_start_matches("Microsoft.Dynamics.CRM.")
}

/// A name is custom when it carries a publisher's prefix.
pub(super) fn require_prefix(schema_name: &str) -> Result<(), ApiError> {
    let prefix = schema_name.split_once('_').map(|(prefix, _)| prefix);
    let valid = prefix.is_some_and(|prefix| {
        (2..=8).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    if valid {
        return require_identifier(schema_name);
    }
    Err(ApiError::bad_request(format!(
        "The schema name '{schema_name}' needs the customization prefix of a publisher."
    )))
}

/// The longest name of a part of the schema.
const NAME_CHARACTERS_MAX: usize = 128;

/// Names end up in `$metadata`, in addresses and in queries: a letter, then letters, digits and underscores.
pub(super) fn require_identifier(name: &str) -> Result<(), ApiError> {
    if crate::schema::is_identifier(name) && name.len() <= NAME_CHARACTERS_MAX {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "The name '{name}' is not valid: a name begins with a letter, holds letters of the English alphabet, digits and \
         underscores, and has at most {NAME_CHARACTERS_MAX} characters."
    )))
}

/// A name that a definition may leave out.
pub(super) fn optional_name<'a>(body: &'a Json, member: &str) -> Result<Option<&'a str>, ApiError> {
    let name = body.get(member).and_then(Json::as_str).filter(|name| !name.is_empty());
    name.map(|name| require_identifier(name).map(|()| name)).transpose()
}

/// Applies a change to a copy of the current schema and puts it in force.
pub(super) fn change<T>(
    call: &Call<'_>,
    database: &mut Database,
    edit: impl FnOnce(&mut Schema) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut schema = Schema::clone(&database.schema);
    let result = edit(&mut schema)?;
    schema.version += 1;
    schema.reindex();
    record(&database.schema, &mut schema, call.now);
    database.forget_old_schemas(call.now);
    database.set_schema(schema, call.now + call.settings.metadata_lag_s);
    Ok(result)
}

pub(super) fn created(call: &Call<'_>, path: &str) -> Answer {
    let mut answer = Answer::no_content();
    answer.set("odata-entityid", &format!("{}/{path}", call.base));
    answer
}

/// The solution a component is created in, which must exist.
pub(super) fn solution(database: &Database, request: &Request) -> Result<Option<Uuid>, ApiError> {
    let header =
        request.headers.get("mscrm.solutionuniquename").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let option = QueryOptions::parse(&request.query)?.other.get("SolutionUniqueName").cloned();
    let Some(name) = header.or(option) else {
        return Ok(None);
    };
    let table = database.schema.by_logical("solution").ok_or_else(|| ApiError::not_here("solutions"))?;
    let unique_name = table.ordinal("uniquename").unwrap_or_default();
    let found = database.store(table.id).rows_after(None).find(|(_, row)| match row.get(unique_name) {
        Some(crate::storage::ValueRef::Text(text)) => text.eq_ignore_ascii_case(&name),
        _ => false,
    });
    let id = found.map(|(id, _)| *id);
    id.map(Some)
        .ok_or_else(|| ApiError::new(Code::ObjectDoesNotExist, format!("The solution '{name}' does not exist.")))
}

/// Records that a component belongs to a solution.
pub(super) fn add_component(database: &mut Database, solution: Option<Uuid>, kind: i64, id: Uuid) {
    let (Some(solution), Some(table)) = (solution, database.schema.by_logical("solutioncomponent").cloned()) else {
        return;
    };
    let solutions = database.schema.by_logical("solution").map_or(0, |table| table.id);
    let mut cells = Vec::new();
    let values = [
        ("solutionid", Value::Lookup(solutions, solution)),
        ("componenttype", Value::Int(kind)),
        ("objectid", Value::Guid(id)),
    ];
    for (name, value) in values {
        cells.extend(table.ordinal(name).map(|ordinal| (ordinal, Some(value))));
    }
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let row = stable_id(&format!("component:{solution}:{id}"));
    // The table has no alternate keys that could object.
    let _stored = database.put(table.id, row, encode(&cells));
}

fn create_table(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let id = access.write(|database| {
        let solution = solution(database, request)?;
        add_definition(call, database, solution, &body)
    })?;
    Ok(created(call, &format!("EntityDefinitions({id})")))
}

/// The action that creates several tables, all or none. Its answer is UNVERIFIED: Microsoft's
/// client, from which the request is known, does not read it.
pub(crate) fn create_entities(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Vec<Uuid>, ApiError> {
    let body = body_of(request)?;
    let entities = body.get("Entities").and_then(Json::as_array).filter(|entities| !entities.is_empty());
    let entities = entities.ok_or_else(|| ApiError::bad_request("Required field 'Entities' is missing"))?;
    access.write(|database| {
        let solution = solution(database, request)?;
        entities.iter().map(|entity| add_definition(call, database, solution, entity)).collect()
    })
}

/// Adds a table with the columns its definition brings.
fn add_definition(
    call: &Call<'_>,
    database: &mut Database,
    solution: Option<Uuid>,
    body: &Json,
) -> Result<Uuid, ApiError> {
    let schema_name = text(body, "SchemaName")?.to_owned();
    require_prefix(&schema_name)?;
    let columns = body.get("Attributes").and_then(Json::as_array).cloned().unwrap_or_default();
    let primary = columns.iter().find(|column| flag(column, "IsPrimaryName"));
    let primary =
        primary.ok_or_else(|| ApiError::bad_request("A table needs a string column with IsPrimaryName true."))?;
    let primary = text(primary, "SchemaName")?.to_lowercase();
    let (id, table) = change(call, database, |schema| {
        if schema.by_logical(&schema_name.to_lowercase()).is_some() {
            let message = format!("An entity with the specified name {schema_name} already exists.");
            return Err(ApiError::new(Code::NameExists, message));
        }
        let new = new_table(body, &schema_name)?;
        if let Some(set) = new.set_name.as_ref().filter(|set| schema.by_set(set).is_some()) {
            return Err(ApiError::new(
                Code::NameExists,
                format!("An entity set with the specified name {set} already exists."),
            ));
        }
        let table = add_table(schema, new);
        add_system_lookups(schema, &[table]);
        schema.reindex();
        for column in &columns {
            let new = new_column(schema, column)?;
            // The table's own columns are there already, the primary id among them.
            if schema.table(table).columns.iter().any(|known| known.logical == new.logical) {
                let message = format!("An attribute with the specified name {} already exists.", new.logical);
                return Err(ApiError::new(Code::NameExists, message));
            }
            add_column(schema, table, new);
        }
        if schema.table(table).is_activity {
            add_activity_columns(schema, table);
        }
        let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
        let position = entry.columns.iter().position(|column| column.logical == primary);
        entry.primary_name = position.map(|index| index as u16);
        add_elastic_key(entry);
        Ok((entry.metadata_id, table))
    })?;
    add_component(database, solution, COMPONENT_TABLE, id);
    register_messages(database, table);
    Ok(id)
}

/// The rows of `sdkmessagefilter` that say which bulk messages a table has.
pub(super) fn register_messages(database: &mut Database, table: TableId) {
    crate::engine::register_messages(database, &[table]);
}

fn new_table(body: &Json, schema_name: &str) -> Result<NewTable, ApiError> {
    let ownership = match body.get("OwnershipType").and_then(Json::as_str) {
        Some("OrganizationOwned") => Ownership::Organization,
        Some("None") => Ownership::None,
        _ => Ownership::User,
    };
    let state = |value: i32, label: &str, status: i32| {
        let option = Opt { value: status, label: label.into(), state: Some(value) };
        (State { value, label: label.into(), default_status: status }, vec![option])
    };
    let label = label_of(body, "DisplayName", schema_name);
    Ok(NewTable {
        logical: schema_name.to_lowercase(),
        schema_name: schema_name.to_owned(),
        set_name: optional_name(body, "EntitySetName")?.map(str::to_owned),
        plural: label_of(body, "DisplayCollectionName", &format!("{label}s")),
        description: given_label(body, "Description"),
        label,
        object_type_code: None,
        ownership,
        is_activity: flag(body, "IsActivity"),
        is_elastic: body.get("TableType").and_then(Json::as_str) == Some("Elastic"),
        is_custom: true,
        has_notes: flag(body, "HasNotes"),
        has_activities: flag(body, "HasActivities"),
        change_tracking: flag(body, "ChangeTrackingEnabled"),
        standard: None,
        states: vec![state(0, "Active", 1), state(1, "Inactive", 2)],
    })
}

fn delete_table(call: &Call<'_>, access: &mut Access<'_>, id: TableId) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            if !schema.table(id).is_custom {
                return Err(ApiError::new(Code::InvalidArgument, "A system table cannot be deleted."));
            }
            // Tables of pairs go with either of the tables that they join.
            let pairs = schema.relationships.iter().filter_map(|relationship| match relationship {
                Relationship::ManyToMany(many) if many.tables.contains(&id) => Some(many.intersect),
                _ => None,
            });
            for table in pairs.chain([id]).collect::<Vec<_>>() {
                Arc::make_mut(&mut schema.tables[usize::from(table)]).deleted = true;
            }
            schema.relationships.retain(|relationship| match relationship {
                Relationship::OneToMany(one) => one.referenced != id && one.referencing != id,
                Relationship::ManyToMany(many) => !many.tables.contains(&id),
            });
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}
