//! Every example of the behaviour dossier, held as data: `tests/vectors/<section>.json`.
//!
//! A file is a list of steps against a fresh emulator, after the steps of `setup.json` unless it
//! says otherwise. A step sends a request and says what the answer must be: status, headers, a
//! JSON body whose given members must match, or texts that must occur. `{{name}}` stands for a
//! value kept from an earlier answer, `{{base}}` for the service root; in patterns `{{guid}}`,
//! `{{number}}`, `{{text}}` and `{{any}}` match what they say and `{{absent}}` that a member is
//! missing; `...` within a text matches anything. All failing steps are named at once.

use std::collections::HashMap;
use std::path::Path;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::support::{Reply, World, send, world};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "yes")]
    setup: bool,
    steps: Vec<Step>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    /// `METHOD path`, below the service root unless it begins with `/`.
    send: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    body: Option<Json>,
    /// A body that is not JSON, line by line.
    lines: Option<Vec<String>>,
    form: Option<String>,
    status: u16,
    code: Option<String>,
    #[serde(default)]
    answers: HashMap<String, String>,
    json: Option<Json>,
    /// Texts that occur in the body.
    #[serde(default)]
    contains: Vec<String>,
    /// Values kept under a name: a JSON pointer, `header NAME`, or `id` for the id in OData-EntityId.
    #[serde(default)]
    keep: HashMap<String, String>,
}

#[tokio::test]
async fn the_examples_of_the_dossier_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<_> = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let setup = read(&folder.join("setup.json"));
    let (mut failures, mut steps) = (Vec::new(), 0);
    for path in paths.iter().filter(|path| !path.ends_with("setup.json")) {
        let file = read(path);
        let world = world().await;
        let mut known =
            HashMap::from([("base".to_owned(), world.base.clone()), ("root".to_owned(), world.root.clone())]);
        let ready = world.emulator.ready();
        for (name, value) in [("tenant", &ready.tenant), ("client", &ready.client_id), ("secret", &ready.client_secret)]
        {
            known.insert(name.to_owned(), value.clone());
        }
        let before = if file.setup { setup.steps.as_slice() } else { &[] };
        for step in before.iter().chain(&file.steps) {
            steps += 1;
            if let Err(problem) = run(&world, step, &mut known).await {
                let file = path.file_stem().unwrap_or_default().to_string_lossy();
                failures.push(format!("{file}: {}: {problem}", step.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {steps} steps failed:\n{}", failures.len(), failures.join("\n"));
    assert!(steps > 300, "only {steps} steps were found");
}

fn read(path: &Path) -> File {
    let text = fs_err::read_to_string(path).expect("a readable file");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn run(world: &World, step: &Step, known: &mut HashMap<String, String>) -> Result<(), String> {
    let (method, path) = step.send.split_once(' ').ok_or("a step sends METHOD path")?;
    let path = filled(path, known);
    let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
    let mut request = match path.strip_prefix('/') {
        Some(rest) => world.client.request(method, format!("{}/{rest}", world.root)),
        None => world.request(method, &path),
    };
    for (name, value) in &step.headers {
        // The client adds no second header of a name, so that a step can take the token away.
        let value = filled(value, known).parse().map_err(|_| format!("`{value}` is no header"))?;
        let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        request = request.headers([(name, value)].into_iter().collect());
    }
    if let Some(body) = &step.body {
        request = request.header("content-type", "application/json").body(filled(&body.to_string(), known));
    }
    if let Some(lines) = &step.lines {
        request = request.body(filled(&lines.join("\r\n"), known));
    }
    if let Some(form) = &step.form {
        request = request.header("content-type", "application/x-www-form-urlencoded").body(filled(form, known));
    }
    let reply = send(request).await;
    check(step, &reply, known)?;
    for (name, place) in &step.keep {
        let value = match place.as_str() {
            "id" => reply.id(),
            place if place.starts_with("header ") => reply.header(&place["header ".len()..]).to_owned(),
            pointer => text_of(reply.json().pointer(pointer).ok_or_else(|| format!("nothing at {pointer}"))?),
        };
        known.insert(name.clone(), value);
    }
    Ok(())
}

fn check(step: &Step, reply: &Reply, known: &HashMap<String, String>) -> Result<(), String> {
    if reply.status.as_u16() != step.status {
        return Err(format!("status {} instead of {}: {}", reply.status.as_u16(), step.status, reply.text));
    }
    if let Some(code) = &step.code {
        let found = reply.code();
        if !found.eq_ignore_ascii_case(code) {
            return Err(format!("code {found} instead of {code}: {}", reply.text));
        }
    }
    for (name, pattern) in &step.answers {
        let found = reply.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        let matches = match &found {
            Some(found) => is_like(&filled(pattern, known), found),
            None => pattern == "{{absent}}",
        };
        if !matches {
            return Err(format!("header {name} is {found:?}, not {pattern}"));
        }
    }
    if let Some(pattern) = &step.json {
        let body: Json = serde_json::from_str(&reply.text).map_err(|error| format!("{error}: {}", reply.text))?;
        compare("", pattern, &body, known)?;
    }
    let missing = step.contains.iter().map(|text| filled(text, known)).find(|text| !reply.text.contains(text.as_str()));
    missing.map_or(Ok(()), |text| Err(format!("`{text}` does not occur in {}", reply.text)))
}

/// Whether the members of a pattern match; a body may have more.
fn compare(place: &str, pattern: &Json, found: &Json, known: &HashMap<String, String>) -> Result<(), String> {
    let differs = || Err(format!("{place} is {found}, not {pattern}"));
    match (pattern, found) {
        (Json::Object(pattern), Json::Object(found)) => {
            for (name, pattern) in pattern {
                let place = format!("{place}/{name}");
                match found.get(name) {
                    Some(found) => compare(&place, pattern, found, known)?,
                    None if pattern == "{{absent}}" => {}
                    None => return Err(format!("{place} is missing")),
                }
            }
            Ok(())
        }
        (Json::Array(pattern), Json::Array(items)) => {
            if pattern.len() != items.len() {
                return Err(format!("{place} has {} items, not {}: {found}", items.len(), pattern.len()));
            }
            let mut pairs = pattern.iter().zip(items).enumerate();
            pairs.try_for_each(|(index, (pattern, item))| compare(&format!("{place}/{index}"), pattern, item, known))
        }
        (Json::String(pattern), found) => {
            let matches = match pattern.as_str() {
                "{{any}}" => true,
                "{{number}}" => found.is_number(),
                "{{text}}" => found.is_string(),
                "{{guid}}" => found.as_str().is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()),
                pattern => found.as_str().is_some_and(|found| is_like(&filled(pattern, known), found)),
            };
            if matches { Ok(()) } else { differs() }
        }
        (Json::Number(pattern), Json::Number(number)) => {
            if pattern.as_f64() == number.as_f64() {
                Ok(())
            } else {
                differs()
            }
        }
        _ if pattern == found => Ok(()),
        _ => differs(),
    }
}

/// Whether a text matches a pattern in which `...` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        (rest, last) = (after, Some(piece));
    }
    last.map_or(rest.is_empty(), |piece| text.ends_with(piece))
}

fn filled(text: &str, known: &HashMap<String, String>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

fn text_of(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn patterns_match_what_they_say() {
    assert!(is_like("a...c", "abc") && is_like("a...", "abc") && is_like("...", "") && is_like("x", "x"));
    assert!(!is_like("a...c", "abd") && !is_like("x", "xy") && !is_like("...b", "ba"));
}
