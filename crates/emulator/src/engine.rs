//! The running parts of one emulator, shared by its requests.
//!
//! `starting_rows` fills a new environment, `jobs` does what falls due, `users` finds callers.
//! Promise: starting rows are the same for the same seed; due jobs run before the next request
//! is answered; named snapshots hold rows, schema and version counter. Left out: sockets.

mod jobs;
mod starting_rows;
mod users;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

pub(crate) use jobs::{finish_system_job, set_system_job};
pub(crate) use starting_rows::{base_currency, register_messages};
pub(crate) use users::{user_of_application, user_of_id, user_of_object};

use crate::auth::Identity;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::events::Kept;
use crate::faults::Faults;
use crate::limits::{LimitKind, Limits};
use crate::profile::{Profile, ProfileName};
use crate::random::Random;
use crate::settings::Settings;
use crate::storage::{Database, Image, Value, merge};

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
    /// The last requests, the newest last.
    pub(crate) recent: VecDeque<Seen>,
}

/// A request, as the page for people shows it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: f64,
    /// `GET accounts?$top=1`, shortened.
    pub(crate) line: String,
    pub(crate) status: u16,
    pub(crate) server: Option<u16>,
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
    /// Messages to service endpoints that have no address.
    pub(crate) events: Mutex<Kept>,
    settings: RwLock<Arc<Settings>>,
    /// How often the environment went back to other rows.
    era: AtomicU64,
    initial_settings: Settings,
    initial: Image,
    snapshots: Mutex<HashMap<String, Image>>,
}

impl Seen {
    pub(crate) fn is_like(&self, other: &Seen) -> bool {
        (&self.line, self.status, self.server) == (&other.line, other.status, other.server)
    }
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
        settings: Settings,
    ) -> Self {
        let identity = Identity::from_seed(seed);
        if is_new {
            starting_rows::add_starting_rows(
                &mut database,
                &identity,
                clock.now() as i64,
                settings.change_tracking_days,
            );
        }
        jobs::resume_jobs(&mut database, clock.now());
        let initial = database.image();
        Engine {
            database: RwLock::new(database),
            limits: Mutex::new(Limits::new(profile.limits.clone())),
            faults: Mutex::new(Faults::default()),
            random: Mutex::new(Random::new(seed.wrapping_add(2))),
            stats: Mutex::new(Stats::default()),
            events: Mutex::new(Kept::new()),
            era: AtomicU64::new(0),
            settings: RwLock::new(Arc::new(settings.clone())),
            initial_settings: settings,
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

    /// Back to the rows and the settings of the start, with no faults and no usage.
    pub(crate) fn reset(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
        let mut database = self.database_mut();
        database.restore(&self.initial);
        database.commits.clear();
        drop(database);
        let mut limits = lock(&self.limits);
        limits.clear();
        limits.settings = self.profile.limits.clone();
        drop(limits);
        *lock(&self.faults) = Faults::default();
        *lock(&self.stats) = Stats::default();
        lock(&self.conditions).clear();
        lock(&self.events).clear();
        self.set_settings(self.initial_settings.clone());
    }

    /// Another number after each reset and restore: a request that was under way does not survive them.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Relaxed)
    }

    /// The organisation's id.
    pub(crate) fn organization(&self) -> Uuid {
        self.organization_in(&self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The id of the organisation's one row, so that it stays with the rows.
    fn organization_in(&self, database: &Database) -> Uuid {
        let table = database.schema.by_logical("organization").map(|table| table.id);
        let row = table.and_then(|table| database.store(table).rows_after(None).next().map(|(id, _)| *id));
        row.unwrap_or(self.identity.organization)
    }

    /// What a copied environment is: the same rows under another organisation id, which it returns.
    pub(crate) fn copy(&self) -> Result<Uuid, ApiError> {
        let (old, new) = (self.organization(), lock(&self.random).uuid());
        self.database_mut().transaction(|database| rename_organization(database, old, new, self.clock.now() as i64))?;
        Ok(new)
    }

    pub(crate) fn snapshot_names(&self) -> Vec<String> {
        let mut names: Vec<String> = lock(&self.snapshots).keys().cloned().collect();
        names.sort();
        names
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
                self.era.fetch_add(1, Ordering::Relaxed);
                self.database_mut().restore(&image);
                true
            }
            None => false,
        }
    }
}

/// Moves the organisation's row to another id, and every row that names it.
fn rename_organization(database: &mut Database, old: Uuid, new: Uuid, now: i64) -> Result<(), ApiError> {
    let schema = Arc::clone(&database.schema);
    let Some(organizations) = schema.by_logical("organization").map(|table| table.id) else { return Ok(()) };
    let Some(row) = database.get(organizations, &old).cloned() else { return Ok(()) };
    let taken = |_| ApiError::bad_request("A row of the organisation cannot be moved.");
    database.remove(organizations, old, now);
    database.put(organizations, new, row.cells).map_err(taken)?;
    for table in schema.live_tables() {
        let Some(ordinal) = table.known.organization else { continue };
        let ids: Vec<Uuid> = database.store(table.id).rows_after(None).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(row) = database.get(table.id, &id).cloned() else { continue };
            let cells = merge(&row, &[(ordinal, Some(Value::Lookup(organizations, new)))]);
            database.put(table.id, id, cells).map_err(taken)?;
        }
    }
    Ok(())
}
