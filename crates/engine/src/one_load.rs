//! One load, from its SELECT to its next state.
//!
//! Prepared, compared as a whole (module `compare`), and only then sent: part by part, each decided
//! again, sent, and folded into the files of the next state. The state becomes current when all parts
//! are through; until then the ledger alone remembers what was done.

use std::sync::Arc;

use flowgate_core::project::Load;
use flowgate_core::{LoadRows, failpoint};
use flowgate_sorted::{BucketMeta, Manifest, StateWriter};
use flowgate_store::Phase;

use crate::compare::{Compared, known_columns};
use crate::diff::Diff;
use crate::fold::fold;
use crate::letters::Letters;
use crate::load::Loader;
use crate::mapping::{KeyState, Mapping};
use crate::prepare::{Buckets, prepare};
use crate::run::{FlowRun, Scope, remove_dir};
use crate::transform::Transforms;
use crate::under_way::count;
use crate::{Event, RunError, guard, late, witness};

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
        })
    }

    /// Runs one pass of a load; returns how many references wait for the second pass.
    pub(crate) async fn run_load(
        &mut self,
        load: &Load,
        mapping: Mapping,
        transforms: &Transforms,
        pass: u8,
    ) -> Result<u64, RunError> {
        let engine = self.engine;
        let scope = self.scope(load, pass).await?;
        let started = engine.clock.elapsed();
        let mut letters = Letters::open(&scope, &mapping.metadata_version)?;
        let dir = self.run_dir().join(load.name.as_str());
        let bits = self.bits(load);
        let known = self.known(load, &mapping, bits, pass)?;
        let buckets = Buckets { dir: dir.join("buckets"), bits, known };
        let prepared = prepare(&scope, transforms, &mut letters, mapping, buckets).await?;
        let transformed = engine.clock.elapsed();
        let compared = self.compare(&scope, prepared, &letters, &dir, pass).await?;
        let deferred = compared.prepared.deferred;
        let diffed = engine.clock.elapsed();
        self.note_compared(load, &compared)?;
        // What the second pass sends belongs to changes that the first one was allowed.
        let stopped = pass == 1 && self.guard(load, &compared);
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
        Ok(if stopped { 0 } else { deferred })
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
        if counts.contradictory > 0 {
            self.engine.warn(&format!(
                "load `{}`: rows that differ from another row with the same key: {}; `latest_by:` would decide which one counts",
                load.name, counts.contradictory
            ));
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
        let keys_unknown = self.images_of(load).any(|image| image.malformed_key_unknown);
        let stop = guard::check(&load.guards, load.missing, keys_unknown, &compared.counts);
        if let Some(stop) = stop {
            self.engine.warn(&format!("load `{}`: {stop}", load.name));
            self.guards.insert(load.name.clone(), stop);
            return true;
        }
        false
    }

    /// Sends every bucket and folds the state. Returns the seconds spent on status changes.
    async fn send<'s>(
        &mut self,
        scope: &'s Scope<'s>,
        letters: &mut Letters<'s>,
        compared: Compared,
    ) -> Result<f64, RunError> {
        let load = scope.load;
        let is_last_pass = compared.is_last_pass(scope);
        let bits = compared.prepared.arrivals.bits();
        let counts = compared.counts;
        let mut totals = compared.counts.waiting();
        let manifest = compared.state.manifest().clone();
        let writer =
            StateWriter::create(&self.engine.state_dir(&self.flow.name, &load.name), manifest.version + 1, bits)?;
        let known_columns = known_columns(&compared.state);
        let sequence = manifest.sequence + 1;
        self.progress(load).phase = Phase::Loading;
        self.save()?;
        let mut metas: Vec<Option<BucketMeta>> = Vec::new();
        let mut sent = LoadSum { state_seconds: 0.0, done: 0, sequence: compared.sequence };
        let mut written = Vec::new();
        let mut removed = compared.past.deleted();
        let total = counts.create + counts.update + counts.set_state + counts.delete + counts.deactivate;
        if total > 0 {
            late::outwait(scope, manifest.unanswered).await?;
        }
        for buckets in compared.groups() {
            let diff = self.diff(load, &compared, letters, buckets)?;
            let mut loader = Loader {
                scope,
                mapping: &compared.prepared.mapping,
                letters,
                past: &compared.past,
                ledger: Arc::clone(&compared.ledger),
                ids: &self.ids,
                sequence: sent.sequence,
                done: sent.done,
                total,
                is_last_pass,
                state_seconds: 0.0,
            };
            let ends = loader.send(&diff).await?;
            sent = LoadSum {
                state_seconds: sent.state_seconds + loader.state_seconds,
                done: loader.done,
                sequence: loader.sequence,
            };
            witness::remember(&mut written, ends.written());
            removed.extend(ends.removed(&diff));
            settle(&mut totals, &diff, &count(&diff, &ends, &compared.past));
            self.progress(load).rows = totals;
            let files = (&compared.state, &writer, bits);
            metas.extend(fold(&compared.prepared.mapping, &known_columns, files, &diff, &ends, sequence)?);
        }
        if is_last_pass && totals.pending == 0 && self.sees_gone(load) {
            letters.resolve_unmet();
        }
        letters.save()?;
        if totals.pending > 0 || (is_last_pass && totals.gone_pending > 0) {
            return Ok(sent.state_seconds);
        }
        let mut next = writer.finish(&compared.prepared.mapping.schema, metas, sequence)?;
        next.witnesses = if written.is_empty() && removed.is_empty() {
            manifest.witnesses.clone()
        } else {
            let before = manifest.witnesses.as_ref();
            Some(witness::take(scope, &compared.prepared.mapping, &written, before, &removed).await?)
        };
        next.unanswered = late::unanswered(scope, manifest.unanswered, compared.past.was_stopped);
        failpoint::hit("manifest.swap")?;
        self.swap(load, &next, manifest.version, is_last_pass)?;
        failpoint::hit("manifest.swapped")?;
        flowgate_sorted::sweep(&self.engine.state_dir(&self.flow.name, &load.name), &next)?;
        self.engine.tell(Event::Loaded { load: &load.name, rows: totals });
        Ok(sent.state_seconds)
    }
}

/// Running sums over the parts of a load.
struct LoadSum {
    state_seconds: f64,
    done: u64,
    sequence: u64,
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
