//! A project in a directory of its own, and the binary run in it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use flowgate_core::Secret;
use flowgate_http::{HttpClient, HttpOptions, Origin, Request};
use serde_json::Value;
use tempfile::TempDir;

/// What `flowgate` said, and how it ended.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: i32,
}

impl Said {
    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.trim_end().lines().count(), 1, "one line of JSON: {}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    /// Everything, in a form that is the same on every machine and at every time.
    pub(crate) fn everything(&self) -> String {
        format!("status {}\n--- standard output\n{}--- standard error\n{}", self.status, self.out, self.err)
    }
}

/// A directory with a project in it.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty directory.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// What `flowgate init` writes.
    pub(crate) fn new_project() -> Self {
        let place = Self::empty();
        let said = run_in(Path::new("."), &["init", place.path().to_str().unwrap()]);
        assert_eq!(said.status, 0, "{}", said.err);
        place
    }

    /// A copy of a project, without what running it left there.
    pub(crate) fn copy_of(project: &Path) -> Self {
        let place = Self::empty();
        for entry in ["flowgate.yaml", "data", "environments", "flows", "tables"] {
            let status = Command::new("cp").arg("-r").arg(project.join(entry)).arg(place.path()).status();
            assert!(status.unwrap().success(), "{entry}");
        }
        place
    }

    pub(crate) fn unpack(&self, from: &str, to: &str) {
        let mut packed = flate2::read::GzDecoder::new(fs_err::File::open(self.file(from)).unwrap());
        self.write(to, "");
        std::io::copy(&mut packed, &mut fs_err::File::create(self.file(to)).unwrap()).unwrap();
    }

    /// The new project, its alternate key provisioned.
    pub(crate) fn provisioned() -> Self {
        let place = Self::new_project();
        let said = place.flowgate(&["provision", "--yes"]);
        assert_eq!(said.status, 0, "{}", said.err);
        place
    }

    /// A project whose rows and emulator are such that a run takes a while.
    pub(crate) fn slow(rows: usize) -> Self {
        let place = Self::new_project();
        let settings = "emulator: { profile: realistic, time_scale: 2.0 }";
        place.change("flowgate.yaml", "emulator: {}", settings);
        place.change("flows/offices.yaml", "guards: { create_max: 1000 }", "guards: { create_max: 1000000 }");
        place.write("data/offices.csv", &offices(rows, "Office"));
        let said = place.flowgate(&["provision", "--yes"]);
        assert_eq!(said.status, 0, "{}", said.err);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// Replaces `from`, which must be there, by `to`.
    pub(crate) fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs_err::read_to_string(self.file(name)).unwrap();
        assert!(text.contains(from), "no `{from}` in {name}");
        self.write(name, &text.replace(from, to));
    }

    pub(crate) fn flowgate(&self, arguments: &[&str]) -> Said {
        run_in(self.path(), arguments)
    }

    /// Starts the binary and returns at once.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        command(self.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `flowgate` on a disk of this size, then makes room and runs it again.
    pub(crate) fn on_a_small_disk(&self, kibibytes: usize, arguments: &[&str]) -> [Said; 2] {
        let mount = format!(
            "mkdir -p .flowgate/local && mount -t tmpfs -o size={kibibytes}k,mode=700 none .flowgate/local && \"$@\" >first.out 2>first.err; \
             echo $? >first.status; mount -o remount,size=400m .flowgate/local && exec \"$@\""
        );
        // A mount of its own, seen by nobody else; as root in a user namespace where we are not root.
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--map-root-user",
            "--user",
            "--mount",
            "sh",
            "-c",
            &mount,
            "sh",
            env!("CARGO_BIN_EXE_flowgate"),
        ]);
        let output = prepared(&mut unshare, self.path(), arguments).stdin(Stdio::null()).output().unwrap();
        let read = |name: &str| fs_err::read_to_string(self.file(name)).unwrap();
        let first = Said {
            out: read("first.out"),
            err: read("first.err"),
            status: read("first.status").trim().parse().unwrap(),
        };
        [first, said(output)]
    }

    /// An emulator beside the project, to which `crm` leads as to any environment.
    pub(crate) fn environment(&self, options: &[&str], time_scale: f64) -> UsedEmulator {
        let scale = time_scale.to_string();
        let arguments = [&["emulator", "--time-scale", &scale], options].concat();
        let mut process = self.spawn(&arguments);
        let ready: Value = serde_json::from_str(&first_line(&mut process)).unwrap();
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        self.write("secret", &text("client_secret"));
        let settings = format!(
            "url: {}\n      time_scale: {scale}\n      credential: {{ client: {}, secret: \"${{file:secret}}\", token_url: \"{}\" }}",
            text("url"),
            text("client_id"),
            text("token_url")
        );
        self.change("flowgate.yaml", "emulator: {}", &settings);
        UsedEmulator { ready, process: Some(process), _users: None }
    }

    /// Keeps the emulator that the next command starts, until what is returned goes.
    pub(crate) fn keep_emulator(&self) -> fs_err::File {
        let dir = self.file(".flowgate/emulator/crm");
        fs_err::create_dir_all(&dir).unwrap();
        let users = fs_err::File::create(dir.join("users.lock")).unwrap();
        users.file().lock_shared().unwrap();
        users
    }

    /// The project's emulator, used the way a command uses it.
    pub(crate) fn emulator(&self) -> UsedEmulator {
        let dir = self.file(".flowgate/emulator/crm");
        let users = fs_err::File::open(dir.join("users.lock")).unwrap();
        // While it stops this waits; before that, it keeps it from stopping.
        users.file().lock_shared().unwrap();
        if let Ok(text) = fs_err::read_to_string(dir.join("ready.json")) {
            let written: Value = serde_json::from_str(&text).unwrap();
            return UsedEmulator { ready: written["ready"].clone(), process: None, _users: Some(users) };
        }
        let data = dir.join("data");
        let mut process = self.spawn(&["emulator", "--data", data.to_str().unwrap()]);
        let ready: Value = serde_json::from_str(&first_line(&mut process)).unwrap();
        // Commands that come now share it.
        let written = serde_json::json!({ "ready": ready, "settings": {} });
        self.write(".flowgate/emulator/crm/ready.json", &written.to_string());
        UsedEmulator { ready, process: Some(process), _users: Some(users) }
    }

    /// The rows of `account` that have our key, as a plain client reads them: number and name, sorted.
    pub(crate) fn accounts(&self) -> Vec<String> {
        let emulator = self.emulator();
        let mut next = Some("api/data/v9.2/accounts?$select=accountnumber,name".to_owned());
        let mut rows = Vec::new();
        while let Some(address) = next {
            let page = emulator.send("GET", &address, "");
            for row in page["value"].as_array().unwrap() {
                if let Some(number) = row["accountnumber"].as_str() {
                    rows.push(format!("{number} {}", row["name"].as_str().unwrap_or_default()));
                }
            }
            next = page["@odata.nextLink"].as_str().map(str::to_owned);
        }
        rows.sort();
        rows
    }
}

