//! A project in a directory, the service it loads into, and the built binary run on it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::data::{Rows, as_csv, differences, rows_of};
use crate::service::{Service, TIME_SCALE};

pub(crate) const FLOW_NAME: &str = "offices";
pub(crate) const LOAD_NAME: &str = "accounts";

const FLOW: &str = "\
flow: offices
streams:
  office: { from: files, key: [code], deletes: seen }
loads:
  accounts:
    into: crm
    table: account
    match: [accountnumber]
    missing: delete
    state: { column: status, Closed: { status: Inactive }, Open: { status: Active } }
    select: ";
const SELECT: &str = "SELECT code AS accountnumber, name, city AS address1_city, status FROM office";

/// Requests that write; the last is what single status changes and deletes go by.
pub(crate) const WRITES: &[&str] = &["CreateMultiple", "UpdateMultiple", "Batch"];

/// Runs that may be needed after a fault is over: each goes on where the one before it stopped.
const RUNS_MAX: usize = 4;
/// How often, and at most how long, a running binary is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const LOOKS_MAX: usize = 12_000;

/// A worker's place of work. The destination's table has no alternate key: nothing there prevents a duplicate.
pub(crate) struct Bench {
    dir: TempDir,
    program: PathBuf,
    pub(crate) service: Service,
    /// Rows that the source has on each day.
    size: u32,
    /// The day whose rows the source has.
    day: u32,
    /// Creates that the emulator must have counted once the day is loaded: each key was created once.
    created: u64,
}

/// Two sources of one flow.
pub(crate) struct Companion<'a> {
    pub(crate) office: &'a str,
    pub(crate) companion: &'a str,
    pub(crate) may_be_empty: bool,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) report: Value,
    pub(crate) said: String,
}

impl Ended {
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    fn is_complete(&self) -> bool {
        self.status.code() == Some(0)
    }
}

impl Bench {
    /// A new project; its first day is loaded once, and cases begin with it or with nothing.
    pub(crate) fn new(program: &Path, size: u32) -> Result<Self> {
        let service = Service::start()?;
        let program = fs_err::canonicalize(program)?;
        let mut bench = Self { dir: tempfile::tempdir()?, program, service, size, day: 0, created: 0 };
        fs_err::create_dir_all(bench.path("flows"))?;
        fs_err::write(bench.path("flowgate.yaml"), bench.project())?;
        bench.set_select(None)?;
        fs_err::create_dir_all(bench.path("saved/empty"))?;
        bench.service.control("snapshot", &json!({ "name": "empty" }))?;
        bench.next_day()?;
        let first = bench.run(None)?;
        ensure!(first.is_complete(), "the first day does not load: {}", first.said);
        bench.service.control("snapshot", &json!({ "name": "first day" }))?;
        copy(&bench.path(".flowgate"), &bench.path("saved/first day"))?;
        Ok(bench)
    }

    fn project(&self) -> String {
        let ready = self.service.ready();
        format!(
            "flowgate: 1\nconnections:\n  files: {{ files: {{ path: offices.csv, format: csv }} }}\n  \
             more: {{ files: {{ path: more.csv, format: csv }} }}\n  crm:\n    dataverse:\n      \
             url: {}\n      time_scale: {TIME_SCALE:?}\n      credential: {{ client: {}, secret: \"{}\" }}\n",
            self.service.relay_url(),
            ready.client_id,
            ready.client_secret
        )
    }

    /// Changes what the flow selects, or puts back what it selects usually.
    pub(crate) fn set_select(&self, select: Option<&str>) -> Result<()> {
        Ok(fs_err::write(self.path("flows/offices.yaml"), format!("{FLOW}{}\n", select.unwrap_or(SELECT)))?)
    }

    /// Makes the flow deactivate what is gone, or delete it, which it does usually.
    pub(crate) fn set_missing(&self, missing: &str) -> Result<()> {
        let flow = FLOW.replace("missing: delete", &format!("missing: {missing}"));
        Ok(fs_err::write(self.path("flows/offices.yaml"), format!("{flow}{SELECT}\n"))?)
    }

    /// The rows of the source on the day.
    pub(crate) fn rows(&self) -> Rows {
        rows_of(self.size, self.day)
    }

    /// Puts other rows in place of the source's.
    pub(crate) fn set_source(&self, rows: &Rows) -> Result<()> {
        Ok(fs_err::write(self.path("offices.csv"), as_csv(rows))?)
    }

