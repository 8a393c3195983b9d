//! A query bound to the schema: tables become numbered nodes, names ordinals, conditions tests.
//!
//! Promise: every alias is known and unique, every column exists, every order and aggregation is
//! possible, before a row is read. Nodes stand in the order of their elements, parents first.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::output::{OrderBy, Output, orders, outputs};
use super::{Condition, Entity, Fetch, Filter, Link, LinkKind, Operation};
use crate::error::{ApiError, Code};
use crate::query::compile::{Scope, Test};
use crate::query::functions::{function_test, literals};
use crate::query::parse::Operator;
use crate::schema::{Column, ColumnKind, Ordinal, Relationship, Table, TableId};

/// Links of one query; the number is UNVERIFIED.
const LINKS_MAX: usize = 15;
/// Conditions of one query; the number is UNVERIFIED.
const CONDITIONS_MAX: usize = 500;

/// Rows of a linked table by the value of the column that links them.
pub(super) type Index = HashMap<u128, Vec<Uuid>>;

/// One table of the join.
pub(super) struct Node {
    pub(super) table: TableId,
    /// What its columns are prefixed with.
    pub(super) name: String,
    pub(super) parent: usize,
    /// Column of the parent, column of this table.
    pub(super) to: Ordinal,
    pub(super) from: Ordinal,
    pub(super) kind: LinkKind,
    pub(super) filter: Predicate,
    /// One past the last node below this one.
    pub(super) end: usize,
    pub(super) index: OnceCell<Index>,
}

/// A condition over a joined row.
pub(super) enum Predicate {
    True,
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    Test {
        node: usize,
        column: Ordinal,
        test: Test,
    },
    Columns {
        operator: Operator,
        left: (usize, Ordinal),
        right: (usize, Ordinal),
    },
    /// Rows of another join that belong to a row of this one. Node 0 of the inner join is the
    /// linked table; its `parent` is the node of the outer join.
    Linked {
        kind: LinkKind,
        nodes: Vec<Node>,
    },
}

pub(super) struct Plan {
    pub(super) nodes: Vec<Node>,
    /// Conditions of the root that name linked tables: checked when a row is complete.
    pub(super) late: Predicate,
    pub(super) outputs: Vec<Output>,
    pub(super) orders: Vec<OrderBy>,
}

/// Elements in the order of the nodes.
pub(super) type Elements<'q> = Vec<&'q Entity>;

struct Binder<'a, 's> {
    scope: &'a Scope<'s>,
    links: usize,
    conditions: usize,
}

pub(super) fn plan(scope: &Scope<'_>, query: &Fetch) -> Result<Plan, ApiError> {
    if query.entity.table != scope.table.logical {
        return Err(ApiError::new(
            Code::EntitiesDontMatch,
            format!(
                "The entity '{}' of the query does not match the set '{}'.",
                query.entity.table, scope.table.set_name
            ),
        ));
    }
    let mut binder = Binder { scope, links: 0, conditions: 0 };
    let mut elements = vec![&query.entity];
    let mut nodes = vec![binder.root(&query.entity)];
    binder.add_links(&mut nodes, &mut elements, 0)?;
    check_aliases(&nodes)?;
    let mut late = Predicate::True;
    for index in 0..nodes.len() {
        let filter = binder.filters(&nodes, index, elements[index])?;
        if index == 0 && highest_node(&filter) > 0 {
            late = filter;
        } else {
            nodes[index].filter = filter;
        }
    }
    let outputs = outputs(scope, query, &nodes, &elements)?;
    let orders = orders(scope, query, &nodes, &elements, &outputs)?;
    Ok(Plan { nodes, late, outputs, orders })
}

fn check_aliases(nodes: &[Node]) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    match nodes.iter().skip(1).find(|node| !seen.insert(node.name.as_str())) {
        Some(node) => {
            let message = format!("The alias '{}' is used more than once.", node.name);
            Err(ApiError::new(Code::DuplicateAlias, message))
        }
        None => Ok(()),
    }
}

/// The greatest node a predicate looks at.
fn highest_node(predicate: &Predicate) -> usize {
    match predicate {
        Predicate::True => 0,
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().map(highest_node).max().unwrap_or(0),
        Predicate::Not(inner) => highest_node(inner),
        Predicate::Test { node, .. } => *node,
        Predicate::Columns { left, right, .. } => left.0.max(right.0),
        Predicate::Linked { nodes, .. } => nodes.first().map_or(0, |node| node.parent),
    }
}

pub(super) fn column_named<'s>(table: &'s Table, name: &str) -> Result<&'s Column, ApiError> {
    let stored = table.find(name).filter(|column| column.for_read && column.kind.is_stored());
    stored.ok_or_else(|| {
        ApiError::new(
            Code::NoSuchColumn,
            format!(
                "'{}' entity doesn't contain attribute with Name = '{name}' and NameMapping = 'Logical'.",
                table.logical
            ),
        )
    })
}

