//! Secrets in every place where one can be written, be resolved to, or come back from: none is ever seen.
//!
//! Each is a word of its own that begins with `canary`. Every command that reads the project is run, also with `--json`
//! and with the most talkative log; then its output and all that it left in the state directory are searched.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::Place;

const CANARY: &str = "canary";

const COMMANDS: [&[&str]; 9] = [
    &["check"],
    &["check", "--json"],
    &["doctor"],
    &["doctor", "--json", "--log", "trace"],
    &["plan", "f"],
    &["run", "f", "--log", "trace"],
    &["run", "f", "--json"],
    &["status", "--json"],
    &["letters", "list", "--json"],
];

const FLOW: &str = "flow: f\nstreams:\n  x: { from: src }\nloads:\n  l:\n    into: crm\n    table: account\n    \
                    select: \"SELECT no AS accountnumber, name FROM x\"\n    match: [accountnumber]\n    driver: x\n";

const SOUND_CRM: &str = "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, \
                         credential: { client: a, secret: \"${env:SOUND}\", token_url: \"http://127.0.0.1:1/t\" } } }\n";
const SOUND_SRC: &str = "  src: { files: { path: data/x.csv } }\n";

fn project(connections: &str) -> Place {
    let place = Place::empty();
    place.write("flowgate.yaml", &format!("flowgate: 1\nconnections:\n{connections}"));
    place.write("flows/f.yaml", FLOW);
    place.write("environments/local.yaml", "provision: allow\n");
    place.write("data/x.csv", "no,name\nA,one\n");
    place
}

/// Runs every command and returns where a canary was seen.
fn seen(place: &Place, environment: &[(&str, &str)]) -> Vec<String> {
    let mut seen = Vec::new();
    for arguments in COMMANDS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
        command.current_dir(place.path()).args(arguments).env("SOUND", "sound-value").stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text).to_lowercase();
            if let Some(line) = text.lines().find(|line| line.contains(CANARY)) {
                seen.push(format!("`{}`: {line}", arguments.join(" ")));
            }
        }
    }
    search(&place.file(".flowgate"), &mut seen);
    seen
}

fn search(dir: &Path, seen: &mut Vec<String>) {
    let Ok(entries) = fs_err::read_dir(dir) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            search(&path, seen);
        } else if fs_err::read(&path)
            .is_ok_and(|bytes| bytes.windows(CANARY.len()).any(|text| text == CANARY.as_bytes()))
        {
            seen.push(path.display().to_string());
        }
    }
}

/// A connection with `REF` in place of one of its values.
const RESOLVED: [&str; 15] = [
    "  crm: { dataverse: { url: \"REF\", credential: { client: a, secret: b } } }\n",
    "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, organization: \"REF\", credential: { client: a, secret: b } } }\n",
    "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, credential: { client: \"REF\", secret: b, token_url: \"http://127.0.0.1:1/t\" } } }\n",
    "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, credential: { client: a, secret: \"REF\", token_url: \"http://127.0.0.1:1/t\" } } }\n",
    "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, credential: { client: a, secret: b, token_url: \"REF\" } } }\n",
    "  crm: { dataverse: { url: \"https://127.0.0.1:1\", time_scale: 1000, ca_file: \"REF\", credential: { client: a, secret: b, token_url: \"http://127.0.0.1:1/t\" } } }\n",
    "  crm: { dataverse: { url: \"https://REF/\", credential: { client: a, secret: b, token_url: \"http://127.0.0.1:1/t\" } } }\n",
    "  src: { files: { path: \"REF\" } }\n",
    "  src: { files: { path: \"data/REF/*.csv\" } }\n",
    "  src: { files: { path: data/x.csv, encoding: \"REF\" } }\n",
    "  src: { files: { path: data/x.csv, format: \"REF\" } }\n",
    "  src: { sqlite: { path: \"REF\" } }\n",
    "  src: { postgres: { url: \"REF\" } }\n",
    "  src: { postgres: { url: \"postgres://app:REF@127.0.0.1:1/x\" } }\n",
    "  src: { postgres: { url: \"postgres://127.0.0.1:1/x\", ca_file: \"REF\" } }\n",
];

/// The sound counterpart of a connection, so that the flow is whole.
fn whole(connection: &str) -> String {
    let other = if connection.starts_with("  crm") { SOUND_SRC } else { SOUND_CRM };
    format!("{connection}{other}")
}

