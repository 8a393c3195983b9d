//! What a query shows and in which order, bound to its tables.
//!
//! Promise: member names are unique, every order is possible, and an aggregation adds up or groups
//! by each of its columns.

use std::collections::HashSet;

use super::plan::{Elements, Node, column_named};
use super::{Attribute, DateGrouping, Fetch, Method, Order};
use crate::error::{ApiError, Code};
use crate::query::compile::Scope;
use crate::query::hierarchy::hierarchy_of;
use crate::query::totals::is_number;
use crate::schema::{Column, ColumnKind, Ordinal, Table};

/// A column of the answer.
pub(super) struct Output {
    pub(super) node: usize,
    pub(super) column: Ordinal,
    /// The member it is written as.
    pub(super) name: String,
    /// Whether that is not the column's own name.
    pub(super) is_renamed: bool,
    pub(super) method: Option<Method>,
    pub(super) date_grouping: Option<DateGrouping>,
    /// Counts the rows whose lookup points at the row, in place of a value.
    pub(super) children: Option<Ordinal>,
}

pub(super) struct OrderBy {
    pub(super) node: usize,
    pub(super) column: Ordinal,
    /// In an aggregation, the output it sorts by.
    pub(super) output: Option<usize>,
    pub(super) name: String,
    pub(super) is_descending: bool,
}

pub(super) fn outputs(
    scope: &Scope<'_>,
    query: &Fetch,
    nodes: &[Node],
    elements: &Elements<'_>,
) -> Result<Vec<Output>, ApiError> {
    let mut outputs: Vec<Output> = Vec::new();
    for (index, (node, entity)) in nodes.iter().zip(elements).enumerate() {
        let table = scope.schema.table(node.table);
        let takes_all = entity.all_columns || (index == 0 && entity.columns.is_empty() && !query.is_aggregate);
        if takes_all && !entity.no_columns {
            let columns = table.live_columns().filter(|column| column.for_read && column.kind.is_stored());
            outputs.extend(
                columns
                    .filter(|column| !matches!(column.kind, ColumnKind::Image { .. }))
                    .map(|column| plain_output(index, node, column)),
            );
        } else if index == 0 && !query.is_distinct && !query.is_aggregate {
            outputs.push(plain_output(index, node, table.column(0)));
        }
        for attribute in &entity.columns {
            let column = column_named(table, &attribute.name)?;
            check_attribute(query, attribute, column)?;
            let mut output = plain_output(index, node, column);
            if let Some(alias) = &attribute.alias {
                output.name.clone_from(alias);
                output.is_renamed = true;
            }
            output.method = attribute.aggregate;
            output.date_grouping = attribute.date_grouping;
            if attribute.counts_children {
                output.children = Some(children(scope, query, attribute, table, column)?);
            }
            if !outputs.iter().any(|known| known.name == output.name && known.column == output.column) {
                outputs.push(output);
            }
        }
    }
    let mut seen = HashSet::new();
    match outputs.iter().find(|output| !seen.insert(output.name.as_str())) {
        Some(output) => {
            Err(ApiError::new(Code::DuplicateAlias, format!("The alias '{}' is used more than once.", output.name)))
        }
        None => Ok(outputs),
    }
}

/// A column under its own name, behind the name of its table if that is a linked one.
fn plain_output(index: usize, node: &Node, column: &Column) -> Output {
    let name = if index == 0 { column.wire.clone() } else { format!("{}.{}", node.name, column.logical) };
    Output {
        node: index,
        column: column.ordinal,
        name,
        is_renamed: index > 0,
        method: None,
        date_grouping: None,
        children: None,
    }
}

/// The lookup that leads from a row to the one above it in the hierarchy of its table.
fn children(
    scope: &Scope<'_>,
    query: &Fetch,
    attribute: &Attribute,
    table: &Table,
    column: &Column,
) -> Result<Ordinal, ApiError> {
    if query.is_aggregate || attribute.alias.is_none() || column.ordinal != 0 {
        let message = "A row aggregate needs an alias and the primary id of a query that does not aggregate.";
        return Err(ApiError::new(Code::InvalidAggregate, message));
    }
    hierarchy_of(scope, table, column).map(|(_, parent)| parent)
}

