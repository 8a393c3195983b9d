//! Whether files stay what they are while they are read.
//!
//! A writer that still appends, a file put in place of another, one that is cut and written anew: each leaves whole
//! lines behind, and what is missing would look gone. So size, times, device and inode of every file are noted before
//! its first byte is read and compared after the last byte of the last file; a difference fails the read as a whole.
//! The time of the last change (`ctime`) is among them, since copying tools put the modification time back.
//!
//! Left out: a writer that pauses for longer than the whole read. Put files in place by renaming them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use flowgate_core::{Code, ConnectorError, ErrorKind};

use super::{DataFile, read_failed};

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Fails if `file` is no longer what it was when it was found.
pub(super) fn require_unchanged(file: &DataFile) -> Result<(), ConnectorError> {
    let now = match fs_err::metadata(&file.path) {
        Ok(metadata) => Stamp::of(&metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(changed(file, "was removed while it was read"));
        }
        Err(error) => return Err(read_failed(file, error)),
    };
    let before = &file.stamp;
    if now == *before {
        return Ok(());
    }
    Err(if (now.device, now.inode) != (before.device, before.inode) {
        changed(file, "was replaced by another file while it was read")
    } else if now.bytes != before.bytes {
        let (before, now) = (before.bytes, now.bytes);
        changed(file, &format!("changed while it was read: it had {before} bytes before and {now} after"))
    } else {
        changed(file, "was written to while it was read")
    })
}

/// Fails if other files are found now than were found before.
pub(super) fn require_same_files(before: &[DataFile], now: &[DataFile]) -> Result<(), ConnectorError> {
    let is_in = |file: &DataFile, files: &[DataFile]| files.binary_search_by(|one| one.path.cmp(&file.path)).is_ok();
    if let Some(added) = now.iter().find(|file| !is_in(file, before)) {
        return Err(changed(added, "came while the files beside it were read"));
    }
    match before.iter().find(|file| !is_in(file, now)) {
        Some(removed) => Err(changed(removed, "was removed while the files beside it were read")),
        None => Ok(()),
    }
}

fn changed(file: &DataFile, what: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::Data, Code::SOURCE_CHANGED, format!("`{}` {what}", file.shown))
        .hint("nothing of it was used; run again when its writer is done")
        .hint("a writer that renames a finished file into place is never met in the middle")
}
