//! The last acknowledged rows of a load, in immutable files.
//!
//! A bucket is two files, `<version>-<bits>-<bucket>.index` (module `index`) and `.values` (Parquet,
//! same rows in the same order). A [`StateWriter`] writes the buckets that changed under names of a
//! new version and takes over the others by name; nothing refers to the new files until the manifest
//! is swapped, and [`sweep`] removes what no manifest names.

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use flowgate_core::KeyHash;
use fs_err as fs;

use crate::file::{create_dir, remove_files, sync_dir, write_whole};
use crate::{BITS_MAX, BucketMeta, Index, Manifest, SortedError, fingerprint, key_hashes, values};

/// A state that can be read.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    manifest: Manifest,
}

impl State {
    /// The state that `manifest` describes, in `dir`. Files are opened when they are asked for.
    pub fn open(dir: &Path, manifest: Manifest) -> Self {
        Self { dir: dir.to_owned(), manifest }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bucket `bucket` of 2^bits, whatever number of buckets the files are cut into.
    pub fn bucket(&self, bits: u8, bucket: usize) -> Result<StateBucket, SortedError> {
        let stored = self.manifest.bits;
        let mut found = StateBucket { dir: self.dir.clone(), index: Index::default(), parts: Vec::new() };
        if bits <= stored {
            let joined = 1 << (stored - bits);
            for part in bucket * joined..(bucket + 1) * joined {
                found.add(self.manifest.buckets[part].as_ref(), bits, bucket)?;
            }
        } else {
            let part = bucket >> (bits - stored);
            found.add(self.manifest.buckets[part].as_ref(), bits, bucket)?;
        }
        Ok(found)
    }

    /// Every key, in order, as far as damage allows: a bucket whose index is damaged gives the keys that its values
    /// in the columns of `key_schema` have. Also the number of rows of which neither is left.
    pub fn keys_despite_damage(&self, key_schema: &SchemaRef) -> Result<(Vec<KeyHash>, u64), SortedError> {
        let mut keys = Vec::new();
        let mut lost = 0;
        for meta in self.manifest.buckets.iter().flatten() {
            match read_index(&self.dir.join(&meta.index), meta) {
                Ok(index) => keys.extend(index.keys),
                Err(SortedError::Damaged { .. }) => match self.keys_of_values(meta, key_schema) {
                    Ok(found) => keys.extend(found),
                    Err(SortedError::Damaged { .. }) => lost += meta.rows,
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        keys.sort_unstable();
        Ok((keys, lost))
    }

    fn keys_of_values(&self, meta: &BucketMeta, key_schema: &SchemaRef) -> Result<Vec<KeyHash>, SortedError> {
        let path = self.dir.join(&meta.values);
        let bytes = read_checked(&path, meta.values_checksum)?;
        let all = 0..meta.rows as usize;
        let rows = values::decode(&path, bytes, key_schema, std::slice::from_ref(&all))?;
        Ok(key_hashes(&rows)?.into_iter().flatten().collect())
    }

    /// The files of bucket `bucket`, if the state is cut into 2^bits and holds rows there.
    pub fn meta(&self, bits: u8, bucket: usize) -> Option<&BucketMeta> {
        if bits == self.manifest.bits { self.manifest.buckets.get(bucket)?.as_ref() } else { None }
    }
}

/// One bucket of a state: its index, and its values when they are wanted.
#[derive(Debug)]
pub struct StateBucket {
    pub index: Index,
    dir: PathBuf,
    parts: Vec<Part>,
}

/// The rows `rows` of a stored bucket.
#[derive(Debug)]
struct Part {
    meta: BucketMeta,
    rows: Range<usize>,
}

impl StateBucket {
    /// Adds the rows of a stored bucket that fall into `bucket` of 2^bits: a range, because they are sorted.
    fn add(&mut self, meta: Option<&BucketMeta>, bits: u8, bucket: usize) -> Result<(), SortedError> {
        let Some(meta) = meta else { return Ok(()) };
        let mut index = read_index(&self.dir.join(&meta.index), meta)?;
        let start = index.keys.partition_point(|key| key.bucket(bits) < bucket);
        let end = index.keys.partition_point(|key| key.bucket(bits) <= bucket);
        let rows = start..end;
        if rows.is_empty() {
            return Ok(());
        }
        if rows.len() < index.len() {
            index.cut(&rows);
        }
        self.index.append(index);
        self.parts.push(Part { meta: meta.clone(), rows });
        Ok(())
    }

    /// The values of all rows, in the columns of `schema`; a column that was not stored is null.
    pub fn values(&self, schema: &SchemaRef) -> Result<RecordBatch, SortedError> {
        self.values_in(schema, std::slice::from_ref(&(0..self.index.len())))
    }

    /// The values of some rows, given by their ascending positions in the index.
    pub fn values_of(&self, schema: &SchemaRef, rows: &[usize]) -> Result<RecordBatch, SortedError> {
        if !rows.is_sorted_by(|left, right| left < right) || rows.last().is_some_and(|last| *last >= self.index.len()) {
            return Err(SortedError::Misused("rows of a bucket that are not in order"));
        }
        let ranges: Vec<_> =
            rows.chunk_by(|left, right| left + 1 == *right).map(|run| run[0]..run[0] + run.len()).collect();
        self.values_in(schema, &ranges)
    }

    fn values_in(&self, schema: &SchemaRef, rows: &[Range<usize>]) -> Result<RecordBatch, SortedError> {
        let mut batches = Vec::new();
        let mut first = 0;
        for part in &self.parts {
            let here = first..first + part.rows.len();
            first = here.end;
            // From positions in this bucket to positions in the part's file.
            let wanted: Vec<_> = rows
                .iter()
                .map(|range| range.start.max(here.start)..range.end.min(here.end))
                .filter(|range| !range.is_empty())
                .map(|range| range.start - here.start + part.rows.start..range.end - here.start + part.rows.start)
                .collect();
            if !wanted.is_empty() {
                let path = self.dir.join(&part.meta.values);
                let bytes = read_checked(&path, part.meta.values_checksum)?;
                batches.push(values::decode(&path, bytes, schema, &wanted)?);
            }
        }
        if batches.len() == 1 {
            return Ok(batches.remove(0));
        }
        concat_batches(schema, &batches).map_err(SortedError::arrow("joining values"))
    }
}

fn read_index(path: &Path, meta: &BucketMeta) -> Result<Index, SortedError> {
    let bytes = read_checked(path, meta.index_checksum)?;
    let index = Index::decode(path, &bytes)?;
    if index.len() as u64 == meta.rows {
        return Ok(index);
    }
    Err(SortedError::damaged(path, format!("it has {} rows, its manifest says {}", index.len(), meta.rows)))
}

/// The bytes of a file that must be there and be what was written.
fn read_checked(path: &Path, checksum: u32) -> Result<Vec<u8>, SortedError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SortedError::damaged(path, "it is not there"));
        }
        result => result.map_err(SortedError::io("reading", path))?,
    };
    if crc32c::crc32c(&bytes) == checksum {
        return Ok(bytes);
    }
    Err(SortedError::damaged(path, "it does not match its checksum"))
}