    /// Copies the state away, as a backup does.
    pub(crate) fn back_up(&self) -> Result<()> {
        let backup = self.path("backup");
        if backup.is_dir() {
            fs_err::remove_dir_all(&backup)?;
        }
        copy(&self.state_dir(), &backup)
    }

    /// Puts the backup back: over what is there, in place of it, or by moving it there.
    pub(crate) fn put_back(&self, way: &str) -> Result<()> {
        let (backup, state) = (self.path("backup"), self.state_dir());
        if way == "over" {
            // What the backup does not have is gone, as `rsync --delete` leaves it.
            for file in files(&state, "")? {
                let kept = backup.join(file.strip_prefix(&state)?);
                if !kept.is_file() {
                    fs_err::remove_file(file)?;
                }
            }
            return copy(&backup, &state);
        }
        fs_err::remove_dir_all(&state)?;
        match way {
            "moved" => Ok(fs_err::rename(&backup, &state)?),
            _ => copy(&backup, &state),
        }
    }

    /// Runs the flow; a refusal by one of these codes is answered by adopting, a failure by another run. Says how often
    /// it was refused.
    pub(crate) fn run_guarded(&self, codes: &[&str]) -> Result<u64> {
        let mut refusals = 0;
        let mut last = self.run(None)?;
        for _ in 0..RUNS_MAX {
            match last.status.code() {
                Some(0) => return Ok(refusals),
                Some(4) if codes.iter().any(|code| last.said.contains(code)) => {
                    ensure!(last.said.contains("--adopt"), "what helps is not named: {}", last.said);
                    refusals += 1;
                    last = self.run_with(&["run", FLOW_NAME, "--adopt", "--json"])?;
                }
                Some(1) => last = self.run(None)?,
                other => bail!("exit status {other:?}: {}", last.said),
            }
        }
        bail!("the run does not end: {}", last.said)
    }

    /// Compares the destination with these rows, whatever was created on the way, and runs once more: nothing to do.
    pub(crate) fn finish_with(&self, rows: &Rows) -> Result<()> {
        self.compare_with(rows)?;
        let again = self.run(None)?;
        ensure!(again.is_complete(), "a further run fails: {}", again.said);
        ensure!(again.report["rows"]["unchanged"] == rows.len(), "a further run finds work: {}", again.report["rows"]);
        self.compare_with(rows)
    }

    pub(crate) fn compare_with(&self, rows: &Rows) -> Result<()> {
        let different = differences(&self.service.rows()?, rows);
        ensure!(different.is_empty(), "{}", different.join("; "));
        Ok(())
    }

    /// As [`Self::compare_with`]; rows beside these may be there too.
    pub(crate) fn compare_among(&self, rows: &Rows) -> Result<()> {
        let mut found = self.service.rows()?;
        found.retain(|key, _| rows.contains_key(key));
        let different = differences(&found, rows);
        ensure!(different.is_empty(), "{}", different.join("; "));
        Ok(())
    }

    /// Runs the flow in a process whose files may not grow beyond so many blocks of 512 bytes: what it writes behind
    /// that fails, whoever writes it.
    pub(crate) fn run_with_small_files(&self, blocks: u64) -> Result<Ended> {
        let mut command = Command::new("bash");
        let script = "set -o posix; trap '' XFSZ; ulimit -f \"$0\" && exec \"$@\"";
        command.args(["-c", script, &blocks.to_string()]).arg(&self.program).args(["run", FLOW_NAME, "--json"]);
        command.current_dir(self.dir.path()).env_remove("FLOWGATE_LOG").stdin(Stdio::null());
        ended(&command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?)
    }

