//! What the real service was recorded to answer: one file each in `tests/recorded`.
//!
//! A file holds a request, what the answer must be, and where it was recorded. A value is exact, or
//! `{"contains": text or list}`, `{"matches": pattern}`, `{"present": true}`, `{"repeated": n}`; what is not named
//! is not judged. Where a request takes something that must be there first, `prepare` makes it, by the name of the
//! file; a file without an entry there is sent as it stands.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::support::{Reply, World, send, world};

#[derive(Deserialize)]
struct Recording {
    name: String,
    request: Recorded,
    expected: Expected,
    source: Vec<String>,
}

#[derive(Deserialize)]
struct Recorded {
    method: String,
    path: String,
    #[serde(default)]
    headers: Map<String, Json>,
    body: Option<Json>,
}

#[derive(Deserialize)]
struct Expected {
    status: Option<u16>,
    #[serde(default)]
    headers: Map<String, Json>,
    body: Option<Json>,
    #[serde(default)]
    parts: Vec<Json>,
}

/// What a request needs beside what its file says.
#[derive(Default)]
struct Prepared {
    /// Texts of the file and what they stand for here.
    known: Vec<(&'static str, String)>,
    /// The body, where the file describes it in words.
    raw: Option<(&'static str, String)>,
    token: Option<String>,
    send_twice: bool,
}

const LF_BATCH: &str = "--b\nContent-Type: application/http\n\nPOST accounts HTTP/1.1\nContent-Type: application/json\n\n{\"name\":\"a\"}\n--b--";

async fn prepare(world: &World, name: &str) -> Prepared {
    let account = json!({ "name": "there", "accountnumber": "K-1" });
    let row = |id: String| Prepared { known: vec![("<id>", id.clone()), ("<existing>", id)], ..Prepared::default() };
    let multipart = |body: String| Prepared { raw: Some(("multipart/mixed; boundary=b", body)), ..Prepared::default() };
    match name {
        "alternate-key-violation" | "alternate-key-get-missing" => {
            world.key("account", "wr_NumberKey", &["accountnumber"]).await;
            world.post("accounts", &account).await.expect(204);
            Prepared { known: vec![("<existing key>", "k-1 ".to_owned())], ..Prepared::default() }
        }
        "create-with-taken-id" | "lookup-value-null-refused" | "null-bind-clears" => {
            row(world.post("accounts", &account).await.expect(204).id())
        }
        "app-user-missing" => {
            // A token for an application that is no user of the environment.
            let ready = world.emulator.ready();
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", "00000000-0000-4000-8000-00000000beef"),
                ("client_secret", &ready.client_secret),
                ("scope", &format!("{}/.default", ready.url)),
            ];
            let body = form.map(|(name, value)| format!("{name}={value}")).join("&");
            let request = world.client.post(&ready.token_url).body(body);
            let token = send(request).await.expect(200).json()["access_token"].as_str().unwrap().to_owned();
            Prepared { token: Some(token), ..Prepared::default() }
        }
        "customization-lock-is-429" => {
            world.control("settings", &json!({ "publish_s": 60.0 })).await;
            let xml = "<importexportxml><entities><entity>account</entity></entities></importexportxml>";
            let body = json!({ "ParameterXml": xml }).to_string();
            Prepared { raw: Some(("application/json", body)), send_twice: true, ..Prepared::default() }
        }
        "fetchxml-paging-cookie" => {
            for name in ["one", "two"] {
                world.post("accounts", &json!({ "name": name })).await.expect(204);
            }
            let fetch = "<fetch count='1'><entity name='account'><attribute name='name'/></entity></fetch>";
            Prepared { known: vec![("<set>", "accounts".into()), ("<page of 1>", fetch.into())], ..Prepared::default() }
        }
        "tracking-not-enabled" => {
            let mut table = crate::support::table("wr_Untracked", "Untracked");
            table["ChangeTrackingEnabled"] = false.into();
            world.post("EntityDefinitions", &table).await.expect(204);
            Prepared {
                known: vec![("<untracked set>", "wr_untrackeds".into()), ("$select=x", "$select=wr_name".into())],
                ..Prepared::default()
            }
        }
        "batch-with-lf-line-ends" => multipart(LF_BATCH.to_owned()),
        "change-set-part-without-content-id" => multipart(
            crate::batches::change_set(&[("1", "POST accounts", "{\"name\":\"a\"}")])
                .replace("Content-ID: 1\n", "")
                .replace('\n', "\r\n")
                + "--b--\r\n",
        ),
        "change-set-failure-is-nested" => {
            let long = json!({ "name": "x".repeat(500) }).to_string();
            let creates = [
                ("1", "POST accounts", "{\"name\":\"a\"}"),
                ("2", "POST accounts", "{\"name\":\"b\"}"),
                ("3", "POST accounts", &long),
            ];
            multipart(crate::batches::change_set(&creates).replace('\n', "\r\n") + "--b--\r\n")
        }
        _ => Prepared::default(),
    }
}

fn filled(text: &str, prepared: &Prepared) -> String {
    prepared.known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

async fn answer(world: &World, recording: &Recording, prepared: &Prepared) -> Reply {
    let request = &recording.request;
    let method = Method::from_bytes(request.method.as_bytes()).expect("a method");
    let mut sent = world.client.request(method, format!("{}{}", world.root, filled(&request.path, prepared)));
    if request.headers.get("Authorization") != Some(&Json::Null) {
        let token = prepared.token.as_ref().unwrap_or(&world.emulator.ready().token);
        sent = sent.bearer_auth(token);
    }
    for (name, value) in request.headers.iter().filter(|(_, value)| value.is_string()) {
        sent = sent.header(name, value.as_str().expect("a text"));
    }
    sent = match (&prepared.raw, &request.body) {
        (Some((kind, body)), _) => sent.header("content-type", *kind).body(body.clone()),
        (None, Some(body)) => sent.header("content-type", "application/json").body(filled(&body.to_string(), prepared)),
        (None, None) => sent,
    };
    send(sent).await
}

/// Whether a value is as a file wants it; `None` is absent.
fn fits(wanted: &Json, found: Option<&str>, all: &[String]) -> bool {
    let Json::Object(rule) = wanted else {
        return found == Some(wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned).as_str());
    };
    rule.iter().all(|(rule, value)| match (rule.as_str(), value) {
        ("present", _) => found.is_some(),
        ("repeated", Json::Number(times)) => times.as_u64() == Some(all.len() as u64),
        ("contains", Json::String(text)) => all.iter().any(|found| found.contains(text.as_str())),
        ("contains", Json::Array(texts)) => {
            texts.iter().all(|text| all.iter().any(|found| found.contains(text.as_str().expect("a text"))))
        }
        ("matches", Json::String(pattern)) => found.is_some_and(|found| is_like(pattern, found)),
        _ => panic!("an unknown rule: {rule}"),
    })
}

/// The few patterns that the files use, each as the function that it is.
fn is_like(pattern: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        "^[0-9]+$" => digits(text),
        r"^[0-9]{1,3}(,[0-9]{3})*\.[0-9]{2}$" => {
            let Some((whole, fraction)) = text.split_once('.') else { return false };
            let mut groups = whole.split(',');
            let first = groups.next().unwrap_or_default();
            digits(first)
                && first.len() <= 3
                && groups.all(|group| digits(group) && group.len() == 3)
                && digits(fraction)
                && fraction.len() == 2
        }
        pattern if pattern.starts_with("^<cookie") => {
            let inner =
                text.strip_prefix("<cookie pagenumber=\"2\" pagingcookie=\"%253ccookie%2520page%253d%25221%2522%253e");
            inner.is_some_and(|inner| inner.ends_with("\" istracking=\"False\" />"))
        }
        r"^Entity \w+ isn't enabled for change tracking\.$" => {
            let name =
                text.strip_prefix("Entity ").and_then(|rest| rest.strip_suffix(" isn't enabled for change tracking."));
            name.is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            })
        }
        pattern if pattern.starts_with("^Bearer authorization_uri=https") => {
            let rest = text.strip_prefix("Bearer authorization_uri=http").unwrap_or_default();
            let Some((uri, resource)) = rest.split_once(", resource_id=http") else { return false };
            uri.ends_with("/oauth2/authorize")
                && !uri.contains(',')
                && resource.ends_with('/')
                && !resource.contains(',')
        }
        _ => panic!("an unknown pattern: {pattern}"),
    }
}

