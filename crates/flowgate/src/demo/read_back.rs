//! An independent reader of the service: plain HTTP, pages, counts and order-free hashes.
//!
//! It shares with the loader only the HTTP transport: no metadata, no types, no budget. The one
//! exception to "every request goes through the budget" (ARCHITECTURE.md).

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use flowgate_core::{Clock, Code, Secret};
use flowgate_http::{Answer as HttpAnswer, HttpClient, HttpOptions, Origin, Request, SystemClock};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;

use super::known::{Answer, Field, Table};
use crate::emulation::Ready;
use crate::failure::Failure;

const ROWS_PER_PAGE: &str = "odata.maxpagesize=5000";
const PAGES_MAX: usize = 1_000;
/// How often one request is tried when the service asks to wait.
const ATTEMPTS_MAX: usize = 50;
/// Between two fields of a hashed row.
const SEPARATOR: u8 = 0x1f;

type Row = HashMap<String, Box<RawValue>>;

#[derive(Debug, Deserialize)]
struct Page {
    value: Vec<Row>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

/// What a table holds.
pub(crate) struct Found {
    pub(crate) answer: Answer,
    /// Rows whose `statecode` is 1: inactive, or closed.
    pub(crate) inactive: u64,
}

/// A small client of one environment.
#[derive(Clone)]
pub(crate) struct ReadBack {
    http: HttpClient,
    base: Url,
    origin: Origin,
    token: Secret,
    /// Waits are in the service's seconds.
    clock: std::sync::Arc<SystemClock>,
}

impl ReadBack {
    pub(crate) fn of(ready: &Ready) -> Result<Self, Failure> {
        let base = Url::parse(&ready.url).map_err(|error| unexpected(&error.to_string()))?;
        let origin = Origin::of(&base).ok_or_else(|| unexpected("the address has no origin"))?;
        let mut options = HttpOptions::to(vec![origin.clone()]);
        options.ca_file = ready.ca_file.as_ref().map(std::path::PathBuf::from);
        let http = HttpClient::new(options).map_err(|error| unexpected(&error.to_string()))?;
        let clock = std::sync::Arc::new(SystemClock::new(ready.time_scale));
        Ok(Self { http, base, origin, token: ready.token.clone(), clock })
    }

    /// Counts and hashes the rows of a table that have our key.
    pub(crate) async fn table(&self, table: &Table) -> Result<Found, Failure> {
        let references = self.references(table).await?;
        let columns: Vec<&str> = table.fields.iter().map(|field| field.column.as_str()).collect();
        let mut next = Some(format!("api/data/v9.2/{}?$select={}", table.set, columns.join(",")));
        let (mut rows, mut total, mut inactive) = (0, 0_u64, 0);
        for _ in 0..PAGES_MAX {
            let Some(address) = next else { break };
            let page = self.page(&address).await?;
            for row in page.value.iter().filter(|row| row.get(&table.key).is_some_and(|key| key.get() != "null")) {
                rows += 1;
                total = total.wrapping_add(hash(row, table, &references)?);
                inactive += u64::from(row.get("statecode").is_some_and(|state| state.get() == "1"));
            }
            next = page.next;
        }
        Ok(Found { answer: Answer { rows, hash: format!("{total:016x}") }, inactive })
    }

    /// For each reference column, the key by id.
    async fn references(&self, table: &Table) -> Result<HashMap<String, HashMap<String, String>>, Failure> {
        let mut references = HashMap::new();
        for field in &table.fields {
            let (Some(set), Some(id), Some(key)) = (&field.set, &field.id, &field.key) else { continue };
            let mut keys = HashMap::new();
            let mut next = Some(format!("api/data/v9.2/{set}?$select={id},{key}"));
            for _ in 0..PAGES_MAX {
                let Some(address) = next else { break };
                let page = self.page(&address).await?;
                for row in &page.value {
                    keys.insert(text_of(row, id)?, text_of(row, key)?);
                }
                next = page.next;
            }
            references.insert(field.column.clone(), keys);
        }
        Ok(references)
    }

    /// Bodies of some assets, as a client that creates them one by one would send them.
    pub(crate) async fn assets(&self, count: usize) -> Result<Vec<Value>, Failure> {
        let columns = "wr_icao,wr_name,wr_iata,wr_city,wr_subdivision,wr_country,wr_elevation,wr_lat,wr_lon,wr_timezone,wr_localid";
        let page = self.page(&format!("api/data/v9.2/wr_assets?$select={columns}")).await?;
        let body = |row: &Row| -> Option<Value> {
            let value = |name: &str| Some((name.to_owned(), serde_json::from_str(row.get(name)?.get()).ok()?));
            Some(Value::Object(columns.split(',').map(value).collect::<Option<_>>()?))
        };
        Ok(page.value.iter().filter_map(body).take(count).collect())
    }

