//! From a SELECT to canonical rows in key buckets.
//!
//! Every row the SELECT returns is counted as prepared. A row that cannot take the destination's
//! form, fails a check, has no key or refers to nothing becomes a letter; it still goes into the
//! buckets, marked, so that its key is not taken for gone.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::Int32Builder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::{filter, filter_record_batch};
use flowgate_core::destination::RowFault;
use flowgate_core::key::fold_label;
use flowgate_core::project::{StateAction, StateRule};
use flowgate_core::shape::{STATE_COLUMN, StatusShape};
use flowgate_core::source::{FILE_COLUMN, LINE_COLUMN, ROW_COLUMN};
use flowgate_core::{Code, KeyHash, Notes, TableShape, WallClock};
use flowgate_sorted::{Arrivals, ArrivalsWriter, Known, RowSet, key_hashes, row_hashes};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::letters::{LetterRow, Letters, key_text, payload};
use crate::lookup::Lookups;
use crate::mapping::{Mapping, Origin};
use crate::odd::warn_of;
use crate::run::Scope;
use crate::transform::Transforms;
use crate::{Event, RunError};

/// Bookkeeping columns of a bucket, after the canonical ones.
pub(crate) const FAULT_COLUMN: &str = "@fault";
pub(crate) const LATEST_COLUMN: &str = "@latest";

/// What preparing a load gave.
pub(crate) struct Prepared {
    pub(crate) mapping: Mapping,
    pub(crate) arrivals: Arrivals,
    pub(crate) prepared: u64,
    /// Rows without a key: in no bucket, but quarantined.
    pub(crate) keyless: u64,
    /// Driver rows and those among them that the SELECT returned.
    pub(crate) driver_keys: Option<u64>,
    pub(crate) represented: u64,
    /// Lookups left empty until the second pass.
    pub(crate) deferred: u64,
}

impl Prepared {
    /// Those of `keys` that the source has now.
    pub(crate) fn wanted(&self, keys: impl Iterator<Item = KeyHash>) -> Result<HashSet<KeyHash>, RunError> {
        let keys: HashSet<KeyHash> = keys.collect();
        let buckets: HashSet<usize> = keys.iter().map(|key| key.bucket(self.arrivals.bits())).collect();
        let mut wanted = HashSet::new();
        for bucket in buckets {
            let digests = self.arrivals.digests(bucket)?;
            wanted.extend(digests.iter().map(|digest| digest.key).filter(|key| keys.contains(key)));
        }
        Ok(wanted)
    }
}

/// Where prepared rows go.
pub(crate) struct Buckets {
    pub(crate) dir: PathBuf,
    /// There are 2^bits of them.
    pub(crate) bits: u8,
    /// Rows that need not go into any.
    pub(crate) known: Known,
}

/// Runs the load's SELECT and brings its rows into buckets.
pub(crate) async fn prepare<'a>(
    scope: &'a Scope<'a>,
    transforms: &Transforms,
    letters: &mut Letters<'a>,
    mapping: Mapping,
    buckets: Buckets,
) -> Result<Prepared, RunError> {
    let select = transforms.select(scope.load).await?;
    let select_schema = Arc::clone(&select.schema);
    let lookups = Lookups::find(scope, &mapping, transforms, &select_schema).await?;
    let latest = mapping.latest_position.map(|at| select_schema.field(at).data_type().clone());
    let bucket_schema = bucket_schema(&mapping.schema, latest);
    let arrivals = ArrivalsWriter::create(&buckets.dir, Arc::clone(&bucket_schema), buckets.bits, buckets.known)?;
    let state_codes = state_codes(scope.load.state.as_ref(), &mapping.shape)?;
    let mut work = Work {
        scope,
        letters,
        lookups,
        state_codes,
        arrivals,
        bucket_schema,
        represented: RowSet::none(scope.driver_rows.unwrap_or_default() as usize),
        prepared: 0,
        keyless: 0,
        deferred: 0,
        seed: mapping.rules_seed(),
        clock: scope.wall_clock()?,
        notes: Notes::default(),
        mapping: &mapping,
    };
    // What finding references read counts there, and not once more here.
    transforms.take_notes();
    let mut rows = select.run(scope.load).await?;
    while let Some(batch) = rows.next().await {
        scope.require_not_cancelled()?;
        let batch = plain_text(&batch.map_err(|error| RunError::sql(error, &scope.load.sql))?)?;
        work.take(&batch)?;
        scope.tell(Event::Preparing { load: &scope.load.name, rows: work.prepared });
    }
    work.letters.save()?;
    work.notes.append(transforms.take_notes());
    warn_of(scope.engine, &format!("load `{}`", scope.load.name), &work.clock, &work.notes);
    let (prepared, keyless, deferred) = (work.prepared, work.keyless, work.deferred);
    let represented = work.represented.count();
    let arrivals = work.arrivals.finish()?;
    Ok(Prepared { arrivals, prepared, keyless, driver_keys: scope.driver_rows, represented, deferred, mapping })
}

