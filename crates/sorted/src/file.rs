//! Files that are whole or not there, and the header they all begin with.

use std::io::Write;
use std::path::Path;

use flowgate_core::failpoint;
use flowgate_files::NewFile;
use fs_err as fs;

use crate::SortedError;

/// Magic and version.
pub(crate) const HEADER_BYTES: usize = 12;

pub(crate) fn header(magic: [u8; 8], version: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&magic);
    header[8..].copy_from_slice(&version.to_le_bytes());
    header
}

/// Checks the header of `bytes` and returns what comes after it.
pub(crate) fn after_header<'a>(
    path: &Path,
    bytes: &'a [u8],
    magic: [u8; 8],
    known: u32,
) -> Result<&'a [u8], SortedError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(SortedError::damaged(path, "it is shorter than its header"));
    };
    if header[..8] != magic {
        return Err(SortedError::damaged(path, "it does not begin as such a file does"));
    }
    let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    // The manifest is read first, and its format rises with that of any file: under one that is known, this is damage.
    if found == known { Ok(rest) } else { Err(SortedError::damaged(path, format!("it has format version {found}"))) }
}

/// Opens a file that must be there: state that is missing is damaged.
pub(crate) fn open_stored(path: &Path) -> Result<fs::File, SortedError> {
    match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(SortedError::damaged(path, "it is not there"))
        }
        opened => opened.map_err(SortedError::io("reading", path)),
    }
}

/// Writes `bytes` to `path` so that the file is whole under its name. Durable after [`sync_dir`].
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SortedError> {
    let write = || {
        failpoint::hit("state_file.open")?;
        let mut file = NewFile::create(path)?;
        failpoint::hit("state_file.write")?;
        file.write_all(bytes)?;
        failpoint::hit("state_file.sync")?;
        file.sync()?;
        failpoint::hit("state_file.rename")?;
        file.name()
    };
    write().map_err(SortedError::io("writing", path))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), SortedError> {
    let sync = || {
        failpoint::hit("state_dir.sync")?;
        flowgate_files::sync_dir(dir)
    };
    sync().map_err(SortedError::io("syncing", dir))
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), SortedError> {
    flowgate_files::create_dir(dir).map_err(SortedError::io("creating", dir))
}

/// Removes the files of `dir` whose names `is_unwanted` picks; returns how many there were.
pub(crate) fn remove_files(dir: &Path, is_unwanted: impl Fn(&str) -> bool) -> Result<u64, SortedError> {
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(SortedError::io("reading", dir))? {
        let entry = entry.map_err(SortedError::io("reading", dir))?;
        if entry.file_name().to_str().is_some_and(&is_unwanted) {
            fs::remove_file(entry.path()).map_err(SortedError::io("removing", &entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}
