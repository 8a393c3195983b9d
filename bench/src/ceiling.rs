//! `ceiling`: throughput against the oracle, refusals, and what interactive callers notice.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Error;
use crate::client::{Oracle, Paced};
use crate::scenario::Scenario;
use crate::world::{Load, Span, Tally, World};

/// Batch sizes of the oracle; the best of them counts.
const ORACLE_ROWS: [usize; 3] = [200, 500, 1_000];

/// The figures of one scenario, means over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceiling {
    pub throughput_to_oracle: f64,
    /// The seed that came off worst.
    pub throughput_to_oracle_min: f64,
    pub rows_per_s: f64,
    pub quota_429_per_1000_requests: f64,
    pub interactive_calls: u64,
    pub interactive_lost_to_quota: u64,
    /// Callers who waited longer than a second, and how many of the oracle's did.
    pub interactive_held_share: f64,
    pub interactive_held_share_of_oracle: f64,
    pub interactive_p95_ms: f64,
    pub interactive_p95_to_idle: f64,
    pub required: Option<f64>,
}

/// One scenario over some seeds.
pub fn ceiling(scenario: Scenario, span: Span, seeds: &[u64]) -> Result<Ceiling, Error> {
    let mut ratios = Vec::new();
    let (mut held, mut oracle_held) = (Vec::new(), Vec::new());
    let (mut rows, mut requests, mut refused) = (0, 0, 0);
    let (mut calls, mut lost, mut waits, mut idle_waits) = (0, 0, Vec::new(), Vec::new());
    for seed in seeds {
        let paced = paced(scenario, *seed, span, true)?;
        let idle = self::paced(scenario, *seed, span, false)?;
        let oracle = oracle(scenario, *seed, span)?;
        ratios.push(paced.rows as f64 / oracle.rows.max(1) as f64);
        held.push(paced.interactive_held());
        oracle_held.push(oracle.interactive_held());
        rows += paced.rows;
        requests += paced.requests;
        refused += paced.refused;
        calls += paced.interactive_calls;
        lost += paced.interactive_lost;
        waits.push(paced.interactive_p95_s());
        idle_waits.push(idle.interactive_p95_s());
    }
    let runs = seeds.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / runs;
    Ok(Ceiling {
        throughput_to_oracle: mean(&ratios),
        throughput_to_oracle_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        rows_per_s: rows as f64 / runs / (span.to_s - span.from_s),
        quota_429_per_1000_requests: 1_000.0 * refused as f64 / (requests as f64).max(1.0),
        interactive_calls: calls,
        interactive_lost_to_quota: lost,
        interactive_held_share: mean(&held),
        interactive_held_share_of_oracle: mean(&oracle_held),
        interactive_p95_ms: 1_000.0 * mean(&waits),
        interactive_p95_to_idle: mean(&waits) / mean(&idle_waits),
        required: scenario.required(),
    })
}

/// All scenarios.
pub fn ceilings(span: Span, seeds: &[u64]) -> Result<BTreeMap<&'static str, Ceiling>, Error> {
    Scenario::ALL.iter().map(|scenario| Ok((scenario.name(), ceiling(*scenario, span, seeds)?))).collect()
}

fn paced(scenario: Scenario, seed: u64, span: Span, has_batches: bool) -> Result<Tally, Error> {
    let mut client = Paced::new(seed);
    let load = Load { has_batches, has_interactive: true, rows: None };
    Ok(World::new(scenario, seed, span, load, &mut client)?.run())
}

/// The best oracle.
fn oracle(scenario: Scenario, seed: u64, span: Span) -> Result<Tally, Error> {
    let load = Load { has_batches: true, has_interactive: true, rows: None };
    let mut best = Tally::default();
    for rows in ORACLE_ROWS {
        let mut client = Oracle { rows };
        let tally = World::new(scenario, seed, span, load, &mut client)?.sparing_interactive().run();
        best = if tally.rows > best.rows { tally } else { best };
    }
    Ok(best)
}
