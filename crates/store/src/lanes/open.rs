//! Opening `lanes.db`.
//!
//! It is not as durable as `runs.db` on purpose: it is written every second by every process that
//! sends, and what a power cut takes of it costs minutes of caution, never a row.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{StoreError, place};

/// "FLGL": what `application_id` says in this file.
const APPLICATION_ID: i64 = 0x464C_474C;

const VERSION: i64 = 1;

const SCHEMA: &str = include_str!("lanes.sql");

/// Without a sync at each commit; the log is synced before it is folded into the file.
const SETTINGS: [(&str, &str); 5] = [
    ("busy_timeout", "5000"),
    ("journal_mode", "WAL"),
    ("synchronous", "NORMAL"),
    ("trusted_schema", "OFF"),
    ("journal_size_limit", "4194304"),
];

/// `guard` is held while the file is made: switching to a write-ahead log does not wait for others.
pub(super) fn open(path: &Path, guard: &Path) -> Result<Connection, StoreError> {
    let guard = place::open_file(guard)?;
    guard.lock().map_err(|source| StoreError::io("locking the table of lanes", path, source))?;
    place::open_file(path)?;
    let failed = |source| StoreError::database("opening the table of lanes", path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    for (name, value) in SETTINGS {
        connection.pragma_update(None, name, value).map_err(failed)?;
    }
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    match (number("application_id")?, number("user_version")?) {
        (0, 0) => create(&mut connection).map_err(failed)?,
        (APPLICATION_ID, VERSION) => {}
        (APPLICATION_ID, found) if found > VERSION => {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        _ => return Err(StoreError::Foreign { path: path.to_owned() }),
    }
    Ok(connection)
}

fn create(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
