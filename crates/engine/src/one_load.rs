//! One load, from its SELECT to its next state.
//!
//! Digests are sifted once; what they do not settle is decided twice: first to count, so that guards
//! and the person watching know everything before the first byte is sent, then part by part together
//! with sending. Both passes decide alike, because they read the same rows, the same state and the
//! same ledger.

use std::ops::Range;
use std::sync::Arc;

use flowgate_core::destination::Changes;
use flowgate_core::project::{Deletes, Load};
use flowgate_core::{KeyHash, LoadRows, failpoint};
use flowgate_sorted::{
    BucketMeta, Known, Manifest, RowSet, Sifted, SortedError, Spill, SpillWriter, State, StateBucket, StateWriter,
    bits_for, sift,
};
use flowgate_store::Phase;
use flowgate_store::ledger::LedgerWriter;

use crate::adopt::{Adopted, adopt};
use crate::diff::{Diff, Differ, Part};
use crate::fold::fold;
use crate::ledger::{self, Past};
use crate::letters::Letters;
use crate::load::{Loader, count};
use crate::mapping::{KeyState, Mapping};
use crate::prepare::{Buckets, Prepared, as_prepared, prepare};
use crate::run::{FlowRun, Scope, remove_dir};
use crate::transform::Transforms;
use crate::{DiffCounts, Event, RunError, guard, late, witness};

/// Rows that are decided and sent together: enough to keep every lane busy, few enough to hold in memory.
const PART_ROWS_GOAL: u64 = 262_144;

/// Memory in which the state waits for rows to arrive: room for 16 million.
const KNOWN_BYTES_MAX: usize = 192 << 20;

/// A load that is prepared and compared, before anything is sent.
pub(crate) struct Compared {
    pub(crate) prepared: Prepared,
    /// By bucket.
    sifted: Vec<Sifted>,
    /// Rows that are not settled.
    spill: Spill,
    pub(crate) state: State,
    pub(crate) past: Past,
    pub(crate) ledger: Arc<LedgerWriter>,
    pub(crate) sequence: u64,
    pub(crate) counts: DiffCounts,
    pub(crate) adopted: Option<u64>,
}