    /// Rows created, updated and deleted since the service started, by its own count.
    pub(crate) async fn rows_written(&self) -> Result<u64, Failure> {
        let answer = self.send(Method::GET, "__emulator/stats", Bytes::new()).await?;
        let stats: Value = serde_json::from_slice(&answer.body).map_err(|error| unexpected(&error.to_string()))?;
        let commits = stats["commits"].as_object().ok_or_else(|| unexpected("statistics without commits"))?;
        let counts = commits.values().filter_map(Value::as_object).flat_map(|table| table.values());
        Ok(counts.filter_map(Value::as_u64).sum())
    }

    /// Creates one row of a set.
    pub(crate) async fn create(&self, set: &str, body: &Value) -> Result<(), Failure> {
        let body = Bytes::from(body.to_string());
        self.send(Method::POST, &format!("api/data/v9.2/{set}"), body).await.map(|_| ())
    }

    async fn page(&self, address: &str) -> Result<Page, Failure> {
        let answer = self.send(Method::GET, address, Bytes::new()).await?;
        serde_json::from_slice(&answer.body).map_err(|error| unexpected(&error.to_string()))
    }

    /// Sends until the service takes it, waiting as long as it asks to.
    async fn send(&self, method: Method, address: &str, body: Bytes) -> Result<HttpAnswer, Failure> {
        let url = self.base.join(address).map_err(|error| unexpected(&error.to_string()))?;
        for _ in 0..ATTEMPTS_MAX {
            let mut request = Request::new(method.clone(), url.clone());
            request.headers.insert("prefer", HeaderValue::from_static(ROWS_PER_PAGE));
            request.headers.insert("content-type", HeaderValue::from_static("application/json"));
            request.body = body.clone();
            request.bearer = Some((self.token.clone(), self.origin.clone()));
            let answer = self.http.send(request).await.map_err(|error| unexpected(&error.to_string()))?;
            if answer.status != StatusCode::TOO_MANY_REQUESTS {
                return require_success(answer);
            }
            let seconds = answer.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or(1.0);
            self.clock.sleep(Duration::from_secs_f64(seconds)).await;
        }
        Err(Failure::new(Code::THROTTLED, format!("still throttled after {ATTEMPTS_MAX} attempts")))
    }
}

fn require_success(answer: HttpAnswer) -> Result<HttpAnswer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(unexpected(&format!("{}: {}", answer.status, body.chars().take(300).collect::<String>())))
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Code::UNEXPECTED_ANSWER, format!("reading back failed: {what}"))
}

fn text_of(row: &Row, column: &str) -> Result<String, Failure> {
    let raw = row.get(column).ok_or_else(|| unexpected(&format!("a row without `{column}`")))?.get();
    match raw {
        "null" => Ok(String::new()),
        _ if raw.starts_with('"') => serde_json::from_str(raw).map_err(|error| unexpected(&error.to_string())),
        _ => Ok(raw.to_owned()),
    }
}

/// The first 8 bytes of the SHA-256 of the row's fields.
fn hash(row: &Row, table: &Table, references: &HashMap<String, HashMap<String, String>>) -> Result<u64, Failure> {
    let mut hasher = Sha256::new();
    for (at, field) in table.fields.iter().enumerate() {
        if at > 0 {
            hasher.update([SEPARATOR]);
        }
        let text = text_of(row, &field.column)?;
        hasher.update(canonical(text, field, references)?.as_bytes());
    }
    let digest = hasher.finalize();
    Ok(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn canonical(
    text: String,
    field: &Field,
    references: &HashMap<String, HashMap<String, String>>,
) -> Result<String, Failure> {
    if text.is_empty() {
        return Ok(text);
    }
    if field.form == "reference" {
        let key = references.get(&field.column).and_then(|keys| keys.get(&text)).cloned();
        return key.ok_or_else(|| unexpected(&format!("`{}` refers to a row that is not there", field.column)));
    }
    match field.form.strip_prefix("decimal ").and_then(|places| places.parse().ok()) {
        Some(places) => Ok(with_places(&text, places)),
        None => Ok(text),
    }
}

/// A decimal with exactly so many digits after the point; more digits stay, and show as a difference.
fn with_places(text: &str, places: usize) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = if fraction.len() > places && fraction[places..].bytes().all(|digit| digit == b'0') {
        &fraction[..places]
    } else {
        fraction
    };
    format!("{whole}.{fraction:0<places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_their_places() {
        assert_eq!(with_places("3", 2), "3.00");
        assert_eq!(with_places("-0.5", 2), "-0.50");
        assert_eq!(with_places("1.230000", 2), "1.23");
        assert_eq!(with_places("1.234", 2), "1.234");
    }
}
