//! The Web API: requests in, answers out, without sockets.
//!
//! `route` reads paths, `headers` request and response headers, `rows`, `sets`, `links` and
//! `bulk` answer for tables, `actions` for everything that is called by name, `batch` runs many
//! requests as one. Promise: an answer depends on the database, the simulated time and the
//! request alone. Left out: sign-in, limits, latency and faults, which stand before it (`service`).

mod actions;
mod batch;
mod bulk;
mod bulk_delete;
mod cosmos;
mod files;
mod headers;
mod links;
mod route;
mod rows;
mod sets;
mod sharing;
mod validity;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use uuid::Uuid;

pub(crate) use actions::call_arguments;
pub(crate) use headers::Preferences;
pub(crate) use route::{Operation, operation};

use crate::error::{ApiError, Code, ShownCode};
use crate::metadata;
use crate::profile::{Message, Work};
use crate::query::Scope;
use crate::schema::{Schema, Table, TableId};
use crate::settings::Settings;
use crate::storage::{Database, Event};
use crate::write::{Hooks, RejectRule, Session};

/// A request below the service root.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Still percent-encoded, without the service root and its slash.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) work: Work,
    /// What it counts for in the 24-hour entitlement.
    pub(crate) entitlement: u64,
}

impl Answer {
    pub(crate) fn new(status: StatusCode) -> Self {
        let work = Work { rows: 1, ..Work::default() };
        Answer { status, headers: HeaderMap::new(), body: Vec::new(), work, entitlement: 1 }
    }

    pub(crate) fn no_content() -> Self {
        Answer::new(StatusCode::NO_CONTENT)
    }

    pub(crate) fn json(body: Vec<u8>) -> Self {
        let mut answer = Answer::new(StatusCode::OK);
        answer.set("content-type", "application/json; odata.metadata=minimal");
        answer.body = body;
        answer
    }

    pub(crate) fn text(content_type: &'static str, body: Vec<u8>) -> Self {
        let mut answer = Answer::new(StatusCode::OK);
        answer.set("content-type", content_type);
        answer.body = body;
        answer
    }

    /// Sets a header; a value that no header can carry is left out.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }

    /// Adds a header beside others of its name.
    pub(crate) fn add(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
    }

    pub(crate) fn with_work(mut self, message: Message, rows: u64) -> Self {
        self.work = Work { message, rows, ..self.work };
        self
    }

    /// The answer that tells of an error.
    pub(crate) fn error(error: &ApiError, with_annotations: bool) -> Self {
        let mut answer = Answer::json(error.body(with_annotations));
        answer.status = error.status;
        answer.work = error.work;
        if let Some(seconds) = error.retry_after {
            answer.set("retry-after", &seconds.to_string());
        }
        answer
    }
}

/// Who calls, and what all parts of one HTTP request share.
pub(crate) struct Call<'a> {
    pub(crate) user: Uuid,
    pub(crate) business_unit: Uuid,
    pub(crate) delegate: Option<Uuid>,
    /// Simulated seconds since 1970.
    pub(crate) now: f64,
    pub(crate) settings: &'a Settings,
    pub(crate) base_currency: Uuid,
    pub(crate) organization: Uuid,
    pub(crate) sink: bool,
    pub(crate) plugins: &'a [RejectRule],
    /// Steps that hear of what the request does.
    pub(crate) hooks: Option<&'a Hooks>,
    /// `https://host/api/data/v9.2`, as the caller addressed it.
    pub(crate) base: String,
}

/// The database, shared or held by the change set a request is part of.
pub(crate) enum Access<'a> {
    Shared(&'a RwLock<Database>),
    Held { database: &'a mut Database, content_ids: &'a HashMap<String, (TableId, Uuid)> },
}

impl Access<'_> {
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Database) -> T) -> T {
        match self {
            Access::Shared(lock) => work(&lock.read().unwrap_or_else(PoisonError::into_inner)),
            Access::Held { database, .. } => work(database),
        }
    }

    /// Runs `work` in a transaction of its own, or as a savepoint of the change set's.
    pub(crate) fn write<T>(&mut self, work: impl FnOnce(&mut Database) -> Result<T, ApiError>) -> Result<T, ApiError> {
        match self {
            Access::Shared(lock) => lock.write().unwrap_or_else(PoisonError::into_inner).transaction(work),
            Access::Held { database, .. } => database.transaction(work),
        }
    }

    fn content_ids(&self) -> Option<HashMap<String, (TableId, Uuid)>> {
        match self {
            Access::Shared(_) => None,
            Access::Held { content_ids, .. } => Some((*content_ids).clone()),
        }
    }
}

