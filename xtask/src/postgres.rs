//! A PostgreSQL server of our own for the time of the tests.
//!
//! It listens on loopback at a free port, keeps its data in a private temporary directory, never runs
//! as root (PostgreSQL refuses that: `nobody` takes its place), and ends when this program ends, however
//! that happens. Any database of the machine stays untouched.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::needs;
use crate::workspace::{Workspace, run, succeeds};

/// Tests find the server's address here.
pub(crate) const URL_VARIABLE: &str = "FLOWGATE_TEST_POSTGRES_URL";

const USER: &str = "flowgate";
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Server {
    process: Child,
    port: u16,
    // Dropped after the process has ended.
    _dir: TempDir,
}

impl Server {
    pub(crate) fn start(workspace: &Workspace) -> Result<Self> {
        let programs = find_programs().context("no PostgreSQL server on this machine")?;
        let dir = tempfile::Builder::new().prefix("flowgate-postgres-").tempdir()?;
        let is_root = needs::is_root(workspace)?;
        if is_root {
            run(Command::new("chown").arg("nobody").arg(dir.path()))?;
        }
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        initialize(&programs, &data, is_root)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut process = unprivileged(&programs.join("postgres"), is_root)
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={port}")])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(fs_err::File::create(&log)?.into_parts().0)
            .spawn()?;
        let ready = wait_until_ready(&log, &mut process);
        let server = Self { process, port, _dir: dir };
        ready.with_context(|| fs_err::read_to_string(log).unwrap_or_default())?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown: it ends its own children too.
        let asked = succeeds(Command::new("kill").args(["-INT", &self.process.id().to_string()]));
        if !asked || self.process.wait().is_err() {
            self.process.kill().ok();
        }
    }
}

/// The directory of `postgres` and `initdb`. Debian keeps them outside the search path.
pub(crate) fn find_programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<PathBuf> =
        fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin")).collect();
    versions.sort();
    dirs.extend(versions.into_iter().rev());
    dirs.into_iter().find(|dir| ["postgres", "initdb"].iter().all(|name| dir.join(name).is_file()))
}

fn initialize(programs: &Path, data: &Path, is_root: bool) -> Result<()> {
    let mut command = unprivileged(&programs.join("initdb"), is_root);
    command.arg("-D").arg(data).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
    run(command.current_dir("/").stdout(Stdio::null()))
}

/// A program that never runs as root and ends together with this one.
fn unprivileged(program: &Path, is_root: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if is_root {
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    }
    command.arg(program);
    command
}

/// The server says in its log when it accepts connections; it listens before that.
fn wait_until_ready(log: &Path, process: &mut Child) -> Result<()> {
    let mut waited = Duration::ZERO;
    while waited < STARTS_WITHIN {
        if fs_err::read_to_string(log)?.contains("ready to accept connections") {
            return Ok(());
        }
        if let Some(status) = process.try_wait()? {
            bail!("PostgreSQL did not start ({status})");
        }
        std::thread::sleep(ASK_EVERY);
        waited += ASK_EVERY;
    }
    bail!("PostgreSQL did not start within {} s", STARTS_WITHIN.as_secs())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_server_ends_with_its_owner() {
        let server = Server::start(&Workspace::find().unwrap()).unwrap();
        let port = server.port;
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        drop(server);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
