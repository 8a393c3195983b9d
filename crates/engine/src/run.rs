//! One run of a flow, from its lease to its last equation.
//!
//! The run's record is saved after every step that a later process can go on from: each staged
//! image, each folded load. What happens within a load is in that load's ledger.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::connector::Connections;
use flowgate_core::destination::RequestCounts;
use flowgate_core::project::{Flow, Load, Lookup, Missing, Stream};
use flowgate_core::redaction::redacted;
use flowgate_core::{
    CancellationToken, Clock, Code, Destination, FlowName, KeyHash, LoadName, LoadRows, Project, WallClock,
};
use flowgate_sorted::{DEACTIVATED, Entry, Manifest, State, TOMBSTONE};
use flowgate_store::{FlowLease, ImageRecord, LoadProgress, Phase, RunRecord, RunState, Store};
use jiff::Timestamp;
use uuid::Uuid;

use crate::ids::Ids;
use crate::one_load::{Next, map};
use crate::plan::Planned;
use crate::transform::Transforms;
use crate::{Event, GuardStop, Observer, RunError};

/// How long a letter is kept after its row was last met, unless a person discarded the row: then it
/// is kept, and loses its payload.
const LETTERS_KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Runs remembered for each flow.
const RUNS_KEPT: usize = 1_000;

/// Everything a run needs from outside.
pub struct Engine {
    pub project: Arc<Project>,
    pub store: Arc<dyn Store>,
    pub connections: Arc<dyn Connections>,
    pub clock: Arc<dyn Clock>,
    pub observer: Arc<dyn Observer>,
}

/// How a run is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Read keys and mapped columns from the destination first, and take them as state.
    pub adopt: bool,
    /// Read every stream as a whole, whatever was staged before.
    pub fresh: bool,
    /// Read streams with `deletes: by_reconcile` as a whole.
    pub reconcile: bool,
}

/// How a run ended. Its record holds the counts.
#[derive(Debug)]
pub struct RunOutcome {
    pub record: RunRecord,
    pub guards: BTreeMap<LoadName, GuardStop>,
    pub error: Option<RunError>,
}

impl Engine {
    /// Runs a flow, or goes on with its unfinished run.
    ///
    /// `Err` means that the run could not even begin; whatever stops it later is in the outcome.
    pub async fn run(
        &self,
        flow: &FlowName,
        options: RunOptions,
        cancel: &CancellationToken,
    ) -> Result<RunOutcome, RunError> {
        let flow = self.flow(flow)?;
        let lease = self.store.lease_flow(&flow.name, self.clock.now())?;
        let stopped = self.stopped(flow)?;
        let record = self.begin(flow, &lease)?;
        let mut run = FlowRun::new(self, flow, &lease, record, options, cancel.clone());
        run.stopped = stopped;
        let started = self.clock.elapsed();
        let result = run.work().await;
        run.add_seconds("total", self.clock.elapsed().since(started));
        Ok(run.finish(result))
    }

    pub(crate) fn flow(&self, name: &FlowName) -> Result<&Flow, RunError> {
        self.project.flows.get(name).ok_or_else(|| {
            let known: Vec<_> = self.project.flows.keys().map(|name| format!("`{name}`")).collect();
            RunError::refused(Code::UNKNOWN_REFERENCE, format!("there is no flow `{name}`"))
                .hint(format!("there is {}", known.join(", ")))
        })
    }

    /// The record of the unfinished run, or a new one. A run that failed before it sent anything is
    /// not gone on with: what it staged may be old by now.
    pub(crate) fn begin(&self, flow: &Flow, lease: &FlowLease) -> Result<RunRecord, RunError> {
        // Only what a killed process of this flow left can be there: the lease is ours.
        remove_dir(&self.spill_dir(&flow.name))?;
        if let Some(mut record) = self.store.unfinished_run(&flow.name)?.filter(is_worth_going_on) {
            self.tell(Event::Resumed { run: record.run });
            record.state = RunState::Running;
            record.error = None;
            record.error_code = None;
            record.finished = None;
            self.store.save_run(lease, &record)?;
            return Ok(record);
        }
        let run = Ids::new(Arc::clone(&self.clock)).run();
        let record = RunRecord::begin(run, flow.name.clone(), self.project.version.clone(), self.clock.now());
        self.store.begin_run(lease, &record)?;
        Ok(record)
    }

