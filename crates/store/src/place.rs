//! Where state may be: in a private directory, and not on a network.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::StoreError;

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

/// Makes the directory of state `dir` with its `locks`, which are returned.
pub(crate) fn create(dir: &Path) -> Result<PathBuf, StoreError> {
    let locks = dir.join("locks");
    flowgate_files::create_dir(&locks).map_err(|source| StoreError::io("creating the state directory", dir, source))?;
    refuse_network_storage(dir)?;
    Ok(locks)
}

/// Opens a file of state, making it if need be, closed to others either way.
pub(crate) fn open_file(path: &Path) -> Result<fs::File, StoreError> {
    flowgate_files::open(path).map_err(|source| StoreError::io("opening a state file", path, source))
}

/// Refuses a directory on a network file system.
fn refuse_network_storage(path: &Path) -> Result<(), StoreError> {
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
}
