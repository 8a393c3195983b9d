//! One part while it is sent: what each of its rows goes by, what it still needs, and how it ended.
//!
//! Makes requests and sends none: that is for the module `load`.

use std::sync::Arc;

use arrow_array::{Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::take::take_record_batch;
use flowgate_core::destination::{ColumnSet, WriteOptions, WriteUnit};
use flowgate_core::project::{Load, Master, Missing};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::{Code, ConnectorError, KeyHash, LoadRows, Operation};
use flowgate_store::ledger::IntentRow;
use uuid::Uuid;

use crate::RunError;
use crate::diff::{Action, Decided, Diff, Status, asked_status};
use crate::ids::Ids;
use crate::ledger::{Class, Past, Removal};
use crate::mapping::Mapping;

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

/// The rows of one part after sending.
pub(crate) struct Ends {
    pub(crate) rows: Vec<End>,
    pub(crate) gone: Vec<GoneEnd>,
}

impl Ends {
    /// Keys of rows that had been deleted there and were written anew.
    pub(crate) fn replaced<'a>(&'a self, diff: &'a Diff, past: &'a Past) -> impl Iterator<Item = KeyHash> + 'a {
        // Nearly always there are none.
        let rows = if past.missing.is_empty() { &[][..] } else { diff.decided.as_slice() };
        let written = rows.iter().zip(&self.rows).filter(|(_, end)| matches!(end, End::Written { .. }));
        written.map(|(row, _)| diff.new.keys[row.at]).filter(|key| past.missing.contains(key))
    }

    /// Ids of the gone rows that were deleted.
    pub(crate) fn removed<'a>(&'a self, diff: &'a Diff) -> impl Iterator<Item = Uuid> + 'a {
        let deleted = diff.gone.iter().zip(&self.gone).filter(|(_, end)| **end == GoneEnd::Deleted);
        deleted.map(|(gone, _)| diff.old.index.ids[gone.at])
    }
}

/// Rows of one request: positions in `decided`, or in `gone` for removals.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) members: Vec<usize>,
}

/// See the module.
pub(crate) struct UnderWay<'a> {
    pub(crate) diff: &'a Diff,
    mapping: &'a Mapping,
    /// The prepared rows without bookkeeping columns.
    pub(crate) canonical: RecordBatch,
    /// Positions of canonical columns that are sent (all but the state rule's).
    sent: Vec<usize>,
    /// The id each row goes by.
    pub(crate) ids: Vec<Uuid>,
    /// Rows whose content there is not known: every column is sent.
    whole: Vec<bool>,
    /// The status each row is to be brought into.
    pub(crate) statuses: Vec<Status>,
    pub(crate) ends: Ends,
    /// The next wave, as answers ask for it.
    pub(crate) next: Vec<(Operation, usize)>,
    is_matched_by_id: bool,
}

impl<'a> UnderWay<'a> {
    pub(crate) fn new(diff: &'a Diff, mapping: &'a Mapping, ids: &Ids) -> Result<Self, RunError> {
        let all: Vec<usize> = (0..mapping.columns.len()).collect();
        let sent = all.iter().copied().filter(|at| Some(*at) != mapping.state_position()).collect();
        let mut part = Self {
            canonical: diff.new.rows.project(&all)?,
            sent,
            ids: Vec::with_capacity(diff.decided.len()),
            whole: vec![false; diff.decided.len()],
            statuses: diff.decided.iter().map(|row| row.status).collect(),
            ends: Ends { rows: Vec::new(), gone: diff.gone.iter().map(|gone| gone.removal.into()).collect() },
            next: Vec::new(),
            is_matched_by_id: mapping.is_matched_by_id(),
            mapping,
            diff,
        };
        for row in &diff.decided {
            let (id, end) = part.begin(row, ids)?;
            part.ids.push(id);
            part.ends.rows.push(end);
        }
        Ok(part)
    }

    fn begin(&self, row: &Decided, ids: &Ids) -> Result<(Uuid, End), RunError> {
        Ok(match &row.action {
            Action::Unchanged { .. } => (Uuid::nil(), End::Unchanged),
            Action::Held | Action::Ambiguous => (Uuid::nil(), End::Refused { written: None }),
            Action::Create { id: Some(id) } => (*id, End::Waiting),
            Action::Create { id: None } if self.is_matched_by_id => (self.own_id(row.at)?, End::Waiting),
            Action::Create { id: None } => (ids.next(), End::Waiting),
            Action::Update { id, .. } => (*id, End::Waiting),
            Action::Done { class, id } => {
                (*id, End::Written { class: *class, id: *id, state_set: row.status.is_left() })
            }
        })
    }

    /// The id that a row matched by id brings with it.
    fn own_id(&self, row: usize) -> Result<Uuid, RunError> {
        let position = self.mapping.match_positions.first().copied().unwrap_or_default();
        let column = self.canonical.column(position).as_any().downcast_ref::<StringArray>();
        let text = column.map(|ids| ids.value(row)).unwrap_or_default();
        Uuid::parse_str(text).map_err(|_| RunError::Defect("a canonical id that is not one"))
    }

    pub(crate) fn row(&self, at: usize) -> &Decided {
        &self.diff.decided[at]
    }