#[test]
fn what_a_reference_resolves_to_is_never_seen() {
    let mut failures = Vec::new();
    for (number, connection) in RESOLVED.iter().enumerate() {
        let canary = format!("canary{number:02}-Zq/\"x@{}", "long".repeat(20));
        for reference in ["${env:PROBE}", "${file:secret.txt}"] {
            let place = project(&whole(&connection.replace("REF", reference)));
            place.write("secret.txt", &format!("{canary}\nand canary{number:02} on a line of its own\n"));
            let seen = seen(&place, &[("PROBE", &canary)]);
            failures.extend(seen.into_iter().map(|seen| format!("{connection}with {reference}: {seen}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Secrets that are written out, most of them beside a mistake that has the line shown.
const WRITTEN: [&str; 30] = [
    "  crm: canary01\n",
    "  crm: https://user:canary02@127.0.0.1/x\n",
    "  crm: postgres://user:can/ary@canary03@host/x\n",
    "  crm: [ canary04 ]\n",
    "  crm:\n    dataverse: { url: 5, credential: { client: a, secret: canary05 } }\n",
    "  crm:\n    dataverse: { urll: x, credential: { client: a, secret: canary06, tokn: 1 } }\n",
    "  crm:\n    dataverse:\n      credential:\n        secret: [canary07]\n",
    "  crm:\n    dataverse:\n      credential:\n        secret: { canary: canary08 }\n",
    "  crm:\n    dataverse:\n      credential:\n        secret: |\n          canary09\n         broken\n",
    "  crm:\n    dataverse:\n      credential: { client: a, secret: \"canary10\n",
    "  crm:\n    dataverse:\n      credential: { client: a, secrets: canary11 }\n",
    "  crm:\n    dataverse:\n      credential: { client: a, client_secret: canary12 }\n",
    "  crm:\n    dataverse:\n      credential: { client: a, password: canary13 }\n",
    "  crm:\n    dataverse: { url: \"https://user:canary14@127.0.0.1:1\", credential: { client: a, secret: b } }\n",
    "  crm:\n    dataverse: { url: \"https://127.0.0.1:1/?sig=canary15\", credential: { client: a, secret: b } }\n",
    "  crm:\n    dataverse: { url: \"ht!tps://u:canary16@x\", credential: { client: a, secret: b } }\n",
    "  crm:\n    dataverse: { url: \"https://127.0.0.1:1\", credential: { client: a, secret: b, token_url: \"https://u:canary17@x/?code=canary17\" } }\n",
    "  crm:\n    dataverse: { url: \"https://127.0.0.1:1\", credential: { client: a, secret: b, token_url: \"http://u:canary18@x.example/\" } }\n",
    "  src: { postgres: { url: \"postgres://app:canary19@127.0.0.1:1/x\" } }\n",
    "  src: { postgres: { url: \"postgres://app:can/ary@canary20@127.0.0.1:1/x\" } }\n",
    "  src: { postgres: { url: \"host=127.0.0.1 port=1 user=app password='canary21 with blanks'\" } }\n",
    "  src: { postgres: { url: \"host=127.0.0.1 port=1 user=app password=canary22\", schema: 5 } }\n",
    "  src: { postgres: { url: \"host=127.0.0.1 port=x password=canary23\" } }\n",
    "  src: { postgres: { url: \"postgres://app:canary24@127.0.0.1:1/x\", urls: 1 } }\n",
    "  src: { postgres: { url: 'postgres://app:canary25\"@127.0.0.1:1/x' } }\n",
    "  src: { postgres: \"postgres://app:canary26@127.0.0.1:1/x\" }\n",
    "  src: { postgrs: { url: \"postgres://app:canary27@127.0.0.1:1/x\" } }\n",
    "  src: { files: { path: \"https://x/?sv=1&sig=canary28&se=2\" } }\n",
    "  src: { sqlite: { path: data/x.sqlite, key: 1, password: canary29 } }\n",
    "  src: { sqlite: { path: data/x.sqlite }, files: { path: x, access_token: canary30 } }\n",
];

#[test]
fn what_is_written_out_is_never_seen() {
    let mut failures = Vec::new();
    for connection in WRITTEN {
        let seen = seen(&project(&whole(connection)), &[]);
        failures.extend(seen.into_iter().map(|seen| format!("{connection}{seen}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Answers every request with what was sent to it, as the description of an error.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 16 << 10];
            let read = stream.read(&mut request).unwrap_or_default();
            let sent = String::from_utf8_lossy(&request[..read]).replace(['\r', '\n', '"'], " ");
            let body = format!("{{\"error\":\"invalid_client\",\"error_description\":\"{sent}\"}}");
            let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
            // Whoever is not there any more has heard enough.
            let _gone = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    port
}

#[test]
fn what_a_sign_in_page_repeats_is_never_seen() {
    let port = echo();
    for secret in ["canary50", "canary51~/+=&x%20", "canary52\"quoted"] {
        let connection = format!(
            "  crm: {{ dataverse: {{ url: \"http://127.0.0.1:{port}\", time_scale: 1000, credential: {{ client: a, secret: \
             \"${{env:PROBE}}\", token_url: \"http://127.0.0.1:{port}/t\" }} }} }}\n"
        );
        let seen = seen(&project(&whole(&connection)), &[("PROBE", secret)]);
        assert!(seen.is_empty(), "{secret}: {}", seen.join("\n"));
    }
}
