//! All that the policy knows, for `status` and for people.

use serde::{Deserialize, Serialize};

/// All that is known of a connection: its budget, and what requests cost there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSnapshot {
    /// How many seconds of the service pass in a real one. All times here are the service's.
    pub time_scale: f64,
    pub users: Vec<UserSnapshot>,
    pub budget: Snapshot,
    pub messages: Vec<MessageSnapshot>,
}

/// One application user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSnapshot {
    /// Its key in the configuration; `None` for the only one.
    pub key: Option<String>,
    /// Under which its lanes are shared.
    pub identity: String,
}

/// What requests with rows of one table take: `fixed_s + row_s * rows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageSnapshot {
    pub table: String,
    pub message: String,
    pub fixed_s: f64,
    pub row_s: f64,
    /// The share of rows that are refused, from 0 to 1.
    pub error_rate: f64,
    /// How many rows a request holds by that.
    pub rows: usize,
}

/// The state of a connection's budget at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub lanes: Vec<LaneSnapshot>,
    /// Whether all web servers behind the address seem to be known.
    pub discovery_is_complete: bool,
    /// The service's own `x-ms-dop-hint`.
    pub parallel_hint: Option<u32>,
    /// Batches that may be under way at once.
    pub parallel_max: u32,
    /// The part of the limits that batches may use now.
    pub share: f64,
    /// The time of a round trip that is not the service's.
    pub network_ms: f64,
    pub waiting: WaitingSnapshot,
    pub entitlement: EntitlementSnapshot,
}

/// One application user on one web server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneSnapshot {
    pub user: u16,
    /// The affinity cookie's value; `None` if the service sets none and all servers are one lane.
    pub server: Option<String>,
    /// `open`, `closed` by a refusal, or `down`.
    pub state: String,
    /// Held by this budget; the others are another process's, or nobody's.
    pub is_ours: bool,
    /// Until it may be tried again.
    pub wait_s: f64,
    pub in_flight: u32,
    pub parallel_max: u32,
    /// In the last 300 seconds, and what is believed to be ours in them.
    pub used_s: f64,
    pub limit_s: f64,
    /// The documented limit, to compare with.
    pub documented_s: f64,
    pub used_requests: f64,
    pub limit_requests: f64,
    pub documented_requests: f64,
    /// What interactive requests and events used of `used_s`.
    pub urgent_s: f64,
    /// False for as long as the window may hold what nobody has told us of.
    pub is_past_known: bool,
}

/// Requests that wait, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingSnapshot {
    pub interactive: u32,
    pub events: u32,
    pub batch: u32,
    pub export: u32,
}

/// Rows in the last 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementSnapshot {
    pub used: u64,
    pub daily: Option<u64>,
}
