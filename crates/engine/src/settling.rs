//! Whether this process has requests under way whose answers matter.
//!
//! Whoever stops a process asks here first: what the destination answers now would otherwise be found out by probing
//! in the next run. The count is one for the whole process because a signal is, too.

use std::sync::atomic::{AtomicUsize, Ordering};

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Whether a part of a load is being sent, or what was answered is being recorded.
pub fn is_settling() -> bool {
    UNDER_WAY.load(Ordering::SeqCst) > 0
}

/// Held from the first request of a part until its answers are in the ledger.
pub(crate) struct Settling(());

impl Settling {
    pub(crate) fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}
