//! Sending a part's changes, and remembering each before it is sent and when it is answered.
//!
//! Waves keep the order that correctness needs: rows are written before their status is set, what
//! a first answer asks for (an update instead of a create, or the other way round) comes after it,
//! and rows that are gone come last, in the last pass. Within a wave every key is in one request only.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::take::take_record_batch;
use flowgate_core::destination::{Class as RequestClass, ColumnSet, Pace, RowFault, WriteOptions, WriteUnit};
use flowgate_core::project::{DeletedThere, Missing};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::{Code, ConnectorError, LoadRows, Operation, Outcome, failpoint};
use flowgate_store::ledger::{IntentRow, LedgerWriter, Record};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use uuid::Uuid;

use crate::diff::{Action, Decided, Diff, Status, asked_status};
use crate::ids::Ids;
use crate::ledger::{Class, Past, Removal};
use crate::letters::{LetterRow, Letters, key_text, payload};
use crate::mapping::Mapping;
use crate::run::Scope;
use crate::{Event, RunError};

/// How long the destination may try one unit before it gives up.
const UNIT_DEADLINE: Duration = Duration::from_mins(15);

/// How often a row may be reclassified (create to update, update to create) before it is set aside.
const WAVES_MAX: usize = 3;

/// Where a decided row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Not yet answered.
    Waiting,
    Unchanged,
    /// The destination holds the row; `state_set` when its status, if any was asked for, is set too.
    Written {
        class: Class,
        id: Uuid,
        state_set: bool,
    },
    /// A letter. `Some`: the row is there all the same, without the refused part.
    Refused {
        written: Option<Uuid>,
    },
}

/// Where a gone row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoneEnd {
    Waiting,
    Kept,
    Deleted,
    Deactivated,
    Refused,
}

impl From<Option<Removal>> for GoneEnd {
    fn from(removal: Option<Removal>) -> Self {
        match removal {
            None => Self::Waiting,
            Some(Removal::Deleted) => Self::Deleted,
            Some(Removal::Deactivated) => Self::Deactivated,
        }
    }
}

/// The rows of one bucket after sending.
pub(crate) struct Ends {
    pub(crate) rows: Vec<End>,
    pub(crate) gone: Vec<GoneEnd>,
}

impl Ends {
    /// Ids of the rows that were written.
    pub(crate) fn written(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.rows.iter().filter_map(|end| match end {
            End::Written { id, .. } => Some(*id),
            _ => None,
        })
    }

    /// Ids of the gone rows that were deleted.
    pub(crate) fn removed<'a>(&'a self, diff: &'a Diff) -> impl Iterator<Item = Uuid> + 'a {
        let deleted = diff.gone.iter().zip(&self.gone).filter(|(_, end)| **end == GoneEnd::Deleted);
        deleted.map(|(gone, _)| diff.old.index.ids[gone.at])
    }
}

/// Sends the buckets of one load.
pub(crate) struct Loader<'a, 'b> {
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) mapping: &'b Mapping,
    pub(crate) letters: &'b mut Letters<'a>,
    pub(crate) past: &'b Past,
    pub(crate) ledger: Arc<LedgerWriter>,
    pub(crate) ids: &'b Ids,
    pub(crate) sequence: u64,
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Gone rows are for the pass after this one, when nothing refers to them any more.
    pub(crate) leaves_gone: bool,
    /// Seconds spent on status changes, part of the whole load's.
    pub(crate) state_seconds: f64,
}

/// Rows of one request: positions in `decided`, or in `gone` for removals.
#[derive(Debug, Clone)]
struct Request {
    operation: Operation,
    members: Vec<usize>,
}

type Answer = (Request, Result<Vec<Outcome>, RunError>);

impl Loader<'_, '_> {
    /// Sends everything the bucket asks for. On an error, what was answered is in the ledger.
    pub(crate) async fn send(&mut self, diff: &Diff) -> Result<Ends, RunError> {
        let mut bucket = Bucket::new(diff, self.mapping, self.ids)?;
        let mut wave = bucket.first_wave();
        for _ in 0..WAVES_MAX {
            if wave.is_empty() {
                break;
            }
            self.run_wave(&mut bucket, &wave).await?;
            wave = std::mem::take(&mut bucket.next);
        }
        for at in wave.into_iter().map(|(_, at)| at) {
            let fault =
                RowFault::new(Code::ROW_REFUSED, None, "the row keeps appearing and disappearing at the destination");
            self.refuse(&mut bucket, at, &fault)?;
        }
        let started = self.scope.clock().elapsed();
        let wave = bucket.state_wave();
        self.run_wave(&mut bucket, &wave).await?;
        self.state_seconds += self.scope.clock().elapsed().since(started).as_secs_f64();
        if !self.leaves_gone {
            let wave = bucket.gone_wave(self.scope.load.missing);
            self.run_wave(&mut bucket, &wave).await?;
        }
        self.letters.save()?;
        Ok(bucket.ends)
    }

