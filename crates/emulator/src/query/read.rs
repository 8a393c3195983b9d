//! Reading a set: selection, filter, order, pages, and the JSON of the answer.
//!
//! Promise: the primary id is always there; money brings its currency; a page holds at most
//! 5,000 rows; `$top` yields to a page size; without `$orderby` rows come in id order and pages
//! are found without reading what went before. Left out: change tracking (`tracking`).

use uuid::Uuid;

use super::compile::{Predicate, Scope, compile};
use super::eval::matches;
use super::expand::{Expand, parse_expand, write_expands};
use super::json::{Annotations, plain_text, write_property, write_text};
use super::options::QueryOptions;
use super::order::{OrderKey, SortKey, compare_keys, is_natural, parse_order, parse_order_value, sort_key};
use super::page::{Cookie, PAGE_ROWS_MAX};
use super::parse::parse_filter;
use super::view::RowView;
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, Ordinal, Property, Schema, Table};
use crate::storage::{Database, Row, Value};

/// `$count` stops here.
const COUNT_MAX: u64 = 5000;

/// The columns an answer shows.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    /// In ordinal order, the primary id included.
    pub(crate) columns: Vec<Ordinal>,
    /// As written, for `@odata.context`.
    pub(crate) text: Option<String>,
}

/// Reads `$select`.
pub(crate) fn projection(table: &Table, select: Option<&str>) -> Result<Projection, ApiError> {
    let Some(text) = select.filter(|text| !text.is_empty() && *text != "*") else {
        let readable = |column: &&Column| {
            column.for_read && column.kind.is_stored() && !matches!(column.kind, ColumnKind::Image { .. })
        };
        let columns = table.live_columns().filter(readable).map(|column| column.ordinal);
        return Ok(Projection { columns: columns.collect(), text: None });
    };
    let mut columns = vec![0];
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match table.properties.get(name) {
            Some(Property::Column(ordinal) | Property::LookupValue(ordinal)) if table.column(*ordinal).for_read => {
                columns.push(*ordinal);
                if matches!(table.column(*ordinal).kind, ColumnKind::Money { .. }) {
                    columns.extend(table.known.currency);
                }
            }
            _ => return Err(super::compile::unknown_property(table, name)),
        }
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(Projection { columns, text: Some(text.split(',').map(str::trim).collect::<Vec<_>>().join(",")) })
}

/// A query over one set, ready to run.
pub(crate) struct Reader<'a> {
    pub(crate) database: &'a Database,
    pub(crate) scope: &'a Scope<'a>,
    /// `https://host/api/data/v9.2`.
    pub(crate) base: &'a str,
    pub(crate) annotations: Annotations,
    pub(crate) page_size: Option<usize>,
    /// Conditions beside `$filter`: those of a filtered collection.
    pub(crate) restriction: Option<Predicate>,
}

struct Plan {
    projection: Projection,
    filter: Option<Predicate>,
    order: Vec<OrderKey>,
    expands: Vec<Expand>,
    cookie: Option<Cookie>,
    limit: usize,
    pages: bool,
}

