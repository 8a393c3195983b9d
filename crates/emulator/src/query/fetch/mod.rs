//! Queries over joined tables: FetchXML and what is translated to it.
//!
//! `xml` reads FetchXML, `expression` a QueryExpression, `operators` names its conditions, `plan` and `output` bind a query to the schema,
//! `join` makes rows of several tables, `page` finds the page asked for, `grouping` adds up,
//! `run` writes the answer. Promise: an element, attribute or operator that is not understood is
//! refused with the product's own code. Left out: the data source `retained`.

mod expression;
mod grouping;
mod join;
mod operators;
mod output;
mod page;
mod plan;
mod run;
mod xml;

pub(crate) use expression::parse_expression;
pub(crate) use page::select_ids;
pub(crate) use run::run_fetch;
pub(crate) use xml::{parse_fetch_xml, parse_xml};

use super::parse::Operator;
pub(crate) use super::totals::Method;

/// Which language a query came in; it decides how pages are linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Pages by `page` and `paging-cookie` inside the query, told in annotations.
    FetchXml,
    /// Pages by `@odata.nextLink`; the decoded skip token of this one.
    Sql { skip_token: Option<String> },
}

/// A query, names not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) language: Language,
    pub(crate) top: Option<usize>,
    pub(crate) count: Option<usize>,
    pub(crate) page: u64,
    /// Rows that are passed over before the first page.
    pub(crate) offset: u64,
    /// The inner paging cookie, decoded.
    pub(crate) cookie: Option<String>,
    pub(crate) is_distinct: bool,
    pub(crate) is_aggregate: bool,
    pub(crate) wants_total: bool,
    pub(crate) aggregate_max: usize,
    pub(crate) entity: Entity,
}

/// A table of the query with what is asked of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entity {
    pub(crate) table: String,
    pub(crate) alias: Option<String>,
    pub(crate) all_columns: bool,
    /// Only what identifies the row.
    pub(crate) no_columns: bool,
    pub(crate) columns: Vec<Attribute>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) orders: Vec<Order>,
    pub(crate) links: Vec<Link>,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) kind: LinkKind,
    /// A column of the linked table; its primary id when absent, together with `to`.
    pub(crate) from: Option<String>,
    /// A column of the table around it.
    pub(crate) to: Option<String>,
    pub(crate) entity: Entity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Inner,
    Outer,
    /// `matchfirstrowusingcrossapply`.
    First,
    /// `exists`, `in`, `any`, `not all`: some linked row.
    Any,
    /// `not any`: no linked row.
    NotAny,
    /// `all`: linked rows, none of which passes the filter.
    AllNot,
}

#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) aggregate: Option<Method>,
    pub(crate) is_group: bool,
    pub(crate) date_grouping: Option<DateGrouping>,
    /// Shows how many rows stand directly below the row, in the hierarchy of its table.
    pub(crate) counts_children: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DateGrouping {
    Day,
    Week,
    Month,
    Quarter,
    Year,
    FiscalPeriod,
    FiscalYear,
}

#[derive(Clone, Debug)]
pub(crate) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Condition(Condition),
    Link(Box<Link>),
}

#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) column: String,
    /// The alias of the table the column belongs to; the table around the filter when absent.
    pub(crate) entity: Option<String>,
    pub(crate) operation: Operation,
    pub(crate) values: Vec<String>,
    /// A column to compare with instead of a value: `alias.name` or `name`.
    pub(crate) value_of: Option<String>,
}

/// What a condition does with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Compare(Operator),
    IsNull(bool),
    /// A pattern as SQL's LIKE has it, and whether the result is turned round.
    Like {
        before: &'static str,
        after: &'static str,
        negated: bool,
    },
    /// A function of the filter language.
    Function(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// A column, or the alias of an aggregated one.
    pub(crate) name: String,
    pub(crate) by_alias: bool,
    pub(crate) entity: Option<String>,
    pub(crate) is_descending: bool,
}