fn bucket_schema(canonical: &SchemaRef, latest: Option<DataType>) -> SchemaRef {
    let mut fields: Vec<_> = canonical.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(FAULT_COLUMN, DataType::Boolean, false)));
    if let Some(kind) = latest {
        fields.push(Arc::new(Field::new(LATEST_COLUMN, plain_type(&kind), true)));
    }
    Arc::new(Schema::new(fields))
}

/// Rows of which the state knew everything, as they arrived: without a fault.
pub(crate) fn as_prepared(schema: &SchemaRef, canonical: &RecordBatch) -> Result<RecordBatch, RunError> {
    let mut columns = canonical.columns().to_vec();
    columns.push(Arc::new(BooleanArray::from(vec![false; canonical.num_rows()])));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The preparation under way.
struct Work<'a, 'b> {
    scope: &'a Scope<'a>,
    letters: &'b mut Letters<'a>,
    mapping: &'b Mapping,
    lookups: Lookups,
    state_codes: Vec<(String, i32)>,
    arrivals: ArrivalsWriter,
    bucket_schema: SchemaRef,
    represented: RowSet,
    prepared: u64,
    keyless: u64,
    deferred: u64,
    /// Of the row hashes.
    seed: u64,
    clock: WallClock,
    notes: Notes,
}

impl Work<'_, '_> {
    fn take(&mut self, select: &RecordBatch) -> Result<(), RunError> {
        let rows = select.num_rows();
        self.prepared += rows as u64;
        self.note_represented(select);
        let mut faults: Vec<Option<RowFault>> = vec![None; rows];
        self.check(select, &mut faults);
        let canonical = self.canonical(select, &mut faults)?;
        let keys = key_hashes(&canonical.project(&self.mapping.match_positions)?)?;
        for (fault, key) in faults.iter_mut().zip(&keys) {
            if key.is_none() && fault.is_none() {
                *fault = Some(RowFault::new(Code::ROW_NULL_KEY, None, "a match column is empty"));
            }
        }
        let hashes = row_hashes(&canonical, self.seed)?;
        self.write_letters(select, &canonical, &keys, &hashes, &faults)?;
        self.push(select, &canonical, &keys, &hashes, &faults)
    }

    fn note_represented(&mut self, select: &RecordBatch) {
        if let Some(at) = self.mapping.row_position
            && let Some(numbers) = select.column(at).as_any().downcast_ref::<Int64Array>()
        {
            numbers.iter().flatten().for_each(|number| self.represented.insert(number as usize));
        }
    }

    fn check(&self, select: &RecordBatch, faults: &mut [Option<RowFault>]) {
        for (position, description) in &self.mapping.checks {
            let Some(passed) = select.column(*position).as_any().downcast_ref::<BooleanArray>() else { continue };
            for (row, fault) in faults.iter_mut().enumerate() {
                if fault.is_none() && !(passed.is_valid(row) && passed.value(row)) {
                    *fault = Some(RowFault::new(Code::ROW_CHECK, None, description.clone()));
                }
            }
        }
    }

    /// The canonical columns in their order; rows that cannot have them get a fault.
    fn canonical(&mut self, select: &RecordBatch, faults: &mut [Option<RowFault>]) -> Result<RecordBatch, RunError> {
        let mut fields = Vec::new();
        let mut raw: Vec<ArrayRef> = Vec::new();
        for (position, column) in self.mapping.columns.iter().enumerate() {
            let values: ArrayRef = match &column.origin {
                Origin::Column(at) => Arc::clone(select.column(*at)),
                Origin::State(at) => self.states(select.column(*at), faults)?,
                Origin::Lookup { positions, .. } => {
                    let columns: Vec<_> = positions.iter().map(|at| Arc::clone(select.column(*at))).collect();
                    let found =
                        self.lookups.resolve(self.scope, position, &column.name, &columns, select.num_rows())?;
                    self.deferred += found.deferred;
                    keep_first(faults, found.faults);
                    Arc::new(found.references)
                }
            };
            if column.name != STATE_COLUMN {
                fields.push(Field::new(&column.name, values.data_type().clone(), true));
            }
            raw.push(values);
        }
        let stored: Vec<ArrayRef> = self.without_state(&raw);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), stored)?;
        let checked = self.scope.destination.canonical(&self.mapping.shape, &batch, &self.clock)?;
        keep_first(faults, checked.faults);
        self.notes.append(checked.notes);
        let mut columns = checked.rows.columns().to_vec();
        if let Some(at) = self.mapping.state_position() {
            columns.insert(at, Arc::clone(&raw[at]));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.mapping.schema), columns)?)
    }

    fn without_state(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        let state = self.mapping.state_position();
        columns.iter().enumerate().filter(|(at, _)| Some(*at) != state).map(|(_, column)| Arc::clone(column)).collect()
    }

    /// The status each value of the state rule's column stands for; null where nothing is asked.
    fn states(&self, values: &ArrayRef, faults: &mut [Option<RowFault>]) -> Result<ArrayRef, RunError> {
        let text = cast(values, &DataType::Utf8)?;
        let text = text.as_any().downcast_ref::<StringArray>().ok_or(RunError::Defect("a cast to text"))?;
        let refuses_others = self.scope.load.state.as_ref().is_some_and(|rule| rule.refuses_others);
        // Few values stand in many rows: each is looked up once.
        let mut seen: HashMap<&str, Option<i32>> = HashMap::new();
        let mut codes = Int32Builder::with_capacity(text.len());
        for (row, value) in text.iter().enumerate() {
            let code = value.and_then(|value| *seen.entry(value).or_insert_with(|| self.state_code(value)));
            codes.append_option(code);
            let Some(value) = value.filter(|value| refuses_others && code.is_none() && !value.trim().is_empty()) else {
                continue;
            };
            let fault = &mut faults[row];
            if fault.is_none() {
                let reason = format!("`{value}` has no entry under `state:`");
                *fault = Some(RowFault::new(Code::ROW_NO_STATUS, None, reason));
            }
        }
        Ok(Arc::new(codes.finish()))
    }

    fn state_code(&self, value: &str) -> Option<i32> {
        let value = fold_label(value);
        self.state_codes.iter().find(|(known, _)| *known == value).map(|(_, code)| *code)
    }

    fn write_letters(
        &mut self,
        select: &RecordBatch,
        canonical: &RecordBatch,
        keys: &[Option<KeyHash>],
        hashes: &[u64],
        faults: &[Option<RowFault>],
    ) -> Result<(), RunError> {
        for (row, fault) in faults.iter().enumerate() {
            let Some(fault) = fault else { continue };
            let (file, line) = origin(select, row);
            let shown = match keys[row] {
                Some(_) => key_text(canonical, &self.mapping.match_positions, row)?,
                None => nameless(select, row, self.mapping.row_position),
            };
            self.letters.write(LetterRow {
                key: keys[row],
                key_text: shown,
                row_hash: hash_of_faulty(hashes[row], fault),
                payload: payload(select, row)?,
                file,
                line,
                fault,
            })?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        select: &RecordBatch,
        canonical: &RecordBatch,
        keys: &[Option<KeyHash>],
        hashes: &[u64],
        faults: &[Option<RowFault>],
    ) -> Result<(), RunError> {
        let mut columns = canonical.columns().to_vec();
        let is_faulty: BooleanArray = faults.iter().map(|fault| Some(fault.is_some())).collect();
        columns.push(Arc::new(is_faulty.clone()));
        if let Some(at) = self.mapping.latest_position {
            columns.push(Arc::clone(select.column(at)));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.bucket_schema), columns)?;
        let keyless = keys.iter().filter(|key| key.is_none()).count();
        if keyless == 0 {
            let keys: Vec<KeyHash> = keys.iter().copied().flatten().collect();
            self.arrivals.push(&batch, &keys, hashes, &is_faulty)?;
            return Ok(());
        }
        self.keyless += keyless as u64;
        let keyed: BooleanArray = keys.iter().map(|key| Some(key.is_some())).collect();
        let with_key: Vec<(KeyHash, u64)> =
            keys.iter().zip(hashes).filter_map(|(key, hash)| key.map(|key| (key, *hash))).collect();
        let (keys, hashes): (Vec<_>, Vec<_>) = with_key.into_iter().unzip();
        let rows = filter_record_batch(&batch, &keyed)?;
        let is_faulty = filter(&is_faulty, &keyed)?.as_boolean().clone();
        self.arrivals.push(&rows, &keys, &hashes, &is_faulty)?;
        Ok(())
    }
}

