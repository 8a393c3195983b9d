//! Rows in any order go in, sorted buckets come out.
//!
//! Rows gather in memory. When they outgrow the buffer, each bucket's share is appended to the
//! bucket's own file; rows that never outgrow it never touch the disk. A bucket is sorted when it
//! is read, so memory is the buffer while writing and one bucket while reading.
//!
//! A bucket's file is of the form that the module `chunk` describes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use flowgate_core::KeyHash;
use fs_err as fs;

use crate::chunk::{self, Chunk, ChunkReader};
use crate::file::{create_dir, remove_files};
use crate::{BITS_MAX, SortedError};

const SUFFIX: &str = ".spill";

/// Rows gathered in memory before any go to disk, by their Arrow size.
const BUFFER_BYTES: usize = 32 << 20;

/// One bucket's rows by key, equal keys by arrival.
#[derive(Debug, Clone)]
pub struct SortedRows {
    pub keys: Vec<KeyHash>,
    pub row_hashes: Vec<u64>,
    /// The number of the row among all that arrived, from 0.
    pub ordinals: Vec<u64>,
    pub rows: RecordBatch,
}

impl SortedRows {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A row in a list of chunks. Places order as their rows arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    chunk: u32,
    row: u32,
}

/// Takes rows in.
#[derive(Debug)]
pub struct SpillWriter {
    dir: PathBuf,
    schema: SchemaRef,
    bits: u8,
    buffer_bytes_max: usize,
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
    /// Rows so far, by bucket.
    counts: Vec<u64>,
    /// Whether the bucket has a file.
    has_file: Vec<bool>,
    next_ordinal: u64,
}

impl SpillWriter {
    /// Begins to take rows of `schema` into 2^bits buckets. What an earlier spill left in `dir` is removed.
    pub fn create(dir: &Path, schema: SchemaRef, bits: u8) -> Result<Self, SortedError> {
        if bits > BITS_MAX {
            return Err(SortedError::Misused("more buckets than a spill may have"));
        }
        create_dir(dir)?;
        remove_files(dir, |name| name.ends_with(SUFFIX))?;
        Ok(Self {
            dir: dir.to_owned(),
            schema,
            bits,
            buffer_bytes_max: BUFFER_BYTES,
            chunks: Vec::new(),
            chunk_bytes: 0,
            counts: vec![0; 1 << bits],
            has_file: vec![false; 1 << bits],
            next_ordinal: 0,
        })
    }

