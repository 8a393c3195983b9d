//! Reading a ledger back, one record at a time.

use std::cmp::Ordering;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::record::decode;
use super::{
    FILE_HEADER_BYTES, FILE_MAGIC, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, LedgerError, ROOM_BYTES, Record,
    VERSION, VERSION_WITHOUT_ROOM,
};

/// Bytes read at once when a bad group makes us look for a good one behind it.
const SEARCH_BYTES: usize = 1 << 20;

/// Opens the ledger at `path` for reading.
pub fn read(path: &Path) -> Result<Records, LedgerError> {
    let failed = |source| LedgerError::read(path, source);
    let file = fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut file = BufReader::new(file);
    let mut header = [0; FILE_HEADER_BYTES];
    let got = read_up_to(&mut file, &mut header).map_err(failed)?;
    let has_room = check_file_header(path, &header[..got])? != VERSION_WITHOUT_ROOM;
    if has_room && (length == 0 || !length.is_multiple_of(ROOM_BYTES)) {
        return Err(LedgerError::Damaged { path: path.to_owned(), offset: length, detail: "it was cut".to_owned() });
    }
    Ok(Records {
        path: path.to_owned(),
        file,
        length,
        has_room,
        offset: FILE_HEADER_BYTES as u64,
        group: 0,
        body: Vec::new(),
        position: 0,
        is_over: false,
    })
}

/// The version of a file that can be read.
fn check_file_header(path: &Path, header: &[u8]) -> Result<u32, LedgerError> {
    let damaged = |detail: &str| LedgerError::Damaged { path: path.to_owned(), offset: 0, detail: detail.to_owned() };
    let Ok(header) = <&[u8; FILE_HEADER_BYTES]>::try_from(header) else {
        return Err(damaged("it is shorter than its header"));
    };
    if header[..8] != FILE_MAGIC {
        return Err(damaged("it does not begin as a ledger does"));
    }
    if crc32c::crc32c(&header[..12]).to_le_bytes() != header[12..] {
        return Err(damaged("its header does not match its checksum"));
    }
    let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    match found.cmp(&VERSION) {
        Ordering::Equal => Ok(found),
        Ordering::Greater => Err(LedgerError::Newer { path: path.to_owned(), found, known: VERSION }),
        Ordering::Less if found >= VERSION_WITHOUT_ROOM => Ok(found),
        Ordering::Less => Err(damaged("its header names a version that never was")),
    }
}

/// Where the undamaged part of a ledger ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) position: u64,
    /// The number of the next group.
    pub(super) group: u64,
    /// The length of the file, if it has room behind its last group.
    pub(super) room: Option<u64>,
    pub(super) torn_bytes: u64,
}

/// The records of a ledger in the order they were written. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: BufReader<fs::File>,
    length: u64,
    /// Whether zeros stand behind the last group, as far as the file reaches.
    has_room: bool,
    /// Where the group after `body` begins.
    offset: u64,
    /// The number that group must have.
    group: u64,
    body: Vec<u8>,
    position: usize,
    is_over: bool,
}

impl Records {
    /// What a writer goes on from. Known when the records are over.
    pub(super) fn end(&mut self) -> Result<End, LedgerError> {
        let torn_bytes = self.torn_bytes().map_err(|source| LedgerError::read(&self.path, source))?;
        let room = self.has_room.then_some(self.length);
        Ok(End { position: self.offset, group: self.group, room, torn_bytes })
    }

    /// Bytes of a write that was under way when the process died: up to the last that is not zero.
    fn torn_bytes(&mut self) -> std::io::Result<u64> {
        if !self.has_room {
            return Ok(self.length - self.offset);
        }
        let mut window = vec![0; SEARCH_BYTES];
        let (mut start, mut torn) = (0, 0);
        self.file.seek(SeekFrom::Start(self.offset))?;
        loop {
            let got = read_up_to(&mut self.file, &mut window)?;
            if let Some(last) = window[..got].iter().rposition(|byte| *byte != 0) {
                torn = start + last as u64 + 1;
            }
            if got < window.len() {
                return Ok(torn);
            }
            start += got as u64;
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>, LedgerError> {
        while self.position == self.body.len() {
            if !self.read_group()? {
                return Ok(None);
            }
        }
        let bytes = &self.body[self.position..];
        let Some((record, rest)) = decode(bytes) else {
            // Its checksum matches, so this is what was written.
            return Err(self.damaged("a record of unknown form"));
        };
        self.position = self.body.len() - rest.len();
        Ok(Some(record))
    }

    /// Reads the next group; `false` at the end of what is good.
    fn read_group(&mut self) -> Result<bool, LedgerError> {
        let mut header = [0; GROUP_HEADER_BYTES];
        let got = read_up_to(&mut self.file, &mut header).map_err(|source| LedgerError::read(&self.path, source))?;
        if got < GROUP_HEADER_BYTES {
            return Ok(false);
        }
        let Some(header) = GroupHeader::decode(&header) else {
            return self.judge("a group header does not match its checksum");
        };
        if header.number != self.group {
            return self.judge("a group is out of order");
        }
        let end = self.offset + (GROUP_HEADER_BYTES as u64) + u64::from(header.length);
        if self.has_room && end >= self.length {
            return Err(self.damaged("it was cut"));
        }
        self.body.resize(header.length as usize, 0);
        let got = read_up_to(&mut self.file, &mut self.body).map_err(|source| LedgerError::read(&self.path, source))?;
        if got < self.body.len() || crc32c::crc32c(&self.body) != header.checksum {
            self.body.clear();
            self.position = 0;
            return self.judge("a group does not match its checksum");
        }
        self.position = 0;
        self.offset += (GROUP_HEADER_BYTES + self.body.len()) as u64;
        self.group += 1;
        Ok(true)
    }

    /// What a bad group means: the end if nothing good follows, damage otherwise.
    fn judge(&mut self, detail: &str) -> Result<bool, LedgerError> {
        if self.has_later_group()? { Err(self.damaged(detail)) } else { Ok(false) }
    }

    /// Whether anywhere behind the bad group there is the header of a later one.
    fn has_later_group(&mut self) -> Result<bool, LedgerError> {
        let failed = |source| LedgerError::read(&self.path, source);
        let mut window = vec![0; SEARCH_BYTES];
        let mut start = self.offset + 1;
        loop {
            self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let got = read_up_to(&mut self.file, &mut window).map_err(failed)?;
            let mut at = 0;
            while let Some(next) = window[at..got].iter().position(|byte| *byte == GROUP_MAGIC[0]) {
                at += next;
                let candidate = window[at..got].first_chunk::<GROUP_HEADER_BYTES>();
                if candidate.and_then(GroupHeader::decode).is_some_and(|header| header.number > self.group) {
                    return Ok(true);
                }
                at += 1;
            }
            if got < window.len() {
                return Ok(false);
            }
            // Windows overlap, so that no header lies between two of them.
            start += (got - GROUP_HEADER_BYTES + 1) as u64;
        }
    }

    fn damaged(&self, detail: &str) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), offset: self.offset, detail: detail.to_owned() }
    }
}

impl Iterator for Records {
    type Item = Result<Record, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_record().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Fills `buffer` as far as the file reaches.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            count => got += count,
        }
    }
    Ok(got)
}
