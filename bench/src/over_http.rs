//! `http`: the whole loader over HTTP against the emulator as a process of its own, beside the same
//! run in simulated time.
//!
//! Four servers with the documented limits, no interactive callers, time scale 10. Scenarios: steady,
//! slow servers, restarts. The two must agree within 3 %. Left out: a recorder in between; what the
//! emulator counted itself is reported.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use flowgate_core::destination::{Class, Operation, Outcome, WriteOptions, WriteUnit};
use flowgate_core::{CancellationToken, Clock, ConnectorError, Destination, Secret, TableShape};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions};
use flowgate_emulator::{Emulator, Options, ProfileName, Ready};
use flowgate_http::{HttpClient, HttpOptions, Origin, Request, SystemClock};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use url::Url;
use uuid::Uuid;

use crate::Error;
use crate::client::Paced;
use crate::scenario::{Scenario, Step};
use crate::world::{Load, Span, World};

const TIME_SCALE: f64 = 10.0;

/// Two windows after the first: enough for the pace to be the steady one.
const HTTP_SPAN: Span = Span { from_s: 300.0, to_s: 900.0 };

const UNIT_WAIT: Duration = Duration::from_mins(15);

/// One scenario both ways.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverHttp {
    pub rows_per_s: f64,
    pub simulated_rows_per_s: f64,
    pub http_to_simulated: f64,
    pub requests: u64,
    pub throttled: u64,
    /// Rows whose end is not known: requests that were cut by a restart.
    pub ambiguous: u64,
}

/// Runs an emulator for a parent process until its standard input is closed.
pub async fn serve(print: impl Fn(&str)) -> Result<(), Error> {
    let options = Options { profile: ProfileName::Realistic, time_scale: TIME_SCALE, ..Options::default() };
    let emulator = Emulator::start(options).await.map_err(|error| Error::Emulator(error.to_string()))?;
    print(&serde_json::to_string(emulator.ready())?);
    let mut input = BufReader::new(tokio::io::stdin());
    // Ends with the parent, however that ends.
    while input.read_line(&mut String::new()).await.is_ok_and(|read| read > 0) {}
    emulator.stop().await;
    Ok(())
}

/// Loads over HTTP and in simulation.
pub async fn over_http(scenario: Scenario) -> Result<OverHttp, Error> {
    let mut paced = Paced::new(1);
    let load = Load { has_batches: true, has_interactive: false, rows: None };
    let (world, steps) = World::with_documented_limits(scenario, 1, HTTP_SPAN, load, &mut paced)?;
    let seconds = HTTP_SPAN.to_s - HTTP_SPAN.from_s;
    let simulated = world.run().rows as f64 / seconds;
    let program = std::env::current_exe()?;
    let mut child = tokio::process::Command::new(program)
        .arg("emulator")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| Error::Emulator("it has no output".to_owned()))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    let ready: Ready = serde_json::from_str(&line)?;
    let figures = load_over_http(&ready, &steps).await?;
    child.kill().await?;
    let rows_per_s = figures.rows as f64 / seconds;
    Ok(OverHttp {
        rows_per_s,
        simulated_rows_per_s: simulated,
        http_to_simulated: rows_per_s / simulated,
        requests: figures.requests,
        throttled: figures.throttled,
        ambiguous: figures.ambiguous,
    })
}

#[derive(Default)]
struct Figures {
    rows: u64,
    ambiguous: u64,
    requests: u64,
    throttled: u64,
}

async fn load_over_http(ready: &Ready, steps: &[(f64, Step)]) -> Result<Figures, Error> {
    let options = DataverseOptions {
        time_scale: TIME_SCALE,
        ..DataverseOptions::new(&ready.url, Credential::Token(Secret::new(&ready.token)))
    };
    let clock = Arc::new(SystemClock::new(1.0));
    let dataverse = Dataverse::connect(options, Arc::clone(&clock) as Arc<dyn Clock>)?;
    let shape = dataverse.describe("contact").await?;
    let control = Control::new(ready)?;
    let started = clock.elapsed();
    let now_s = || clock.elapsed().since(started).as_secs_f64() * TIME_SCALE;
    let mut steps = steps.iter().peekable();
    let mut under_way = FuturesUnordered::new();
    let mut figures = Figures::default();
    while now_s() < HTTP_SPAN.to_s {
        while let Some((_, step)) = steps.next_if(|(at_s, _)| *at_s <= now_s()) {
            control.apply(*step).await?;
        }
        let pace = dataverse.pace(&shape, Operation::Create);
        while under_way.len() < pace.units {
            under_way.push(write(Arc::clone(&dataverse), Arc::clone(&shape), pace.rows));
        }
        let ended = tokio::time::timeout(Duration::from_millis(50), under_way.next()).await;
        let Ok(Some(outcomes)) = ended else { continue };
        for outcome in outcomes? {
            let is_measured = now_s() >= HTTP_SPAN.from_s && now_s() <= HTTP_SPAN.to_s;
            figures.rows += u64::from(outcome == Outcome::Applied && is_measured);
            figures.ambiguous += u64::from(outcome == Outcome::Ambiguous);
        }
    }
    let requests = dataverse.requests();
    (figures.requests, figures.throttled) = (requests.sent, requests.throttled);
    Ok(figures)
}

async fn write(dataverse: Arc<Dataverse>, shape: Arc<TableShape>, rows: usize) -> Result<Vec<Outcome>, Error> {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("name {row}"))));
    let batch = RecordBatch::try_from_iter_with_nullable([("lastname", names, true)]);
    let unit = WriteUnit {
        shape,
        operation: Operation::Create,
        ids: (0..rows).map(|_| Uuid::now_v7()).collect(),
        rows: batch?,
        columns: None,
        resent: false,
        options: WriteOptions::default(),
    };
    Ok(dataverse.write(unit, Class::Batch, UNIT_WAIT, &CancellationToken::new()).await?)
}

/// The emulator's control interface.
struct Control {
    http: HttpClient,
    url: Url,
}

impl Control {
    fn new(ready: &Ready) -> Result<Self, Error> {
        let bad = || Error::Emulator(format!("`{}` is no address", ready.url));
        let url = Url::parse(&format!("{}/__emulator/servers", ready.url)).map_err(|_| bad())?;
        let origin = Origin::of(&url).ok_or_else(bad)?;
        let http = HttpClient::new(HttpOptions::to(vec![origin])).map_err(ConnectorError::from)?;
        Ok(Self { http, url })
    }

    async fn apply(&self, step: Step) -> Result<(), Error> {
        let body = match step {
            Step::Slow(server, slow) => serde_json::json!({ "server": server, "slow": slow }),
            Step::Stop(server) => serde_json::json!({ "server": server, "down_s": crate::scenario::OUTAGE_S }),
            // It comes back by itself.
            Step::Start(_) => return Ok(()),
            Step::ScaleLimits(_) | Step::Servers(_) | Step::Second(_) => {
                return Err(Error::Emulator("it cannot do this while it runs".to_owned()));
            }
        };
        let mut request = Request::new(http::Method::POST, self.url.clone());
        request.body = body.to_string().into();
        self.http.send(request).await.map_err(ConnectorError::from)?;
        Ok(())
    }
}