    /// Sets how many bytes of rows may gather in memory.
    #[must_use]
    pub fn with_buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes;
        self
    }

    /// Takes rows with their keys and hashes.
    pub fn push(&mut self, rows: &RecordBatch, keys: &[KeyHash], row_hashes: &[u64]) -> Result<(), SortedError> {
        if keys.len() != rows.num_rows() || row_hashes.len() != rows.num_rows() {
            return Err(SortedError::Misused("rows, keys and hashes of different number"));
        }
        let ordinals = self.next_ordinal..self.next_ordinal + keys.len() as u64;
        self.take(Chunk {
            keys: keys.to_vec(),
            row_hashes: row_hashes.to_vec(),
            ordinals: ordinals.collect(),
            rows: rows.clone(),
        })
    }

    /// Takes rows that have their ordinals already.
    pub(crate) fn take(&mut self, chunk: Chunk) -> Result<(), SortedError> {
        for key in &chunk.keys {
            self.counts[key.bucket(self.bits)] += 1;
        }
        self.next_ordinal = chunk.ordinals.last().map_or(self.next_ordinal, |last| last + 1);
        self.chunk_bytes += chunk.bytes();
        if !chunk.keys.is_empty() {
            self.chunks.push(chunk);
        }
        if self.chunk_bytes > self.buffer_bytes_max { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SortedError> {
        for (bucket, places) in scatter(&self.chunks, self.bits).iter().enumerate() {
            if !places.is_empty() {
                let chunk = gather(&self.schema, &self.chunks, places)?;
                self.append(bucket, &chunk)?;
            }
        }
        self.chunks.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    fn append(&mut self, bucket: usize, chunk: &Chunk) -> Result<(), SortedError> {
        let is_new = !std::mem::replace(&mut self.has_file[bucket], true);
        chunk::append(&bucket_path(&self.dir, bucket), is_new, chunk)
    }

    /// Ends the writing.
    pub fn finish(mut self) -> Result<Spill, SortedError> {
        if self.has_file.contains(&true) && !self.chunks.is_empty() {
            self.flush()?;
        }
        let places = scatter(&self.chunks, self.bits);
        Ok(Spill {
            dir: self.dir,
            schema: self.schema,
            bits: self.bits,
            chunks: self.chunks,
            places,
            counts: self.counts,
            has_file: self.has_file,
        })
    }
}

/// All rows, ready to be read bucket by bucket. Its files go when it is dropped.
#[derive(Debug)]
pub struct Spill {
    dir: PathBuf,
    schema: SchemaRef,
    bits: u8,
    /// All rows, if they never outgrew the buffer.
    chunks: Vec<Chunk>,
    places: Vec<Vec<Place>>,
    counts: Vec<u64>,
    has_file: Vec<bool>,
}

impl Spill {
    pub fn bits(&self) -> u8 {
        self.bits
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn rows(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn bucket_rows(&self, bucket: usize) -> u64 {
        self.counts[bucket]
    }

    /// Bytes on disk.
    pub fn file_bytes(&self) -> Result<u64, SortedError> {
        let mut bytes = 0;
        for bucket in (0..self.has_file.len()).filter(|bucket| self.has_file[*bucket]) {
            let path = bucket_path(&self.dir, bucket);
            bytes += fs::metadata(&path).map_err(SortedError::io("reading", &path))?.len();
        }
        Ok(bytes)
    }

    /// The rows of consecutive buckets by key.
    pub fn buckets(&self, buckets: std::ops::Range<usize>) -> Result<SortedRows, SortedError> {
        let mut parts = Vec::new();
        for bucket in buckets.filter(|bucket| self.counts[*bucket] > 0) {
            parts.push(self.bucket(bucket)?);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let rows = concat_batches(&self.schema, parts.iter().map(|part| &part.rows))
            .map_err(SortedError::arrow("joining buckets"))?;
        Ok(SortedRows {
            keys: parts.iter().flat_map(|part| part.keys.iter().copied()).collect(),
            row_hashes: parts.iter().flat_map(|part| part.row_hashes.iter().copied()).collect(),
            ordinals: parts.iter().flat_map(|part| part.ordinals.iter().copied()).collect(),
            rows,
        })
    }

    /// The rows of one bucket by key.
    pub fn bucket(&self, bucket: usize) -> Result<SortedRows, SortedError> {
        if !self.has_file[bucket] {
            return sort(&self.schema, &self.chunks, &self.places[bucket]);
        }
        let path = bucket_path(&self.dir, bucket);
        let chunks = ChunkReader::open(&path)?.collect::<Result<Vec<_>, _>>()?;
        let found: usize = chunks.iter().map(|chunk| chunk.keys.len()).sum();
        if found as u64 != self.counts[bucket] {
            return Err(SortedError::damaged(&path, format!("it has {found} of {} rows", self.counts[bucket])));
        }
        let places = all_places(&chunks);
        sort(&self.schema, &chunks, &places)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        for bucket in (0..self.has_file.len()).filter(|bucket| self.has_file[*bucket]) {
            let path = bucket_path(&self.dir, bucket);
            if let Err(error) = fs::remove_file(&path) {
                // The next spill in this directory removes it.
                tracing::warn!(path = %path.display(), %error, "a spilled bucket could not be removed");
            }
        }
    }
}

fn bucket_path(dir: &Path, bucket: usize) -> PathBuf {
    dir.join(format!("{bucket:05}{SUFFIX}"))
}

/// Where each bucket's rows are, in the order they arrived.
fn scatter(chunks: &[Chunk], bits: u8) -> Vec<Vec<Place>> {
    let mut places = vec![Vec::new(); 1 << bits];
    for (chunk_number, chunk) in chunks.iter().enumerate() {
        for (row, key) in chunk.keys.iter().enumerate() {
            places[key.bucket(bits)].push(Place { chunk: chunk_number as u32, row: row as u32 });
        }
    }
    places
}

fn all_places(chunks: &[Chunk]) -> Vec<Place> {
    scatter(chunks, 0).pop().unwrap_or_default()
}

fn sort(schema: &SchemaRef, chunks: &[Chunk], places: &[Place]) -> Result<SortedRows, SortedError> {
    // Chunk and row are in the order of arrival, so together with the key no two are alike.
    let key = |place: &Place| chunks[place.chunk as usize].keys[place.row as usize];
    let mut keyed: Vec<(KeyHash, Place)> = places.iter().map(|place| (key(place), *place)).collect();
    keyed.sort_unstable();
    let places: Vec<Place> = keyed.into_iter().map(|(_, place)| place).collect();
    let Chunk { keys, row_hashes, ordinals, rows } = gather(schema, chunks, &places)?;
    Ok(SortedRows { keys, row_hashes, ordinals, rows })
}

/// The rows at `places`, in their order.
fn gather(schema: &SchemaRef, chunks: &[Chunk], places: &[Place]) -> Result<Chunk, SortedError> {
    let of = |place: &Place| (&chunks[place.chunk as usize], place.row as usize);
    let batches: Vec<&RecordBatch> = chunks.iter().map(|chunk| &chunk.rows).collect();
    let indices: Vec<(usize, usize)> = places.iter().map(|place| (place.chunk as usize, place.row as usize)).collect();
    let rows = if places.is_empty() {
        RecordBatch::new_empty(Arc::clone(schema))
    } else if schema.fields().is_empty() {
        without_columns(schema, places.len())?
    } else {
        interleave_record_batch(&batches, &indices).map_err(SortedError::arrow("sorting rows"))?
    };
    let mut keys = Vec::with_capacity(places.len());
    let mut row_hashes = Vec::with_capacity(places.len());
    let mut ordinals = Vec::with_capacity(places.len());
    for (chunk, row) in places.iter().map(of) {
        keys.push(chunk.keys[row]);
        row_hashes.push(chunk.row_hashes[row]);
        ordinals.push(chunk.ordinals[row]);
    }
    Ok(Chunk { keys, row_hashes, ordinals, rows })
}

fn without_columns(schema: &SchemaRef, rows: usize) -> Result<RecordBatch, SortedError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options)
        .map_err(SortedError::arrow("sorting rows"))
}
