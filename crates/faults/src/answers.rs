//! Answers that say no, say it wrongly, or are nonsense.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Outcome;
use crate::place::{Bench, WRITES};
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &[
    "throttled",
    "told to wait a year",
    "failing",
    "wrong answer",
    "garbled encoding",
    "token ends",
    "token revoked",
    "no token to be had",
];

/// What `Retry-After` may say.
const WAITS: &[&str] = &["1", "17", "0", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""];

/// Nonsense of the long kind: no window of the service explains such a wait.
const LONG_WAITS: &[&str] = &["31536000", "1e300", "Wed, 21 Oct 2099 07:28:00 GMT"];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2, 2]))?;
    bench.service.control("faults", &rules(kind, random))?;
    if matches!(kind, "token ends" | "no token to be had") {
        bench.service.control("settings", &json!({ "token_life_s": random.between(5, 40) }))?;
    }
    let ended = bench.run(None)?;
    ensure!(matches!(ended.status.code(), Some(0 | 1)), "exit status {:?}: {}", ended.status, ended.said);
    let hits = if kind == "token ends" { 1 } else { bench.service.hits()? };
    bench.finish()?;
    Ok(Outcome::of(kind, hits))
}

fn rules(kind: &str, random: &mut Random) -> Value {
    let one = json!({ "op": random.of_list(WRITES), "nth": random.between(1, 3) });
    let often = json!({ "probability": random.between(5, 40) as f64 / 100.0, "times": 12 });
    match kind {
        "throttled" => {
            let limit = random.of_list(&["requests", "time", "concurrency"]);
            json!([{ "match": often, "do": { "limit": limit, "retry_after": random.of_list(WAITS) } }])
        }
        "told to wait a year" => {
            let few = json!({ "op": random.of_list(WRITES), "times": 2 });
            json!([{ "match": few, "do": { "limit": "requests", "retry_after": random.of_list(LONG_WAITS) } }])
        }
        "failing" => {
            let status = random.of_list(&[500, 502, 503, 504]);
            json!([{ "match": often, "do": { "status": status, "html": random.between(0, 1) == 0 } }])
        }
        "wrong answer" => {
            let effect = match random.between(0, 2) {
                0 => json!({ "truncate": random.between(0, 60) }),
                1 => json!({ "content_type": "text/html" }),
                _ => json!({ "body": "{\"error\":{}}" }),
            };
            json!([{ "match": one, "do": effect }])
        }
        "garbled encoding" => json!([{ "match": one, "do": { "content_encoding": random.of_list(&["gzip", "br"]) } }]),
        "token revoked" => {
            let few = json!({ "op": random.of_list(WRITES), "times": random.between(1, 6) });
            json!([{ "match": few, "do": "expired_token" }])
        }
        "no token to be had" => {
            let few = json!({ "op": "Token", "times": random.between(1, 4) });
            json!([{ "match": few, "do": { "status": random.of_list(&[500, 503, 429]) } }])
        }
        _ => json!([]),
    }
}
