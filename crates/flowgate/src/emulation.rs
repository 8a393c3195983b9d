//! The emulator that stands behind `emulator: {}`: a process of its own, shared by the commands.
//!
//! It lives as long as any command uses it, and its rows stay in its directory:
//!
//! ```text
//! .flowgate/emulator/CONNECTION/
//!   users.lock   held shared by every command that uses it; the emulator ends when it gets it alone
//!   start.lock   held while one command looks whether it runs, and starts it
//!   ready.json   its address and secret (0600), while it runs
//!   data/        its rows        emulator.log   what it had to say
//! ```
//!
//! Locks are the operating system's, so a killed command frees its own. The process has a group of its
//! own: a Ctrl-C at the terminal stops the command, and the emulator answers until it has stopped.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flowgate_core::{Code, ConnectorError, ErrorKind, Secret};
use flowgate_files::NewFile;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const USERS_LOCK: &str = "users.lock";
const START_LOCK: &str = "start.lock";
const READY_FILE: &str = "ready.json";
const DATA_DIR: &str = "data";
const LOG_FILE: &str = "emulator.log";

/// How long a start may take: rows of earlier commands are read again.
const START_TIMEOUT: Duration = Duration::from_mins(2);
/// How often the emulator looks whether anyone uses it.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The line that `flowgate emulator` prints when it is ready.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ready {
    pub(crate) url: String,
    token_url: String,
    client_id: String,
    client_secret: Secret,
    /// A long-lived token for simple clients.
    pub(crate) token: Secret,
    pub(crate) ca_file: Option<String>,
    pub(crate) time_scale: f64,
}

/// An emulator that runs as long as this value lives.
#[derive(Debug)]
pub(crate) struct Emulation {
    pub(crate) ready: Ready,
    /// Held shared; closing it is what lets the emulator end.
    _users: fs_err::File,
}

/// Makes sure that the emulator of a connection runs. `settings` is the block `emulator:`.
pub(crate) async fn share(dir: &Path, project_dir: &Path, settings: &Value) -> Result<Emulation, ConnectorError> {
    flowgate_files::create_dir(dir).map_err(storage)?;
    let users = lock_file(dir, USERS_LOCK)?;
    let users = blocking(move || users.file().lock_shared().map(|()| users)).await?;
    let start = lock_file(dir, START_LOCK)?;
    let _start = blocking(move || start.file().lock().map(|()| start)).await?;
    let line = match running(dir, settings).await? {
        Some(line) => line,
        None => start_process(dir, project_dir, settings).await?,
    };
    let ready = read_ready(&line)?;
    Ok(Emulation { ready, _users: users })
}

impl Emulation {
    /// The settings of a Dataverse connection that leads to this emulator.
    pub(crate) fn settings(&self, written: &Value) -> Value {
        let ready = &self.ready;
        let mut settings = written.clone();
        if let Some(block) = settings.as_object_mut() {
            block.remove("emulator");
        }
        settings["url"] = json!(ready.url);
        settings["time_scale"] = json!(ready.time_scale);
        settings["credential"] = json!({
            "client": ready.client_id,
            "secret": ready.client_secret.expose(),
            "token_url": ready.token_url,
        });
        if let Some(ca_file) = &ready.ca_file {
            settings["ca_file"] = json!(ca_file);
        }
        settings
    }
}

/// The emulator's line, if it runs with the same settings.
async fn running(dir: &Path, settings: &Value) -> Result<Option<String>, ConnectorError> {
    let Ok(text) = fs_err::read_to_string(dir.join(READY_FILE)) else { return Ok(None) };
    let Ok(written) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
    let line = written["ready"].to_string();
    let Ok(ready) = serde_json::from_str::<Ready>(&line) else { return Ok(None) };
    // After a crash of the machine another program may listen there: it must not get our secret.
    if !flowgate_emulator::is_in_use(&dir.join(DATA_DIR)) || !answers(&ready.url).await {
        return Ok(None);
    }
    if written["settings"] != *settings {
        let message = format!("the emulator in `{}` runs with other settings for another command", dir.display());
        return Err(failed(message).hint("run again when that command has ended"));
    }
    Ok(Some(line))
}

