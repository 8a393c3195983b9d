//! How rows are sent: which message, how a refused request is split, and what each row's end is.
//!
//! A unit goes out as few requests as it can: CreateMultiple or UpdateMultiple where the table has
//! them (`bulk`), otherwise `$batch` or, for comparison, one request a row (`parts`). A standard
//! table refuses a bulk request as a whole and does not say which row is at fault, so the request is
//! cut into pieces until the row stands alone. What a lone row's refusal means is `settle`'s business.
//!
//! Promised: exactly one outcome a row; no row is sent twice unless sending it twice is the same as
//! once; after an answer that never came, the destination is asked what is there.

pub(crate) mod batch;
mod bulk;
pub(crate) mod pace;
mod parts;
mod settle;
pub(crate) mod state;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use flowgate_core::destination::{Class, Operation, Outcome, WriteUnit};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::call::{Bounds, CallError};
use crate::client::Client;
use crate::cost::Message;
use crate::fault::{FaultClass, Refusal};
use crate::json_out::RowWriter;
use crate::metadata::TableFacts;
use crate::read::probe;
use state::Status;

/// So many rows in a row, refused with the same code that may be the configuration's, and none that
/// got through: then it is the configuration's. Failures of the service need only come in a row.
const SAME_REFUSALS_MAX: u32 = 20;

/// How often the rows of one unit are sent after an unknown end or a passing refusal.
const ROUNDS_MAX: u32 = 4;

/// What each row sends.
enum Content<'a> {
    Rows(RowWriter<'a>),
    Statuses(Vec<Status>),
    Nothing,
}

/// Writes one unit.
pub(crate) struct Writer<'a> {
    client: &'a Arc<Client>,
    facts: &'a TableFacts,
    unit: &'a WriteUnit,
    content: Content<'a>,
    class: Class,
    bounds: Bounds<'a>,
    tally: &'a Tally,
    outcomes: Vec<Option<Outcome>>,
    /// Rows that a request without a known end held, and that are sent again.
    may_be_run: Vec<bool>,
    rounds: u32,
}

/// Writes `unit`; see [`flowgate_core::Destination::write`].
pub(crate) async fn write(
    client: &Arc<Client>,
    facts: &TableFacts,
    unit: &WriteUnit,
    class: Class,
    bounds: Bounds<'_>,
    tally: &Tally,
) -> Result<Vec<Outcome>, ConnectorError> {
    let content = match unit.operation {
        Operation::Create | Operation::Update => Content::Rows(RowWriter::new(unit)?),
        Operation::SetState | Operation::Deactivate => Content::Statuses(state::wanted(unit)?),
        Operation::Delete => Content::Nothing,
    };
    let (outcomes, may_be_run) = (vec![None; unit.len()], vec![false; unit.len()]);
    let mut writer = Writer { client, facts, unit, content, class, bounds, tally, outcomes, may_be_run, rounds: 0 };
    writer.run().await?;
    let without_end = |may_be_run| if may_be_run { Outcome::Ambiguous } else { Outcome::Unsent };
    let ends = writer.outcomes.into_iter().zip(writer.may_be_run);
    Ok(ends.map(|(outcome, may_be_run)| outcome.unwrap_or(without_end(may_be_run))).collect())
}

