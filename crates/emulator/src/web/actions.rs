//! Everything that is called by name: functions, unbound actions, actions on a row.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::rows::RowRequest;
use super::{Access, Answer, Call, Request};
use crate::address::{split_outside_quotes, split_segment};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::{QueryOptions, Reader, encode_query};
use crate::schema::{Schema, Table};
use crate::storage::{Job, JobKind, Value};
use crate::write::{CloseIncident, RowInput, Session, add_to_queue, close_incident, create, merge_rows, parse_row};

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    segment: &str,
) -> Result<Answer, ApiError> {
    let (name, arguments) = split_segment(segment);
    let name = name.trim_start_matches("Microsoft.Dynamics.CRM.");
    match (request.method.as_str(), name) {
        ("GET", "WhoAmI") => Ok(who_am_i(call)),
        ("GET", "RetrieveVersion") => {
            Ok(object(call, "RetrieveVersionResponse", [("Version", Json::from("9.2.24113.00190"))]))
        }
        ("GET", "RetrieveAvailableLanguages" | "RetrieveProvisionedLanguages") => {
            let member =
                if name == "RetrieveAvailableLanguages" { "LocaleIds" } else { "RetrieveProvisionedLanguages" };
            Ok(object(call, &format!("{name}Response"), [(member, Json::from([1033].as_slice()))]))
        }
        ("GET", "RetrieveTotalRecordCount") => {
            total_record_count(call, access, request, schema, arguments.unwrap_or(""))
        }
        ("POST", "CreateEntities") => {
            let ids = crate::metadata::create_entities(call, access, request)?;
            let ids: Vec<Json> = ids.iter().map(|id| id.to_string().into()).collect();
            Ok(object(call, "CreateEntitiesResponse", [("EntityIds", ids.into())]).with_work(Message::Metadata, 1))
        }
        ("POST", "CloseIncident") => close(call, access, request, schema),
        ("POST", "Merge") => merge(call, access, request, schema),
        ("POST", "BulkDelete") => bulk_delete(call, access, request, schema),
        ("POST", "ReactivateEntityKey") => crate::metadata::reactivate_key(call, access, request),
        ("POST", "CreateCustomerRelationships" | "CreatePolymorphicLookupAttribute") => {
            crate::metadata::create_polymorphic(call, access, request, name)
        }
        // Everything created through the API is usable at once, so publishing has nothing to do.
        ("POST", "PublishXml" | "PublishAllXml") => Ok(Answer::no_content().with_work(Message::Metadata, 1)),
        _ if name.starts_with(|c: char| c.is_ascii_uppercase()) => {
            Err(ApiError::not_here(&format!("the operation '{name}'")))
        }
        _ => Err(ApiError::no_resource(segment)),
    }
}

/// Actions bound to a row.
pub(super) fn bound(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    action: &str,
) -> Result<Answer, ApiError> {
    let (name, _) = split_segment(action);
    match (request.method.as_str(), name.trim_start_matches("Microsoft.Dynamics.CRM.")) {
        ("POST", "AddToQueue") if row.table.logical == "queue" => queue(call, access, request, row),
        (_, other) => Err(ApiError::not_here(&format!("the operation '{other}'"))),
    }
}

fn object<const N: usize>(call: &Call<'_>, response: &str, members: [(&str, Json); N]) -> Answer {
    let mut body = Map::new();
    body.insert("@odata.context".into(), format!("{}/$metadata#Microsoft.Dynamics.CRM.{response}", call.base).into());
    body.extend(members.map(|(name, value)| (name.to_owned(), value)));
    Answer::json(Json::Object(body).to_string().into_bytes())
}

fn who_am_i(call: &Call<'_>) -> Answer {
    let members = [
        ("BusinessUnitId", Json::from(call.business_unit.to_string())),
        ("UserId", Json::from(call.user.to_string())),
        ("OrganizationId", Json::from(call.organization.to_string())),
    ];
    object(call, "WhoAmIResponse", members)
}

/// Arguments of a function call, with parameter aliases put in.
fn call_arguments(text: &str, aliases: &HashMap<String, String>) -> HashMap<String, String> {
    let pairs = split_outside_quotes(text, ',');
    // A JSON array holds commas of its own: pieces without `=` belong to the one before.
    let mut joined: Vec<String> = Vec::new();
    for piece in pairs {
        match joined.last_mut() {
            Some(last) if !piece.contains('=') => {
                last.push(',');
                last.push_str(piece);
            }
            _ => joined.push(piece.to_owned()),
        }
    }
    let named = joined.iter().filter_map(|pair| pair.split_once('='));
    named
        .map(|(name, value)| {
            let value = aliases.get(value.trim()).map_or(value, String::as_str);
            (name.trim().to_owned(), value.trim().to_owned())
        })
        .collect()
}

