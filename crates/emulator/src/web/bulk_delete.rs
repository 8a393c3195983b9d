//! BulkDelete: a job that deletes what its queries find.
//!
//! Promise: rows are chosen when the job is made, so rows created later stay. Left out: jobs that
//! recur, which are refused.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::actions::{body_of, member, object};
use super::{Access, Answer, Call, Request};
use crate::error::{ApiError, Code};
use crate::query::{Annotations, Fetch, Reader, parse_expression, select_ids};
use crate::schema::{Schema, TableId};
use crate::storage::{BulkDeletion, Job, JobKind, Value};
use crate::write::{RowInput, create};

pub(super) fn bulk_delete(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    if body.get("RecurrencePattern").and_then(Json::as_str).is_some_and(|pattern| !pattern.is_empty()) {
        return Err(ApiError::not_here("a BulkDelete with a recurrence pattern"));
    }
    let queries = member(&body, "QuerySet")?.as_array().cloned().unwrap_or_default();
    if queries.is_empty() {
        return Err(ApiError::bad_request("The value of the parameter 'QuerySet' cannot be null or empty."));
    }
    let mut targets = Vec::new();
    for query in &queries {
        targets.push(selected(call, access, schema, &parse_expression(query)?)?);
    }
    let operation = schedule(call, access, request, schema, targets.into(), &body)?;
    Ok(object(call, "BulkDeleteResponse", [("JobId", Json::from(operation.to_string()))]))
}

type Selected = (TableId, Arc<[Uuid]>);

fn selected(call: &Call<'_>, access: &Access<'_>, schema: &Schema, query: &Fetch) -> Result<Selected, ApiError> {
    let name = &query.entity.table;
    let table = schema.by_logical(name).ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{name}' was not found in the MetadataCache."),
        )
    })?;
    if !table.writable {
        let message = format!("The 'BulkDelete' method does not support entities of type '{name}'.");
        return Err(ApiError::new(Code::MessageNotSupported, message));
    }
    let ids = access.read(|database| {
        let scope = call.scope(database, schema, table);
        let annotations = Annotations::default();
        let reader =
            Reader { database, scope: &scope, base: &call.base, annotations, page_size: None, restriction: None };
        select_ids(&reader, query)
    })?;
    Ok((table.id, ids.into()))
}

/// Creates the system job that deletes the selected rows when its time has come.
fn schedule(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    targets: Arc<[Selected]>,
    body: &Map<String, Json>,
) -> Result<Uuid, ApiError> {
    let missing = || ApiError::not_here("system jobs");
    let jobs = schema.by_logical("asyncoperation").ok_or_else(missing)?;
    let operations = schema.by_logical("bulkdeleteoperation").ok_or_else(missing)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    let job_name = body.get("JobName").and_then(Json::as_str).unwrap_or("Bulk Delete");
    access.write(|database| {
        let mut input = RowInput::default();
        let values = [
            ("name", Value::Text(job_name.into())),
            ("operationtype", Value::Int(13)),
            ("startedon", Value::Time(session.now)),
        ];
        input.cells.extend(values.into_iter().filter_map(|(name, value)| Some((jobs.ordinal(name)?, Some(value)))));
        let operation = create(&session, database, jobs, input)?;
        let mut input = RowInput::default();
        let values = [("name", Value::Text(job_name.into())), ("asyncoperationid", Value::Lookup(jobs.id, operation))];
        input
            .cells
            .extend(values.into_iter().filter_map(|(name, value)| Some((operations.ordinal(name)?, Some(value)))));
        let bulk_operation = create(&session, database, operations, input)?;
        let due = call.now + call.settings.bulk_delete_delay_s;
        let kind = JobKind::BulkDelete(BulkDeletion { operation, bulk_operation, targets });
        database.schedule(Job { due, kind });
        Ok(operation)
    })
}
