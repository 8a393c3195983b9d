//! Who stands above and below whom: hierarchies of rows, of users, and teams of users.
//!
//! Promise: a hierarchy is the self-referencing relationship of a table that is marked as one; a
//! circle in the data ends the walk, not the request. Left out: hierarchies of positions.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::compile::Scope;
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, Ordinal, Table, TableId};
use crate::storage::ValueRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Above,
    AboveOrEqual,
    Under,
    UnderOrEqual,
}

/// The ids that stand in a relation to the one given.
pub(super) fn related_ids(
    scope: &Scope<'_>,
    table: &Table,
    column: &Column,
    relation: Relation,
    values: &[String],
) -> Result<HashSet<Uuid>, ApiError> {
    let (rows, parent) = hierarchy_of(scope, table, column)?;
    let given = values.first().and_then(|text| Uuid::parse_str(text).ok());
    let id = given.ok_or_else(|| ApiError::query("A hierarchy function needs the id of a row."))?;
    let mut found = match relation {
        Relation::Above | Relation::AboveOrEqual => above(scope, rows, parent, id),
        Relation::Under | Relation::UnderOrEqual => below(scope, rows, parent, id),
    };
    if matches!(relation, Relation::AboveOrEqual | Relation::UnderOrEqual) {
        found.insert(id);
    } else {
        found.remove(&id);
    }
    Ok(found)
}

/// The table whose hierarchy a column names rows of, and its lookup to the row above.
pub(super) fn hierarchy_of(scope: &Scope<'_>, table: &Table, column: &Column) -> Result<(TableId, Ordinal), ApiError> {
    let tables: Vec<TableId> = match &column.kind {
        ColumnKind::Lookup { targets } => targets.iter().map(|target| target.table).collect(),
        ColumnKind::Guid if column.ordinal == 0 => vec![table.id],
        _ => Vec::new(),
    };
    let marked = scope
        .schema
        .one_to_many()
        .find(|one| one.is_hierarchical && one.referenced == one.referencing && tables.contains(&one.referenced));
    marked.map(|one| (one.referenced, one.column)).ok_or_else(|| {
        ApiError::new(
            Code::MissingHierarchicalRelationship,
            format!("No hierarchical relationship exists for the column '{}' of {}.", column.logical, table.logical),
        )
    })
}

fn above(scope: &Scope<'_>, table: TableId, parent: Ordinal, id: Uuid) -> HashSet<Uuid> {
    let mut found = HashSet::new();
    let mut at = id;
    while let Some((_, next)) = scope.database.get(table, &at).and_then(|row| row.lookup(Some(parent))) {
        if !found.insert(next) {
            break;
        }
        at = next;
    }
    found
}

fn below(scope: &Scope<'_>, table: TableId, parent: Ordinal, id: Uuid) -> HashSet<Uuid> {
    let mut children: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for (child, row) in scope.database.store(table).rows_after(None) {
        if let Some((_, above)) = row.lookup(Some(parent)) {
            children.entry(above).or_default().push(*child);
        }
    }
    let mut found = HashSet::new();
    let mut open = vec![id];
    while let Some(at) = open.pop() {
        for child in children.get(&at).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// The caller and everybody below in the hierarchy of managers.
pub(super) fn users_below(scope: &Scope<'_>) -> HashSet<Uuid> {
    let manager = scope
        .schema
        .by_logical("systemuser")
        .and_then(|users| users.ordinal("parentsystemuserid").map(|manager| (users.id, manager)));
    let mut found = manager.map_or_else(HashSet::new, |(users, manager)| below(scope, users, manager, scope.user));
    found.insert(scope.user);
    found
}

/// The teams any of these users belong to.
pub(super) fn teams_of(scope: &Scope<'_>, users: &[Uuid]) -> HashSet<Uuid> {
    let Some(members) = scope.schema.by_logical("teammembership") else {
        return HashSet::new();
    };
    let (user, team) = (members.ordinal("systemuserid"), members.ordinal("teamid"));
    let guid = |row: &crate::storage::Row, ordinal: Option<Ordinal>| match row.get(ordinal?)? {
        ValueRef::Guid(id) => Some(id),
        _ => None,
    };
    let rows = scope.database.store(members.id).rows_after(None);
    rows.filter(|(_, row)| guid(row, user).is_some_and(|id| users.contains(&id)))
        .filter_map(|(_, row)| guid(row, team))
        .collect()
}