fn total_record_count(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Schema,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let arguments = call_arguments(arguments, &options.aliases);
    let list = arguments.get("EntityNames").map(|list| list.replace('\'', "\""));
    let names: Vec<String> = list
        .and_then(|list| serde_json::from_str(&list).ok())
        .ok_or_else(|| ApiError::bad_request("RetrieveTotalRecordCount needs EntityNames, an array of table names."))?;
    let mut counts = Vec::new();
    for name in &names {
        let table = schema.by_logical(name).ok_or_else(|| {
            ApiError::new(
                Code::NoSuchTable,
                format!("The entity with a name = '{name}' was not found in the MetadataCache."),
            )
        })?;
        counts.push(access.read(|database| database.store(table.id).len()));
    }
    let collection = serde_json::json!({ "Count": names.len(), "IsReadOnly": false, "Keys": names, "Values": counts });
    Ok(object(call, "RetrieveTotalRecordCountResponse", [("EntityRecordCountCollection", collection)]))
}

fn body_of(request: &Request) -> Result<Map<String, Json>, ApiError> {
    serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("The request body does not parse: {error}")))
}

fn member<'a>(body: &'a Map<String, Json>, name: &str) -> Result<&'a Json, ApiError> {
    body.get(name).ok_or_else(|| ApiError::bad_request(format!("Required field '{name}' is missing")))
}

fn guid(value: &Json) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text).ok())
}

/// The row a JSON entity reference names by its primary id.
fn entity_reference<'s>(schema: &'s Schema, value: &Json) -> Result<(&'s Arc<Table>, Uuid), ApiError> {
    let invalid = || ApiError::bad_request("An entity reference needs '@odata.type' and the primary id.");
    let kind = value.get("@odata.type").and_then(Json::as_str).ok_or_else(invalid)?;
    let logical = kind.trim_start_matches('#').trim_start_matches("Microsoft.Dynamics.CRM.");
    let table = schema.by_logical(logical).ok_or_else(invalid)?;
    let id = value.get(table.primary_id()).and_then(guid).ok_or_else(invalid)?;
    Ok((table, id))
}

fn close(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let status = member(&body, "Status")?.as_i64().ok_or_else(|| ApiError::bad_request("Status takes a number."))?;
    let resolution = member(&body, "IncidentResolution")?;
    let (incident, resolution) = resolution_input(call, access, request, schema, resolution)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| close_incident(&session, database, CloseIncident { incident, status, resolution }))?;
    Ok(Answer::no_content())
}

/// The case a resolution belongs to and the columns of the resolution.
fn resolution_input(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    resolution: &Json,
) -> Result<(Uuid, RowInput), ApiError> {
    let table = schema.by_logical("incidentresolution").ok_or_else(|| ApiError::not_here("case resolutions"))?;
    let mut fields =
        resolution.as_object().cloned().ok_or_else(|| ApiError::bad_request("IncidentResolution takes an object."))?;
    // The documented form nests the case as `incidentid: { incidentid: ... }`.
    let nested =
        fields.remove("incidentid").as_ref().and_then(|value| value.get("incidentid").or(Some(value)).and_then(guid));
    let input = parse_row(schema, table, Json::Object(fields).to_string().as_bytes())?;
    if let Some(id) = nested {
        return Ok((id, input));
    }
    let content_ids = access.content_ids();
    let session: Session<'_> = call.session(request, content_ids.as_ref())?;
    let bind = input.binds.iter().find_map(|(ordinal, _, bind)| match bind {
        crate::write::BindReference::To(reference) if Some(*ordinal) == table.ordinal("incidentid") => {
            Some(reference.clone())
        }
        _ => None,
    });
    let reference =
        bind.ok_or_else(|| ApiError::bad_request("IncidentResolution names no case in 'incidentid@odata.bind'."))?;
    let (_, id) = access.read(|database| crate::write::resolve(&session, database, &reference))?;
    Ok((id, input))
}

fn merge(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table, target) = entity_reference(schema, member(&body, "Target")?)?;
    let (other, subordinate) = entity_reference(schema, member(&body, "Subordinate")?)?;
    if other.id != table.id {
        return Err(ApiError::bad_request("Target and Subordinate belong to different tables."));
    }
    let content = match body.get("UpdateContent") {
        Some(content) if !content.is_null() => {
            let mut content = content.clone();
            if let Some(fields) = content.as_object_mut() {
                fields.remove(table.primary_id());
            }
            parse_row(schema, table, content.to_string().as_bytes())?
        }
        _ => RowInput::default(),
    };
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| merge_rows(&session, database, table, target, subordinate, content))?;
    Ok(Answer::no_content())
}

