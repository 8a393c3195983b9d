//! Ids of rows we create: UUID version 7, so that they sort by time and the destination's clustered
//! index grows at its end.

use std::sync::Arc;

use flowgate_core::{Clock, RunId};
use uuid::{ContextV7, Timestamp, Uuid};

/// Gives out ids that rise.
pub(crate) struct Ids {
    clock: Arc<dyn Clock>,
    context: ContextV7,
}

impl Ids {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, context: ContextV7::new() }
    }

    pub(crate) fn next(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
        Uuid::new_v7(Timestamp::from_unix(&self.context, seconds, nanoseconds))
    }

    pub(crate) fn run(&self) -> RunId {
        RunId(self.next())
    }
}
