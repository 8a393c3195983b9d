//! Ways to ask: every one passes the budget and returns the answer whatever its status.

use std::time::Duration;

use flowgate_core::destination::Class;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::lab::Lab;
use super::probe::NoAnswer;
use super::reply::Reply;
use crate::budget::Cost;
use crate::call::{Address, Bounds, Call, Caller};
use crate::metadata::Consistency;

/// Past the caches of definitions.
pub(super) const STRONG: (&str, &str) = ("consistency", "Strong");

/// What writing a row takes of the service's time.
const ROW_BUSY: Duration = Duration::from_millis(100);

impl<'a> Lab<'a> {
    pub(super) fn bounds(&self) -> Bounds<'a> {
        self.dataverse.client.bounds_with(self.cancel)
    }

    /// Sends a call past the service's caches, for they know nothing of a table this new.
    pub(super) async fn observe(&self, mut call: Call) -> Result<Reply, NoAnswer> {
        add_header(&mut call, STRONG.0, STRONG.1);
        self.observe_as_it_is(&call).await
    }

    async fn observe_as_it_is(&self, call: &Call) -> Result<Reply, NoAnswer> {
        Ok(Reply::of(&self.dataverse.client.observe(call, self.bounds()).await?))
    }

    /// A read that caches may or may not answer.
    pub(super) async fn look(&self, path: &str, consistency: Consistency) -> Result<Reply, NoAnswer> {
        match consistency {
            Consistency::Strong => self.get(path).await,
            Consistency::Cached => self.observe_as_it_is(&Call::get(path, Class::Interactive)).await,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Reply, NoAnswer> {
        self.get_with(path, &[]).await
    }

    pub(super) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply, NoAnswer> {
        self.get_as(Caller::Ourselves, path, headers).await
    }

    pub(super) async fn get_as(&self, caller: Caller, path: &str, headers: &[(&str, &str)]) -> Result<Reply, NoAnswer> {
        let mut call = Call::get(path, Class::Interactive).called_by(caller);
        add_headers(&mut call, headers);
        self.observe(call).await
    }

    /// Follows a link of an answer.
    pub(super) async fn follow(&self, link: &str, headers: &[(&str, &str)]) -> Result<Reply, NoAnswer> {
        let link =
            Url::parse(link).map_err(|_| NoAnswer::NotObservable("a link of an answer is no address".to_owned()))?;
        let mut call = Call::get("", Class::Interactive);
        call.address = Address::Link(link);
        add_headers(&mut call, headers);
        self.observe(call).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, NoAnswer> {
        let mut call = write(method, path, body, ROW_BUSY);
        add_headers(&mut call, headers);
        self.observe(call).await
    }

    pub(super) async fn send_bytes(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, NoAnswer> {
        let cost = Cost { busy: ROW_BUSY, entitlement: 1 };
        self.observe(Call::write(method, path, body.into(), Class::Interactive, cost)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Reply, NoAnswer> {
        self.send(Method::POST, path, &[], body).await
    }

    /// Creates a scratch row that has to be taken.
    pub(super) async fn create(&self, body: &Value) -> Result<Uuid, NoAnswer> {
        let reply = self.post(&self.set, body).await?.required("creating a scratch row")?;
        match reply.entity_id() {
            Some(id) => Ok(id),
            None => Err(NoAnswer::NotObservable("a create did not tell the new row's id".to_owned())),
        }
    }

    /// The columns of a scratch row.
    pub(super) async fn row(&self, id: Uuid) -> Result<Value, NoAnswer> {
        Ok(self.get(&self.row_path(id)).await?.required("reading a scratch row")?.json)
    }

    /// A bulk message of the scratch table; every target gets its type.
    pub(super) async fn bulk(&self, message: &str, targets: Vec<Value>) -> Result<Reply, NoAnswer> {
        self.bulk_on(&self.set, &self.table, message, targets, &[]).await
    }

    pub(super) async fn bulk_on(
        &self,
        set: &str,
        table: &str,
        message: &str,
        mut targets: Vec<Value>,
        headers: &[(&str, &str)],
    ) -> Result<Reply, NoAnswer> {
        for target in &mut targets {
            target["@odata.type"] = json!(format!("Microsoft.Dynamics.CRM.{table}"));
        }
        let path = format!("{set}/Microsoft.Dynamics.CRM.{message}");
        self.send(Method::POST, &path, headers, &json!({ "Targets": targets })).await
    }
}

pub(super) fn write(method: Method, path: &str, body: &Value, busy: Duration) -> Call {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Call::write(method, path, body.into(), Class::Interactive, Cost { busy, entitlement: 1 })
}

fn add_headers(call: &mut Call, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        add_header(call, name, value);
    }
}

/// Adds a header made of constants and of names that were checked; others are left out.
pub(super) fn add_header(call: &mut Call, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        call.headers.append(name, value);
    }
}