fn queue(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table, id) = entity_reference(row.schema, member(&body, "Target")?)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    let item = access.write(|database| {
        let queue = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        add_to_queue(&session, database, queue, table, id)
    })?;
    Ok(object(call, "AddToQueueResponse", [("QueueItemId", Json::from(item.to_string()))]))
}

/// Operators of a QueryExpression that the filter language has too.
fn condition(condition: &Json) -> Result<String, ApiError> {
    let invalid = || ApiError::bad_request("A condition of the QuerySet needs AttributeName and Operator.");
    let column = condition.get("AttributeName").and_then(Json::as_str).ok_or_else(invalid)?;
    let operator = condition.get("Operator").and_then(Json::as_str).ok_or_else(invalid)?;
    let values: Vec<String> = condition
        .get("Values")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(|value| value.get("Value"))
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect();
    let call = |function: &str| {
        let list = Json::from(values.clone());
        format!("Microsoft.Dynamics.CRM.{function}(PropertyName='{column}',PropertyValues={list})")
    };
    Ok(match operator {
        "Equal" | "In" => call("In"),
        "NotEqual" | "NotIn" => call("NotIn"),
        "Between" => call("Between"),
        "NotBetween" => call("NotBetween"),
        "Null" => format!("{column} eq null"),
        "NotNull" => format!("{column} ne null"),
        "OnOrBefore" | "OnOrAfter" | "On" | "OlderThanXMonths" | "OlderThanXDays" | "OlderThanXHours" => call(operator),
        other => {
            return Err(ApiError::not_here(&format!("the condition operator '{other}' of BulkDelete")));
        }
    })
}

/// A FilterExpression as a `$filter`; lookups are named by their logical name there.
fn filter_text(criteria: &Json, table: &Table) -> Result<String, ApiError> {
    let joint = if criteria.get("FilterOperator").and_then(Json::as_str) == Some("Or") { " or " } else { " and " };
    let list = |name: &str| criteria.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    let mut parts = Vec::new();
    for item in list("Conditions") {
        let mut item = item;
        let lookup = item.get("AttributeName").and_then(Json::as_str).and_then(|name| table.find(name));
        if let Some(column) = lookup {
            item["AttributeName"] = column.wire.clone().into();
        }
        parts.push(condition(&item)?);
    }
    for inner in list("Filters") {
        let text = filter_text(&inner, table)?;
        if !text.is_empty() {
            parts.push(format!("({text})"));
        }
    }
    Ok(parts.join(joint))
}

fn bulk_delete(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let queries = member(&body, "QuerySet")?.as_array().cloned().unwrap_or_default();
    let [query] = queries.as_slice() else {
        return Err(ApiError::not_here("a BulkDelete with more or less than one query"));
    };
    let name = query.get("EntityName").and_then(Json::as_str).unwrap_or_default();
    let table = schema.by_logical(name).ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{name}' was not found in the MetadataCache."),
        )
    })?;
    let filter = query.get("Criteria").map(|criteria| filter_text(criteria, table)).transpose()?.unwrap_or_default();
    let query = if filter.is_empty() { String::new() } else { format!("$filter={}", encode_query(&filter)) };
    let options = QueryOptions::parse(&query)?;
    let ids = access.read(|database| {
        let scope = call.scope(database, schema, table);
        let annotations = crate::query::Annotations::default();
        let reader =
            Reader { database, scope: &scope, base: &call.base, annotations, page_size: None, restriction: None };
        reader.select_all(&options)
    })?;
    let operation = schedule_bulk_delete(call, access, request, schema, (table.id, ids), &body)?;
    let id = Json::from(operation.to_string());
    Ok(object(call, "BulkDeleteResponse", [("JobId", id)]))
}

/// Creates the system job that deletes the selected rows when its time has come.
fn schedule_bulk_delete(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    (table, ids): (crate::schema::TableId, Vec<Uuid>),
    body: &Map<String, Json>,
) -> Result<Uuid, ApiError> {
    let jobs = schema.by_logical("asyncoperation").ok_or_else(|| ApiError::not_here("system jobs"))?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    let job_name = body.get("JobName").and_then(Json::as_str).unwrap_or("Bulk Delete").to_owned();
    access.write(|database| {
        let mut input = RowInput::default();
        let texts = [("name", Value::Text(job_name.into())), ("operationtype", Value::Int(13))];
        input.cells.extend(texts.into_iter().filter_map(|(name, value)| Some((jobs.ordinal(name)?, Some(value)))));
        let operation = create(&session, database, jobs, input)?;
        let due = call.now + call.settings.bulk_delete_delay_s;
        let kind = JobKind::BulkDelete { operation, table, ids: ids.into() };
        database.schedule(Job { due, kind });
        Ok(operation)
    })
}
