//! Notices of created, updated and deleted rows for the steps registered on them.
//!
//! Promise: a step hears of a row once per message, in the row's own transaction; an update only
//! if a column it filters by was sent; nothing of what bypass headers name. A synchronous step is
//! asked in a rehearsal of its request, which is rolled back; in the run that counts its verdict
//! is known, so that nothing is locked while it thinks. Left out: messages other than Create,
//! Update and Delete, images, and notices of bulk deletion jobs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::Session;
use super::create::new_id;
use crate::error::ApiError;
use crate::schema::{Column, ColumnKind, Ordinal, Schema, Table, stable_id};
use crate::storage::{Database, Event, EventKey, Row, Value, ValueRef, encode};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Create,
    Update,
    Delete,
}

impl Message {
    fn name(self) -> &'static str {
        match self {
            Message::Create => "Create",
            Message::Update => "Update",
            Message::Delete => "Delete",
        }
    }
}

/// A registered step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    id: Uuid,
    name: String,
    endpoint: Uuid,
    message: String,
    /// Every table when absent.
    table: Option<String>,
    stage: i64,
    is_async: bool,
    columns: Vec<String>,
    deletes_job: bool,
}

/// The steps of one request, and what is known of their verdicts.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    steps: Vec<Step>,
    verdicts: RefCell<HashMap<EventKey, Result<(), ApiError>>>,
    occurrences: RefCell<HashMap<(Uuid, Uuid), u32>>,
    /// Ids handed out in the first rehearsal, so that later runs make the same rows.
    minted: RefCell<Vec<Uuid>>,
    next_id: Cell<usize>,
}

fn text(row: &Row, ordinal: Option<Ordinal>) -> Option<String> {
    match row.get(ordinal?)? {
        ValueRef::Text(text) => Some(text.to_owned()),
        _ => None,
    }
}

