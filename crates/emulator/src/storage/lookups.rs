//! Which rows point at a row: built per column when first asked for, kept up to date afterwards.
//!
//! Promise: the answer is that of a scan over the table, in id order. Left out: surviving a copy
//! of the table, which starts without.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use uuid::Uuid;

use super::row::{Row, ValueRef};
use crate::schema::Ordinal;

type Pointing = HashMap<Uuid, BTreeSet<Uuid>>;

#[derive(Debug, Default)]
pub(super) struct LookupIndexes {
    by_column: RwLock<Vec<(Ordinal, Pointing)>>,
}

impl Clone for LookupIndexes {
    fn clone(&self) -> Self {
        LookupIndexes::default()
    }
}

fn target(row: &Row, column: Ordinal) -> Option<Uuid> {
    match row.get(column)? {
        ValueRef::Lookup(_, id) | ValueRef::Guid(id) => Some(id),
        _ => None,
    }
}

impl LookupIndexes {
    /// Ids of the rows whose column holds `id`.
    pub(super) fn pointing<'a>(
        &self,
        column: Ordinal,
        id: &Uuid,
        rows: impl Iterator<Item = (&'a Uuid, &'a Row)>,
    ) -> Vec<Uuid> {
        let of = |pointing: &Pointing| pointing.get(id).map_or_else(Vec::new, |ids| ids.iter().copied().collect());
        let known = self.by_column.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pointing)) = known.iter().find(|(found, _)| *found == column) {
            return of(pointing);
        }
        drop(known);
        let mut pointing = Pointing::new();
        for (key, row) in rows {
            if let Some(target) = target(row, column) {
                pointing.entry(target).or_default().insert(*key);
            }
        }
        let found = of(&pointing);
        let mut known = self.by_column.write().unwrap_or_else(PoisonError::into_inner);
        // Readers may build the same index at once; rows cannot change while they read.
        if !known.iter().any(|(found, _)| *found == column) {
            known.push((column, pointing));
        }
        found
    }

    /// Follows one row from what it was to what it is.
    pub(super) fn change(&mut self, key: Uuid, before: Option<&Row>, after: Option<&Row>) {
        let known = self.by_column.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (column, pointing) in known {
            let old = before.and_then(|row| target(row, *column));
            let new = after.and_then(|row| target(row, *column));
            if old == new {
                continue;
            }
            if let Some(ids) = old.and_then(|old| pointing.get_mut(&old)) {
                ids.remove(&key);
            }
            if let Some(new) = new {
                pointing.entry(new).or_default().insert(key);
            }
        }
    }
}