fn check_attribute(query: &Fetch, attribute: &Attribute, column: &Column) -> Result<(), ApiError> {
    if !query.is_aggregate {
        return if attribute.aggregate.is_some() || attribute.is_group {
            let message = format!("The attribute '{}' needs an aggregate query.", attribute.name);
            Err(ApiError::new(Code::InvalidAggregate, message))
        } else {
            Ok(())
        };
    }
    if attribute.alias.is_none() {
        return Err(ApiError::new(Code::NoAlias, "An alias is required for every attribute of an aggregate query."));
    }
    let sums = matches!(attribute.aggregate, Some(Method::Sum | Method::Average));
    if sums && !is_number(column) {
        let message = format!("The attribute '{}' cannot be added up.", attribute.name);
        return Err(ApiError::new(Code::InvalidAggregateAttribute, message));
    }
    let is_time = matches!(column.kind, ColumnKind::DateTime { .. });
    if attribute.date_grouping.is_some() && !(is_time && attribute.is_group) {
        let message = format!("The dategrouping of '{}' is not valid.", attribute.name);
        return Err(ApiError::new(Code::InvalidDateGrouping, message));
    }
    match (attribute.aggregate, attribute.is_group) {
        (Some(_), false) | (None, true) => Ok(()),
        _ => Err(ApiError::new(
            Code::AttributeWithAggregate,
            "Attribute can not be specified if an aggregate operation is requested.",
        )),
    }
}

pub(super) fn orders(
    scope: &Scope<'_>,
    query: &Fetch,
    nodes: &[Node],
    elements: &Elements<'_>,
    outputs: &[Output],
) -> Result<Vec<OrderBy>, ApiError> {
    let mut orders = Vec::new();
    for (index, entity) in elements.iter().enumerate() {
        for order in &entity.orders {
            orders.push(if query.is_aggregate {
                order_by_alias(order, outputs)?
            } else {
                order_by_column(scope, nodes, index, order)?
            });
        }
    }
    Ok(orders)
}

fn order_by_alias(order: &Order, outputs: &[Output]) -> Result<OrderBy, ApiError> {
    if !order.by_alias {
        let message = "An attribute cannot be specified for an order clause for an aggregate Query. Use an alias";
        return Err(ApiError::new(Code::OrderNeedsAlias, message));
    }
    let found = outputs.iter().position(|output| output.name == order.name);
    let output = found.ok_or_else(|| {
        ApiError::new(Code::AliasDoesNotExist, format!("The alias '{}' of an order does not exist.", order.name))
    })?;
    Ok(OrderBy {
        node: outputs[output].node,
        column: outputs[output].column,
        output: Some(output),
        name: order.name.clone(),
        is_descending: order.is_descending,
    })
}

fn order_by_column(scope: &Scope<'_>, nodes: &[Node], at: usize, order: &Order) -> Result<OrderBy, ApiError> {
    if order.by_alias {
        let message = "An alias cannot be specified for an order clause for a non-aggregate Query. Use an attribute";
        return Err(ApiError::new(Code::OrderTakesNoAlias, message));
    }
    let node = match &order.entity {
        Some(name) => nodes.iter().position(|node| node.name == *name).ok_or_else(|| {
            ApiError::new(Code::OrderLinkNotFound, format!("The link entity '{name}' of an order does not exist."))
        })?,
        None => at,
    };
    let column = column_named(scope.schema.table(nodes[node].table), &order.name)?;
    let name = if node == 0 { order.name.clone() } else { format!("{}.{}", nodes[node].name, order.name) };
    Ok(OrderBy { node, column: column.ordinal, output: None, name, is_descending: order.is_descending })
}