impl Hooks {
    /// Enabled steps that lead to a service endpoint.
    pub(crate) fn load(database: &Database) -> Hooks {
        let schema = &database.schema;
        let named = |name: &str| schema.by_logical(name);
        let (Some(steps), Some(messages), Some(filters)) =
            (named("sdkmessageprocessingstep"), named("sdkmessage"), named("sdkmessagefilter"))
        else {
            return Hooks::default();
        };
        let mut found = Vec::new();
        for (id, row) in database.store(steps.id).rows_after(None) {
            let at = |name: &str| steps.ordinal(name);
            let related = |table: &Table, lookup: &str, column: &str| {
                let (_, id) = row.lookup(at(lookup))?;
                text(database.get(table.id, &id)?, table.ordinal(column))
            };
            let endpoint = row.lookup(at("eventhandler")).map(|(_, id)| id);
            let message = related(messages, "sdkmessageid", "name");
            let is_enabled = row.int(steps.known.state) == Some(0);
            let (Some(endpoint), Some(message), true) = (endpoint, message, is_enabled) else {
                continue;
            };
            let columns = text(row, at("filteringattributes")).unwrap_or_default();
            found.push(Step {
                id: *id,
                name: text(row, at("name")).unwrap_or_default(),
                endpoint,
                message,
                table: related(filters, "sdkmessagefilterid", "primaryobjecttypecode"),
                stage: row.int(at("stage")).unwrap_or(40),
                is_async: row.int(at("mode")) == Some(1),
                columns: columns
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .filter(|name| !name.is_empty())
                    .collect(),
                deletes_job: row.int(at("asyncautodelete")) == Some(1),
            });
        }
        Hooks { steps: found, ..Hooks::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn has_sync(&self) -> bool {
        self.steps.iter().any(|step| !step.is_async)
    }

    /// Notes what a synchronous step answered.
    pub(crate) fn decide(&self, key: EventKey, verdict: Result<(), ApiError>) {
        self.verdicts.borrow_mut().insert(key, verdict);
    }

    /// Begins the request anew.
    pub(crate) fn rewind(&self) {
        self.occurrences.borrow_mut().clear();
        self.next_id.set(0);
    }

    fn key(&self, step: Uuid, row: Uuid) -> EventKey {
        let mut occurrences = self.occurrences.borrow_mut();
        let count = occurrences.entry((step, row)).or_default();
        *count += 1;
        EventKey { step, row, occurrence: *count }
    }

    fn mint(&self, database: &Database, now: i64) -> Uuid {
        let at = self.next_id.get();
        self.next_id.set(at + 1);
        let mut minted = self.minted.borrow_mut();
        if let Some(id) = minted.get(at) {
            return *id;
        }
        let id = new_id(database, now);
        minted.push(id);
        id
    }
}

/// A new id; the same one in every run of a request that is rehearsed.
pub(super) fn mint(session: &Session<'_>, database: &Database) -> Uuid {
    match session.hooks.filter(|hooks| hooks.has_sync()) {
        Some(hooks) => hooks.mint(database, session.now),
        None => new_id(database, session.now),
    }
}

/// What happened to a row.
pub(super) struct Happening<'a> {
    pub(super) message: Message,
    pub(super) table: &'a Table,
    pub(super) row: Uuid,
    pub(super) cells: &'a [(Ordinal, Option<Value>)],
}

/// Tells every step that wants to hear of it; an error is a synchronous step's refusal.
pub(super) fn raise(session: &Session<'_>, database: &mut Database, happening: &Happening<'_>) -> Result<(), ApiError> {
    let Some(hooks) = session.hooks.filter(|hooks| !hooks.steps.is_empty()) else {
        return Ok(());
    };
    let schema = Arc::clone(&database.schema);
    for step in hooks.steps.iter().filter(|step| hears(session, step, happening)) {
        let key = hooks.key(step.id, happening.row);
        if !step.is_async {
            if let Some(verdict) = hooks.verdicts.borrow().get(&key) {
                verdict.clone()?;
                continue;
            }
        }
        let correlation = stable_id(&format!("correlation:{}:{}:{}", step.id, happening.row, database.version()));
        let job = step.is_async.then(|| add_job(session, database, &schema, step, happening, correlation));
        let body = context(session, database, &schema, step, happening, correlation);
        database.raise(Event {
            key,
            endpoint: step.endpoint,
            is_sync: !step.is_async,
            job,
            deletes_job: step.deletes_job,
            message: happening.message.name().to_owned(),
            table: happening.table.logical.clone(),
            correlation,
            body: Arc::new(body),
        });
    }
    Ok(())
}

fn hears(session: &Session<'_>, step: &Step, happening: &Happening<'_>) -> bool {
    let is_bypassed = if step.is_async { session.bypass_async } else { session.bypass_plugins };
    let names =
        |column: &str| happening.cells.iter().any(|(ordinal, _)| happening.table.column(*ordinal).logical == column);
    !is_bypassed
        && !session.bypass_steps.contains(&step.id)
        && step.message == happening.message.name()
        && step.table.as_ref().is_none_or(|table| *table == happening.table.logical)
        && (happening.message != Message::Update
            || step.columns.is_empty()
            || step.columns.iter().any(|column| names(column)))
}

/// The system job of an asynchronous step.
fn add_job(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    step: &Step,
    happening: &Happening<'_>,
    correlation: Uuid,
) -> Uuid {
    let id = stable_id(&format!("job:{correlation}"));
    let (Some(jobs), Some(users)) = (schema.by_logical("asyncoperation"), schema.by_logical("systemuser")) else {
        return id;
    };
    let user = Value::Lookup(users.id, session.user);
    let values = [
        ("name", Value::Text(step.name.as_str().into())),
        ("operationtype", Value::Int(1)),
        ("messagename", Value::Text(happening.message.name().into())),
        ("primaryentitytype", Value::Text(happening.table.logical.as_str().into())),
        ("correlationid", Value::Guid(correlation)),
        ("statecode", Value::Int(0)),
        ("statuscode", Value::Int(0)),
        ("createdon", Value::Time(session.now)),
        ("modifiedon", Value::Time(session.now)),
        ("createdby", user.clone()),
        ("ownerid", user),
    ];
    let mut cells: Vec<_> =
        values.into_iter().filter_map(|(name, value)| Some((jobs.ordinal(name)?, Some(value)))).collect();
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // The table has no alternate keys that could object.
    let _stored = database.put(jobs.id, id, encode(&cells));
    id
}

fn typed(kind: &str) -> String {
    format!("{kind}:http://schemas.microsoft.com/xrm/2011/Contracts")
}

fn date(seconds: i64) -> String {
    format!("/Date({})/", seconds.saturating_mul(1000))
}

fn reference(schema: &Schema, table: u16, id: Uuid) -> Json {
    json!({
        "__type": typed("EntityReference"), "Id": id, "LogicalName": schema.table(table).logical, "Name": null,
        "KeyAttributes": [], "RowVersion": null,
    })
}

/// A value in the data contract's JSON.
fn contract_value(schema: &Schema, column: &Column, value: &ValueRef<'_>) -> Json {
    match (value, &column.kind) {
        (ValueRef::Text(text), _) => Json::from(*text),
        (ValueRef::Int(number), ColumnKind::Boolean { .. }) => Json::from(*number != 0),
        (ValueRef::Int(number), ColumnKind::Choice { .. } | ColumnKind::State { .. } | ColumnKind::Status { .. }) => {
            json!({ "__type": typed("OptionSetValue"), "Value": number })
        }
        (ValueRef::Int(number), _) => Json::from(*number),
        (ValueRef::Decimal(number), ColumnKind::Money { .. }) => {
            json!({ "__type": typed("Money"), "Value": *number as f64 / 1e10 })
        }
        (ValueRef::Decimal(number), _) => Json::from(*number as f64 / 1e10),
        (ValueRef::Double(number), _) => Json::from(*number),
        (ValueRef::Time(seconds), _) => Json::from(date(*seconds)),
        (ValueRef::Guid(id), _) => Json::from(id.to_string()),
        (ValueRef::Lookup(table, id), _) => reference(schema, *table, *id),
        (ValueRef::Choices(choices), _) => {
            choices.iter().map(|choice| json!({ "__type": typed("OptionSetValue"), "Value": choice })).collect()
        }
    }
}

/// `Target`: the row with what was sent, or a reference to the row that is gone.
fn target(schema: &Schema, happening: &Happening<'_>) -> Json {
    let table = happening.table;
    if happening.message == Message::Delete {
        return reference(schema, table.id, happening.row);
    }
    let mut attributes = vec![json!({ "key": table.primary_id(), "value": happening.row })];
    for (ordinal, value) in happening.cells.iter().filter(|(ordinal, _)| *ordinal != 0) {
        let column = table.column(*ordinal);
        let value = value.as_ref().map_or(Json::Null, |value| contract_value(schema, column, &value.as_ref()));
        attributes.push(json!({ "key": column.logical, "value": value }));
    }
    json!({
        "__type": typed("Entity"), "LogicalName": table.logical, "Id": happening.row, "EntityState": null,
        "RowVersion": null, "KeyAttributes": [], "FormattedValues": [], "RelatedEntities": [], "Attributes": attributes,
    })
}

/// The primary name, which an asynchronous step gets as an image of its own.
fn name_image(database: &Database, schema: &Schema, happening: &Happening<'_>) -> Json {
    let table = happening.table;
    let value = table.primary_name.and_then(|ordinal| {
        let value = database.get(table.id, &happening.row)?.get(ordinal)?;
        Some((table.column(ordinal), contract_value(schema, table.column(ordinal), &value)))
    });
    let attributes: Vec<Json> =
        value.into_iter().map(|(column, value)| json!({ "key": column.logical, "value": value })).collect();
    let entity = json!({ "LogicalName": table.logical, "Id": happening.row, "Attributes": attributes });
    json!([{ "key": "AsynchronousStepPrimaryName", "value": entity }])
}

/// The RemoteExecutionContext a step is sent.
fn context(
    session: &Session<'_>,
    database: &Database,
    schema: &Schema,
    step: &Step,
    happening: &Happening<'_>,
    correlation: Uuid,
) -> Json {
    let output = match happening.message {
        Message::Create => json!([{ "key": "id", "value": happening.row }]),
        _ => json!([]),
    };
    let images = if step.is_async { name_image(database, schema, happening) } else { json!([]) };
    let extension = json!({
        "Id": step.id, "LogicalName": "sdkmessageprocessingstep", "Name": step.name, "KeyAttributes": [], "RowVersion": null,
    });
    json!({
        "BusinessUnitId": session.business_unit, "CorrelationId": correlation, "Depth": 1,
        "InitiatingUserId": session.delegate.unwrap_or(session.user), "UserId": session.user,
        "InputParameters": [{ "key": "Target", "value": target(schema, happening) }],
        "OutputParameters": output, "SharedVariables": [], "PreEntityImages": [], "PostEntityImages": images,
        "IsExecutingOffline": false, "IsInTransaction": !step.is_async, "IsOfflinePlayback": false, "IsolationMode": 1,
        "MessageName": happening.message.name(), "Mode": i32::from(step.is_async), "Stage": step.stage,
        "OperationCreatedOn": format!("/Date({}+0000)/", session.now.saturating_mul(1000)),
        "OperationId": stable_id(&format!("job:{correlation}")),
        "OrganizationId": session.organization, "OrganizationName": "contoso", "OwningExtension": extension,
        "ParentContext": null, "PrimaryEntityId": happening.row, "PrimaryEntityName": happening.table.logical,
        "RequestId": null, "SecondaryEntityName": "none",
    })
}
