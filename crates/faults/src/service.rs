//! The emulator of one worker, and what a plain client sees of it.

use anyhow::{Context, Result, bail};
use flowgate_core::Secret;
use flowgate_emulator::{Emulator, Options, Ready};
use flowgate_http::{HttpClient, HttpOptions, Origin, Request};
use serde_json::Value;
use tokio::runtime::Runtime;
use url::Url;

use crate::data::Rows;
use crate::relay::Relay;

/// Simulated seconds in a real one: waits after failures are many and long.
pub(crate) const TIME_SCALE: f64 = 30.0;

pub(crate) struct Service {
    runtime: Runtime,
    emulator: Emulator,
    http: HttpClient,
    base: Url,
    origin: Origin,
    /// The binary reaches the emulator through it.
    pub(crate) relay: Relay,
}

impl Service {
    pub(crate) fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let options = Options { time_scale: TIME_SCALE, ..Options::default() };
        let emulator = runtime.block_on(Emulator::start(options))?;
        let base = Url::parse(&emulator.ready().url)?;
        let origin = Origin::of(&base).context("the emulator's address has no origin")?;
        let http = HttpClient::new(HttpOptions::to(vec![origin.clone()]))?;
        let port = base.port().context("the emulator's address has no port")?;
        let relay = Relay::start(&runtime, (std::net::Ipv4Addr::LOCALHOST, port).into())?;
        Ok(Self { runtime, emulator, http, base, origin, relay })
    }

    pub(crate) fn ready(&self) -> &Ready {
        self.emulator.ready()
    }

    /// The address that the binary is told.
    pub(crate) fn relay_url(&self) -> String {
        format!("http://{}", self.relay.address)
    }

    fn send(&self, method: &str, address: &str, body: String) -> Result<Value> {
        let mut request = Request::new(method.parse()?, self.base.join(address)?);
        request.bearer = Some((Secret::new(self.ready().token.clone()), self.origin.clone()));
        request.body = body.into();
        let answer = self.runtime.block_on(self.http.send(request))?;
        if !answer.status.is_success() {
            bail!("{method} {address}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        if answer.body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer.body)?) }
    }

    /// A request of the Web API as any client sends it, past the relay; `Null` has no body.
    pub(crate) fn api(&self, method: &str, address: &str, body: &Value) -> Result<Value> {
        self.send(method, address, if body.is_null() { String::new() } else { body.to_string() })
    }

    /// A control request of the emulator.
    pub(crate) fn control(&self, name: &str, body: &Value) -> Result<Value> {
        self.send("POST", &format!("__emulator/{name}"), body.to_string())
    }

    /// How often each fault rule has hit.
    pub(crate) fn hits(&self) -> Result<u64> {
        let rules = self.send("GET", "__emulator/faults", String::new())?;
        let hits = rules["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["hits"].as_u64());
        Ok(hits.sum())
    }

    /// Rows that were ever created in the table, whether or not they are still there.
    pub(crate) fn created(&self) -> Result<u64> {
        let stats = self.send("GET", "__emulator/stats", String::new())?;
        Ok(stats["commits"]["account"]["created"].as_u64().unwrap_or_default())
    }

    /// Every row of the table. Two rows with one key are an error: one of them is a duplicate.
    pub(crate) fn rows(&self) -> Result<Rows> {
        let select = "api/data/v9.2/accounts?$select=accountnumber,name,address1_city,statecode,createdon,modifiedon";
        let mut next = Some(select.to_owned());
        let mut rows = Rows::new();
        let mut seen = std::collections::HashMap::new();
        while let Some(address) = next {
            let page = self.send("GET", &address, String::new())?;
            for row in page["value"].as_array().into_iter().flatten() {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                let value = (text("name"), text("address1_city"), row["statecode"] == 1);
                let is_twice = rows.insert(text("accountnumber"), value).is_some();
                let other = seen.insert(text("accountnumber"), row.clone());
                if let Some(other) = other.filter(|_| is_twice) {
                    bail!("{} is there twice: {other} and {row}", text("accountnumber"));
                }
            }
            next = page["@odata.nextLink"].as_str().map(str::to_owned);
        }
        Ok(rows)
    }
}
