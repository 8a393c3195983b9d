//! Damaged local state is found and named, the named command mends it; state of a newer Flowgate is left alone; and
//! two processes never share a flow.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

/// When the file is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the second day is loaded over the first.
    BetweenDays,
    /// While it is being loaded.
    Amid,
    /// After it was.
    Complete,
}

/// What is done to the file.
#[derive(Clone, Copy)]
enum Deed {
    /// A bit flips, or the file is cut.
    Damage,
    /// A page or more is overwritten with zeros, or the file is cut: of a database, not every bit means something.
    Wreck,
    /// The first of the file's groups, of which others stand behind it.
    DamageBegin,
    /// Bytes become others; put back, all is well.
    Replace(&'static [u8], &'static [u8]),
    /// The format version at this place of the file becomes a newer one.
    Newer(usize),
}

/// What mends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mend {
    /// `run --adopt`
    Adopt,
    /// Moving the file away, then `run --adopt`.
    MoveAndAdopt,
    /// Nothing is needed: the file is made again.
    Nothing,
    /// Only the newer Flowgate can use it.
    PutBack,
}

struct Case {
    ending: &'static str,
    moment: Moment,
    deed: Deed,
    mend: Mend,
}

/// In the order of [`KINDS`], whose last is not about a file.
const CASES: &[Case] = &[
    Case { ending: ".index", moment: Moment::BetweenDays, deed: Deed::Damage, mend: Mend::Adopt },
    Case { ending: ".values", moment: Moment::BetweenDays, deed: Deed::Damage, mend: Mend::Adopt },
    Case { ending: ".ledger", moment: Moment::Amid, deed: Deed::DamageBegin, mend: Mend::Adopt },
    Case { ending: ".parquet", moment: Moment::Amid, deed: Deed::Damage, mend: Mend::Nothing },
    Case { ending: "runs.db", moment: Moment::Complete, deed: Deed::Wreck, mend: Mend::MoveAndAdopt },
    Case {
        ending: "runs.db",
        moment: Moment::Complete,
        deed: Deed::Replace(b"\"buckets\":[", b"\"buckets\":{"),
        mend: Mend::Adopt,
    },
    Case { ending: "runs.db", moment: Moment::BetweenDays, deed: Deed::Newer(USER_VERSION_AT), mend: Mend::PutBack },
    Case {
        ending: "runs.db",
        moment: Moment::BetweenDays,
        deed: Deed::Replace(b"{\"format\":3,", b"{\"format\":9,"),
        mend: Mend::PutBack,
    },
    Case { ending: ".ledger", moment: Moment::Amid, deed: Deed::Newer(8), mend: Mend::PutBack },
];

/// Last byte of `user_version` in the header of an SQLite file (sqlite.org/fileformat2.html, section 1.3).
const USER_VERSION_AT: usize = 63;

pub(crate) const KINDS: &[&str] = &[
    "index damaged",
    "values damaged",
    "ledger damaged",
    "image damaged",
    "database damaged",
    "manifest damaged",
    "database newer",
    "manifest newer",
    "ledger newer",
    "second process",
];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let number = case % KINDS.len();
    bench.begin(2)?;
    let is_met = match CASES.get(number) {
        Some(case) => broken(bench, case, random)?,
        None => second_process(bench)?,
    };
    bench.finish()?;
    Ok(Outcome::of(KINDS[number], u64::from(is_met)))
}

/// Breaks a file; says whether the next run needed it.
fn broken(bench: &mut Bench, case: &Case, random: &mut Random) -> Result<bool> {
    match case.moment {
        Moment::BetweenDays => {}
        Moment::Amid => ensure!(bench.run(Some("answer.recorded:2:kill"))?.was_killed(), "the run was not killed"),
        Moment::Complete => drop(bench.complete()?),
    }
    let path = bench.state_files(case.ending)?.pop().with_context(|| format!("there is no file `*{}`", case.ending))?;
    let before = fs_err::read(&path)?;
    fs_err::write(&path, changed(&before, case.deed, random)?)?;
    let ended = bench.run(None)?;
    if ended.status.code() == Some(0) {
        ensure!(case.mend != Mend::PutBack, "a newer file is used: {}", ended.said);
        // A part that this run did not read, or one that no checksum needs to cover, or the file was made again.
        return Ok(case.mend == Mend::Nothing);
    }
    let code = if case.mend == Mend::PutBack { "FG0402" } else { "FG0401" };
    let is_named = ended.said.contains(code) || (case.mend == Mend::Adopt && ended.said.contains("FG0402"));
    ensure!(ended.status.code() == Some(1) && is_named, "damage is not named: {}", ended.said);
    match case.mend {
        Mend::PutBack => {
            ensure!(ended.said.contains("update Flowgate"), "what helps is not named: {}", ended.said);
            fs_err::write(&path, before)?;
            return Ok(true);
        }
        Mend::MoveAndAdopt => {
            ensure!(ended.said.contains("-wal"), "what to move away is not named: {}", ended.said);
            move_away(&path)?;
        }
        Mend::Adopt | Mend::Nothing => {}
    }
    ensure!(ended.said.contains("--adopt"), "the command that mends it is not named: {}", ended.said);
    let adopted = bench.run_with(&["run", "offices", "--adopt", "--json"])?;
    ensure!(adopted.status.code() == Some(0), "the named command does not mend it: {}", adopted.said);
    Ok(true)
}

fn changed(before: &[u8], deed: Deed, random: &mut Random) -> Result<Vec<u8>> {
    let mut bytes = before.to_vec();
    let at = random.between(0, bytes.len() as u64 - 1) as usize;
    match deed {
        Deed::Damage if random.between(0, 3) == 0 => bytes.truncate(at),
        Deed::Damage => bytes[at] ^= 1 << random.between(0, 7),
        Deed::Wreck if random.between(0, 1) == 0 => bytes.truncate(at),
        Deed::Wreck => bytes[at / 2..].fill(0),
        Deed::DamageBegin => {
            let groups: Vec<usize> =
                bytes.windows(4).enumerate().filter(|(_, is)| is == b"FGGR").map(|(at, _)| at).collect();
            ensure!(groups.len() > 1, "the ledger has {} groups", groups.len());
            let at = random.between(groups[0] as u64, groups[1] as u64 - 1) as usize;
            bytes[at] ^= 1 << random.between(0, 7);
        }
        Deed::Replace(from, to) => {
            let at = bytes.windows(from.len()).rposition(|window| window == from).context("the text is not there")?;
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        Deed::Newer(at) => {
            bytes[at] += 1;
            // A ledger's header has a checksum of its own.
            if bytes.starts_with(b"FGLEDGER") {
                let checksum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
                bytes[12..16].copy_from_slice(&checksum);
            }
        }
    }
    Ok(bytes)
}

fn move_away(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        if file.try_exists()? {
            fs_err::rename(&file, PathBuf::from(format!("{}.away", file.display())))?;
        }
    }
    Ok(())
}

/// Two runs at once: one does the work, the other is refused or finds nothing to do.
fn second_process(bench: &mut Bench) -> Result<bool> {
    let first = bench.spawn()?;
    let second = bench.run(None)?;
    let first = first.wait_with_output()?;
    let statuses = [first.status.code(), second.status.code()];
    let said = String::from_utf8_lossy(&first.stderr).into_owned() + &second.said;
    ensure!(statuses.contains(&Some(0)), "neither run is complete: {said}");
    let is_refused = statuses.contains(&Some(1));
    ensure!(!is_refused || said.contains("FG0400"), "the other run is not told why: {said}");
    Ok(is_refused)
}