impl Call<'_> {
    /// The schema this request sees: current with `Consistency: Strong`, else the cached one.
    pub(crate) fn schema(&self, access: &Access<'_>, request: &Request) -> Arc<Schema> {
        let is_strong =
            request.headers.get("consistency").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"strong"));
        access.read(|database| Arc::clone(if is_strong { &database.schema } else { database.cached_schema(self.now) }))
    }

    /// An error as builds of the time that the settings name tell it.
    fn dated(&self, mut error: ApiError) -> ApiError {
        if self.settings.zero_error_codes && error.shown == ShownCode::ZeroOnce {
            error.shown = ShownCode::Zero;
        }
        if !self.settings.missing_row_names_entity && error.is(Code::ObjectDoesNotExist) {
            let rest = error.message.strip_prefix("Entity '").and_then(|rest| rest.split_once("' With Id = "));
            if let Some((entity, rest)) = rest {
                error.message = format!("{entity} With Id = {rest}");
            }
        }
        error
    }

    fn scope<'s>(&'s self, database: &'s Database, schema: &'s Schema, table: &'s Table) -> Scope<'s> {
        Scope {
            schema,
            table,
            now: self.now as i64,
            user: self.user,
            business_unit: self.business_unit,
            organization: self.organization,
            database,
            nulls_first: self.settings.nulls_first,
        }
    }

    fn session<'s>(
        &'s self,
        request: &Request,
        content_ids: Option<&'s HashMap<String, (TableId, Uuid)>>,
    ) -> Result<Session<'s>, ApiError> {
        let wishes = headers::WriteWishes::read(&request.headers, self.settings)?;
        Ok(Session {
            user: self.user,
            business_unit: self.business_unit,
            delegate: self.delegate,
            now: self.now as i64,
            settings: self.settings,
            base_currency: self.base_currency,
            organization: self.organization,
            sink: self.sink,
            detect_duplicates: wishes.detect_duplicates,
            bypass_plugins: wishes.bypass_plugins,
            bypass_async: wishes.bypass_async,
            bypass_steps: wishes.bypass_steps,
            hooks: self.hooks,
            plugins: self.plugins,
            content_ids,
        })
    }
}

/// Answers one request that is not a batch.
pub(crate) fn answer_one(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Result<Answer, ApiError> {
    answer_resource(call, access, request).map_err(|error| call.dated(error))
}

fn answer_resource(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Result<Answer, ApiError> {
    let segments = route::segments(&request.path);
    let first = segments.first().map_or("", String::as_str);
    let (name, _) = crate::address::split_segment(first);
    match name {
        "" => Ok(metadata::service_document(call, &call.schema(access, request))),
        "$metadata" => Ok(metadata::edmx(&call.schema(access, request), &request.query)),
        "EntityDefinitions"
        | "RelationshipDefinitions"
        | "GlobalOptionSetDefinitions"
        | "ManagedPropertyDefinitions" => {
            metadata::answer(call, access, request, &call.schema(access, request), &segments)
        }
        "$batch" => Err(ApiError::bad_request("A batch cannot contain another batch.")),
        _ => {
            let schema = call.schema(access, request);
            match schema.by_set(name) {
                Some(table) => route::answer_table(call, access, request, &schema, table, &segments),
                None => actions::answer(call, access, request, &schema, first),
            }
        }
    }
}

/// Answers a request, a batch included.
pub(crate) fn answer(call: &Call<'_>, database: &RwLock<Database>, request: &Request) -> Answer {
    answer_with(call, &mut Access::Shared(database), request)
}

/// Runs a request for what it would tell synchronous steps, and takes everything back.
pub(crate) fn rehearse(call: &Call<'_>, database: &mut Database, request: &Request) -> Vec<Event> {
    let mut asked = Vec::new();
    let taken_back: Result<(), ()> = database.transaction(|database| {
        let content_ids = HashMap::new();
        answer_with(call, &mut Access::Held { database, content_ids: &content_ids }, request);
        asked = database.raised().iter().filter(|event| event.is_sync).cloned().collect();
        Err(())
    });
    debug_assert!(taken_back.is_err());
    asked
}

fn answer_with(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Answer {
    if request.path.trim_end_matches('/') == "$batch" {
        return batch::answer(call, access, request);
    }
    match answer_one(call, access, request) {
        Ok(answer) => answer,
        Err(error) => Answer::error(&error, Preferences::read(&request.headers).annotations.errors),
    }
}

/// Whether a request is part of a transfer of files, whose state no transaction takes back.
pub(crate) fn moves_files(request: &Request) -> bool {
    let name = request.path.trim_start_matches("Microsoft.Dynamics.CRM.");
    request.query.contains("sessiontoken")
        || request.headers.contains_key("x-ms-transfer-mode")
        || name.ends_with("BlocksUpload")
        || name.ends_with("BlocksDownload")
        || name.ends_with("Block")
}
