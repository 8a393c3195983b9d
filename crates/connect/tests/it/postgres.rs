//! A PostgreSQL server of the test's own: in a private directory, on a free loopback port, never as
//! root. It stops with the test.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A word that nothing printed may hold.
pub(crate) const PASSWORD: &str = "canary-Pa55word";
const PORTS_TRIED_MAX: usize = 5;

pub(crate) struct Postgres {
    child: Child,
    pub(crate) port: u16,
    // Removed after the server has stopped.
    _dir: TempDir,
}

impl Postgres {
    /// Starts a server. Missing programs are a failure: a suite that could not run has not passed.
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server that offers TLS, with this certificate and key as PEM.
    pub(crate) fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_with(Some((certificate, key)))
    }

    fn start_with(tls: Option<(&str, &str)>) -> Self {
        let programs = programs();
        let dir = tempfile::tempdir().unwrap();
        let user = user_below_root();
        let password_file = dir.path().join("password");
        fs_err::write(&password_file, PASSWORD).unwrap();
        if let Some(user) = &user {
            chown(dir.path(), Some(user.id), Some(user.group)).unwrap();
            chown(&password_file, Some(user.id), Some(user.group)).unwrap();
        }
        let data = dir.path().join("data");
        let output = command(user.as_ref(), &programs.join("initdb"), dir.path())
            .args(["--username=app", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg(format!("--pgdata={}", data.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        let tls_options = tls.map(|(certificate, key)| write_tls(dir.path(), user.as_ref(), certificate, key));
        for _ in 0..PORTS_TRIED_MAX {
            // Another process may take the port in between; then the next one is tried.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let server = command(user.as_ref(), &programs.join("postgres"), dir.path())
                .arg("-D")
                .arg(&data)
                .args(["-h", "127.0.0.1", "-k", "", "-F", "-p", &port.to_string()])
                .args(tls_options.iter().flatten())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            if let Some(child) = when_ready(server) {
                return Self { child, port, _dir: dir };
            }
        }
        panic!("PostgreSQL did not start on any of {PORTS_TRIED_MAX} ports");
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://app:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Fast shutdown; if the signal cannot be sent, the hard way.
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        if !interrupted.is_ok_and(|status| status.success()) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

/// Writes certificate and key where only the server may read them, and gives the options to use them.
fn write_tls(dir: &Path, user: Option<&User>, certificate: &str, key: &str) -> Vec<String> {
    let mut options = vec!["-c".to_owned(), "ssl=on".to_owned()];
    for (name, text) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
        let path = dir.join(name);
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = user {
            chown(&path, Some(user.id), Some(user.group)).unwrap();
        }
        options.extend(["-c".to_owned(), format!("{name}={}", path.display())]);
    }
    options
}

/// Waits for the server's word that it is ready; `None` if it gives up first.
fn when_ready(mut child: Child) -> Option<Child> {
    let mut lines = BufReader::new(child.stderr.take()?).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        if line.contains("ready to accept connections") {
            // Whatever it says later must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
            return Some(child);
        }
    }
    child.wait().ok();
    None
}

/// The directory that holds `initdb` and `postgres`.
fn programs() -> PathBuf {
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let versions = fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    let has_both = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    dirs.into_iter().find(has_both).expect(
        "PostgreSQL is not installed: `initdb` and `postgres` are neither in PATH nor below /usr/lib/postgresql; \
         `cargo xtask test --install` installs them",
    )
}

struct User {
    id: u32,
    group: u32,
}

/// PostgreSQL refuses to run as root: then a user without rights runs it.
fn user_below_root() -> Option<User> {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user = |name: &str| Some(User { id: id(&["-u", name])?, group: id(&["-g", name])? });
    Some(user("postgres").or_else(|| user("nobody")).expect("a user `postgres` or `nobody` to run PostgreSQL as"))
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn command(user: Option<&User>, program: &Path, dir: &Path) -> Command {
    let mut command = match user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={}", user.id), format!("--regid={}", user.group)]);
            command.args(["--clear-groups", "--pdeathsig=INT", "--"]).arg(program);
            command
        }
    };
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    command
}
