//! The answer of a joined query as JSON.
//!
//! Promise: the root's primary id is always there unless rows are distinct; linked columns are
//! `alias.column` and left out when null; FetchXML tells its pages in annotations, SQL by
//! `@odata.nextLink`. Whether null linked columns are left out is UNVERIFIED.

use super::grouping::{Group, groups};
use super::join::{Joiner, Tuple};
use super::output::Output;
use super::page::{Page, page};
use super::plan::{Plan, plan};
use super::{Fetch, Language};
use crate::error::ApiError;
use crate::query::json::{formatted, grouped, write_name, write_named, write_text, write_value};
use crate::query::page::Cookie;
use crate::query::read::{Reader, check_answer, next_link};
use crate::query::view::RowView;
use crate::storage::{Value, ValueRef};

/// A total is told up to here.
const TOTAL_MAX: u64 = 5000;

/// Runs a query and writes the answer; returns the rows it read or holds.
pub(crate) fn run_fetch(
    reader: &Reader<'_>,
    query: &Fetch,
    query_string: &str,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    let plan = plan(reader.scope, query)?;
    if query.is_aggregate {
        return run_groups(reader, query, &plan, out);
    }
    let page = page(reader, query, &plan)?;
    write_head(reader, query, &plan, &page, out);
    for (index, tuple) in page.tuples.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_tuple(reader, query, &plan, tuple, out);
        check_answer(out)?;
    }
    out.push(b']');
    if let (Language::Sql { .. }, true) = (&query.language, page.has_more && query.top.is_none()) {
        let number = query.page.max(1) + 1;
        let by_number = || Cookie {
            page: number,
            keys: Vec::new(),
            last: uuid::Uuid::nil(),
            first: uuid::Uuid::nil(),
            is_tracking: false,
        };
        let cookie = page.next.clone().unwrap_or_else(by_number);
        out.extend_from_slice(b",\"@odata.nextLink\":");
        let token = cookie.encode(reader.scope.table.primary_id());
        write_text(&next_link(reader.base, path, query_string, &token), out);
    }
    out.push(b'}');
    Ok(page.tuples.len())
}

fn write_context(reader: &Reader<'_>, plan: &Plan, out: &mut Vec<u8>) {
    let names: Vec<&str> = plan.outputs.iter().map(|output| output.name.as_str()).collect();
    out.extend_from_slice(b"{\"@odata.context\":");
    let context = format!("{}/$metadata#{}({})", reader.base, reader.scope.table.set_name, names.join(","));
    write_text(&context, out);
}