fn keep_first(faults: &mut [Option<RowFault>], more: Vec<(usize, RowFault)>) {
    for (row, fault) in more {
        if let Some(slot) = faults.get_mut(row)
            && slot.is_none()
        {
            *slot = Some(fault);
        }
    }
}

/// The hash by which a letter knows its row again. A value that has no canonical form was left empty, so the row's own
/// hash is that of one in which the value really is empty.
fn hash_of_faulty(row_hash: u64, fault: &RowFault) -> u64 {
    if fault.column.is_some() { xxh3_64_with_seed(fault.reason.as_bytes(), row_hash) } else { row_hash }
}

/// File and line of a row, when the SELECT returns them.
fn origin(select: &RecordBatch, row: usize) -> (Option<String>, Option<u64>) {
    let text = |name: &str| {
        let column = select.column_by_name(name).filter(|column| column.is_valid(row))?;
        arrow_cast::display::array_value_to_string(column, row).ok()
    };
    (text(FILE_COLUMN), text(LINE_COLUMN).and_then(|line| line.parse().ok()))
}

/// What a row without a key is called: its number in the image, or else its content.
fn nameless(select: &RecordBatch, row: usize, row_position: Option<usize>) -> String {
    match row_position {
        Some(at) => format!(
            "{ROW_COLUMN} {}",
            arrow_cast::display::array_value_to_string(select.column(at), row).unwrap_or_default()
        ),
        None => payload(select, row).unwrap_or_default(),
    }
}

