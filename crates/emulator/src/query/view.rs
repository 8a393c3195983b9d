//! A row together with its table, so that every column has a value, stored in a cell or not.

use uuid::Uuid;

use crate::schema::{Ordinal, Table};
use crate::storage::{Row, ValueRef};

#[derive(Clone, Copy)]
pub(crate) struct RowView<'a> {
    pub(crate) table: &'a Table,
    /// Where the row is kept.
    pub(crate) key: Uuid,
    pub(crate) row: &'a Row,
}

impl<'a> RowView<'a> {
    /// The primary id, which elastic rows hold in a cell.
    pub(crate) fn id(&self) -> Uuid {
        match self.table.is_elastic.then(|| self.row.get(0)) {
            Some(Some(ValueRef::Guid(id))) => id,
            _ => self.key,
        }
    }

    pub(crate) fn value(&self, ordinal: Ordinal) -> Option<ValueRef<'a>> {
        if ordinal == 0 {
            return Some(ValueRef::Guid(self.id()));
        }
        if self.table.known.version == Some(ordinal) {
            return Some(ValueRef::Int(self.row.version as i64));
        }
        self.row.get(ordinal)
    }
}
