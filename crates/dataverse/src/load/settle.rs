//! What a refusal or a missing answer means for the rows it concerns, by asking what is there.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use flowgate_core::destination::{Operation, Outcome, RowFault, Selection};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use uuid::Uuid;

use super::bulk::Unsettled;
use super::{Content, Writer};
use crate::call::CallError;
use crate::earned::Expected;
use crate::fault::{FaultClass, Refusal};
use crate::query::key_text;
use crate::read::read_within;

impl Writer<'_> {
    /// Ends a row that was sent by itself and refused.
    pub(super) async fn settle_alone(&mut self, row: usize, refusal: &Refusal) -> Result<(), ConnectorError> {
        if matches!(refusal.class, FaultClass::Configuration | FaultClass::Permission | FaultClass::NoMessage) {
            return Err(self.stopped_by(refusal));
        }
        let rows = vec![row];
        let left = match (self.unit.operation, refusal.class) {
            (Operation::Delete, FaultClass::Missing) => return self.settle_deleted(row, refusal).await,
            (Operation::Create, FaultClass::Duplicate | FaultClass::Conflict) => self.settle_existing(rows).await?,
            (Operation::Update | Operation::SetState | Operation::Deactivate, FaultClass::Missing) => {
                self.settle_missing(rows).await?
            }
            (Operation::SetState, _) if self.needs_closing(row) => self.settle_closed(rows).await?,
            _ => Unsettled { rows, has_settled: false },
        };
        match left.rows.first() {
            Some(row) => self.refuse(*row, refusal),
            None => Ok(()),
        }
    }

    /// What is still to be sent after a request of which nothing is known.
    /// `expected` is what was to come instead, and `error` says what came.
    pub(super) async fn after_unknown(
        &mut self,
        rows: Vec<usize>,
        expected: &Expected,
        error: &ConnectorError,
    ) -> Result<Vec<Vec<usize>>, ConnectorError> {
        for row in &rows {
            self.may_be_run[*row] = true;
        }
        let is_closing = rows.iter().any(|row| self.needs_closing(*row));
        // Something did answer, so that asking is worth while; what was not answered at all was sent several times.
        let was_answered = error.code == Code::UNEARNED_ANSWER;
        let settled = match self.unit.operation {
            Operation::Create => match self.find(&rows).await {
                Ok(found) => Ok(self.end_where(rows.clone(), |id| found.contains(id), &Outcome::Applied)),
                Err(error) => Err(error),
            },
            Operation::SetState if is_closing => self.read_closed(rows.clone()).await,
            Operation::Update if was_answered => self.read_updated(rows.clone()).await,
            Operation::SetState | Operation::Deactivate if was_answered => self.read_closed(rows.clone()).await,
            Operation::Delete if was_answered => match self.find(&rows).await {
                Ok(found) => Ok(self.end_where(rows.clone(), |id| !found.contains(id), &Outcome::Applied)),
                Err(error) => Err(error),
            },
            // The call was repeatable and was repeated: now it is for a later run.
            Operation::Update | Operation::SetState | Operation::Deactivate | Operation::Delete => Ok(rows.clone()),
        };
        if let (true, Ok(left)) = (was_answered, &settled) {
            self.client.earned().looked_up(expected, left.is_empty());
        }
        match settled {
            Ok(left) if left.is_empty() => Ok(Vec::new()),
            Ok(left) if self.unit.operation == Operation::Create || is_closing || was_answered => {
                if self.may_send_again() {
                    if was_answered {
                        self.pause().await;
                    }
                    return Ok(vec![left]);
                }
                self.end(&left, &Outcome::Ambiguous);
                Ok(Vec::new())
            }
            Ok(left) => {
                self.end(&left, &Outcome::Ambiguous);
                Ok(Vec::new())
            }
            Err(CallError::Fatal(error)) if error.kind != ErrorKind::Transient => Err(error),
            Err(_) => {
                self.end(&rows, &Outcome::Ambiguous);
                Ok(Vec::new())
            }
        }
    }

    /// A delete that met no row. The refusal counts if it names the row; otherwise it may be about another one.
    async fn settle_deleted(&mut self, row: usize, refusal: &Refusal) -> Result<(), ConnectorError> {
        let is_named = refusal.message.to_ascii_lowercase().contains(&self.id(row).to_string());
        if !is_named {
            let Some(found) = self.find_in_time(&[row]).await? else { return Ok(()) };
            if found.contains(&self.id(row)) {
                return self.refuse(row, refusal);
            }
        }
        self.end(&[row], &Outcome::Applied);
        Ok(())
    }

    /// Ends the updates whose values are there and returns the others.
    async fn read_updated(&mut self, rows: Vec<usize>) -> Result<Vec<usize>, CallError> {
        let shape = &self.unit.shape;
        let schema = self.unit.rows.schema();
        let is_sent = |name: &str| name != STATE_COLUMN && name != shape.primary_id;
        let positions: Vec<usize> =
            (0..schema.fields().len()).filter(|column| is_sent(schema.field(*column).name())).collect();
        let columns: Vec<String> = positions.iter().map(|column| schema.field(*column).name().clone()).collect();
        let ids = rows.iter().map(|row| self.id(*row)).collect();
        let current = read_within(self.client, shape, &columns, Selection::Ids(ids), self.class, self.bounds).await?;
        let mut places: HashMap<Uuid, (usize, usize)> = HashMap::new();
        for (batch, page) in current.iter().enumerate() {
            let ids = page.column(0).as_string::<i32>();
            places.extend(
                (0..page.num_rows()).filter_map(|at| Some((Uuid::parse_str(ids.value(at)).ok()?, (batch, at)))),
            );
        }
        let is_there = |row: &usize| {
            let Some((batch, at)) = places.get(&self.unit.ids[*row]) else { return false };
            positions.iter().enumerate().all(|(read, column)| {
                let wanted = self.unit.rows.column(*column);
                let goes =
                    self.unit.columns.as_ref().map_or(wanted.is_valid(*row), |sets| sets[*row].contains(*column));
                !goes || wanted.slice(*row, 1) == current[*batch].column(read + 1).slice(*at, 1)
            })
        };
        let (written, left): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(is_there);
        self.end(&written, &Outcome::Applied);
        Ok(left)
    }

    /// Creates that met a taken key or id: finds whose it is.
    pub(super) async fn settle_existing(&mut self, rows: Vec<usize>) -> Result<Unsettled, ConnectorError> {
        let before = rows.len();
        // An id of ours that is there is our own earlier attempt.
        let Some(found) = self.find_in_time(&rows).await? else { return Ok(Unsettled::stopped()) };
        let mut left = self.end_where(rows, |id| found.contains(id), &Outcome::Applied);
        if !left.is_empty() && !self.unit.options.match_columns.is_empty() {
            let Some(unknown) = self.settle_taken_keys(left).await? else { return Ok(Unsettled::stopped()) };
            left = unknown;
        }
        Ok(Unsettled { has_settled: left.len() < before, rows: left })
    }

    /// Ends the rows whose keys others have and returns the rest; `None` if there was no time to find out.
    async fn settle_taken_keys(&mut self, rows: Vec<usize>) -> Result<Option<Vec<usize>>, ConnectorError> {
        let Some(keys) = self.match_columns_of(&rows)? else { return Ok(Some(rows)) };
        let shape = &self.unit.shape;
        let columns = self.unit.options.match_columns.clone();
        let selection = Selection::Keys(keys.clone());
        let read = read_within(self.client, shape, &columns, selection, self.class, self.bounds).await;
        let Some(current) = in_time(read, "looking for taken keys")? else { return Ok(None) };
        let key_columns: Vec<usize> = (0..columns.len()).collect();
        let after_id: Vec<usize> = (1..=columns.len()).collect();
        let mut ids: HashMap<Vec<u8>, Uuid> = HashMap::new();
        for batch in &current {
            let id_column = batch.column(0).as_string::<i32>();
            for row in 0..batch.num_rows() {
                if let (Some(key), Ok(id)) =
                    (key_text(shape, batch, &after_id, row), Uuid::parse_str(id_column.value(row)))
                {
                    ids.insert(key, id);
                }
            }
        }
        let mut left = Vec::new();
        for (position, row) in rows.into_iter().enumerate() {
            match key_text(shape, &keys, &key_columns, position).and_then(|key| ids.get(&key)) {
                Some(id) if *id == self.unit.ids[row] => self.end(&[row], &Outcome::Applied),
                Some(id) => self.end(&[row], &Outcome::Exists { id: *id }),
                None => left.push(row),
            }
        }
        Ok(Some(left))
    }

    /// The match columns of these rows; `None` if the unit does not hold them all.
    fn match_columns_of(&self, rows: &[usize]) -> Result<Option<RecordBatch>, ConnectorError> {
        let schema = self.unit.rows.schema();
        let columns: Option<Vec<usize>> = self
            .unit
            .options
            .match_columns
            .iter()
            .map(|name| schema.index_of(name).ok().filter(|_| *name != self.unit.shape.primary_id))
            .collect();
        let Some(columns) = columns else { return Ok(None) };
        let indices = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        let taken = self.unit.rows.project(&columns).and_then(|keys| take_record_batch(&keys, &indices));
        taken.map(Some).map_err(|error| {
            ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "the keys of a unit could not be taken")
                .caused_by(error)
        })
    }

    /// As `find`; `None` if the run was stopped or its time is over before the answer.
    async fn find_in_time(&self, rows: &[usize]) -> Result<Option<HashSet<Uuid>>, ConnectorError> {
        in_time(self.find(rows).await, &format!("looking for rows of `{}`", self.unit.shape.table))
    }

    /// Updates that met no row: finds which ones.
    pub(super) async fn settle_missing(&mut self, rows: Vec<usize>) -> Result<Unsettled, ConnectorError> {
        let before = rows.len();
        let Some(found) = self.find_in_time(&rows).await? else { return Ok(Unsettled::stopped()) };
        let left = self.end_where(rows, |id| !found.contains(id), &Outcome::Missing);
        Ok(Unsettled { has_settled: left.len() < before, rows: left })
    }

    /// Closings that were refused: a row that is closed as wanted, or gone, has its end.
    async fn settle_closed(&mut self, rows: Vec<usize>) -> Result<Unsettled, ConnectorError> {
        let before = rows.len();
        let left = self.settle_missing(rows).await?.rows;
        let read = self.read_closed(left).await;
        let Some(left) = in_time(read, "reading the status of rows")? else { return Ok(Unsettled::stopped()) };
        Ok(Unsettled { has_settled: left.len() < before, rows: left })
    }

    /// Ends the rows that are in the wanted status and returns the others.
    async fn read_closed(&mut self, rows: Vec<usize>) -> Result<Vec<usize>, CallError> {
        let Content::Statuses(wanted) = &self.content else { return Ok(rows) };
        let ids: Vec<Uuid> = rows.iter().map(|row| self.id(*row)).collect();
        let columns = [STATE_COLUMN.to_owned()];
        let selection = Selection::Ids(ids);
        let current = read_within(self.client, &self.unit.shape, &columns, selection, self.class, self.bounds).await?;
        let mut statuses: HashMap<Uuid, i32> = HashMap::new();
        for batch in &current {
            let (ids, values) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int32Type>());
            for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
                if let Ok(id) = Uuid::parse_str(ids.value(row)) {
                    statuses.insert(id, values.value(row));
                }
            }
        }
        let is_closed = |row: &usize| statuses.get(&self.unit.ids[*row]) == Some(&wanted[*row].status);
        let (closed, left): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(is_closed);
        self.end(&closed, &Outcome::Applied);
        Ok(left)
    }

    /// Ends a row that the service will not take, or the load if it takes none. While an earlier request that held the row
    /// has no known end, it may still be taken: then that is for a later run to find out.
    pub(super) fn refuse(&mut self, row: usize, refusal: &Refusal) -> Result<(), ConnectorError> {
        if self.may_be_run[row] {
            self.end(&[row], &Outcome::Ambiguous);
            return Ok(());
        }
        if self.tally.refused(self.unit, refusal) {
            return Err(self.stopped_by(refusal));
        }
        let message = super::pace::message(self.unit.operation, true, true);
        self.client.costs().ended(&self.unit.shape.table, message, 1, 1);
        let fault = RowFault {
            code: refusal.row_code(),
            column: self.column_in(&refusal.message),
            reason: refusal.message.clone(),
            service_code: refusal.service_code(),
            request_id: refusal.request_id.clone(),
        };
        self.end(&[row], &Outcome::Refused(fault));
        Ok(())
    }

    /// The column that the service's message quotes, if it is one of the table's.
    fn column_in(&self, message: &str) -> Option<String> {
        let mut quoted = message.split(['\'', '"', '`']);
        quoted.find(|word| self.unit.shape.column(word).is_some()).map(str::to_owned)
    }
}

/// What was found; `None` if the run was stopped or its time is over before the answer.
fn in_time<T>(found: Result<T, CallError>, doing: &str) -> Result<Option<T>, ConnectorError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(CallError::TooLate(_) | CallError::Cancelled) => Ok(None),
        Err(error) => Err(error.into_error(doing)),
    }
}