fn check_json(place: &str, wanted: &Json, found: Option<&Json>, problems: &mut Vec<String>) {
    let is_rule = |object: &Map<String, Json>| {
        object.keys().all(|key| matches!(key.as_str(), "contains" | "matches" | "present"))
    };
    match wanted {
        Json::Object(members) if !is_rule(members) => {
            for (name, wanted) in members {
                check_json(&format!("{place}/{name}"), wanted, found.and_then(|found| found.get(name)), problems);
            }
        }
        _ => {
            let text = found.map(|found| found.as_str().map_or_else(|| found.to_string(), str::to_owned));
            let all: Vec<String> = text.iter().cloned().collect();
            if !fits(wanted, text.as_deref(), &all) {
                problems.push(format!("{place} is {found:?}, not {wanted}"));
            }
        }
    }
}

fn check(recording: &Recording, reply: &Reply) -> Vec<String> {
    let expected = &recording.expected;
    let mut problems = Vec::new();
    if expected.status.is_some_and(|status| status != reply.status.as_u16()) {
        problems.push(format!("status {} instead of {:?}: {}", reply.status, expected.status, reply.text));
    }
    for (name, wanted) in &expected.headers {
        let all: Vec<String> = reply
            .headers
            .get_all(name.as_str())
            .iter()
            .map(|value| value.to_str().unwrap_or_default().to_owned())
            .collect();
        if !fits(wanted, all.first().map(String::as_str), &all) {
            problems.push(format!("header {name} is {all:?}, not {wanted}"));
        }
    }
    if let Some(body) = &expected.body {
        let found: Option<Json> = serde_json::from_str(&reply.text).ok();
        check_json("body", body, found.as_ref(), &mut problems);
    }
    for part in &expected.parts {
        check_part(part, &reply.text, &mut problems);
    }
    problems
}

