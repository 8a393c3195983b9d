//! `$apply`: filters, grouping and aggregation.
//!
//! Promise: at most 50,000 rows go in. Left out, and refused by name: `countdistinct`, grouping
//! by a raw time, ordering by an aggregate, and transformations other than filter, groupby and
//! aggregate.

use std::collections::HashMap;

use super::compile::{ColumnPath, Predicate, Scope, column_path, compile};
use super::eval::{column_value, compare, matches};
use super::json::{write_text, write_value};
use super::options::QueryOptions;
use super::parse::parse_filter;
use super::read::Reader;
use super::view::RowView;
use crate::address::split_outside_quotes;
use crate::error::{ApiError, Code};
use crate::schema::ColumnKind;
use crate::storage::{Value, ValueRef};

/// Rows an aggregation may read.
const ROWS_MAX: usize = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Sum,
    Average,
    Min,
    Max,
    Count,
}

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
    filter: Option<Predicate>,
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
    let pipeline = parse(reader.scope, text, options)?;
    let mut groups: HashMap<String, (Vec<Option<Value>>, Vec<Accumulator>)> = HashMap::new();
    let table = reader.scope.table;
    let mut seen = 0;
    for (key, row) in reader.database.store(table.id).rows_after(None) {
        let view = RowView { table, key: *key, row };
        if !pipeline.filter.as_ref().is_none_or(|filter| matches(reader.database, reader.scope.schema, view, filter)) {
            continue;
        }
        seen += 1;
        if seen > ROWS_MAX {
            return Err(ApiError::new(
                Code::AggregateLimit,
                "The maximum record limit is exceeded. Reduce the number of records.",
            ));
        }
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
            accumulator.write(reader, aggregate, out);
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

#[derive(Default)]
struct Accumulator {
    count: u64,
    values: u64,
    decimal: i128,
    double: f64,
    extreme: Option<Value>,
}

impl Accumulator {
    fn add(&mut self, value: Option<ValueRef<'_>>, method: Method) {
        self.count += 1;
        let Some(value) = value else { return };
        self.values += 1;
        match &value {
            ValueRef::Int(number) => self.decimal += i128::from(*number) * 10_000_000_000,
            ValueRef::Decimal(number) => self.decimal += number,
            ValueRef::Double(number) => self.double += number,
            _ => {}
        }
        let wanted = if method == Method::Max { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
        let replaces = self.extreme.as_ref().is_none_or(|current| compare(&value, &current.as_ref()) == Some(wanted));
        if replaces && matches!(method, Method::Min | Method::Max) {
            self.extreme = Some(value.to_value());
        }
    }

    fn write(&self, reader: &Reader<'_>, aggregate: &Aggregate, out: &mut Vec<u8>) {
        let Some(path) = aggregate.column.as_ref().filter(|_| aggregate.method != Method::Count) else {
            out.extend_from_slice(self.count.to_string().as_bytes());
            return;
        };
        if self.values == 0 {
            out.extend_from_slice(b"null");
            return;
        }
        let column = reader.scope.schema.table(path.table).column(path.column);
        if let Some(extreme) = &self.extreme {
            return write_value(column, &extreme.as_ref(), out);
        }
        let is_average = aggregate.method == Method::Average;
        let divisor = if is_average { self.values } else { 1 };
        match column.kind {
            ColumnKind::Double { .. } => {
                out.extend_from_slice(ryu::Buffer::new().format(self.double / divisor as f64).as_bytes());
            }
            ColumnKind::Integer { .. } | ColumnKind::BigInt if !is_average => {
                out.extend_from_slice((self.decimal / 10_000_000_000).to_string().as_bytes());
            }
            ColumnKind::Integer { .. } | ColumnKind::BigInt => {
                let average = self.decimal as f64 / 10_000_000_000.0 / divisor as f64;
                out.extend_from_slice(ryu::Buffer::new().format(average).as_bytes());
            }
            _ => write_value(column, &ValueRef::Decimal(self.decimal / i128::from(divisor)), out),
        }
    }
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
                pipeline.filter = Some(compile(scope, &parse_filter(inner, &options.aliases)?)?);
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
                return Err(ApiError::not_here(&format!("the $apply transformation '{other}'")));
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

/// Rounds a decimal scaled by 10^10 to a number of places, half away from zero.
pub(super) fn round_places(value: i128, places: u8) -> i128 {
    let unit = 10i128.pow(10u32.saturating_sub(u32::from(places)));
    let half = if value >= 0 { unit / 2 } else { -(unit / 2) };
    (value + half) / unit * unit
}
