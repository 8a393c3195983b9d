//! The last acknowledged rows of a load, in immutable files.
//!
//! A bucket is one or more layers (module `layers`), each of two files: `<version>-<bits>-<bucket>.index`
//! (module `index`) and `.values` (module `values`, the same rows in the same order). Nothing here
//! writes; [`crate::StateWriter`] does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::interleave::interleave_record_batch;
use flowgate_core::KeyHash;

use crate::index::{Heads, REMOVED};
use crate::layers::{self, Place};
use crate::manifest::LayerMeta;
use crate::values::ValuesFile;
use crate::{BucketMeta, Entry, Index, Manifest, RowSet, SortedError, key_hashes};

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
        let mut found = StateBucket { dir: self.dir.clone(), ..StateBucket::default() };
        for meta in self.stored(bits, bucket) {
            let (index, places) = layers::read(&self.dir, &meta.layers)?;
            let layers_before = found.layers.len() as u32;
            let first = index.keys.partition_point(|key| key.bucket(bits) < bucket);
            let end = index.keys.partition_point(|key| key.bucket(bits) <= bucket);
            if found.layers.is_empty() && first == 0 && end == index.len() {
                found.index = index;
                found.places = places;
            } else {
                for (row, place) in places.iter().enumerate().take(end).skip(first) {
                    found.index.push(index.entry(row));
                    found.places.push(Place { layer: place.layer + layers_before, ..*place });
                }
            }
            found.layers.extend_from_slice(&meta.layers);
        }
        Ok(found)
    }

    /// What decides whether the rows of that bucket changed: the same rows in the same order.
    pub fn heads(&self, bits: u8, bucket: usize) -> Result<Heads, SortedError> {
        if let Some(meta) = self.meta(bits, bucket) {
            return layers::read_heads(&self.dir, &meta.layers);
        }
        let Index { keys, row_hashes, flags, .. } = self.bucket(bits, bucket)?.index;
        Ok(Heads { keys, row_hashes, flags })
    }

    /// The stored buckets that rows of `bucket` of 2^bits are in.
    fn stored(&self, bits: u8, bucket: usize) -> impl Iterator<Item = &BucketMeta> {
        let stored = self.manifest.bits;
        let range = if bits <= stored {
            let joined = 1 << (stored - bits);
            bucket * joined..(bucket + 1) * joined
        } else {
            let part = bucket >> (bits - stored);
            part..part + 1
        };
        self.manifest.buckets[range].iter().flatten()
    }

    /// Every key, in order, as far as damage allows: a layer whose index is damaged gives the keys that its values
    /// in the columns of `key_schema` have. Also the number of rows of which neither is left.
    pub fn keys_despite_damage(&self, key_schema: &SchemaRef) -> Result<(Vec<KeyHash>, u64), SortedError> {
        let mut keys = Vec::new();
        let mut lost = 0;
        for meta in self.manifest.buckets.iter().flatten() {
            let mut living = BTreeMap::new();
            for layer in &meta.layers {
                match self.layer_keys(layer, key_schema) {
                    Ok(found) => living.extend(found),
                    Err(SortedError::Damaged { .. }) => lost += layer.rows,
                    Err(error) => return Err(error),
                }
            }
            keys.extend(living.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| key));
        }
        keys.sort_unstable();
        Ok((keys, lost))
    }

    /// The keys of one layer, each with whether the layer says that its row is there.
    fn layer_keys(&self, layer: &LayerMeta, key_schema: &SchemaRef) -> Result<Vec<(KeyHash, bool)>, SortedError> {
        match Heads::read(&self.dir.join(layer.index()), layer.rows, layer.index_checksum) {
            Ok(heads) => {
                let is_there = heads.flags.iter().map(|flags| flags & REMOVED == 0);
                Ok(heads.keys.iter().copied().zip(is_there).collect())
            }
            Err(SortedError::Damaged { .. }) => {
                let file = ValuesFile::open(&self.dir.join(layer.values()), layer.rows, layer.values_checksum)?;
                let all: Vec<u32> = (0..layer.rows as u32).collect();
                // Rows that the layer removes have no values, so no key here.
                Ok(key_hashes(&file.read(key_schema, &all)?)?.into_iter().flatten().map(|key| (key, true)).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// The files of bucket `bucket`, if the state is cut into 2^bits and holds rows there.
    pub fn meta(&self, bits: u8, bucket: usize) -> Option<&BucketMeta> {
        if bits == self.manifest.bits { self.manifest.buckets.get(bucket)?.as_ref() } else { None }
    }
}

/// Rows of a state by key: their index, and their values when they are wanted.
#[derive(Debug, Default)]
pub struct StateBucket {
    pub index: Index,
    dir: PathBuf,
    layers: Vec<LayerMeta>,
    /// Where the values of each row are.
    places: Vec<Place>,
}

impl StateBucket {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn entry(&self, row: usize) -> Entry {
        self.index.entry(row)
    }

    /// Only the rows `rows`, by their positions.
    #[must_use]
    pub fn subset(&self, rows: &RowSet) -> Self {
        Self {
            index: rows.iter().map(|row| self.index.entry(row)).collect(),
            dir: self.dir.clone(),
            layers: self.layers.clone(),
            places: rows.iter().map(|row| self.places[row]).collect(),
        }
    }

    /// Adds rows whose keys come after all others.
    pub fn append(&mut self, other: Self) {
        let before = self.layers.len() as u32;
        self.dir = other.dir;
        self.layers.extend(other.layers);
        self.places.extend(other.places.iter().map(|place| Place { layer: place.layer + before, ..*place }));
        for row in 0..other.index.len() {
            self.index.push(other.index.entry(row));
        }
    }

    /// The values of all rows, in the columns of `schema`; a column that was not stored is null.
    pub fn values(&self, schema: &SchemaRef) -> Result<RecordBatch, SortedError> {
        let all: Vec<usize> = (0..self.len()).collect();
        self.values_of(schema, &all)
    }

    /// The values of some rows, given by their ascending positions in the index.
    pub fn values_of(&self, schema: &SchemaRef, rows: &[usize]) -> Result<RecordBatch, SortedError> {
        if !rows.is_sorted_by(|left, right| left < right) || rows.last().is_some_and(|last| *last >= self.len()) {
            return Err(SortedError::Misused("rows of a bucket that are not in order"));
        }
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.layers.len()];
        let mut sources = Vec::with_capacity(rows.len());
        for row in rows {
            let Place { layer, row } = self.places[*row];
            sources.push((layer as usize, wanted[layer as usize].len()));
            wanted[layer as usize].push(row);
        }
        let mut read = Vec::new();
        let mut number_of = vec![0; self.layers.len()];
        for (number, (layer, rows)) in
            self.layers.iter().zip(&wanted).enumerate().filter(|(_, (_, rows))| !rows.is_empty())
        {
            let file = ValuesFile::open(&self.dir.join(layer.values()), layer.rows, layer.values_checksum)?;
            number_of[number] = read.len();
            read.push(file.read(schema, rows)?);
        }
        match read.len() {
            0 => Ok(RecordBatch::new_empty(schema.clone())),
            // Rows of one layer are in the order they were asked for.
            1 => Ok(read.remove(0)),
            _ => {
                let sources: Vec<_> = sources.into_iter().map(|(layer, row)| (number_of[layer], row)).collect();
                let read: Vec<&RecordBatch> = read.iter().collect();
                interleave_record_batch(&read, &sources).map_err(SortedError::arrow("joining values"))
            }
        }
    }
}
