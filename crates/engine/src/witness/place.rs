//! Which directory the state lies in, so that a copy of it is told from it.
//!
//! A file beside the state is written once and never again. What the file system says of it, its number and when it was
//! last touched, is kept in each state: where a backup was put back it says something else, whichever way that was done.
//!
//! Left out: snapshots of a whole file system or machine, which put back that too.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use flowgate_core::Project;

use crate::RunError;

const NAME: &str = "place";

const TEXT: &[u8] =
    b"This file is never written again: a state directory that was copied or put back is known by it.\n";

/// What tells this directory from others.
pub(crate) fn of(project: &Project) -> Result<String, RunError> {
    let path = project.state_dir.join(NAME);
    if !path.try_exists()? {
        flowgate_files::create_dir(&project.state_dir)?;
        let mut file = flowgate_files::NewFile::create(&path)?;
        file.write_all(TEXT)?;
        file.sync()?;
        file.name()?;
        flowgate_files::sync_parent(&path)?;
    }
    let metadata = fs_err::metadata(&path)?;
    Ok(format!("{} {}.{:09}", metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Whether a state that was written in `known` is now in another directory. States that did not keep it are not asked.
pub(crate) fn has_moved(project: &Project, known: &str) -> Result<bool, RunError> {
    Ok(!known.is_empty() && of(project)? != known)
}
