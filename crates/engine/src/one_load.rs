//! One load, from its SELECT to its next state.
//!
//! Prepared, compared as a whole (module `compare`), and only then sent: part by part, each decided
//! again, sent, and folded into the files of the next state. The state becomes current when all parts
//! are through; until then the ledger alone remembers what was done.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use flowgate_core::project::Load;
use flowgate_core::{KeyHash, LoadRows, failpoint};
use flowgate_sorted::{BucketMeta, Manifest, StateWriter};
use flowgate_store::Phase;
use uuid::Uuid;

use crate::compare::{Compared, known_columns};
use crate::diff::Diff;
use crate::fold::fold;
use crate::guard::{Lacking, StreamRows};
use crate::letters::Letters;
use crate::load::Loader;
use crate::mapping::{KeyState, Mapping};
use crate::prepare::{Buckets, prepare};
use crate::run::{FlowRun, Scope, remove_dir};
use crate::transform::Transforms;
use crate::under_way::count;
use crate::witness::Recent;
use crate::{Event, RunError, guard, late, witness};

/// What follows the pass of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Done,
    SecondPass,
}

impl<'a> FlowRun<'a> {
    /// What the steps of one pass of a load share.
    pub(crate) async fn scope<'s>(&mut self, load: &'s Load, pass: u8) -> Result<Scope<'s>, RunError>
    where
        'a: 's,
    {
        Ok(Scope {
            engine: self.engine,
            flow: self.flow,
            load,
            destination: self.destination(load).await?,
            lease: self.lease,
            cancel: self.cancel.clone(),
            driver_rows: self.driver_rows(load),
            pass,
            planned: Arc::clone(&self.planned),
            leaving: Arc::clone(&self.leaving),
        })
    }

    /// Runs one pass of a load; says whether references wait for the second pass.
    pub(crate) async fn run_load(
        &mut self,
        load: &Load,
        mapping: Mapping,
        transforms: &Transforms,
        pass: u8,
    ) -> Result<Next, RunError> {
        let engine = self.engine;
        let scope = self.scope(load, pass).await?;
        let started = engine.clock.elapsed();
        let mut letters = Letters::open(&scope, &mapping.metadata_version)?;
        let dir = self.run_dir().join(load.name.as_str());
        let last = self.last_state(&scope)?;
        let bits = self.bits(load, last.as_ref());
        let known = self.known(&scope, &mapping, last.as_ref(), bits)?;
        let buckets = Buckets { dir: dir.join("buckets"), bits, known };
        let prepared = prepare(&scope, transforms, &mut letters, mapping, buckets).await?;
        let transformed = engine.clock.elapsed();
        let mut compared = self.compare(&scope, prepared, last, &letters, &dir).await?;
        if !self.is_plan && compared.counts.to_send() > 0 && self.may_be_written(&scope, &compared).await? {
            late::outwait_unknown(&scope).await?;
            self.read_again.insert(load.name.clone());
            let Compared { prepared, state, .. } = compared;
            compared = self.compare(&scope, prepared, Some(state), &letters, &dir).await?;
        }
        let diffed = engine.clock.elapsed();
        self.note_compared(load, &compared)?;
        // What the second pass sends belongs to changes that the first one was allowed.
        let stopped = pass == 1 && self.guard(load, &compared);
        let next = if stopped || compared.is_last_pass(&scope) { Next::Done } else { Next::SecondPass };
        if !stopped {
            Arc::make_mut(&mut self.leaving).extend(&compared.leaving);
        }
        let state_seconds = if self.is_plan {
            let (plan, creates) = self.plan_load(&scope, &compared, &letters)?;
            self.keep_plan(load, plan, creates);
            0.0
        } else if stopped {
            0.0
        } else {
            self.send(&scope, &mut letters, compared).await?
        };
        let loaded = engine.clock.elapsed();
        self.add_seconds("transform", transformed.since(started));
        self.add_seconds("diff", diffed.since(transformed));
        self.add_seconds("load", loaded.since(diffed));
        if state_seconds > 0.0 {
            *self.record.seconds.entry("state".to_owned()).or_default() += state_seconds;
        }
        self.save()?;
        remove_dir(&dir.join("buckets"))?;
        Ok(next)
    }

    fn driver_rows(&self, load: &Load) -> Option<u64> {
        let driver = load.driver.as_ref()?;
        let image = self.record.streams.get(driver)?.image.as_ref()?;
        Some(image.rows)
    }

    /// Makes the next state current and the load done in one transaction. Until then neither is: a load that was
    /// taken for done without its state would send everything again.
    fn swap(&mut self, load: &Load, manifest: &Manifest, expected: u64, is_done: bool) -> Result<(), RunError> {
        let mut record = self.record.clone();
        if is_done {
            record.loads.entry(load.name.clone()).or_default().phase = Phase::Done;
        }
        self.engine.store.swap_manifest(self.lease, &load.name, expected, &manifest.to_json()?, Some(&record))?;
        self.record = record;
        Ok(())
    }

    fn note_compared(&mut self, load: &Load, compared: &Compared) -> Result<(), RunError> {
        let counts = compared.counts;
        let prepared = &compared.prepared;
        for warning in compared.examples.warnings(&counts) {
            self.engine.warn(&format!("load `{}`: {warning}", load.name));
        }
        let progress = self.progress(load);
        progress.phase = Phase::Diffed;
        progress.rows = counts.waiting();
        progress.driver_keys = prepared.driver_keys;
        progress.represented = prepared.represented;
        self.save()?;
        self.engine.tell(Event::Diffed { load: &load.name, counts });
        Ok(())
    }

    fn guard(&mut self, load: &Load, compared: &Compared) -> bool {
        let lacking = Lacking {
            // A prepared row without a key may be any of those that look gone.
            keys_unknown: compared.prepared.keyless > 0
                || self.images_of(load).any(|image| image.malformed_key_unknown),
            doubt: self.images_of(load).find_map(|image| image.doubt.clone()),
            files: self.missing_files(load),
        };
        let stop = guard::emptied(&self.stream_rows(load, compared.state.manifest()), &compared.counts)
            .or_else(|| guard::check(&load.guards, load.missing, &lacking, &compared.counts));
        if let Some(stop) = stop {
            self.engine.warn(&format!("load `{}`: {stop}", load.name));
            self.guards.insert(load.name.clone(), stop);
            return true;
        }
        false
    }

    /// Files that gave rows before and give none now. A stream that may be empty, and is, lacks none.
    fn missing_files(&self, load: &Load) -> Vec<String> {
        let may_be_empty = |name| self.flow.streams.get(name).is_some_and(|stream| stream.may_be_empty);
        let lacking = self.streams_of(load).filter(|(name, image)| image.rows > 0 || !may_be_empty(*name));
        lacking.flat_map(|(_, image)| image.missing_parts.iter().cloned()).collect()
    }

    /// The rows of the streams that the load reads, now and when they last had any.
    fn stream_rows<'b>(&'b self, load: &Load, last: &Manifest) -> Vec<StreamRows<'b>> {
        let streams = self.streams_of(load).map(|(name, image)| StreamRows {
            name: name.as_str(),
            now: image.rows,
            last: last.streams.get(name.as_str()).copied().unwrap_or_default(),
            may_be_empty: self.flow.streams.get(name).is_some_and(|stream| stream.may_be_empty),
        });
        streams.collect()
    }

    /// Sends every part and makes the next state current. Returns the seconds spent on status changes.
    async fn send<'s>(
        &mut self,
        scope: &'s Scope<'s>,
        letters: &mut Letters<'s>,
        mut compared: Compared,
    ) -> Result<f64, RunError> {
        let load = scope.load;
        let is_last_pass = compared.is_last_pass(scope);
        self.outwait_stopped(scope, &mut compared).await?;
        let manifest = compared.state.manifest();
        if compared.counts.to_send() > 0 {
            late::outwait(scope, manifest.unanswered).await?;
            self.progress(load).stopped = None;
        }
        self.progress(load).phase = Phase::Loading;
        self.save()?;
        let dir = self.engine.state_dir(&self.flow.name, &load.name);
        let writer = StateWriter::create(&dir, manifest.version + 1, compared.prepared.arrivals.bits())?;
        let sent = self.send_parts(scope, letters, &compared, &writer).await?;
        if is_last_pass && sent.rows.pending == 0 && self.sees_gone(load) {
            letters.resolve_unmet();
        }
        letters.save()?;
        if sent.rows.pending == 0 && !(is_last_pass && sent.rows.gone_pending > 0) {
            self.make_current(scope, &compared, writer, &sent).await?;
            self.engine.tell(Event::Loaded { load: &load.name, rows: sent.rows });
        }
        Ok(sent.state_seconds)
    }

    /// Decides, sends and folds one part after the other.
    async fn send_parts<'s>(
        &mut self,
        scope: &'s Scope<'s>,
        letters: &mut Letters<'s>,
        compared: &Compared,
        writer: &StateWriter,
    ) -> Result<Sent, RunError> {
        let load = scope.load;
        let mapping = &compared.prepared.mapping;
        let known_columns = known_columns(&compared.state);
        let files = (&compared.state, writer, compared.prepared.arrivals.bits());
        let sequence = compared.state.manifest().sequence + 1;
        let mut sent = Sent {
            rows: compared.counts.waiting(),
            metas: Vec::new(),
            recent: Recent::default(),
            removed: compared.past.deleted(),
            replaced: HashSet::new(),
            state_seconds: 0.0,
        };
        sent.recent.wrote(compared.past.sample().iter().copied());
        sent.recent.removed_before(compared.past.removed_last().copied());
        let mut loader = Loader {
            scope,
            mapping,
            letters,
            past: &compared.past,
            ledger: Arc::clone(&compared.ledger),
            ids: Rc::clone(&self.ids),
            sequence: compared.sequence,
            done: 0,
            recent: std::mem::take(&mut sent.recent),
            total: compared.counts.to_send(),
            is_last_pass: compared.is_last_pass(scope),
            state_seconds: 0.0,
        };
        for buckets in compared.groups() {
            let diff = self.diff(load, compared, loader.letters, buckets)?;
            let ends = loader.send(&diff).await?;
            sent.removed.extend(ends.removed(&diff));
            sent.replaced.extend(ends.replaced(&diff, &compared.past));
            settle(&mut sent.rows, &diff, &count(&diff, &ends, &compared.past));
            self.progress(load).rows = sent.rows;
            sent.metas.extend(fold(mapping, &known_columns, files, &diff, &ends, sequence)?);
        }
        sent.recent = std::mem::take(&mut loader.recent);
        Ok(Sent { state_seconds: loader.state_seconds, ..sent })
    }

    /// Swaps the next state in, and removes the files that only the last one needed.
    async fn make_current(
        &mut self,
        scope: &Scope<'_>,
        compared: &Compared,
        writer: StateWriter,
        sent: &Sent,
    ) -> Result<(), RunError> {
        let load = scope.load;
        let mapping = &compared.prepared.mapping;
        let manifest = compared.state.manifest();
        let mut next = writer.finish(&mapping.schema, sent.metas.clone(), manifest.sequence + 1)?;
        next.witnesses = if sent.recent.has_written() || manifest.witnesses.is_none() {
            let Sent { recent, removed, replaced, .. } = sent;
            let done = witness::Done { recent, removed, looked: &compared.looked, replaced };
            Some(witness::take(scope, mapping, manifest, &done, next.sequence).await?)
        } else {
            witness::keep(scope, manifest)?
        };
        // An empty stream that was not meant to be does not make the next one look meant.
        let streams = self.stream_rows(load, manifest).into_iter();
        let rows =
            |stream: &StreamRows<'_>| if stream.now > 0 || stream.may_be_empty { stream.now } else { stream.last };
        next.streams = streams.map(|stream| (stream.name.to_owned(), rows(&stream))).collect();
        next.unanswered = late::unanswered(scope, manifest.unanswered, compared.past.was_stopped);
        failpoint::hit("manifest.swap")?;
        self.swap(load, &next, manifest.version, compared.is_last_pass(scope))?;
        failpoint::hit("manifest.swapped")?;
        flowgate_sorted::sweep(&self.engine.state_dir(&self.flow.name, &load.name), &next)?;
        Ok(())
    }
}

