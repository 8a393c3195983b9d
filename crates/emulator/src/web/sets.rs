//! Sets of rows: listing, counting, change tracking.

use std::sync::Arc;

use super::{Access, Answer, Call, Preferences, Request};
use crate::error::ApiError;
use crate::profile::Message;
use crate::query::{Predicate, QueryOptions, Reader, Tracking, read_changes, read_delta_count};
use crate::schema::{Schema, Table};
use crate::storage::Database;

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
    let scope = call.scope(schema, table);
    let mut body = Vec::with_capacity(64 << 10);
    let rows = access.read(|database| {
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
        if options.fetch_xml.is_some() {
            return Err(ApiError::not_here("FetchXML"));
        }
        if options.sql.is_some() {
            return Err(ApiError::not_here("the query option 'sql'"));
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
    let options = QueryOptions::parse(&request.query)?;
    let scope = call.scope(schema, table);
    let count = access.read(|database| {
        let annotations = crate::query::Annotations::default();
        let reader =
            Reader { database, scope: &scope, base: &call.base, annotations, page_size: None, restriction: None };
        match &options.delta_token {
            Some(token) => {
                read_delta_count(&reader, &tracking(call, database, schema), token).map(|count| count as u64)
            }
            None => reader.count(&options, call.settings.count_segment_capped),
        }
    })?;
    Ok(Answer::text("text/plain", count.to_string().into_bytes()).with_work(Message::Read, 1))
}
