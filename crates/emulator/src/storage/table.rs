//! One table's rows in id order, its alternate-key indexes and its deletions.
//!
//! Promise: indexes and rows agree after every call, also after a refused one. Texts in
//! keys are the same where the `collation` says so. A row with a null in a key column is in no index of it.

use hashbrown::HashMap;
use uuid::Uuid;

use super::lookups::LookupIndexes;
use super::pages::Pages;
use super::row::{Row, ValueRef};
use crate::schema::{Ordinal, Table};

/// A deleted row, kept for change tracking.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) version: u64,
    pub(crate) id: Uuid,
    /// Simulated seconds since 1970.
    pub(crate) at: i64,
}

/// An active alternate key refused a row: its place among the table's keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyViolation {
    pub(crate) key: Uuid,
}

#[derive(Clone, Debug)]
struct KeyIndex {
    key: Uuid,
    columns: Box<[Ordinal]>,
    entries: HashMap<u128, Uuid>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TableStore {
    rows: Pages,
    indexes: Vec<KeyIndex>,
    lookups: LookupIndexes,
    pub(crate) deletions: Vec<Deletion>,
    /// The next number of auto-numbered columns.
    pub(crate) next_number: u64,
}

/// The hash that stands for a key's values; `None` if one of them is null.
pub(crate) fn key_hash<'a>(values: impl Iterator<Item = Option<ValueRef<'a>>>) -> Option<u128> {
    let mut bytes = Vec::with_capacity(32);
    for value in values {
        match value? {
            ValueRef::Text(text) => {
                bytes.extend_from_slice(crate::collation::folded(text).as_bytes());
            }
            ValueRef::Int(number) | ValueRef::Time(number) => {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            ValueRef::Decimal(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            ValueRef::Double(number) => bytes.extend_from_slice(&number.to_bits().to_le_bytes()),
            ValueRef::Guid(id) | ValueRef::Lookup(_, id) => bytes.extend_from_slice(id.as_bytes()),
            ValueRef::Choices(choices) => {
                bytes.extend(choices.iter().flat_map(|choice| choice.to_le_bytes()));
            }
        }
        bytes.push(0);
    }
    Some(xxhash_rust::xxh3::xxh3_128(&bytes))
}

impl TableStore {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, id: &Uuid) -> Option<&Row> {
        self.rows.get(id)
    }

    /// Rows in id order, from the one after `after` on.
    pub(crate) fn rows_after(&self, after: Option<Uuid>) -> impl DoubleEndedIterator<Item = (&Uuid, &Row)> {
        self.rows.after(after)
    }

    /// Ids of the rows whose lookup or id column holds `id`, in id order.
    pub(crate) fn pointing(&self, column: Ordinal, id: &Uuid) -> Vec<Uuid> {
        self.lookups.pointing(column, id, self.rows.after(None))
    }

    /// The row with these key values, if the key has an index.
    pub(crate) fn find_by_key(&self, key: Uuid, hash: u128) -> Option<Uuid> {
        let index = self.indexes.iter().find(|index| index.key == key)?;
        index.entries.get(&hash).copied()
    }

    /// Inserts or replaces a row, unless an alternate key forbids it.
    pub(crate) fn put(&mut self, id: Uuid, row: Row) -> Result<Option<Row>, KeyViolation> {
        let before = self.rows.get(&id);
        let mut moves = Vec::with_capacity(self.indexes.len());
        for index in &self.indexes {
            let new = key_hash(index.columns.iter().map(|ordinal| row.get(*ordinal)));
            let old = before.and_then(|row| key_hash(index.columns.iter().map(|ordinal| row.get(*ordinal))));
            if let Some(taken) = new.and_then(|hash| index.entries.get(&hash)) {
                if *taken != id {
                    return Err(KeyViolation { key: index.key });
                }
            }
            moves.push((old, new));
        }
        for (index, (old, new)) in self.indexes.iter_mut().zip(moves) {
            if old != new {
                if let Some(hash) = old {
                    index.entries.remove(&hash);
                }
                if let Some(hash) = new {
                    index.entries.insert(hash, id);
                }
            }
        }
        self.lookups.change(id, self.rows.get(&id), Some(&row));
        Ok(self.rows.insert(id, row))
    }

    pub(crate) fn remove(&mut self, id: &Uuid) -> Option<Row> {
        let row = self.rows.remove(id)?;
        self.lookups.change(*id, Some(&row), None);
        for index in &mut self.indexes {
            if let Some(hash) = key_hash(index.columns.iter().map(|ordinal| row.get(*ordinal))) {
                index.entries.remove(&hash);
            }
        }
        Some(row)
    }

    /// Builds the index of a key; false if two rows share its values.
    pub(crate) fn build_index(&mut self, key: Uuid, columns: &[Ordinal]) -> bool {
        let mut entries = HashMap::new();
        for (id, row) in self.rows.after(None) {
            if let Some(hash) = key_hash(columns.iter().map(|ordinal| row.get(*ordinal))) {
                if entries.insert(hash, *id).is_some() {
                    return false;
                }
            }
        }
        self.drop_index(key);
        self.indexes.push(KeyIndex { key, columns: columns.into(), entries });
        true
    }

    pub(crate) fn drop_index(&mut self, key: Uuid) {
        self.indexes.retain(|index| index.key != key);
    }

    /// Empty indexes for the keys of a table that has no rows yet.
    pub(crate) fn index_keys(&mut self, table: &Table) {
        for key in table.keys.iter().filter(|key| key.status == crate::schema::KeyStatus::Active) {
            self.build_index(key.id, &key.columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Value, encode};
    use super::*;

    fn row(text: &str) -> Row {
        Row { version: 1, cells: encode(&[(1, Some(Value::Text(text.into())))]) }
    }

    #[test]
    fn a_key_folds_case_and_trailing_blanks_and_forgets_removed_rows() {
        let (key, a, b) = (Uuid::from_u128(1), Uuid::from_u128(10), Uuid::from_u128(11));
        let mut store = TableStore::default();
        assert!(store.build_index(key, &[1]));
        store.put(a, row("Straße ")).unwrap();
        assert_eq!(store.put(b, row("STRAßE")), Err(KeyViolation { key }));
        store.remove(&a).unwrap();
        store.put(b, row("straße")).unwrap();
        let hash = key_hash([Some(ValueRef::Text("STRASSE"))].into_iter()).unwrap();
        assert_eq!(store.find_by_key(key, hash), None);
    }

    #[test]
    fn pointing_rows_follow_every_change() {
        let (a, b, parent, other) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(10), Uuid::from_u128(11));
        let row = |target| Row { version: 1, cells: encode(&[(1, Some(Value::Lookup(0, target)))]) };
        let mut store = TableStore::default();
        store.put(a, row(parent)).unwrap();
        assert_eq!(store.pointing(1, &parent), [a]);
        store.put(b, row(parent)).unwrap();
        store.put(a, row(other)).unwrap();
        assert_eq!((store.pointing(1, &parent), store.pointing(1, &other)), (vec![b], vec![a]));
        store.remove(&b).unwrap();
        assert!(store.pointing(1, &parent).is_empty());
        assert_eq!(store.clone().pointing(1, &other), [a]);
    }

    #[test]
    fn a_refused_row_changes_nothing() {
        let (key, a, b) = (Uuid::from_u128(1), Uuid::from_u128(10), Uuid::from_u128(11));
        let mut store = TableStore::default();
        store.build_index(key, &[1]);
        store.put(a, row("one")).unwrap();
        store.put(b, row("two")).unwrap();
        store.put(b, row("one")).unwrap_err();
        let hash = |text| key_hash([Some(ValueRef::Text(text))].into_iter()).unwrap();
        assert_eq!(store.find_by_key(key, hash("one")), Some(a));
        assert_eq!(store.find_by_key(key, hash("two")), Some(b));
    }
}
