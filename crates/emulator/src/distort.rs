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

/// Runs a request under an effect; `execute` is what runs it.
pub(crate) fn execute(effect: Option<&Effect>, request: &Request, execute: &dyn Fn(&Request) -> Answer) -> Answer {
    let Some(effect) = effect else {
        return execute(request);
    };
    if effect.race {
        // The other client's answer is not ours to see.
        let _lost = execute(request);
    }
    match &effect.fail_rows {
        Some(fail) => partial(fail, request, execute),
        None => execute(request),
    }
}

/// Runs a bulk message without some of its rows, which are answered as failed (16.6).
fn partial(fail: &FailRows, request: &Request, execute: &dyn Fn(&Request) -> Answer) -> Answer {
    let Ok(mut body) = serde_json::from_slice::<Json>(&request.body) else {
        return execute(request);
    };
    let Some(targets) = body.get_mut("Targets").and_then(Json::as_array_mut) else {
        return execute(request);
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
    let is_nothing_left = targets.is_empty();
    let kept = Request { body: Bytes::from(body.to_string()), ..request.clone() };
    if !is_nothing_left {
        let answer = execute(&kept);
        if !answer.status.is_success() || failed.is_empty() {
            return answer;
        }
    }
    let message = format!("{} rows of the bulk request failed.", failed.len());
    let mut error = ApiError::new(Code::PartialBulkFailure, message);
    error.details.push(("ErrorDetails.Plugin.BulkApiErrorDetails", Json::from(failed).to_string()));
    Answer::error(&error, true)
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
