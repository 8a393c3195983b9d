//! `$apply`: filters, grouping and aggregation.
//!
//! Promise: at most 50,000 rows go in. Left out, and refused by name: `countdistinct`, grouping
//! by a raw time, ordering by an aggregate, and transformations other than filter, groupby and
//! aggregate.

use std::collections::HashMap;

use super::compile::{ColumnPath, Predicate, Scope, column_path, compile};
use super::eval::{column_value, matches};
use super::json::{write_text, write_value};
use super::options::QueryOptions;
use super::parse::parse_filter;
use super::read::Reader;
use super::totals::{Accumulator, Method, ROWS_MAX, check_rows};
use super::view::RowView;
use crate::address::split_outside_quotes;
use crate::error::ApiError;
use crate::schema::ColumnKind;
use crate::storage::Value;

struct Aggregate {
    method: Method,
    column: Option<ColumnPath>,
    alias: String,
}

struct GroupColumn {
    path: ColumnPath,
    /// The column itself, or `<table>_<column>` for a related one.
    name: String,
}

#[derive(Default)]
struct Pipeline {
    filter: Vec<Predicate>,
    groups: Vec<GroupColumn>,
    aggregates: Vec<Aggregate>,
}

/// Runs `$apply` and writes the answer; returns the number of groups.
pub(crate) fn aggregate(
    reader: &Reader<'_>,
    text: &str,
    options: &QueryOptions,
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    if options.order_by.is_some() {
        return Err(ApiError::query("The query node SingleValueOpenPropertyAccess is not supported"));
    }
    if options.filter.is_some() || options.select.is_some() || options.expand.is_some() {
        return Err(ApiError::query("The query options $filter, $select and $expand cannot be combined with $apply."));
    }
    let pipeline = parse(reader.scope, text, options)?;
    let mut groups: HashMap<String, (Vec<Option<Value>>, Vec<Accumulator>)> = HashMap::new();
    let table = reader.scope.table;
    let mut seen = 0;
    for (key, row) in reader.database.store(table.id).rows_after(None) {
        let view = RowView { table, key: *key, row };
        let holds = |filter: &Predicate| matches(reader.database, reader.scope.schema, view, filter);
        if !pipeline.filter.iter().chain(&reader.restriction).all(holds) {
            continue;
        }
        seen += 1;
        check_rows(seen, ROWS_MAX)?;
        let value = |path: &ColumnPath| column_value(reader.database, reader.scope.schema, view, path);
        let group: Vec<Option<Value>> =
            pipeline.groups.iter().map(|group| value(&group.path).map(|value| value.to_value())).collect();
        let entry = groups
            .entry(format!("{group:?}").to_lowercase())
            .or_insert_with(|| (group, pipeline.aggregates.iter().map(|_| Accumulator::default()).collect()));
        for (aggregate, accumulator) in pipeline.aggregates.iter().zip(&mut entry.1) {
            accumulator.add(aggregate.column.as_ref().and_then(&value), aggregate.method);
        }
    }
    if pipeline.groups.is_empty() && groups.is_empty() {
        groups
            .insert(String::new(), (Vec::new(), pipeline.aggregates.iter().map(|_| Accumulator::default()).collect()));
    }
    write_groups(reader, &pipeline, groups, out);
    Ok(seen)
}

fn write_groups(
    reader: &Reader<'_>,
    pipeline: &Pipeline,
    groups: HashMap<String, (Vec<Option<Value>>, Vec<Accumulator>)>,
    out: &mut Vec<u8>,
) {
    let schema = reader.scope.schema;
    let mut sorted: Vec<_> = groups.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    out.extend_from_slice(b"{\"@odata.context\":");
    write_text(&format!("{}/$metadata#{}", reader.base, reader.scope.table.set_name), out);
    out.extend_from_slice(b",\"value\":[");
    for (index, (_, (group, accumulators))) in sorted.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'{');
        let mut first = true;
        for (column, value) in pipeline.groups.iter().zip(group) {
            member(&column.name, &mut first, out);
            let kind = schema.table(column.path.table).column(column.path.column);
            match value {
                Some(value) => write_value(kind, &value.as_ref(), out),
                None => out.extend_from_slice(b"null"),
            }
        }
        for (aggregate, accumulator) in pipeline.aggregates.iter().zip(accumulators) {
            member(&aggregate.alias, &mut first, out);
            let column = aggregate.column.as_ref().map(|path| schema.table(path.table).column(path.column));
            accumulator.write(column, aggregate.method, out);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn member(name: &str, first: &mut bool, out: &mut Vec<u8>) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    write_text(name, out);
    out.push(b':');
}

