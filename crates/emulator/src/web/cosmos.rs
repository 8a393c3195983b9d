//! `ExecuteCosmosSqlQuery`: rows of an elastic table as documents.
//!
//! Promise: columns are members of `props` under their logical names, JSON columns as what they
//! hold. The wrapping of bare values as `_value` is UNVERIFIED. Left out: system members of the
//! store (`id`, `_ts`, ...).

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::actions::call_arguments;
use super::{Access, Answer, Call, Request};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::{PAGE_ROWS_MAX, RowView, parse_cosmos, write_value};
use crate::schema::{ColumnKind, Schema, Table};
use crate::storage::{Database, ValueRef};

fn text(arguments: &HashMap<String, String>, name: &str) -> Option<String> {
    let text = arguments.get(name)?;
    let inner = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    Some(inner.map_or_else(|| text.clone(), |inner| inner.replace("''", "'")))
}

pub(super) fn answer(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Schema,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let arguments = call_arguments(request, arguments)?;
    let needed = |name: &str| {
        text(&arguments, name).ok_or_else(|| ApiError::bad_request(format!("Required field '{name}' is missing")))
    };
    let (query, name) = (needed("QueryText")?, needed("EntityLogicalName")?);
    let table = schema.by_logical(&name).ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{name}' was not found in the MetadataCache."),
        )
    })?;
    if !table.is_elastic {
        let message = format!("The 'ExecuteCosmosSqlQuery' method does not support entities of type '{name}'.");
        return Err(ApiError::new(Code::MessageNotSupported, message));
    }
    let parameters = parameters(arguments.get("QueryParameters").map_or("null", String::as_str))?;
    let query = parse_cosmos(&query, &parameters)?;
    let number = |name: &str| text(&arguments, name).and_then(|text| text.parse::<usize>().ok());
    let size = number("PageSize").filter(|size| *size > 0).unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
    let skipped = number("PagingCookie").unwrap_or(0);
    let partition = text(&arguments, "PartitionId");
    let documents = access.read(|database| documents(database, table, partition.as_deref()));
    let rows = documents.len() as u64;
    let found = query.run(documents);
    let has_more = found.len() > skipped.saturating_add(size);
    let page: Vec<Json> = found.into_iter().skip(skipped).take(size).map(typed).collect();
    let cookie = if has_more { (skipped + size).to_string() } else { String::new() };
    let body = json!({
        "@odata.context": format!("{}/$metadata#expando/$entity", call.base),
        "@odata.type": "#Microsoft.Dynamics.CRM.expando",
        "PagingCookie": cookie, "HasMore": has_more, "Result": page,
    });
    Ok(Answer::json(body.to_string().into_bytes()).with_work(Message::Read, rows))
}

fn typed(row: Json) -> Json {
    match row {
        Json::Object(members) => {
            let kind = ("@odata.type".to_owned(), Json::from("#Microsoft.Dynamics.CRM.expando"));
            Json::Object(std::iter::once(kind).chain(members).collect())
        }
        other => other,
    }
}

/// `{"Keys":["@v"],"Values":[{"Type":"System.Int32","Value":"5"}]}` as values by name.
fn parameters(text: &str) -> Result<HashMap<String, Json>, ApiError> {
    let invalid = || ApiError::bad_request("QueryParameters takes Keys and Values of one length.");
    let parsed: Json = serde_json::from_str(text).map_err(|_| invalid())?;
    if parsed.is_null() {
        return Ok(HashMap::new());
    }
    let list = |name: &str| parsed.get(name).and_then(Json::as_array).ok_or_else(invalid);
    let (keys, values) = (list("Keys")?, list("Values")?);
    if keys.len() != values.len() {
        return Err(invalid());
    }
    let mut found = HashMap::new();
    for (key, value) in keys.iter().zip(values) {
        let kind = value.get("Type").and_then(Json::as_str).unwrap_or("System.String");
        let raw = value.get("Value").unwrap_or(value);
        let plain = raw.as_str().map_or_else(|| raw.to_string(), str::to_owned);
        let value = match kind {
            "System.String" | "System.Guid" | "System.DateTime" => Json::from(plain),
            _ => serde_json::from_str(&plain.to_lowercase()).map_err(|_| invalid())?,
        };
        found.insert(key.as_str().ok_or_else(invalid)?.to_owned(), value);
    }
    Ok(found)
}

fn documents(database: &Database, table: &Table, partition: Option<&str>) -> Vec<Json> {
    let is_wanted = |row: &crate::storage::Row| match (partition, table.known.partition) {
        (Some(wanted), Some(column)) => row.get(column) == Some(ValueRef::Text(wanted)),
        _ => true,
    };
    let rows = database.store(table.id).rows_after(None).filter(|(_, row)| is_wanted(row));
    rows.map(|(key, row)| document(RowView { table, key: *key, row })).collect()
}

fn document(view: RowView<'_>) -> Json {
    let mut props = Map::new();
    for column in view.table.live_columns() {
        let Some(value) = view.value(column.ordinal) else { continue };
        let parsed = match (&column.kind, &value) {
            (ColumnKind::Text { format, .. }, ValueRef::Text(text)) if format == "Json" => {
                serde_json::from_str(text).ok()
            }
            _ => {
                let mut out = Vec::new();
                write_value(column, &value, &mut out);
                serde_json::from_slice(&out).ok()
            }
        };
        props.insert(column.logical.clone(), parsed.unwrap_or(Json::Null));
    }
    json!({ "props": props })
}
