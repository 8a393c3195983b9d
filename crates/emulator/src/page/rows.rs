//! The rows of one table, as the Web API answers them.

use std::sync::PoisonError;

use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json};

use super::{add, escaped};
use crate::engine::Engine;
use crate::query::decode_pairs;
use crate::service;
use crate::throttle::grouped;
use crate::web::Request;

/// Columns beside the name that say something about most rows come first; these come last.
const STAMPS: &[&str] = &["createdon", "modifiedon", "versionnumber", "statecode", "statuscode"];
const COLUMNS_MAX: usize = 24;

pub(super) fn main(engine: &Engine, origin: &str, name: &str, query: &str) -> Option<String> {
    let (set, label, id, primary_name, count) = {
        let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
        let table = database.schema.by_logical(name)?;
        let primary_name = table.primary_name().map(|column| column.logical.clone()).unwrap_or_default();
        (
            table.set_name.clone(),
            table.label.clone(),
            table.primary_id().to_owned(),
            primary_name,
            database.store(table.id).len(),
        )
    };
    let token = decode_pairs(query).into_iter().find(|(name, _)| name == "after").map(|(_, value)| value);
    let answer = page(engine, origin, &set, token.as_deref().unwrap_or(""));
    let rows = answer.get("value").and_then(Json::as_array).cloned().unwrap_or_default();
    let columns = shown_columns(&rows, &id, &primary_name);
    let mut out = format!(
        "<main><header><h1>{}</h1><p class=\"address\">{}</p><p>{} rows</p><p><a href=\"/__emulator/\">All tables</a></p></header><section class=\"card\">",
        escaped(&label),
        escaped(name),
        grouped(count as u64)
    );
    if rows.is_empty() {
        out.push_str("<p class=\"empty\">No rows here.</p>");
    } else {
        table(&rows, &columns, &mut out);
    }
    if let Some(next) = answer.get("@odata.nextLink").and_then(Json::as_str) {
        let token = next.split_once("$skiptoken=").map_or("", |(_, token)| token);
        add(
            &mut out,
            format_args!(
                "<p><a href=\"/__emulator/tables/{}?after={}\">More rows</a></p>",
                escaped(name),
                escaped(token)
            ),
        );
    }
    out.push_str("</section></main>");
    Some(out)
}

/// One page of the set, read as the emulator's own user.
fn page(engine: &Engine, origin: &str, set: &str, token: &str) -> Map<String, Json> {
    let query = if token.is_empty() {
        String::new()
    } else {
        format!("$skiptoken={}", utf8_percent_encode(token, NON_ALPHANUMERIC))
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        "prefer",
        HeaderValue::from_static(
            "odata.maxpagesize=50,odata.include-annotations=\"OData.Community.Display.V1.FormattedValue\"",
        ),
    );
    let request = Request { method: Method::GET, path: set.to_owned(), query, headers, body: bytes::Bytes::new() };
    let answer = service::execute_as_owner(engine, origin, &request);
    match serde_json::from_slice(&answer.body) {
        Ok(Json::Object(object)) => object,
        _ => Map::new(),
    }
}

/// The columns in which some row holds something: name and id first, then those that differ from
/// row to row, stamps and links last.
fn shown_columns(rows: &[Json], id: &str, primary_name: &str) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for row in rows.iter().filter_map(Json::as_object) {
        for (name, value) in row {
            if !value.is_null() && !name.contains('@') && !columns.contains(name) {
                columns.push(name.clone());
            }
        }
    }
    let rank = |name: &String| match name.as_str() {
        name if name == primary_name => 0,
        name if name == id => 1,
        name if STAMPS.contains(&name) => 4,
        name if name.starts_with('_') => 5,
        name if rows.iter().any(|row| row[name] != rows[0][name]) => 2,
        _ => 3,
    };
    columns.sort_by_key(rank);
    columns.truncate(COLUMNS_MAX);
    columns
}

fn table(rows: &[Json], columns: &[String], out: &mut String) {
    out.push_str("<div class=\"scroll\"><table><tr>");
    for column in columns {
        add(out, format_args!("<th>{}</th>", escaped(column)));
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for column in columns {
            let value = match &row[column] {
                Json::Null => String::new(),
                Json::String(text) => text.clone(),
                other => other.to_string(),
            };
            let formatted = row[format!("{column}@OData.Community.Display.V1.FormattedValue")].as_str();
            let kind = if column.ends_with("id") || column.starts_with('_') { "cell path" } else { "cell" };
            let (value, shown) = (escaped(&value), escaped(formatted.unwrap_or(&value)));
            add(out, format_args!("<td class=\"{kind}\" title=\"{value}\">{shown}</td>"));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}
