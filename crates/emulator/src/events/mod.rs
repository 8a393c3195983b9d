//! Events out: sending what steps are told to webhooks and service endpoints.
//!
//! Promise: a webhook gets the documented headers and body, and one more try after 502, 503 or
//! 504; the outcome of an asynchronous one is in its system job. An endpoint of another contract
//! is posted to if its address is `http://`, with growing waits between tries; else its messages
//! are kept for `GET /__emulator/events`. Left out: addresses of `https://`, and message formats
//! other than JSON, which fail by name; queues surviving a restart.

mod endpoint;
mod post;

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use serde_json::{Value as Json, json};

use crate::engine::{Engine, finish_system_job, lock, set_system_job};
use crate::error::{ApiError, Code};
use crate::storage::{Database, Event};
use endpoint::{Authentication, Endpoint};
use post::{Outcome, post};

/// Greatest bodies: of a webhook, and of a message to the bus.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;
const BUS_BYTES_MAX: usize = 192 * 1024;
/// Members that a body over its greatest size loses.
const LARGE_MEMBERS: &[&str] = &["ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages"];
/// Messages kept for whoever asks.
const KEPT_MAX: usize = 10_000;
/// Tries of a message to the bus, and simulated seconds before the second one; each wait is
/// twice the one before. Both numbers are UNVERIFIED.
const BUS_TRIES: u32 = 5;
const BUS_WAIT_S: f64 = 60.0;

/// Messages to endpoints without an address, oldest first.
pub(crate) type Kept = VecDeque<Json>;

/// Sends one event and tells how it ended.
pub(crate) async fn ask(engine: &Engine, organization: &str, event: &Event) -> Result<(), ApiError> {
    let endpoint = {
        let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
        Endpoint::load(&database, event.endpoint)?
    };
    if endpoint.is_webhook {
        webhook(engine, organization, event, &endpoint).await
    } else {
        bus(engine, event, &endpoint).await
    }
}

/// Sends asynchronous events in the background and notes their outcome.
pub(crate) fn send_all(engine: &Arc<Engine>, organization: &str, events: Vec<Event>) {
    for event in events {
        let (engine, organization) = (Arc::clone(engine), organization.to_owned());
        tokio::spawn(async move {
            let done = ask(&engine, &organization, &event).await;
            record(&engine, &event, done);
        });
    }
}

fn record(engine: &Engine, event: &Event, done: Result<(), ApiError>) {
    let Some(job) = event.job else {
        if let Err(error) = done {
            tracing::warn!(error = error.message, "a synchronous step was told too late to object");
        }
        return;
    };
    let now = engine.clock.now() as i64;
    write(engine, |database| match done {
        Ok(()) if event.deletes_job => {
            if let Some(jobs) = database.schema.by_logical("asyncoperation").map(|jobs| jobs.id) {
                database.remove(jobs, job, now);
            }
        }
        Ok(()) => finish_system_job(database, job, 30, "", now),
        Err(error) => finish_system_job(database, job, 31, &error.message, now),
    });
}

fn write(engine: &Engine, work: impl FnOnce(&mut Database)) {
    let mut database = engine.database.write().unwrap_or_else(PoisonError::into_inner);
    let written: Result<(), ApiError> = database.transaction(|database| {
        work(database);
        Ok(())
    });
    debug_assert!(written.is_ok(), "recording an outcome cannot fail");
}

/// The body as bytes, without its large members if it is over the limit.
fn body(event: &Event, limit: usize) -> (Vec<u8>, bool) {
    // The data contract writes dates as `\/Date(...)\/`.
    let bytes = |value: &Json| {
        let text = value.to_string().replace("\"/Date(", "\"\\/Date(").replace(")/\"", ")\\/\"");
        text.into_bytes()
    };
    let whole = bytes(&event.body);
    if whole.len() <= limit {
        return (whole, false);
    }
    let mut smaller = (*event.body).clone();
    if let Json::Object(members) = &mut smaller {
        members.retain(|name, _| !LARGE_MEMBERS.contains(&name.as_str()));
    }
    (bytes(&smaller), true)
}