pub(crate) struct UsedEmulator {
    pub(crate) ready: Value,
    process: Option<Child>,
    _users: Option<fs_err::File>,
}

impl UsedEmulator {
    /// Sends one request as a plain client, and returns the JSON of the answer, if it has any.
    pub(crate) fn send(&self, method: &str, address: &str, body: &str) -> Value {
        let base = url::Url::parse(self.ready["url"].as_str().unwrap()).unwrap();
        let origin = Origin::of(&base).unwrap();
        let client = HttpClient::new(HttpOptions::to(vec![origin.clone()])).unwrap();
        let mut request = Request::new(method.parse().unwrap(), base.join(address).unwrap());
        request.bearer = Some((Secret::new(self.ready["token"].as_str().unwrap()), origin));
        if !body.is_empty() {
            request.headers.insert("content-type", "application/json".parse().unwrap());
        }
        request.body = body.to_owned().into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(client.send(request)).unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
        if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() }
    }

    /// Makes the service misbehave.
    pub(crate) fn fault(&self, rules: &Value) {
        self.send("POST", "__emulator/faults", &rules.to_string());
    }
}

impl Drop for UsedEmulator {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

/// A CSV file of offices.
pub(crate) fn offices(rows: usize, name: &str) -> String {
    let head = "code,name,city,postcode,phone,opened\n".to_owned();
    let row = |row| format!("OF-{row:06},{name} {row},Bristol,BS1 4ND,0117 496 0101,1998-04-01\n");
    std::iter::once(head).chain((0..rows).map(row)).collect()
}

pub(crate) fn first_line(child: &mut Child) -> String {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

pub(crate) fn run_in(dir: &Path, arguments: &[&str]) -> Said {
    said(command(dir, arguments).stdin(Stdio::null()).output().unwrap())
}

fn said(output: Output) -> Said {
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap_or(-1),
    }
}

pub(crate) fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    prepared(&mut command, dir, arguments);
    command
}

fn prepared<'a>(command: &'a mut Command, dir: &Path, arguments: &[&str]) -> &'a mut Command {
    command.current_dir(dir).args(arguments).env_remove("FLOWGATE_LOG").env_remove("COLUMNS")
}

/// Filters for what differs from run to run.
pub(crate) fn stable<T>(place: &Place, test: impl FnOnce() -> T) -> T {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    // What is used of the limits, which a test of its own looks at.
    settings.add_filter(r"(?s)limits of crm .*?\n\n", "[LIMITS]\n\n");
    settings.add_filter(&regex_of(place.path()), "[DIR]");
    settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[RUN]");
    settings.add_filter(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "[ID]");
    settings.add_filter(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]");
    settings.add_filter(r"\b(\d+ min )?\d+(\.\d+)? s\b", "[S] s");
    settings.add_filter(r"\b\d+ requests?\b", "[N] requests");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[ADDRESS]");
    settings.add_filter(r"process \d+", "process [PID]");
    settings.bind(test)
}

fn regex_of(path: &Path) -> String {
    path.display().to_string().replace('.', r"\.")
}
