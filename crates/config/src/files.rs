//! Reads the files of a project, within bounds, and remembers what made its version.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flowgate_core::Code;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::node::{Node, parse};
use crate::place::SourceFile;
use crate::report::{Problem, Report};

/// The largest file of configuration, YAML or SQL.
pub(crate) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files of one folder of a project.
pub(crate) const FILES_MAX: usize = 1_000;

pub(crate) struct Files {
    /// Absolute.
    dir: PathBuf,
    /// The hash of each file read, by its name.
    hashes: BTreeMap<String, u128>,
}

/// Why a file was not read.
pub(crate) enum Unread {
    Absent,
    Problem(Box<Problem>),
}

impl Files {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, hashes: BTreeMap::new() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name by which a file is shown: relative to the project, with `/`.
    pub(crate) fn name_of(&self, path: &Path) -> String {
        let path = without_dots(path);
        let shown = path.strip_prefix(&self.dir).unwrap_or(&path);
        shown.to_string_lossy().replace('\\', "/")
    }

    pub(crate) fn read_text(&mut self, path: &Path) -> Result<Arc<SourceFile>, Unread> {
        let name = self.name_of(path);
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Absent),
            Err(error) => {
                let problem = Problem::new(Code::MISSING_FILE, format!("cannot be read: {}", error.kind()));
                return Err(Unread::Problem(Box::new(problem.in_file(name))));
            }
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let message =
                format!("larger than {} MiB, the most a file of configuration may have", FILE_BYTES_MAX >> 20);
            return Err(Unread::Problem(Box::new(Problem::new(Code::WRONG_TYPE, message).in_file(name))));
        }
        self.hashes.insert(name.clone(), xxh3_128(&bytes));
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Arc::new(SourceFile::new(name, text))),
            Err(error) => {
                let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
                let message = format!("not UTF-8 text: line {} holds other bytes", before.matches('\n').count() + 1);
                let is_sql = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"));
                let code = if is_sql { Code::SQL_SYNTAX } else { Code::YAML_SYNTAX };
                let problem = Problem::new(code, message).in_file(name).hint("save the file as UTF-8");
                Err(Unread::Problem(Box::new(problem)))
            }
        }
    }

    /// Reads a YAML file that should be there.
    pub(crate) fn read_yaml(&mut self, path: &Path, report: &mut Report) -> Option<Node> {
        match self.read_text(path) {
            Ok(file) => parse(&file, report),
            Err(Unread::Problem(problem)) => {
                report.add(*problem);
                None
            }
            Err(Unread::Absent) => {
                let problem = Problem::new(Code::MISSING_FILE, "the file is not there");
                report.add(problem.in_file(self.name_of(path)));
                None
            }
        }
    }

    /// The YAML files of a folder of the project, by name. A missing folder has none.
    pub(crate) fn list_yaml(&self, folder: &str, report: &mut Report) -> Vec<PathBuf> {
        let entries = match fs_err::read_dir(self.dir.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let problem = Problem::new(Code::MISSING_FILE, format!("cannot be read: {}", error.kind()));
                report.add(problem.in_file(folder));
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        paths.retain(|path| self.is_yaml(path, report));
        if paths.len() > FILES_MAX {
            let message = format!("more than {FILES_MAX} files in one folder");
            report.add(Problem::new(Code::NOT_SUPPORTED, message).in_file(folder));
            paths.truncate(FILES_MAX);
        }
        paths
    }

    fn is_yaml(&self, path: &Path, report: &mut Report) -> bool {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml") => true,
            Some("yml") => {
                let problem = Problem::new(Code::NOT_SUPPORTED, "files ending in `.yml` are not read");
                report.add(problem.in_file(self.name_of(path)).hint("rename it to `.yaml`, or move it elsewhere"));
                false
            }
            _ => false,
        }
    }

    /// One hash of everything read so far: names and contents.
    pub(crate) fn version(&self) -> String {
        let mut hasher = Xxh3::new();
        for (name, hash) in &self.hashes {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&hash.to_le_bytes());
        }
        format!("{:032x}", hasher.digest128())
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs_err::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `a/b/../c` as `a/c`, without asking the file system.
pub(crate) fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            component => plain.push(component),
        }
    }
    plain
}