    async fn run_wave(&mut self, bucket: &mut Bucket<'_>, wave: &[(Operation, usize)]) -> Result<(), RunError> {
        let mut requests = self.requests(wave).into_iter().peekable();
        let mut under_way: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
        let mut first_error = None;
        loop {
            while first_error.is_none()
                && !self.scope.cancel.is_cancelled()
                && let Some(request) = requests.next_if(|request| under_way.len() < self.pace(request.operation).units)
            {
                under_way.push(self.start(bucket, request)?);
            }
            let Some((request, answer)) = under_way.next().await else { break };
            match answer {
                Ok(outcomes) => self.take_answer(bucket, &request, &outcomes)?,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.letters.save()?;
        match first_error {
            Some(error) => Err(error),
            None if self.scope.cancel.is_cancelled() => Err(RunError::Cancelled),
            None => Ok(()),
        }
    }

    fn pace(&self, operation: Operation) -> Pace {
        self.scope.destination.pace(&self.mapping.shape, operation)
    }

    fn requests(&self, wave: &[(Operation, usize)]) -> Vec<Request> {
        let mut requests = Vec::new();
        for operation in
            [Operation::Create, Operation::Update, Operation::SetState, Operation::Deactivate, Operation::Delete]
        {
            let members: Vec<usize> =
                wave.iter().filter(|(wanted, _)| *wanted == operation).map(|(_, at)| *at).collect();
            let rows = self.pace(operation).rows.max(1);
            requests.extend(members.chunks(rows).map(|chunk| Request { operation, members: chunk.to_vec() }));
        }
        requests
    }

    /// Records the intent, writes, records the answer.
    fn start(&mut self, bucket: &Bucket<'_>, request: Request) -> Result<BoxFuture<'static, Answer>, RunError> {
        let unit = bucket.unit(&request, self)?;
        let sequence = self.sequence;
        self.sequence += 1;
        let intent =
            Record::Intent { sequence, operation: request.operation, rows: bucket.intent_rows(&request, &unit.ids) };
        let ledger = Arc::clone(&self.ledger);
        let destination = Arc::clone(&self.scope.destination);
        let cancel = self.scope.cancel.clone();
        let work = async move {
            ledger.append(&intent).await?;
            failpoint::hit("intent.written")?;
            let outcomes = destination.write(unit, RequestClass::Batch, UNIT_DEADLINE, &cancel).await?;
            failpoint::hit("answer.received")?;
            ledger.append(&Record::answer(sequence, &outcomes)).await?;
            failpoint::hit("answer.recorded")?;
            Ok(outcomes)
        };
        Ok(async move { (request, work.await) }.boxed())
    }

    fn take_answer(
        &mut self,
        bucket: &mut Bucket<'_>,
        request: &Request,
        outcomes: &[Outcome],
    ) -> Result<(), RunError> {
        if outcomes.len() != request.members.len() {
            return Err(RunError::Defect("a destination must answer one outcome a row"));
        }
        for (at, outcome) in request.members.iter().zip(outcomes) {
            match request.operation {
                Operation::Create | Operation::Update => self.take_row(bucket, request.operation, *at, outcome)?,
                Operation::SetState => self.take_state(bucket, *at, outcome)?,
                Operation::Deactivate | Operation::Delete => self.take_gone(bucket, request.operation, *at, outcome)?,
            }
        }
        self.done += request.members.len() as u64;
        self.scope.tell(Event::Loading {
            load: &self.scope.load.name,
            done: self.done.min(self.total),
            total: self.total,
        });
        Ok(())
    }

    fn take_row(
        &mut self,
        bucket: &mut Bucket<'_>,
        operation: Operation,
        at: usize,
        outcome: &Outcome,
    ) -> Result<(), RunError> {
        match outcome {
            Outcome::Applied => {
                let class = if operation == Operation::Create { Class::Created } else { Class::Updated };
                let state_set = bucket.statuses[at].is_left();
                bucket.ends.rows[at] = End::Written { class, id: bucket.ids[at], state_set };
                self.letters.resolve(bucket.key(at));
            }
            Outcome::Exists { id } => {
                bucket.ids[at] = *id;
                bucket.knows_nothing_of(at, self.mapping);
                bucket.next.push((Operation::Update, at));
            }
            Outcome::Missing if self.scope.load.deleted_there == DeletedThere::Recreate => {
                bucket.ids[at] = self.ids.next();
                bucket.knows_nothing_of(at, self.mapping);
                bucket.next.push((Operation::Create, at));
            }
            Outcome::Missing => {
                let fault = RowFault::new(Code::ROW_DELETED_THERE, None, "the row was deleted at the destination");
                self.refuse(bucket, at, &fault)?;
            }
            Outcome::Refused(fault) => self.refuse(bucket, at, fault)?,
            Outcome::Ambiguous | Outcome::Unsent => {}
        }
        Ok(())
    }

    fn take_state(&mut self, bucket: &mut Bucket<'_>, at: usize, outcome: &Outcome) -> Result<(), RunError> {
        match outcome {
            Outcome::Applied | Outcome::Exists { .. } => {
                let class = match bucket.ends.rows[at] {
                    End::Written { class, .. } => class,
                    _ => Class::Updated,
                };
                bucket.ends.rows[at] = End::Written { class, id: bucket.ids[at], state_set: true };
                self.letters.resolve(bucket.key(at));
            }
            Outcome::Missing => {
                let fault = RowFault::new(Code::ROW_DELETED_THERE, None, "the row was deleted at the destination");
                self.refuse(bucket, at, &fault)?;
            }
            Outcome::Refused(fault) => self.refuse(bucket, at, fault)?,
            Outcome::Ambiguous | Outcome::Unsent => {
                // The content is there, the status is not known: not finished.
                bucket.ends.rows[at] = End::Waiting;
            }
        }
        Ok(())
    }

    fn take_gone(
        &mut self,
        bucket: &mut Bucket<'_>,
        operation: Operation,
        at: usize,
        outcome: &Outcome,
    ) -> Result<(), RunError> {
        bucket.ends.gone[at] = match outcome {
            Outcome::Applied | Outcome::Exists { .. } | Outcome::Missing if operation == Operation::Delete => {
                GoneEnd::Deleted
            }
            Outcome::Applied | Outcome::Exists { .. } => GoneEnd::Deactivated,
            Outcome::Missing => GoneEnd::Deleted,
            Outcome::Refused(fault) => {
                self.refuse_gone(bucket, at, fault)?;
                GoneEnd::Refused
            }
            Outcome::Ambiguous | Outcome::Unsent => GoneEnd::Waiting,
        };
        Ok(())
    }

    fn refuse(&mut self, bucket: &mut Bucket<'_>, at: usize, fault: &RowFault) -> Result<(), RunError> {
        let written = match bucket.ends.rows[at] {
            End::Written { id, .. } => Some(id),
            _ => None,
        };
        bucket.ends.rows[at] = End::Refused { written };
        let row = bucket.row(at).at;
        self.letters.write(LetterRow {
            key: Some(bucket.key(at)),
            key_text: key_text(&bucket.diff.new.rows, &self.mapping.match_positions, row)?,
            row_hash: bucket.diff.new.row_hashes[row],
            payload: payload(&bucket.canonical, row)?,
            file: None,
            line: None,
            fault,
        })
    }

    fn refuse_gone(&mut self, bucket: &Bucket<'_>, at: usize, fault: &RowFault) -> Result<(), RunError> {
        let index = &bucket.diff.old.index;
        let old = bucket.diff.gone[at].at;
        self.letters.write(LetterRow {
            key: Some(index.keys[old]),
            key_text: index.ids[old].to_string(),
            row_hash: index.row_hashes[old],
            payload: "{}".to_owned(),
            file: None,
            line: None,
            fault,
        })
    }
}

/// One bucket while it is sent.
struct Bucket<'a> {
    diff: &'a Diff,
    /// The bucket's rows without bookkeeping columns.
    canonical: RecordBatch,
    /// Positions of canonical columns that are sent (all but the state rule's).
    sent: Vec<usize>,
    /// The id each row goes by.
    ids: Vec<Uuid>,
    /// Rows whose content there is not known: every column is sent.
    whole: Vec<bool>,
    /// The status each row is to be brought into.
    statuses: Vec<Status>,
    ends: Ends,
    /// The next wave, as answers ask for it.
    next: Vec<(Operation, usize)>,
    is_matched_by_id: bool,
}

impl<'a> Bucket<'a> {
    fn new(diff: &'a Diff, mapping: &Mapping, ids: &Ids) -> Result<Self, RunError> {
        let all: Vec<usize> = (0..mapping.columns.len()).collect();
        let sent = all.iter().copied().filter(|at| Some(*at) != mapping.state_position()).collect();
        let mut bucket = Self {
            canonical: diff.new.rows.project(&all)?,
            sent,
            ids: Vec::with_capacity(diff.decided.len()),
            whole: vec![false; diff.decided.len()],
            statuses: diff.decided.iter().map(|row| row.status).collect(),
            ends: Ends { rows: Vec::new(), gone: diff.gone.iter().map(|gone| gone.removal.into()).collect() },
            next: Vec::new(),
            is_matched_by_id: mapping.is_matched_by_id(),
            diff,
        };
        for row in &diff.decided {
            let (id, end) = bucket.begin(row, mapping, ids)?;
            bucket.ids.push(id);
            bucket.ends.rows.push(end);
        }
        Ok(bucket)
    }

    fn begin(&self, row: &Decided, mapping: &Mapping, ids: &Ids) -> Result<(Uuid, End), RunError> {
        Ok(match &row.action {
            Action::Unchanged { .. } => (Uuid::nil(), End::Unchanged),
            Action::Held => (Uuid::nil(), End::Refused { written: None }),
            Action::Create { id: Some(id) } => (*id, End::Waiting),
            Action::Create { id: None } if self.is_matched_by_id => (self.own_id(row.at, mapping)?, End::Waiting),
            Action::Create { id: None } => (ids.next(), End::Waiting),
            Action::Update { id, .. } => (*id, End::Waiting),
            Action::Done { class, id } => {
                (*id, End::Written { class: *class, id: *id, state_set: row.status.is_left() })
            }
        })
    }

    /// The id that a row matched by id brings with it.
    fn own_id(&self, row: usize, mapping: &Mapping) -> Result<Uuid, RunError> {
        let position = mapping.match_positions.first().copied().unwrap_or_default();
        let column = self.canonical.column(position).as_any().downcast_ref::<StringArray>();
        let text = column.map(|ids| ids.value(row)).unwrap_or_default();
        Uuid::parse_str(text).map_err(|_| RunError::Defect("a canonical id that is not one"))
    }

    fn row(&self, at: usize) -> &Decided {
        &self.diff.decided[at]
    }

    fn key(&self, at: usize) -> flowgate_core::KeyHash {
        self.diff.new.keys[self.row(at).at]
    }

    /// What is there under the row's key is not what the state described: all of it is sent, and its status.
    fn knows_nothing_of(&mut self, at: usize, mapping: &Mapping) {
        self.whole[at] = true;
        if mapping.state_position().is_some() {
            self.statuses[at] = Status::asked(asked_status(mapping, &self.diff.new.rows, self.row(at).at));
        }
    }

    fn first_wave(&mut self) -> Vec<(Operation, usize)> {
        let mut wave = Vec::new();
        for (at, row) in self.diff.decided.iter().enumerate() {
            match &row.action {
                Action::Create { .. } => wave.push((Operation::Create, at)),
                Action::Update { columns, .. } if !columns.is_empty() => wave.push((Operation::Update, at)),
                Action::Update { id, .. } => {
                    self.ends.rows[at] = End::Written { class: Class::Updated, id: *id, state_set: false };
                }
                Action::Unchanged { .. } | Action::Done { .. } | Action::Held => {}
            }
        }
        wave
    }

    /// Rows that are there and still need their status.
    fn state_wave(&self) -> Vec<(Operation, usize)> {
        let ends = self.ends.rows.iter().enumerate();
        ends.filter(|(_, end)| matches!(end, End::Written { state_set: false, .. }))
            .map(|(at, _)| (Operation::SetState, at))
            .collect()
    }

    fn gone_wave(&mut self, missing: Missing) -> Vec<(Operation, usize)> {
        let operation = match missing {
            Missing::Keep => {
                self.ends.gone.iter_mut().filter(|end| **end == GoneEnd::Waiting).for_each(|end| *end = GoneEnd::Kept);
                return Vec::new();
            }
            Missing::Deactivate => Operation::Deactivate,
            Missing::Delete => Operation::Delete,
        };
        let is_done = |end: &GoneEnd| match operation {
            Operation::Delete => *end == GoneEnd::Deleted,
            _ => *end != GoneEnd::Waiting,
        };
        let waiting = self.ends.gone.iter().enumerate().filter(|(_, end)| !is_done(end));
        waiting.map(|(at, _)| (operation, at)).collect()
    }

    fn intent_rows(&self, request: &Request, ids: &[Uuid]) -> Vec<IntentRow> {
        let index = &self.diff.old.index;
        let row = |at: &usize| match request.operation {
            Operation::Deactivate | Operation::Delete => {
                let old = self.diff.gone[*at].at;
                (index.keys[old], index.row_hashes[old])
            }
            _ => (self.key(*at), self.diff.new.row_hashes[self.row(*at).at]),
        };
        request
            .members
            .iter()
            .map(row)
            .zip(ids)
            .map(|((key, row_hash), id)| IntentRow { key, id: *id, row_hash })
            .collect()
    }

    fn unit(&self, request: &Request, loader: &Loader<'_, '_>) -> Result<WriteUnit, RunError> {
        let is_gone = matches!(request.operation, Operation::Deactivate | Operation::Delete);
        let ids = if is_gone {
            request.members.iter().map(|at| self.diff.old.index.ids[self.diff.gone[*at].at]).collect()
        } else {
            request.members.iter().map(|at| self.ids[*at]).collect()
        };
        let rows = match request.operation {
            Operation::Create | Operation::Update => self.sent_rows(&request.members)?,
            Operation::SetState => self.state_rows(&request.members)?,
            Operation::Deactivate | Operation::Delete => no_columns(request.members.len())?,
        };
        let columns =
            (request.operation == Operation::Update).then(|| self.sent_columns(&request.members, loader.mapping));
        let resent = !is_gone && request.members.iter().any(|at| loader.past.is_resent(self.key(*at)));
        Ok(WriteUnit {
            shape: Arc::clone(&loader.mapping.shape),
            operation: request.operation,
            ids,
            rows,
            columns,
            resent: resent || is_gone,
            options: WriteOptions {
                history: loader.scope.load.history.clone(),
                match_columns: loader.scope.load.match_columns.clone(),
                one_at_a_time: false,
            },
        })
    }

    fn sent_rows(&self, members: &[usize]) -> Result<RecordBatch, RunError> {
        let indices: UInt32Array = members.iter().map(|at| Some(self.row(*at).at as u32)).collect();
        Ok(take_record_batch(&self.canonical.project(&self.sent)?, &indices)?)
    }

    /// Per row the columns to send, as positions within the rows that are sent.
    fn sent_columns(&self, members: &[usize], mapping: &Mapping) -> Vec<ColumnSet> {
        let wanted = |at: usize, column: usize| match &self.row(at).action {
            Action::Update { columns, .. } if !self.whole[at] => columns.contains(column),
            _ => mapping.columns[column].rule.master != flowgate_core::project::Master::Destination,
        };
        let set = |at: &usize| {
            self.sent
                .iter()
                .enumerate()
                .filter(|(_, column)| wanted(*at, **column))
                .map(|(position, _)| position)
                .collect()
        };
        members.iter().map(set).collect()
    }

    fn state_rows(&self, members: &[usize]) -> Result<RecordBatch, RunError> {
        let states: Int32Array = members.iter().map(|at| self.statuses[*at].code()).collect();
        let schema = Schema::new(vec![Field::new(STATE_COLUMN, DataType::Int32, true)]);
        Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(states)])?)
    }
}

