//! Directories and files that only their owner reads, and that survive a power cut.
//!
//! State holds keys of rows and, in images and letters, whole rows. So whatever is made here is closed to
//! others from its first moment, and a [`NewFile`] is whole under its name or not there. A name survives once
//! its directory is synced; who makes many files syncs once behind them all.
//!
//! What may stop or fail between two steps is the callers' matter, who name these moments: that is why the
//! steps are theirs to take one by one.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What a file's name ends with until it is whole.
pub const UNFINISHED: &str = ".temp";

/// Makes `path` and its parents, durable and closed to others, unless they are there.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if dir.try_exists()? {
            break;
        }
        missing.push(dir);
    }
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes the entries of a directory durable: without it a new file may be gone after a power cut.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Makes the entry of `path` in its directory durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Opens `path` for reading and writing, making it if need be, closed to others either way.
pub fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o777 != FILE_MODE {
        permissions.set_mode(FILE_MODE);
        file.set_permissions(permissions)?;
    }
    Ok(file)
}

/// Opens `path` for adding to its end, making it if need be, then closed to others.
pub fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// A file that goes by another name until it is whole.
#[derive(Debug)]
pub struct NewFile {
    file: fs::File,
    path: PathBuf,
}

impl NewFile {
    /// Starts the file that is to be at `path`, in place of what an earlier try left unfinished.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let file = open(Path::new(&unfinished))?;
        file.set_len(0)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where its bytes are meanwhile.
    pub fn unfinished_path(&self) -> &Path {
        self.file.path()
    }

    /// Makes it this long; what was not written is zeros.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// Makes its bytes durable; to be done before it is named.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it its name, which is durable after [`sync_dir`] or [`sync_parent`].
    pub fn name(self) -> io::Result<()> {
        fs::rename(self.file.path(), &self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether `path` still names the file that was opened as `file`: not once it was removed, or replaced by another.
pub fn is_in_place(file: &fs_err::File, path: &Path) -> io::Result<bool> {
    let named = match fs_err::metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let opened = file.metadata()?;
    Ok(opened.dev() == named.dev() && opened.ino() == named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn write_open_to_all(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    #[test]
    fn directories_are_closed_to_others_all_the_way_down() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("outer/inner");
        create_dir(&inner).unwrap();
        assert_eq!((mode(&dir.path().join("outer")), mode(&inner)), (0o700, 0o700));
        create_dir(&inner).unwrap();
    }

    #[test]
    fn a_file_is_closed_to_others_whoever_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let (there, new) = (dir.path().join("there"), dir.path().join("new"));
        write_open_to_all(&there, "x");
        open(&there).unwrap();
        append(&new).unwrap().write_all(b"x").unwrap();
        assert_eq!((mode(&there), mode(&new)), (0o600, 0o600));
    }

    #[test]
    fn a_new_file_takes_the_place_of_the_old_one_when_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "old").unwrap();
        write_open_to_all(&dir.path().join("state.temp"), "left by a killed process");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let unfinished = file.unfinished_path().to_owned();
        file.name().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), ("new".to_owned(), 0o600));
        assert!(!unfinished.try_exists().unwrap());
    }
}