fn check_part(part: &Json, text: &str, problems: &mut Vec<String>) {
    let mut wants = |text: &str, wanted: String| {
        if !text.contains(&wanted) {
            problems.push(format!("`{wanted}` is not in {text}"));
        }
    };
    wants(text, format!("HTTP/1.1 {} ", part["status"]));
    if let Some(around) = part["nested_in"].as_str() {
        wants(text, format!("Content-Type: multipart/mixed; boundary={around}_"));
    }
    if let Some(id) = part["content_id"].as_str() {
        wants(text, format!("Content-ID: {id}\r\n"));
    }
    for name in part["headers"].as_array().into_iter().flatten() {
        wants(text, format!("\r\n{}: ", name.as_str().expect("a name")));
    }
    let inner =
        text.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str::<Json>(line).ok());
    check_json("part", &part["body"], inner.as_ref(), problems);
}

#[tokio::test]
async fn the_service_answers_as_it_was_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut paths: Vec<_> = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut failures = Vec::new();
    for path in &paths {
        let text = fs_err::read_to_string(path).unwrap();
        let recording: Recording =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!recording.source.is_empty(), "{}", recording.name);
        let world = world().await;
        let prepared = prepare(&world, &recording.name).await;
        if prepared.send_twice {
            answer(&world, &recording, &prepared).await.expect(204);
        }
        let reply = answer(&world, &recording, &prepared).await;
        failures.extend(check(&recording, &reply).into_iter().map(|problem| format!("{}: {problem}", recording.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(paths.len() >= 22, "only {} files were found", paths.len());
}

#[tokio::test]
async fn where_recordings_differ_a_setting_gives_the_other() {
    let world = world().await;
    let missing = "accounts(00000000-0000-0000-0000-000000000001)";
    let world = &world;
    let set = |settings: Json| async move { world.control("settings", &settings).await };
    set(json!({ "missing_row_names_entity": false, "zero_error_codes": true, "limit_header_commas": false })).await;
    let older = world.get(missing).await.refused(404, "0x80040217");
    assert_eq!(older.message(), "account With Id = 00000000-0000-0000-0000-000000000001 Does Not Exist");
    world.get("accounts?$select=foo").await.refused(400, "0x0");
    world.post("accounts", &json!({ "foo": 1 })).await.refused(400, "0x0");
    world.control("limits", &json!({ "requests": 6000, "execution_ms": 1_200_000.0 })).await;
    let header = "x-ms-ratelimit-time-remaining-xrm-requests";
    assert_eq!(world.get("WhoAmI").await.header(header), "1200.00");
    set(json!({ "limit_header_commas": true, "strict_batch_end": false, "content_id_required": false })).await;
    assert_eq!(world.get("WhoAmI").await.header(header), "1,200.00");
    let batch = |body: String| {
        send(world.request(Method::POST, "$batch").header("content-type", "multipart/mixed; boundary=b").body(body))
    };
    batch(LF_BATCH.to_owned()).await.expect(200);
    let set_of_one =
        crate::batches::change_set(&[("1", "POST accounts", "{\"name\":\"a\"}")]).replace("Content-ID: 1\n", "");
    batch(set_of_one + "--b--").await.expect(200);
    let text_filter = "EntityDefinitions?$select=LogicalName&$filter=startswith(LogicalName,'a')";
    world.get(text_filter).await.refused(501, "0x8006088a");
    set(json!({ "definition_text_filter_status": 400 })).await;
    world.get(text_filter).await.refused(400, "0x8006088a");
}

#[tokio::test]
async fn names_that_nothing_answers_to_are_told_apart() {
    let world = world().await;
    // A mistyped set; an operation by the wrong method; one that is not here.
    world.get("Account").await.refused(404, "0x8006088a");
    world.get("account").await.refused(404, "0x8006088a");
    let wrong = world.post("WhoAmI", &json!({})).await.refused(404, "");
    assert_eq!(
        wrong.message(),
        format!("No HTTP resource was found that matches the request URI '{}/WhoAmI'.", world.base)
    );
    world.get("CloseIncident").await.refused(404, "");
    for call in ["RetrieveUserQueues()", "CalculatePrice", "RetrieveFoo(Bar=1)"] {
        let refused = world.get(call).await.expect(501);
        assert!(refused.message().contains(call.split('(').next().unwrap()), "{}", refused.text);
    }
    let action = world.post("QualifyLead", &json!({})).await.expect(501);
    assert!(action.message().contains("QualifyLead"));
}

/// An end of a batch is enough if two bytes follow the last boundary, whatever the lines before end in.
#[tokio::test]
async fn the_end_of_a_batch_decides_whether_its_contents_are_read() {
    let world = world().await;
    let ask = |body: String| {
        send(world.request(Method::POST, "$batch").header("content-type", "multipart/mixed; boundary=b").body(body))
    };
    for (end, status) in [("", 400), ("\n", 400), ("\n\n", 200), ("\r\n", 200), ("\r\n\r\n", 200), (" ", 400)] {
        for lines in ["\n", "\r\n"] {
            let reply = ask(LF_BATCH.replace('\n', lines) + end).await;
            assert_eq!(reply.status.as_u16(), status, "{end:?} {lines:?}: {}", reply.text);
        }
    }
    // What has no content is read all the same.
    let get = "--b\nContent-Type: application/http\n\nGET WhoAmI HTTP/1.1\n\n\n--b--";
    ask(get.to_owned()).await.expect(200);
}
