//! `$apply`: filters, grouping and aggregation.
//!
//! Promise: at most 50,000 rows go in. Left out, and refused by name: `countdistinct`, grouping
//! by a raw time, ordering by an aggregate, and transformations other than filter, groupby and
//! aggregate.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::compile::{ColumnPath, Predicate, Scope, column_path, compile};
use super::eval::{column_value, compare, matches};
use super::json::{write_text, write_value};
use super::options::QueryOptions;
use super::parse::parse_filter;
use super::read::Reader;
use super::totals::{Accumulator, Method, ROWS_MAX, check_rows};
use super::view::RowView;
use crate::address::split_outside_quotes;
use crate::error::ApiError;
use crate::schema::ColumnKind;
use crate::storage::{Value, key_hash};

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

/// Filters, grouped columns and aggregations of one pipeline.
const PARTS_MAX: usize = 100;

/// The grouped values, and what was added up for them.
type Group = (Vec<Option<Value>>, Vec<Accumulator>);

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
    let mut groups: HashMap<Vec<Option<u128>>, Group> = HashMap::new();
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
        // Values that are the same to the collation fall into one group.
        let same = group.iter().map(|value| key_hash(std::iter::once(value.as_ref().map(Value::as_ref))));
        let entry = groups
            .entry(same.collect())
            .or_insert_with(|| (group, pipeline.aggregates.iter().map(|_| Accumulator::default()).collect()));
        for (aggregate, accumulator) in pipeline.aggregates.iter().zip(&mut entry.1) {
            accumulator.add(aggregate.column.as_ref().and_then(&value), aggregate.method);
        }
    }
    pipeline.filter.iter().try_for_each(Predicate::check_visits)?;
    if pipeline.groups.is_empty() && groups.is_empty() {
        let totals = pipeline.aggregates.iter().map(|_| Accumulator::default()).collect();
        groups.insert(Vec::new(), (Vec::new(), totals));
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| compare_groups(&a.0, &b.0));
    write_groups(reader, &pipeline, &groups, out);
    Ok(seen)
}

/// By their values in turn, nulls first.
fn compare_groups(a: &[Option<Value>], b: &[Option<Value>]) -> Ordering {
    let pairs = a.iter().zip(b).map(|pair| match pair {
        (Some(a), Some(b)) => compare(&a.as_ref(), &b.as_ref()).unwrap_or(Ordering::Equal),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    pairs.fold(Ordering::Equal, Ordering::then)
}

fn write_groups(reader: &Reader<'_>, pipeline: &Pipeline, groups: &[Group], out: &mut Vec<u8>) {
    let schema = reader.scope.schema;
    out.extend_from_slice(b"{\"@odata.context\":");
    write_text(&format!("{}/$metadata#{}", reader.base, reader.scope.table.set_name), out);
    out.extend_from_slice(b",\"value\":[");
    for (index, (group, accumulators)) in groups.iter().enumerate() {
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
        if pipeline.filter.len() + pipeline.groups.len() + pipeline.aggregates.len() > PARTS_MAX {
            return Err(ApiError::query(format!(
                "$apply takes at most {PARTS_MAX} filters, columns and aggregations."
            )));
        }
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
