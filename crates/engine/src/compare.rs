//! What arrived against the last state: which rows are settled, and what the others come to.
//!
//! Digests are sifted once; what they do not settle is decided part by part, as often as it is asked
//! for: each time the same, because the same rows, state and ledger are read.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flowgate_core::destination::Newest;
use flowgate_core::project::{Deletes, Load, Missing};
use flowgate_core::{KeyHash, StreamName, failpoint};
use flowgate_sorted::{
    Known, Manifest, RowSet, Sifted, SortedError, Spill, SpillWriter, State, StateBucket, bits_for, sift,
};
use flowgate_store::ledger::LedgerWriter;
use flowgate_store::{ImageRecord, Phase};
use jiff::Timestamp;
use uuid::Uuid;

use crate::adopt::{Adopted, adopt};
use crate::diff::{Diff, Differ, Part};
use crate::ledger::{self, Past};
use crate::letters::Letters;
use crate::mapping::Mapping;
use crate::prepare::{Prepared, as_prepared};
use crate::run::{FlowRun, Scope, remove_dir, wall_clock};
use crate::witness::Looked;
use crate::{DiffCounts, KeyExamples, RunError, late, witness};

/// Rows that are decided and sent together: enough to keep every lane busy, few enough to hold in memory.
const PART_ROWS_GOAL: u64 = 262_144;

/// Rows whose ids are looked at where it is not known who wrote them.
const RECENT_MAX: usize = 500;

/// Ids that we give to rows are of this version (module `ids`).
const OUR_ID_VERSION: usize = 7;

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
    /// Of what the counts say about rows with one key.
    pub(crate) examples: KeyExamples,
    pub(crate) adopted: Option<u64>,
    /// What looking at the destination came to.
    pub(crate) looked: Looked,
    /// Creates without an answer, by an earlier process, of rows that are wanted no more or otherwise.
    has_orphans: bool,
    /// Ids of rows that other loads keep in the same table, sorted; gathered only where rows may be removed.
    kept_elsewhere: Vec<Uuid>,
    /// Ids of rows that are to be deleted.
    pub(crate) leaving: HashSet<Uuid>,
}