async fn webhook(engine: &Engine, organization: &str, event: &Event, endpoint: &Endpoint) -> Result<(), ApiError> {
    let (bytes, is_reduced) = body(event, WEBHOOK_BYTES_MAX);
    if bytes.len() > WEBHOOK_BYTES_MAX {
        let message = "The webhook call failed because the http request payload has exceeded maximum allowed size. Please reduce your request size and retry.";
        return Err(ApiError::new(Code::WebhookTooLarge, message));
    }
    let mut headers = vec![
        ("content-type".to_owned(), "application/json; charset=utf-8".to_owned()),
        ("x-ms-dynamics-organization".to_owned(), organization.to_owned()),
        ("x-ms-dynamics-entity-name".to_owned(), event.table.clone()),
        ("x-ms-dynamics-request-name".to_owned(), event.message.clone()),
        ("x-ms-correlation-request-id".to_owned(), event.correlation.to_string()),
    ];
    if is_reduced {
        headers.push(("x-ms-dynamics-msg-size-exceeded".to_owned(), "true".to_owned()));
    }
    let mut url = endpoint.url.clone();
    match &endpoint.authentication {
        Authentication::None => {}
        Authentication::Headers(extra) => headers.extend(extra.iter().cloned()),
        Authentication::Query(pairs) => {
            let joint = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{joint}{pairs}");
        }
    }
    for attempt in 0..2 {
        match post(&engine.clock, &url, &headers, bytes.clone()).await {
            Outcome::Answered(200..=299) => return Ok(()),
            Outcome::Answered(502..=504) if attempt == 0 => {}
            outcome => return Err(refusal(&outcome)),
        }
    }
    Ok(())
}

fn refusal(outcome: &Outcome) -> ApiError {
    match outcome {
        Outcome::Answered(status) => ApiError::new(
            Code::WebhookRefused,
            format!(
                "The webhook call failed because the http request received non-success httpStatus code. Please check your \
                 webhook request handler. Status: {status}."
            ),
        ),
        Outcome::TimedOut => ApiError::new(
            Code::WebhookTimedOut,
            "The webhook call failed because the Http request timed out at client side. Please check your webhook request handler.",
        ),
        Outcome::Failed(what) => ApiError::new(
            Code::WebhookFailed,
            format!("The webhook call failed during http post. Please check the exception for more details. {what}"),
        ),
    }
}

async fn bus(engine: &Engine, event: &Event, endpoint: &Endpoint) -> Result<(), ApiError> {
    let (bytes, is_reduced) = body(event, BUS_BYTES_MAX);
    if bytes.len() > BUS_BYTES_MAX {
        let message = "The message cannot be posted because it exceeds the maximum size of the service bus.";
        return Err(ApiError::new(Code::ServiceBusTooLarge, message));
    }
    if !endpoint.is_json {
        return Err(ApiError::not_here("a message format other than JSON for a service endpoint"));
    }
    let claims = |name: &str| format!("http://schemas.microsoft.com/xrm/2011/Claims/{name}");
    let mut properties = vec![
        (claims("EntityLogicalName"), event.table.clone()),
        (claims("RequestName"), event.message.clone()),
        (claims("Organization"), "contoso".to_owned()),
    ];
    if is_reduced {
        properties.push(("MessageMaxSizeExceeded".to_owned(), "true".to_owned()));
    }
    if !endpoint.url.starts_with("http") {
        let body: Json = serde_json::from_slice(&bytes).unwrap_or_default();
        let properties: serde_json::Map<String, Json> =
            properties.into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut kept = lock(&engine.events);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(json!({
            "endpoint": endpoint.name, "contract": endpoint.contract, "properties": properties, "body": body,
        }));
        return Ok(());
    }
    post_to_bus(engine, event, &endpoint.url, &properties, &bytes).await
}

/// Message properties travel as one header, as the bus's own HTTP interface takes them.
async fn post_to_bus(
    engine: &Engine,
    event: &Event,
    url: &str,
    properties: &[(String, String)],
    bytes: &[u8],
) -> Result<(), ApiError> {
    let broker: serde_json::Map<String, Json> =
        properties.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect();
    let headers = [
        ("content-type".to_owned(), "application/json".to_owned()),
        ("brokerproperties".to_owned(), Json::Object(broker).to_string()),
    ];
    let mut wait_s = BUS_WAIT_S;
    for attempt in 1..=BUS_TRIES {
        let outcome = post(&engine.clock, url, &headers, bytes.to_vec()).await;
        if matches!(outcome, Outcome::Answered(200..=299)) {
            return Ok(());
        }
        if attempt < BUS_TRIES {
            if let Some(job) = event.job {
                write(engine, |database| set_system_job(database, job, 1, 10));
            }
            engine.clock.sleep(wait_s).await;
            wait_s *= 2.0;
        }
    }
    Err(ApiError::new(Code::ServiceBusPostFailed, "The service bus post failed."))
}
