//! What changed in the schema and when, and `RetrieveMetadataChanges`, which tells it.
//!
//! Promise: every part that a metadata write changes or deletes is recorded under the schema's
//! new version, found by comparing before and after. A stamp is `<version>!<time>`. Left out:
//! labels in other languages.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::read::related;
use super::render;
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::write_time;
use crate::schema::{AlternateKey, Column, DeletedPart, OptionSet, PartKind, Relationship, Schema, Table};
use crate::web::{Access, Answer, Call, Request, call_arguments};

/// Deletions that are remembered.
const DELETIONS_MAX: usize = 100_000;

/// Parts by id: each stands for itself, a table without its columns and keys.
enum Part<'a> {
    Table(&'a Table),
    Column(&'a Column),
    Key(&'a AlternateKey),
    Relationship(&'a Relationship),
    Choice(&'a OptionSet),
}

impl Part<'_> {
    fn kind(&self) -> PartKind {
        match self {
            Part::Table(_) => PartKind::Entity,
            Part::Column(_) => PartKind::Attribute,
            Part::Key(_) => PartKind::EntityKey,
            Part::Relationship(_) => PartKind::Relationship,
            Part::Choice(_) => PartKind::OptionSet,
        }
    }

    fn is_same(&self, other: &Part<'_>) -> bool {
        match (self, other) {
            (Part::Table(a), Part::Table(b)) => {
                (&a.label, &a.plural, a.primary_name) == (&b.label, &b.plural, b.primary_name)
                    && (a.change_tracking, a.has_notes, a.has_activities, a.duplicates)
                        == (b.change_tracking, b.has_notes, b.has_activities, b.duplicates)
            }
            (Part::Column(a), Part::Column(b)) => a == b,
            (Part::Key(a), Part::Key(b)) => a == b,
            (Part::Relationship(a), Part::Relationship(b)) => a == b,
            (Part::Choice(a), Part::Choice(b)) => a == b,
            _ => false,
        }
    }
}

fn parts(schema: &Schema) -> HashMap<Uuid, Part<'_>> {
    let mut parts = HashMap::new();
    for table in schema.live_tables() {
        parts.insert(table.metadata_id, Part::Table(table));
        parts.extend(table.live_columns().map(|column| (column.id, Part::Column(column))));
        parts.extend(table.keys.iter().map(|key| (key.id, Part::Key(key))));
    }
    for relationship in &schema.relationships {
        let id = match relationship {
            Relationship::OneToMany(one) => one.id,
            Relationship::ManyToMany(many) => many.id,
        };
        parts.insert(id, Part::Relationship(relationship));
    }
    parts.extend(schema.option_sets.iter().map(|set| (set.id, Part::Choice(set))));
    parts
}

/// Records in `after` what differs from `before`.
pub(super) fn record(before: &Schema, after: &mut Schema, now: f64) {
    let (old, new) = (parts(before), parts(after));
    let differs = |(id, part): (&Uuid, &Part<'_>)| !old.get(id).is_some_and(|before| before.is_same(part));
    let changed: Vec<Uuid> = new.iter().filter(|(id, part)| differs((id, part))).map(|(id, _)| *id).collect();
    let gone = old.iter().filter(|(id, _)| !new.contains_key(id));
    let gone: Vec<(Uuid, PartKind)> = gone.map(|(id, part)| (*id, part.kind())).collect();
    drop(new);
    let version = after.version;
    after.changed.extend(changed.into_iter().map(|id| (id, version)));
    for (id, kind) in gone {
        after.changed.remove(&id);
        after.deleted.push(DeletedPart { version, kind, id, at: now as i64 });
    }
    let excess = after.deleted.len().saturating_sub(DELETIONS_MAX);
    after.deleted.drain(..excess);
}

fn stamp(schema: &Schema, now: f64) -> String {
    format!("{}!{}", schema.version, write_time(now as i64))
}

fn parse_stamp(schema: &Schema, text: &str) -> Result<u64, ApiError> {
    let version = text.split_once('!').and_then(|(version, _)| version.parse::<u64>().ok());
    version.filter(|version| *version <= schema.version).ok_or_else(|| {
        let message = "Version stamp associated with the client has expired. Please perform a full sync.";
        ApiError::new(Code::ExpiredVersionStamp, message)
    })
}

/// What a query asks of one level: which objects, and which of their properties.
#[derive(Default)]
struct Level<'a> {
    criteria: Option<&'a Json>,
    all_properties: bool,
    properties: Vec<&'a str>,
}

impl<'a> Level<'a> {
    fn read(query: Option<&'a Json>) -> Level<'a> {
        let Some(query) = query.filter(|query| !query.is_null()) else {
            return Level::default();
        };
        let properties = query.get("Properties");
        let all = properties.and_then(|list| list.get("AllProperties")).and_then(Json::as_bool);
        let names = properties.and_then(|list| list.get("PropertyNames")).and_then(Json::as_array);
        Level {
            criteria: query.get("Criteria").filter(|criteria| !criteria.is_null()),
            all_properties: all.unwrap_or(names.is_none()),
            properties: names.into_iter().flatten().filter_map(Json::as_str).collect(),
        }
    }

    fn takes(&self, object: &Map<String, Json>) -> Result<bool, ApiError> {
        self.criteria.map_or(Ok(true), |criteria| matches(criteria, object, 0))
    }

    fn shown(&self, object: Map<String, Json>, has_changed: Option<bool>) -> Map<String, Json> {
        let always = ["@odata.type", "MetadataId", "LogicalName", "SchemaName"];
        let keeps = |name: &str| self.all_properties || always.contains(&name) || self.properties.contains(&name);
        let mut shown: Map<String, Json> = object.into_iter().filter(|(name, _)| keeps(name)).collect();
        shown.insert("HasChanged".into(), has_changed.into());
        shown
    }
}

/// Runs a MetadataFilterExpression over a definition.
fn matches(criteria: &Json, object: &Map<String, Json>, depth: u32) -> Result<bool, ApiError> {
    if depth > 20 {
        return Err(ApiError::bad_request("The metadata query is nested too deeply."));
    }
    let list = |name: &str| criteria.get(name).and_then(Json::as_array).map_or(&[] as &[Json], Vec::as_slice);
    let mut results = Vec::new();
    for condition in list("Conditions") {
        results.push(condition_holds(condition, object)?);
    }
    for filter in list("Filters") {
        results.push(matches(filter, object, depth + 1)?);
    }
    let is_or = criteria.get("FilterOperator").and_then(Json::as_str) == Some("Or");
    Ok(results.is_empty() || if is_or { results.contains(&true) } else { !results.contains(&false) })
}

fn condition_holds(condition: &Json, object: &Map<String, Json>) -> Result<bool, ApiError> {
    let text = |name: &str| condition.get(name).and_then(Json::as_str);
    let (Some(property), Some(operator)) = (text("PropertyName"), text("ConditionOperator")) else {
        return Err(ApiError::bad_request("A metadata condition needs PropertyName and ConditionOperator."));
    };
    let value = condition.get("Value").map_or(&Json::Null, |value| value.get("Value").unwrap_or(value));
    let found = object.get(property).map_or(&Json::Null, |found| found.get("Value").unwrap_or(found));
    let order = || found.as_f64().zip(number(value)).and_then(|(found, value)| found.partial_cmp(&value));
    Ok(match operator {
        "Equals" => same(found, value),
        "NotEquals" => !same(found, value),
        "In" => values(value).iter().any(|value| same(found, value)),
        "NotIn" => !values(value).iter().any(|value| same(found, value)),
        "GreaterThan" => order() == Some(std::cmp::Ordering::Greater),
        "LessThan" => order() == Some(std::cmp::Ordering::Less),
        other => return Err(ApiError::bad_request(format!("The metadata condition operator '{other}' is not valid."))),
    })
}

fn number(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Values come as an array, or as the text of one.
fn values(value: &Json) -> Vec<Json> {
    match value {
        Json::Array(items) => items.clone(),
        Json::String(text) => serde_json::from_str(text).unwrap_or_else(|_| vec![value.clone()]),
        other => vec![other.clone()],
    }
}

fn same(found: &Json, wanted: &Json) -> bool {
    match (found, wanted) {
        (Json::String(found), Json::String(wanted)) => {
            let wanted = wanted.rsplit_once('.').map_or(wanted.as_str(), |(_, last)| last);
            found.eq_ignore_ascii_case(wanted.trim_matches('\''))
        }
        (Json::Bool(found), Json::String(wanted)) => wanted.eq_ignore_ascii_case(&found.to_string()),
        (Json::Number(found), wanted) => number(wanted).is_some_and(|wanted| found.as_f64() == Some(wanted)),
        (found, wanted) => found == wanted,
    }
}

/// The parts of a table a query can ask for: its member, the definition's member.
const CHILDREN: &[(&str, &[&str])] = &[
    ("AttributeQuery", &["Attributes"]),
    ("KeyQuery", &["Keys"]),
    ("RelationshipQuery", &["OneToManyRelationships", "ManyToOneRelationships", "ManyToManyRelationships"]),
];

fn id_of(object: &Map<String, Json>) -> Uuid {
    let id = object.get("MetadataId").and_then(Json::as_str).and_then(|text| Uuid::parse_str(text).ok());
    id.unwrap_or_default()
}

fn table_answer(
    schema: &Schema,
    table: &Table,
    query: &Json,
    since: Option<u64>,
) -> Result<Option<Map<String, Json>>, ApiError> {
    let level = Level::read(Some(query));
    let object = render::table(table);
    if !level.takes(&object)? {
        return Ok(None);
    }
    let is_new = |id: &Uuid| since.is_none_or(|since| schema.changed.get(id).is_some_and(|at| *at > since));
    let own = is_new(&table.metadata_id);
    let mut shown = level.shown(object, since.map(|_| own));
    let mut any_child = false;
    for (name, members) in CHILDREN {
        let child_query = query.get(name).filter(|query| !query.is_null());
        for member in *members {
            // Without a query of their own children come only where they are asked for by name.
            if child_query.is_none() && !level.properties.contains(member) {
                continue;
            }
            let child_level = Level::read(child_query);
            let mut children = Vec::new();
            for child in related(schema, table, member)? {
                let id = id_of(&child);
                if is_new(&id) && child_level.takes(&child)? {
                    children.push(Json::Object(child_level.shown(child, since.map(|_| true))));
                }
            }
            any_child |= !children.is_empty();
            shown.insert((*member).to_owned(), children.into());
        }
    }
    Ok((own || any_child).then_some(shown))
}

/// `RetrieveMetadataChanges`, with its parameters in the address or in a body.
pub(crate) fn retrieve_changes(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let schema = call.schema(access, request);
    let arguments = if request.method == http::Method::POST {
        match serde_json::from_slice(&request.body) {
            Ok(Json::Object(body)) => body,
            _ => return Err(ApiError::bad_request("The request body takes an object.")),
        }
    } else {
        let texts = call_arguments(request, arguments)?;
        texts.into_iter().map(|(name, text)| (name, argument(&text))).collect()
    };
    let query = match arguments.get("Query") {
        Some(query @ Json::Object(_)) => query.clone(),
        None | Some(Json::Null) => json!({}),
        Some(_) => return Err(ApiError::bad_request("Query takes an EntityQueryExpression.")),
    };
    let since = match arguments.get("ClientVersionStamp") {
        Some(Json::String(stamp)) if !stamp.is_empty() => Some(parse_stamp(&schema, stamp)?),
        _ => None,
    };
    let mut tables = Vec::new();
    for table in schema.live_tables() {
        tables.extend(table_answer(&schema, table, &query, since)?.map(Json::Object));
    }
    let context = format!("{}/$metadata#Microsoft.Dynamics.CRM.RetrieveMetadataChangesResponse", call.base);
    let body = json!({
        "@odata.context": context,
        "ServerVersionStamp": stamp(&schema, call.now),
        "EntityMetadata": tables,
        "DeletedMetadata": deleted(&schema, since, arguments.get("DeletedMetadataFilters")),
    });
    Ok(Answer::json(body.to_string().into_bytes()).with_work(Message::Metadata, 1))
}

/// A JSON value, or a string in single quotes.
fn argument(text: &str) -> Json {
    match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(text) => Json::from(text.replace("''", "'")),
        None => serde_json::from_str(text).unwrap_or_else(|_| Json::from(text)),
    }
}

/// Deleted parts by kind; nothing without a stamp or without filters.
fn deleted(schema: &Schema, since: Option<u64>, filters: Option<&Json>) -> Json {
    let (Some(since), Some(filters)) = (since, filters.and_then(Json::as_str)) else {
        return Json::Null;
    };
    let filters = filters.rsplit_once("DeletedMetadataFilters").map_or(filters, |(_, rest)| rest);
    let wanted: Vec<&str> = filters.split(',').map(|name| name.trim().trim_matches('\'')).collect();
    let takes = |kind: PartKind| {
        let name = kind.name();
        wanted.iter().any(|wanted| {
            matches!(*wanted, "All" | "Default") && (*wanted == "All" || kind == PartKind::Entity) || *wanted == name
        })
    };
    let mut by_kind: Map<String, Json> = Map::new();
    for part in schema.deleted.iter().filter(|part| part.version > since && takes(part.kind)) {
        let list = by_kind.entry(part.kind.name()).or_insert_with(|| json!([]));
        if let Json::Array(list) = list {
            list.push(part.id.to_string().into());
        }
    }
    let (keys, values): (Vec<String>, Vec<Json>) = by_kind.into_iter().unzip();
    json!({ "Count": keys.len(), "IsReadOnly": false, "Keys": keys, "Values": values })
}
