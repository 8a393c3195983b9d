//! Files that are whole or not there, and the header they all begin with.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use flowgate_core::failpoint;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::SortedError;

/// Files hold keys and values of rows: only their owner reads them.
pub(crate) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

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
    // Newer formats are found out by the manifest: it names only files of the versions it knows.
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
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".temp");
    let unfinished = Path::new(&unfinished);
    let write = || {
        let mut options = fs::OpenOptions::new();
        failpoint::hit("state_file.open")?;
        let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(unfinished)?;
        failpoint::hit("state_file.write")?;
        file.write_all(bytes)?;
        failpoint::hit("state_file.sync")?;
        file.sync_all()?;
        failpoint::hit("state_file.rename")?;
        fs::rename(unfinished, path)
    };
    write().map_err(SortedError::io("writing", path))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), SortedError> {
    let sync = || {
        failpoint::hit("state_dir.sync")?;
        fs::File::open(dir)?.sync_all()
    };
    sync().map_err(SortedError::io("syncing", dir))
}

/// Makes `dir` and its parents, durable and closed to others, unless they are there.
pub(crate) fn create_dir(dir: &Path) -> Result<(), SortedError> {
    let failed = || SortedError::io("creating", dir);
    let mut missing = Vec::new();
    for ancestor in dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        if ancestor.try_exists().map_err(failed())? {
            break;
        }
        missing.push(ancestor);
    }
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(failed())?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
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
