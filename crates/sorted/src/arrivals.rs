//! Rows as they arrive, in any order: their digests go to key buckets, their values to one log.
//!
//! Most rows of most runs did not change. Those that the state is known to hold exactly so are settled
//! at once and leave nothing behind. Of the others the digests will say more, so values are not sorted
//! when they arrive: they wait in the order they came, and only the rows that turn out to be wanted are
//! read back, in one pass, and brought into buckets. Small data never touches the disk.

use std::path::{Path, PathBuf};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use flowgate_core::KeyHash;

use crate::chunk::{self, Chunk, ChunkReader};
use crate::digest::{self, Digests};
use crate::file::{create_dir, remove_files};
use crate::{BITS_MAX, Digest, Known, RowSet, SortedError, SpillWriter};

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
    known: Known,
    digests: Digests,
    log: Log,
    /// Rows that wait.
    rows: u64,
}

impl ArrivalsWriter {
    /// Begins to take rows of `schema` into 2^bits buckets; those that are `known` do not wait. What an earlier
    /// process left in `dir` is removed.
    pub fn create(dir: &Path, schema: SchemaRef, bits: u8, known: Known) -> Result<Self, SortedError> {
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
            known,
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
        let waits = BooleanArray::from(self.known.settle(keys, row_hashes, is_faulty));
        if waits.true_count() == keys.len() {
            return self.wait(rows.clone(), keys.to_vec(), row_hashes.to_vec(), is_faulty);
        }
        let waiting: Vec<usize> = waits.values().set_indices().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let rows = filter_record_batch(rows, &waits).map_err(SortedError::arrow("choosing rows"))?;
        let keys = waiting.iter().map(|row| keys[*row]).collect();
        let row_hashes = waiting.iter().map(|row| row_hashes[*row]).collect();
        let is_faulty: BooleanArray = waiting.iter().map(|row| Some(is_faulty.value(*row))).collect();
        self.wait(rows, keys, row_hashes, &is_faulty)
    }

    fn wait(
        &mut self,
        rows: RecordBatch,
        keys: Vec<KeyHash>,
        row_hashes: Vec<u64>,
        is_faulty: &BooleanArray,
    ) -> Result<(), SortedError> {
        let ordinals = self.rows..self.rows + keys.len() as u64;
        self.rows = ordinals.end;
        for (((key, row_hash), ordinal), is_faulty) in
            keys.iter().zip(&row_hashes).zip(ordinals.clone()).zip(is_faulty.values())
        {
            self.digests.push(key.bucket(self.bits), Digest::new(*key, *row_hash, ordinal, is_faulty));
        }
        self.digests.make_room()?;
        self.log.push(Chunk { keys, row_hashes, ordinals: ordinals.collect(), rows })
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
            known: self.known,
            digests: self.digests,
            log: self.log,
            rows: self.rows,
        })
    }
}

/// All rows that arrived and were not settled at once.
#[derive(Debug)]
pub struct Arrivals {
    dir: PathBuf,
    schema: SchemaRef,
    bits: u8,
    known: Known,
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

    /// The columns in which rows arrived.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Which rows were settled at once. It takes much memory, and is asked for only once.
    pub fn take_known(&mut self) -> Known {
        std::mem::replace(&mut self.known, Known::nothing())
    }

    /// The digests of one bucket, by key, equal keys by arrival.
    pub fn digests(&self, bucket: usize) -> Result<Vec<Digest>, SortedError> {
        self.digests.sorted(bucket)
    }

    /// Brings the rows `wanted`, by their ordinals, into buckets, to which others may be added.
    pub fn keep(&self, wanted: &RowSet) -> Result<SpillWriter, SortedError> {
        let mut spill = SpillWriter::create(&self.dir.join(KEPT_DIR), self.schema.clone(), self.bits)?;
        if wanted.count() == 0 {
            return Ok(spill);
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
        Ok(spill)
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