/// The status code each value of the rule's column stands for, by the folded value.
pub(crate) fn state_codes(rule: Option<&StateRule>, shape: &TableShape) -> Result<Vec<(String, i32)>, RunError> {
    let Some(rule) = rule else { return Ok(Vec::new()) };
    rule.actions.iter().map(|(value, action)| Ok((fold_label(value), status_code(action, shape)?))).collect()
}

/// The status that an action names by its label, or by its number.
fn status_code(action: &StateAction, shape: &TableShape) -> Result<i32, RunError> {
    let (StateAction::Close(label) | StateAction::Status(label)) = action;
    let wanted = fold_label(label);
    let is_meant = |status: &&StatusShape| fold_label(&status.label) == wanted || status.status.to_string() == wanted;
    let found: Vec<&StatusShape> = shape.statuses.iter().filter(is_meant).collect();
    match found.as_slice() {
        [one] => Ok(one.status),
        [] => {
            let known: Vec<_> = shape.statuses.iter().map(|status| format!("`{}`", status.label)).collect();
            Err(RunError::refused(Code::STATE_RULE, format!("`{}` has no status `{label}`", shape.table))
                .hint(format!("it has {}", known.join(", "))))
        }
        several => {
            let numbers: Vec<_> = several.iter().map(|status| format!("`{}`", status.status)).collect();
            let message = format!("`{label}` may mean several statuses of `{}`: {}", shape.table, numbers.join(", "));
            Err(RunError::refused(Code::STATE_RULE, message).hint("write the number of the one that is meant"))
        }
    }
}

/// Views, dictionaries and large text become plain text, which is what everything behind expects.
fn plain_text(batch: &RecordBatch) -> Result<RecordBatch, RunError> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let kind = plain_type(column.data_type());
        columns.push(if &kind == column.data_type() { Arc::clone(column) } else { cast(column, &kind)? });
        fields.push(Field::new(field.name(), kind, true));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}
