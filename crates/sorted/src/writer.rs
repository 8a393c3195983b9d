//! Writing the next version of a state.
//!
//! Files of a new version get new names, and buckets that stayed are taken over by name; nothing
//! refers to the new files until the manifest is swapped, and [`sweep`] removes what no manifest
//! names. A bucket of which little changed gets a layer with the changes; it is written whole when
//! layers have piled up.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use arrow_select::interleave::interleave;

use crate::file::{create_dir, remove_files, sync_dir, write_whole};
use crate::index::REMOVED;
use crate::manifest::LayerMeta;
use crate::{BITS_MAX, BucketMeta, Entry, Index, Manifest, SortedError, State, fingerprint, values};

/// Layers of a bucket, the whole one included, before it is written whole again.
const LAYERS_MAX: usize = 12;

/// A bucket is written whole when its layers hold this many times the rows that count.
const ROWS_FACTOR_MAX: u64 = 2;

/// Writes buckets, in any order and by several threads.
#[derive(Debug)]
pub struct StateWriter {
    dir: PathBuf,
    version: u64,
    bits: u8,
}

/// What becomes of some rows of a bucket.
#[derive(Debug)]
pub struct RowChanges {
    /// Rows that are new or otherwise than before, and removed ones ([`RowChanges::remove`]).
    pub index: Index,
    /// Their values, in the same order; nulls for removed rows.
    pub values: RecordBatch,
}

impl RowChanges {
    /// The entry that takes a row out of the state.
    pub fn remove(entry: Entry) -> Entry {
        Entry { flags: REMOVED, ..entry }
    }

    /// The changes among `rows`.
    #[must_use]
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let values = self.values.slice(rows.start, rows.len());
        Self { index: rows.map(|row| self.index.entry(row)).collect(), values }
    }
}

impl StateWriter {
    /// Begins version `version`, which is one more than the current manifest's, in 2^bits buckets.
    pub fn create(dir: &Path, version: u64, bits: u8) -> Result<Self, SortedError> {
        if bits > BITS_MAX {
            return Err(SortedError::Misused("more buckets than a state may have"));
        }
        create_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), version, bits })
    }

    /// Writes a whole bucket; `None` if it has no rows.
    pub fn write(&self, bucket: usize, index: &Index, values: &RecordBatch) -> Result<Option<BucketMeta>, SortedError> {
        if index.is_empty() {
            return self.check(bucket, index, values).map(|()| None);
        }
        let layer = self.write_layer(bucket, index, values)?;
        Ok(Some(BucketMeta {
            layers: vec![layer],
            totals: index.iter().map(Totals::of).fold(Totals::default(), Totals::plus),
        }))
    }

    /// Writes what changed in a bucket since `last`. `before` holds at least the entries that the changed keys had.
    ///
    /// A bucket of which nothing changed stays as it is, as long as the columns and the bits do.
    pub fn change(
        &self,
        last: &State,
        bucket: usize,
        before: &Index,
        changes: &RowChanges,
    ) -> Result<Option<BucketMeta>, SortedError> {
        let stays = last.manifest().bits == self.bits && last.manifest().has_columns(changes.values.schema_ref());
        match last.meta(self.bits, bucket).filter(|_| stays) {
            Some(meta) if changes.index.is_empty() => Ok(Some(meta.clone())),
            Some(meta) if has_room(meta, changes.index.len() as u64) => {
                let mut changed = meta.clone();
                changed.totals = totals_after(meta.totals, before, &changes.index);
                changed.layers.push(self.write_layer(bucket, &changes.index, &changes.values)?);
                Ok(Some(changed))
            }
            _ => self.write_anew(last, bucket, changes),
        }
    }

    fn write_anew(&self, last: &State, bucket: usize, changes: &RowChanges) -> Result<Option<BucketMeta>, SortedError> {
        let old = last.bucket(self.bits, bucket)?;
        let schema = changes.values.schema();
        let old_values = old.values(&schema)?;
        let mut index = Index::default();
        let mut places = Vec::new();
        for step in crate::merge(&changes.index.keys, &old.index.keys) {
            match step {
                crate::Step::Gone(row) => {
                    index.push(old.entry(row));
                    places.push((0, row));
                }
                crate::Step::New(row) | crate::Step::Both { new: row, .. } => {
                    let entry = changes.index.entry(row);
                    if entry.flags & REMOVED == 0 {
                        index.push(entry);
                        places.push((1, row));
                    }
                }
            }
        }
        let columns = old_values.columns().iter().zip(changes.values.columns());
        let columns = columns
            .map(|(old, new)| interleave(&[old.as_ref(), new.as_ref()], &places))
            .collect::<Result<_, _>>()
            .map_err(SortedError::arrow("joining values"))?;
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        let values = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(SortedError::arrow("joining values"))?;
        self.write(bucket, &index, &values)
    }

    fn write_layer(&self, bucket: usize, index: &Index, values: &RecordBatch) -> Result<LayerMeta, SortedError> {
        self.check(bucket, index, values)?;
        let (index_bytes, index_checksum) = index.encode();
        let (values_bytes, values_checksum) = values::encode(values)?;
        let layer = LayerMeta {
            name: format!("{:010}-{:02}-{bucket:05}", self.version, self.bits),
            rows: index.len() as u64,
            index_checksum,
            values_checksum,
            bytes: (index_bytes.len() + values_bytes.len()) as u64,
        };
        write_whole(&self.dir.join(layer.values()), &values_bytes)?;
        write_whole(&self.dir.join(layer.index()), &index_bytes)?;
        Ok(layer)
    }

    fn check(&self, bucket: usize, index: &Index, values: &RecordBatch) -> Result<(), SortedError> {
        if index.len() != values.num_rows() {
            return Err(SortedError::Misused("a bucket's index and values differ in length"));
        }
        if !index.is_sorted() {
            return Err(SortedError::Misused("a bucket's keys are not in order"));
        }
        let ends = [index.keys.first(), index.keys.last()];
        if ends.into_iter().flatten().any(|key| key.bucket(self.bits) != bucket) {
            return Err(SortedError::Misused("a key in the wrong bucket"));
        }
        Ok(())
    }

    /// Makes all files durable and gives the manifest that is to be swapped in.
    pub fn finish(
        self,
        schema: &Schema,
        buckets: Vec<Option<BucketMeta>>,
        sequence: u64,
    ) -> Result<Manifest, SortedError> {
        if buckets.len() != 1 << self.bits {
            return Err(SortedError::Misused("a state with the wrong number of buckets"));
        }
        sync_dir(&self.dir)?;
        Ok(Manifest::new(self.version, self.bits, schema, buckets, sequence))
    }
}

