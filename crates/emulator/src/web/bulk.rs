//! The bulk messages of a set.

use std::sync::Arc;

use uuid::Uuid;

use super::{Access, Answer, Call, Request};
use crate::error::{ApiError, Code};
use crate::profile::{Message, Work};
use crate::query::write_text;
use crate::schema::{Schema, Table};
use crate::write::{BulkKind, parse_targets, run_bulk};

fn not_supported(table: &Table, message: &str) -> ApiError {
    let text = format!("The '{message}' method does not support entities of type '{}'.", table.logical);
    ApiError::new(Code::MessageNotSupported, text)
}

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    action: &str,
) -> Result<Answer, ApiError> {
    let name = action.trim_start_matches("Microsoft.Dynamics.CRM.");
    let (kind, message) = match name {
        "CreateMultiple" => (BulkKind::Create, Message::CreateMultiple),
        "UpdateMultiple" => (BulkKind::Update, Message::UpdateMultiple),
        "UpsertMultiple" => (BulkKind::Upsert, Message::UpsertMultiple),
        "DeleteMultiple" => (BulkKind::Delete, Message::DeleteMultiple),
        _ => return Err(ApiError::no_resource(action)),
    };
    if !table.bulk && kind != BulkKind::Delete {
        return Err(not_supported(table, name));
    }
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    // Parsed before the database is locked: most of the work of a bulk request is here.
    let rows = parse_targets(schema, table, &request.body, call.settings.value_rules())?;
    let count = rows.len() as u64;
    let message = if table.is_elastic { Message::Elastic } else { message };
    let finish = |mut answer: Answer| {
        answer = answer.with_work(message, count);
        answer.work.extra_ms = call.settings.plugin_ms * count as f64;
        answer.entitlement = count;
        if table.is_elastic && kind != BulkKind::Delete {
            answer.set("x-ms-session-token", &super::rows::session_token(call));
        }
        answer
    };
    let result = if table.is_elastic {
        // A partial failure keeps the rows that succeeded: the error must not roll them back.
        access.write(|database| Ok(run_bulk(&session, database, table, kind, rows)))?
    } else {
        access.write(|database| run_bulk(&session, database, table, kind, rows))
    };
    let result = match result {
        Ok(result) => result,
        Err(error) if error.is_partial() => {
            return Ok(finish(Answer::error(&error, true)));
        }
        Err(mut error) => {
            error.work = Work { message, extra_ms: call.settings.plugin_ms * error.work.rows as f64, ..error.work };
            return Err(error);
        }
    };
    let shows_ids = kind == BulkKind::Create || (kind == BulkKind::Update && !call.settings.update_multiple_no_content);
    Ok(finish(if shows_ids { ids(call, name, &result.ids) } else { Answer::no_content() }))
}

fn ids(call: &Call<'_>, name: &str, ids: &[Uuid]) -> Answer {
    let mut body = Vec::with_capacity(ids.len() * 39 + 128);
    body.extend_from_slice(b"{\"@odata.context\":");
    write_text(&format!("{}/$metadata#Microsoft.Dynamics.CRM.{name}Response", call.base), &mut body);
    body.extend_from_slice(b",\"Ids\":[");
    let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.push(b'"');
        body.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
        body.push(b'"');
    }
    body.extend_from_slice(b"]}");
    Answer::json(body)
}
