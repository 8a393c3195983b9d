//! Directories and files that only their owner reads and that survive a power cut.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::StoreError;

/// Directories of state are for their owner alone.
const DIRECTORY_MODE: u32 = 0o700;
/// Files of state too: they hold keys and, in letters, whole rows.
pub(crate) const FILE_MODE: u32 = 0o600;

/// File systems whose locks or shared memory cannot be relied on, by `statfs` magic.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0xFE53_4D42, "SMB2"),
    (0xFF53_4D42, "CIFS"),
    (0x517B, "SMB"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
];

/// Makes `path` and its parents, durable and closed to others, unless they are there.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if dir.try_exists()? {
            break;
        }
        missing.push(dir);
    }
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    for dir in missing {
        sync_parent(dir)?;
    }
    Ok(())
}

/// Opens `path` for reading and writing, making it if need be, closed to others either way.
pub(crate) fn open_private_file(path: &Path) -> Result<fs::File, StoreError> {
    let failed = |source: io::Error| StoreError::io("opening a state file", path, source);
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(FILE_MODE);
    let file = options.open(path).map_err(failed)?;
    let mut permissions = file.metadata().map_err(failed)?.permissions();
    if permissions.mode() & 0o777 != FILE_MODE {
        permissions.set_mode(FILE_MODE);
        file.set_permissions(permissions).map_err(failed)?;
    }
    Ok(file)
}

/// Makes the entries of a directory durable: without it a new file may be gone after a power cut.
fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Refuses a directory on a network file system.
pub(crate) fn refuse_network_storage(path: &Path) -> Result<(), StoreError> {
    let status =
        rustix::fs::statfs(path).map_err(|source| StoreError::io("asking for the file system", path, source.into()))?;
    match network_file_system(status.f_type) {
        Some(kind) => Err(StoreError::NetworkStorage { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

fn network_file_system(magic: i64) -> Option<&'static str> {
    // Some platforms give the 32-bit magic sign-extended.
    let magic = magic & 0xFFFF_FFFF;
    NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(i64::from(0xFF53_4D42_u32 as i32)), Some("CIFS"));
        assert_eq!(network_file_system(0xEF53), None, "ext4");
    }

    #[test]
    fn an_open_file_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        open_private_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }
}