    /// When the run that is gone on with was stopped; if it was killed, no earlier moment than now is known.
    fn stopped(&self, flow: &Flow) -> Result<Option<Timestamp>, RunError> {
        let unfinished = self.store.unfinished_run(&flow.name)?;
        Ok(unfinished.map(|record| record.finished.unwrap_or_else(|| self.clock.now())))
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        self.observer.event(event);
    }

    pub(crate) fn warn(&self, text: &str) {
        tracing::warn!("{text}");
        self.tell(Event::Warning { text });
    }

    /// Where SELECTs of one flow spill.
    pub(crate) fn spill_dir(&self, flow: &FlowName) -> PathBuf {
        self.project.staging.dir.join("spill").join(flow.as_str())
    }

    pub(crate) fn staged_path(&self, relative: &str) -> PathBuf {
        self.project.staging.dir.join(relative)
    }

    /// Where the state of a load is kept.
    pub(crate) fn state_dir(&self, flow: &FlowName, load: &LoadName) -> PathBuf {
        self.project.state_dir.join("loads").join(flow.as_str()).join(load.as_str())
    }
}

fn is_worth_going_on(record: &RunRecord) -> bool {
    record.state != RunState::Failed || record.loads.values().any(|load| load.phase >= Phase::Loading)
}

/// A run under way.
pub(crate) struct FlowRun<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) flow: &'a Flow,
    pub(crate) lease: &'a FlowLease,
    pub(crate) record: RunRecord,
    pub(crate) options: RunOptions,
    pub(crate) cancel: CancellationToken,
    pub(crate) guards: BTreeMap<LoadName, GuardStop>,
    pub(crate) destinations: BTreeMap<String, Arc<dyn Destination>>,
    pub(crate) ids: Rc<Ids>,
    /// When an earlier process of this run was stopped.
    pub(crate) stopped: Option<Timestamp>,
    /// Loads whose rows are read from the destination once more: something was still under way when they were.
    pub(crate) read_again: BTreeSet<LoadName>,
    /// Requests that are in the record, or that other runs sent over the same connections.
    requests_seen: RequestCounts,
    /// Nothing is sent; what would be is written down in `planned`.
    pub(crate) is_plan: bool,
    pub(crate) planned: Arc<Planned>,
    /// Rows that this run deletes, or deleted: no reference may point at them.
    pub(crate) leaving: Arc<HashSet<Uuid>>,
}

