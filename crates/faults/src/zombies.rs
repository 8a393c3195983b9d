//! Writes that take effect after everybody gave up on them: after they were sent again, after the run that sent
//! them, after a later run wrote a newer version of the same rows.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::Outcome;
use crate::place::{Bench, WRITES};
use crate::random::Random;
use crate::service::TIME_SCALE;

pub(crate) const KINDS: &[&str] = &["sent again", "newer version", "killed, then newer version"];

/// Simulated seconds after which the last abandoned write takes effect. Flowgate counts on five minutes.
const LATE_S_MAX: u64 = 280;

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    bench.begin(random.of_list(&[1, 2]))?;
    let probability = random.between(20, 60) as f64 / 100.0;
    // Rules of which the first that is hit acts: early ones, late ones, and each kind of front end's answer.
    let rules: Vec<_> = WRITES
        .iter()
        .flat_map(|op| [LATE_S_MAX, LATE_S_MAX / 2, 20].map(|late| (op, late)))
        .map(|(op, late)| {
            let (answer, html) = (random.of_list(&[502, 503, 504]), random.of_list(&[true, false]));
            let effect = json!({ "delay_commit": random.between(late / 2, late), "answer": answer, "html": html });
            json!({ "match": { "op": op, "probability": probability / 2.0 }, "do": effect })
        })
        .collect();
    bench.service.control("faults", &json!(rules))?;
    if kind.starts_with("killed") {
        bench.run_and_kill_at_hit(Duration::from_millis(random.between(0, 1_500)))?;
    } else {
        bench.run(None)?;
    }
    let hits = bench.service.hits()?;
    bench.complete()?;
    if kind.ends_with("newer version") {
        bench.next_day()?;
    }
    bench.finish()?;
    std::thread::sleep(Duration::from_secs_f64(LATE_S_MAX as f64 / TIME_SCALE));
    bench.compare()?;
    bench.finish()?;
    Ok(Outcome::of(kind, hits))
}