    pub(crate) fn key(&self, at: usize) -> KeyHash {
        self.diff.new.keys[self.row(at).at]
    }

    /// What is there under the row's key is not what the state described: all of it is sent, and its status.
    pub(crate) fn knows_nothing_of(&mut self, at: usize) {
        self.whole[at] = true;
        if self.mapping.state_position().is_some() {
            let asked = asked_status(self.mapping, &self.diff.new.rows, self.row(at).at);
            self.statuses[at] = asked.map_or(Status::Leave, Status::Set);
        }
    }

    pub(crate) fn first_wave(&mut self) -> Vec<(Operation, usize)> {
        let mut wave = Vec::new();
        for (at, row) in self.diff.decided.iter().enumerate() {
            match &row.action {
                Action::Create { .. } => wave.push((Operation::Create, at)),
                Action::Update { columns, .. } if !columns.is_empty() => wave.push((Operation::Update, at)),
                Action::Update { id, .. } => {
                    self.ends.rows[at] = End::Written { class: Class::Updated, id: *id, state_set: false };
                }
                Action::Unchanged { .. } | Action::Done { .. } | Action::Held | Action::Ambiguous => {}
            }
        }
        wave
    }

    /// Rows that are there and still need their status.
    pub(crate) fn state_wave(&self) -> Vec<(Operation, usize)> {
        let ends = self.ends.rows.iter().enumerate();
        ends.filter(|(_, end)| matches!(end, End::Written { state_set: false, .. }))
            .map(|(at, _)| (Operation::SetState, at))
            .collect()
    }

    pub(crate) fn gone_wave(&mut self, missing: Missing) -> Vec<(Operation, usize)> {
        for (gone, end) in self.diff.gone.iter().zip(&mut self.ends.gone) {
            if gone.is_shared && *end == GoneEnd::Waiting {
                *end = GoneEnd::Kept;
            }
        }
        let operation = match missing {
            Missing::Keep => {
                self.ends.gone.iter_mut().filter(|end| **end == GoneEnd::Waiting).for_each(|end| *end = GoneEnd::Kept);
                return Vec::new();
            }
            Missing::Deactivate => Operation::Deactivate,
            Missing::Delete => Operation::Delete,
        };
        let is_done = |end: &GoneEnd| match operation {
            Operation::Delete => matches!(end, GoneEnd::Deleted | GoneEnd::Kept),
            _ => *end != GoneEnd::Waiting,
        };
        let waiting = self.ends.gone.iter().enumerate().filter(|(_, end)| !is_done(end));
        waiting.map(|(at, _)| (operation, at)).collect()
    }

    pub(crate) fn intent_rows(&self, request: &Request, ids: &[Uuid]) -> Vec<IntentRow> {
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

    pub(crate) fn unit(&self, request: &Request, load: &Load, past: &Past) -> Result<WriteUnit, RunError> {
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
        let columns = (request.operation == Operation::Update).then(|| self.sent_columns(&request.members));
        let resent = !is_gone && request.members.iter().any(|at| past.is_resent(self.key(*at)));
        Ok(WriteUnit {
            shape: Arc::clone(&self.mapping.shape),
            operation: request.operation,
            ids,
            rows,
            columns,
            resent: resent || is_gone,
            options: WriteOptions {
                history: load.history.clone(),
                match_columns: load.match_columns.clone(),
                one_at_a_time: false,
            },
        })
    }

    fn sent_rows(&self, members: &[usize]) -> Result<RecordBatch, RunError> {
        let indices: UInt32Array = members.iter().map(|at| Some(self.row(*at).at as u32)).collect();
        Ok(take_record_batch(&self.canonical.project(&self.sent)?, &indices)?)
    }

    /// Per row the columns to send, as positions within the rows that are sent.
    fn sent_columns(&self, members: &[usize]) -> Vec<ColumnSet> {
        let wanted = |at: usize, column: usize| match &self.row(at).action {
            Action::Update { columns, .. } if !self.whole[at] => columns.contains(column),
            _ => self.mapping.columns[column].rule.master != Master::Destination,
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

    /// Of the columns that are sent, those that are only filled.
    pub(crate) fn filling(&self) -> Vec<usize> {
        let rule = |column: &usize| self.mapping.columns[*column].rule.master;
        let sent = self.sent.iter().enumerate();
        sent.filter(|(_, column)| rule(column) == Master::FillIfEmpty).map(|(position, _)| position).collect()
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

/// The classes of a part's rows after sending.
pub(crate) fn count(diff: &Diff, ends: &Ends, past: &Past) -> LoadRows {
    let counts = diff.counts;
    let set_aside = |row: &&Decided| matches!(row.action, Action::Held | Action::Ambiguous);
    let set_aside = diff.decided.iter().filter(set_aside).count() as u64;
    let unchanged = diff.decided.iter().filter(|row| matches!(row.action, Action::Unchanged { .. })).count() as u64;
    let mut rows = LoadRows {
        prepared: counts.prepared,
        // Settled ones; the others are added below.
        unchanged: counts.unchanged - unchanged,
        superseded: counts.superseded,
        quarantined: counts.quarantined - set_aside,
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
            Class::Updated => rows.updated += 1,
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