/// What sending all parts came to.
struct Sent {
    rows: LoadRows,
    /// By bucket, of the next state.
    metas: Vec<Option<BucketMeta>>,
    /// The rows that were written and deleted last, and all that were deleted.
    recent: Recent,
    removed: HashSet<Uuid>,
    /// Keys whose rows were deleted there and that were written anew.
    replaced: HashSet<KeyHash>,
    state_seconds: f64,
}

/// Reads the live shape and fits the SELECT to it.
pub(crate) async fn map(scope: &Scope<'_>, transforms: &Transforms) -> Result<Mapping, RunError> {
    let select = transforms.select(scope.load).await?;
    let shape = scope.destination.describe(&scope.load.table).await?;
    let mapping = Mapping::build(scope.load, &select.schema, shape)?;
    match mapping.key_state() {
        KeyState::Active => {}
        KeyState::Building(name) => {
            return Err(RunError::refused(
                flowgate_core::Code::KEY_NOT_ACTIVE,
                format!("the alternate key `{name}` of `{}` is not active yet", scope.load.table),
            )
            .hint(
                "its index is still being built, or failed because of duplicates: look at the key in the environment",
            ));
        }
        KeyState::None => scope.engine.warn(&format!(
            "load `{}`: no alternate key of `{}` covers `{}`, so nothing there keeps others from adding duplicates",
            scope.load.name,
            scope.load.table,
            scope.load.match_columns.join("`, `")
        )),
    }
    Ok(mapping)
}

/// Replaces what the diff expected of a part by what became of it.
fn settle(totals: &mut LoadRows, diff: &Diff, ended: &LoadRows) {
    let expected = diff.counts.waiting();
    totals.created += ended.created;
    totals.updated += ended.updated;
    totals.unchanged = totals.unchanged - expected.unchanged + ended.unchanged;
    totals.quarantined = totals.quarantined - expected.quarantined + ended.quarantined;
    totals.pending = totals.pending - expected.pending + ended.pending;
    totals.deleted += ended.deleted;
    totals.deactivated += ended.deactivated;
    totals.kept = totals.kept - expected.kept + ended.kept;
    totals.gone_pending = totals.gone_pending - expected.gone_pending + ended.gone_pending;
    totals.gone_quarantined += ended.gone_quarantined;
}
