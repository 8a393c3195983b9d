//! Small projects after ways in which integrations go wrong, as data: `tests/situations/README.md` says how one is written.
//!
//! A kind is one test, so that two kinds run at once; a folder that no test runs fails `every_kind_is_run`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Deserialize;
use serde_json::Value;

use crate::support::Place;

/// `situation.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Situation {
    /// Read by people; it must be there.
    about: String,
    time_zone: Option<String>,
    steps: Vec<Step>,
}

/// One thing that is done or looked at; `status`, `says`, `never` belong to `flowgate`, and `are` to `rows`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    flowgate: Option<String>,
    status: i32,
    says: Vec<String>,
    never: Vec<String>,
    copy: BTreeMap<String, String>,
    remove: Vec<String>,
    sqlite: BTreeMap<String, String>,
    send: Option<(String, String, Value)>,
    rows: Option<String>,
    are: Vec<BTreeMap<String, Value>>,
}

macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),*];
        $(#[test]
        fn $kind() {
            play_all(stringify!($kind));
        })*
    };
}

kinds! {
    choices,
    csv,
    cursors,
    guards,
    identity,
    order,
    quarantine,
    references,
    restores,
    times,
}

#[test]
fn every_kind_is_run() {
    let mut folders: Vec<String> =
        folders_in(&folder()).iter().map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    folders.sort();
    assert_eq!(folders, KINDS);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/situations")
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Situations that are played at once: they wait more than they work.
const AT_ONCE: usize = 4;

/// Plays every situation of a kind, and tells of all that went otherwise.
fn play_all(kind: &str) {
    let situations = folders_in(&folder().join(kind));
    assert!(!situations.is_empty(), "no situation of the kind `{kind}`");
    let next = AtomicUsize::new(0);
    let play_some = || {
        let mut failures = Vec::new();
        while let Some(situation) = situations.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(play(situation).err().map(|error| format!("{}: {error}", situation.display())));
        }
        failures
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let players: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(play_some)).collect();
        players.into_iter().flat_map(|player| player.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn play(folder: &Path) -> Result<(), String> {
    let text = fs_err::read_to_string(folder.join("situation.yaml")).unwrap();
    let situation: Situation = serde_saphyr::from_str(&text).map_err(|error| format!("situation.yaml: {error}"))?;
    assert!(!situation.about.is_empty());
    let place = prepare(folder, situation.time_zone.as_deref().unwrap_or("UTC"));
    let _emulator = place.keep_emulator();
    if folder.join("tables").is_dir() {
        let said = place.flowgate(&["provision", "--yes"]);
        if said.status != 0 {
            return Err(format!("provision: {}", said.everything()));
        }
    }
    for (index, step) in situation.steps.iter().enumerate() {
        take(&place, step).map_err(|error| format!("step {}: {error}", index + 1))?;
    }
    Ok(())
}

/// A copy of the situation, with the files that most of them have alike.
fn prepare(folder: &Path, time_zone: &str) -> Place {
    let place = Place::empty();
    let copied = Command::new("cp").arg("-r").arg(folder.join(".")).arg(place.path()).status();
    assert!(copied.unwrap().success());
    let write_default = |name: &str, text: &str| {
        if !place.file(name).is_file() {
            place.write(name, text);
        }
    };
    write_default("environments/local.yaml", "provision: allow\n");
    write_default(
        "flowgate.yaml",
        &format!(
            "flowgate: 1\ntime_zone: {time_zone}\nconnections:\n  \
             crm: {{ dataverse: {{ emulator: {{}}, solution: agency_integration }} }}\n  \
             src: {{ files: {{ path: data/x.csv }} }}\n"
        ),
    );
    place
}

/// Does all that a step names.
fn take(place: &Place, step: &Step) -> Result<(), String> {
    for (from, to) in &step.copy {
        fs_err::copy(place.file(from), place.file(to)).unwrap();
    }
    step.remove.iter().for_each(|name| fs_err::remove_file(place.file(name)).unwrap());
    for (database, statements) in &step.sqlite {
        fs_err::create_dir_all(place.file(database).parent().unwrap()).unwrap();
        let statements = fs_err::read_to_string(place.file(statements)).unwrap();
        rusqlite::Connection::open(place.file(database)).unwrap().execute_batch(&statements).unwrap();
    }
    if let Some((method, address, body)) = &step.send {
        place.emulator().send(method, &format!("api/data/v9.2/{address}"), &body.to_string());
    }
    if let Some(arguments) = &step.flowgate {
        run_flowgate(place, arguments, step)?;
    }
    step.rows.as_ref().map_or(Ok(()), |address| compare_rows(place, address, &step.are))
}

fn run_flowgate(place: &Place, arguments: &str, step: &Step) -> Result<(), String> {
    let said = place.flowgate(&arguments.split_whitespace().collect::<Vec<_>>());
    let text = said.everything();
    if said.status != step.status {
        return Err(format!("`{arguments}` should end with {}:\n{text}", step.status));
    }
    if let Some(missing) = step.says.iter().find(|words| !text.contains(*words)) {
        return Err(format!("`{arguments}` does not say `{missing}`:\n{text}"));
    }
    match step.never.iter().find(|words| text.contains(*words)) {
        Some(found) => Err(format!("`{arguments}` says `{found}`:\n{text}")),
        None => Ok(()),
    }
}

fn compare_rows(place: &Place, address: &str, expected: &[BTreeMap<String, Value>]) -> Result<(), String> {
    let page = place.emulator().send("GET", &format!("api/data/v9.2/{address}"), "");
    let rows = page["value"].as_array().unwrap();
    let is_as_expected = rows.len() == expected.len()
        && rows
            .iter()
            .zip(expected)
            .all(|(row, expected)| expected.iter().all(|(column, value)| row[column] == *value));
    if is_as_expected { Ok(()) } else { Err(format!("expected {expected:#?}\nread {}", serde_json::json!(rows))) }
}
