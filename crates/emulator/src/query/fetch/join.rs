//! Rows of several tables, one after the other.
//!
//! Promise: rows come in the order of the primary ids of their tables, the first one's first; a
//! table that is linked by another column than its primary id is indexed once per query; the work
//! of one query is bounded. An outer link whose inner links find nothing counts as not matching
//! (UNVERIFIED). Left out: choosing an order of tables.

use std::cell::Cell;
use std::collections::HashMap;

use uuid::Uuid;

use super::LinkKind;
use super::plan::{Index, Node, Predicate};
use crate::error::{ApiError, Code};
use crate::query::eval::{compare, holds, run_test};
use crate::query::view::RowView;
use crate::schema::Schema;
use crate::storage::{Database, ValueRef, key_hash};

/// Rows one query may look at before it counts as too expensive.
const VISITS_MAX: u64 = 50_000_000;

/// One row of every table; none where an outer link found nothing.
pub(super) type Tuple<'a> = Vec<Option<RowView<'a>>>;

pub(super) struct Joiner<'a> {
    pub(super) database: &'a Database,
    pub(super) schema: &'a Schema,
    visits: Cell<u64>,
}

/// Whether the caller wants more rows.
type Continue = bool;
type Sink<'f, 'a> = &'f mut dyn FnMut(&Tuple<'a>) -> Result<Continue, ApiError>;

impl<'a> Joiner<'a> {
    pub(super) fn new(database: &'a Database, schema: &'a Schema) -> Self {
        Joiner { database, schema, visits: Cell::new(0) }
    }

