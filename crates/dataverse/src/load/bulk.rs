//! CreateMultiple and UpdateMultiple: one request, cut into pieces for as long as it is refused.

use bytes::Bytes;
use flowgate_core::ConnectorError;
use flowgate_core::destination::{Operation, Outcome};
use http::Method;

use super::Writer;
use super::pace::BODY_BYTES_MAX;
use crate::call::{Call, CallError};
use crate::cost::{Message, Work};
use crate::earned::Expected;
use crate::fault::{FaultClass, Refusal};

impl Writer<'_> {
    pub(super) async fn write_in_bulk(&mut self, message: Message, rows: Vec<usize>) -> Result<(), ConnectorError> {
        let mut parts: Vec<Vec<usize>> =
            rows.chunks(self.rows_of_one(message, rows.len())).rev().map(<[usize]>::to_vec).collect();
        while let Some(part) = parts.pop() {
            let (sent, body) = self.encode(part);
            if sent.is_empty() {
                continue;
            }
            if body.len() > BODY_BYTES_MAX && sent.len() > 1 {
                parts.extend(halves(sent));
                continue;
            }
            match self.client.call(&self.bulk_call(message, &sent, body), self.bounds).await {
                Ok(_) => {
                    self.client.costs().ended(&self.unit.shape.table, message, sent.len(), 0);
                    self.end(&sent, &Outcome::Applied);
                }
                Err(CallError::Refused(refusal)) => {
                    parts.extend(self.after_bulk_refusal(message, sent, refusal).await?);
                }
                Err(CallError::Unknown(error)) => {
                    let expected = Expected::UpdatedMultiple { ids: Vec::new() };
                    parts.extend(self.after_unknown(sent, &expected, &error).await?);
                }
                Err(CallError::Fatal(error)) => return Err(error),
                // Rows without an end are unsent: nothing of this request happened.
                Err(CallError::TooLate(_) | CallError::Cancelled) => return Ok(()),
            }
        }
        Ok(())
    }

    /// The best number of rows for a request, so that all requests of the unit are about as large.
    fn rows_of_one(&self, message: Message, rows: usize) -> usize {
        let best = self.client.costs().rows(&self.unit.shape.table, message, self.unit.shape.atomic);
        let requests = (rows as f64 / best as f64).round().max(1.0);
        (rows as f64 / requests).ceil().max(1.0) as usize
    }

    /// The body for these rows. Rows of an update that would send nothing are applied and left out.
    fn encode(&mut self, rows: Vec<usize>) -> (Vec<usize>, Bytes) {
        let shape = &self.unit.shape;
        let start = format!("{{\"@odata.type\":\"Microsoft.Dynamics.CRM.{}\",\"{}\":\"", shape.table, shape.primary_id);
        let mut body = b"{\"Targets\":[".to_vec();
        let mut sent = Vec::with_capacity(rows.len());
        let mut empty = Vec::new();
        for row in rows {
            let length = body.len();
            if !sent.is_empty() {
                body.push(b',');
            }
            body.extend_from_slice(start.as_bytes());
            body.extend_from_slice(self.id(row).hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            body.push(b'"');
            if self.write_members(row, &mut body) == 0 && self.unit.operation != Operation::Create {
                body.truncate(length);
                empty.push(row);
                continue;
            }
            body.push(b'}');
            sent.push(row);
        }
        body.extend_from_slice(b"]}");
        self.end(&empty, &Outcome::Applied);
        (sent, body.into())
    }

    fn bulk_call(&self, message: Message, rows: &[usize], body: Bytes) -> Call {
        let path = format!("{}/Microsoft.Dynamics.CRM.{}", self.unit.shape.set, message.name());
        let work = Work { table: self.unit.shape.table.clone(), message, rows: rows.len() };
        let mut call = Call::write(Method::POST, path, body, self.class, self.client.costs().cost(&work)).doing(work);
        call.headers = self.option_headers();
        let ids = rows.iter().map(|row| self.id(*row)).collect();
        if message == Message::CreateMultiple {
            call.expecting(Expected::CreatedMultiple { ids })
        } else {
            call.expecting(Expected::UpdatedMultiple { ids }).repeatable()
        }
    }

    /// What is still to be sent after the service refused these rows together.
    async fn after_bulk_refusal(
        &mut self,
        message: Message,
        rows: Vec<usize>,
        refusal: Refusal,
    ) -> Result<Vec<Vec<usize>>, ConnectorError> {
        match refusal.class {
            FaultClass::Configuration | FaultClass::Permission => return Err(self.stopped_by(&refusal)),
            FaultClass::NoMessage => {
                self.write_in_parts(rows).await?;
                return Ok(Vec::new());
            }
            _ => {}
        }
        if !self.unit.shape.atomic {
            // Some of the rows may be in; each for itself says so without harm.
            self.write_in_parts(rows).await?;
            return Ok(Vec::new());
        }
        let left = match refusal.class {
            FaultClass::Duplicate if self.unit.operation == Operation::Create => self.settle_existing(rows).await?,
            FaultClass::Missing if self.unit.operation != Operation::Create => self.settle_missing(rows).await?,
            _ => Unsettled { rows, has_settled: false },
        };
        if left.has_settled {
            return Ok(if left.rows.is_empty() { Vec::new() } else { vec![left.rows] });
        }
        if let [row] = left.rows.as_slice() {
            self.refuse(*row, &refusal)?;
            return Ok(Vec::new());
        }
        let size = self.client.costs().piece_rows(&self.unit.shape.table, message, left.rows.len());
        Ok(left.rows.chunks(size).rev().map(<[usize]>::to_vec).collect())
    }
}

/// Rows that still have no end, and whether others of the request got one.
pub(super) struct Unsettled {
    pub(super) rows: Vec<usize>,
    pub(super) has_settled: bool,
}

impl Unsettled {
    /// Refused together, and no time to find out why: they stay unsent, which they are.
    pub(super) fn stopped() -> Self {
        Self { rows: Vec::new(), has_settled: true }
    }
}

/// The second half comes first: parts are taken from the end.
fn halves(mut rows: Vec<usize>) -> Vec<Vec<usize>> {
    let second = rows.split_off(rows.len().div_ceil(2));
    [second, rows].into_iter().filter(|half| !half.is_empty()).collect()
}
