//! A notice of a change on its way to a service endpoint.
//!
//! Promise: it leaves with the transaction that raised it, or not at all. What it says is opaque
//! here.

use std::sync::Arc;

use uuid::Uuid;

/// What tells one notice of a request from the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EventKey {
    pub(crate) step: Uuid,
    pub(crate) row: Uuid,
    /// The how-manieth of the request for this step and row.
    pub(crate) occurrence: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) key: EventKey,
    pub(crate) endpoint: Uuid,
    /// Synchronous ones are asked before their request runs for good.
    pub(crate) is_sync: bool,
    /// The system job of an asynchronous one, and whether it goes when it has succeeded.
    pub(crate) job: Option<Uuid>,
    pub(crate) deletes_job: bool,
    pub(crate) message: String,
    pub(crate) table: String,
    pub(crate) correlation: Uuid,
    /// The context as JSON.
    pub(crate) body: Arc<serde_json::Value>,
}
