//! `flowgate-bench-diff [staging|index] [--rows N] [--threads N] [--zstd] [--dir DIR]`: the diff at
//! scale, its figures as one JSON object on standard output.
//!
//! * `staging`: a day's Parquet image, of which one row in a hundred changed, against the state of
//!   the day before, up to the next state, durable. What the engine does between its SELECT and its
//!   first request, and after its last one, with the same functions.
//! * `index`: two states of the same load, index against index, from warm files.
//!
//! What is made before (both days' files, the first state) is not measured. Figures are for each
//! core: rows by the seconds that the process had a processor.

mod data;
mod index;
mod staging;

use std::path::PathBuf;
use std::process::ExitCode;

/// Why a benchmark does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("unknown argument `{0}`: use `staging` or `index`, --rows N, --threads N, --zstd, --dir DIR")]
    Argument(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error(transparent)]
    Sorted(#[from] flowgate_sorted::SortedError),
    #[error("a thread ended without a result")]
    Thread,
    #[error("figures cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) is_index: bool,
    pub(crate) rows: u64,
    pub(crate) threads: usize,
    pub(crate) is_compressed: bool,
    pub(crate) dir: PathBuf,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut options = Self {
            is_index: false,
            rows: 4_000_000,
            threads: 1,
            is_compressed: false,
            dir: std::env::temp_dir().join(format!("flowgate-bench-diff-{}", std::process::id())),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| Error::Argument(argument.clone()));
            let number = |text: String| text.parse::<u64>().map_err(|_| Error::Argument(text));
            match argument.as_str() {
                "staging" => options.is_index = false,
                "index" => options.is_index = true,
                "--rows" => options.rows = number(value()?)?.max(1),
                "--threads" => options.threads = number(value()?)?.clamp(1, 64) as usize,
                "--zstd" => options.is_compressed = true,
                "--dir" => options.dir = PathBuf::from(value()?),
                "--json" => {}
                _ => return Err(Error::Argument(argument)),
            }
        }
        Ok(options)
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(figures) => {
            println!("{figures:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Seconds that all threads of this process, those that ended among them, have had a processor.
pub(crate) fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn run(options: &Options) -> Result<serde_json::Value, Error> {
    fs_err::create_dir_all(&options.dir)?;
    let figures = if options.is_index {
        serde_json::to_value(index::run(options)?)?
    } else {
        serde_json::to_value(staging::run(options)?)?
    };
    let name = if options.is_index { "index" } else { "staging" };
    fs_err::remove_dir_all(options.dir.join("state"))?;
    Ok(serde_json::json!({ "bench": format!("diff {name}"), "figures": figures }))
}