fn has_room(meta: &BucketMeta, more: u64) -> bool {
    let layered: u64 = meta.layers.iter().map(|layer| layer.rows).sum();
    meta.layers.len() < LAYERS_MAX && layered + more <= ROWS_FACTOR_MAX * meta.totals.rows
}

fn totals_after(mut totals: Totals, before: &Index, changes: &Index) -> Totals {
    for entry in changes.iter() {
        if let Some(row) = before.find(entry.key) {
            totals = totals.minus(Totals::of(before.entry(row)));
        }
        if entry.flags & REMOVED == 0 {
            totals = totals.plus(Totals::of(entry));
        }
    }
    totals
}

/// Sums over the rows of a bucket that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// All rows, tombstones among them.
    pub rows: u64,
    pub tombstones: u64,
    pub uncertain: u64,
    /// [`fingerprint`] of the rows that are not tombstones.
    pub fingerprint: u64,
}

impl Totals {
    fn of(entry: Entry) -> Self {
        let fingerprint = if entry.is_tombstone() { 0 } else { fingerprint(&[entry.key], &[entry.row_hash]) };
        Self {
            rows: 1,
            tombstones: u64::from(entry.is_tombstone()),
            uncertain: u64::from(entry.is_uncertain()),
            fingerprint,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            tombstones: self.tombstones + other.tombstones,
            uncertain: self.uncertain + other.uncertain,
            fingerprint: self.fingerprint.wrapping_add(other.fingerprint),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            rows: self.rows - other.rows,
            tombstones: self.tombstones - other.tombstones,
            uncertain: self.uncertain - other.uncertain,
            fingerprint: self.fingerprint.wrapping_sub(other.fingerprint),
        }
    }
}

/// Removes the state files of `dir` that `manifest`, the current one, does not name; returns how
/// many there were. Only for the holder of the flow.
pub fn sweep(dir: &Path, manifest: &Manifest) -> Result<u64, SortedError> {
    let is_ours =
        |name: &str| [".index", ".values", flowgate_files::UNFINISHED].iter().any(|suffix| name.ends_with(suffix));
    let named: HashSet<String> = manifest.files().collect();
    let removed = remove_files(dir, |name| is_ours(name) && !named.contains(name))?;
    sync_dir(dir)?;
    Ok(removed)
}