impl<'a> FlowRun<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        flow: &'a Flow,
        lease: &'a FlowLease,
        record: RunRecord,
        options: RunOptions,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            engine,
            flow,
            lease,
            record,
            options,
            cancel,
            guards: BTreeMap::new(),
            destinations: BTreeMap::new(),
            ids: Rc::new(Ids::new(Arc::clone(&engine.clock))),
            stopped: None,
            read_again: BTreeSet::new(),
            requests_seen: RequestCounts::default(),
            is_plan: false,
            planned: Arc::default(),
            leaving: Arc::default(),
        }
    }

    pub(crate) async fn work(&mut self) -> Result<(), RunError> {
        let flow = self.flow;
        for load in &flow.loads {
            self.destination(load).await?;
        }
        let started = self.engine.clock.elapsed();
        let staged_before = self.seconds("stage");
        self.extract().await?;
        let staging = Duration::from_secs_f64(self.seconds("stage") - staged_before);
        self.add_seconds("extract", self.engine.clock.elapsed().since(started).saturating_sub(staging));
        let transforms = self.open_transforms().await?;
        // All of them first: what is wrong with the last is known before the first sends anything.
        let mut mapped = Vec::new();
        for load in &flow.loads {
            if self.is_done(load) {
                self.check_done(load, &transforms).await.map_err(|error| error.in_load(&load.name))?;
                continue;
            }
            let mapping = map(&self.scope(load, 1).await?, &transforms).await;
            mapped.push((load, mapping.map_err(|error| error.in_load(&load.name))?));
        }
        let mut second_pass = Vec::new();
        for (load, mapping) in mapped {
            if self.run_load(load, mapping.clone(), &transforms, 1).await? == Next::SecondPass {
                second_pass.push((load, mapping));
            }
        }
        for (load, mapping) in second_pass {
            self.run_load(load, mapping, &transforms, 2).await?;
        }
        if self.is_plan { Ok(()) } else { self.require_nothing_pending() }
    }

    /// A load that an earlier process of this run had done: the destination may have gone back since.
    async fn check_done(&mut self, load: &Load, transforms: &Transforms) -> Result<(), RunError> {
        let scope = self.scope(load, 1).await?;
        let Some(state) = self.engine.open_state(&self.flow.name, &load.name)? else { return Ok(()) };
        let mapping = map(&scope, transforms).await?;
        crate::witness::check_done(&scope, &mapping, &state).await
    }

    pub(crate) async fn open_transforms(&self) -> Result<Transforms, RunError> {
        let image = |stream: &Stream| {
            let image = self.record.streams.get(&stream.name)?.image.as_ref()?;
            Some((stream.name.to_string(), self.engine.staged_path(&image.path)))
        };
        let images: Vec<_> = self.flow.streams.values().filter_map(image).collect();
        Transforms::open(&self.engine.project, self.engine.spill_dir(&self.flow.name), &images).await
    }

    fn is_done(&self, load: &Load) -> bool {
        self.record.loads.get(&load.name).is_some_and(|progress| progress.phase == Phase::Done)
    }

    /// The destination of a load, reached and found to be the right one.
    pub(crate) async fn destination(&mut self, load: &Load) -> Result<Arc<dyn Destination>, RunError> {
        if let Some(destination) = self.destinations.get(load.into.as_str()) {
            return Ok(Arc::clone(destination));
        }
        let opened = self.engine.connections.open(load.into.as_str()).await?;
        let destination = opened.destination.ok_or_else(|| {
            RunError::refused(Code::UNKNOWN_REFERENCE, format!("`{}` cannot be loaded into", load.into))
        })?;
        let before = destination.requests();
        self.requests_seen.sent += before.sent;
        self.requests_seen.throttled += before.throttled;
        destination.check().await?;
        self.destinations.insert(load.into.to_string(), Arc::clone(&destination));
        Ok(destination)
    }

    /// Saves the record; the store refuses one whose equations do not hold.
    pub(crate) fn save(&mut self) -> Result<(), RunError> {
        let mut now = RequestCounts::default();
        for destination in self.destinations.values() {
            now.sent += destination.requests().sent;
            now.throttled += destination.requests().throttled;
        }
        self.record.requests_sent += now.sent.saturating_sub(self.requests_seen.sent);
        self.record.requests_throttled += now.throttled.saturating_sub(self.requests_seen.throttled);
        self.requests_seen = now;
        Ok(self.engine.store.save_run(self.lease, &self.record)?)
    }

    pub(crate) fn add_seconds(&mut self, phase: &str, duration: Duration) {
        *self.record.seconds.entry(phase.to_owned()).or_default() += duration.as_secs_f64();
    }

    fn seconds(&self, phase: &str) -> f64 {
        self.record.seconds.get(phase).copied().unwrap_or_default()
    }

    pub(crate) fn progress(&mut self, load: &Load) -> &mut LoadProgress {
        self.record.loads.entry(load.name.clone()).or_default()
    }

    fn require_nothing_pending(&self) -> Result<(), RunError> {
        let waiting = |progress: &LoadProgress| progress.rows.pending + progress.rows.gone_pending;
        let stopped = |load: &LoadName| self.guards.contains_key(load);
        let pending: u64 =
            self.record.loads.iter().filter(|(load, _)| !stopped(load)).map(|(_, progress)| waiting(progress)).sum();
        if pending == 0 {
            return Ok(());
        }
        Err(RunError::refused(Code::SERVICE_FAILED, format!("{pending} rows have no answer yet"))
            .hint("run again: the run goes on with exactly these rows"))
    }

    fn finish(mut self, result: Result<(), RunError>) -> RunOutcome {
        let mut error = result.err();
        self.record.finished = Some(self.engine.clock.now());
        self.note_end(error.as_ref());
        match self.save() {
            Ok(()) if self.record.state.is_complete() => self.sweep(),
            Ok(()) => {}
            // What stopped the run is the cause; this is most likely a consequence of it.
            Err(unsaved) if error.is_some() => self.engine.warn(&format!("the end of the run is not saved: {unsaved}")),
            Err(unsaved) => {
                self.note_end(Some(&unsaved));
                error = Some(unsaved);
            }
        }
        RunOutcome { record: self.record, guards: self.guards, error }
    }

    fn note_end(&mut self, error: Option<&RunError>) {
        self.record.state = match error {
            Some(error) if error.is_cancelled() => RunState::Interrupted,
            Some(_) => RunState::Failed,
            None if !self.guards.is_empty() => RunState::StoppedByGuard,
            None if self.has_letters() => RunState::CompleteWithLetters,
            None => RunState::Complete,
        };
        self.record.error = error.map(|error| redacted(&error.to_string()).into_owned());
        self.record.error_code = error.map(RunError::code);
    }

    fn has_letters(&self) -> bool {
        let rows: LoadRows = self.record.rows();
        rows.has_quarantined() || self.record.streams.values().any(|stream| stream.rows.malformed > 0)
    }

    /// Where this run keeps what only it needs.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.engine.project.state_dir.join("runs").join(self.record.run.to_string())
    }

    /// A complete run is never gone on with: its ledgers have done their work. Old letters and runs go
    /// too. What cannot be removed now does not undo the run: the next complete one sweeps again.
    fn sweep(&self) {
        if let Err(error) = self.remove_what_is_done() {
            self.engine
                .warn(&format!("the run is complete, but what it no longer needs could not be removed: {error}"));
        }
    }

    fn remove_what_is_done(&self) -> Result<(), RunError> {
        remove_dir(&self.run_dir())?;
        let store = &self.engine.store;
        for image in self.record.streams.values().filter_map(|stream| stream.image.as_ref()) {
            if !image.missing_parts.is_empty() {
                // The run was complete without these files: from now on they are no longer missed.
                store.record_image(self.lease, &ImageRecord { missing_parts: Vec::new(), ..image.clone() })?;
            }
        }
        if let Ok(before) = self.engine.clock.now().checked_sub(LETTERS_KEPT) {
            store.expire_letters(before)?;
        }
        store.forget_runs(self.lease, RUNS_KEPT)?;
        Ok(())
    }
}

