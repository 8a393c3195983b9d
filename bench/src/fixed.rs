//! `fixed`: against tools with fixed settings, the best that a sweep finds among them.
//!
//! A tool has a number of threads and of rows to a request; a thread that is refused waits for
//! `Retry-After`. It sends no affinity cookie. The sweep is over [`THREADS`] and [`ROWS`] for
//! CreateMultiple, steady and with slow servers: once with nobody else there, whatever it refuses, and
//! once with interactive callers on the same user, among the settings that leave them unharmed. The
//! first load is against 16 threads with a `$batch` of 100 and against one row at a time.

use serde::Serialize;

use crate::Error;
use crate::client::{Fixed, Paced};
use crate::scenario::Scenario;
use crate::service::{create, parts, single};
use crate::world::{Load, Span, Tally, World};

const THREADS: [u32; 13] = [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 32, 52, 104];
const ROWS: [usize; 6] = [10, 50, 100, 200, 500, 1_000];

/// Callers are unharmed if no more than this share of them waits longer than a second.
const HELD_MAX: f64 = 0.001;

/// Rows of the first load.
const FIRST_LOAD_ROWS: u64 = 1_500_000;

/// A tool that has not finished by then counts as if it had: on one server 16 threads shut themselves
/// out, because each refused request lengthens the block.
const GIVEN_UP_S: f64 = 200_000.0;

/// One row at a time takes so long that a sample is loaded and scaled.
const SAMPLE_ROWS: u64 = 20_000;

/// Rows a second against the best fixed settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgainstFixed {
    pub rows_per_s: f64,
    /// Of all settings, with nobody else on the user.
    pub best: BestFixed,
    pub times_faster: f64,
    /// With interactive callers: ours, and the best of the settings that leave them unharmed.
    pub rows_per_s_beside_callers: f64,
    pub best_that_harms_no_caller: Option<BestFixed>,
    pub times_faster_beside_callers: Option<f64>,
}

/// One setting, means over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BestFixed {
    pub threads: u32,
    pub rows: usize,
    pub rows_per_s: f64,
    pub quota_429_per_1000_requests: f64,
    /// Callers who waited longer than a second.
    pub interactive_held_share: f64,
}

/// A first load of 1.5 M rows, in seconds of the service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstLoad {
    pub servers: u16,
    pub service_s: f64,
    pub sixteen_batches_service_s: f64,
    pub one_at_a_time_service_s: f64,
    pub less_than_sixteen_batches: f64,
    pub less_than_one_at_a_time: f64,
}

/// Against the best settings of CreateMultiple.
pub fn against_fixed(scenario: Scenario, span: Span, seeds: &[u64]) -> Result<AgainstFixed, Error> {
    let rows_per_s = ours(scenario, span, seeds, false)?;
    let rows_per_s_beside_callers = ours(scenario, span, seeds, true)?;
    let alone = sweep(scenario, span, seeds, false)?;
    let beside = sweep(scenario, span, seeds, true)?;
    let faster = |one: &BestFixed, other: &BestFixed| one.rows_per_s.total_cmp(&other.rows_per_s);
    let best = alone.into_iter().max_by(faster).ok_or(Error::NoSetting)?;
    let unharmed = beside.into_iter().filter(|setting| setting.interactive_held_share <= HELD_MAX);
    let best_that_harms_no_caller = unharmed.max_by(faster);
    Ok(AgainstFixed {
        rows_per_s,
        best,
        times_faster: rows_per_s / best.rows_per_s,
        rows_per_s_beside_callers,
        best_that_harms_no_caller,
        times_faster_beside_callers: best_that_harms_no_caller
            .map(|setting| rows_per_s_beside_callers / setting.rows_per_s),
    })
}

fn ours(scenario: Scenario, span: Span, seeds: &[u64], has_interactive: bool) -> Result<f64, Error> {
    let load = Load { has_batches: true, has_interactive, rows: None };
    let mut rows = 0;
    for seed in seeds {
        rows += World::new(scenario, *seed, span, load, &mut Paced::new(*seed))?.run().rows;
    }
    Ok(rows as f64 / (span.to_s - span.from_s) / seeds.len() as f64)
}

fn sweep(scenario: Scenario, span: Span, seeds: &[u64], has_interactive: bool) -> Result<Vec<BestFixed>, Error> {
    let load = Load { has_batches: true, has_interactive, rows: None };
    let runs = seeds.len() as f64;
    let mut settings = Vec::with_capacity(THREADS.len() * ROWS.len());
    for (threads, rows) in THREADS.iter().flat_map(|threads| ROWS.iter().map(|rows| (*threads, *rows))) {
        let (mut sum, mut refused, mut held) = (0, 0.0, 0.0);
        for seed in seeds {
            let mut client = Fixed::new(threads, create(rows));
            let tally = World::new(scenario, *seed, span, load, &mut client)?.run();
            sum += tally.rows;
            refused += tally.refused_per_thousand() / runs;
            held += tally.interactive_held() / runs;
        }
        settings.push(BestFixed {
            threads,
            rows,
            rows_per_s: sum as f64 / (span.to_s - span.from_s) / runs,
            quota_429_per_1000_requests: refused,
            interactive_held_share: held,
        });
    }
    Ok(settings)
}

/// The first load on one server, or on four, each with the documented limits.
pub fn first_load(servers: u16, seed: u64) -> Result<FirstLoad, Error> {
    let run = |client: &mut dyn crate::client::Client, rows| -> Result<f64, Error> {
        let span = Span { from_s: 0.0, to_s: GIVEN_UP_S };
        let load = Load { has_batches: true, has_interactive: false, rows: Some(rows) };
        let tally: Tally = World::calm(servers, seed, span, load, client)?.run();
        Ok(tally.finished_s.unwrap_or(GIVEN_UP_S))
    };
    let service_s = run(&mut Paced::new(seed), FIRST_LOAD_ROWS)?;
    let sixteen = run(&mut Fixed::new(16, parts(100)), FIRST_LOAD_ROWS)?;
    let single_s = run(&mut Fixed::new(1, single()), SAMPLE_ROWS)?;
    let one = single_s * FIRST_LOAD_ROWS as f64 / SAMPLE_ROWS as f64;
    Ok(FirstLoad {
        servers,
        service_s,
        sixteen_batches_service_s: sixteen,
        one_at_a_time_service_s: one,
        less_than_sixteen_batches: 1.0 - service_s / sixteen,
        less_than_one_at_a_time: 1.0 - service_s / one,
    })
}
