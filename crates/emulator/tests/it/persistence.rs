//! The real binary, killed while it writes; and what else happens to a whole environment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use flowgate_emulator::Ready;
use reqwest::Client;
use serde_json::{Value as Json, json};

use crate::support::{client, send, targets, world};

const ROUNDS: usize = 12;
const ROWS: usize = 40;

struct Process {
    child: Child,
    ready: Ready,
}

impl Process {
    fn start(directory: &std::path::Path) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate-emulator"));
        let mut child = command.arg("--data").arg(directory).stdout(Stdio::piped()).spawn().expect("test support");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("test support")).read_line(&mut line).expect("test support");
        Process { child, ready: serde_json::from_str(&line).expect("test support") }
    }

    fn kill(mut self) {
        // SIGKILL: nothing is flushed, nothing is closed.
        self.child.kill().expect("test support");
        self.child.wait().expect("test support");
    }
}

async fn ids(client: &Client, ready: &Ready) -> Vec<String> {
    let mut link = format!("{}/api/data/v9.2/accounts?$select=name", ready.url);
    let mut ids = Vec::new();
    loop {
        let page = send(client.get(&link).bearer_auth(&ready.token)).await.expect(200).json();
        let rows = page["value"].as_array().expect("test support");
        ids.extend(rows.iter().map(|row| row["accountid"].as_str().expect("test support").to_owned()));
        match page["@odata.nextLink"].as_str() {
            Some(next) => next.clone_into(&mut link),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_9_and_nothing_is_half_there() {
    let directory = tempfile::tempdir().unwrap();
    let client = client();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut version = 0;
    for round in 0..ROUNDS {
        let process = Process::start(directory.path());
        let kept = ids(&client, &process.ready).await;
        assert!(kept.len().is_multiple_of(ROWS), "round {round}: {} rows, a message was torn", kept.len());
        let missing = acknowledged.iter().find(|id| !kept.contains(id));
        assert_eq!(missing, None, "round {round}: an answered row is gone");
        let stats: Json = send(client.get(format!("{}/__emulator/stats", process.ready.url))).await.json();
        let now = stats["version"].as_u64().unwrap();
        assert!(now >= version, "round {round}: the version went back");
        version = now;

        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (client, ready) = (client.clone(), process.ready.clone());
            writers.spawn(async move { write(&client, &ready, round, writer).await });
        }
        // Killed in the middle: as soon as some have been answered, the others being under way.
        for _ in 0..=(round % 3) {
            acknowledged.extend(writers.join_next().await.unwrap().unwrap());
        }
        process.kill();
        while let Some(written) = writers.join_next().await {
            acknowledged.extend(written.unwrap());
        }
    }
    assert!(acknowledged.len() >= ROUNDS * ROWS);
}

/// Ids of one bulk message, if it was answered.
async fn write(client: &Client, ready: &Ready, round: usize, writer: usize) -> Vec<String> {
    let rows = (0..ROWS).map(|n| json!({ "name": format!("{round} {writer} {n}") })).collect();
    let url = format!("{}/api/data/v9.2/accounts/Microsoft.Dynamics.CRM.CreateMultiple", ready.url);
    let request = client.post(url).bearer_auth(&ready.token).json(&targets("account", rows));
    let Ok(answer) = request.send().await else { return Vec::new() };
    let Ok(body) = answer.json::<Json>().await else { return Vec::new() };
    body["Ids"]
        .as_array()
        .expect("test support")
        .iter()
        .map(|id| id.as_str().expect("test support").to_owned())
        .collect()
}

#[tokio::test]
async fn the_binary_says_why_it_cannot_start() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_flowgate-emulator")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(&["--profile", "quick"]);
    assert_eq!(status, Some(2));
    assert!(said.contains("realistic"), "{said}");
    let (status, said) = run(&["--schema", "/nowhere/tables.yaml"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("/nowhere/tables.yaml"), "{said}");
    assert_eq!(run(&["--time-scale", "0.5"]).0, Some(2));
    assert_eq!(run(&["--listen", "here"]).0, Some(2));
}

fn refusal_to_start(directory: &std::path::Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate-emulator"));
    let output = command.arg("--data").arg(directory).output().expect("test support");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no ready line");
    String::from_utf8(output.stderr).expect("test support")
}

#[tokio::test]
async fn a_second_process_does_not_share_a_directory_and_one_after_a_kill_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = Process::start(directory.path());
    let said = refusal_to_start(directory.path());
    assert!(said.contains(&directory.path().display().to_string()), "{said}");
    assert!(said.contains(&format!("in use by process {}", first.child.id())), "{said}");
    let rows = write(&client(), &first.ready, 0, 0).await;
    assert_eq!(rows.len(), ROWS);
    first.kill();
    let second = Process::start(directory.path());
    assert_eq!(ids(&client(), &second.ready).await.len(), ROWS);
    second.kill();
}

#[tokio::test]
async fn damage_in_the_log_is_refused_by_name_and_a_torn_tail_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("emulator.log");
    let process = Process::start(directory.path());
    // What stands in the file at the start is the starting environment; the rows follow it.
    let start = fs_err::metadata(&log).unwrap().len();
    for writer in 0..3 {
        write(&client(), &process.ready, 0, writer).await;
    }
    process.kill();
    let whole = fs_err::read(&log).unwrap();
    for place in
        [start as usize + 1, start as usize + 20, usize::midpoint(start as usize, whole.len()), whole.len() - 1]
    {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs_err::write(&log, &damaged).unwrap();
        let said = refusal_to_start(directory.path());
        assert!(said.contains("emulator.log` is damaged at byte "), "{place}: {said}");
        assert_eq!(fs_err::read(&log).unwrap(), damaged, "what is damaged is left as it is");
    }
    fs_err::write(&log, &whole[..whole.len() - 1]).unwrap();
    let process = Process::start(directory.path());
    assert_eq!(
        ids(&client(), &process.ready).await.len(),
        2 * ROWS,
        "the record that lost its end is gone, the others are there"
    );
    process.kill();
}

