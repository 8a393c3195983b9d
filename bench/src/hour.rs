//! `hour`: a load and people on the same connection, over HTTP, in real time.
//!
//! The emulator is a process of its own with four servers. Interactive calls come at random, five a
//! second and server, whatever else goes on. What they waited inside the budget is the budget's own
//! count, before anything is sent. Left out: an oracle; the run is about callers.

use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::{Clock, Destination};
use flowgate_dataverse::budget::Waits;
use flowgate_emulator::model::Random;
use flowgate_http::SystemClock;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;

use crate::Error;
use crate::loader::{Loader, names, of_ready};
use crate::process::{Place, Process};
use crate::quantile::Quantiles;

const INTERACTIVE_PER_S_AND_SERVER: f64 = 5.0;

/// Callers that are under way at the end are waited for so long.
const LAST_CALLS_WAIT: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hour {
    pub seconds: f64,
    pub time_scale: f64,
    pub servers: u16,
    /// Of the whole run, the first window included.
    pub rows_per_s: f64,
    pub ambiguous: u64,
    pub requests: u64,
    pub throttled: u64,
    pub throttled_per_1000_requests: f64,
    pub interactive_calls: u64,
    pub interactive_lost: u64,
    /// Inside the budget, before anything was sent.
    pub interactive_wait: Waits,
    /// From the caller's view: wait, round trip and service.
    pub interactive_total: Quantiles,
}

/// Loads for so many seconds.
pub async fn hour(place: &Place, seconds: u64) -> Result<Hour, Error> {
    let process = Process::start(place).await?;
    let mut loader = Loader::connect(of_ready(&process.ready), place.time_scale, "contact", names).await?;
    let loaded = load_beside_callers(&mut loader, place, seconds as f64).await?;
    let requests = loader.dataverse.requests();
    let interactive_wait = loader.dataverse.waits(Class::Interactive);
    process.stop().await?;
    Ok(Hour {
        seconds: loaded.seconds,
        time_scale: place.time_scale,
        servers: place.servers,
        rows_per_s: loaded.rows as f64 / loaded.seconds,
        ambiguous: loaded.ambiguous,
        requests: requests.sent,
        throttled: requests.throttled,
        throttled_per_1000_requests: 1_000.0 * requests.throttled as f64 / (requests.sent as f64).max(1.0),
        interactive_calls: loaded.calls,
        interactive_lost: loaded.calls - loaded.callers.total_ms.len() as u64,
        interactive_wait,
        interactive_total: Quantiles::of(loaded.callers.total_ms),
    })
}

/// What came of a load, and of the calls beside it.
#[derive(Default)]
struct Loaded {
    seconds: f64,
    rows: u64,
    ambiguous: u64,
    calls: u64,
    callers: Callers,
}

async fn load_beside_callers(loader: &mut Loader, place: &Place, seconds: f64) -> Result<Loaded, Error> {
    let clock = SystemClock::new(place.time_scale);
    let now_s = || clock.elapsed().0.as_secs_f64();
    let mut random = Random::new(1);
    let rate = INTERACTIVE_PER_S_AND_SERVER * f64::from(place.servers);
    let mut gap_s = || -(1.0 - random.unit()).ln() / rate;
    let mut next_call_s = gap_s();
    let mut loaded = Loaded::default();
    let mut under_way = FuturesUnordered::new();
    while now_s() < seconds {
        loader.begin(u64::MAX)?;
        while next_call_s <= now_s() {
            let (call, since_s) = (loader.interactive(loaded.calls)?, next_call_s);
            under_way.push(async move { (since_s, call.await) });
            loaded.calls += 1;
            next_call_s += gap_s();
        }
        let until_call = Duration::from_secs_f64((next_call_s - now_s()).max(0.0));
        tokio::select! {
            ended = loader.next() => {
                let ends = ended?.unwrap_or_default();
                loaded.rows += ends.applied;
                loaded.ambiguous += ends.ambiguous;
            }
            Some((since_s, call)) = under_way.next() => loaded.callers.end(now_s() - since_s, &call),
            () = clock.sleep(until_call) => {}
        }
    }
    loaded.seconds = now_s();
    let last = async {
        while let Some((since_s, call)) = under_way.next().await {
            loaded.callers.end(now_s() - since_s, &call);
        }
    };
    // Those who are still waiting after that are lost.
    let _is_over = tokio::time::timeout(LAST_CALLS_WAIT, last).await;
    Ok(loaded)
}

/// Callers who were served.
#[derive(Default)]
struct Callers {
    total_ms: Vec<f64>,
}

impl Callers {
    fn end(&mut self, total_s: f64, call: &Result<bool, Error>) {
        match call {
            Ok(true) => self.total_ms.push(1_000.0 * total_s),
            Ok(false) => tracing::warn!("an interactive call was not done"),
            Err(error) => tracing::warn!(%error, "an interactive call was not done"),
        }
    }
}
