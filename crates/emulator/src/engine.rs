//! The running parts of one emulator, shared by its requests.
//!
//! `starting_rows` fills a new environment, `jobs` does what falls due, `users` finds callers.
//! Promise: starting rows are the same for the same seed; due jobs run before the next request
//! is answered; named snapshots hold rows, schema and version counter. Left out: sockets.

mod jobs;
mod starting_rows;
mod users;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

pub(crate) use jobs::{finish_system_job, set_system_job};
pub(crate) use starting_rows::{base_currency, register_messages};
pub(crate) use users::{user_of_application, user_of_object};

use crate::auth::Identity;
use crate::clock::Clock;
use crate::events::Kept;
use crate::faults::Faults;
use crate::limits::{LimitKind, Limits};
use crate::profile::{Profile, ProfileName};
use crate::random::Random;
use crate::settings::Settings;
use crate::storage::{Database, Image};

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
    pub(crate) identity: Identity,
    pub(crate) limits: Mutex<Limits>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) random: Mutex<Random>,
    pub(crate) stats: Mutex<Stats>,
    /// Messages to service endpoints that have no address.
    pub(crate) events: Mutex<Kept>,
    settings: RwLock<Arc<Settings>>,
    initial_settings: Settings,
    initial: Image,
    snapshots: Mutex<HashMap<String, Image>>,
}

/// Locks without caring for poison: a panic in one request must not end the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            settings: RwLock::new(Arc::new(settings.clone())),
            initial_settings: settings,
            snapshots: Mutex::new(HashMap::new()),
            clock,
            profile,
            profile_name,
            servers,
            identity,
            initial,
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
        let mut database = self.database_mut();
        database.restore(&self.initial);
        database.commits.clear();
        drop(database);
        lock(&self.limits).clear();
        *lock(&self.faults) = Faults::default();
        *lock(&self.stats) = Stats::default();
        lock(&self.events).clear();
        self.set_settings(self.initial_settings.clone());
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
}
