//! The running parts of one emulator, shared by its requests.
//!
//! Promise: starting rows are the same for the same seed; due jobs run before the next request
//! is answered; named snapshots hold rows, schema and version counter. Left out: sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

use crate::auth::Identity;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::limits::{LimitKind, Limits};
use crate::metadata;
use crate::profile::{Profile, ProfileName};
use crate::random::Random;
use crate::schema::{KeyStatus, Schema, Table, TableId, stable_id};
use crate::settings::Settings;
use crate::storage::{Database, Image, Job, JobKind, Value, ValueRef, encode, merge};
use crate::write::{Session, delete_many};

/// Counters since the start or the last reset.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) requests: u64,
    pub(crate) by_operation: BTreeMap<String, u64>,
    pub(crate) rows: u64,
    pub(crate) refused: HashMap<LimitKind, u64>,
    pub(crate) faults: u64,
    pub(crate) errors: u64,
    /// Milliseconds of execution by user and server.
    pub(crate) busy_ms: BTreeMap<(Uuid, u16), f64>,
    pub(crate) entitlement: u64,
}

pub(crate) struct Engine {
    pub(crate) database: RwLock<Database>,
    pub(crate) clock: Clock,
    pub(crate) profile: Profile,
    pub(crate) profile_name: ProfileName,
    pub(crate) servers: u16,
    /// Servers that something was asked of through the control interface.
    pub(crate) conditions: Mutex<HashMap<u16, Condition>>,
    pub(crate) identity: Identity,
    pub(crate) limits: Mutex<Limits>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) random: Mutex<Random>,
    pub(crate) stats: Mutex<Stats>,
    settings: RwLock<Arc<Settings>>,
    initial: Image,
    snapshots: Mutex<HashMap<String, Image>>,
}

/// Locks without caring for poison: a panic in one request must not end the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How one web server does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// Times as long as the profile says.
    pub(crate) slow: f64,
    /// Away until this moment.
    pub(crate) down_until: f64,
    /// Rises each time it goes away, so that what ran then is cut.
    pub(crate) life: u32,
}

impl Default for Condition {
    fn default() -> Self {
        Condition { slow: 1.0, down_until: 0.0, life: 0 }
    }
}

impl Engine {
    pub(crate) fn new(
        mut database: Database,
        is_new: bool,
        clock: Clock,
        (profile, profile_name): (Profile, ProfileName),
        servers: u16,
        seed: u64,
    ) -> Self {
        let identity = Identity::from_seed(seed);
        if is_new {
            add_starting_rows(&mut database, &identity, clock.now() as i64);
        }
        resume_jobs(&mut database, clock.now());
        let initial = database.image();
        Engine {
            database: RwLock::new(database),
            limits: Mutex::new(Limits::new(profile.limits.clone())),
            faults: Mutex::new(Faults::default()),
            random: Mutex::new(Random::new(seed.wrapping_add(2))),
            stats: Mutex::new(Stats::default()),
            settings: RwLock::new(Arc::new(Settings::default())),
            snapshots: Mutex::new(HashMap::new()),
            clock,
            profile,
            profile_name,
            servers,
            conditions: Mutex::new(HashMap::new()),
            identity,
            initial,
        }
    }

    pub(crate) fn condition(&self, server: u16) -> Condition {
        lock(&self.conditions).get(&server).copied().unwrap_or_default()
    }

