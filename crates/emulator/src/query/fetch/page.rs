//! One page of joined rows.
//!
//! Promise: with a cookie a page begins after the row the cookie names, whatever was added or
//! removed meanwhile; an order by a linked column pages by number only, up to 50,000 rows. Left
//! out: aggregation (`grouping`).

use std::cmp::Ordering;
use std::collections::HashSet;

use uuid::Uuid;

use super::join::{Joiner, Tuple};
use super::plan::Plan;
use super::{Fetch, Language};
use crate::error::{ApiError, Code};
use crate::query::eval::compare;
use crate::query::json::plain_text;
use crate::query::order::{SortKey, order_value, parse_order_value};
use crate::query::page::{Cookie, PAGE_ROWS_MAX};
use crate::query::read::Reader;
use crate::storage::{Value, key_hash};

/// Rows that can be paged through by number alone.
const SIMPLE_ROWS_MAX: u64 = 50_000;
/// A total is counted up to here.
const TOTAL_MAX: u64 = 5000;
/// Rows one query may sort.
const SORTED_MAX: usize = 2_000_000;

pub(super) struct Page<'a> {
    pub(super) tuples: Vec<Tuple<'a>>,
    pub(super) has_more: bool,
    /// Where the next page begins, if more rows follow and a cookie can say so.
    pub(super) next: Option<Cookie>,
    /// Rows in all, when asked for; one more than the greatest count if there are more.
    pub(super) total: Option<u64>,
}

/// Ids of the root rows a query finds, all of them.
pub(crate) fn select_ids(reader: &Reader<'_>, query: &Fetch) -> Result<Vec<Uuid>, ApiError> {
    let plan = super::plan::plan(reader.scope, query)?;
    let mut found: Vec<Uuid> = Vec::new();
    let joiner = Joiner::new(reader.database, reader.scope.schema);
    joiner.run(&plan.nodes, &plan.late, None, &mut |tuple| {
        let key = tuple[0].map(|view| view.key);
        // Several joined rows of one root row follow each other.
        found.extend(key.filter(|key| found.last() != Some(key)));
        Ok(query.top.is_none_or(|top| found.len() < top))
    })?;
    Ok(found)
}

struct Bounds {
    page: u64,
    limit: usize,
    skip: u64,
    after: Option<(SortKey, Vec<Option<Uuid>>)>,
}

pub(super) fn page<'a>(reader: &Reader<'a>, query: &Fetch, plan: &Plan) -> Result<Page<'a>, ApiError> {
    let bounds = bounds(reader, query, plan)?;
    let joiner = Joiner::new(reader.database, reader.scope.schema);
    let mut page = if plan.orders.is_empty() {
        streamed(&joiner, query, plan, &bounds)?
    } else {
        sorted(&joiner, query, plan, &bounds)?
    };
    if query.top.is_some() && query.language == Language::FetchXml {
        page.has_more = false;
    }
    if page.has_more && !query.is_distinct && plan.orders.iter().all(|order| order.node == 0) {
        page.next = next_cookie(&joiner, plan, &page, bounds.page + 1);
    }
    Ok(page)
}

fn bounds(reader: &Reader<'_>, query: &Fetch, plan: &Plan) -> Result<Bounds, ApiError> {
    let asked = query.top.or(query.count).or(reader.page_size);
    let limit = asked.unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
    let cookie = match &query.language {
        Language::FetchXml => query.cookie.as_ref().map(|text| Cookie::decode_inner(text, query.page, false)),
        Language::Sql { skip_token } => skip_token.as_ref().map(|token| Cookie::decode(token)),
    };
    let cookie = cookie.transpose()?;
    let page = cookie.as_ref().map_or(query.page, |cookie| cookie.page).max(1);
    let after = match &cookie {
        Some(cookie) if cookie.last != Uuid::nil() => Some(read_cookie(reader, plan, cookie)?),
        _ => None,
    };
    let skip = if after.is_some() { 0 } else { (page - 1).saturating_mul(limit as u64).saturating_add(query.offset) };
    if skip > 0 && skip.saturating_add(limit as u64) > SIMPLE_ROWS_MAX {
        return Err(ApiError::new(
            Code::PageWithoutCookie,
            "Paging cookie is required when trying to retrieve a set of records on any high pages.",
        ));
    }
    Ok(Bounds { page, limit, skip, after })
}

fn ids(tuple: &Tuple<'_>) -> Vec<Option<Uuid>> {
    tuple.iter().map(|view| view.map(|view| view.key)).collect()
}

/// Rows as the join makes them.
fn streamed<'a>(joiner: &Joiner<'a>, query: &Fetch, plan: &Plan, bounds: &Bounds) -> Result<Page<'a>, ApiError> {
    let mut collector = Collector::new(query, plan, bounds);
    let start = bounds.after.as_ref().and_then(|(_, ids)| ids.first().copied().flatten());
    joiner.run(&plan.nodes, &plan.late, start, &mut |tuple| {
        let is_before = bounds.after.as_ref().is_some_and(|(_, last)| ids(tuple) <= *last);
        Ok(is_before || collector.take(tuple))
    })?;
    Ok(collector.page)
}

