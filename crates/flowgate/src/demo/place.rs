//! Where the demo happens: a copy of the example, with the emulator it needs.

use std::io;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flowgate_config::Problem;
use flowgate_core::{Code, Project};
use tempfile::TempDir;

use crate::failure::Failure;

const EXAMPLE: &str = "examples/roads-agency";
const PROJECT_FILE: &str = "flowgate.yaml";
/// What the example says, and the demo says instead.
const EMULATOR: &str = "emulator: {}";
/// The register's exports of days 1 to 4.
const REGISTERS: [&str; 4] = ["20230303", "20240806", "20250909", "20250909"];
/// State and work of someone who ran the example by hand.
const NOT_COPIED: [&str; 2] = [".flowgate", "work"];

pub(crate) enum Place {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Place {
    /// Copies the example to `keep`, or to a directory that is removed at the end.
    pub(crate) fn prepare(keep: Option<&Path>, time_scale: f64) -> Result<Self, Failure> {
        let example = find_example()?;
        let place = match keep {
            None => Self::Temporary(tempfile::Builder::new().prefix("flowgate-demo-").tempdir()?),
            Some(dir) => {
                require_empty(dir)?;
                Self::Kept(dir.to_owned())
            }
        };
        copy(&example, place.dir(), 0)?;
        let dir = place.dir();
        fs_err::create_dir_all(dir.join("work"))?;
        let mut packed = GzDecoder::new(fs_err::File::open(dir.join("data/business.sqlite.gz"))?);
        io::copy(&mut packed, &mut fs_err::File::create(dir.join("work/business.sqlite"))?)?;
        set_emulator(&dir.join(PROJECT_FILE), time_scale)?;
        Ok(place)
    }

    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }

    pub(crate) fn load(&self) -> Result<Project, Failure> {
        Ok(flowgate_config::load(self.dir(), None, flowgate_connect::CONNECTORS)?.project)
    }

    /// Puts the export of a day, from 1, where the flow reads it.
    pub(crate) fn put_register_of(&self, day: u8) -> Result<(), Failure> {
        let Some(date) = REGISTERS.get(usize::from(day) - 1) else { return Ok(()) };
        let export = self.dir().join(format!("data/airports_{date}.csv.gz"));
        fs_err::copy(export, self.dir().join("work/assets.csv.gz"))?;
        Ok(())
    }
}

/// The example of the clone that this is run from, or was built from.
fn find_example() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().chain(built.ancestors()).map(|dir| dir.join(EXAMPLE));
    found.into_iter().find(|dir| dir.join(PROJECT_FILE).is_file()).ok_or_else(|| {
        Failure::new(Code::MISSING_FILE, format!("there is no `{EXAMPLE}` here"))
            .hint("the demo runs from a clone of Flowgate's repository: change into it")
    })
}

fn require_empty(dir: &Path) -> Result<(), Failure> {
    fs_err::create_dir_all(dir)?;
    if fs_err::read_dir(dir)?.next().is_some() {
        let message = format!("`{}` is not empty", dir.display());
        return Err(Failure::new(Code::USAGE, message).hint("`--keep` needs a new directory"));
    }
    Ok(())
}

/// Directories of the example below each other.
const DEPTH_MAX: usize = 8;

fn copy(from: &Path, to: &Path, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(Failure::new(Code::STORAGE_FAILED, format!("`{}` is nested too deeply", from.display())));
    }
    for entry in fs_err::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|left_out| name == *left_out) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs_err::create_dir_all(to.join(&name))?;
            copy(&entry.path(), &to.join(&name), depth + 1)?;
        } else {
            fs_err::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// The copy's emulator has costs, limits and a faster clock.
fn set_emulator(path: &Path, time_scale: f64) -> Result<(), Failure> {
    let text = fs_err::read_to_string(path)?;
    if !text.contains(EMULATOR) {
        return Err(not_the_example(EMULATOR).into());
    }
    let settings = format!("emulator: {{ profile: realistic, time_scale: {time_scale:?} }}");
    Ok(fs_err::write(path, text.replace(EMULATOR, &settings))?)
}

pub(crate) fn not_the_example(lacking: &str) -> Problem {
    Problem::new(Code::INTERNAL, format!("the example is not the one this demo was written for: no `{lacking}`"))
}
