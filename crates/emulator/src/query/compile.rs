//! A filter bound to a table: names become ordinals, literals become values of the column's type.
//!
//! Promise: an unknown property and a literal of the wrong type are errors, not empty results.
//! Left out: running it (`eval`).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::functions;
use super::parse::{Expr, Operand, Operator};
use super::periods::{Fiscal, Template};
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, DateBehavior, Ordinal, Property, Relationship, Schema, Table, TableId};
use crate::storage::{Database, Value};
use crate::write::{Scalar, ValueRules, civil_from_days, convert};

/// A column of the row or of a row its lookups lead to.
#[derive(Clone, Debug)]
pub(crate) struct ColumnPath {
    pub(crate) hops: Hops,
    pub(crate) table: TableId,
    pub(crate) column: Ordinal,
}

#[derive(Clone, Debug)]
pub(crate) enum Test {
    IsNull(bool),
    Compare(Operator, Value),
    Like(Vec<char>),
    /// Texts as the collation folds them.
    InTexts(HashSet<String>),
    InValues(Vec<Value>),
    Between(Value, Value),
    /// Seconds, start inclusive, end exclusive.
    TimeRange(i64, i64),
    /// The period of any fiscal year, counted from 0.
    FiscalPeriod(Fiscal, i64),
    ContainsChoices(Vec<i32>),
    InIds(HashSet<Uuid>),
}

#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Constant(bool),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    Test(ColumnPath, Test),
    Columns(Operator, ColumnPath, ColumnPath),
    /// Some or all rows of a collection, below the row the hops lead to.
    Related {
        hops: Hops,
        table: TableId,
        link: Link,
        is_all: bool,
        body: Option<Box<Predicate>>,
        visits: Arc<Visits>,
        /// What each row counts.
        cost: u64,
    },
}

/// Rows of collections that a filter may still look at: a lambda inside a lambda multiplies them.
#[derive(Debug)]
pub(crate) struct Visits {
    left: AtomicU64,
}

/// Rows of collections that one filter may look at before it counts as too expensive, and how many of them one
/// counts that is reached through another: those are the ones that multiply.
const VISITS_MAX: u64 = 20_000_000;
const NESTED_COST: u64 = 32;

impl Visits {
    fn new() -> Arc<Self> {
        Arc::new(Visits { left: AtomicU64::new(VISITS_MAX) })
    }

    /// Counts one row; false when there are no more to be looked at.
    pub(super) fn take(&self, cost: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(cost), Ordering::Relaxed);
        left > 0
    }
}

impl Predicate {
    /// An error if the filter gave up on the way, so that what it said so far means nothing.
    pub(crate) fn check_visits(&self) -> Result<(), ApiError> {
        match self {
            Predicate::And(parts) | Predicate::Or(parts) => parts.iter().try_for_each(Predicate::check_visits),
            Predicate::Not(inner) => inner.check_visits(),
            Predicate::Related { visits, .. } if visits.left.load(Ordering::Relaxed) == 0 => {
                let message = "This query cannot be executed because it conflicts with Query Throttling; the query uses too many resources.";
                Err(ApiError::new(Code::DataEngineQueryThrottling, message))
            }
            Predicate::Constant(_) | Predicate::Test(..) | Predicate::Columns(..) | Predicate::Related { .. } => Ok(()),
        }
    }

