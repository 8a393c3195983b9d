//! The power fails: of what was written and not yet synced, any part may be there, and any part not.
//!
//! The run is killed at a step that leaves something unsynced. What a power cut may have kept of it, cut short, torn at
//! pages or not there at all, makes an *image* of the state. From every image the state must open and say what it said
//! before the step or after it; from one image of each case the flow is run, and every row compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flowgate_core::{FlowName, LoadName};
use flowgate_sorted::{Manifest, State};
use flowgate_store::ledger::{self, Replay, ReplayedRow};
use flowgate_store::{SqliteStore, Store};
use tempfile::TempDir;

use crate::Outcome;
use crate::place::{Bench, FLOW_NAME, LOAD_NAME, copy, files};
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &[
    "ledger.created",
    "ledger.torn",
    "ledger.sync",
    "state_file.sync",
    "state_file.rename",
    "state_dir.sync",
    "image.sync",
    "image.renamed",
    "store.committed",
];

/// Images made of one moment.
const IMAGES: u64 = 40;

/// The least that a disk writes or loses, and what SQLite writes at once.
const PAGE_BYTES: usize = 4096;

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let point = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2, 2]))?;
    let nth = if matches!(point, "ledger.torn" | "ledger.sync" | "store.committed") { random.between(1, 6) } else { 1 };
    let ended = bench.run(Some(&format!("{point}:{nth}:kill")))?;
    ensure!(ended.was_killed() || ended.status.code() == Some(0), "neither killed nor complete: {}", ended.said);
    if !ended.was_killed() {
        bench.finish()?;
        return Ok(Outcome::of(point, 0));
    }
    let state = bench.state_dir();
    let (cut, work) = (TempDir::new()?, TempDir::new()?);
    copy(&state, cut.path())?;
    let kept = contents(&image(&cut, &work, |_| Ok(()))?).context("before anything is lost")?;
    let lost = contents(&image(&cut, &work, |dir| unsynced(point, dir)?.iter().try_for_each(Unsynced::lose_all))?)
        .context("when all is lost")?;
    for number in 0..IMAGES {
        let found = contents(&image(&cut, &work, |dir| lose(point, dir, random))?);
        let found = found.with_context(|| format!("image {number}"))?;
        found.require_one_of(&kept, &lost).with_context(|| format!("image {number}"))?;
    }
    let last = image(&cut, &work, |dir| lose(point, dir, random))?;
    fs_err::remove_dir_all(&state)?;
    copy(&last, &state)?;
    bench.finish()?;
    Ok(Outcome::of(point, IMAGES + 1))
}

/// A copy of the state as it was cut off, with something lost.
fn image(cut: &TempDir, work: &TempDir, lose: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = work.path().join("image");
    if dir.is_dir() {
        fs_err::remove_dir_all(&dir)?;
    }
    copy(cut.path(), &dir)?;
    // Shared memory is never on disk.
    for file in files(&dir, "-shm")? {
        fs_err::remove_file(file)?;
    }
    lose(&dir)?;
    Ok(dir)
}

/// A file of which not all is known to be on disk.
struct Unsynced {
    path: PathBuf,
    /// Bytes from the start that are.
    durable: usize,
    name: Name,
    /// The file was made longer, durably, before these bytes were written: it is never shorter.
    has_room: bool,
}

/// What may have become of a file's name.
enum Name {
    Durable,
    /// It may be missing.
    New,
    /// It may be missing, or the file still go by this one.
    Renamed(PathBuf),
}

impl Unsynced {
    fn lose_all(&self) -> Result<()> {
        if !matches!(self.name, Name::Durable) {
            return Ok(fs_err::remove_file(&self.path)?);
        }
        let mut bytes = fs_err::read(&self.path)?;
        self.cut(&mut bytes, self.durable);
        Ok(fs_err::write(&self.path, bytes)?)
    }

    fn cut(&self, bytes: &mut Vec<u8>, at: usize) {
        if self.has_room { bytes[at..].fill(0) } else { bytes.truncate(at) }
    }

    fn lose(&self, random: &mut Random) -> Result<()> {
        let mut bytes = fs_err::read(&self.path)?;
        let from = self.durable;
        let at = random.between(from as u64, bytes.len() as u64) as usize;
        match random.between(0, 4) {
            0 => self.cut(&mut bytes, at),
            // The length is there, the content is not.
            1 => bytes[at..].fill(0),
            2 => {
                let pages = (from / PAGE_BYTES..bytes.len().div_ceil(PAGE_BYTES)).filter(|_| random.between(0, 1) == 0);
                for page in pages.collect::<Vec<_>>() {
                    let end = bytes.len().min((page + 1) * PAGE_BYTES);
                    bytes[from.max(page * PAGE_BYTES)..end].fill(0);
                }
            }
            3 => match &self.name {
                Name::Renamed(earlier) => return Ok(fs_err::rename(&self.path, earlier)?),
                Name::New => return Ok(fs_err::remove_file(&self.path)?),
                Name::Durable => {}
            },
            _ if !matches!(self.name, Name::Durable) => return Ok(fs_err::remove_file(&self.path)?),
            _ => self.cut(&mut bytes, from),
        }
        Ok(fs_err::write(&self.path, bytes)?)
    }
}

fn lose(point: &str, dir: &Path, random: &mut Random) -> Result<()> {
    unsynced(point, dir)?.iter().try_for_each(|part| part.lose(random))
}

