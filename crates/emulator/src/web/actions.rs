//! Everything that is called by name: functions, unbound actions, actions on a row.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::rows::RowRequest;
use super::{Access, Answer, Call, Request};
use crate::address::{split_outside_quotes, split_segment};
use crate::error::{ApiError, Code};
use crate::query::QueryOptions;
use crate::schema::{Schema, Table, stable_id};
use crate::write::{
    CloseIncident, RowInput, Session, add_to_queue, close_incident, merge_rows, parse_row, remove_from_queue, route_to,
    work_on,
};

/// The version of the service that it says it is.
const VERSION: &str = "9.2.24113.00190";

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    segment: &str,
) -> Result<Answer, ApiError> {
    let (name, arguments) = split_segment(segment);
    let name = name.trim_start_matches("Microsoft.Dynamics.CRM.");
    if request.method == http::Method::POST {
        if let Some(done) = super::files::action(call, access, request, schema, name) {
            return done;
        }
        if let Some(done) = crate::metadata::option_action(call, access, request, name) {
            return done;
        }
    }
    if let Some(done) = super::sharing::answer(call, access, request, schema, (name, arguments.unwrap_or_default())) {
        return done;
    }
    if let Some(done) = super::validity::answer(call, request, schema, name, arguments) {
        return done;
    }
    match (request.method.as_str(), name) {
        ("GET", "WhoAmI") => Ok(who_am_i(call)),
        ("GET", "RetrieveVersion") => Ok(object(call, "RetrieveVersionResponse", [("Version", Json::from(VERSION))])),
        ("GET", "RetrieveCurrentOrganization") => Ok(current_organization(call)),
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
            Ok(object(call, "CreateEntitiesResponse", [("EntityIds", ids.into())])
                .with_work(crate::profile::Message::Metadata, 1))
        }
        ("POST", "CloseIncident") => close(call, access, request, schema),
        ("POST", "RouteTo") => route(call, access, request, schema),
        ("GET", "ExecuteCosmosSqlQuery") => {
            super::cosmos::answer(call, access, request, schema, arguments.unwrap_or(""))
        }
        ("POST", "Merge") => merge(call, access, request, schema),
        ("POST", "BulkDelete") => super::bulk_delete::bulk_delete(call, access, request, schema),
        ("POST", "ReactivateEntityKey") => crate::metadata::reactivate_key(call, access, request),
        ("POST", "CreateCustomerRelationships" | "CreatePolymorphicLookupAttribute") => {
            crate::metadata::create_polymorphic(call, access, request, name)
        }
        ("POST", "PublishXml" | "PublishAllXml") => crate::metadata::publish(call, access, schema, request, name),
        ("GET" | "POST", "RetrieveMetadataChanges") => {
            crate::metadata::retrieve_changes(call, access, request, arguments.unwrap_or(""))
        }
        (method, _) if FUNCTIONS.contains(&name) && method != "GET" => Err(wrong_method(call, request)),
        (method, _) if ACTIONS.contains(&name) && method != "POST" => Err(wrong_method(call, request)),
        _ if is_operation(schema, request, name, arguments) => {
            Err(ApiError::not_here(&format!("the operation '{name}'")))
        }
        _ => Err(ApiError::no_resource(segment)),
    }
}

/// What is answered here, by method: the other method finds nothing.
const FUNCTIONS: &[&str] = &[
    "WhoAmI",
    "RetrieveVersion",
    "RetrieveCurrentOrganization",
    "RetrieveAvailableLanguages",
    "RetrieveProvisionedLanguages",
    "RetrieveTotalRecordCount",
    "ExecuteCosmosSqlQuery",
    "GetValidManyToMany",
    "GetValidReferencedEntities",
    "GetValidReferencingEntities",
    "RetrieveSharedPrincipalsAndAccess",
];
const ACTIONS: &[&str] = &[
    "BulkDelete",
    "CanBeReferenced",
    "CanBeReferencing",
    "CanManyToMany",
    "CloseIncident",
    "CreateCustomerRelationships",
    "CreateEntities",
    "CreatePolymorphicLookupAttribute",
    "GrantAccess",
    "Merge",
    "ModifyAccess",
    "PublishAllXml",
    "PublishXml",
    "ReactivateEntityKey",
    "RevokeAccess",
    "RouteTo",
];

fn wrong_method(call: &Call<'_>, request: &Request) -> ApiError {
    ApiError::no_operation(&format!("{}/{}", call.base, request.path))
}