    /// The ids that any row must have one of, if the filter names them: then no other row need be looked at.
    pub(crate) fn named_ids(&self) -> Option<Vec<Uuid>> {
        match self {
            Predicate::And(parts) => parts.iter().find_map(Predicate::named_ids),
            Predicate::Test(path, test) if path.hops.is_empty() && path.column == PRIMARY_ID => match test {
                Test::InIds(ids) => Some(ids.iter().copied().collect()),
                Test::Compare(Operator::Eq, Value::Guid(id)) => Some(vec![*id]),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The primary id is every table's first column.
const PRIMARY_ID: Ordinal = 0;

/// How the rows of a collection name the row they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    /// By a lookup to a row of `parent`.
    Lookup { column: Ordinal, parent: TableId },
    /// By a row of an intersect table.
    Intersect { table: TableId, own: Ordinal, other: Ordinal },
}

/// What binding needs besides the filter.
pub(crate) struct Scope<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) table: &'a Table,
    /// Simulated seconds since 1970.
    pub(crate) now: i64,
    pub(crate) user: Uuid,
    pub(crate) business_unit: Uuid,
    pub(crate) organization: Uuid,
    /// For functions whose meaning depends on rows: teams, hierarchies, the fiscal calendar.
    pub(crate) database: &'a Database,
    /// Whether an ascending order begins with nulls.
    pub(crate) nulls_first: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn within(&self, table: &'a Table) -> Scope<'a> {
        Scope { table, ..*self }
    }

    /// The organisation's fiscal calendar; quarters from January where it says nothing.
    pub(super) fn fiscal(&self) -> Fiscal {
        let organization = self.schema.by_logical("organization");
        let row = organization.and_then(|table| self.database.get(table.id, &self.organization));
        let number = |name: &str| row?.int(organization?.ordinal(name));
        let (_, month, day) =
            number("fiscalcalendarstart").map_or((0, 1, 1), |at| civil_from_days(at.div_euclid(86_400)));
        let template = number("fiscalperiodtype").map_or(Template::Quarterly, Template::from_number);
        // No month lacks the 28th.
        Fiscal { month, day: day.min(28), template }
    }
}

pub(crate) fn compile(scope: &Scope<'_>, expr: &Expr) -> Result<Predicate, ApiError> {
    bind(scope, expr, "", &Visits::new())
}

/// `outer` is the lambda variable the row is known by, or empty.
fn bind(scope: &Scope<'_>, expr: &Expr, outer: &str, visits: &Arc<Visits>) -> Result<Predicate, ApiError> {
    let all = |parts: &[Expr]| parts.iter().map(|part| bind(scope, part, outer, visits)).collect::<Result<Vec<_>, _>>();
    Ok(match expr {
        Expr::And(parts) => Predicate::And(all(parts)?),
        Expr::Or(parts) => Predicate::Or(all(parts)?),
        Expr::Not(inner) => Predicate::Not(Box::new(bind(scope, inner, outer, visits)?)),
        Expr::Compare(operator, left, right) => comparison(scope, *operator, left, right, outer)?,
        Expr::Text { function, arguments } => text_test(scope, function, arguments, outer)?,
        Expr::Call { function, arguments } => functions::bind(scope, function, arguments, outer)?,
        Expr::Lambda { path, is_all, variable, body } => {
            lambda(scope, path, (*is_all, variable, body.as_deref()), outer, visits)?
        }
    })
}

pub(super) fn unknown_property(table: &Table, name: &str) -> ApiError {
    ApiError::no_property(&table.odata_type, name)
}

/// Lookups to follow, each with the table it must lead to.
pub(crate) type Hops = Vec<(Ordinal, TableId)>;

/// Follows single-valued navigation properties to the table they lead to.
fn follow<'s>(scope: &Scope<'s>, steps: &[String]) -> Result<(Hops, &'s Table), ApiError> {
    let mut table = scope.table;
    let mut hops = Vec::new();
    for step in steps {
        let Some(Property::ToOne(ordinal, target)) = table.properties.get(step.as_str()) else {
            return Err(unknown_property(table, step));
        };
        let ColumnKind::Lookup { targets } = &table.column(*ordinal).kind else {
            return Err(unknown_property(table, step));
        };
        let next = targets[usize::from(*target)].table;
        hops.push((*ordinal, next));
        table = scope.schema.table(next);
    }
    Ok((hops, table))
}

/// Resolves a property path; `variable` is the lambda variable that may lead it.
pub(crate) fn column_path(scope: &Scope<'_>, path: &[String], variable: &str) -> Result<ColumnPath, ApiError> {
    let steps = match path.split_first() {
        Some((first, rest)) if first == variable && !variable.is_empty() => rest,
        _ => path,
    };
    let Some((last, navigation)) = steps.split_last() else {
        return Err(unknown_property(scope.table, variable));
    };
    let (hops, table) = follow(scope, navigation)?;
    match table.properties.get(last.as_str()) {
        Some(Property::Column(ordinal) | Property::LookupValue(ordinal)) if table.column(*ordinal).for_read => {
            Ok(ColumnPath { hops, table: table.id, column: *ordinal })
        }
        _ => Err(unknown_property(table, last)),
    }
}

/// The type a column has on the wire: only columns of one type are compared with each other.
fn family(kind: &ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text { .. } | ColumnKind::Memo { .. } | ColumnKind::EntityName => "text",
        ColumnKind::Integer { .. }
        | ColumnKind::Choice { .. }
        | ColumnKind::State { .. }
        | ColumnKind::Status { .. } => "integer",
        ColumnKind::BigInt => "big integer",
        ColumnKind::Decimal { .. } => "decimal",
        ColumnKind::Money { .. } => "money",
        ColumnKind::Double { .. } => "double",
        ColumnKind::Boolean { .. } => "boolean",
        ColumnKind::DateTime { behavior: DateBehavior::DateOnly, .. } => "date",
        ColumnKind::DateTime { .. } => "time",
        ColumnKind::Lookup { .. } | ColumnKind::Guid => "id",
        ColumnKind::Choices { .. } => "choices",
        ColumnKind::File { .. } | ColumnKind::Image { .. } | ColumnKind::PartyList { .. } => "content",
    }
}