fn no_columns(rows: usize) -> Result<RecordBatch, ConnectorError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(|error| ConnectorError::new(flowgate_core::ErrorKind::Internal, Code::INTERNAL, error.to_string()))
}

/// The classes of a bucket's rows after sending.
pub(crate) fn count(diff: &Diff, ends: &Ends, past: &Past) -> LoadRows {
    let counts = diff.counts;
    let held = diff.decided.iter().filter(|row| row.action == Action::Held).count() as u64;
    let decided = diff.decided.iter().filter(|row| matches!(row.action, Action::Unchanged { .. })).count() as u64;
    let mut rows = LoadRows {
        prepared: counts.prepared,
        // Settled ones; the others are added below.
        unchanged: counts.unchanged - decided,
        superseded: counts.superseded,
        quarantined: counts.quarantined - held,
        gone: counts.gone,
        ..LoadRows::default()
    };
    for (row, end) in diff.decided.iter().zip(&ends.rows) {
        let class = match end {
            End::Waiting => {
                rows.pending += 1;
                continue;
            }
            End::Refused { .. } => {
                rows.quarantined += 1;
                continue;
            }
            End::Unchanged => Class::Unchanged,
            End::Written { class, .. } => *class,
        };
        match past.class(diff.new.keys[row.at], class) {
            Class::Created => rows.created += 1,
            Class::Unchanged => rows.unchanged += 1,
            _ => rows.updated += 1,
        }
    }
    for end in &ends.gone {
        match end {
            GoneEnd::Waiting => rows.gone_pending += 1,
            GoneEnd::Kept => rows.kept += 1,
            GoneEnd::Deleted => rows.deleted += 1,
            GoneEnd::Deactivated => rows.deactivated += 1,
            GoneEnd::Refused => rows.gone_quarantined += 1,
        }
    }
    rows
}
