//! The ledger of one load in one run: what was asked of the destination, and what came of it.
//!
//! An append-only file. An [`Record::Intent`] is durable before the first byte of its request is
//! sent, the [`Record::Outcomes`] before anybody relies on them; so after a kill at any moment
//! [`Replay`] knows each row as acknowledged or unanswered, and an unanswered row is probed or sent
//! again under the same id.
//!
//! # Format
//!
//! Numbers are little endian, checksums CRC-32C.
//!
//! | part | bytes |
//! |---|---|
//! | file header | `FGLEDGER`, version u32 (2), checksum u32 of the 12 bytes before |
//! | group header | `FGGR`, body length u32, group number u64 (from 0), body checksum u32, checksum u32 of the 20 bytes before |
//! | group body | records, one after another: kind u8, payload length u32, payload |
//!
//! A group is what one disk sync made durable. Group n + 1 is written only after group n is
//! durable, and that tells a torn tail from damage: a bad group with a good one of a higher number
//! behind it had been durable, so it is damage and an error; a bad group with nothing good behind
//! it is what a power cut leaves of a write that nobody was told about, and it is dropped.
//! (Damage within the very last group cannot be told from that; it drops the group, never alters it.)
//!
//! What a power cut leaves is never shorter than it was: before a group is written, its place is. The file grows by
//! whole `ROOM_BYTES`, a quarter of its length at least, durably, and zeros stand behind its last group, one at least. So a file whose length is no
//! multiple of that, or that a group fills to the last byte, was cut by something else: that is damage too.
//! Files of version 1 grew with each group. They are read and gone on with as they are; their cuts cannot be told.
//!
//! The payloads are described in the module `record`. Only their reading is public: everything
//! written goes through a [`LedgerWriter`].

mod error;
mod reader;
mod record;
mod replay;
mod writer;

pub use error::LedgerError;
pub use reader::{Records, read};
pub use record::{IntentRow, OutcomeCode, Record};
pub use replay::{Replay, ReplayedRow};
pub use writer::LedgerWriter;

/// The newest format.
const VERSION: u32 = 2;

/// The format whose files have no room behind their last group.
const VERSION_WITHOUT_ROOM: u32 = 1;

/// The length of a file is a multiple of this. It is sparse: what is not written takes no space.
const ROOM_BYTES: u64 = 1 << 18;

const FILE_MAGIC: [u8; 8] = *b"FGLEDGER";
const FILE_HEADER_BYTES: usize = 16;

const GROUP_MAGIC: [u8; 4] = *b"FGGR";
const GROUP_HEADER_BYTES: usize = 24;

/// The longest record: far above any request, and a bound for readers of damaged files.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// A group takes no further record once its body is this long.
const GROUP_BYTES_GOAL: usize = 4 << 20;

/// No body is longer: the last record that was taken may go beyond the goal.
const GROUP_BYTES_MAX: usize = GROUP_BYTES_GOAL + RECORD_BYTES_MAX;

fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// What a group header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GroupHeader {
    length: u32,
    number: u64,
    checksum: u32,
}

impl GroupHeader {
    fn of(number: u64, body: &[u8]) -> Self {
        Self { length: body.len() as u32, number, checksum: crc32c::crc32c(body) }
    }

    fn encode(self) -> [u8; GROUP_HEADER_BYTES] {
        let mut header = [0; GROUP_HEADER_BYTES];
        header[..4].copy_from_slice(&GROUP_MAGIC);
        header[4..8].copy_from_slice(&self.length.to_le_bytes());
        header[8..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&header[..20]);
        header[20..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// `None` unless `bytes` are a whole and undamaged header.
    fn decode(bytes: &[u8; GROUP_HEADER_BYTES]) -> Option<Self> {
        let (content, checksum) = bytes.split_at(20);
        let (magic, content) = content.split_first_chunk::<4>()?;
        let (length, content) = content.split_first_chunk::<4>()?;
        let (number, content) = content.split_first_chunk::<8>()?;
        let header = Self {
            length: u32::from_le_bytes(*length),
            number: u64::from_le_bytes(*number),
            checksum: u32::from_le_bytes(content.try_into().ok()?),
        };
        let is_whole = *magic == GROUP_MAGIC && crc32c::crc32c(&bytes[..20]).to_le_bytes() == *checksum;
        (is_whole && header.length as usize <= GROUP_BYTES_MAX).then_some(header)
    }
}