fn sorted<'a>(joiner: &Joiner<'a>, query: &Fetch, plan: &Plan, bounds: &Bounds) -> Result<Page<'a>, ApiError> {
    let mut rows: Vec<(SortKey, Tuple<'a>)> = Vec::new();
    joiner.run(&plan.nodes, &plan.late, None, &mut |tuple| {
        if rows.len() >= SORTED_MAX {
            let message =
                "This query cannot be executed because it conflicts with Query Throttling; too many rows to sort.";
            return Err(ApiError::new(Code::DataEngineQueryThrottling, message));
        }
        rows.push((sort_key(joiner, plan, tuple), tuple.clone()));
        Ok(true)
    })?;
    rows.sort_by(|a, b| compare_rows(plan, (&a.0, &ids(&a.1)), (&b.0, &ids(&b.1))));
    let mut collector = Collector::new(query, plan, bounds);
    for (key, tuple) in &rows {
        let row = (key, &ids(tuple));
        let is_before =
            bounds.after.as_ref().is_some_and(|(last, ids)| compare_rows(plan, row, (last, ids)) != Ordering::Greater);
        if !is_before && !collector.take(tuple) {
            break;
        }
    }
    Ok(collector.page)
}

fn sort_key(joiner: &Joiner<'_>, plan: &Plan, tuple: &Tuple<'_>) -> SortKey {
    let value = |order: &super::output::OrderBy| {
        let value = tuple[order.node]?.value(order.column)?;
        Some(order_value(joiner.database, joiner.schema, &value))
    };
    plan.orders.iter().map(value).collect()
}

type SortedRow<'k> = (&'k SortKey, &'k Vec<Option<Uuid>>);

fn compare_rows(plan: &Plan, a: SortedRow<'_>, b: SortedRow<'_>) -> Ordering {
    for (index, order) in plan.orders.iter().enumerate() {
        let ordering = compare_values(a.0[index].as_ref(), b.0[index].as_ref());
        let ordering = if order.is_descending { ordering.reverse() } else { ordering };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    a.1.cmp(b.1)
}

/// Nulls first, as everywhere.
pub(super) fn compare_values(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(&a.as_ref(), &b.as_ref()).unwrap_or(Ordering::Equal),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Takes rows until the page is full and nothing more needs counting.
struct Collector<'p, 'a> {
    plan: &'p Plan,
    page: Page<'a>,
    seen: u64,
    skip: u64,
    limit: usize,
    distinct: Option<HashSet<u128>>,
}

impl<'p, 'a> Collector<'p, 'a> {
    fn new(query: &Fetch, plan: &'p Plan, bounds: &Bounds) -> Self {
        Collector {
            plan,
            page: Page { tuples: Vec::new(), has_more: false, next: None, total: query.wants_total.then_some(0) },
            seen: 0,
            skip: bounds.skip,
            limit: bounds.limit,
            distinct: query.is_distinct.then(HashSet::new),
        }
    }

    /// Whether further rows are wanted.
    fn take(&mut self, tuple: &Tuple<'a>) -> bool {
        if self.distinct.as_mut().is_some_and(|seen| !seen.insert(shown_hash(self.plan, tuple))) {
            return true;
        }
        self.seen += 1;
        let counts_on = match &mut self.page.total {
            Some(total) => {
                *total += 1;
                *total <= TOTAL_MAX
            }
            None => false,
        };
        if self.seen <= self.skip {
            return true;
        }
        if self.page.tuples.len() < self.limit {
            self.page.tuples.push(tuple.clone());
            return true;
        }
        self.page.has_more = true;
        counts_on
    }
}

/// Stands for what a row shows.
fn shown_hash(plan: &Plan, tuple: &Tuple<'_>) -> u128 {
    let mut bytes = Vec::with_capacity(plan.outputs.len() * 17);
    for output in &plan.outputs {
        let value = tuple[output.node].and_then(|view| view.value(output.column));
        match value.and_then(|value| key_hash(std::iter::once(Some(value)))) {
            Some(hash) => {
                bytes.push(1);
                bytes.extend_from_slice(&hash.to_le_bytes());
            }
            None => bytes.push(0),
        }
    }
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// Order columns first, then the ids of linked rows; the root's ids stand last.
fn next_cookie(joiner: &Joiner<'_>, plan: &Plan, page: &Page<'_>, number: u64) -> Option<Cookie> {
    let (first, last) = (page.tuples.first()?[0]?, page.tuples.last()?);
    let mut keys = Vec::new();
    for (order, value) in plan.orders.iter().zip(sort_key(joiner, plan, last)) {
        let column = joiner.schema.table(plan.nodes[order.node].table).column(order.column);
        keys.push((order.name.clone(), value.map(|value| plain_text(joiner.schema, column, &value.as_ref()))));
    }
    for (node, view) in plan.nodes.iter().zip(last).skip(1) {
        let primary = joiner.schema.table(node.table).primary_id();
        keys.push((format!("{}.{primary}", node.name), view.map(|view| view.key.to_string())));
    }
    Some(Cookie { page: number, keys, last: last[0]?.key, first: first.key, is_tracking: false })
}

fn read_cookie(reader: &Reader<'_>, plan: &Plan, cookie: &Cookie) -> Result<(SortKey, Vec<Option<Uuid>>), ApiError> {
    let mismatch = || ApiError::new(Code::CookieMismatch, "The order columns differ from those of the paging cookie.");
    if cookie.keys.len() != plan.orders.len() + plan.nodes.len() - 1 {
        return Err(mismatch());
    }
    let (orders, links) = cookie.keys.split_at(plan.orders.len());
    let mut key = Vec::new();
    for (order, (name, text)) in plan.orders.iter().zip(orders) {
        if order.name != *name {
            return Err(mismatch());
        }
        let table = reader.scope.schema.table(plan.nodes[order.node].table);
        key.push(parse_order_value(reader.scope.schema, table, table.column(order.column), text.as_deref())?);
    }
    let linked = links.iter().map(|(_, text)| text.as_deref().and_then(|text| Uuid::parse_str(text).ok()));
    Ok((key, std::iter::once(Some(cookie.last)).chain(linked).collect()))
}