impl Reader<'_> {
    fn table(&self) -> &Table {
        self.scope.table
    }

    fn plan(&self, options: &QueryOptions) -> Result<Plan, ApiError> {
        let filter = options.filter.as_deref().map(|text| parse_filter(text, &options.aliases)).transpose()?;
        let filter = filter.map(|expr| compile(self.scope, &expr)).transpose()?;
        let partition = options.partition.as_deref().and_then(|partition| self.partition_filter(partition));
        let order = options.order_by.as_deref().map(|text| parse_order(self.scope, text)).transpose()?;
        let cookie = options.skip_token.as_deref().map(Cookie::decode).transpose()?;
        let top = options.top.filter(|_| self.page_size.is_none());
        let limit = self.page_size.unwrap_or(PAGE_ROWS_MAX).min(top.map_or(PAGE_ROWS_MAX, |top| top as usize));
        Ok(Plan {
            projection: projection(self.table(), options.select.as_deref())?,
            filter: [filter, partition, self.restriction.clone()].into_iter().flatten().reduce(both),
            order: order.unwrap_or_default(),
            expands: options
                .expand
                .as_deref()
                .map(|text| parse_expand(self.scope, text, options))
                .transpose()?
                .unwrap_or_default(),
            cookie,
            limit,
            pages: top.is_none_or(|top| top as usize > PAGE_ROWS_MAX),
        })
    }

    fn partition_filter(&self, partition: &str) -> Option<Predicate> {
        let column = self.table().known.partition?;
        let path = super::compile::ColumnPath { hops: Vec::new(), table: self.table().id, column };
        let value = Value::Text(partition.into());
        Some(Predicate::Test(path, super::compile::Test::Compare(super::Operator::Eq, value)))
    }

    fn accepts(&self, plan: &Plan, key: Uuid, row: &Row) -> bool {
        let view = RowView { table: self.table(), key, row };
        plan.filter.as_ref().is_none_or(|filter| matches(self.database, self.scope.schema, view, filter))
    }

    /// The rows that match, in id order, from the one after `after` on.
    fn rows<'r>(&'r self, plan: &'r Plan, after: Option<Uuid>) -> Box<dyn Iterator<Item = (Uuid, &'r Row)> + 'r> {
        let store = self.database.store(self.table().id);
        // Elastic rows are kept under other keys than their ids.
        let named = plan.filter.as_ref().filter(|_| !self.table().is_elastic).and_then(Predicate::named_ids);
        let Some(mut ids) = named else {
            let all = store.rows_after(after).map(|(key, row)| (*key, row));
            return Box::new(all.filter(|(key, row)| self.accepts(plan, *key, row)));
        };
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        let found = ids.into_iter().filter_map(|id| store.get(&id).map(|row| (id, row)));
        Box::new(found.filter(|(key, row)| self.accepts(plan, *key, row)))
    }

    /// Runs the query and writes the answer; returns the rows it holds.
    pub(crate) fn run(
        &self,
        options: &QueryOptions,
        query: &str,
        path: &str,
        out: &mut Vec<u8>,
    ) -> Result<usize, ApiError> {
        let plan = self.plan(options)?;
        let (rows, more) = self.page(&plan)?;
        self.write_head(&plan, options, out)?;
        let mut first = true;
        for key in &rows {
            let Some(row) = self.database.get(self.table().id, key) else {
                continue;
            };
            if !first {
                out.push(b',');
            }
            first = false;
            let view = RowView { table: self.table(), key: *key, row };
            out.push(b'{');
            write_row(self.database, self.scope.schema, view, &plan.projection, self.annotations, out);
            write_expands(self, view, &plan.expands, self.page_size, out)?;
            out.push(b'}');
            check_answer(out)?;
        }
        out.push(b']');
        if let (true, true, Some(last)) = (more, plan.pages, rows.last()) {
            let cookie = self.next_cookie(&plan, rows[0], *last);
            let link = next_link(self.base, path, query, &cookie.encode(self.table().primary_id()));
            out.extend_from_slice(b",\"@odata.nextLink\":");
            write_text(&link, out);
        }
        out.push(b'}');
        Ok(rows.len())
    }

    fn next_cookie(&self, plan: &Plan, first: Uuid, last: Uuid) -> Cookie {
        let page = plan.cookie.as_ref().map_or(2, |cookie| cookie.page + 1);
        let mut keys = Vec::new();
        if let Some(row) = self.database.get(self.table().id, &last).filter(|_| !is_natural(&plan.order)) {
            let view = RowView { table: self.table(), key: last, row };
            let values = sort_key(self.database, self.scope.schema, view, &plan.order);
            for (key, value) in plan.order.iter().zip(values) {
                let column = self.scope.schema.table(key.path.table).column(key.path.column);
                let text = value.map(|value| plain_text(self.scope.schema, column, &value.as_ref()));
                keys.push((key.name.replace('/', "."), text));
            }
        }
        Cookie { page, keys, last, first, is_tracking: false }
    }

    /// The keys of the page's rows, and whether more follow.
    fn page(&self, plan: &Plan) -> Result<(Vec<Uuid>, bool), ApiError> {
        if is_natural(&plan.order) {
            let after = plan.cookie.as_ref().map(|cookie| cookie.last);
            let mut rows = self.rows(plan, after).map(|(key, _)| key);
            let page: Vec<Uuid> = rows.by_ref().take(plan.limit).collect();
            let more = rows.next().is_some();
            drop(rows);
            plan.check()?;
            return Ok((page, more));
        }
        let mut sorted: Vec<(SortKey, Uuid)> = self
            .rows(plan, None)
            .map(|(key, row)| {
                let view = RowView { table: self.table(), key, row };
                (sort_key(self.database, self.scope.schema, view, &plan.order), key)
            })
            .collect();
        plan.check()?;
        if let Some(cookie) = &plan.cookie {
            let start = (self.cookie_key(plan, cookie)?, cookie.last);
            sorted.retain(|(key, id)| {
                compare_keys(&plan.order, (key, *id), (&start.0, start.1)) == std::cmp::Ordering::Greater
            });
        }
        sorted.sort_by(|a, b| compare_keys(&plan.order, (&a.0, a.1), (&b.0, b.1)));
        let more = sorted.len() > plan.limit;
        Ok((sorted.into_iter().take(plan.limit).map(|(_, id)| id).collect(), more))
    }

    fn cookie_key(&self, plan: &Plan, cookie: &Cookie) -> Result<SortKey, ApiError> {
        if cookie.keys.len() != plan.order.len() {
            return Err(ApiError::new(
                Code::CookieMismatch,
                "The order columns differ from those of the paging cookie.",
            ));
        }
        let mut values = Vec::new();
        for (key, (_, text)) in plan.order.iter().zip(&cookie.keys) {
            let table = self.scope.schema.table(key.path.table);
            let column = table.column(key.path.column);
            values.push(parse_order_value(self.scope.schema, table, column, text.as_deref())?);
        }
        Ok(values)
    }

    /// Rows that match, up to a bound.
    fn count_up_to(&self, plan: &Plan, bound: u64) -> Result<u64, ApiError> {
        let store = self.database.store(self.table().id);
        if plan.filter.is_none() {
            return Ok((store.len() as u64).min(bound));
        }
        let count = self.rows(plan, None).take(bound as usize).count() as u64;
        plan.check().map(|()| count)
    }

    /// The number `/$count` answers.
    pub(crate) fn count(&self, options: &QueryOptions, capped: bool) -> Result<u64, ApiError> {
        let plan = self.plan(options)?;
        self.count_up_to(&plan, if capped { COUNT_MAX } else { u64::MAX })
    }

    fn write_head(&self, plan: &Plan, options: &QueryOptions, out: &mut Vec<u8>) -> Result<(), ApiError> {
        out.extend_from_slice(b"{\"@odata.context\":");
        write_text(&context_url(self.base, self.table(), &plan.projection, &plan.expands), out);
        let annotations = self.annotations;
        if options.count || annotations.total_count {
            let exact = if options.count { self.count_up_to(plan, COUNT_MAX + 1)? } else { 0 };
            if options.count {
                out.extend_from_slice(format!(",\"@odata.count\":{}", exact.min(COUNT_MAX)).as_bytes());
            }
            if annotations.total_count {
                let total = if options.count { exact.min(COUNT_MAX) as i64 } else { -1 };
                let exceeded = exact > COUNT_MAX;
                let text = format!(
                    ",\"@Microsoft.Dynamics.CRM.totalrecordcount\":{total},\"@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded\":{exceeded}"
                );
                out.extend_from_slice(text.as_bytes());
            }
        }
        if annotations.metadata_version {
            out.extend_from_slice(b",\"@Microsoft.Dynamics.CRM.globalmetadataversion\":");
            write_text(&self.scope.schema.version.to_string(), out);
        }
        out.extend_from_slice(b",\"value\":[");
        Ok(())
    }
}

