//! Single rows: create, retrieve, upsert, update, delete, and their properties.
//!
//! Promise: preconditions follow the decision table of the protocol notes; without a
//! representation an upsert answers the same whether it created or updated, and echoes the
//! address it was called with. Left out: links between rows (`links`).

use std::sync::Arc;

use http::StatusCode;
use uuid::Uuid;

use super::headers::{Match, Preconditions, Preferences};
use super::{Access, Answer, Call, Request};
use crate::address::{RowAddress, elastic_row_id};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::{
    Expand, QueryOptions, Reader, RowView, context_url, parse_expand, plain_text, projection, write_one_row, write_text,
};
use crate::schema::{ColumnKind, Ordinal, Schema, Table};
use crate::storage::{Database, ValueRef};
use crate::write::{RowInput, UpsertOutcome, Upserted, create, delete, parse_row, primary_id_of, update, upsert};

/// A row a request names.
pub(super) struct RowRequest<'a> {
    pub(super) schema: &'a Arc<Schema>,
    pub(super) table: &'a Arc<Table>,
    pub(super) address: RowAddress,
    /// What stood between the parentheses.
    pub(super) inner: &'a str,
}

impl RowRequest<'_> {
    /// `?partitionId=` names the partition of an elastic row on GET and DELETE.
    fn addressed(&self, options: &QueryOptions) -> RowAddress {
        match (&self.address, &options.partition) {
            (RowAddress::Id(id), Some(partition)) if self.table.is_elastic => {
                RowAddress::Id(elastic_row_id(*id, Some(partition)))
            }
            (address, _) => address.clone(),
        }
    }
}

pub(super) fn entity_id(call: &Call<'_>, table: &Table, inner: &str) -> String {
    format!("{}/{}({inner})", call.base, table.set_name)
}

fn id_answer(call: &Call<'_>, table: &Table, inner: &str) -> Answer {
    let mut answer = Answer::no_content();
    let link = entity_id(call, table, inner);
    answer.set("odata-entityid", &link);
    if table.is_elastic {
        answer.set("x-ms-session-token", &session_token(call));
    }
    answer
}

/// What a write into an elastic table hands out for reading it back.
pub(super) fn session_token(call: &Call<'_>) -> String {
    format!("240:8#{}#7=-1", call.now as u64)
}

fn require_json(request: &Request) -> Result<(), ApiError> {
    let content_type = request.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    if content_type.starts_with("application/json") {
        return Ok(());
    }
    let message = format!("A request body of type '{content_type}' is not supported; send 'application/json'.");
    Err(ApiError::bad_request(message).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

pub(super) fn parse_body(
    call: &Call<'_>,
    request: &Request,
    schema: &Schema,
    table: &Table,
) -> Result<RowInput, ApiError> {
    require_json(request)?;
    parse_row(schema, table, &request.body, call.settings.value_rules())
}

pub(super) fn create_row(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let preferences = Preferences::read(&request.headers);
    let input = parse_body(call, request, schema, table)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let key = create(&session, database, table, input)?;
        if preferences.representation {
            let mut answer = representation(call, database, schema, table, key, &options, &preferences)?;
            answer.status = StatusCode::CREATED;
            return Ok(answer);
        }
        let id = primary_id_of(database, table, key).to_string();
        let mut answer = id_answer(call, table, &id);
        answer.set("location", &entity_id(call, table, &id));
        Ok(answer)
    })
}