pub(crate) fn remove_dir(dir: &Path) -> Result<(), RunError> {
    match fs_err::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// One load within a run: what the steps of a load share.
pub(crate) struct Scope<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) flow: &'a Flow,
    pub(crate) load: &'a Load,
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) lease: &'a FlowLease,
    pub(crate) cancel: CancellationToken,
    /// Rows of the driver's image.
    pub(crate) driver_rows: Option<u64>,
    /// The first pass leaves references within a circle of tables empty; the second sets them.
    pub(crate) pass: u8,
    /// Rows that loads before this one would create, in a plan.
    pub(crate) planned: Arc<Planned>,
    /// Rows that this run deletes, or deleted: no reference may point at them.
    pub(crate) leaving: Arc<HashSet<Uuid>>,
}

/// The clock on the wall of the project.
pub(crate) fn wall_clock(project: &Project) -> Result<WallClock, RunError> {
    project.clock().map_err(|error| RunError::refused(Code::WRONG_TYPE, error.to_string()))
}

/// Whether a lookup of the load `from` points at rows that `to` loads.
fn refers_to(lookup: &Lookup, from: &Load, to: &Load) -> bool {
    from.into == to.into && lookup.rules.iter().any(|rule| rule.table == to.table)
}

impl Scope<'_> {
    pub(crate) fn store(&self) -> &dyn Store {
        self.engine.store.as_ref()
    }

    pub(crate) fn project(&self) -> &Project {
        &self.engine.project
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.engine.clock.as_ref()
    }

    /// By which local times are placed.
    pub(crate) fn wall_clock(&self) -> Result<WallClock, RunError> {
        wall_clock(&self.engine.project)
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        self.engine.tell(event);
    }

    pub(crate) fn require_not_cancelled(&self) -> Result<(), RunError> {
        if self.cancel.is_cancelled() { Err(RunError::Cancelled) } else { Ok(()) }
    }

    /// Whether a lookup may point at rows that this run has yet to load.
    pub(crate) fn is_deferred(&self, lookup: &Lookup) -> bool {
        self.pass == 1
            && (refers_to(lookup, self.load, self.load) || self.later().any(|load| refers_to(lookup, self.load, load)))
    }

    /// Whether rows of this load refer to rows that it deletes itself.
    pub(crate) fn refers_to_itself(&self) -> bool {
        self.load.lookups.values().any(|lookup| refers_to(lookup, self.load, self.load))
    }

    /// Whether a load after this one may delete rows that this one's refer to.
    pub(crate) fn refers_to_later_deletions(&self) -> bool {
        let mut deleting = self.later().filter(|load| load.missing == Missing::Delete);
        deleting.any(|load| self.load.lookups.values().any(|lookup| refers_to(lookup, self.load, load)))
    }

    /// The loads of the flow that follow this one.
    fn later(&self) -> impl Iterator<Item = &Load> {
        self.flow.loads.iter().skip_while(|load| load.name != self.load.name).skip(1)
    }

    /// Calls `note` with key and id of every row that some load of this project put into `table`
    /// under exactly these match columns, and that stays there.
    pub(crate) fn ids_in_state(
        &self,
        table: &str,
        columns: &[String],
        note: &mut dyn FnMut(KeyHash, Uuid),
    ) -> Result<(), RunError> {
        for flow in self.project().flows.values() {
            let loads = flow
                .loads
                .iter()
                .filter(|load| load.into == self.load.into && load.table == table && load.match_columns == columns);
            for load in loads {
                if flow.name == self.flow.name {
                    self.planned.ids_of(&load.name).for_each(|(key, id)| note(key, id));
                }
                let Some(state) = self.engine.open_state(&flow.name, &load.name)? else { continue };
                let bits = state.manifest().bits;
                for bucket in 0..(1_usize << bits) {
                    let index = state.bucket(bits, bucket)?.index;
                    let usable = |entry: &Entry| !entry.is_ambiguous() && !self.leaving.contains(&entry.id);
                    index.iter().filter(usable).for_each(|entry| note(entry.key, entry.id));
                }
            }
        }
        Ok(())
    }

    /// The ids of all rows that other loads of this project keep in this load's table, sorted.
    pub(crate) fn ids_of_other_loads(&self) -> Result<Vec<Uuid>, RunError> {
        let mut ids = Vec::new();
        for flow in self.project().flows.values() {
            let is_other = |load: &&Load| (&flow.name, &load.name) != (&self.flow.name, &self.load.name);
            let others = flow.loads.iter().filter(is_other);
            for load in others.filter(|load| self.project().have_one_target(self.load, load)) {
                let Some(state) = self.engine.open_state(&flow.name, &load.name)? else { continue };
                let bits = state.manifest().bits;
                for bucket in 0..(1_usize << bits) {
                    let index = state.bucket(bits, bucket)?.index;
                    ids.extend(
                        index.iter().filter(|entry| entry.flags & (TOMBSTONE | DEACTIVATED) == 0).map(|entry| entry.id),
                    );
                }
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Engine {
    /// The state of a load, if it ever had one.
    pub(crate) fn open_state(&self, flow: &FlowName, load: &LoadName) -> Result<Option<State>, RunError> {
        match self.store.manifest(flow, load)? {
            None => Ok(None),
            Some(manifest) => {
                let dir = self.state_dir(flow, load);
                let manifest = Manifest::from_json(&dir, &manifest.json)?;
                Ok(Some(State::open(&dir, manifest)))
            }
        }
    }
}