async fn answers(url: &str) -> bool {
    let Some(address) = url::Url::parse(url).ok().and_then(|url| url.socket_addrs(|| None).ok()?.pop()) else {
        return false;
    };
    tokio::net::TcpStream::connect(address).await.is_ok()
}

async fn start_process(dir: &Path, project_dir: &Path, settings: &Value) -> Result<String, ConnectorError> {
    let program = std::env::current_exe().map_err(storage)?;
    let log = fs_err::File::create(dir.join(LOG_FILE)).map_err(storage)?;
    let mut command = tokio::process::Command::new(program);
    command.arg("emulator").arg("--data").arg(dir.join(DATA_DIR)).arg("--while-used").arg(dir.join(USERS_LOCK));
    command.args(arguments(project_dir, settings));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log.into_file())).process_group(0);
    let mut child = command.spawn().map_err(storage)?;
    let Some(output) = child.stdout.take() else { return Err(not_started(dir)) };
    let mut lines = BufReader::new(output).lines();
    let Ok(Ok(Some(line))) = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await else {
        return Err(not_started(dir));
    };
    let ready: Value = serde_json::from_str(&line).map_err(|_| not_started(dir))?;
    let written = json!({ "ready": ready, "settings": settings }).to_string();
    write_private(&dir.join(READY_FILE), &written).map_err(storage)?;
    Ok(line)
}

/// The block `emulator:` as options of the command.
fn arguments(project_dir: &Path, settings: &Value) -> Vec<String> {
    let mut arguments = Vec::new();
    for (key, option) in
        [("profile", "--profile"), ("time_scale", "--time-scale"), ("servers", "--servers"), ("seed", "--seed")]
    {
        match &settings[key] {
            Value::Null => {}
            Value::String(text) => arguments.extend([option.to_owned(), text.clone()]),
            other => arguments.extend([option.to_owned(), other.to_string()]),
        }
    }
    for (key, option) in [("schema", "--schema"), ("settings", "--settings")] {
        if let Some(file) = settings[key].as_str() {
            arguments.extend([option.to_owned(), project_dir.join(file).display().to_string()]);
        }
    }
    arguments
}

/// Completes when no command uses the emulator any more. The lock it returns must be held to the end
/// of the process: who comes meanwhile waits, and starts another.
pub(crate) async fn until_unused(users_lock: &Path) -> std::io::Result<fs_err::File> {
    let file = open_lock(users_lock)?;
    loop {
        match file.file().try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(LOOK_INTERVAL).await,
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    match fs_err::remove_file(users_lock.with_file_name(READY_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(file),
    }
}

fn lock_file(dir: &Path, name: &str) -> Result<fs_err::File, ConnectorError> {
    open_lock(&dir.join(name)).map_err(storage)
}

fn open_lock(path: &Path) -> std::io::Result<fs_err::File> {
    fs_err::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// Locks wait without an end; that must not hold up a thread that serves others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ConnectorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(storage),
        Err(error) => Err(failed("waiting for the emulator's lock failed").caused_by(error)),
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(text.as_bytes())?;
    file.name()
}

fn read_ready(line: &str) -> Result<Ready, ConnectorError> {
    serde_json::from_str(line)
        .map_err(|error| failed("the emulator said something else than its address").caused_by(error))
}

fn not_started(dir: &Path) -> ConnectorError {
    let log = dir.join(LOG_FILE);
    let said = fs_err::read_to_string(&log).unwrap_or_default();
    let error = failed("the emulator did not start").hint(format!("see `{}`", log.display()));
    match said.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => error.caused_by(line.to_owned()),
        None => error,
    }
}

fn failed(message: impl Into<String>) -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, Code::CONNECTION_FAILED, message)
}

fn storage(error: std::io::Error) -> ConnectorError {
    ConnectorError::new(ErrorKind::Resource, Code::STORAGE_FAILED, "the emulator's directory cannot be used")
        .caused_by(error)
}