impl FlowRun<'_> {
    /// Into how many buckets (2^bits) the load is cut: as its state is, unless that is far from what fits its rows.
    pub(crate) fn bits(&self, load: &Load, last: Option<&State>) -> u8 {
        let staged = self.images_of(load).map(|image| image.rows).max().unwrap_or_default();
        match last.map(State::manifest) {
            None => bits_for(staged),
            Some(manifest) => {
                let fitting = bits_for(staged.max(manifest.rows()));
                if manifest.bits.abs_diff(fitting) <= 1 { manifest.bits } else { fitting }
            }
        }
    }

    /// What settles rows as they arrive. Nothing does where the state is to be read anew, or is not all that a row was:
    /// of several rows with one key, and under column rules, more than the state has may be needed.
    pub(crate) fn known(
        &self,
        scope: &Scope<'_>,
        mapping: &Mapping,
        last: Option<&State>,
        bits: u8,
    ) -> Result<Known, RunError> {
        let is_needed_whole = mapping.latest_position.is_some() || !mapping.state_is_as_prepared();
        match last.filter(|_| !self.is_read_anew(scope) && !is_needed_whole) {
            Some(state) => Ok(Known::read(state, bits, KNOWN_BYTES_MAX)?),
            None => Ok(Known::nothing()),
        }
    }

    /// Whether a person asked for a new state.
    fn is_read_anew(&self, scope: &Scope<'_>) -> bool {
        (self.options.adopt && scope.pass == 1) || self.read_again.contains(&scope.load.name)
    }

    /// The images of the streams that the load's SELECT reads.
    pub(crate) fn images_of<'b>(&'b self, load: &Load) -> impl Iterator<Item = &'b ImageRecord> {
        self.streams_of(load).map(|(_, image)| image)
    }

    /// The streams that the load's SELECT reads, with their images.
    pub(crate) fn streams_of<'b>(&'b self, load: &Load) -> impl Iterator<Item = (&'b StreamName, &'b ImageRecord)> {
        let tables = flowgate_sql::inspect(&load.sql.text).map(|found| found.tables).unwrap_or_default();
        let streams =
            self.record.streams.iter().filter(move |(name, _)| tables.iter().any(|table| table == name.as_str()));
        streams.filter_map(|(name, progress)| Some((name, progress.image.as_ref()?)))
    }

    /// Sifts what arrived and counts what it comes to, so that guards and the person watching know everything before
    /// the first byte is sent.
    pub(crate) async fn compare(
        &mut self,
        scope: &Scope<'_>,
        mut prepared: Prepared,
        last: Option<State>,
        letters: &Letters<'_>,
        dir: &Path,
    ) -> Result<Compared, RunError> {
        let Scope { load, pass, .. } = *scope;
        if last.is_none() && self.has_lost_its_memory(load, &ledger::path(dir, pass))? {
            self.engine.warn(&format!(
                "load `{}`: `runs.db` does not know the state files that are there; the rows are read from the destination, \
                 and those that left the source meanwhile stay there",
                load.name
            ));
        }
        self.note_stopped(scope, dir)?;
        let (state, adopted) = match last {
            Some(state) if !self.is_read_anew(scope) => (state, None),
            last => {
                self.outwait_before_reading(scope, last.as_ref()).await?;
                let (state, rows) = self.adopt(scope, &prepared, last.as_ref(), dir).await?;
                (state, Some(rows))
            }
        };
        let version = self.engine.store.manifest(&self.flow.name, &load.name)?.map_or(0, |manifest| manifest.version);
        if adopted.is_none() && pass == 1 && self.was_compared(load) {
            ledger::require(dir, pass)?;
        }
        let (ledger, mut past, sequence) = ledger::open(dir, pass, version, adopted.is_some()).await?;
        failpoint::hit("recovery.replayed")?;
        let mut looked = Looked::default();
        if adopted.is_none() && (pass == 1 || past.was_stopped) {
            let was_deleting = load.missing == Missing::Delete && self.stopped_at(load).is_some();
            looked = witness::check(scope, &prepared, &state, &past, was_deleting).await?;
            past.missing.clone_from(&looked.missing);
        }
        confirm_creates(scope, &prepared.mapping, &mut past).await?;
        failpoint::hit("recovery.confirmed")?;
        let (sifted, spill) = sifted(&mut prepared, &state, &past, letters)?;
        let mut compared = Compared {
            prepared,
            sifted,
            spill,
            state,
            past,
            ledger: Arc::new(ledger),
            sequence,
            counts: DiffCounts::default(),
            examples: KeyExamples::default(),
            adopted,
            looked,
            has_orphans: false,
            kept_elsewhere: if load.missing == Missing::Keep { Vec::new() } else { scope.ids_of_other_loads()? },
            leaving: HashSet::new(),
        };
        self.count(scope, &mut compared, letters)?;
        if compared.adopted.is_some_and(|rows| rows > 0) {
            self.warn_of_other_loads(scope, &compared)?;
        }
        Ok(compared)
    }

    /// Decides every part once, to know what all of them come to.
    fn count(&self, scope: &Scope<'_>, compared: &mut Compared, letters: &Letters<'_>) -> Result<(), RunError> {
        let mut counts = DiffCounts::default();
        let mut creates_again = 0;
        for buckets in compared.groups() {
            scope.require_not_cancelled()?;
            let diff = self.diff(scope.load, compared, letters, buckets)?;
            creates_again += diff.creates_again();
            counts += diff.counts;
            if scope.load.missing == Missing::Delete {
                compared.leaving.extend(diff.removable());
            }
            compared.examples.or(diff.examples);
        }
        compared.has_orphans = creates_again < compared.past.unanswered_creates.len();
        counts.prepared += compared.prepared.keyless;
        if counts.prepared != compared.prepared.prepared {
            return Err(RunError::Defect("the buckets do not hold every prepared row"));
        }
        counts.quarantined += compared.prepared.keyless;
        counts.dropped = compared.prepared.driver_keys.unwrap_or_default() - compared.prepared.represented;
        compared.counts = counts;
        Ok(())
    }

    /// What was sent by a process that was stopped, or given up by the last run, may arrive while the destination is
    /// read.
    async fn outwait_before_reading(&self, scope: &Scope<'_>, last: Option<&State>) -> Result<(), RunError> {
        if last.is_none() || self.is_plan {
            return Ok(());
        }
        let given_up = last.and_then(|state| state.manifest().unanswered);
        late::outwait(scope, given_up.max(self.stopped_at(scope.load))).await
    }

    /// Remembers when an earlier process of this run was stopped, if it sent rows of the load: until more are sent, no later
    /// process changes that.
    fn note_stopped(&mut self, scope: &Scope<'_>, dir: &Path) -> Result<(), RunError> {
        let mut has_ledger = false;
        for pass in 1..=scope.pass {
            has_ledger |= ledger::path(dir, pass).try_exists()?;
        }
        let stopped = self.stopped.filter(|_| has_ledger);
        let progress = self.progress(scope.load);
        progress.stopped = progress.stopped.or(stopped);
        Ok(())
    }

    fn stopped_at(&self, load: &Load) -> Option<Timestamp> {
        self.record.loads.get(&load.name)?.stopped
    }

    /// Waits where what an earlier process of this run sent may still arrive after something newer, and asks again what
    /// became of it.
    pub(crate) async fn outwait_stopped(&self, scope: &Scope<'_>, compared: &mut Compared) -> Result<(), RunError> {
        let is_met = compared.counts.contested > 0 || compared.has_orphans;
        if !compared.past.was_stopped || !is_met {
            return Ok(());
        }
        late::outwait(scope, self.stopped_at(scope.load)).await?;
        confirm_creates(scope, &compared.prepared.mapping, &mut compared.past).await
    }

    /// Whether a process whose state is lost may have written to the table a moment ago: nothing is known of this load,
    /// and rows whose ids are like ours were written by us.
    pub(crate) async fn may_be_written(&self, scope: &Scope<'_>, compared: &Compared) -> Result<bool, RunError> {
        let is_first = self.engine.store.runs(None, 2)?.len() <= 1;
        if compared.adopted.is_none_or(|rows| rows == 0) || !is_first || self.read_again.contains(&scope.load.name) {
            return Ok(false);
        }
        let shape = &compared.prepared.mapping.shape;
        let written = scope.destination.newest(shape, Newest::OursOfLastHour, RECENT_MAX).await?;
        Ok(written.iter().any(|id| id.get_version_num() == OUR_ID_VERSION))
    }

    /// Says that rows were adopted which another load keeps: two loads that write the same columns undo each other.
    fn warn_of_other_loads(&self, scope: &Scope<'_>, compared: &Compared) -> Result<(), RunError> {
        let others = scope.ids_of_other_loads()?;
        let bits = compared.state.manifest().bits;
        let mut shared = 0;
        for bucket in (0..(1_usize << bits)).filter(|_| !others.is_empty()) {
            let index = compared.state.bucket(bits, bucket)?.index;
            shared += index.iter().filter(|entry| others.binary_search(&entry.id).is_ok()).count();
        }
        if shared > 0 {
            self.engine.warn(&format!(
                "load `{}`: {shared} of the adopted rows of `{}` belong to another load too; neither removes what the other \
                 keeps, and columns that both write have the value of the one that wrote last",
                scope.load.name, scope.load.table
            ));
        }
        Ok(())
    }

    /// Whether there are state files of a load that no run before this one is known of.
    fn has_lost_its_memory(&self, load: &Load, ledger: &Path) -> Result<bool, RunError> {
        let is_first = self.engine.store.runs(Some(&self.flow.name), 2)?.len() <= 1 && !ledger.try_exists()?;
        match fs_err::read_dir(self.engine.state_dir(&self.flow.name, &load.name)) {
            Ok(mut files) => Ok(is_first && files.next().is_some()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an earlier process came as far with this load as to keep a ledger of it.
    fn was_compared(&self, load: &Load) -> bool {
        self.record.loads.get(&load.name).is_some_and(|progress| progress.phase >= Phase::Diffed)
    }

    /// The state before this run. Of one whose manifest is damaged only the version is left, which is enough to
    /// adopt a new one after it.
    pub(crate) fn last_state(&self, scope: &Scope<'_>) -> Result<Option<State>, RunError> {
        let (engine, flow, load) = (self.engine, &self.flow.name, scope.load);
        match engine.open_state(flow, &load.name) {
            Err(RunError::State(SortedError::Damaged { .. } | SortedError::Older { .. }))
                if self.is_read_anew(scope) =>
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
        dir: &Path,
    ) -> Result<(State, u64), RunError> {
        let state_dir =
            if self.is_plan { dir.join("state") } else { self.engine.state_dir(&self.flow.name, &scope.load.name) };
        let Adopted { manifest, rows, ambiguous, lost } =
            adopt(scope, prepared, last, ledger::keys(dir, scope.pass)?, &state_dir, &dir.join("adopted")).await?;
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
        if last.is_some() && self.options.adopt && scope.load.missing == Missing::Delete {
            self.engine.warn(&format!(
                "load `{}`: rows that it deleted, and that are back because the environment was restored, are not known to it \
                 and stay",
                scope.load.name
            ));
        }
        let version = last.map_or(0, |state| state.manifest().version);
        self.engine.store.swap_manifest(self.lease, &scope.load.name, version, &manifest.to_json()?, None)?;
        Ok((State::open(&state_dir, manifest), rows))
    }

    /// Decides consecutive buckets.
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
            kept_elsewhere: &compared.kept_elsewhere,
            clock: wall_clock(&self.engine.project)?,
        };
        differ.decide(compared.prepared.arrivals.bits(), compared.part(buckets)?)
    }

    /// A row that is not prepared is gone only if every stream it may come from shows deletes.
    pub(crate) fn sees_gone(&self, load: &Load) -> bool {
        let unseen = |image: &ImageRecord| {
            self.flow.streams.get(&image.stream).is_some_and(|stream| stream.deletes == Deletes::Unseen)
        };
        !self.images_of(load).any(unseen)
    }
}

impl Compared {
    /// Whether no reference waits for another pass: for its row to be there, or to see whether it stays.
    pub(crate) fn is_last_pass(&self, scope: &Scope<'_>) -> bool {
        let loses_its_own = !self.leaving.is_empty() && scope.refers_to_itself();
        scope.pass == 2 || (self.prepared.deferred == 0 && !loses_its_own && !scope.refers_to_later_deletions())
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
            old.append(self.state.bucket(bits, bucket)?.subset(&sifted.touched));
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
fn sifted(
    prepared: &mut Prepared,
    state: &State,
    past: &Past,
    letters: &Letters<'_>,
) -> Result<(Vec<Sifted>, Spill), RunError> {
    let known = prepared.arrivals.take_known();
    let arrivals = &prepared.arrivals;
    let is_open = |key| past.knows(key) || letters.has(key);
    let has_open = !(past.is_empty() && letters.is_empty());
    let is_open: Option<&dyn Fn(KeyHash) -> bool> = if has_open { Some(&is_open) } else { None };
    let mut wanted = RowSet::none(arrivals.rows() as usize);
    let mut sifted = Vec::with_capacity(arrivals.buckets());
    for bucket in 0..arrivals.buckets() {
        sifted.push(sift((arrivals, &known), state, bucket, is_open, &mut wanted)?);
    }
    drop(known);
    let mut spill = arrivals.keep(&wanted)?;
    for (bucket, sifted) in sifted.iter().enumerate().filter(|(_, sifted)| sifted.recalled.count() > 0) {
        recall(&mut spill, prepared, &state.bucket(arrivals.bits(), bucket)?.subset(&sifted.recalled))?;
    }
    Ok((sifted, spill.finish()?))
}

/// Brings rows that did not wait among those that are looked at: the state holds them as they arrived.
fn recall(spill: &mut SpillWriter, prepared: &Prepared, rows: &StateBucket) -> Result<(), RunError> {
    let values = rows.values(&prepared.mapping.schema)?;
    let arrived = as_prepared(prepared.arrivals.schema(), &values)?;
    Ok(spill.push(&arrived, &rows.index.keys, &rows.index.row_hashes)?)
}

/// Asks the destination which of the creates without an answer are there.
async fn confirm_creates(scope: &Scope<'_>, mapping: &Mapping, past: &mut Past) -> Result<(), RunError> {
    if past.unanswered_creates.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = past.unanswered_creates.values().map(|(id, _)| *id).collect();
    let there = scope.destination.probe(&mapping.shape, &ids).await?;
    let keys: Vec<_> =
        past.unanswered_creates.iter().filter(|(_, (id, _))| there.contains(id)).map(|(key, _)| *key).collect();
    for key in keys {
        past.confirm_create(key);
    }
    Ok(())
}

pub(crate) fn known_columns(state: &State) -> Vec<String> {
    state.manifest().columns.iter().map(|column| column.name.clone()).collect()
}