/// A row as the answer to its own request.
fn representation(
    call: &Call<'_>,
    database: &Database,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    key: Uuid,
    options: &QueryOptions,
    preferences: &Preferences,
) -> Result<Answer, ApiError> {
    let row = database.get(table.id, &key).ok_or_else(|| RowAddress::Id(key).missing(table))?;
    let scope = call.scope(database, schema, table);
    let shown = projection(table, options.select.as_deref())?;
    let expands: Vec<Expand> = match &options.expand {
        Some(text) => parse_expand(&scope, text, options)?,
        None => Vec::new(),
    };
    let reader = Reader {
        database,
        scope: &scope,
        base: &call.base,
        annotations: preferences.annotations,
        page_size: preferences.page_size,
        restriction: None,
    };
    let mut body = b"{\"@odata.context\":".to_vec();
    write_text(&format!("{}/$entity", context_url(&call.base, table, &shown, &expands)), &mut body);
    body.push(b',');
    write_one_row(&reader, RowView { table, key, row }, &shown, &expands, &mut body)?;
    body.push(b'}');
    let mut answer = Answer::json(body);
    answer.set("etag", &format!("W/\"{}\"", row.version));
    preferences.applied(&mut answer);
    Ok(answer)
}

pub(super) fn retrieve(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let preferences = Preferences::read(&request.headers);
    let conditions = Preconditions::read(&request.headers);
    let address = row.addressed(&options);
    access.read(|database| {
        let key = address.find(database, row.table).ok_or_else(|| address.missing(row.table))?;
        let version = database.get(row.table.id, &key).map_or(0, |row| row.version);
        let plain = options.expand.is_none() && !preferences.annotations.any() && row.table.optimistic;
        if plain && matches!(conditions.if_none_match, Some(wanted @ Match::Version(_)) if wanted.holds(version)) {
            return Ok(Answer::new(StatusCode::NOT_MODIFIED));
        }
        representation(call, database, row.schema, row.table, key, &options, &preferences)
    })
}

fn version_mismatch() -> ApiError {
    ApiError::new(
        Code::ConcurrencyVersionMismatch,
        "The version of the existing record doesn't match the RowVersion property provided.",
    )
}

/// Decides what a PATCH may do; the row's version is `None` when there is no row.
fn check_patch(
    call: &Call<'_>,
    row: &RowRequest<'_>,
    conditions: Preconditions,
    version: Option<u64>,
) -> Result<(), ApiError> {
    match (conditions.if_match, conditions.if_none_match, version) {
        (_, Some(Match::Any), Some(_)) => {
            Err(ApiError::new(Code::DuplicateRecord, "A record with matching key values already exists."))
        }
        (Some(Match::Any), _, None) => Err(row.address.missing(row.table)),
        (Some(_), _, None) => {
            let error = row.address.missing(row.table);
            let status = StatusCode::from_u16(call.settings.if_match_missing_status).unwrap_or(error.status);
            Err(error.with_status(status))
        }
        (Some(wanted), _, Some(version)) if !wanted.holds(version) => Err(version_mismatch()),
        _ => Ok(()),
    }
}

pub(super) fn patch(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let preferences = Preferences::read(&request.headers);
    let conditions = Preconditions::read(&request.headers);
    conditions.check_table(row.table)?;
    let mut input = parse_body(call, request, row.schema, row.table)?;
    if let RowAddress::Id(id) = &row.address {
        // A different id in the body does not move the row.
        input.id = input.id.filter(|given| given == id);
    }
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let found = row.address.find(database, row.table);
        let version = found.and_then(|key| database.get(row.table.id, &key)).map(|row| row.version);
        check_patch(call, row, conditions, version)?;
        let upserted = match found {
            // With a precondition an elastic row is updated; without, the whole row is replaced.
            Some(id) if row.table.is_elastic && conditions.if_match.is_some() => {
                update(&session, database, row.table, id, input)?;
                Upserted { id, outcome: UpsertOutcome::Updated }
            }
            _ => upsert(&session, database, row.table, &row.address, input)?,
        };
        if preferences.representation {
            // `$expand` is ignored here; `$select` is honoured.
            let options = QueryOptions { expand: None, ..options };
            let mut answer =
                representation(call, database, row.schema, row.table, upserted.id, &options, &preferences)?;
            if upserted.outcome == UpsertOutcome::Created {
                answer.status = StatusCode::CREATED;
            }
            return Ok(answer);
        }
        Ok(id_answer(call, row.table, row.inner))
    })
}

