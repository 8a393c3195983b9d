//! Reading definitions: addressing, `$select`, `$filter`, `$expand`, casts.
//!
//! Promise: no paging, all matches in one answer, `MetadataId` always shown; enumeration literals
//! with and without their type are understood. Left out: ordering and counting.

use serde_json::{Map, Value as Json};

use super::render;
use crate::address::{split_outside_quotes, split_segment};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::{Expr, Operand, Operator, QueryOptions, parse_filter};
use crate::schema::{Relationship, Schema, Table};
use crate::web::{Access, Answer, Call, Request};
use crate::write::under_status;

type Object = Map<String, Json>;

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

/// Answers every request below the definition sets.
pub(crate) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    segments: &[String],
) -> Result<Answer, ApiError> {
    if request.method != http::Method::GET {
        return super::write::answer(call, access, request, schema, segments);
    }
    let options = QueryOptions::parse(&request.query)?;
    check_filter(call, &options)?;
    let (set, inner) = split_segment(&segments[0]);
    let answer = match set {
        "EntityDefinitions" => tables(call, schema, inner, &segments[1..], &options)?,
        "RelationshipDefinitions" => {
            let all = schema.relationships.iter().map(|relationship| match relationship {
                Relationship::OneToMany(one) => render::one_to_many(schema, one),
                Relationship::ManyToMany(many) => render::many_to_many(schema, many),
            });
            named_or_all(call, set, all.collect(), inner, "SchemaName", &segments[1..], &options)?
        }
        "GlobalOptionSetDefinitions" => {
            let all = schema.option_sets.iter().map(|set| match render::option_set(set) {
                Json::Object(object) => object,
                _ => Map::new(),
            });
            named_or_all(call, set, all.collect(), inner, "Name", &segments[1..], &options)?
        }
        other => return Err(ApiError::not_here(&format!("the definitions of {other}"))),
    };
    Ok(answer.with_work(Message::Metadata, 1))
}

/// Definitions are no rows: functions over their texts do not exist.
fn check_filter(call: &Call<'_>, options: &QueryOptions) -> Result<(), ApiError> {
    let filter = options.filter.as_deref().map(|text| parse_filter(text, &options.aliases)).transpose()?;
    match filter.as_ref().and_then(text_function) {
        Some(function) => {
            let message = format!("The \"{function}\" function isn't supported for Metadata Entities.");
            Err(under_status(ApiError::new(Code::NoResource, message), call.settings.definition_text_filter_status))
        }
        None => Ok(()),
    }
}

fn text_function(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().find_map(text_function),
        Expr::Not(inner) => text_function(inner),
        Expr::Text { function, .. } => Some(function),
        Expr::Compare(..) | Expr::Call { .. } | Expr::Lambda { .. } => None,
    }
}

fn missing(name: &str) -> ApiError {
    let message = format!("Could not find an entity with specified entity name or id: {name}.");
    ApiError::new(Code::ObjectDoesNotExist, message)
}

/// The table a definition's address names.
pub(super) fn find_table<'s>(schema: &'s Schema, inner: &str) -> Result<&'s Table, ApiError> {
    let found =
        schema.live_tables().find(|table| render::is_named(inner, table.metadata_id, "LogicalName", &table.logical));
    found.map(std::convert::AsRef::as_ref).ok_or_else(|| missing(inner))
}