/// Whether a name that nothing here answers to is meant as an operation, and not as a set: it is called with
/// parentheses, sent a body, or begins as the names of the product's operations do. `Account` is a mistyped set.
fn is_operation(schema: &Schema, request: &Request, name: &str, arguments: Option<&str>) -> bool {
    if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    let is_table = schema.by_logical(&lower).is_some() || schema.by_set(&lower).is_some();
    let is_verb =
        VERBS.iter().any(|verb| name.strip_prefix(verb).is_some_and(|rest| !rest.starts_with(char::is_lowercase)));
    !is_table && (arguments.is_some() || request.method != http::Method::GET || is_verb)
}

/// What the names of the product's functions and actions begin with.
const VERBS: &[&str] = &[
    "Add",
    "Apply",
    "Associate",
    "Background",
    "Book",
    "Calculate",
    "Can",
    "Cancel",
    "Check",
    "Clone",
    "Close",
    "Commit",
    "Compound",
    "Convert",
    "Copy",
    "Create",
    "Deep",
    "Delete",
    "Deliver",
    "Deprovision",
    "Disassociate",
    "Download",
    "Execute",
    "Expand",
    "Export",
    "Fetch",
    "Find",
    "Format",
    "Fulfill",
    "Full",
    "Generate",
    "Get",
    "Grant",
    "Import",
    "Increment",
    "Initialize",
    "Insert",
    "Install",
    "Instantiate",
    "Is",
    "Local",
    "Lock",
    "Lose",
    "Merge",
    "Modify",
    "Order",
    "Pick",
    "Preferred",
    "Process",
    "Promote",
    "Propagate",
    "Provision",
    "Publish",
    "Qualify",
    "Query",
    "Queue",
    "Reactivate",
    "Reassign",
    "Recalculate",
    "Release",
    "Remove",
    "Renew",
    "Replace",
    "Reschedule",
    "Reset",
    "Retrieve",
    "Revert",
    "Revise",
    "Revoke",
    "Rollup",
    "Route",
    "Search",
    "Send",
    "Set",
    "Stage",
    "Sync",
    "Transform",
    "Trigger",
    "Undelete",
    "Unlock",
    "Unpublish",
    "Update",
    "Upload",
    "Utc",
    "Validate",
    "Who",
    "Win",
];

/// Actions bound to a row.
pub(super) fn bound(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    action: &str,
) -> Result<Answer, ApiError> {
    let (name, arguments) = split_segment(action);
    let name = name.trim_start_matches("Microsoft.Dynamics.CRM.");
    if request.method == http::Method::GET && name == "RetrievePrincipalAccess" && row.table.is_principal {
        return super::sharing::rights_of(call, access, request, row, arguments.unwrap_or_default());
    }
    if request.method == http::Method::GET && name == "RetrieveUserPrivileges" && row.table.logical == "systemuser" {
        return Ok(privileges(call, row, "RetrieveUserPrivilegesResponse"));
    }
    if request.method == http::Method::GET && name == "RetrieveRolePrivilegesRole" && row.table.logical == "role" {
        return Ok(privileges(call, row, "RetrieveRolePrivilegesRoleResponse"));
    }
    if request.method != http::Method::POST {
        return Err(super::route::method_not_allowed(request));
    }
    match (name, row.table.logical.as_str()) {
        ("AddToQueue", "queue") => queue(call, access, request, row),
        ("RemoveFromQueue" | "PickFromQueue" | "ReleaseToQueue", "queueitem") => {
            queue_item(call, access, request, row, name)
        }
        ("AddToQueue" | "RemoveFromQueue" | "PickFromQueue" | "ReleaseToQueue", _) => {
            Err(ApiError::no_resource(action))
        }
        (other, _) => Err(ApiError::not_here(&format!("the operation '{other}'"))),
    }
}

/// Actions on a queue item.
fn queue_item(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    name: &str,
) -> Result<Answer, ApiError> {
    let body = if request.body.is_empty() { Map::new() } else { body_of(request)? };
    let worker = match (name, body.get("SystemUser").or_else(|| body.get("Worker"))) {
        ("PickFromQueue", Some(worker)) => Some(entity_reference(row.schema, worker)?),
        ("PickFromQueue", None) => {
            let users = row.schema.by_logical("systemuser").ok_or_else(|| ApiError::not_here("users"))?;
            Some((users, call.user))
        }
        _ => None,
    };
    let worker = worker.map(|(table, id)| (Arc::clone(table), id));
    let removes = body.get("RemoveQueueItem").and_then(Json::as_bool).unwrap_or(false);
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let item = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        if name == "RemoveFromQueue" {
            return remove_from_queue(&session, database, item);
        }
        work_on(&session, database, item, worker.as_ref(), name == "PickFromQueue")?;
        if name == "PickFromQueue" && removes { remove_from_queue(&session, database, item) } else { Ok(()) }
    })?;
    Ok(Answer::no_content())
}