/// What is not known to be on disk when a process stops at `point`.
fn unsynced(point: &str, dir: &Path) -> Result<Vec<Unsynced>> {
    let new = |path: PathBuf| Unsynced { path, durable: 0, name: Name::New, has_room: false };
    let renamed = |path: PathBuf, earlier: PathBuf| {
        let durable = fs_err::metadata(&path).map_or(0, |metadata| metadata.len() as usize);
        Unsynced { path, durable, name: Name::Renamed(earlier), has_room: false }
    };
    Ok(match point {
        "ledger.torn" | "ledger.sync" => {
            let path = files(dir, ".ledger")?.pop().context("there is no ledger")?;
            let bytes = fs_err::read(&path)?;
            let durable = bytes.windows(4).rposition(|window| window == b"FGGR").context("the ledger has no group")?;
            vec![Unsynced { path, durable, name: Name::Durable, has_room: true }]
        }
        "ledger.created" => {
            files(dir, ".ledger")?.into_iter().map(|path| renamed(path.clone(), unfinished(&path))).collect()
        }
        "state_file.sync" => files(dir, ".temp")?.into_iter().map(new).collect(),
        "state_file.rename" => {
            let synced = |path: PathBuf| renamed(path.clone(), path.with_extension("elsewhere"));
            files(dir, ".temp")?.into_iter().map(synced).collect()
        }
        "state_dir.sync" => {
            let named = fs_err::read_dir(dir)?.count();
            ensure!(named > 0, "the state is empty");
            let manifest = manifest_text(dir)?.unwrap_or_default();
            // A manifest names a layer, whose two files are called like it.
            let is_named = |path: &PathBuf| manifest.contains(&*path.file_stem().unwrap_or_default().to_string_lossy());
            let mut parts = files(dir, ".index")?;
            parts.extend(files(dir, ".values")?);
            parts.retain(|path| !is_named(path));
            parts.into_iter().map(|path| renamed(path.clone(), unfinished(&path))).collect()
        }
        "image.sync" => files(dir, ".parquet.temp")?.into_iter().map(new).collect(),
        "image.renamed" => {
            let newest = files(dir, ".parquet")?.pop().context("there is no image")?;
            vec![renamed(newest.clone(), unfinished(&newest))]
        }
        _ => {
            let path = files(dir, "runs.db-wal")?.pop().context("there is no write-ahead log")?;
            let durable = last_transaction(&fs_err::read(&path)?);
            vec![Unsynced { path, durable, name: Name::Durable, has_room: false }]
        }
    })
}

/// What a file was called before it was whole.
fn unfinished(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.temp", path.display()))
}

/// Where the last transaction of a write-ahead log begins (sqlite.org/fileformat2.html, section 4).
fn last_transaction(log: &[u8]) -> usize {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + PAGE_BYTES;
    let salt = log.get(16..24).unwrap_or_default();
    let mut ends = vec![HEADER.min(log.len())];
    for (number, frame) in log.get(HEADER..).unwrap_or_default().chunks_exact(FRAME).enumerate() {
        if &frame[8..16] != salt {
            break;
        }
        if frame[4..8] != [0; 4] {
            ends.push(HEADER + (number + 1) * FRAME);
        }
    }
    ends[ends.len().saturating_sub(2)]
}

/// What a state says.
struct Contents {
    /// The last run and the manifest, as text, and the rows of its buckets.
    database: String,
    ledgers: BTreeMap<PathBuf, Vec<ReplayedRow>>,
}

impl Contents {
    fn require_one_of(&self, kept: &Self, lost: &Self) -> Result<()> {
        let database = &self.database;
        let is_known = *database == kept.database || *database == lost.database;
        ensure!(is_known, "the database says neither what was nor what is: {database}");
        for path in kept.ledgers.keys().chain(self.ledgers.keys()) {
            let found = self.ledgers.get(path);
            let is_known = found == kept.ledgers.get(path) || found == lost.ledgers.get(path);
            ensure!(is_known, "`{}` says neither what was nor what is: {found:?}", path.display());
        }
        Ok(())
    }
}

fn contents(dir: &Path) -> Result<Contents> {
    let root = database_dir(dir)?;
    let store = SqliteStore::open(&root)?;
    let (flow, load) = (FlowName::new(FLOW_NAME)?, LoadName::new(LOAD_NAME)?);
    let mut database = format!("{:?}", store.last_run(&flow)?);
    if let Some(record) = store.manifest(&flow, &load)? {
        let state_dir = root.join("loads").join(FLOW_NAME).join(LOAD_NAME);
        let state = State::open(&state_dir, Manifest::from_json(&state_dir, &record.json)?);
        let bits = state.manifest().bits;
        for bucket in 0..1_usize << bits {
            let rows = state.bucket(bits, bucket)?.index.len();
            write!(database, "; version {}, bucket {bucket}: {rows} rows", record.version)?;
        }
    }
    let mut ledgers = BTreeMap::new();
    for path in files(dir, ".ledger")? {
        let rows = Replay::of(ledger::read(&path)?)?.rows().collect();
        ledgers.insert(path, rows);
    }
    Ok(Contents { database, ledgers })
}

fn manifest_text(dir: &Path) -> Result<Option<String>> {
    let store = SqliteStore::open(&database_dir(dir)?)?;
    Ok(store.manifest(&FlowName::new(FLOW_NAME)?, &LoadName::new(LOAD_NAME)?)?.map(|record| record.json))
}

fn database_dir(dir: &Path) -> Result<PathBuf> {
    let database = files(dir, "runs.db")?.pop().context("there is no database")?;
    Ok(database.parent().context("a database without a directory")?.to_owned())
}