fn tables(
    call: &Call<'_>,
    schema: &Schema,
    inner: Option<&str>,
    rest: &[String],
    options: &QueryOptions,
) -> Result<Answer, ApiError> {
    let Some(inner) = inner else {
        let mut found = Vec::new();
        let filter = options.filter.as_deref().map(|text| parse_filter(text, &options.aliases)).transpose()?;
        for table in schema.live_tables() {
            let object = render::table(table);
            if filter.as_ref().is_none_or(|filter| holds(filter, &object)) {
                found.push(shown(schema, Some(table), &object, options)?);
            }
        }
        return Ok(collection(call, "EntityDefinitions", &found));
    };
    let table = find_table(schema, inner)?;
    let Some((part, tail)) = rest.split_first() else {
        let object = shown(schema, Some(table), &render::table(table), options)?;
        return Ok(single(call, "EntityDefinitions", object));
    };
    let (part, part_inner) = split_segment(part);
    let property = match part {
        "Attributes" => return columns(call, schema, table, part_inner, tail, options),
        "Keys" => "SchemaName",
        "ManyToOneRelationships" | "OneToManyRelationships" | "ManyToManyRelationships" => "SchemaName",
        other => return property_of(call, &render::table(table), other, tail),
    };
    named_or_all(call, part, related(schema, table, part)?, part_inner, property, tail, options)
}

/// The parts of a table that stand behind a navigation property.
pub(super) fn related(schema: &Schema, table: &Table, part: &str) -> Result<Vec<Object>, ApiError> {
    let one_to_many = || schema.one_to_many();
    Ok(match part {
        "Attributes" => render::columns(schema, table),
        "Keys" => table.keys.iter().map(|key| render::key(table, key)).collect(),
        "ManyToOneRelationships" => one_to_many()
            .filter(|one| one.referencing == table.id)
            .map(|one| render::one_to_many(schema, one))
            .collect(),
        "OneToManyRelationships" => {
            one_to_many().filter(|one| one.referenced == table.id).map(|one| render::one_to_many(schema, one)).collect()
        }
        "ManyToManyRelationships" => schema
            .many_to_many()
            .filter(|many| many.tables.contains(&table.id))
            .map(|many| render::many_to_many(schema, many))
            .collect(),
        other => return Err(ApiError::no_resource(other)),
    })
}

fn columns(
    call: &Call<'_>,
    schema: &Schema,
    table: &Table,
    inner: Option<&str>,
    tail: &[String],
    options: &QueryOptions,
) -> Result<Answer, ApiError> {
    named_or_all(call, "Attributes", related(schema, table, "Attributes")?, inner, "LogicalName", tail, options)
}

/// Keeps the objects of the type that a path casts to; returns what follows the cast.
fn without_cast<'p>(objects: &mut Vec<Object>, tail: &'p [String]) -> Result<&'p [String], ApiError> {
    let Some(cast) = tail.first().and_then(|segment| segment.strip_prefix(NAMESPACE)) else {
        return Ok(tail);
    };
    if cast == "EnumAttributeMetadata" {
        return Err(ApiError::bad_request("EnumAttributeMetadata cannot be used as a cast."));
    }
    let wanted = format!("#{NAMESPACE}{cast}");
    objects.retain(|object| object.get("@odata.type").and_then(Json::as_str) == Some(wanted.as_str()));
    Ok(&tail[1..])
}

fn named_or_all(
    call: &Call<'_>,
    set: &str,
    mut objects: Vec<Object>,
    inner: Option<&str>,
    property: &str,
    tail: &[String],
    options: &QueryOptions,
) -> Result<Answer, ApiError> {
    let schema = Schema::default();
    let tail = without_cast(&mut objects, tail)?;
    if let Some(inner) = inner {
        let found = objects.into_iter().find(|object| {
            let id = object.get("MetadataId").and_then(Json::as_str).and_then(|text| uuid::Uuid::parse_str(text).ok());
            let name = |property: &str| object.get(property).and_then(Json::as_str).unwrap_or_default();
            render::is_named(inner, id.unwrap_or_default(), property, name(property))
                || render::is_named(inner, id.unwrap_or_default(), "LogicalName", name("LogicalName"))
        });
        let object = found.ok_or_else(|| missing(inner))?;
        if let Some((property, rest)) = tail.split_first() {
            return property_of(call, &object, property, rest);
        }
        return Ok(single(call, set, shown(&schema, None, &object, options)?));
    }
    let filter = options.filter.as_deref().map(|text| parse_filter(text, &options.aliases)).transpose()?;
    let mut found = Vec::new();
    for object in objects {
        if filter.as_ref().is_none_or(|filter| holds(filter, &object)) {
            found.push(shown(&schema, None, &object, options)?);
        }
    }
    Ok(collection(call, set, &found))
}