    /// Lets the flow read two streams, until `set_select` puts it back.
    pub(crate) fn set_companions(&self, select: &str, companion: &Companion<'_>) -> Result<()> {
        let stream = |from: &str| {
            format!("{{ from: {from}, key: [code], deletes: seen, may_be_empty: {} }}", companion.may_be_empty)
        };
        let streams = format!("  office: {}\n  companion: {}\n", stream("files"), stream("more"));
        let flow = FLOW.replace("  office: { from: files, key: [code], deletes: seen }\n", &streams);
        fs_err::write(self.path("flows/offices.yaml"), format!("{flow}\"{select}\"\n"))?;
        fs_err::write(self.path("offices.csv"), companion.office)?;
        Ok(fs_err::write(self.path("more.csv"), companion.companion)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Files of local state whose name ends so.
    pub(crate) fn state_files(&self, ending: &str) -> Result<Vec<PathBuf>> {
        files(&self.state_dir(), ending)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path(".flowgate")
    }

    /// Begins a case: the first day over nothing, or the second over the first.
    pub(crate) fn begin(&mut self, day: u32) -> Result<()> {
        let name = if day == 1 { "empty" } else { "first day" };
        self.service.control("faults", &json!([]))?;
        self.service.control("settings", &json!({ "token_life_s": 3599.0 }))?;
        self.service.control("restore", &json!({ "name": name }))?;
        self.set_missing("delete")?;
        let state = self.path(".flowgate");
        if state.is_dir() {
            fs_err::remove_dir_all(&state)?;
        }
        copy(&self.path(&format!("saved/{name}")), &state)?;
        self.created = self.service.created()?;
        self.day = day - 1;
        self.next_day()
    }

    /// Replaces the source by that of the next day.
    pub(crate) fn next_day(&mut self) -> Result<()> {
        let before = if self.day == 0 { Rows::new() } else { rows_of(self.size, self.day) };
        self.day += 1;
        let rows = rows_of(self.size, self.day);
        self.created += rows.keys().filter(|key| !before.contains_key(*key)).count() as u64;
        Ok(fs_err::write(self.path("offices.csv"), as_csv(&rows))?)
    }

    /// Runs the flow to its end, with a failpoint armed.
    pub(crate) fn run(&self, failpoint: Option<&str>) -> Result<Ended> {
        ended(&self.command(failpoint, &["run", "offices", "--json"]).output()?)
    }

    pub(crate) fn run_with(&self, arguments: &[&str]) -> Result<Ended> {
        ended(&self.command(None, arguments).output()?)
    }

    /// Runs the flow and kills it once a fault rule of the service has hit; says whether one had.
    pub(crate) fn run_and_kill_at_hit(&self, after: Duration) -> Result<bool> {
        let mut child = self.spawn()?;
        let has_hit = self.wait_for_hit(&mut child)?;
        std::thread::sleep(after);
        child.kill()?;
        Ok(has_hit && child.wait()?.signal() == Some(9))
    }

    /// Waits until a fault rule of the service has hit, or the run is over.
    pub(crate) fn wait_for_hit(&self, child: &mut Child) -> Result<bool> {
        for _ in 0..LOOKS_MAX {
            if self.service.hits()? > 0 {
                return Ok(true);
            }
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        bail!("the run neither sends nor ends")
    }

    /// Starts a run and leaves it alone.
    pub(crate) fn spawn(&self) -> Result<Child> {
        Ok(self.command(None, &["run", "offices", "--json"]).spawn()?)
    }

    fn command(&self, failpoint: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.dir.path()).args(arguments).env_remove("FLOWGATE_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(failpoint) = failpoint {
            command.env("FLOWGATE_FAILPOINT", failpoint);
        }
        command
    }

    /// The fault is over: runs until complete.
    pub(crate) fn complete(&self) -> Result<Ended> {
        self.service.control("faults", &json!([]))?;
        let mut last = self.run(None)?;
        for _ in 1..RUNS_MAX {
            if last.is_complete() {
                break;
            }
            last = self.run(None)?;
        }
        ensure!(last.is_complete(), "the run does not end: {}", last.said);
        let rows = &last.report["rows"];
        ensure!(rows["pending"] == 0 && rows["gone_pending"] == 0, "rows are pending: {rows}");
        Ok(last)
    }

    /// Runs until complete, then compares the destination with the source, and runs once more: nothing to do.
    pub(crate) fn finish(&self) -> Result<()> {
        self.complete()?;
        self.compare()?;
        let again = self.run(None)?;
        ensure!(again.is_complete(), "a further run fails: {}", again.said);
        ensure!(again.report["rows"]["unchanged"] == self.size, "a further run finds work: {}", again.report["rows"]);
        self.compare()
    }

    /// Compares the destination with the source, and the rows ever created there with the keys ever seen.
    pub(crate) fn compare(&self) -> Result<()> {
        let different = differences(&self.service.rows()?, &rows_of(self.size, self.day));
        if !different.is_empty() {
            bail!("{}", different.join("; "));
        }
        let created = self.service.created()?;
        ensure!(created == self.created, "{created} rows were created there, and {} keys were new", self.created);
        Ok(())
    }
}

pub(crate) fn ended(output: &Output) -> Result<Ended> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = match output.stdout.as_slice() {
        [] => Value::Null,
        text => serde_json::from_slice(text).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(text)))?,
    };
    Ok(Ended { status: output.status, report, said })
}

/// Files below `dir` whose name ends so, sorted.
pub(crate) fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs_err::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