impl FlowRun<'_> {
    /// Runs one pass of a load; returns how many references wait for the second pass.
    pub(crate) async fn run_load(&mut self, load: &Load, transforms: &Transforms, pass: u8) -> Result<u64, RunError> {
        let destination = self.destination(load).await?;
        let engine = self.engine;
        let scope = Scope {
            engine,
            flow: self.flow,
            load,
            destination,
            lease: self.lease,
            cancel: self.cancel.clone(),
            driver_rows: self.driver_rows(load),
            pass,
            planned: Arc::clone(&self.planned),
        };
        let started = engine.clock.elapsed();
        let mapping = map(&scope, transforms).await?;
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

    /// Into how many buckets (2^bits) the load is cut: as its state is, unless that is far from what fits its rows.
    fn bits(&self, load: &Load) -> u8 {
        let staged = self.images_of(load).map(|image| image.rows).max().unwrap_or_default();
        match self.engine.open_state(&self.flow.name, &load.name).ok().flatten() {
            None => bits_for(staged),
            Some(state) => {
                let fitting = bits_for(staged.max(state.manifest().rows()));
                let stored = state.manifest().bits;
                if stored.abs_diff(fitting) <= 1 { stored } else { fitting }
            }
        }
    }

    /// What settles rows as they arrive. Nothing does where the state is to be read anew, or is not all that a row was:
    /// of several rows with one key, and under column rules, more than the state has may be needed.
    fn known(&self, load: &Load, mapping: &Mapping, bits: u8, pass: u8) -> Result<Known, RunError> {
        let is_read_anew = self.options.adopt && pass == 1;
        if is_read_anew || mapping.latest_position.is_some() || !mapping.state_is_as_prepared() {
            return Ok(Known::nothing());
        }
        // What is wrong with a state is said when rows are compared with it.
        match self.engine.open_state(&self.flow.name, &load.name).ok().flatten() {
            Some(state) => Ok(Known::read(&state, bits, KNOWN_BYTES_MAX)?),
            None => Ok(Known::nothing()),
        }
    }

    /// The images of the streams that the load's SELECT reads.
    fn images_of<'b>(&'b self, load: &Load) -> impl Iterator<Item = &'b flowgate_store::ImageRecord> {
        let tables = flowgate_sql::inspect(&load.sql.text).map(|found| found.tables).unwrap_or_default();
        let streams =
            self.record.streams.iter().filter(move |(name, _)| tables.iter().any(|table| table == name.as_str()));
        streams.filter_map(|(_, progress)| progress.image.as_ref())
    }

    async fn compare(
        &mut self,
        scope: &Scope<'_>,
        mut prepared: Prepared,
        letters: &Letters<'_>,
        dir: &std::path::Path,
        pass: u8,
    ) -> Result<Compared, RunError> {
        let load = scope.load;
        let last = self.last_state(load, pass)?;
        let must_adopt = last.is_none() || (self.options.adopt && pass == 1);
        let (state, adopted) = if must_adopt {
            let (state, rows) = self.adopt(scope, &prepared, last.as_ref(), dir).await?;
            (state, Some(rows))
        } else {
            (last.ok_or(RunError::Defect("a state that is not there"))?, None)
        };
        let version = self.engine.store.manifest(&self.flow.name, &load.name)?.map_or(0, |manifest| manifest.version);
        let (ledger, mut past, sequence) = ledger::open(dir, pass, version, adopted.is_some()).await?;
        failpoint::hit("recovery.replayed")?;
        if adopted.is_none() && pass == 1 {
            witness::check(scope, &prepared.mapping, state.manifest(), &past.removed()).await?;
        }
        confirm_creates(scope, &prepared, &mut past).await?;
        failpoint::hit("recovery.confirmed")?;
        let (sifted, spill) = sifted(&mut prepared, &state, &past)?;
        let mut compared = Compared {
            prepared,
            sifted,
            spill,
            state,
            past,
            ledger: Arc::new(ledger),
            sequence,
            counts: DiffCounts::default(),
            adopted,
        };
        let mut counts = DiffCounts::default();
        for buckets in compared.groups() {
            scope.require_not_cancelled()?;
            add(&mut counts, &self.diff(load, &compared, letters, buckets)?.counts);
        }
        counts.prepared += compared.prepared.keyless;
        if counts.prepared != compared.prepared.prepared {
            return Err(RunError::Defect("the buckets do not hold every prepared row"));
        }
        counts.quarantined += compared.prepared.keyless;
        counts.dropped = compared.prepared.driver_keys.unwrap_or_default() - compared.prepared.represented;
        compared.counts = counts;
        Ok(compared)
    }

    /// The state before this run. Of one whose manifest is damaged only the version is left, which is enough to
    /// adopt a new one after it.
    fn last_state(&self, load: &Load, pass: u8) -> Result<Option<State>, RunError> {
        let (engine, flow) = (self.engine, &self.flow.name);
        match engine.open_state(flow, &load.name) {
            Err(RunError::State(SortedError::Damaged { .. } | SortedError::Older { .. }))
                if self.options.adopt && pass == 1 =>
            {
                engine.warn(&format!(
                    "load `{}`: the list of its state's files is damaged; rows that left the source stay at the destination",
                    load.name
                ));
                let version = engine.store.manifest(flow, &load.name)?.map_or(0, |record| record.version);
                let mut manifest = Manifest::empty();
                manifest.version = version;
                Ok(Some(State::open(&engine.state_dir(flow, &load.name), manifest)))
            }
            last => last,
        }
    }

    /// Takes what the table holds as state, durably. A plan keeps it only for itself.
    async fn adopt(
        &mut self,
        scope: &Scope<'_>,
        prepared: &Prepared,
        last: Option<&State>,
        dir: &std::path::Path,
    ) -> Result<(State, u64), RunError> {
        let state_dir =
            if self.is_plan { dir.join("state") } else { self.engine.state_dir(&self.flow.name, &scope.load.name) };
        let Adopted { manifest, rows, ambiguous, lost } =
            adopt(scope, prepared, last, &state_dir, &dir.join("adopted")).await?;
        remove_dir(&dir.join("adopted"))?;
        if ambiguous > 0 {
            self.engine.warn(&format!(
                "load `{}`: {ambiguous} keys stand for more than one row of `{}`; those rows are not touched",
                scope.load.name, scope.load.table
            ));
        }
        if lost > 0 {
            self.engine.warn(&format!(
                "load `{}`: the keys of {lost} rows were lost with the damaged state; those that left the source stay at the destination",
                scope.load.name
            ));
        }
        let version = last.map_or(0, |state| state.manifest().version);
        self.engine.store.swap_manifest(self.lease, &scope.load.name, version, &manifest.to_json()?, None)?;
        Ok((State::open(&state_dir, manifest), rows))
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

    pub(crate) fn diff(
        &self,
        load: &Load,
        compared: &Compared,
        letters: &Letters<'_>,
        buckets: Range<usize>,
    ) -> Result<Diff, RunError> {
        let known_columns = known_columns(&compared.state);
        let differ = Differ {
            load,
            mapping: &compared.prepared.mapping,
            letters,
            past: &compared.past,
            known_columns: &known_columns,
            sees_gone: self.sees_gone(load),
        };
        differ.decide(compared.prepared.arrivals.bits(), compared.part(buckets)?)
    }

    /// A row that is not prepared is gone only if every stream it may come from shows deletes.
    fn sees_gone(&self, load: &Load) -> bool {
        let unseen = |image: &flowgate_store::ImageRecord| {
            self.flow.streams.get(&image.stream).is_some_and(|stream| stream.deletes == Deletes::Unseen)
        };
        !self.images_of(load).any(unseen)
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
        let mut removed = compared.past.removed();
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
                leaves_gone: !is_last_pass,
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

impl Compared {
    /// Whether no reference waits for another pass.
    fn is_last_pass(&self, scope: &Scope<'_>) -> bool {
        scope.pass == 2 || self.prepared.deferred == 0
    }

    /// Consecutive buckets, in groups that are decided and sent together.
    pub(crate) fn groups(&self) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for bucket in 0..self.sifted.len() {
            let more = self.spill.bucket_rows(bucket) + self.sifted[bucket].touched.count();
            match groups.last_mut() {
                Some(group) if rows + more <= PART_ROWS_GOAL => group.end = bucket + 1,
                _ => {
                    groups.push(bucket..bucket + 1);
                    rows = 0;
                }
            }
            rows += more;
        }
        groups
    }

    fn part(&self, buckets: Range<usize>) -> Result<Part, RunError> {
        let bits = self.prepared.arrivals.bits();
        let mut old = StateBucket::default();
        let sifted = &self.sifted[buckets.clone()];
        for (bucket, sifted) in buckets.clone().zip(sifted).filter(|(_, sifted)| sifted.touched.count() > 0) {
            old.append(self.state.bucket(bits, bucket)?.only(&sifted.touched));
        }
        Ok(Part {
            new: self.spill.buckets(buckets.clone())?,
            buckets,
            old,
            settled: sifted.iter().map(|bucket| bucket.settled).sum(),
            in_state: sifted.iter().map(|bucket| bucket.in_state).sum(),
        })
    }
}

/// What digests settle of each bucket, and the rows that they do not.
fn sifted(prepared: &mut Prepared, state: &State, past: &Past) -> Result<(Vec<Sifted>, Spill), RunError> {
    let known = prepared.arrivals.take_known();
    let arrivals = &prepared.arrivals;
    let is_open = |key| past.knows(key);
    let is_open: Option<&dyn Fn(KeyHash) -> bool> = if past.is_empty() { None } else { Some(&is_open) };
    let mut wanted = RowSet::none(arrivals.rows() as usize);
    let mut sifted = Vec::with_capacity(arrivals.buckets());
    for bucket in 0..arrivals.buckets() {
        sifted.push(sift((arrivals, &known), state, bucket, is_open, &mut wanted)?);
    }
    drop(known);
    let mut spill = arrivals.keep(&wanted)?;
    for (bucket, sifted) in sifted.iter().enumerate().filter(|(_, sifted)| sifted.recalled.count() > 0) {
        recall(&mut spill, prepared, &state.bucket(arrivals.bits(), bucket)?.only(&sifted.recalled))?;
    }
    Ok((sifted, spill.finish()?))
}

/// Brings rows that did not wait among those that are looked at: the state holds them as they arrived.
fn recall(spill: &mut SpillWriter, prepared: &Prepared, rows: &StateBucket) -> Result<(), RunError> {
    let values = rows.values(&prepared.mapping.schema)?;
    let arrived = as_prepared(prepared.arrivals.schema(), &values)?;
    Ok(spill.push(&arrived, &rows.index.keys, &rows.index.row_hashes)?)
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

/// Asks the destination which of the creates without an answer are there.
async fn confirm_creates(scope: &Scope<'_>, prepared: &Prepared, past: &mut Past) -> Result<(), RunError> {
    if past.unanswered_creates.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = past.unanswered_creates.values().map(|(id, _)| *id).collect();
    let there = scope.destination.probe(&prepared.mapping.shape, &ids).await?;
    let keys: Vec<_> =
        past.unanswered_creates.iter().filter(|(_, (id, _))| there.contains(id)).map(|(key, _)| *key).collect();
    for key in keys {
        past.confirm_create(key);
    }
    Ok(())
}

fn known_columns(state: &State) -> Vec<String> {
    state.manifest().columns.iter().map(|column| column.name.clone()).collect()
}

fn add(sum: &mut DiffCounts, counts: &DiffCounts) {
    sum.prepared += counts.prepared;
    sum.create += counts.create;
    sum.update += counts.update;
    sum.set_state += counts.set_state;
    sum.unchanged += counts.unchanged;
    sum.superseded += counts.superseded;
    sum.contradictory += counts.contradictory;
    sum.quarantined += counts.quarantined;
    sum.gone += counts.gone;
    sum.delete += counts.delete;
    sum.deactivate += counts.deactivate;
    sum.keep += counts.keep;
    sum.in_state += counts.in_state;
}

/// Replaces what the diff expected of a bucket by what became of it.
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

/// What [`FlowRun::note_plan`] needs to know about the rows of a load.
pub(crate) fn changes(counts: &DiffCounts) -> Changes {
    Changes {
        create: counts.create,
        update: counts.update,
        set_state: counts.set_state,
        deactivate: counts.deactivate,
        delete: counts.delete,
    }
}