impl Plan {
    /// An error if the filter gave up.
    fn check(&self) -> Result<(), ApiError> {
        self.filter.as_ref().map_or(Ok(()), Predicate::check_visits)
    }
}

/// The greatest answer to one query.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Refuses an answer that grows past all bounds: rows times columns, or expansions of expansions.
pub(super) fn check_answer(out: &[u8]) -> Result<(), ApiError> {
    if out.len() <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    let message = "This query cannot be executed because it conflicts with Query Throttling; its answer is too large.";
    Err(ApiError::new(Code::DataEngineQueryThrottling, message))
}

fn both(a: Predicate, b: Predicate) -> Predicate {
    Predicate::And(vec![a, b])
}

/// `$metadata#set(columns)`.
pub(crate) fn context_url(base: &str, table: &Table, projection: &Projection, expands: &[Expand]) -> String {
    let mut parts: Vec<String> = projection.text.iter().cloned().collect();
    parts.extend(
        expands.iter().map(|expand| format!("{}({})", expand.name, expand.projection.text.as_deref().unwrap_or(""))),
    );
    let columns = if parts.is_empty() { String::new() } else { format!("({})", parts.join(",")) };
    format!("{base}/$metadata#{}{columns}", table.set_name)
}

/// The request's own address with a new skip token.
pub(crate) fn next_link(base: &str, path: &str, query: &str, token: &str) -> String {
    let kept = query.split('&').filter(|pair| {
        let lower = pair.to_ascii_lowercase();
        !pair.is_empty() && !lower.starts_with("$skiptoken=") && !lower.starts_with("%24skiptoken=")
    });
    let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
    pairs.push(format!("$skiptoken={token}"));
    format!("{base}/{path}?{}", pairs.join("&"))
}

/// The members of a row: its ETag and the projected columns, without braces.
pub(crate) fn write_row(
    database: &Database,
    schema: &Schema,
    view: RowView<'_>,
    projection: &Projection,
    annotations: Annotations,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"\"@odata.etag\":\"W/\\\"");
    out.extend_from_slice(itoa::Buffer::new().format(view.row.version).as_bytes());
    out.extend_from_slice(b"\\\"\"");
    // Cells and projection are both in ordinal order: one pass over each.
    let mut cells = view.row.cells().peekable();
    for ordinal in &projection.columns {
        while cells.next_if(|(found, _)| found < ordinal).is_some() {}
        let stored = cells.next_if(|(found, _)| found == ordinal).map(|(_, value)| value);
        let value = match stored {
            Some(value) if *ordinal != 0 => Some(value),
            _ if *ordinal == 0 || view.table.known.version == Some(*ordinal) => view.value(*ordinal),
            _ => None,
        };
        out.push(b',');
        write_property(database, schema, view, view.table.column(*ordinal), value.as_ref(), annotations, out);
    }
    if view.table.is_principal {
        out.extend_from_slice(b",\"ownerid\":\"");
        out.extend_from_slice(view.id().to_string().as_bytes());
        out.push(b'"');
    }
}

/// A row with its expansions, without braces.
pub(crate) fn write_one_row(
    reader: &Reader<'_>,
    view: RowView<'_>,
    shown: &Projection,
    expands: &[Expand],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    write_row(reader.database, reader.scope.schema, view, shown, reader.annotations, out);
    write_expands(reader, view, expands, reader.page_size, out)
}
