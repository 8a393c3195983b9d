//! The right to write for a flow.

use flowgate_core::FlowName;

/// Held by the one process that runs a flow, until it is dropped or the process ends, however it ends.
///
/// Two locks in one: the operating system frees the file at once when the process dies, and the
/// epoch makes the store refuse what a process that lost the flow still tries to write.
#[derive(Debug)]
pub struct FlowLease {
    flow: FlowName,
    epoch: u64,
    /// Locked; closing it is what frees the flow.
    _lock: fs_err::File,
}

impl FlowLease {
    pub(crate) fn new(flow: FlowName, epoch: u64, lock: fs_err::File) -> Self {
        Self { flow, epoch, _lock: lock }
    }

    pub fn flow(&self) -> &FlowName {
        &self.flow
    }

    /// Rises with each holder of the flow.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}