pub(super) fn delete_row(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let conditions = Preconditions::read(&request.headers);
    conditions.check_table(row.table)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    let address = row.addressed(&options);
    access.write(|database| {
        let key = address.find(database, row.table).ok_or_else(|| address.missing(row.table))?;
        let version = database.get(row.table.id, &key).map_or(0, |row| row.version);
        if conditions.if_match.is_some_and(|wanted| !wanted.holds(version)) {
            return Err(version_mismatch());
        }
        delete(&session, database, row.table, key)?;
        Ok(Answer::no_content())
    })
}

/// `set(key)/column`, with `/$value` for its bare text.
pub(super) fn property(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
    tail: &[&str],
) -> Result<Answer, ApiError> {
    let is_value = match tail {
        [] => false,
        ["$value"] => true,
        [other, ..] => return Err(ApiError::no_resource(other)),
    };
    let column = row.table.column(ordinal);
    if !column.for_read && request.method == http::Method::GET {
        return Err(ApiError::no_resource(&column.wire));
    }
    if super::files::is_content(column) {
        if let Some(done) = super::files::property(call, access, request, row, ordinal, is_value) {
            return done;
        }
    }
    match request.method.as_str() {
        "GET" => access.read(|database| read_property(call, database, row, ordinal, is_value)),
        "PUT" => {
            let body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&request.body)
                .map_err(|error| ApiError::bad_request(format!("The body does not parse: {error}")))?;
            let value = body.get("value").cloned().unwrap_or(serde_json::Value::Null);
            write_property_value(call, access, request, row, ordinal, &value)
        }
        "DELETE" => write_property_value(call, access, request, row, ordinal, &serde_json::Value::Null),
        _ => Err(super::route::method_not_allowed(request)),
    }
}

fn read_property(
    call: &Call<'_>,
    database: &Database,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
    is_value: bool,
) -> Result<Answer, ApiError> {
    let table = row.table;
    let key = row.address.find(database, table).ok_or_else(|| row.address.missing(table))?;
    let stored = database.get(table.id, &key).ok_or_else(|| row.address.missing(table))?;
    let view = RowView { table, key, row: stored };
    let Some(value) = view.value(ordinal) else {
        return nothing_there(row.table.column(ordinal), call.settings.null_property_status);
    };
    let column = table.column(ordinal);
    if is_value {
        return Ok(Answer::text("text/plain", plain_text(row.schema, column, &value).into_bytes()));
    }
    let mut body = b"{\"@odata.context\":".to_vec();
    write_text(&format!("{}/$metadata#{}({})/{}", call.base, table.set_name, row.inner, column.wire), &mut body);
    body.extend_from_slice(b",\"value\":");
    match &value {
        ValueRef::Guid(file) if matches!(column.kind, ColumnKind::Image { .. }) => {
            crate::query::write_image(database, file, &mut body);
        }
        value => crate::query::write_value(column, value, &mut body),
    }
    body.push(b'}');
    Ok(Answer::json(body))
}

/// A column without a value; its status is UNVERIFIED.
pub(super) fn nothing_there(column: &crate::schema::Column, status: u16) -> Result<Answer, ApiError> {
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_client_error() => Err(ApiError::no_resource(&column.wire).with_status(status)),
        _ => Ok(Answer::no_content()),
    }
}

fn write_property_value(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
    value: &serde_json::Value,
) -> Result<Answer, ApiError> {
    let body = serde_json::json!({ row.table.column(ordinal).logical.as_str(): value }).to_string();
    let input = parse_row(row.schema, row.table, body.as_bytes(), call.settings.value_rules())?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let key = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        update(&session, database, row.table, key, input)?;
        Ok(Answer::no_content().with_work(Message::Single, 1))
    })
}
