//! Rows as they arrive, in any order: their digests go to key buckets, their values to one log.
//!
//! Most rows of most runs did not change, and their digests alone say so. Values are therefore not
//! sorted when they arrive: they wait in the order they came, and only the rows that turn out to be
//! wanted are read back, in one pass, and brought into buckets. Small data never touches the disk.

use std::path::{Path, PathBuf};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use flowgate_core::KeyHash;

use crate::chunk::{self, Chunk, ChunkReader};
use crate::digest::{self, Digests};
use crate::file::{create_dir, remove_files};
use crate::{BITS_MAX, Digest, RowSet, SortedError, Spill, SpillWriter};

/// Values, and digests, that are kept in memory before any go to disk.
const BUFFER_BYTES: usize = 32 << 20;

const LOG_NAME: &str = "rows.log";
const KEPT_DIR: &str = "kept";

/// Takes rows in.
#[derive(Debug)]
pub struct ArrivalsWriter {
    dir: PathBuf,
    schema: SchemaRef,
    bits: u8,
    digests: Digests,
    log: Log,
    rows: u64,
}

impl ArrivalsWriter {
    /// Begins to take rows of `schema` into 2^bits buckets. What an earlier process left in `dir` is removed.
    pub fn create(dir: &Path, schema: SchemaRef, bits: u8) -> Result<Self, SortedError> {
        if bits > BITS_MAX {
            return Err(SortedError::Misused("more buckets than there may be"));
        }
        create_dir(dir)?;
        remove_files(dir, |name| name.ends_with(digest::SUFFIX) || name == LOG_NAME)?;
        let log =
            Log { path: dir.join(LOG_NAME), chunks: Vec::new(), bytes: 0, bytes_max: BUFFER_BYTES, is_on_disk: false };
        Ok(Self {
            dir: dir.to_owned(),
            schema,
            bits,
            digests: Digests::new(dir, 1 << bits, BUFFER_BYTES),
            log,
            rows: 0,
        })
    }

    /// Sets how many bytes of values, and of digests, may gather in memory.
    #[must_use]
    pub fn with_buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.log.bytes_max = bytes;
        self.digests = Digests::new(&self.dir, 1 << self.bits, bytes);
        self
    }

    /// Takes rows with their keys and hashes. A faulty row is never taken for unchanged.
    pub fn push(
        &mut self,
        rows: &RecordBatch,
        keys: &[KeyHash],
        row_hashes: &[u64],
        is_faulty: &BooleanArray,
    ) -> Result<(), SortedError> {
        if [keys.len(), row_hashes.len(), is_faulty.len()] != [rows.num_rows(); 3] {
            return Err(SortedError::Misused("rows, keys, hashes and faults of different number"));
        }
        let ordinals = self.rows..self.rows + keys.len() as u64;
        self.rows = ordinals.end;
        for (((key, row_hash), ordinal), is_faulty) in
            keys.iter().zip(row_hashes).zip(ordinals.clone()).zip(is_faulty.values())
        {
            self.digests.push(key.bucket(self.bits), Digest::new(*key, *row_hash, ordinal, is_faulty));
        }
        self.digests.make_room()?;
        self.log.push(Chunk {
            keys: keys.to_vec(),
            row_hashes: row_hashes.to_vec(),
            ordinals: ordinals.collect(),
            rows: rows.clone(),
        })
    }

    /// Ends the taking in.
    pub fn finish(mut self) -> Result<Arrivals, SortedError> {
        if self.log.is_on_disk {
            self.log.write_out()?;
        }
        Ok(Arrivals {
            dir: self.dir,
            schema: self.schema,
            bits: self.bits,
            digests: self.digests,
            log: self.log,
            rows: self.rows,
        })
    }
}

/// All rows that arrived.
#[derive(Debug)]
pub struct Arrivals {
    dir: PathBuf,
    schema: SchemaRef,
    bits: u8,
    digests: Digests,
    log: Log,
    rows: u64,
}

impl Arrivals {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn bits(&self) -> u8 {
        self.bits
    }

    pub fn buckets(&self) -> usize {
        1 << self.bits
    }

    /// The digests of one bucket, by key, equal keys by arrival.
    pub fn digests(&self, bucket: usize) -> Result<Vec<Digest>, SortedError> {
        self.digests.sorted(bucket)
    }

    /// Brings the rows `wanted`, by their ordinals, into buckets.
    pub fn keep(&self, wanted: &RowSet) -> Result<Spill, SortedError> {
        let mut spill = SpillWriter::create(&self.dir.join(KEPT_DIR), self.schema.clone(), self.bits)?;
        if wanted.count() == 0 {
            return spill.finish();
        }
        let mut found = 0;
        for chunk in self.log.chunks()? {
            let chunk = chunk?;
            found += chunk.keys.len() as u64;
            spill.take(kept(chunk, wanted)?)?;
        }
        if found != self.rows {
            return Err(SortedError::damaged(&self.log.path, format!("it has {found} of {} rows", self.rows)));
        }
        spill.finish()
    }
}

/// The rows of a chunk that are wanted.
fn kept(chunk: Chunk, wanted: &RowSet) -> Result<Chunk, SortedError> {
    let first = chunk.ordinals.first().copied().unwrap_or_default();
    let mask = wanted.mask(first, chunk.keys.len());
    if mask.true_count() == chunk.keys.len() {
        return Ok(chunk);
    }
    let rows = filter_record_batch(&chunk.rows, &mask).map_err(SortedError::arrow("choosing rows"))?;
    let chosen: Vec<usize> = mask.values().set_indices().collect();
    Ok(Chunk {
        keys: chosen.iter().map(|row| chunk.keys[*row]).collect(),
        row_hashes: chosen.iter().map(|row| chunk.row_hashes[*row]).collect(),
        ordinals: chosen.iter().map(|row| chunk.ordinals[*row]).collect(),
        rows,
    })
}

/// Chunks in the order they arrived: in memory until they outgrow the buffer, then in one file.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    chunks: Vec<Chunk>,
    bytes: usize,
    bytes_max: usize,
    is_on_disk: bool,
}

impl Log {
    fn push(&mut self, chunk: Chunk) -> Result<(), SortedError> {
        self.bytes += chunk.bytes();
        self.chunks.push(chunk);
        if self.bytes > self.bytes_max { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), SortedError> {
        for chunk in self.chunks.drain(..) {
            chunk::append(&self.path, !std::mem::replace(&mut self.is_on_disk, true), &chunk)?;
        }
        self.bytes = 0;
        Ok(())
    }

    fn chunks(&self) -> Result<Box<dyn Iterator<Item = Result<Chunk, SortedError>> + '_>, SortedError> {
        if self.is_on_disk {
            return Ok(Box::new(ChunkReader::open(&self.path)?));
        }
        Ok(Box::new(self.chunks.iter().cloned().map(Ok)))
    }
}
