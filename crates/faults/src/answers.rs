//! Answers that are lost, late, wrong or missing, and commits that come after everybody gave up on them.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] =
    &["lost after commit", "cut before commit", "zombie commit", "throttled", "failing", "wrong answer", "token ends"];

const WRITES: &[&str] = &["CreateMultiple", "UpdateMultiple", "Batch"];

/// What `Retry-After` may say.
const WAITS: &[&str] = &["1", "17", "0", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2, 2]))?;
    bench.service.control("faults", &rules(kind, random))?;
    if kind == "token ends" {
        bench.service.control("settings", &json!({ "token_life_s": random.between(5, 40) }))?;
    }
    let ended = bench.run(None)?;
    ensure!(matches!(ended.status.code(), Some(0 | 1)), "exit status {:?}: {}", ended.status, ended.said);
    let is_met = kind == "token ends" || bench.service.hits()? > 0;
    if kind == "zombie commit" {
        // The latest of them is over by then.
        bench.finish()?;
        std::thread::sleep(Duration::from_secs_f64(ZOMBIE_S_MAX as f64 / crate::service::TIME_SCALE));
    }
    bench.finish()?;
    Ok(if is_met { Outcome::Held(kind.to_owned()) } else { Outcome::NotMet(kind.to_owned()) })
}

/// Simulated seconds after which the last abandoned request may still commit.
const ZOMBIE_S_MAX: u64 = 45;

fn rules(kind: &str, random: &mut Random) -> Value {
    let one = json!({ "op": random.of_list(WRITES), "nth": random.between(1, 3) });
    let often = json!({ "probability": random.between(5, 40) as f64 / 100.0, "times": 12 });
    match kind {
        "lost after commit" => json!([{ "match": one, "do": "commit_then_drop" }]),
        "cut before commit" => json!([{ "match": one, "do": "drop_before_commit" }]),
        "zombie commit" => {
            let answer = random.of_list(&[503, 504]);
            let effect = json!({ "delay_commit": random.between(1, ZOMBIE_S_MAX), "answer": answer });
            json!([{ "match": one, "do": effect }])
        }
        "throttled" => {
            let limit = random.of_list(&["requests", "time", "concurrency"]);
            json!([{ "match": often, "do": { "limit": limit, "retry_after": random.of_list(WAITS) } }])
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
        _ => json!([]),
    }
}