#[tokio::test]
async fn a_copy_has_the_same_rows_and_another_organisation() {
    let world = world().await;
    let id = world.post("accounts", &json!({ "name": "kept" })).await.expect(204).id();
    let before = world.get("WhoAmI").await.json()["OrganizationId"].clone();
    let copied = world.control("copy", &json!({})).await.json()["organization"].clone();
    assert_ne!(copied, before);
    assert_eq!(world.get("WhoAmI").await.json()["OrganizationId"], copied);
    let rows = world.get("organizations?$select=name").await.json();
    assert_eq!(rows["value"].as_array().unwrap().len(), 1);
    assert_eq!(rows["value"][0]["organizationid"], copied);
    world.get(&format!("accounts({id})?$select=name")).await.expect(200);
    world.control("reset", &json!({})).await;
    assert_eq!(world.get("WhoAmI").await.json()["OrganizationId"], before);
}

#[tokio::test]
async fn administration_mode_refuses_everybody_until_it_ends() {
    let world = world().await;
    world.control("settings", &json!({ "administration_mode": true })).await;
    let refused = world.get("WhoAmI").await;
    assert!(refused.status.is_client_error() || refused.status.is_server_error());
    assert_eq!(refused.code().to_lowercase(), "0x8004a104");
    world.control("settings", &json!({ "administration_mode": false })).await;
    world.get("WhoAmI").await.expect(200);
}

#[tokio::test]
async fn the_page_for_people_shows_what_happened() {
    let world = world().await;
    let name = "<script>alert(1)</script>";
    world.post("accounts", &json!({ "name": name, "accountnumber": "C-1" })).await.expect(204);
    world.get("nothings").await.expect(404);
    world.control("faults", &json!([{ "match": { "op": "Delete" }, "do": "html" }])).await;
    let page = |path: &str| send(world.client.get(format!("{}/__emulator{path}", world.root)));
    let overview = page("/").await.expect(200);
    assert!(overview.header("content-type").starts_with("text/html"));
    for text in ["/__emulator/tables/account", "GET nothings", "server ", "no limit", "&quot;do&quot;:&quot;html&quot;"]
    {
        assert!(overview.text.contains(text), "`{text}` is not in {}", overview.text);
    }
    let rows = page("/tables/account").await.expect(200);
    assert!(rows.text.contains("&lt;script&gt;alert(1)") && !rows.text.contains(name));
    assert!(rows.text.contains("C-1"));
    page("/tables/nothing").await.expect(404);
    assert!(!overview.text.contains("https://"), "a page loads something from elsewhere");
}
