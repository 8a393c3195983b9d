//! Single-row messages, many to a `$batch` or one to a request, each with its own answer.

use std::time::Duration;

use flowgate_core::ConnectorError;
use flowgate_core::destination::{Operation, Outcome};
use flowgate_http::Answer;
use http::header::{CONTENT_TYPE, IF_MATCH};
use http::{HeaderName, HeaderValue, Method};

use super::batch::{Part, decode, encode};
use super::state::closing_body;
use super::{Content, ROUNDS_MAX, Writer};
use crate::call::{Call, CallError};
use crate::cost::{Message, Work};
use crate::earned::Expected;
use crate::fault::{FaultClass, Refusal};

/// How one part ended.
enum PartEnd {
    Done,
    Refused(Refusal),
    /// What stands in its place is no answer to it.
    Unearned,
    /// The batch ended before it.
    NotRun,
}

impl Writer<'_> {
    pub(super) async fn write_in_parts(&mut self, rows: Vec<usize>) -> Result<(), ConnectorError> {
        let rows_per_request = if self.unit.options.one_at_a_time {
            1
        } else {
            self.client.costs().rows(&self.unit.shape.table, Message::Parts, self.unit.shape.atomic)
        };
        let mut chunks: Vec<Vec<usize>> = rows.chunks(rows_per_request).rev().map(<[usize]>::to_vec).collect();
        while let Some(chunk) = chunks.pop() {
            let parts: Vec<Part> = chunk.iter().map(|row| self.part(*row)).collect();
            match self.send_parts(&parts).await {
                Ok(ends) => {
                    let again = self.take_ends(&chunk, ends).await?;
                    if !again.is_empty() && self.may_send_again() {
                        self.pause().await;
                        chunks.push(again);
                    }
                }
                Err(CallError::Unknown(error)) => {
                    let expected = if let [part] = parts.as_slice() { &part.expected } else { &Expected::Batch };
                    chunks.extend(self.after_unknown(chunk, expected, &error).await?);
                }
                Err(CallError::Fatal(error)) => return Err(error),
                // The batch itself was refused: what stands in it is not yet known to be at fault.
                Err(CallError::Refused(refusal)) => match chunk.as_slice() {
                    [row] => self.settle_alone(*row, &refusal).await?,
                    _ if matches!(refusal.class, FaultClass::Configuration | FaultClass::Permission) => {
                        return Err(self.stopped_by(&refusal));
                    }
                    _ => {
                        let (first, second) = chunk.split_at(chunk.len() / 2);
                        chunks.extend([second.to_vec(), first.to_vec()]);
                    }
                },
                Err(CallError::TooLate(_) | CallError::Cancelled) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Ends what has an end and returns the rows to send again.
    async fn take_ends(&mut self, rows: &[usize], ends: Vec<PartEnd>) -> Result<Vec<usize>, ConnectorError> {
        let mut again = Vec::new();
        let mut unearned = Vec::new();
        let done = ends.iter().filter(|end| matches!(end, PartEnd::Done)).count();
        // Rows that get through bring the bulk message back, which was left because many did not.
        let message = super::pace::message(self.unit.operation, true, true);
        self.client.costs().ended(&self.unit.shape.table, message, done, 0);
        for (row, end) in rows.iter().zip(ends) {
            match end {
                PartEnd::Done => self.end(&[*row], &Outcome::Applied),
                PartEnd::NotRun => again.push(*row),
                PartEnd::Unearned => unearned.push(*row),
                PartEnd::Refused(refusal) => match refusal.class {
                    FaultClass::Throttled | FaultClass::Transient | FaultClass::Paused => again.push(*row),
                    FaultClass::Gateway => {
                        self.may_be_run[*row] = true;
                        again.push(*row);
                    }
                    _ => self.settle_alone(*row, &refusal).await?,
                },
            }
        }
        if !unearned.is_empty() {
            again.extend(self.after_unknown(unearned, &Expected::Batch, &unearned_part()).await?.into_iter().flatten());
        }
        Ok(again)
    }

    pub(super) fn may_send_again(&mut self) -> bool {
        self.rounds += 1;
        self.rounds < ROUNDS_MAX && !self.bounds.cancel.is_cancelled()
    }

    pub(super) async fn pause(&self) {
        self.client.clock().sleep(Duration::from_secs(1 << self.rounds.min(6))).await;
    }

    /// The single-row message for one row.
    fn part(&self, row: usize) -> Part {
        let shape = &self.unit.shape;
        let id = self.id(row);
        let mut headers = self.option_headers();
        let mut body = Vec::new();
        let set = shape.set.clone();
        let (method, path, expected) = match (&self.unit.operation, &self.content) {
            (Operation::Delete, _) => (Method::DELETE, format!("{set}({id})"), Expected::Deleted),
            (Operation::Create, _) => {
                body.extend_from_slice(format!("{{\"{}\":\"{id}\"", shape.primary_id).as_bytes());
                self.write_members(row, &mut body);
                body.push(b'}');
                (Method::POST, set.clone(), Expected::Created { set, id })
            }
            (_, Content::Statuses(statuses)) if statuses[row].needs_closing => {
                body = closing_body(shape, id, statuses[row]);
                (Method::POST, "CloseIncident".to_owned(), Expected::Acted)
            }
            (Operation::Update | Operation::SetState | Operation::Deactivate, _) => {
                self.write_members(row, &mut body);
                // The first member's comma becomes the opening brace.
                match body.first_mut() {
                    Some(comma) => *comma = b'{',
                    None => body.push(b'{'),
                }
                body.push(b'}');
                // Without it a PATCH would create what was deleted there.
                headers.insert(IF_MATCH, HeaderValue::from_static("*"));
                (Method::PATCH, format!("{set}({id})"), Expected::Updated { set, id })
            }
        };
        Part { method, path, headers, body, expected }
    }

    async fn send_parts(&self, parts: &[Part]) -> Result<Vec<PartEnd>, CallError> {
        if let [part] = parts {
            self.client.call(&self.single_call(part), self.bounds).await?;
            return Ok(vec![PartEnd::Done]);
        }
        let (body, content_type) = encode(parts, |path| self.client.part_address(path));
        let work = self.work_of_parts(parts.len());
        let mut call = Call::write(Method::POST, "$batch", body, self.class, self.client.costs().cost(&work))
            .doing(work)
            .header(HeaderName::from_static("prefer"), HeaderValue::from_static("odata.continue-on-error"));
        if let Ok(value) = HeaderValue::from_str(&content_type) {
            call.headers.insert(CONTENT_TYPE, value);
        }
        call.is_repeatable = parts.iter().all(is_repeatable);
        call.expected = Expected::Batch;
        let answer = self.client.call(&call, self.bounds).await?;
        let kind = answer.header("content-type").unwrap_or_default();
        let answers = decode(kind, &answer.body).filter(|answers| belong_to(answers, parts.len()));
        let Some(answers) = answers else {
            // Done, perhaps; but what was done cannot be read.
            return Err(CallError::Unknown(unearned_part()));
        };
        let end = |(answer, part): (&Answer, &Part)| match answer.status {
            status if status.is_client_error() || status.is_server_error() => PartEnd::Refused(Refusal::of(answer)),
            _ if part.expected.fits_part(answer) => PartEnd::Done,
            _ => PartEnd::Unearned,
        };
        let mut ends: Vec<PartEnd> = answers.iter().zip(parts).map(end).collect();
        ends.resize_with(parts.len(), || PartEnd::NotRun);
        Ok(ends)
    }

    fn work_of_parts(&self, rows: usize) -> Work {
        Work { table: self.unit.shape.table.clone(), message: Message::Parts, rows }
    }

    fn single_call(&self, part: &Part) -> Call {
        let body = part.body.clone().into();
        let work = self.work_of_parts(1);
        let cost = self.client.costs().cost(&work);
        let mut call = Call::write(part.method.clone(), part.path.clone(), body, self.class, cost).doing(work);
        call.headers = part.headers.clone();
        call.is_repeatable = is_repeatable(part);
        call.expected = part.expected.clone();
        call
    }
}

/// Done, perhaps; but what was done cannot be read.
fn unearned_part() -> ConnectorError {
    let message = "the answer to a batch of requests is not of the expected form";
    ConnectorError::new(flowgate_core::ErrorKind::Transient, flowgate_core::Code::UNEARNED_ANSWER, message)
}

/// Whether each answer is that of the part in its place: one for each, or fewer because a failure ended the batch.
/// With one too many, or one missing in the middle, a refusal would be taken for another row's.
fn belong_to(answers: &[Answer], parts: usize) -> bool {
    answers.len() == parts
        || (answers.len() < parts && answers.last().is_some_and(|answer| !answer.status.is_success()))
}

/// Updates and deletes end the same however often they are sent; creates and actions do not.
fn is_repeatable(part: &Part) -> bool {
    part.method == Method::PATCH || part.method == Method::DELETE
}