fn property_of(call: &Call<'_>, object: &Object, name: &str, tail: &[String]) -> Result<Answer, ApiError> {
    let value = object.get(name).ok_or_else(|| ApiError::no_resource(name))?;
    if tail.first().is_some_and(|segment| segment == "$value") {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Ok(Answer::text("text/plain", text.into_bytes()));
    }
    let body = serde_json::json!({ "@odata.context": format!("{}/$metadata#{name}", call.base), "value": value });
    Ok(Answer::json(body.to_string().into_bytes()))
}

fn single(call: &Call<'_>, set: &str, mut object: Object) -> Answer {
    object.insert("@odata.context".into(), format!("{}/$metadata#{set}/$entity", call.base).into());
    Answer::json(Json::Object(object).to_string().into_bytes())
}

fn collection(call: &Call<'_>, set: &str, objects: &[Object]) -> Answer {
    let body = serde_json::json!({ "@odata.context": format!("{}/$metadata#{set}", call.base), "value": objects });
    Answer::json(body.to_string().into_bytes())
}

/// An object with `$select` and `$expand` applied.
fn shown(schema: &Schema, table: Option<&Table>, object: &Object, options: &QueryOptions) -> Result<Object, ApiError> {
    let mut result = select(object, options.select.as_deref())?;
    if let Some(languages) = options.other.get("LabelLanguages") {
        let languages: Vec<u64> = languages.split(',').filter_map(|code| code.trim().parse().ok()).collect();
        result.values_mut().for_each(|value| keep_languages(value, &languages));
    }
    let Some(expand) = &options.expand else {
        return Ok(result);
    };
    for item in split_outside_quotes(expand, ',') {
        let (name, inner) = split_segment(item.trim());
        let (aliases, other) = (options.aliases.clone(), options.other.clone());
        let mut nested = QueryOptions { aliases, other, ..QueryOptions::default() };
        for option in split_outside_quotes(inner.unwrap_or(""), ';') {
            match option.trim().split_once('=') {
                Some(("$select", value)) => nested.select = Some(value.to_owned()),
                Some(("$filter", value)) => nested.filter = Some(value.to_owned()),
                Some(("$expand", value)) => nested.expand = Some(value.to_owned()),
                None if option.trim().is_empty() => {}
                _ => {
                    return Err(ApiError::query(format!("The option '{option}' is not supported inside $expand.")));
                }
            }
        }
        result.insert(name.to_owned(), expanded(schema, table, object, name, &nested)?);
    }
    Ok(result)
}

fn expanded(
    schema: &Schema,
    table: Option<&Table>,
    object: &Object,
    name: &str,
    options: &QueryOptions,
) -> Result<Json, ApiError> {
    if let Some(table) = table {
        let filter = options.filter.as_deref().map(|text| parse_filter(text, &options.aliases)).transpose()?;
        let mut items = Vec::new();
        for part in related(schema, table, name)? {
            if filter.as_ref().is_none_or(|filter| holds(filter, &part)) {
                items.push(Json::Object(shown(schema, None, &part, options)?));
            }
        }
        return Ok(Json::Array(items));
    }
    match object.get(name) {
        // A choice set inside a column.
        Some(Json::Object(inner)) => Ok(Json::Object(shown(schema, None, inner, options)?)),
        Some(Json::Null) => Ok(Json::Null),
        _ => Err(ApiError::query(format!("Could not find a navigation property named '{name}'."))),
    }
}

