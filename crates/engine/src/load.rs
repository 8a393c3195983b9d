//! Sending a part's changes, and remembering each before it is sent and when it is answered.
//!
//! Waves keep the order that correctness needs: rows are written before their status is set, what
//! a first answer asks for (an update instead of a create, or the other way round) comes after it,
//! and rows that are gone come last, in the last pass. Within a wave every key is in one request only.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::destination::{Class as RequestClass, Pace, RowFault};
use flowgate_core::project::DeletedThere;
use flowgate_core::{Code, Operation, Outcome, failpoint};
use flowgate_store::ledger::{LedgerWriter, Record};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::diff::{Action, Diff};
use crate::fill::leave_filled;
use crate::ids::Ids;
use crate::ledger::{Class, Past};
use crate::letters::{LetterRow, Letters, key_text, payload};
use crate::mapping::Mapping;
use crate::run::Scope;
use crate::settling::Settling;
use crate::under_way::{End, Ends, GoneEnd, Request, UnderWay};
use crate::witness::Recent;
use crate::{Event, RunError};

/// How long the destination may try one unit before it gives up.
const UNIT_DEADLINE: Duration = Duration::from_mins(15);

/// How often a row may be reclassified (create to update, update to create) before it is set aside.
const WAVES_MAX: usize = 3;

/// Sends the parts of one load.
pub(crate) struct Loader<'a, 'b> {
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) mapping: &'b Mapping,
    pub(crate) letters: &'b mut Letters<'a>,
    pub(crate) past: &'b Past,
    pub(crate) ledger: Arc<LedgerWriter>,
    pub(crate) ids: Rc<Ids>,
    pub(crate) sequence: u64,
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// What stands witness for the next state.
    pub(crate) recent: Recent,
    /// Before it, gone rows are left: something may still refer to them.
    pub(crate) is_last_pass: bool,
    /// Seconds spent on status changes, part of the whole load's.
    pub(crate) state_seconds: f64,
}

type Answer = (Request, Result<Vec<Outcome>, RunError>);

impl Loader<'_, '_> {
    /// Sends everything the part asks for. On an error, what was answered is in the ledger.
    pub(crate) async fn send(&mut self, diff: &Diff) -> Result<Ends, RunError> {
        let _settling = Settling::begin();
        let mut part = UnderWay::new(diff, self.mapping, &self.ids)?;
        for (at, _) in diff.decided.iter().enumerate().filter(|(_, row)| row.action == Action::Ambiguous) {
            let reason = "more than one row there has this key; when one is left, `run --adopt` goes on with it";
            self.refuse(&mut part, at, &RowFault::new(Code::ROW_AMBIGUOUS_KEY, None, reason))?;
        }
        let mut wave = part.first_wave();
        for _ in 0..WAVES_MAX {
            if wave.is_empty() {
                break;
            }
            self.run_wave(&mut part, &wave).await?;
            wave = std::mem::take(&mut part.next);
        }
        for at in wave.into_iter().map(|(_, at)| at) {
            let fault =
                RowFault::new(Code::ROW_REFUSED, None, "the row keeps appearing and disappearing at the destination");
            self.refuse(&mut part, at, &fault)?;
        }
        let started = self.scope.clock().elapsed();
        let wave = part.state_wave();
        self.run_wave(&mut part, &wave).await?;
        self.state_seconds += self.scope.clock().elapsed().since(started).as_secs_f64();
        if self.is_last_pass {
            let wave = part.gone_wave(self.scope.load.missing);
            self.run_wave(&mut part, &wave).await?;
            self.settle_letters(&part);
        }
        self.letters.save()?;
        Ok(part.ends)
    }

    /// Rows that need nothing any more have no letter; those that are held back keep theirs alive.
    fn settle_letters(&mut self, part: &UnderWay<'_>) {
        self.letters.meet(&part.diff.new.keys);
        for (at, end) in part.ends.rows.iter().enumerate() {
            match end {
                End::Unchanged | End::Written { state_set: true, .. } => self.letters.resolve(part.key(at)),
                End::Refused { .. } if part.row(at).action == Action::Held => self.letters.touch(part.key(at)),
                End::Refused { .. } | End::Written { .. } | End::Waiting => {}
            }
        }
        for (gone, end) in part.diff.gone.iter().zip(&part.ends.gone) {
            if matches!(end, GoneEnd::Deleted | GoneEnd::Deactivated | GoneEnd::Kept) {
                self.letters.resolve(part.diff.old.index.keys[gone.at]);
            }
        }
    }