impl<'s> Binder<'_, 's> {
    fn root(&self, entity: &Entity) -> Node {
        Node {
            table: self.scope.table.id,
            name: entity.alias.clone().unwrap_or_else(|| entity.table.clone()),
            parent: 0,
            to: 0,
            from: 0,
            kind: LinkKind::Inner,
            filter: Predicate::True,
            end: 0,
            index: OnceCell::new(),
        }
    }

    /// Adds the tables linked below node `at`, theirs included.
    fn add_links(&mut self, nodes: &mut Vec<Node>, elements: &mut Elements<'_>, at: usize) -> Result<(), ApiError> {
        let entity = elements[at];
        for link in entity.links.iter().filter(|link| link.kind != LinkKind::Any) {
            let node = self.link_node(nodes[at].table, at, link)?;
            nodes.push(node);
            elements.push(&link.entity);
            self.add_links(nodes, elements, nodes.len() - 1)?;
        }
        nodes[at].end = nodes.len();
        Ok(())
    }

    fn link_node(&mut self, parent: TableId, at: usize, link: &Link) -> Result<Node, ApiError> {
        self.links += 1;
        if self.links > LINKS_MAX {
            let message = format!("Number of link entities in query exceeded maximum limit of {LINKS_MAX}.");
            return Err(ApiError::new(Code::TooManyLinks, message));
        }
        let name = &link.entity.table;
        let table = self.scope.schema.by_logical(name).ok_or_else(|| {
            let message = format!(
                "The entity with a name = '{name}' with namemapping = 'Logical' was not found in the MetadataCache."
            );
            ApiError::new(Code::NoSuchTable, message).with_status(http::StatusCode::BAD_REQUEST)
        })?;
        let outside = self.scope.schema.table(parent);
        if (table.is_elastic || outside.is_elastic) && link.kind != LinkKind::Outer {
            return Err(ApiError::new(Code::LinksNotSupported, "Link entities are not supported"));
        }
        let (from, to) = self.link_columns(table, outside, link)?;
        Ok(Node {
            table: table.id,
            name: link.entity.alias.clone().unwrap_or_else(|| format!("{name}{}", self.links)),
            parent: at,
            to,
            from,
            kind: link.kind,
            filter: Predicate::True,
            end: 0,
            index: OnceCell::new(),
        })
    }

    /// Without `from` and `to` the one relationship between the two tables links them.
    fn link_columns(&self, table: &Table, outside: &Table, link: &Link) -> Result<(Ordinal, Ordinal), ApiError> {
        match (&link.from, &link.to) {
            (Some(from), Some(to)) => Ok((column_named(table, from)?.ordinal, column_named(outside, to)?.ordinal)),
            (None, None) => {
                let mut found = self.scope.schema.relationships.iter().filter_map(|relationship| match relationship {
                    Relationship::OneToMany(one) if (one.referenced, one.referencing) == (outside.id, table.id) => {
                        Some((one.column, 0))
                    }
                    Relationship::OneToMany(one) if (one.referenced, one.referencing) == (table.id, outside.id) => {
                        Some((0, one.column))
                    }
                    _ => None,
                });
                match (found.next(), found.next()) {
                    (Some(columns), None) => Ok(columns),
                    _ => Err(missing_columns(table)),
                }
            }
            _ => Err(missing_columns(table)),
        }
    }

    fn filters(&mut self, nodes: &[Node], at: usize, entity: &Entity) -> Result<Predicate, ApiError> {
        let mut parts = Vec::new();
        for filter in &entity.filters {
            parts.push(self.filter(nodes, at, filter)?);
        }
        for link in entity.links.iter().filter(|link| link.kind == LinkKind::Any) {
            parts.push(self.linked(nodes, at, link)?);
        }
        Ok(if parts.is_empty() { Predicate::True } else { Predicate::And(parts) })
    }

    fn filter(&mut self, nodes: &[Node], at: usize, filter: &Filter) -> Result<Predicate, ApiError> {
        let mut all = |parts: &[Filter]| -> Result<Vec<Predicate>, ApiError> {
            parts.iter().map(|part| self.filter(nodes, at, part)).collect()
        };
        Ok(match filter {
            Filter::And(parts) => Predicate::And(all(parts)?),
            // A filter without conditions filters nothing.
            Filter::Or(parts) if parts.is_empty() => Predicate::True,
            Filter::Or(parts) => Predicate::Or(all(parts)?),
            Filter::Condition(condition) => self.condition(nodes, at, condition)?,
            Filter::Link(link) => self.linked(nodes, at, link)?,
        })
    }

    /// A join of its own whose rows only decide about the row outside.
    fn linked(&mut self, nodes: &[Node], at: usize, link: &Link) -> Result<Predicate, ApiError> {
        let mut inner = vec![self.link_node(nodes[at].table, at, link)?];
        let mut elements = vec![&link.entity];
        self.add_links(&mut inner, &mut elements, 0)?;
        for index in 0..inner.len() {
            let filter = self.filters(&inner, index, elements[index])?;
            // Of these tables each is filtered before the ones below it are there.
            if let Some(later) = inner.get(highest_node(&filter)).filter(|_| highest_node(&filter) > index) {
                return Err(alias_missing(&later.name));
            }
            inner[index].filter = filter;
        }
        Ok(Predicate::Linked { kind: link.kind, nodes: inner })
    }

    fn condition(&mut self, nodes: &[Node], at: usize, condition: &Condition) -> Result<Predicate, ApiError> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            let message = format!("Number of conditions in query exceeded maximum limit of {CONDITIONS_MAX}.");
            return Err(ApiError::new(Code::TooManyConditions, message));
        }
        let node = match &condition.entity {
            Some(name) => node_named(nodes, at, name)?,
            None => at,
        };
        let table: &'s Table = self.scope.schema.table(nodes[node].table);
        let column = column_named(table, &condition.column)?;
        if let Some(other) = &condition.value_of {
            return self.column_comparison(nodes, at, (node, column), condition, other);
        }
        let (test, negated) = condition_test(self.scope, table, column, condition)?;
        let predicate = Predicate::Test { node, column: column.ordinal, test };
        Ok(if negated { Predicate::Not(Box::new(predicate)) } else { predicate })
    }

    fn column_comparison(
        &self,
        nodes: &[Node],
        at: usize,
        (node, column): (usize, &Column),
        condition: &Condition,
        other: &str,
    ) -> Result<Predicate, ApiError> {
        let Operation::Compare(operator) = condition.operation else {
            let message = "Only comparison operators can be used with valueof.";
            return Err(ApiError::new(Code::InvalidConditionOperator, message));
        };
        let (other_node, name) = match other.split_once('.') {
            Some((alias, name)) => (node_named(nodes, at, alias)?, name),
            None => (node, other),
        };
        let right = column_named(self.scope.schema.table(nodes[other_node].table), name)?;
        if std::mem::discriminant(&column.kind) != std::mem::discriminant(&right.kind) {
            let message = format!("The columns '{}' and '{other}' are not of one type.", column.logical);
            return Err(ApiError::new(Code::InvalidConditionValue, message));
        }
        Ok(Predicate::Columns { operator, left: (node, column.ordinal), right: (other_node, right.ordinal) })
    }
}

