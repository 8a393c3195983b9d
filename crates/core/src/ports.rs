//! Where parts that must not know each other meet: traits implemented by the store or the binary.

use std::time::Duration;

use crate::{Clock, ConnectorError};

/// One lane of a budget, held by one process of this host for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneLease {
    pub lane: String,
    /// Rises with each new holder; a write with an older epoch is refused.
    pub epoch: u64,
    pub until: Duration,
}

/// Shares the lanes of an identity between the processes of one host.
pub trait LaneLeases: Send + Sync {
    /// Takes or renews `lane` for `owner`; `None` while another process holds it.
    fn acquire(
        &self,
        clock: &dyn Clock,
        owner: &str,
        lane: &str,
        ttl: Duration,
    ) -> Result<Option<LaneLease>, ConnectorError>;

    fn release(&self, lease: &LaneLease) -> Result<(), ConnectorError>;
}