    async fn run_wave(&mut self, part: &mut UnderWay<'_>, wave: &[(Operation, usize)]) -> Result<(), RunError> {
        let mut requests = self.requests(wave).into_iter().peekable();
        let mut under_way: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
        let mut first_error = None;
        loop {
            while first_error.is_none()
                && !self.scope.cancel.is_cancelled()
                && let Some(request) = requests.next_if(|request| under_way.len() < self.pace(request.operation).units)
            {
                under_way.push(self.start(part, request)?);
            }
            let Some((request, answer)) = under_way.next().await else { break };
            match answer {
                Ok(outcomes) => self.take_answer(part, &request, &outcomes)?,
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
    fn start(&mut self, part: &UnderWay<'_>, request: Request) -> Result<BoxFuture<'static, Answer>, RunError> {
        let unit = part.unit(&request, self.scope.load, self.past)?;
        let sequence = self.sequence;
        self.sequence += 1;
        let intent =
            Record::Intent { sequence, operation: request.operation, rows: part.intent_rows(&request, &unit.ids) };
        let ledger = Arc::clone(&self.ledger);
        let destination = Arc::clone(&self.scope.destination);
        let cancel = self.scope.cancel.clone();
        let filling = part.filling();
        let work = async move {
            let unit = leave_filled(destination.as_ref(), unit, &filling).await?;
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
        part: &mut UnderWay<'_>,
        request: &Request,
        outcomes: &[Outcome],
    ) -> Result<(), RunError> {
        if outcomes.len() != request.members.len() {
            return Err(RunError::Defect("a destination must answer one outcome a row"));
        }
        for (at, outcome) in request.members.iter().zip(outcomes) {
            match request.operation {
                Operation::Create | Operation::Update => self.take_row(part, request.operation, *at, outcome)?,
                Operation::SetState => self.take_state(part, *at, outcome)?,
                Operation::Deactivate | Operation::Delete => self.take_gone(part, request.operation, *at, outcome)?,
            }
        }
        self.note_recent(part, request, outcomes);
        self.done += request.members.len() as u64;
        self.scope.tell(Event::Loading {
            load: &self.scope.load.name,
            done: self.done.min(self.total),
            total: self.total,
        });
        Ok(())
    }

    fn note_recent(&mut self, part: &UnderWay<'_>, request: &Request, outcomes: &[Outcome]) {
        let applied = request.members.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Applied);
        let applied = applied.map(|(at, _)| *at);
        let gone = |at: usize| {
            let (index, old) = (&part.diff.old.index, part.diff.gone[at].at);
            (index.ids[old], index.keys[old])
        };
        match request.operation {
            Operation::Create | Operation::Update | Operation::SetState => {
                self.recent.wrote(applied.map(|at| (part.ids[at], part.key(at))));
            }
            Operation::Deactivate => self.recent.wrote(applied.map(gone)),
            Operation::Delete => applied.map(gone).for_each(|(id, _)| self.recent.removed(id)),
        }
    }

    fn take_row(
        &mut self,
        part: &mut UnderWay<'_>,
        operation: Operation,
        at: usize,
        outcome: &Outcome,
    ) -> Result<(), RunError> {
        match outcome {
            Outcome::Applied => {
                let class = if operation == Operation::Create { Class::Created } else { Class::Updated };
                let state_set = part.statuses[at].is_left();
                part.ends.rows[at] = End::Written { class, id: part.ids[at], state_set };
            }
            Outcome::Exists { id } => {
                part.ids[at] = *id;
                part.knows_nothing_of(at);
                part.next.push((Operation::Update, at));
            }
            Outcome::Missing if self.scope.load.deleted_there == DeletedThere::Recreate => {
                part.ids[at] = self.ids.next();
                part.knows_nothing_of(at);
                part.next.push((Operation::Create, at));
            }
            Outcome::Missing => {
                let fault = RowFault::new(Code::ROW_DELETED_THERE, None, "the row was deleted at the destination");
                self.refuse(part, at, &fault)?;
            }
            Outcome::Refused(fault) => self.refuse(part, at, fault)?,
            Outcome::Ambiguous | Outcome::Unsent => {}
        }
        Ok(())
    }

    fn take_state(&mut self, part: &mut UnderWay<'_>, at: usize, outcome: &Outcome) -> Result<(), RunError> {
        match outcome {
            Outcome::Applied | Outcome::Exists { .. } => {
                let class = match part.ends.rows[at] {
                    End::Written { class, .. } => class,
                    _ => Class::Updated,
                };
                part.ends.rows[at] = End::Written { class, id: part.ids[at], state_set: true };
            }
            Outcome::Missing => {
                let fault = RowFault::new(Code::ROW_DELETED_THERE, None, "the row was deleted at the destination");
                self.refuse(part, at, &fault)?;
            }
            Outcome::Refused(fault) => self.refuse(part, at, fault)?,
            Outcome::Ambiguous | Outcome::Unsent => {
                // The content is there, the status is not known: not finished.
                part.ends.rows[at] = End::Waiting;
            }
        }
        Ok(())
    }

    fn take_gone(
        &mut self,
        part: &mut UnderWay<'_>,
        operation: Operation,
        at: usize,
        outcome: &Outcome,
    ) -> Result<(), RunError> {
        part.ends.gone[at] = match outcome {
            Outcome::Applied | Outcome::Exists { .. } | Outcome::Missing if operation == Operation::Delete => {
                GoneEnd::Deleted
            }
            Outcome::Applied | Outcome::Exists { .. } => GoneEnd::Deactivated,
            Outcome::Missing => GoneEnd::Deleted,
            Outcome::Refused(fault) => {
                self.refuse_gone(part, at, fault)?;
                GoneEnd::Refused
            }
            Outcome::Ambiguous | Outcome::Unsent => GoneEnd::Waiting,
        };
        Ok(())
    }

    fn refuse(&mut self, part: &mut UnderWay<'_>, at: usize, fault: &RowFault) -> Result<(), RunError> {
        let written = match part.ends.rows[at] {
            End::Written { id, .. } => Some(id),
            _ => None,
        };
        part.ends.rows[at] = End::Refused { written };
        let row = part.row(at).at;
        self.letters.write(LetterRow {
            key: Some(part.key(at)),
            key_text: key_text(&part.diff.new.rows, &self.mapping.match_positions, row)?,
            row_hash: part.diff.new.row_hashes[row],
            payload: payload(&part.canonical, row)?,
            file: None,
            line: None,
            fault,
        })
    }

    fn refuse_gone(&mut self, part: &UnderWay<'_>, at: usize, fault: &RowFault) -> Result<(), RunError> {
        let index = &part.diff.old.index;
        let old = part.diff.gone[at].at;
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
