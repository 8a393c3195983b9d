//! Rows that came together, with what is known of each; and the frames in which they wait on disk.
//!
//! # Format
//!
//! Temporary, read only by the process that wrote it, checked nevertheless. Numbers are little endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | `FGSPILL` and a zero byte, version u32 (1) |
//! | frames | payload length u64, CRC-32C of the payload u32, payload |
//! | payload | rows u64, keys 16 a row, row hashes 8 a row, ordinals 8 a row, Arrow IPC stream of one batch |

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use flowgate_core::{KeyHash, failpoint};
use fs_err as fs;

use crate::SortedError;
use crate::file::{HEADER_BYTES, after_header, header};

const MAGIC: [u8; 8] = *b"FGSPILL\0";
const VERSION: u32 = 1;

/// Length and checksum before a payload.
const FRAME_HEAD_BYTES: usize = 12;

#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) keys: Vec<KeyHash>,
    pub(crate) row_hashes: Vec<u64>,
    /// The number of each row among all that arrived, from 0.
    pub(crate) ordinals: Vec<u64>,
    pub(crate) rows: RecordBatch,
}

impl Chunk {
    /// Bytes it takes in memory, even if its rows are a part of larger arrays.
    pub(crate) fn bytes(&self) -> usize {
        let column_bytes = |column: &std::sync::Arc<dyn Array>| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        };
        let rows: usize = self.rows.columns().iter().map(column_bytes).sum();
        rows + self.keys.len() * size_of::<(KeyHash, u64, u64)>()
    }

    fn encode(&self) -> Result<Vec<u8>, SortedError> {
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + 4096 + self.bytes());
        frame.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        frame.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        for key in &self.keys {
            frame.extend_from_slice(&key.0.to_le_bytes());
        }
        for number in self.row_hashes.iter().chain(&self.ordinals) {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        let mut write = || -> Result<(), ArrowError> {
            let mut writer = StreamWriter::try_new(&mut frame, self.rows.schema_ref())?;
            writer.write(&self.rows)?;
            writer.finish()
        };
        write().map_err(SortedError::arrow("encoding rows"))?;
        let (head, payload) = frame.split_at_mut(FRAME_HEAD_BYTES);
        head[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        head[8..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        Ok(frame)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (rows, payload) = payload.split_first_chunk::<8>()?;
        let rows = usize::try_from(u64::from_le_bytes(*rows)).ok()?;
        let (keys, payload) = payload.split_at_checked(rows.checked_mul(16)?)?;
        let (row_hashes, payload) = payload.split_at_checked(rows * 8)?;
        let (ordinals, payload) = payload.split_at_checked(rows * 8)?;
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let batch = StreamReader::try_new(payload, None).ok()?.next()?.ok()?;
        (batch.num_rows() == rows).then(|| Self {
            keys: keys.as_chunks().0.iter().map(|bytes| KeyHash(u128::from_le_bytes(*bytes))).collect(),
            row_hashes: row_hashes.as_chunks().0.iter().map(number).collect(),
            ordinals: ordinals.as_chunks().0.iter().map(number).collect(),
            rows: batch,
        })
    }
}

/// Adds a chunk to the end of the file at `path`, which begins with it if it is new.
pub(crate) fn append(path: &Path, is_new: bool, chunk: &Chunk) -> Result<(), SortedError> {
    let frame = chunk.encode()?;
    let write = || {
        failpoint::hit("spill.write")?;
        let mut file = flowgate_files::append(path)?;
        if is_new {
            file.write_all(&header(MAGIC, VERSION))?;
        }
        file.write_all(&frame)
    };
    write().map_err(SortedError::io("writing", path))
}

/// The chunks of a file in the order they were added, one in memory at a time.
pub(crate) struct ChunkReader {
    path: PathBuf,
    file: BufReader<fs::File>,
    has_failed: bool,
}

impl ChunkReader {
    pub(crate) fn open(path: &Path) -> Result<Self, SortedError> {
        let failed = || SortedError::io("reading", path);
        let mut file = BufReader::new(fs::File::open(path).map_err(failed())?);
        let mut begin = Vec::with_capacity(HEADER_BYTES);
        file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut begin).map_err(failed())?;
        after_header(path, &begin, MAGIC, VERSION)?;
        Ok(Self { path: path.to_owned(), file, has_failed: false })
    }

    fn read(&mut self) -> Result<Option<Chunk>, SortedError> {
        let cut = || SortedError::damaged(&self.path, "a frame is cut or altered");
        let head = read_up_to(&mut self.file, FRAME_HEAD_BYTES as u64, &self.path)?;
        let Some((length, checksum)) = head.split_first_chunk::<8>() else {
            return if head.is_empty() { Ok(None) } else { Err(cut()) };
        };
        let length = u64::from_le_bytes(*length);
        let payload = read_up_to(&mut self.file, length, &self.path)?;
        if payload.len() as u64 != length || crc32c::crc32c(&payload).to_le_bytes() != checksum {
            return Err(cut());
        }
        let unknown = || SortedError::damaged(&self.path, "a frame is of unknown form");
        Chunk::decode(&payload).ok_or_else(unknown).map(Some)
    }
}

impl Iterator for ChunkReader {
    type Item = Result<Chunk, SortedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let read = self.read().transpose();
        self.has_failed = matches!(read, Some(Err(_)));
        read
    }
}

fn read_up_to(file: &mut impl Read, bytes: u64, path: &Path) -> Result<Vec<u8>, SortedError> {
    // A length that damage made huge must not be allocated before it is read.
    let mut content = Vec::with_capacity(bytes.min(64 << 20) as usize);
    file.take(bytes).read_to_end(&mut content).map_err(SortedError::io("reading", path))?;
    Ok(content)
}