impl Writer<'_> {
    async fn run(&mut self) -> Result<(), ConnectorError> {
        let mut rows: Vec<usize> = (0..self.unit.len()).collect();
        if self.unit.resent && self.unit.operation == Operation::Create {
            rows = self.leave_out_created(rows).await?;
        }
        let message = self.message();
        let closing: HashSet<usize> = rows.iter().copied().filter(|row| self.needs_closing(*row)).collect();
        let (in_parts, in_bulk): (Vec<usize>, Vec<usize>) =
            rows.into_iter().partition(|row| message == Message::Parts || closing.contains(row));
        if !in_bulk.is_empty() {
            self.write_in_bulk(message, in_bulk).await?;
        }
        if !in_parts.is_empty() {
            self.write_in_parts(in_parts).await?;
        }
        Ok(())
    }

    /// The bulk message if the table has it and it is not dearer than single-row messages.
    fn message(&self) -> Message {
        let facts = self.facts;
        let message = pace::message(self.unit.operation, facts.has_create_multiple, facts.has_update_multiple);
        let is_dearer = || self.unit.shape.atomic && self.client.costs().prefers_parts(&self.unit.shape.table, message);
        if self.unit.options.one_at_a_time || (message != Message::Parts && is_dearer()) {
            return Message::Parts;
        }
        message
    }

    /// Rows that may have been created by an earlier attempt: those that are there need nothing.
    async fn leave_out_created(&mut self, rows: Vec<usize>) -> Result<Vec<usize>, ConnectorError> {
        match self.find(&rows).await {
            Ok(found) => Ok(self.end_where(rows, |id| found.contains(id), &Outcome::Applied)),
            Err(CallError::Fatal(error)) => Err(error),
            Err(CallError::Refused(refusal)) => Err(self.stopped_by(&refusal)),
            // Not even known whether they were sent.
            Err(CallError::Unknown(_) | CallError::TooLate(_) | CallError::Cancelled) => {
                self.end(&rows, &Outcome::Ambiguous);
                Ok(Vec::new())
            }
        }
    }

    fn needs_closing(&self, row: usize) -> bool {
        match &self.content {
            Content::Statuses(statuses) => statuses[row].needs_closing,
            Content::Rows(_) | Content::Nothing => false,
        }
    }

    /// Appends what the row sends, each member with a comma before it. Returns how many there are.
    fn write_members(&self, row: usize, body: &mut Vec<u8>) -> usize {
        match &self.content {
            Content::Rows(rows) => rows.write_members(row, body),
            Content::Statuses(statuses) => {
                state::write_members(statuses[row], body);
                2
            }
            Content::Nothing => 0,
        }
    }

    fn id(&self, row: usize) -> Uuid {
        self.unit.ids[row]
    }

    /// The ids of these rows that the destination has.
    async fn find(&self, rows: &[usize]) -> Result<HashSet<Uuid>, CallError> {
        let ids: Vec<Uuid> = rows.iter().map(|row| self.id(*row)).collect();
        probe(self.client, &self.unit.shape, &ids, self.class, self.bounds).await
    }

    fn end(&mut self, rows: &[usize], outcome: &Outcome) {
        for row in rows {
            self.outcomes[*row] = Some(outcome.clone());
        }
        if *outcome == Outcome::Applied && !rows.is_empty() {
            self.tally.applied(self.unit);
        }
    }

    /// Ends the rows whose id fits and returns the others.
    fn end_where(&mut self, rows: Vec<usize>, fits: impl Fn(&Uuid) -> bool, outcome: &Outcome) -> Vec<usize> {
        let (ended, left): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(|row| fits(&self.unit.ids[*row]));
        self.end(&ended, outcome);
        left
    }

    /// Headers of a migration, which skip custom logic.
    fn option_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.unit.options.history.as_ref().is_some_and(|history| history.bypass_logic) {
            let name = HeaderName::from_static("mscrm.bypassbusinesslogicexecution");
            headers.insert(name, HeaderValue::from_static("CustomSync,CustomAsync"));
            let name = HeaderName::from_static("mscrm.suppresscallbackregistrationexpanderjob");
            headers.insert(name, HeaderValue::from_static("true"));
        }
        headers
    }

    /// The error of a load that no row can get through.
    fn stopped_by(&self, refusal: &Refusal) -> ConnectorError {
        let what = format!("writing to `{}`", self.unit.shape.table);
        let error = crate::call::refused(&what, refusal);
        match refusal.class {
            FaultClass::Limited => ConnectorError {
                message: format!("{SAME_REFUSALS_MAX} rows in a row ended the same way: {}", error.message),
                ..error
            },
            FaultClass::RowOrConfiguration => {
                let message = format!("{SAME_REFUSALS_MAX} rows in a row ended the same way: {error}");
                ConnectorError::new(ErrorKind::Schema, Code::LOAD_REFUSED, message)
                    .hint("when no row gets through, the load or the table is at fault rather than the rows")
            }
            _ => error,
        }
    }
}

/// Rows refused in a row with one code since one got through, by table and operation, since the connection was opened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    streaks: Mutex<HashMap<(String, Operation), Streak>>,
}

#[derive(Debug, Default)]
struct Streak {
    has_applied: bool,
    code: Option<u32>,
    refusals: u32,
}

impl Tally {
    fn applied(&self, unit: &WriteUnit) {
        self.with(unit, |streak| {
            streak.has_applied = true;
            streak.refusals = 0;
        });
    }

    /// Counts a lone row's refusal; true if it can no longer be about the rows.
    fn refused(&self, unit: &WriteUnit, refusal: &Refusal) -> bool {
        let is_telling = |streak: &Streak| match refusal.class {
            FaultClass::RowOrConfiguration => !streak.has_applied,
            // A service that worked a moment ago may fail now.
            FaultClass::Limited => true,
            _ => false,
        };
        self.with(unit, |streak| {
            streak.refusals = if streak.code == refusal.code { streak.refusals + 1 } else { 1 };
            streak.code = refusal.code;
            is_telling(streak) && streak.refusals >= SAME_REFUSALS_MAX
        })
    }

    fn with<T>(&self, unit: &WriteUnit, change: impl FnOnce(&mut Streak) -> T) -> T {
        let mut streaks = self.streaks.lock().unwrap_or_else(PoisonError::into_inner);
        change(streaks.entry((unit.shape.table.clone(), unit.operation)).or_default())
    }
}
