//! `fixed`: against tools with fixed settings, the best that a sweep finds among them.
//!
//! A tool has a number of threads and of rows to a request; a thread that is refused waits for
//! `Retry-After`. It sends no affinity cookie. The sweep is over [`THREADS`] and [`ROWS`] for
//! CreateMultiple, steady and with slow servers, and the first load is against 16 threads with a
//! `$batch` of 100 and against one row at a time.

use serde::Serialize;

use crate::Error;
use crate::client::{Fixed, Paced};
use crate::scenario::Scenario;
use crate::service::{create, parts, single};
use crate::world::{Load, Span, Tally, World};

const THREADS: [u32; 9] = [4, 8, 12, 14, 16, 18, 20, 32, 52];
const ROWS: [usize; 6] = [10, 50, 100, 200, 500, 1_000];

/// Rows of the first load.
const FIRST_LOAD_ROWS: u64 = 1_500_000;

/// A tool that has not finished by then counts as if it had: on one server 16 threads shut themselves
/// out, because each refused request lengthens the block.
const GIVEN_UP_S: f64 = 200_000.0;

/// One row at a time takes so long that a sample is loaded and scaled.
const SAMPLE_ROWS: u64 = 20_000;

/// Rows a second against the best fixed setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgainstFixed {
    pub rows_per_s: f64,
    pub best_fixed_rows_per_s: f64,
    pub best_threads: u32,
    pub best_rows: usize,
    pub times_faster: f64,
    pub best_quota_429_per_1000_requests: f64,
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

/// Against the best setting of CreateMultiple, means over the seeds.
pub fn against_fixed(scenario: Scenario, span: Span, seeds: &[u64]) -> Result<AgainstFixed, Error> {
    let load = Load { has_batches: true, has_interactive: false, rows: None };
    let seconds = (span.to_s - span.from_s) * seeds.len() as f64;
    let mut rows = 0;
    for seed in seeds {
        rows += World::new(scenario, *seed, span, load, &mut Paced::new(*seed))?.run().rows;
    }
    let mut best = (0, 0.0, 0, 0);
    for threads in THREADS {
        for batch_rows in ROWS {
            let (mut sum, mut refused) = (0, 0.0);
            for seed in seeds {
                let mut client = Fixed::new(threads, create(batch_rows));
                let tally = World::new(scenario, *seed, span, load, &mut client)?.run();
                sum += tally.rows;
                refused += tally.refused_per_thousand() / seeds.len() as f64;
            }
            if sum > best.0 {
                best = (sum, refused, threads, batch_rows);
            }
        }
    }
    Ok(AgainstFixed {
        rows_per_s: rows as f64 / seconds,
        best_fixed_rows_per_s: best.0 as f64 / seconds,
        best_threads: best.2,
        best_rows: best.3,
        times_faster: rows as f64 / best.0.max(1) as f64,
        best_quota_429_per_1000_requests: best.1,
    })
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
