//! Digests: what tells of a row whether anything must be done with it, without its values.
//!
//! They gather in memory by bucket. When they outgrow the buffer, each bucket's share is appended to
//! the bucket's own file. A bucket is sorted when it is read.
//!
//! # Format of a bucket's file
//!
//! Temporary, read only by the process that wrote it, checked nevertheless. Numbers are little endian.
//!
//! | part | bytes |
//! |---|---|
//! | frames | digests u32, CRC-32C of them u32, digests |
//! | digest | key 16, row hash 8, ordinal 8 with the highest bit set if the row is faulty |

use std::io::Write;
use std::path::{Path, PathBuf};

use flowgate_core::{KeyHash, failpoint};
use fs_err as fs;

use crate::SortedError;

pub(crate) const SUFFIX: &str = ".digests";

const DIGEST_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 8;
const FAULTY: u64 = 1 << 63;

/// A row without its values. The order is that of keys; of one key sound rows come first, then it is that of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    pub key: KeyHash,
    ordinal: u64,
    pub row_hash: u64,
}

impl Digest {
    pub fn new(key: KeyHash, row_hash: u64, ordinal: u64, is_faulty: bool) -> Self {
        Self { key, ordinal: if is_faulty { ordinal | FAULTY } else { ordinal }, row_hash }
    }

    /// The number of the row among all that arrived.
    pub fn ordinal(&self) -> u64 {
        self.ordinal & !FAULTY
    }

    /// Whether the row may not become what the destination holds.
    pub fn is_faulty(&self) -> bool {
        self.ordinal & FAULTY != 0
    }
}

/// All digests by bucket.
#[derive(Debug)]
pub(crate) struct Digests {
    dir: PathBuf,
    /// Those in memory.
    buckets: Vec<Vec<Digest>>,
    in_memory: usize,
    in_memory_max: usize,
    /// Of those on disk, by bucket.
    on_disk: Vec<u64>,
}

impl Digests {
    pub(crate) fn new(dir: &Path, buckets: usize, bytes_max: usize) -> Self {
        let in_memory_max = bytes_max / DIGEST_BYTES;
        Self {
            dir: dir.to_owned(),
            buckets: vec![Vec::new(); buckets],
            in_memory: 0,
            in_memory_max,
            on_disk: vec![0; buckets],
        }
    }

    pub(crate) fn push(&mut self, bucket: usize, digest: Digest) {
        self.buckets[bucket].push(digest);
        self.in_memory += 1;
    }

    /// To be called from time to time: writes when there is too much in memory.
    pub(crate) fn make_room(&mut self) -> Result<(), SortedError> {
        if self.in_memory <= self.in_memory_max {
            return Ok(());
        }
        for bucket in 0..self.buckets.len() {
            self.append(bucket)?;
        }
        self.in_memory = 0;
        Ok(())
    }

    fn append(&mut self, bucket: usize) -> Result<(), SortedError> {
        let digests = &mut self.buckets[bucket];
        if digests.is_empty() {
            return Ok(());
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + digests.len() * DIGEST_BYTES);
        frame.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        for digest in &*digests {
            frame.extend_from_slice(&digest.key.0.to_le_bytes());
            frame.extend_from_slice(&digest.row_hash.to_le_bytes());
            frame.extend_from_slice(&digest.ordinal.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&frame[FRAME_HEAD_BYTES..]);
        frame[..4].copy_from_slice(&(digests.len() as u32).to_le_bytes());
        frame[4..FRAME_HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.on_disk[bucket] += digests.len() as u64;
        digests.clear();
        let path = self.path(bucket);
        let write = || {
            failpoint::hit("spill.write")?;
            flowgate_files::append(&path)?.write_all(&frame)
        };
        write().map_err(SortedError::io("writing", &path))
    }

    /// The digests of one bucket in their order.
    pub(crate) fn sorted(&self, bucket: usize) -> Result<Vec<Digest>, SortedError> {
        let mut digests = self.buckets[bucket].clone();
        if self.on_disk[bucket] > 0 {
            let path = self.path(bucket);
            let bytes = fs::read(&path).map_err(SortedError::io("reading", &path))?;
            let before = digests.len();
            let cut = || SortedError::damaged(&path, "a frame is cut or altered");
            decode(&bytes, &mut digests).ok_or_else(cut)?;
            if (digests.len() - before) as u64 != self.on_disk[bucket] {
                return Err(cut());
            }
        }
        Ok(sorted(&digests, self.buckets.len()))
    }

    fn path(&self, bucket: usize) -> PathBuf {
        self.dir.join(format!("{bucket:05}{SUFFIX}"))
    }
}

/// Rows of one cell of [`sorted`], about.
const CELL_ROWS: usize = 8;

/// `digests`, which are of one of `buckets` buckets, in their order. Keys are hashes, so they spread evenly: laid out
/// in cells by their next bits, only neighbours are left to be sorted.
fn sorted(digests: &[Digest], buckets: usize) -> Vec<Digest> {
    let cell_bits = (digests.len() / CELL_ROWS).max(1).ilog2();
    let skipped = buckets.ilog2();
    let cell = |digest: &Digest| match cell_bits {
        0 => 0,
        bits => ((digest.key.0 << skipped) >> (128 - bits)) as usize,
    };
    let mut starts = vec![0_u32; (1 << cell_bits) + 1];
    for digest in digests {
        starts[cell(digest) + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut laid = vec![Digest::new(KeyHash(0), 0, 0, false); digests.len()];
    for digest in digests {
        let place = &mut next[cell(digest)];
        laid[*place as usize] = *digest;
        *place += 1;
    }
    for bounds in starts.windows(2) {
        laid[bounds[0] as usize..bounds[1] as usize].sort_unstable();
    }
    laid
}

fn decode(mut bytes: &[u8], digests: &mut Vec<Digest>) -> Option<()> {
    while !bytes.is_empty() {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*count) as usize * DIGEST_BYTES)?;
        if crc32c::crc32c(frame).to_le_bytes() != *checksum {
            return None;
        }
        for digest in frame.as_chunks::<DIGEST_BYTES>().0 {
            let (key, numbers) = digest.split_first_chunk::<16>()?;
            let (row_hash, ordinal) = numbers.split_first_chunk::<8>()?;
            digests.push(Digest {
                key: KeyHash(u128::from_le_bytes(*key)),
                row_hash: u64::from_le_bytes(*row_hash),
                ordinal: u64::from_le_bytes(*ordinal.first_chunk()?),
            });
        }
        bytes = rest;
    }
    Some(())
}
