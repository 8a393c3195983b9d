//! A store that reads through and forgets every write: what a plan works on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flowgate_core::{Code, FlowName, LoadName, RunId, StreamName};
use flowgate_store::{
    FlowLease, ImageRecord, Letter, LetterFilter, LetterGroup, LetterMark, LetterPage, LetterSelection, ManifestRecord,
    RunRecord, Store, StoreError,
};
use jiff::Timestamp;

type Result<T> = std::result::Result<T, StoreError>;

/// Reads what `inner` holds. Manifests swapped here are seen here, and nowhere else.
#[derive(Debug)]
pub(crate) struct ForgetfulStore {
    inner: Arc<dyn Store>,
    manifests: Mutex<BTreeMap<(FlowName, LoadName), ManifestRecord>>,
}

impl ForgetfulStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, manifests: Mutex::default() }
    }
}

impl Store for ForgetfulStore {
    fn lease_flow(&self, flow: &FlowName, now: Timestamp) -> Result<FlowLease> {
        self.inner.lease_flow(flow, now)
    }

    fn begin_run(&self, _lease: &FlowLease, record: &RunRecord) -> Result<()> {
        record.check()
    }

    fn save_run(&self, _lease: &FlowLease, record: &RunRecord) -> Result<()> {
        record.check()
    }

    fn run(&self, run: RunId) -> Result<Option<RunRecord>> {
        self.inner.run(run)
    }

    fn runs(&self, flow: Option<&FlowName>, limit: usize) -> Result<Vec<RunRecord>> {
        self.inner.runs(flow, limit)
    }

    /// A plan is about the next run as a whole, not about what is left of the last.
    fn unfinished_run(&self, _flow: &FlowName) -> Result<Option<RunRecord>> {
        Ok(None)
    }

    fn forget_runs(&self, _lease: &FlowLease, _keep: usize) -> Result<u64> {
        Ok(0)
    }

    fn record_image(&self, _lease: &FlowLease, _image: &ImageRecord) -> Result<()> {
        Ok(())
    }

    fn images(&self, flow: &FlowName, stream: &StreamName) -> Result<Vec<ImageRecord>> {
        self.inner.images(flow, stream)
    }

    fn retire_images(&self, _lease: &FlowLease, _stream: &StreamName, _keep: usize) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn manifest(&self, flow: &FlowName, load: &LoadName) -> Result<Option<ManifestRecord>> {
        let own = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        match own.get(&(flow.clone(), load.clone())) {
            Some(manifest) => Ok(Some(manifest.clone())),
            None => self.inner.manifest(flow, load),
        }
    }

    fn swap_manifest(
        &self,
        lease: &FlowLease,
        load: &LoadName,
        expected: u64,
        json: &str,
        _record: Option<&RunRecord>,
    ) -> Result<()> {
        let manifest = ManifestRecord { version: expected + 1, json: json.to_owned() };
        let mut own = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert((lease.flow().clone(), load.clone()), manifest);
        Ok(())
    }

    fn save_letters(&self, _lease: &FlowLease, _letters: &[Letter]) -> Result<()> {
        Ok(())
    }

    fn resolve_letters(&self, _lease: &FlowLease, _ids: &[String]) -> Result<u64> {
        Ok(0)
    }

    fn touch_letters(&self, _lease: &FlowLease, _ids: &[String], _now: Timestamp) -> Result<u64> {
        Ok(0)
    }

    fn resolve_unmet_letters(&self, _lease: &FlowLease, _place: &str, _code: Code, _before: Timestamp) -> Result<u64> {
        Ok(0)
    }

    fn letter(&self, id: &str) -> Result<Option<Letter>> {
        self.inner.letter(id)
    }

    fn letters(&self, filter: &LetterFilter, after: Option<u64>, limit: usize) -> Result<LetterPage> {
        self.inner.letters(filter, after, limit)
    }

    fn count_letters(&self, filter: &LetterFilter) -> Result<u64> {
        self.inner.count_letters(filter)
    }

    fn letter_groups(&self, flow: Option<&FlowName>) -> Result<Vec<LetterGroup>> {
        self.inner.letter_groups(flow)
    }

    fn letters_of(&self, flow: &FlowName, place: &str) -> Result<Vec<LetterMark>> {
        self.inner.letters_of(flow, place)
    }

    fn request_retry(&self, _selection: &LetterSelection) -> Result<u64> {
        Ok(0)
    }

    fn discard(&self, _selection: &LetterSelection) -> Result<u64> {
        Ok(0)
    }

    fn correct_letters(&self, _lease: &FlowLease, _now: Timestamp) -> Result<u64> {
        Ok(0)
    }

    fn expire_letters(&self, _before: Timestamp) -> Result<u64> {
        Ok(0)
    }
}
