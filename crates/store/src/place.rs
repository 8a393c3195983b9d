//! Where state may be: in a directory that nobody else may change, and not on a network.
//!
//! Whoever may write to the state decides what is believed to be loaded. So a directory that others may write to, that
//! another user owns, or that is a link to somewhere else is refused, and no link within it is followed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::StoreError;

/// Mode bits of a directory: its group or everybody may write.
const OTHERS_MAY_WRITE: u32 = 0o022;

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
    // `.flowgate` holds the state of each environment.
    let outer = dir.parent().filter(|outer| outer.file_name().is_some_and(|name| name == ".flowgate"));
    for path in outer.into_iter().chain([dir, &locks]) {
        refuse_others(path)?;
    }
    refuse_network_storage(dir)?;
    Ok(locks)
}

/// Opens a file of state, making it if need be, closed to others either way.
pub(crate) fn open_file(path: &Path) -> Result<fs::File, StoreError> {
    refuse_link(path)?;
    flowgate_files::open(path).map_err(|source| StoreError::io("opening a state file", path, source))
}

/// Refuses a directory that others may change.
fn refuse_others(path: &Path) -> Result<(), StoreError> {
    refuse_link(path)?;
    let metadata = fs::symlink_metadata(path).map_err(|source| StoreError::io("looking at the state", path, source))?;
    let why = if metadata.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & OTHERS_MAY_WRITE != 0 {
        "may be written to by other users"
    } else {
        return Ok(());
    };
    Err(StoreError::NotPrivate { path: path.to_owned(), why })
}

/// Refuses a link where state should be: it leads to what others chose.
fn refuse_link(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            Err(StoreError::NotPrivate { path: path.to_owned(), why: "is a symbolic link" })
        }
        _ => Ok(()),
    }
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
    fn a_directory_that_others_may_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join(".flowgate/local");
        let refusal = || create(&state).map_err(|error| error.to_string());
        assert!(refusal().is_ok());
        for path in [dir.path().join(".flowgate"), state.clone(), state.join("locks")] {
            for mode in [0o770, 0o702, 0o722] {
                fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(
                    refusal(),
                    Err(format!("`{}` may be written to by other users", path.display())),
                    "{mode:o}"
                );
            }
            fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            assert!(refusal().is_ok());
        }
        fs::rename(&state, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &state).unwrap();
        assert_eq!(refusal(), Err(format!("`{}` is a symbolic link", state.display())));
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("runs.db"));
        fs::write(&target, "not ours").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(open_file(&link), Err(StoreError::NotPrivate { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "not ours");
    }

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(i64::from(0xFF53_4D42_u32 as i32)), Some("CIFS"));
        assert_eq!(network_file_system(0xEF53), None, "ext4");
    }
}