/// A literal as a value of the column; `None` for null.
pub(crate) fn literal(
    schema: &Schema,
    table: &Table,
    column: &Column,
    operand: &Operand,
) -> Result<Option<Value>, ApiError> {
    let mismatch = || {
        ApiError::query(format!(
            "A binary operator with incompatible types was detected for property '{}' of type '{}'.",
            column.wire, table.odata_type
        ))
    };
    let text = match operand {
        Operand::Null => return Ok(None),
        Operand::Bool(value) => {
            let is_boolean = matches!(column.kind, ColumnKind::Boolean { .. });
            return if is_boolean { Ok(Some(Value::Int(i64::from(*value)))) } else { Err(mismatch()) };
        }
        Operand::Guid(id) => {
            return match column.kind {
                ColumnKind::Guid => Ok(Some(Value::Guid(*id))),
                ColumnKind::Lookup { .. } => Ok(Some(Value::Lookup(0, *id))),
                _ => Err(mismatch()),
            };
        }
        Operand::Text(text) | Operand::Number(text) | Operand::Time(text) => text,
        Operand::Path(_) | Operand::List(_) => return Err(mismatch()),
    };
    let is_text_column =
        matches!(column.kind, ColumnKind::Text { .. } | ColumnKind::Memo { .. } | ColumnKind::EntityName);
    if is_text_column {
        // A longer literal than the column can hold matches nothing; it is not an error.
        return if matches!(operand, Operand::Text(_)) {
            Ok(Some(Value::Text(text.as_str().into())))
        } else {
            Err(mismatch())
        };
    }
    match &column.kind {
        ColumnKind::Choice { .. }
        | ColumnKind::State { .. }
        | ColumnKind::Status { .. }
        | ColumnKind::Integer { .. } => text.parse().map(|number| Some(Value::Int(number))).map_err(|_| mismatch()),
        ColumnKind::Decimal { .. } | ColumnKind::Money { .. } => {
            let (number, _) = crate::write::parse_decimal(text).ok_or_else(mismatch)?;
            Ok(Some(Value::Decimal(number)))
        }
        ColumnKind::Double { .. } => text.parse().map(|number| Some(Value::Double(number))).map_err(|_| mismatch()),
        ColumnKind::Lookup { .. } => Uuid::parse_str(text).map(|id| Some(Value::Lookup(0, id))).map_err(|_| mismatch()),
        ColumnKind::DateTime { .. } => crate::write::parse_time(text).map(|seconds| Some(Value::Time(seconds))),
        _ => convert(schema, table, column, Scalar::Text(text.as_str().into()), ValueRules::QUERY)
            .map_err(|_| mismatch()),
    }
}