    /// Hands every joined row to `sink` that passes the filters, from the root row `start` on.
    pub(super) fn run(
        &self,
        nodes: &[Node],
        late: &Predicate,
        start: Option<Uuid>,
        sink: Sink<'_, 'a>,
    ) -> Result<(), ApiError> {
        let table: &'a crate::schema::Table = self.schema.table(nodes[0].table);
        let store = self.database.store(table.id);
        let first = start.and_then(|start| store.get(&start).map(|row| (start, row)));
        let rows = first.into_iter().chain(store.rows_after(start).map(|(key, row)| (*key, row)));
        let mut tuple: Tuple<'a> = vec![None; nodes.len()];
        let mut reached = vec![false; nodes.len()];
        let mut filtered = |tuple: &Tuple<'a>| match self.eval(late, tuple)? {
            Some(true) => sink(tuple),
            _ => Ok(true),
        };
        for (key, row) in rows {
            self.visit()?;
            tuple[0] = Some(RowView { table, key, row });
            if self.eval(&nodes[0].filter, &tuple)? != Some(true) {
                continue;
            }
            if !self.extend(nodes, 1, &mut tuple, &mut reached, &mut filtered)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit(&self) -> Result<(), ApiError> {
        self.visits.set(self.visits.get() + 1);
        if self.visits.get() > VISITS_MAX {
            let message = "This query cannot be executed because it conflicts with Query Throttling; the query uses too many resources.";
            return Err(ApiError::new(Code::DataEngineQueryThrottling, message));
        }
        Ok(())
    }

    /// Fills the tables from `at` on in every possible way.
    fn extend(
        &self,
        nodes: &[Node],
        at: usize,
        tuple: &mut Tuple<'a>,
        reached: &mut Vec<bool>,
        sink: Sink<'_, 'a>,
    ) -> Result<Continue, ApiError> {
        for (index, node) in nodes.iter().enumerate().take(at).skip(1) {
            reached[index] |= node.end == at;
        }
        let Some(node) = nodes.get(at) else {
            return sink(tuple);
        };
        let table: &'a crate::schema::Table = self.schema.table(node.table);
        reached[at] = false;
        for key in self.candidates(node, tuple)? {
            self.visit()?;
            let Some(row) = self.database.get(node.table, &key) else { continue };
            tuple[at] = Some(RowView { table, key, row });
            if self.eval(&node.filter, tuple)? != Some(true) {
                continue;
            }
            if !self.extend(nodes, at + 1, tuple, reached, sink)? {
                return Ok(false);
            }
            if node.kind == LinkKind::First && reached[at] {
                break;
            }
        }
        for cell in &mut tuple[at..node.end] {
            *cell = None;
        }
        if reached[at] || node.kind != LinkKind::Outer {
            return Ok(true);
        }
        self.extend(nodes, node.end, tuple, reached, sink)
    }

    /// Rows of a linked table that belong to the row of its parent, in id order.
    fn candidates(&self, node: &Node, tuple: &Tuple<'a>) -> Result<Vec<Uuid>, ApiError> {
        let Some(value) = tuple[node.parent].and_then(|view| view.value(node.to)) else {
            return Ok(Vec::new());
        };
        self.rows_with(node, &value)
    }

    fn rows_with(&self, node: &Node, value: &ValueRef<'_>) -> Result<Vec<Uuid>, ApiError> {
        if let (0, false, ValueRef::Guid(id) | ValueRef::Lookup(_, id)) =
            (node.from, self.schema.table(node.table).is_elastic, value)
        {
            return Ok(vec![*id]);
        }
        if node.index.get().is_none() {
            let index = self.index(node)?;
            // Nobody else can have set it: a query runs on one thread.
            let _set_once = node.index.set(index);
        }
        let hash = key_hash(std::iter::once(Some(value.clone())));
        let found = hash.and_then(|hash| node.index.get()?.get(&hash));
        Ok(found.cloned().unwrap_or_default())
    }

    fn index(&self, node: &Node) -> Result<Index, ApiError> {
        let table = self.schema.table(node.table);
        let mut index: Index = HashMap::new();
        for (key, row) in self.database.store(node.table).rows_after(None) {
            self.visit()?;
            let view = RowView { table, key: *key, row };
            if let Some(hash) = key_hash(std::iter::once(view.value(node.from))) {
                index.entry(hash).or_default().push(*key);
            }
        }
        Ok(index)
    }

    /// Three-valued, as SQL is.
    fn eval(&self, predicate: &Predicate, tuple: &Tuple<'a>) -> Result<Option<bool>, ApiError> {
        let value = |(node, column): (usize, u16)| tuple[node].and_then(|view| view.value(column));
        Ok(match predicate {
            Predicate::True => Some(true),
            Predicate::And(parts) => self.fold(parts, tuple, false)?,
            Predicate::Or(parts) => self.fold(parts, tuple, true)?,
            Predicate::Not(inner) => self.eval(inner, tuple)?.map(|value| !value),
            Predicate::Test { node, column, test } => run_test(value((*node, *column)), test),
            Predicate::Columns { operator, left, right } => {
                let (left, right) = (value(*left), value(*right));
                let ordering = left.zip(right).and_then(|(left, right)| compare(&left, &right));
                ordering.map(|ordering| holds(*operator, ordering))
            }
            Predicate::Linked { kind, nodes } => Some(self.linked(*kind, nodes, tuple)?),
        })
    }

    /// `decisive` ends an or with true, an and with false.
    fn fold(&self, parts: &[Predicate], tuple: &Tuple<'a>, decisive: bool) -> Result<Option<bool>, ApiError> {
        let mut result = Some(!decisive);
        for part in parts {
            match self.eval(part, tuple)? {
                Some(value) if value == decisive => return Ok(Some(decisive)),
                None => result = None,
                Some(_) => {}
            }
        }
        Ok(result)
    }

    fn linked(&self, kind: LinkKind, nodes: &[Node], outside: &Tuple<'a>) -> Result<bool, ApiError> {
        let Some(node) = nodes.first() else {
            return Ok(true);
        };
        let keys = self.candidates(node, outside)?;
        let table: &'a crate::schema::Table = self.schema.table(node.table);
        let mut tuple: Tuple<'a> = vec![None; nodes.len()];
        let mut reached = vec![false; nodes.len()];
        let (mut exists, mut passes) = (false, false);
        for key in keys {
            self.visit()?;
            let Some(row) = self.database.get(node.table, &key) else { continue };
            exists = true;
            tuple[0] = Some(RowView { table, key, row });
            if self.eval(&node.filter, &tuple)? != Some(true) {
                continue;
            }
            self.extend(nodes, 1, &mut tuple, &mut reached, &mut |_| {
                passes = true;
                Ok(false)
            })?;
            if passes {
                break;
            }
        }
        Ok(match kind {
            LinkKind::NotAny => !passes,
            LinkKind::AllNot => exists && !passes,
            _ => passes,
        })
    }
}