fn write_head(reader: &Reader<'_>, query: &Fetch, plan: &Plan, page: &Page<'_>, out: &mut Vec<u8>) {
    write_context(reader, plan, out);
    let annotations = reader.annotations;
    if annotations.total_count {
        let total = page.total.map_or(-1, |total| total.min(TOTAL_MAX) as i64);
        let exceeded = page.total.is_some_and(|total| total > TOTAL_MAX);
        let text = format!(
            ",\"@Microsoft.Dynamics.CRM.totalrecordcount\":{total},\"@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded\":{exceeded}"
        );
        out.extend_from_slice(text.as_bytes());
    }
    if annotations.metadata_version {
        out.extend_from_slice(b",\"@Microsoft.Dynamics.CRM.globalmetadataversion\":");
        write_text(&reader.scope.schema.version.to_string(), out);
    }
    if query.language == Language::FetchXml {
        if let (true, Some(cookie)) = (annotations.paging_cookie, &page.next) {
            out.extend_from_slice(b",\"@Microsoft.Dynamics.CRM.fetchxmlpagingcookie\":");
            write_text(&cookie.outer(reader.scope.table.primary_id()), out);
        }
        if annotations.more_records {
            let text = format!(",\"@Microsoft.Dynamics.CRM.morerecords\":{}", page.has_more);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out.extend_from_slice(b",\"value\":[");
}

fn write_tuple(reader: &Reader<'_>, query: &Fetch, plan: &Plan, tuple: &Tuple<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    if let (false, Some(root)) = (query.is_distinct, tuple[0]) {
        out.extend_from_slice(format!("\"@odata.etag\":\"W/\\\"{}\\\"\"", root.row.version).as_bytes());
        is_first = false;
    }
    for output in &plan.outputs {
        let value = tuple[output.node].and_then(|view| view.value(output.column));
        if value.is_none() && output.node > 0 {
            continue;
        }
        let Some(view) = tuple[output.node] else { continue };
        separate(&mut is_first, out);
        if let Some(parent) = output.children {
            let count = reader.database.store(view.table.id).pointing(parent, &view.id()).len();
            write_name(&output.name, "", out);
            out.extend_from_slice(count.to_string().as_bytes());
            continue;
        }
        write_output(reader, view, output, value.as_ref(), out);
    }
    out.push(b'}');
}

fn separate(is_first: &mut bool, out: &mut Vec<u8>) {
    if !*is_first {
        out.push(b',');
    }
    *is_first = false;
}

fn write_output(
    reader: &Reader<'_>,
    view: RowView<'_>,
    output: &Output,
    value: Option<&ValueRef<'_>>,
    out: &mut Vec<u8>,
) {
    let column = view.table.column(output.column);
    let schema = reader.scope.schema;
    write_named(reader.database, schema, view, (column, &output.name), value, reader.annotations, out);
    if output.is_renamed && reader.annotations.attribute_name {
        out.push(b',');
        write_name(&output.name, "@OData.Community.Display.V1.AttributeName", out);
        write_text(&column.logical, out);
    }
}

fn run_groups(reader: &Reader<'_>, query: &Fetch, plan: &Plan, out: &mut Vec<u8>) -> Result<usize, ApiError> {
    let joiner = Joiner::new(reader.database, reader.scope.schema);
    let groups = groups(&joiner, query, plan, reader.scope.fiscal())?;
    let limit = query.top.or(query.count).or(reader.page_size).unwrap_or(groups.len());
    let skip = (query.page.max(1) as usize - 1).saturating_mul(limit);
    let has_more = query.top.is_none() && groups.len() > skip.saturating_add(limit);
    write_context(reader, plan, out);
    if reader.annotations.more_records && query.language == Language::FetchXml {
        let text = format!(",\"@Microsoft.Dynamics.CRM.morerecords\":{has_more}");
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b",\"value\":[");
    let mut written = 0;
    for group in groups.iter().skip(skip).take(limit) {
        if written > 0 {
            out.push(b',');
        }
        written += 1;
        write_group(reader, plan, group, out);
    }
    out.extend_from_slice(b"]}");
    Ok(written)
}

fn write_group(reader: &Reader<'_>, plan: &Plan, group: &Group<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, output) in plan.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let column = reader.scope.schema.table(plan.nodes[output.node].table).column(output.column);
        write_name(&output.name, "", out);
        let start = out.len();
        match (output.method, &group.values[index]) {
            (Some(method), _) => group.totals[index].write(Some(column), method, out),
            (None, Some(Value::Int(part))) if output.date_grouping.is_some() => {
                out.extend_from_slice(part.to_string().as_bytes());
            }
            (None, Some(value)) => write_value(column, &value.as_ref(), out),
            (None, None) => out.extend_from_slice(b"null"),
        }
        let written = String::from_utf8_lossy(&out[start..]).into_owned();
        if let (true, Some(text)) = (reader.annotations.formatted, group_text(reader, output, group, index, &written)) {
            out.push(b',');
            write_name(&output.name, "@OData.Community.Display.V1.FormattedValue", out);
            write_text(&text, out);
        }
        if let (true, Some(Value::Lookup(table, _))) = (reader.annotations.lookup_name, &group.values[index]) {
            out.push(b',');
            write_name(&output.name, "@Microsoft.Dynamics.CRM.lookuplogicalname", out);
            write_text(&reader.scope.schema.table(*table).logical, out);
        }
    }
    out.push(b'}');
}

/// The display text of a group's value; numbers that were added up get their thousands apart.
fn group_text(reader: &Reader<'_>, output: &Output, group: &Group<'_>, index: usize, written: &str) -> Option<String> {
    let is_number = written.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let value = match output.method {
        Some(_) => None,
        None => group.values[index].as_ref().filter(|_| output.date_grouping.is_none()),
    };
    let Some(value) = value else {
        return is_number.then(|| grouped(written));
    };
    let view = group.example.as_ref()?[output.node]?;
    let column = view.table.column(output.column);
    formatted(reader.database, reader.scope.schema, view, column, &value.as_ref())
}
