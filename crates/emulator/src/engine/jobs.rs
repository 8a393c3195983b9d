//! Work that falls due: keys, expiring rows, bulk deletions.
//!
//! Promise: due work runs before the next request is answered, in the order of its times. A bulk
//! deletion keeps what it deleted; rows that cannot go become rows of `bulkdeletefailure`.

use std::collections::HashSet;
use std::sync::PoisonError;

use uuid::Uuid;

use super::{Engine, base_currency};
use crate::error::ApiError;
use crate::metadata;
use crate::profile::ProfileName;
use crate::schema::{KeyStatus, TableId, stable_id};
use crate::settings::Settings;
use crate::storage::{BulkDeletion, Database, Job, JobKind, Value, encode, merge};
use crate::write::{Session, delete_expired, delete_many};

/// `statuscode` of a system job that is done, and of one that failed.
const SUCCEEDED: i64 = 30;
const FAILED: i64 = 31;

impl Engine {
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
        let settings = self.settings();
        let session = self.own_session(database, &settings, now as i64);
        let done: Result<(), ApiError> = match &job.kind {
            JobKind::Key { table, key } => database.transaction(|database| {
                metadata::finish_key(database, *table, *key, now);
                Ok(())
            }),
            JobKind::Expire { table, id } => database.transaction(|database| {
                delete_expired(&session, database, *table, *id);
                Ok(())
            }),
            JobKind::BulkDelete(deletion) => {
                run_bulk_delete(&session, database, deletion);
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!(error = error.message, "a job of the emulator failed");
        }
    }

    /// The system's own session: nobody's privileges are in question.
    fn own_session<'s>(&self, database: &Database, settings: &'s Settings, now: i64) -> Session<'s> {
        Session {
            user: self.identity.user,
            business_unit: self.identity.business_unit,
            delegate: None,
            now,
            settings,
            base_currency: base_currency(),
            organization: self.organization_in(database),
            sink: self.profile_name == ProfileName::Sink,
            detect_duplicates: false,
            bypass_plugins: true,
            bypass_async: true,
            bypass_steps: Vec::new(),
            hooks: None,
            plugins: &[],
            content_ids: None,
        }
    }
}

/// Deletes in one go if nothing stands in the way, else row by row.
fn run_bulk_delete(session: &Session<'_>, database: &mut Database, deletion: &BulkDeletion) {
    let (mut deleted, mut failures) = (0i64, Vec::new());
    for (table, ids) in deletion.targets.iter() {
        let all: HashSet<Uuid> = ids.iter().copied().collect();
        let whole: Result<(), ApiError> = database.transaction(|database| delete_many(session, database, *table, &all));
        if whole.is_ok() {
            deleted += ids.len() as i64;
            continue;
        }
        for id in ids.iter() {
            let one = database.transaction(|database| delete_many(session, database, *table, &HashSet::from([*id])));
            match one {
                Ok(()) => deleted += 1,
                Err(error) => failures.push((*table, *id, error)),
            }
        }
    }
    let status = if deleted == 0 && !failures.is_empty() { FAILED } else { SUCCEEDED };
    let message = failures.first().map_or("", |(.., error)| error.message.as_str()).to_owned();
    let written: Result<(), ApiError> = database.transaction(|database| {
        for (table, id, error) in &failures {
            add_failure(session, database, deletion, (*table, *id), error);
        }
        let operation = [
            ("successcount", Some(Value::Int(deleted))),
            ("failurecount", Some(Value::Int(failures.len() as i64))),
            ("statecode", Some(Value::Int(3))),
            ("statuscode", Some(Value::Int(status))),
        ];
        change_row(database, "bulkdeleteoperation", deletion.bulk_operation, &operation);
        finish_system_job(database, deletion.operation, status, &message, session.now);
        Ok(())
    });
    debug_assert!(written.is_ok(), "recording the outcome of a job cannot fail");
}

fn add_failure(
    session: &Session<'_>,
    database: &mut Database,
    deletion: &BulkDeletion,
    (table, id): (TableId, Uuid),
    error: &ApiError,
) {
    let schema = database.schema.clone();
    let (Some(failures), Some(jobs)) = (schema.by_logical("bulkdeletefailure"), schema.by_logical("asyncoperation"))
    else {
        return;
    };
    let mut cells = Vec::new();
    let values = [
        ("asyncoperationid", Value::Lookup(jobs.id, deletion.operation)),
        ("errornumber", Value::Int(i64::from(error.code as i32))),
        ("errordescription", Value::Text(error.message.as_str().into())),
        ("regardingobjectid", Value::Lookup(table, id)),
        ("createdon", Value::Time(session.now)),
        ("modifiedon", Value::Time(session.now)),
    ];
    for (name, value) in values {
        cells.extend(failures.ordinal(name).map(|ordinal| (ordinal, Some(value))));
    }
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let key = stable_id(&format!("failure:{}:{id}", deletion.operation));
    // The table has no alternate keys that could object.
    let _stored = database.put(failures.id, key, encode(&cells));
}

/// Sets columns of a row by name; a table or row that is not there is left alone.
fn change_row(database: &mut Database, table: &str, id: Uuid, values: &[(&str, Option<Value>)]) {
    let Some(table) = database.schema.by_logical(table).cloned() else {
        return;
    };
    let Some(row) = database.get(table.id, &id).cloned() else {
        return;
    };
    let mut changes: Vec<_> =
        values.iter().filter_map(|(name, value)| Some((table.ordinal(name)?, value.clone()))).collect();
    changes.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // Tables of jobs have no alternate keys that could object.
    let _stored = database.put(table.id, id, merge(&row, &changes));
}

/// Sets a system job's state and status.
pub(crate) fn set_system_job(database: &mut Database, job: Uuid, state: i64, status: i64) {
    let values = [("statecode", Some(Value::Int(state))), ("statuscode", Some(Value::Int(status)))];
    change_row(database, "asyncoperation", job, &values);
}

/// Sets a system job completed.
pub(crate) fn finish_system_job(database: &mut Database, job: Uuid, status: i64, message: &str, now: i64) {
    let text = (!message.is_empty()).then(|| Value::Text(message.chars().take(2000).collect::<String>().into()));
    let values = [
        ("statecode", Some(Value::Int(3))),
        ("statuscode", Some(Value::Int(status))),
        ("message", text.clone()),
        ("friendlymessage", text),
        ("completedon", Some(Value::Time(now))),
        ("modifiedon", Some(Value::Time(now))),
    ];
    change_row(database, "asyncoperation", job, &values);
}

/// Keys that were still being built when the process ended go on.
pub(super) fn resume_jobs(database: &mut Database, now: f64) {
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
