//! What goes into the policy and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;

use super::lane::LaneId;
use super::window::Usage;

/// What one request is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Of the service's execution time.
    pub busy: Duration,
    /// Counted against the daily entitlement: each row of a write is one.
    pub entitlement: u64,
}

/// The answer to "may I send now".
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Admitted(Grant),
    /// Ask again at this moment, or earlier if something completes.
    NotBefore(Elapsed),
    /// Ask again when something completes.
    AfterCompletion,
    /// Not today.
    DailyBudgetUsed {
        daily: u64,
    },
}

/// A request that may go. It must be given back when it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub class: Class,
    pub cost: Cost,
    /// Which of the application users sends it.
    pub user: u16,
    /// The affinity cookie to send with it; `None` lets the service choose a server.
    pub cookie: Option<Arc<str>>,
    /// Not for the request that asked: to look whether a server is back, by a read that may be lost.
    pub is_trial: bool,
    pub(super) sent_s: f64,
    pub(super) lane: Option<LaneId>,
    /// What it is expected to take in that lane.
    pub(super) expected_s: f64,
    /// What the lane's ledger knew to be used when the request went.
    pub(super) used_then: Usage,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    Answered(AnswerFacts),
    Throttled(AnswerFacts, Throttled),
    /// Nobody was there: 502, 503, 504 or a connection that was cut.
    Unavailable(AnswerFacts),
    /// Nobody waited for the end: it counts as it was expected.
    Abandoned,
}

/// What the answer told besides its content. A header that is missing or nonsense is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerFacts {
    /// From sending to the answer.
    pub duration: Duration,
    /// The affinity cookie that the answer sets.
    pub cookie: Option<Arc<str>>,
    /// `x-ms-ratelimit-time-remaining-xrm-requests`.
    pub remaining_seconds: Option<f64>,
    /// `x-ms-ratelimit-burst-remaining-xrm-requests`.
    pub remaining_requests: Option<f64>,
    /// `x-ms-dop-hint`.
    pub parallel_hint: Option<u32>,
}

/// A refusal by a service-protection limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    pub kind: ThrottledBy,
    pub retry_after: Option<Duration>,
}

/// Which limit refused. They are different in what to do about them, so they are never mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottledBy {
    /// 0x80072322: requests in the window.
    Requests,
    /// 0x80072321: execution time in the window.
    ExecutionTime,
    /// 0x80072326: requests at once.
    Concurrency,
    /// A 429 without a known code. Waits, and teaches nothing.
    Other,
}
