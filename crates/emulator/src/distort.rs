//! Faults that act on what a request does or on its answer, where a status alone would not do.
//!
//! Promise: rows that a distortion lets through are written as the request asked. Left out: rules
//! and their matching (`faults`).

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value as Json, json};

use crate::error::{ApiError, Code};
use crate::faults::{Effect, FailRows};
use crate::web::{Answer, Request};

/// What is run in place of a request.
pub(crate) struct Plan {
    pub(crate) request: Request,
    /// Another client sends the same first.
    pub(crate) is_raced: bool,
    /// Whether anything is left to run.
    pub(crate) has_rows: bool,
    /// Rows that are answered as failed (16.6).
    failed: Vec<Json>,
}

impl Plan {
    pub(crate) fn new(effect: Option<&Effect>, request: &Request) -> Plan {
        let is_raced = effect.is_some_and(|effect| effect.race);
        let whole = Plan { request: request.clone(), is_raced, has_rows: true, failed: Vec::new() };
        match effect.and_then(|effect| effect.fail_rows.as_ref()) {
            Some(fail) => without_rows(fail, whole),
            None => whole,
        }
    }

    /// The answer, given what became of the rows that were run.
    pub(crate) fn answer(self, of_rest: Answer) -> Answer {
        if self.failed.is_empty() || !of_rest.status.is_success() {
            return of_rest;
        }
        let message = format!("{} rows of the bulk request failed.", self.failed.len());
        let mut error = ApiError::new(Code::PayloadError, message);
        error.details.push((crate::error::ROWS_FAILED, Json::from(self.failed).to_string()));
        Answer::error(&error, true)
    }
}

/// Takes the rows that are to fail out of a bulk message.
fn without_rows(fail: &FailRows, whole: Plan) -> Plan {
    let Ok(mut body) = serde_json::from_slice::<Json>(&whole.request.body) else {
        return whole;
    };
    let Some(targets) = body.get_mut("Targets").and_then(Json::as_array_mut) else {
        return whole;
    };
    let mut failed = Vec::new();
    let mut place = 0;
    targets.retain(|_| {
        let fails = fail.at.contains(&place);
        if fails {
            failed.push(json!({ "RequestIndex": place, "Id": uuid::Uuid::nil(), "StatusCode": fail.status }));
        }
        place += 1;
        !fails
    });
    let has_rows = !targets.is_empty();
    let request = Request { body: Bytes::from(body.to_string()), ..whole.request };
    Plan { request, has_rows, failed, ..whole }
}

/// Makes the link to the next page lead to the page it stands on.
pub(crate) fn repeat_next_link(answer: &mut Answer, address: &str) {
    if answer.status != StatusCode::OK {
        return;
    }
    let Ok(mut body) = serde_json::from_slice::<Json>(&answer.body) else { return };
    if let Some(link) = body.get_mut("@odata.nextLink") {
        *link = address.into();
        answer.body = body.to_string().into_bytes();
    }
}