fn route(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table, target) = entity_reference(schema, member(&body, "Target")?)?;
    let (items, item) = entity_reference(schema, member(&body, "QueueItem")?)?;
    if items.logical != "queueitem" {
        return Err(ApiError::bad_request("The parameter 'QueueItem' takes a queue item."));
    }
    let target = (Arc::clone(table), target);
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| route_to(&session, database, item, &target))?;
    Ok(Answer::no_content())
}

/// Privileges beside those of tables, and the setting that gives each.
fn other_privileges(settings: &crate::settings::Settings) -> [(&'static str, bool); 3] {
    [
        ("prvBypassCustomBusinessLogic", settings.bypass_allowed),
        ("prvActOnBehalfOfAnotherUser", settings.impersonation_allowed),
        ("prvOverrideCreatedOnCreatedBy", settings.overridden_created_on),
    ]
}

/// Every user is a system administrator here, and that is the role that has these privileges.
fn privileges(call: &Call<'_>, row: &RowRequest<'_>, response: &str) -> Answer {
    let of_tables = row.schema.live_tables().flat_map(|table| crate::metadata::privileges(table).map(|(_, name)| name));
    let held = other_privileges(call.settings).into_iter().filter(|(_, is_held)| *is_held);
    let names: std::collections::BTreeSet<String> = of_tables.chain(held.map(|(name, _)| name.to_owned())).collect();
    let privilege = |name: String| {
        serde_json::json!({
            "Depth": "Global", "PrivilegeId": stable_id(&format!("privilege:{name}")), "PrivilegeName": name,
            "BusinessUnitId": call.business_unit,
        })
    };
    let list: Vec<Json> = names.into_iter().map(privilege).collect();
    object(call, response, [("RolePrivileges", list.into())])
}

pub(super) fn object<const N: usize>(call: &Call<'_>, response: &str, members: [(&str, Json); N]) -> Answer {
    let mut body = Map::new();
    body.insert("@odata.context".into(), format!("{}/$metadata#Microsoft.Dynamics.CRM.{response}", call.base).into());
    body.extend(members.map(|(name, value)| (name.to_owned(), value)));
    Answer::json(Json::Object(body).to_string().into_bytes())
}

fn current_organization(call: &Call<'_>) -> Answer {
    let detail = serde_json::json!({
        "OrganizationId": call.organization.to_string(),
        "OrganizationType": call.settings.organization_type,
        "OrganizationVersion": VERSION,
        "FriendlyName": "contoso",
        "UniqueName": "contoso",
        "UrlName": "contoso",
        "State": "Enabled",
    });
    object(call, "RetrieveCurrentOrganizationResponse", [("Detail", detail)])
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
pub(crate) fn call_arguments(request: &Request, text: &str) -> Result<HashMap<String, String>, ApiError> {
    let aliases = QueryOptions::parse(&request.query)?.aliases;
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
    let arguments = named
        .map(|(name, value)| {
            let value = aliases.get(value.trim()).map_or(value, String::as_str);
            (name.trim().to_owned(), value.trim().to_owned())
        })
        .collect();
    Ok(arguments)
}

fn total_record_count(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Schema,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let arguments = call_arguments(request, arguments)?;
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
            .with_status(http::StatusCode::BAD_REQUEST)
        })?;
        counts.push(access.read(|database| database.store(table.id).len()));
    }
    let collection = serde_json::json!({ "Count": names.len(), "IsReadOnly": false, "Keys": names, "Values": counts });
    Ok(object(call, "RetrieveTotalRecordCountResponse", [("EntityRecordCountCollection", collection)]))
}

pub(super) fn body_of(request: &Request) -> Result<Map<String, Json>, ApiError> {
    serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("The request body does not parse: {error}")))
}

pub(super) fn member<'a>(body: &'a Map<String, Json>, name: &str) -> Result<&'a Json, ApiError> {
    body.get(name).ok_or_else(|| ApiError::bad_request(format!("Required field '{name}' is missing")))
}

pub(super) fn guid(value: &Json) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text).ok())
}

/// The row a JSON entity reference names by its primary id.
pub(super) fn entity_reference<'s>(schema: &'s Schema, value: &Json) -> Result<(&'s Arc<Table>, Uuid), ApiError> {
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
    let input = parse_row(schema, table, Json::Object(fields).to_string().as_bytes(), call.settings.value_rules())?;
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
            parse_row(schema, table, content.to_string().as_bytes(), call.settings.value_rules())?
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
