//! `/__emulator/*`: statistics, faults, settings, time, reset, snapshots.
//!
//! Promise: is under no limit. Left out: anything a real environment has, and who may ask (`guard`).

use std::sync::PoisonError;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::engine::{Engine, lock};
use crate::limits::LimitKind;
use crate::query::decode_pairs;
use crate::web::Answer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(default = "default_name")]
    name: String,
}

fn default_name() -> String {
    "default".to_owned()
}

pub(crate) fn answer(engine: &Engine, method: &Method, path: &str, query: &str, body: &[u8]) -> Answer {
    let done = match (method.as_str(), path.trim_matches('/')) {
        ("GET", "stats") => Ok(stats(engine)),
        ("GET", "digests") => digests(engine, query),
        ("GET", "faults") => Ok(json!({ "rules": lock(&engine.faults).counts() })),
        ("GET", "events") => Ok(json!({ "events": &*lock(&engine.events) })),
        ("POST", "faults") => set_faults(engine, body),
        ("GET", "settings") => serde_json::to_value(&*engine.settings()).map_err(|error| error.to_string()),
        ("POST", "settings") => set_settings(engine, body),
        ("POST", "limits") => set_limits(engine, body),
        ("POST", "servers") => set_server(engine, body),
        ("POST", "time") => skip_time(engine, body),
        ("POST", "reset") => {
            engine.reset();
            Ok(json!({}))
        }
        ("POST", "copy") => {
            let copied = engine.copy().map_err(|error| error.message);
            copied.map(|organization| json!({ "organization": organization }))
        }
        ("POST", "snapshot") => named(body).map(|name| {
            engine.snapshot(&name);
            json!({ "snapshot": name })
        }),
        ("POST", "restore") => named(body).and_then(|name| {
            if engine.restore(&name) {
                Ok(json!({ "restored": name }))
            } else {
                Err(format!("there is no snapshot `{name}`"))
            }
        }),
        (_, other) => Err(format!("`{method} /__emulator/{other}` is not a control request")),
    };
    match done {
        Ok(body) => Answer::json(body.to_string().into_bytes()),
        Err(message) => refused(StatusCode::BAD_REQUEST, &message),
    }
}

/// The answer to a control request that is not done.
pub(crate) fn refused(status: StatusCode, message: &str) -> Answer {
    let mut answer = Answer::json(json!({ "error": message }).to_string().into_bytes());
    answer.status = status;
    answer
}

fn named(body: &[u8]) -> Result<String, String> {
    let body = if body.is_empty() { b"{}".as_slice() } else { body };
    serde_json::from_slice::<Named>(body).map(|named| named.name).map_err(|error| error.to_string())
}

fn stats(engine: &Engine) -> Json {
    let stats = lock(&engine.stats);
    let refused = |kind| stats.refused.get(&kind).copied().unwrap_or(0);
    let busy: Vec<Json> = stats
        .busy_ms
        .iter()
        .map(|((user, server), busy_ms)| json!({ "user": user, "server": server, "busy_ms": busy_ms }))
        .collect();
    let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
    let mut commits = Map::new();
    let mut tables = Map::new();
    for table in database.schema.live_tables() {
        let [created, updated, deleted] = database.commits.get(&table.id).copied().unwrap_or_default();
        if created + updated + deleted > 0 {
            commits
                .insert(table.logical.clone(), json!({ "created": created, "updated": updated, "deleted": deleted }));
        }
        let rows = database.store(table.id).len();
        if rows > 0 {
            tables.insert(table.logical.clone(), rows.into());
        }
    }
    json!({
        "requests": stats.requests,
        "operations": stats.by_operation,
        "rows": stats.rows,
        "errors": stats.errors,
        "faults": stats.faults,
        "throttled": {
            "requests": refused(LimitKind::Requests),
            "execution_time": refused(LimitKind::ExecutionTime),
            "concurrency": refused(LimitKind::Concurrency),
        },
        "busy": busy,
        "commits": commits,
        "table_rows": tables,
        "version": database.version(),
        "profile": engine.profile_name,
        "profile_version": engine.profile.version,
        "servers": engine.servers,
        "simulated_seconds": engine.clock.elapsed(),
        "simulated_now": engine.clock.now(),
        "time_scale": engine.clock.scale(),
        "entitlement": { "used": stats.entitlement, "per_day": engine.profile.entitlement_per_day },
    })
}

/// `?table=account&columns=name,telephone1`: what rows add up to, in every table that has some
/// where none is named.
fn digests(engine: &Engine, query: &str) -> Result<Json, String> {
    let pairs = decode_pairs(query);
    let option = |name: &str| pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let columns: Option<Vec<&str>> = option("columns").map(|names| names.split(',').map(str::trim).collect());
    let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
    let wanted: Vec<_> = match option("table") {
        Some(name) => vec![database.schema.by_logical(name).ok_or_else(|| format!("there is no table `{name}`"))?],
        None => database.schema.live_tables().filter(|table| database.store(table.id).len() > 0).collect(),
    };
    let mut answer = Map::new();
    for table in wanted {
        let unknown = columns.iter().flatten().find(|name| table.find(name).is_none());
        if let Some(name) = unknown.filter(|_| option("table").is_some()) {
            return Err(format!("table `{}` has no column `{name}`", table.logical));
        }
        answer.insert(table.logical.clone(), crate::digests::of_table(&database, table, columns.as_deref()));
    }
    Ok(answer.into())
}

fn set_faults(engine: &Engine, body: &[u8]) -> Result<Json, String> {
    // A list, or an object with `faults`, as the YAML form has it.
    let value: Json = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let list = value.get("faults").cloned().unwrap_or(value);
    let Json::Array(rules) = list else { return Err("faults are a list of rules".to_owned()) };
    lock(&engine.faults).set(rules, engine.clock.now())?;
    Ok(json!({}))
}

/// Lays members over what is in force.
fn merged<T: serde::Serialize + serde::de::DeserializeOwned>(current: &T, body: &[u8]) -> Result<T, String> {
    let changes: Map<String, Json> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut value = serde_json::to_value(current).map_err(|error| error.to_string())?;
    if let Json::Object(members) = &mut value {
        members.extend(changes);
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn set_settings(engine: &Engine, body: &[u8]) -> Result<Json, String> {
    engine.set_settings(merged(&*engine.settings(), body)?);
    Ok(json!({}))
}

fn set_limits(engine: &Engine, body: &[u8]) -> Result<Json, String> {
    let mut limits = lock(&engine.limits);
    limits.settings = merged(&limits.settings, body)?;
    Ok(json!({}))
}

/// `{"server": 0, "slow": 3.0, "down_s": 40}`: how one web server does from now on.
fn set_server(engine: &Engine, body: &[u8]) -> Result<Json, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Server {
        server: u16,
        slow: Option<f64>,
        down_s: Option<f64>,
    }
    let server: Server = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if server.server >= engine.servers || server.slow.is_some_and(|slow| slow.is_nan() || slow <= 0.0) {
        return Err(format!("there are servers 0 to {}, and `slow` is positive", engine.servers - 1));
    }
    engine.set_condition(server.server, server.slow, server.down_s);
    Ok(json!({}))
}

fn skip_time(engine: &Engine, body: &[u8]) -> Result<Json, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Skip {
        skip_s: f64,
    }
    let skip: Skip = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    engine.clock.skip(skip.skip_s);
    engine.run_due_jobs();
    Ok(json!({ "simulated_now": engine.clock.now() }))
}
