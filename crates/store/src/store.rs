//! The contract of durable state. `tests/it/conformance.rs` holds every clause of it.

use flowgate_core::{Code, FlowName, LoadName, RunId, StreamName};
use jiff::Timestamp;

use crate::{
    FlowLease, ImageRecord, Letter, LetterFilter, LetterGroup, LetterMark, LetterPage, LetterSelection, ManifestRecord,
    RunRecord, StoreError,
};

/// Durable state, shared by the processes of one host.
///
/// Methods block, for one disk sync at most when they write; call them where that is allowed. What
/// returned `Ok` survives a power cut. After [`StoreError::SyncFailed`] the process must stop:
/// nobody knows what is on the disk until the file is opened again.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Takes the flow for this process, or says who holds it.
    fn lease_flow(&self, flow: &FlowName, now: Timestamp) -> Result<FlowLease, StoreError>;

    /// Stores a new run. Runs of the flow that are running or interrupted become abandoned:
    /// to go on with one, save it instead.
    fn begin_run(&self, lease: &FlowLease, record: &RunRecord) -> Result<(), StoreError>;

    /// Stores the whole record if its equations hold.
    fn save_run(&self, lease: &FlowLease, record: &RunRecord) -> Result<(), StoreError>;

    fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError>;

    /// The newest runs first, of one flow or of all.
    fn runs(&self, flow: Option<&FlowName>, limit: usize) -> Result<Vec<RunRecord>, StoreError>;

    fn last_run(&self, flow: &FlowName) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.runs(Some(flow), 1)?.pop())
    }

    /// The run that the next one goes on from: the newest, unless it came to an end.
    fn unfinished_run(&self, flow: &FlowName) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.last_run(flow)?.filter(|record| record.state.is_unfinished()))
    }

    /// Forgets all but the newest `keep` runs of the flow; returns how many were forgotten.
    fn forget_runs(&self, lease: &FlowLease, keep: usize) -> Result<u64, StoreError>;

    /// Makes `image` the stream's current one. Its file must be durable by then.
    fn record_image(&self, lease: &FlowLease, image: &ImageRecord) -> Result<(), StoreError>;

    /// The images of a stream, newest first. A file that none of them names can be swept.
    fn images(&self, flow: &FlowName, stream: &StreamName) -> Result<Vec<ImageRecord>, StoreError>;

    fn current_image(&self, flow: &FlowName, stream: &StreamName) -> Result<Option<ImageRecord>, StoreError> {
        Ok(self.images(flow, stream)?.into_iter().next())
    }

    /// Forgets all but the newest `keep` images of a stream; returns the paths of files to remove.
    fn retire_images(&self, lease: &FlowLease, stream: &StreamName, keep: usize) -> Result<Vec<String>, StoreError>;

    fn manifest(&self, flow: &FlowName, load: &LoadName) -> Result<Option<ManifestRecord>, StoreError>;

    /// Replaces the manifest of version `expected` (0: there is none) by `json` as the next version,
    /// together with `record` if given: both or none.
    fn swap_manifest(
        &self,
        lease: &FlowLease,
        load: &LoadName,
        expected: u64,
        json: &str,
        record: Option<&RunRecord>,
    ) -> Result<(), StoreError>;

    /// Adds letters, or brings those that are there up to date: `first_at` stays, attempts add up,
    /// and a discarded letter stays discarded while its row is the same.
    fn save_letters(&self, lease: &FlowLease, letters: &[Letter]) -> Result<(), StoreError>;

    /// Removes letters whose rows were loaded since; returns how many there were.
    fn resolve_letters(&self, lease: &FlowLease, ids: &[String]) -> Result<u64, StoreError>;

    /// Notes that the rows of these letters were met again and left out; returns how many there were.
    fn touch_letters(&self, lease: &FlowLease, ids: &[String], now: Timestamp) -> Result<u64, StoreError>;

    /// Removes letters without a key of `place` with this code that were last met before `before`:
    /// whoever calls has met all there are. Returns how many there were.
    fn resolve_unmet_letters(
        &self,
        lease: &FlowLease,
        place: &str,
        code: Code,
        before: Timestamp,
    ) -> Result<u64, StoreError>;

    /// The letter with this id, or the only one whose id begins with it (8 characters at least).
    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError>;

    /// At most `limit` letters, from the place that the last page ended at.
    fn letters(&self, filter: &LetterFilter, after: Option<u64>, limit: usize) -> Result<LetterPage, StoreError>;

    fn count_letters(&self, filter: &LetterFilter) -> Result<u64, StoreError>;

    /// Counts by place, code and status, the largest first.
    fn letter_groups(&self, flow: Option<&FlowName>) -> Result<Vec<LetterGroup>, StoreError>;

    /// What a run of the load must know of its letters, in the order of their keys.
    fn letters_of(&self, flow: &FlowName, place: &str) -> Result<Vec<LetterMark>, StoreError>;

    /// Asks that the next run tries these rows again; returns how many letters there were.
    fn request_retry(&self, selection: &LetterSelection) -> Result<u64, StoreError>;

    /// Decides that these rows stay out until they change; returns how many letters there were.
    fn discard(&self, selection: &LetterSelection) -> Result<u64, StoreError>;

    /// Makes letters of the flow that say they were met after `now` as old as `now`: they were written under a wrong
    /// clock, and would never be old enough to go. Returns how many there were.
    fn correct_letters(&self, lease: &FlowLease, now: Timestamp) -> Result<u64, StoreError>;

    /// Removes letters last met before `before`; returns how many there were. A discarded letter of a
    /// row stays, because the row is left out for as long as it stays; only its payload goes.
    fn expire_letters(&self, before: Timestamp) -> Result<u64, StoreError>;
}
