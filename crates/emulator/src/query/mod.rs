//! Reading rows: options, filters, paging, expansion, aggregation, and JSON written by hand.
//!
//! `options` reads the query string, `parse` the filter language, `compile` binds it to a table,
//! `eval` runs it, `read` pages through a table and writes the answer. `fetch` joins tables for
//! FetchXML, and for `sql`, which is read into the same query. Promise: what is not
//! understood is refused by name, never skipped. Left out: HTTP.

mod aggregate;
mod compile;
mod eval;
mod expand;
mod fetch;
mod functions;
mod hierarchy;
mod json;
mod options;
mod order;
mod page;
mod parse;
mod periods;
mod read;
mod sql;
mod totals;
mod tracking;
mod view;

pub(crate) use aggregate::aggregate;
pub(crate) use compile::{ColumnPath, Predicate, Scope, Test};
pub(crate) use expand::{Expand, parse_expand};
pub(crate) use fetch::{Fetch, parse_expression, parse_fetch_xml, parse_xml, run_fetch, select_ids};
pub(crate) use json::{Annotations, plain_text, write_image, write_text, write_time, write_value};
pub(crate) use options::{QueryOptions, decode_pairs};
pub(crate) use page::PAGE_ROWS_MAX;
pub(crate) use parse::{Expr, Operand, Operator, parse_filter};
pub(crate) use read::{Reader, context_url, projection, write_one_row};
pub(crate) use sql::{SqlContext, parse_cosmos, parse_sql};
pub(crate) use tracking::{Tracking, read_changes, read_delta_count};
pub(crate) use view::RowView;
