//! Finds the files that a path or a pattern names, in the order of their names.
//!
//! The pattern is followed directory by directory, so that nothing outside of it is ever listed.
//! Left out: hidden files (unless the pattern's part begins with a dot) and, below `**`, links to
//! directories, which may lead in a circle.

use std::path::{Component, Path, PathBuf};

use flowgate_core::nearest::nearest;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use globset::{GlobBuilder, GlobMatcher};

use super::DataFile;
use super::unchanged::Stamp;

/// Files of one stream at most: a pattern that matches more is almost certainly wrong.
const FILES_MAX: usize = 100_000;
/// Directories below `**` at most.
const DEPTH_MAX: usize = 64;

/// One part of a pattern, between slashes.
enum Part {
    Plain(String),
    Pattern {
        matcher: GlobMatcher,
        with_hidden: bool,
    },
    /// `**`: any number of directories.
    Anywhere,
}

/// Says why `pattern` is not one.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    parts_of(pattern).map(|_| ())
}

fn parts_of(pattern: &str) -> Result<Vec<Part>, String> {
    if pattern.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if pattern.contains('\0') {
        return Err("it holds a NUL character".to_owned());
    }
    pattern.split('/').filter(|part| !part.is_empty()).map(part_of).collect()
}

fn part_of(text: &str) -> Result<Part, String> {
    if text == "**" {
        return Ok(Part::Anywhere);
    }
    if !text.contains(['*', '?', '[', ']', '{', '}']) {
        return Ok(Part::Plain(text.to_owned()));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    let matcher = glob.map_err(|error| error.kind().to_string())?.compile_matcher();
    Ok(Part::Pattern { matcher, with_hidden: text.starts_with('.') })
}

/// The files that match, without a word about there being none.
pub(super) fn find(pattern: &str, project_dir: &Path) -> Result<Vec<DataFile>, ConnectorError> {
    let parts = parts_of(pattern).map_err(|reason| {
        let message = format!("`{pattern}` is not a pattern: {reason}");
        ConnectorError::new(ErrorKind::Configuration, Code::BAD_PATTERN, message)
    })?;
    let start = if pattern.starts_with('/') { PathBuf::from("/") } else { project_dir.to_owned() };
    let mut paths = Vec::new();
    follow(&start, &parts, 0, &mut paths).map_err(|error| list_failed(pattern, error))?;
    paths.sort();
    paths.dedup();
    if paths.len() > FILES_MAX {
        let message = format!("more than {FILES_MAX} files match `{pattern}`");
        return Err(ConnectorError::new(ErrorKind::Configuration, Code::BAD_PATTERN, message));
    }
    let is_plain = parts.iter().all(|part| matches!(part, Part::Plain(_)));
    if is_plain && paths.first().is_some_and(|path| path.is_dir()) {
        let message = format!("`{pattern}` is a directory");
        return Err(ConnectorError::new(ErrorKind::Configuration, Code::NO_FILES, message)
            .hint(format!("name its files: `{}/*`", pattern.trim_end_matches('/'))));
    }
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let metadata = match fs_err::metadata(&path) {
            Ok(metadata) => metadata,
            // It went between being listed and being looked at.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(list_failed(pattern, error)),
        };
        // Devices and pipes never end, or end differently each time.
        if metadata.is_file() {
            files.push(DataFile { shown: shown(&path, project_dir), stamp: Stamp::of(&metadata), path });
        }
    }
    Ok(files)
}

fn follow(dir: &Path, parts: &[Part], depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let Some((part, rest)) = parts.split_first() else {
        found.push(dir.to_owned());
        return Ok(());
    };
    if found.len() > FILES_MAX || depth > DEPTH_MAX {
        return Ok(());
    }
    match part {
        Part::Plain(name) => {
            let path = dir.join(name);
            if path.try_exists()? {
                follow(&path, rest, depth + 1, found)?;
            }
        }
        Part::Pattern { matcher, with_hidden } => {
            for path in entries(dir, *with_hidden)? {
                if path.file_name().is_some_and(|name| matcher.is_match(name)) {
                    follow(&path, rest, depth + 1, found)?;
                }
            }
        }
        Part::Anywhere => {
            follow(dir, rest, depth + 1, found)?;
            for path in entries(dir, false)? {
                if path.is_dir() && !path.is_symlink() {
                    follow(&path, parts, depth + 1, found)?;
                }
            }
        }
    }
    Ok(())
}

/// What is in a directory; nothing, if it is not one.
fn entries(dir: &Path, with_hidden: bool) -> std::io::Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        if with_hidden || !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn list_failed(pattern: &str, error: std::io::Error) -> ConnectorError {
    let message = format!("looking for `{pattern}` failed");
    ConnectorError::new(ErrorKind::Resource, Code::SOURCE_FAILED, message).caused_by(error)
}

fn shown(path: &Path, project_dir: &Path) -> String {
    let below = path.strip_prefix(project_dir).unwrap_or(path);
    let below: PathBuf = below.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    below.to_string_lossy().into_owned()
}

/// The error for a pattern that matches nothing, with a file that may have been meant.
pub(super) fn nothing_found(pattern: &str, project_dir: &Path) -> ConnectorError {
    let message = format!("no file matches `{pattern}`");
    let mut error = ConnectorError::new(ErrorKind::NotFound, Code::NO_FILES, message);
    let path = project_dir.join(pattern);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return error };
    let names: Vec<_> = entries(dir, false)
        .unwrap_or_default()
        .iter()
        .filter(|path| path.is_file())
        .map(|path| shown(path, dir))
        .collect();
    if let Some(near) = nearest(&name.to_string_lossy(), names.iter().map(String::as_str)) {
        error = error.hint(format!("did you mean `{}`?", shown(&dir.join(near), project_dir)));
    }
    error.hint("set `optional: true` if it is fine that there is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        dir
    }

    fn names(dir: &Path, pattern: &str) -> Vec<String> {
        find(pattern, dir).unwrap().into_iter().map(|file| file.shown).collect()
    }

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let dir = tree(&["data/b.csv", "data/a.csv", "data/.c.csv", "data/d/e.csv", "data/f.txt"]);
        assert_eq!(names(dir.path(), "data/*.csv"), ["data/a.csv", "data/b.csv"]);
        assert_eq!(names(dir.path(), "./data/**/*.csv"), ["data/a.csv", "data/b.csv", "data/d/e.csv"]);
        assert_eq!(names(dir.path(), "data/{b,d}*"), ["data/b.csv"]);
        assert_eq!(names(dir.path(), "data/nothing/x.csv"), [""; 0]);
        assert_eq!(names(dir.path(), &format!("{}/data/f.txt", dir.path().display())), ["data/f.txt"]);
    }

    #[test]
    fn a_directory_is_refused() {
        let dir = tree(&["data/a.csv"]);
        assert_eq!(find("data", dir.path()).unwrap_err().message, "`data` is a directory");
    }

    #[test]
    fn a_near_name_is_offered() {
        let dir = tree(&["data/enquiries.csv"]);
        let error = nothing_found("data/enquirys.csv", dir.path());
        assert_eq!(error.hints[0], "did you mean `data/enquiries.csv`?");
    }
}