fn missing_columns(table: &Table) -> ApiError {
    let message = format!("The link-entity '{}' needs the attributes 'from' and 'to'.", table.logical);
    ApiError::new(Code::InvalidFetchNode, message)
}

/// The node an alias or a table name stands for. A linked table sees those before it only.
fn node_named(nodes: &[Node], at: usize, name: &str) -> Result<usize, ApiError> {
    let visible = |index: &usize| at == 0 || *index <= at;
    nodes.iter().position(|node| node.name == name).filter(visible).ok_or_else(|| alias_missing(name))
}

fn alias_missing(name: &str) -> ApiError {
    ApiError::new(Code::AliasDoesNotExist, format!("LinkEntity with name or alias '{name}' is not found."))
}

fn condition_test(
    scope: &Scope<'_>,
    table: &Table,
    column: &Column,
    condition: &Condition,
) -> Result<(Test, bool), ApiError> {
    match &condition.operation {
        Operation::IsNull(wanted) => Ok((Test::IsNull(*wanted), false)),
        Operation::Compare(operator) => {
            let value = literals(scope, table, column, &condition.values)?.pop();
            let value = value.ok_or_else(|| {
                let message = format!("The condition on '{}' needs a value.", column.logical);
                ApiError::new(Code::InvalidConditionValue, message)
            })?;
            Ok((Test::Compare(*operator, value), false))
        }
        Operation::Like { before, after, negated } => {
            let is_text =
                matches!(column.kind, ColumnKind::Text { .. } | ColumnKind::Memo { .. } | ColumnKind::EntityName);
            if !is_text {
                let message = format!("The column '{}' is not a text.", column.logical);
                return Err(ApiError::new(Code::InvalidConditionOperator, message));
            }
            let text = condition.values.first().map_or("", String::as_str);
            let pattern = format!("{before}{text}{after}");
            let pattern = crate::collation::lowered(&pattern);
            Ok((Test::Like(pattern.chars().collect()), *negated))
        }
        Operation::Function(name) => function_test(scope, table, column, name, &condition.values),
    }
}