fn comparison(
    scope: &Scope<'_>,
    operator: Operator,
    left: &Operand,
    right: &Operand,
    variable: &str,
) -> Result<Predicate, ApiError> {
    match (left, right) {
        (Operand::Path(a), Operand::Path(b)) => {
            let (left, right) = (column_path(scope, a, variable)?, column_path(scope, b, variable)?);
            let column = |path: &ColumnPath| scope.schema.table(path.table).column(path.column);
            if family(&column(&left).kind) != family(&column(&right).kind) {
                let message =
                    "A binary operator with incompatible types was detected: columns of one type are compared.";
                return Err(ApiError::query(message));
            }
            Ok(Predicate::Columns(operator, left, right))
        }
        (Operand::Path(path), value) => value_test(scope, operator, path, value, variable),
        (value, Operand::Path(path)) => value_test(scope, mirrored(operator), path, value, variable),
        _ => Err(ApiError::query("A filter compares a property with a literal or with another property.")),
    }
}

fn mirrored(operator: Operator) -> Operator {
    match operator {
        Operator::Gt => Operator::Lt,
        Operator::Ge => Operator::Le,
        Operator::Lt => Operator::Gt,
        Operator::Le => Operator::Ge,
        same => same,
    }
}

fn value_test(
    scope: &Scope<'_>,
    operator: Operator,
    path: &[String],
    value: &Operand,
    variable: &str,
) -> Result<Predicate, ApiError> {
    // `nav/ref eq null` has no column of its own: a bare navigation property tests its lookup.
    if let ([name], Operand::Null) = (path, value) {
        if let Some(Property::ToOne(ordinal, _)) = scope.table.properties.get(name.as_str()) {
            let path = ColumnPath { hops: Vec::new(), table: scope.table.id, column: *ordinal };
            return Ok(Predicate::Test(path, Test::IsNull(operator == Operator::Eq)));
        }
    }
    let path = column_path(scope, path, variable)?;
    let table = scope.schema.table(path.table);
    let column = table.column(path.column);
    let test = match literal(scope.schema, table, column, value)? {
        None if operator == Operator::Eq => Test::IsNull(true),
        None if operator == Operator::Ne => Test::IsNull(false),
        None => return Ok(Predicate::Constant(false)),
        Some(value) => Test::Compare(operator, value),
    };
    Ok(Predicate::Test(path, test))
}

fn text_test(scope: &Scope<'_>, function: &str, arguments: &[Operand], variable: &str) -> Result<Predicate, ApiError> {
    let [Operand::Path(path), Operand::Text(text)] = arguments else {
        return Err(ApiError::query(format!("The function '{function}' takes a property and a string.")));
    };
    let path = column_path(scope, path, variable)?;
    let pattern = match function {
        "startswith" => format!("{text}%"),
        "endswith" => format!("%{text}"),
        _ => format!("%{text}%"),
    };
    Ok(Predicate::Test(path, Test::Like(crate::collation::lowered(&pattern).chars().collect())))
}

type Lambda<'a> = (bool, &'a str, Option<&'a Expr>);

fn lambda(
    scope: &Scope<'_>,
    path: &[String],
    (is_all, variable, body): Lambda<'_>,
    outer: &str,
    visits: &Arc<Visits>,
) -> Result<Predicate, ApiError> {
    let steps = match path.split_first() {
        Some((first, rest)) if first == outer && !outer.is_empty() => rest,
        _ => path,
    };
    let Some((name, navigation)) = steps.split_last() else {
        return Err(unknown_property(scope.table, outer));
    };
    let (hops, from) = follow(scope, navigation)?;
    let Some(Property::ToMany(index)) = from.properties.get(name.as_str()) else {
        return Err(unknown_property(from, name));
    };
    if is_all && body.is_none() {
        return Err(ApiError::query("The lambda operator 'all' needs a condition."));
    }
    let bind_body = |table: TableId| {
        let inner = scope.within(scope.schema.table(table));
        body.map(|body| bind(&inner, body, variable, visits).map(Box::new)).transpose()
    };
    let (table, link) = match &scope.schema.relationships[usize::from(*index)] {
        Relationship::OneToMany(one) => (one.referencing, Link::Lookup { column: one.column, parent: from.id }),
        Relationship::ManyToMany(many) => {
            let own = many.side_of(from.id, name);
            let link = Link::Intersect { table: many.intersect, own: many.columns[own], other: many.columns[1 - own] };
            (many.tables[1 - own], link)
        }
    };
    let cost = if outer.is_empty() { 1 } else { NESTED_COST };
    Ok(Predicate::Related { hops, table, link, is_all, body: bind_body(table)?, visits: Arc::clone(visits), cost })
}