fn parse(scope: &Scope<'_>, text: &str, options: &QueryOptions) -> Result<Pipeline, ApiError> {
    let mut pipeline = Pipeline::default();
    for step in split_outside_quotes(text, '/') {
        let (name, inner) = step
            .trim()
            .split_once('(')
            .and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?)))
            .ok_or_else(|| ApiError::query(format!("The transformation '{step}' in $apply does not parse.")))?;
        match name {
            "filter" => {
                let filter = compile(scope, &parse_filter(inner, &options.aliases)?)?;
                pipeline.filter.push(filter);
            }
            "aggregate" => pipeline.aggregates = parse_aggregates(scope, inner)?,
            "groupby" => {
                let parts = split_outside_quotes(inner, ',');
                let (columns, rest) = parts.split_first().ok_or_else(|| ApiError::query("groupby needs columns."))?;
                pipeline.groups = parse_groups(scope, columns)?;
                if let Some(aggregate) = rest.first() {
                    let inner = aggregate.trim().strip_prefix("aggregate(").and_then(|rest| rest.strip_suffix(')'));
                    let inner = inner.ok_or_else(|| ApiError::query("groupby takes columns and an aggregate."))?;
                    pipeline.aggregates = parse_aggregates(scope, inner)?;
                }
            }
            other => {
                return Err(ApiError::query(format!("The transformation '{other}' in $apply is not supported.")));
            }
        }
    }
    Ok(pipeline)
}

fn parse_groups(scope: &Scope<'_>, text: &str) -> Result<Vec<GroupColumn>, ApiError> {
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    let mut groups = Vec::new();
    for name in inner.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let steps: Vec<String> = name.split('/').map(str::to_owned).collect();
        let path = column_path(scope, &steps, "")?;
        let table = scope.schema.table(path.table);
        let column = table.column(path.column);
        if matches!(column.kind, ColumnKind::DateTime { .. }) {
            return Err(ApiError::query(format!("Grouping by the raw date and time of '{name}' is not supported.")));
        }
        let name =
            if path.hops.is_empty() { column.wire.clone() } else { format!("{}_{}", table.logical, column.logical) };
        groups.push(GroupColumn { path, name });
    }
    Ok(groups)
}

fn parse_aggregates(scope: &Scope<'_>, text: &str) -> Result<Vec<Aggregate>, ApiError> {
    let mut aggregates = Vec::new();
    for item in split_outside_quotes(text, ',') {
        let words: Vec<&str> = item.split_whitespace().collect();
        let aggregate = match words.as_slice() {
            ["$count", "as", alias] => Aggregate { method: Method::Count, column: None, alias: (*alias).to_owned() },
            [column, "with", method, "as", alias] => {
                let method = match *method {
                    "sum" => Method::Sum,
                    "average" => Method::Average,
                    "min" => Method::Min,
                    "max" => Method::Max,
                    other => {
                        return Err(ApiError::query(format!("The aggregation method '{other}' is not supported.")));
                    }
                };
                let steps: Vec<String> = column.split('/').map(str::to_owned).collect();
                Aggregate { method, column: Some(column_path(scope, &steps, "")?), alias: (*alias).to_owned() }
            }
            _ => {
                return Err(ApiError::query(format!("The aggregation '{}' does not parse.", item.trim())));
            }
        };
        aggregates.push(aggregate);
    }
    Ok(aggregates)
}
