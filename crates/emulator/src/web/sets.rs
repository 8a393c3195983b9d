//! Sets of rows: listing, counting, change tracking.

use std::sync::Arc;

use uuid::Uuid;

use super::{Access, Answer, Call, Preferences, Request};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::{
    Fetch, Predicate, QueryOptions, Reader, SqlContext, Tracking, parse_fetch_xml, parse_sql, read_changes,
    read_delta_count,
};
use crate::schema::{Schema, Table};
use crate::settings::Settings;
use crate::storage::{Database, ValueRef};

pub(super) fn tracking<'a>(call: &Call<'a>, database: &Database, schema: &Schema) -> Tracking<'a> {
    let days = schema.by_logical("organization").and_then(|table| {
        let row = database.get(table.id, &call.organization)?;
        row.int(table.ordinal("expirechangetrackingindays"))
    });
    Tracking { expire_days: days.unwrap_or(7), settings: call.settings }
}

pub(super) fn list(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
) -> Result<Answer, ApiError> {
    list_where(call, access, request, schema, table, None, &table.set_name)
}

/// The query that `fetchXml` or `sql` asks for, if one of them is there.
fn fetch_query(settings: &Settings, options: &QueryOptions, reader: &Reader<'_>) -> Result<Option<Fetch>, ApiError> {
    match (&options.fetch_xml, &options.sql) {
        (Some(_), Some(_)) => Err(ApiError::query("The query options fetchXml and sql exclude each other.")),
        (Some(text), None) => parse_fetch_xml(text).map(Some),
        (None, Some(text)) => {
            let context = SqlContext {
                schema: reader.scope.schema,
                now: reader.scope.now,
                allows_top: settings.sql_top_allowed,
                allows_offset: settings.sql_offset_allowed,
                skip_token: options.skip_token.as_deref(),
            };
            parse_sql(text, &context).map(Some)
        }
        (None, None) => match options.view {
            Some((views, id)) => parse_fetch_xml(&view_query(reader, views, id)?).map(Some),
            None => Ok(None),
        },
    }
}

/// The FetchXML that a saved view or a user's own keeps.
fn view_query(reader: &Reader<'_>, views: &str, id: Uuid) -> Result<String, ApiError> {
    let missing = || ApiError::new(Code::ObjectDoesNotExist, format!("{views} With Id = {id} Does Not Exist"));
    let table = reader.scope.schema.by_logical(views).ok_or_else(missing)?;
    let row = reader.database.get(table.id, &id).ok_or_else(missing)?;
    match table.ordinal("fetchxml").and_then(|ordinal| row.get(ordinal)) {
        Some(ValueRef::Text(query)) => Ok(query.to_owned()),
        _ => Err(ApiError::query(format!("The view {id} has no FetchXML."))),
    }
}

/// Lists the rows of a set, or of a filtered collection below a row.
pub(super) fn list_where(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    restriction: Option<Predicate>,
    path: &str,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let preferences = Preferences::read(&request.headers);
    let mut body = Vec::with_capacity(64 << 10);
    let rows = access.read(|database| {
        let scope = call.scope(database, schema, table);
        let reader = Reader {
            database,
            scope: &scope,
            base: &call.base,
            annotations: preferences.annotations,
            page_size: preferences.page_size,
            restriction,
        };
        if let Some(apply) = &options.apply {
            return crate::query::aggregate(&reader, apply, &options, &mut body);
        }
        if let Some(query) = fetch_query(call.settings, &options, &reader)? {
            return crate::query::run_fetch(&reader, &query, &request.query, path, &mut body);
        }
        if preferences.track_changes || options.delta_token.is_some() {
            let tracking = tracking(call, database, schema);
            return read_changes(&reader, &tracking, &options, &request.query, path, &mut body);
        }
        reader.run(&options, &request.query, path, &mut body)
    })?;
    let mut answer = Answer::json(body).with_work(Message::Read, rows as u64);
    preferences.applied(&mut answer);
    Ok(answer)
}

pub(super) fn count(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
) -> Result<Answer, ApiError> {
    count_where(call, access, request, schema, table, None)
}

/// Counts the rows of a set, or of a filtered collection below a row.
pub(super) fn count_where(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    restriction: Option<Predicate>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let count = access.read(|database| {
        let scope = call.scope(database, schema, table);
        let annotations = crate::query::Annotations::default();
        let reader = Reader { database, scope: &scope, base: &call.base, annotations, page_size: None, restriction };
        match &options.delta_token {
            Some(token) => {
                read_delta_count(&reader, &tracking(call, database, schema), token).map(|count| count as u64)
            }
            None => reader.count(&options, call.settings.count_segment_capped),
        }
    })?;
    Ok(Answer::text("text/plain", count.to_string().into_bytes()).with_work(Message::Read, 1))
}
