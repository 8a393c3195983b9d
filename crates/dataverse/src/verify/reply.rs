//! An answer taken apart for a probe.

use flowgate_http::Answer;
use http::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use super::probe::{NoAnswer, Seen};
use crate::fault::Refusal;

/// PrivilegeDenied and its relatives come as this.
const FORBIDDEN: u16 = 403;

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Null unless the body is JSON.
    pub(super) json: Value,
    pub(super) text: String,
    pub(super) code: Option<u32>,
    /// Of a refusal, the service's own words: to look for a form, never to be told.
    pub(super) message: String,
}

impl Reply {
    pub(super) fn of(answer: &Answer) -> Self {
        let refusal = (!answer.status.is_success()).then(|| Refusal::of(answer));
        Self {
            status: answer.status.as_u16(),
            headers: answer.headers.clone(),
            json: serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&answer.body).into_owned(),
            code: refusal.as_ref().and_then(|refusal| refusal.code),
            message: refusal.map(|refusal| refusal.message).unwrap_or_default(),
        }
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status and the code: all that is told of an answer.
    pub(super) fn words(&self) -> String {
        match self.code {
            Some(code) => format!("status {} with 0x{code:08x}", self.status),
            None => format!("status {}", self.status),
        }
    }

    /// A step that has to succeed for the probe to see anything.
    pub(super) fn required(self, step: &str) -> Result<Self, NoAnswer> {
        if self.is_success() {
            return Ok(self);
        }
        let words = format!("{step} was refused: {}", self.words());
        Err(if self.status == FORBIDDEN { NoAnswer::NotPermitted(words) } else { NoAnswer::NotObservable(words) })
    }

    /// Whether the request was taken, for assumptions that say it is or is not.
    pub(super) fn is_taken(&self) -> Seen {
        Seen::new(self.is_success(), self.words())
    }

    /// The status of a refusal with one of these codes; anything else is strange.
    pub(super) fn refused_with(&self, codes: &[u32]) -> Seen {
        match self.code {
            Some(code) if !self.is_success() && codes.contains(&code) => Seen::new(self.status, self.words()),
            _ => Seen::strange(self.words()),
        }
    }

    /// The rows of a collection.
    pub(super) fn rows(&self) -> &[Value] {
        self.json["value"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The id in `OData-EntityId`.
    pub(super) fn entity_id(&self) -> Option<Uuid> {
        let link = self.header("odata-entityid")?;
        Uuid::parse_str(link.rsplit_once('(')?.1.trim_end_matches(')')).ok()
    }
}