    /// Makes a server slower, or takes it away for a while; it then comes back with empty windows.
    pub(crate) fn set_condition(&self, server: u16, slow: Option<f64>, down_s: Option<f64>) {
        let mut conditions = lock(&self.conditions);
        let condition = conditions.entry(server).or_default();
        condition.slow = slow.unwrap_or(condition.slow);
        if let Some(down_s) = down_s {
            condition.down_until = self.clock.now() + down_s;
            condition.life += 1;
            lock(&self.limits).forget_server(server);
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn database_mut(&self) -> std::sync::RwLockWriteGuard<'_, Database> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to the rows of the start, with no faults, no usage and default settings.
    pub(crate) fn reset(&self) {
        let mut database = self.database_mut();
        database.restore(&self.initial);
        database.commits.clear();
        drop(database);
        lock(&self.limits).clear();
        *lock(&self.faults) = Faults::default();
        *lock(&self.stats) = Stats::default();
        lock(&self.conditions).clear();
        self.set_settings(Settings::default());
    }

    pub(crate) fn snapshot(&self, name: &str) {
        let image = self.database.read().unwrap_or_else(PoisonError::into_inner).image();
        lock(&self.snapshots).insert(name.to_owned(), image);
    }

    /// False if there is no snapshot of that name.
    pub(crate) fn restore(&self, name: &str) -> bool {
        let image = lock(&self.snapshots).get(name).cloned();
        match image {
            Some(image) => {
                self.database_mut().restore(&image);
                true
            }
            None => false,
        }
    }

    /// Runs jobs that have fallen due.
    pub(crate) fn run_due_jobs(&self) {
        let now = self.clock.now();
        let is_due = |job: &Job| job.due <= now;
        if !self.database.read().unwrap_or_else(PoisonError::into_inner).jobs.iter().any(is_due) {
            return;
        }
        let mut database = self.database_mut();
        let (mut due, rest): (Vec<Job>, Vec<Job>) = std::mem::take(&mut database.jobs).into_iter().partition(is_due);
        database.jobs = rest;
        due.sort_by(|a, b| a.due.total_cmp(&b.due));
        for job in due {
            self.run_job(&mut database, &job, now);
        }
    }

    fn run_job(&self, database: &mut Database, job: &Job, now: f64) {
        let done: Result<(), crate::error::ApiError> = database.transaction(|database| {
            match &job.kind {
                JobKind::Key { table, key } => metadata::finish_key(database, *table, *key, now),
                JobKind::Expire { table, id } => {
                    database.remove(*table, *id, now as i64);
                }
                JobKind::BulkDelete { operation, table, ids } => {
                    return self.run_bulk_delete(database, *operation, *table, ids, now as i64);
                }
            }
            Ok(())
        });
        if let (Err(error), JobKind::BulkDelete { operation, .. }) = (done, &job.kind) {
            let written: Result<(), crate::error::ApiError> = database.transaction(|database| {
                set_job_state(database, *operation, 31, &error.message);
                Ok(())
            });
            debug_assert!(written.is_ok(), "setting a job's state cannot fail");
        }
    }

    fn run_bulk_delete(
        &self,
        database: &mut Database,
        operation: Uuid,
        table: TableId,
        ids: &[Uuid],
        now: i64,
    ) -> Result<(), crate::error::ApiError> {
        let settings = self.settings();
        let session = Session {
            user: self.identity.user,
            business_unit: self.identity.business_unit,
            delegate: None,
            now,
            settings: &settings,
            base_currency: base_currency(),
            organization: self.identity.organization,
            sink: self.profile_name == ProfileName::Sink,
            detect_duplicates: false,
            bypass_plugins: true,
            plugins: &[],
            content_ids: None,
        };
        delete_many(&session, database, table, &ids.iter().copied().collect::<HashSet<_>>())?;
        set_job_state(database, operation, 30, "");
        Ok(())
    }
}

/// Sets a system job completed: 30 succeeded, 31 failed.
fn set_job_state(database: &mut Database, operation: Uuid, status: i64, message: &str) {
    let Some(table) = database.schema.by_logical("asyncoperation").cloned() else {
        return;
    };
    let Some(row) = database.get(table.id, &operation).cloned() else {
        return;
    };
    let mut changes = Vec::new();
    let text = (!message.is_empty()).then(|| Value::Text(message.into()));
    let values = [("statecode", Some(Value::Int(3))), ("statuscode", Some(Value::Int(status))), ("message", text)];
    for (name, value) in values {
        changes.extend(table.ordinal(name).map(|ordinal| (ordinal, value)));
    }
    changes.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // The table has no alternate keys that could object.
    let _stored = database.put(table.id, operation, merge(&row, &changes));
}

/// Keys that were still being built when the process ended go on.
fn resume_jobs(database: &mut Database, now: f64) {
    let mut pending = Vec::new();
    for table in database.schema.live_tables() {
        for key in table.keys.iter().filter(|key| matches!(key.status, KeyStatus::Pending | KeyStatus::InProgress)) {
            pending.push(JobKind::Key { table: table.id, key: key.id });
        }
    }
    for kind in pending {
        database.jobs.push(Job { due: now, kind: kind.clone() });
        database.jobs.push(Job { due: now, kind });
    }
}

/// The id of the organisation's base currency.
pub(crate) fn base_currency() -> Uuid {
    stable_id("currency:GBP")
}

/// Writes one starting row from named values; names the table does not have are skipped.
fn put(database: &mut Database, logical: &str, id: Uuid, values: &[(&str, Value)]) {
    let Some(table) = database.schema.by_logical(logical).cloned() else {
        return;
    };
    let mut cells: Vec<_> =
        values.iter().filter_map(|(name, value)| Some((table.ordinal(name)?, Some(value.clone())))).collect();
    cells.extend(
        table
            .defaults
            .iter()
            .filter(|(ordinal, _)| !values.iter().any(|(name, _)| table.ordinal(name) == Some(*ordinal)))
            .map(|(ordinal, value)| (*ordinal, Some(Value::Int(*value)))),
    );
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let stored = database.put(table.id, id, encode(&cells));
    debug_assert!(stored.is_ok(), "starting rows have distinct keys");
}

fn lookup(schema: &Schema, logical: &str, id: Uuid) -> Value {
    Value::Lookup(schema.by_logical(logical).map_or(0, |table| table.id), id)
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn add_starting_rows(database: &mut Database, identity: &Identity, now: i64) {
    let schema = Arc::clone(&database.schema);
    let result: Result<(), ()> = database.transaction(|database| {
        let who = |table: &str, id: Uuid| lookup(&schema, table, id);
        let system = |values: Vec<(&'static str, Value)>| -> Vec<(&'static str, Value)> {
            let user = who("systemuser", identity.user);
            let stamps = [
                ("createdon", Value::Time(now)),
                ("modifiedon", Value::Time(now)),
                ("createdby", user.clone()),
                ("modifiedby", user),
            ];
            values.into_iter().chain(stamps).collect()
        };
        for (code, name, symbol, rate) in [
            ("GBP", "Pound Sterling", "£", 10_000_000_000),
            ("USD", "US Dollar", "$", 12_700_000_000),
            ("EUR", "Euro", "€", 11_600_000_000),
        ] {
            let values = vec![
                ("currencyname", text(name)),
                ("isocurrencycode", text(code)),
                ("currencysymbol", text(symbol)),
                ("currencyprecision", Value::Int(2)),
                ("exchangerate", Value::Decimal(rate)),
                ("statecode", Value::Int(0)),
                ("statuscode", Value::Int(1)),
            ];
            put(database, "transactioncurrency", stable_id(&format!("currency:{code}")), &system(values));
        }
        add_organization(database, identity, &who, &system);
        let subject = vec![("title", text("Default Subject")), ("featuremask", Value::Int(1))];
        put(database, "subject", stable_id("subject:root"), &system(subject));
        add_solutions(database, &who, &system);
        add_messages(database, &system);
        Ok(())
    });
    debug_assert!(result.is_ok());
}

type Lookup<'a> = &'a dyn Fn(&str, Uuid) -> Value;
type Stamp<'a> = &'a dyn Fn(Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)>;

fn add_organization(database: &mut Database, identity: &Identity, who: Lookup<'_>, system: Stamp<'_>) {
    let organization = vec![
        ("name", text("contoso")),
        ("basecurrencyid", who("transactioncurrency", base_currency())),
        ("expirechangetrackingindays", Value::Int(7)),
        ("languagecode", Value::Int(1033)),
        ("localeid", Value::Int(2057)),
        ("currencydecimalprecision", Value::Int(2)),
        ("pricingdecimalprecision", Value::Int(2)),
        ("isduplicatedetectionenabled", Value::Int(1)),
        ("maxuploadfilesize", Value::Int(5_242_880)),
        ("blockedattachments", text("ade;adp;app;asa;asp;bat;cmd;com;cpl;exe;hta;js;jse;msi;ps1;vbs;wsf")),
    ];
    put(database, "organization", identity.organization, &system(organization));
    put(
        database,
        "businessunit",
        identity.business_unit,
        &system(vec![("name", text("contoso")), ("isdisabled", Value::Int(0))]),
    );
    let user = vec![
        ("fullname", text("# Flowgate Loader")),
        ("firstname", text("#")),
        ("lastname", text("Flowgate Loader")),
        ("domainname", text("flowgate-loader@contoso.example")),
        ("internalemailaddress", text("flowgate-loader@contoso.example")),
        ("applicationid", Value::Guid(identity.client)),
        ("azureactivedirectoryobjectid", Value::Guid(identity.object)),
        ("businessunitid", who("businessunit", identity.business_unit)),
        ("accessmode", Value::Int(4)),
    ];
    put(database, "systemuser", identity.user, &system(user));
    let team = vec![
        ("name", text("contoso")),
        ("businessunitid", who("businessunit", identity.business_unit)),
        ("administratorid", who("systemuser", identity.user)),
        ("isdefault", Value::Int(1)),
        ("teamtype", Value::Int(0)),
    ];
    put(database, "team", identity.team, &system(team));
}

fn add_solutions(database: &mut Database, who: Lookup<'_>, system: Stamp<'_>) {
    let publishers =
        [("DefaultPublishercontoso", "Default Publisher for contoso", "new", 10_000), ("works", "Works", "wr", 10_000)];
    for (name, title, prefix, options) in publishers {
        let values = vec![
            ("uniquename", text(name)),
            ("friendlyname", text(title)),
            ("customizationprefix", text(prefix)),
            ("customizationoptionvalueprefix", Value::Int(options)),
        ];
        put(database, "publisher", stable_id(&format!("publisher:{name}")), &system(values));
    }
    let solutions = [
        ("Default", "Default Solution", "DefaultPublishercontoso"),
        ("Active", "Active Solution", "DefaultPublishercontoso"),
        ("agency_integration", "Agency integration", "works"),
    ];
    for (name, title, publisher) in solutions {
        let values = vec![
            ("uniquename", text(name)),
            ("friendlyname", text(title)),
            ("version", text("1.0.0.0")),
            ("ismanaged", Value::Int(0)),
            ("publisherid", who("publisher", stable_id(&format!("publisher:{publisher}")))),
        ];
        put(database, "solution", stable_id(&format!("solution:{name}")), &system(values));
    }
}

/// Messages that `sdkmessage` lists. UpsertMultiple never shows up among the filters.
const MESSAGES: &[&str] = &[
    "Create",
    "Update",
    "Delete",
    "Retrieve",
    "RetrieveMultiple",
    "CreateMultiple",
    "UpdateMultiple",
    "DeleteMultiple",
];

fn add_messages(database: &mut Database, system: Stamp<'_>) {
    for message in MESSAGES {
        put(database, "sdkmessage", stable_id(&format!("message:{message}")), &system(vec![("name", text(message))]));
    }
    let tables: Vec<TableId> = database.schema.live_tables().map(|table| table.id).collect();
    register_messages(database, &tables);
}

fn has_message(table: &Table, message: &str) -> bool {
    match message {
        "CreateMultiple" | "UpdateMultiple" => table.bulk && table.writable,
        "DeleteMultiple" => table.is_elastic,
        "Retrieve" | "RetrieveMultiple" => true,
        _ => table.writable,
    }
}

/// Adds the rows that say which messages these tables have.
pub(crate) fn register_messages(database: &mut Database, tables: &[TableId]) {
    let schema = Arc::clone(&database.schema);
    for id in tables {
        let table = schema.table(*id);
        for message in MESSAGES.iter().filter(|message| has_message(table, message)) {
            let row = stable_id(&format!("filter:{}:{message}", table.logical));
            let values = [
                ("sdkmessageid", lookup(&schema, "sdkmessage", stable_id(&format!("message:{message}")))),
                ("primaryobjecttypecode", text(&table.logical)),
            ];
            put(database, "sdkmessagefilter", row, &values);
        }
    }
}

/// The application user of a client, if the environment has one.
pub(crate) fn user_of_application(database: &Database, application: Uuid) -> Option<(Uuid, Uuid)> {
    find_user(database, "applicationid", application)
}

/// A user by Entra object id.
pub(crate) fn user_of_object(database: &Database, object: Uuid) -> Option<(Uuid, Uuid)> {
    find_user(database, "azureactivedirectoryobjectid", object)
}

/// The user whose column holds an id, with its business unit.
fn find_user(database: &Database, column: &str, wanted: Uuid) -> Option<(Uuid, Uuid)> {
    let users = database.schema.by_logical("systemuser")?;
    let (column, unit) = (users.ordinal(column)?, users.ordinal("businessunitid"));
    let mut rows = database.store(users.id).rows_after(None);
    let (id, row) = rows.find(|(_, row)| row.get(column) == Some(ValueRef::Guid(wanted)))?;
    Some((*id, row.lookup(unit).map_or(Uuid::nil(), |(_, id)| id)))
}