/// Writes the next version of a state. Buckets may be written in any order and by several threads.
#[derive(Debug)]
pub struct StateWriter {
    dir: PathBuf,
    version: u64,
    bits: u8,
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

    /// Writes one bucket; `None` if it has no rows. A bucket whose rows stayed as they were needs no
    /// writing while the bits stay: its meta is passed on to [`StateWriter::finish`] as it is.
    pub fn write(&self, bucket: usize, index: &Index, values: &RecordBatch) -> Result<Option<BucketMeta>, SortedError> {
        self.check(bucket, index, values)?;
        if index.is_empty() {
            return Ok(None);
        }
        let name = format!("{:010}-{:02}-{bucket:05}", self.version, self.bits);
        let index_bytes = index.encode();
        let values_bytes = values::encode(values)?;
        let meta = BucketMeta {
            index: format!("{name}.index"),
            values: format!("{name}.values"),
            rows: index.len() as u64,
            tombstones: index.iter().filter(crate::Entry::is_tombstone).count() as u64,
            uncertain: index.iter().filter(crate::Entry::is_uncertain).count() as u64,
            fingerprint: fingerprint_of_living(index),
            index_checksum: crc32c::crc32c(&index_bytes),
            values_checksum: crc32c::crc32c(&values_bytes),
            bytes: (index_bytes.len() + values_bytes.len()) as u64,
        };
        write_whole(&self.dir.join(&meta.values), &values_bytes)?;
        write_whole(&self.dir.join(&meta.index), &index_bytes)?;
        Ok(Some(meta))
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

fn fingerprint_of_living(index: &Index) -> u64 {
    let living = index.iter().filter(|entry| !entry.is_tombstone());
    living.fold(0, |sum: u64, entry| sum.wrapping_add(fingerprint(&[entry.key], &[entry.row_hash])))
}

/// Removes the state files of `dir` that `manifest`, the current one, does not name; returns how
/// many there were. Only for the holder of the flow.
pub fn sweep(dir: &Path, manifest: &Manifest) -> Result<u64, SortedError> {
    let is_ours = |name: &str| [".index", ".values", ".temp"].iter().any(|suffix| name.ends_with(suffix));
    let removed = remove_files(dir, |name| is_ours(name) && !manifest.names(name))?;
    sync_dir(dir)?;
    Ok(removed)
}