/// Leaves the labels of a definition in these languages.
fn keep_languages(value: &mut Json, languages: &[u64]) {
    let is_kept = |label: &Json| label["LanguageCode"].as_u64().is_some_and(|code| languages.contains(&code));
    match value {
        Json::Object(members) => {
            if members.get("UserLocalizedLabel").is_some_and(|label| !is_kept(label)) {
                members.insert("UserLocalizedLabel".to_owned(), Json::Null);
            }
            match members.get_mut("LocalizedLabels") {
                Some(Json::Array(labels)) => labels.retain(is_kept),
                _ => members.values_mut().for_each(|member| keep_languages(member, languages)),
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| keep_languages(item, languages)),
        _ => {}
    }
}

/// Properties that only `$expand` shows.
const EXPANDED_ONLY: &[&str] = &["OptionSet", "GlobalOptionSet"];

fn select(object: &Object, text: Option<&str>) -> Result<Object, ApiError> {
    let Some(text) = text else {
        return Ok(object
            .iter()
            .filter(|(name, _)| !EXPANDED_ONLY.contains(&name.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect());
    };
    let mut result = Map::new();
    for name in ["@odata.type", "MetadataId"] {
        if let Some(value) = object.get(name) {
            result.insert(name.to_owned(), value.clone());
        }
    }
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        // Properties of one column type are selected through its cast; here they are simply absent.
        let value = object.get(name).ok_or_else(|| {
            ApiError::query(format!("Could not find a property named '{name}' on the type of the definition."))
        })?;
        result.insert(name.to_owned(), value.clone());
    }
    Ok(result)
}

/// Runs a filter over a definition object. What is not comparable does not match.
fn holds(expr: &Expr, object: &Object) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| holds(part, object)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, object)),
        Expr::Not(inner) => !holds(inner, object),
        Expr::Compare(operator, Operand::Path(path), value) | Expr::Compare(operator, value, Operand::Path(path)) => {
            compare(*operator, property(object, path), value)
        }
        Expr::Compare(..) | Expr::Text { .. } | Expr::Call { .. } | Expr::Lambda { .. } => false,
    }
}

fn property<'a>(object: &'a Object, path: &[String]) -> Option<&'a Json> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.get(first)?, |value, step| value.get(step))
}

fn compare(operator: Operator, found: Option<&Json>, wanted: &Operand) -> bool {
    let equal = match (found, wanted) {
        (None | Some(Json::Null), Operand::Null) => true,
        (Some(Json::Bool(found)), Operand::Bool(wanted)) => found == wanted,
        (Some(Json::String(found)), Operand::Text(wanted)) => found.eq_ignore_ascii_case(wanted),
        (Some(Json::String(found)), Operand::Guid(wanted)) => *found == wanted.to_string(),
        (Some(Json::Number(found)), Operand::Number(wanted)) => {
            let (found, wanted) = (found.as_f64().unwrap_or(f64::NAN), wanted.parse::<f64>().unwrap_or(f64::NAN));
            return match operator {
                Operator::Eq => (found - wanted).abs() < f64::EPSILON,
                Operator::Ne => (found - wanted).abs() >= f64::EPSILON,
                Operator::Gt => found > wanted,
                Operator::Ge => found >= wanted,
                Operator::Lt => found < wanted,
                Operator::Le => found <= wanted,
            };
        }
        _ => false,
    };
    match operator {
        Operator::Eq => equal,
        Operator::Ne => !equal,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enumeration_literals_compare_by_their_value() {
        let object = match serde_json::json!({ "OwnershipType": "UserOwned", "A": { "Value": false } }) {
            Json::Object(object) => object,
            _ => Map::new(),
        };
        let check = |text: &str| holds(&parse_filter(text, &std::collections::HashMap::new()).unwrap(), &object);
        assert!(check("OwnershipType eq Microsoft.Dynamics.CRM.OwnershipTypes'UserOwned'"));
        assert!(check("OwnershipType eq 'UserOwned' and A/Value eq false"));
        assert!(!check("OwnershipType ne 'UserOwned'"));
    }
}
