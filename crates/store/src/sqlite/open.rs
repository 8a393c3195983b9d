//! Opening `runs.db`: its settings, its version, and who else has it open.
//!
//! Every setting is read back, because SQLite ignores what it cannot do. `store.lock` is held
//! shared by every process that has the database open; a process that gets it alone is the only
//! one, and only then may it upgrade the file, or conclude that what lies in the write-ahead log
//! comes from a process that died.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use flowgate_files::NewFile;
use fs_err as fs;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::Fault;
use crate::{StoreError, place};

/// The oldest SQLite without known ways to damage a shared write-ahead log.
const SQLITE_OLDEST: (i32, &str) = (3_051_003, "3.51.3");

/// "FLGT": what `application_id` says in a file of ours.
const APPLICATION_ID: i64 = 0x464C_4754;

/// How to make version n from version n - 1. A released entry never changes.
const MIGRATIONS: &[&str] = &[include_str!("1_runs.sql")];

/// (name, value to set, value that must be read back)
const SETTINGS: &[(&str, &str, &str)] = &[
    ("busy_timeout", "5000", "5000"),
    ("journal_mode", "WAL", "wal"),
    // FULL, not NORMAL: in WAL mode NORMAL may lose acknowledged commits at a power cut.
    ("synchronous", "FULL", "2"),
    ("fullfsync", "ON", "1"),
    ("checkpoint_fullfsync", "ON", "1"),
    ("foreign_keys", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("cell_size_check", "ON", "1"),
    ("mmap_size", "0", "0"),
    ("wal_autocheckpoint", "4000", "4000"),
    ("journal_size_limit", "67108864", "67108864"),
];

/// Open connections and the lock that says so.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) presence: fs::File,
}

pub(super) fn open(path: &Path, locks: &Path) -> Result<Opened, StoreError> {
    refuse_old_sqlite(rusqlite::version_number())?;
    let (presence, is_alone) = enter(&locks.join("store.lock"))?;
    let was_killed = is_alone && has_unfinished_log(path);
    place::open_file(path)?;
    let mut writer = connect(path)?;
    if was_killed {
        check_pages(&writer, path)?;
    }
    upgrade(&mut writer, path, MIGRATIONS, is_alone)?;
    let reader = connect(path)?;
    apply(&reader, ("query_only", "ON", "1")).map_err(|fault| fault.at("opening the state database", path))?;
    if is_alone {
        stop_being_alone(&presence)?;
    }
    Ok(Opened { writer, reader, presence })
}

fn refuse_old_sqlite(found: i32) -> Result<(), StoreError> {
    let (oldest, needed) = SQLITE_OLDEST;
    if found >= oldest {
        return Ok(());
    }
    let found = format!("{}.{}.{}", found / 1_000_000, found / 1_000 % 1_000, found % 1_000);
    Err(StoreError::SqliteTooOld { found, needed })
}

/// Locks `store.lock`, and says whether no other process has the database open.
fn enter(path: &Path) -> Result<(fs::File, bool), StoreError> {
    let failed = |source| StoreError::io("locking the state", path, source);
    let file = place::open_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => {
            // Waits while another process sets the database up.
            file.lock_shared().map_err(failed)?;
            Ok((file, false))
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn stop_being_alone(presence: &fs::File) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("locking the state", presence.path(), source);
    presence.unlock().map_err(failed)?;
    presence.lock_shared().map_err(failed)
}

/// The write-ahead log is removed by the last process that closes the database in order.
fn has_unfinished_log(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|metadata| metadata.len() > 0)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let settle = || -> Result<Connection, Fault> {
        let connection = Connection::open_with_flags(path, flags)?;
        for setting in SETTINGS {
            apply(&connection, *setting)?;
        }
        Ok(connection)
    };
    settle().map_err(|fault| fault.at("opening the state database", path))
}

fn apply(connection: &Connection, (name, value, wanted): (&'static str, &str, &'static str)) -> Result<(), Fault> {
    connection.pragma_update(None, name, value)?;
    let found = match connection.pragma_query_value(None, name, |row| row.get(0))? {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    };
    if found == wanted { Ok(()) } else { Err(StoreError::Setting { name, found, wanted }.into()) }
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    tracing::info!(path = %path.display(), "the last process did not close the state: checking it");
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StoreError::database("checking the state database", path, source))?;
    if answer == "ok" { Ok(()) } else { Err(StoreError::Damaged { path: path.to_owned(), detail: answer }) }
}

/// Brings the file to the newest version, after a backup unless it is empty.
fn upgrade(connection: &mut Connection, path: &Path, migrations: &[&str], is_alone: bool) -> Result<(), StoreError> {
    let doing = "upgrading the state database";
    let known = migrations.len() as i64;
    let found = version(connection).map_err(|fault| fault.at(doing, path))?;
    // No version of ours is below 1: nobody can say what a negative one holds.
    let Some(found) = found.filter(|found| *found >= 0) else {
        return Err(StoreError::Foreign { path: path.to_owned() });
    };
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        return Ok(());
    }
    if !is_alone {
        return Err(StoreError::UpgradeBlocked { path: path.to_owned() });
    }
    if found > 0 {
        back_up(connection, path, found)?;
    }
    migrate(connection, migrations, found).map_err(|fault| fault.at(doing, path))?;
    flowgate_files::sync_parent(path).map_err(|source| StoreError::io("syncing the state directory", path, source))
}

/// The file's version; 0 for a new one, `None` for a database that is not ours.
fn version(connection: &Connection) -> Result<Option<i64>, Fault> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application = number("application_id")?;
    if application == 0 && tables == 0 {
        return Ok(Some(0));
    }
    if application != APPLICATION_ID {
        return Ok(None);
    }
    Ok(Some(number("user_version")?))
}

fn migrate(connection: &mut Connection, migrations: &[&str], found: i64) -> Result<(), Fault> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    for migration in &migrations[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", migrations.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

/// Copies the database to `runs.db.v<version>.bak`, durably, before an upgrade touches it.
fn back_up(connection: &Connection, path: &Path, version: i64) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("backing up the state database", path, source);
    let backup = NewFile::create(&beside(path, &format!(".v{version}.bak"))).map_err(failed)?;
    // SQLite copies into an empty file, and keeps its mode.
    connection
        .execute("VACUUM INTO ?1", [backup.unfinished_path().to_string_lossy()])
        .map_err(|source| StoreError::database("backing up the state database", path, source))?;
    backup.sync().and_then(|()| backup.name()).map_err(failed)?;
    flowgate_files::sync_parent(path).map_err(failed)
}

/// `path` with `suffix` behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn new_database(dir: &Path) -> (PathBuf, Connection) {
        let path = dir.join("runs.db");
        place::open_file(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        upgrade(&mut connection, &path, MIGRATIONS, true).unwrap();
        (path, connection)
    }

    #[test]
    fn an_old_sqlite_is_refused_by_its_version() {
        assert!(refuse_old_sqlite(3_051_003).is_ok());
        let error = refuse_old_sqlite(3_051_002).unwrap_err();
        assert_eq!(error.to_string(), "SQLite 3.51.2 is too old: 3.51.3 is needed");
    }

    #[test]
    fn a_setting_that_does_not_hold_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        let error = apply(&connection, ("journal_mode", "WAL", "wal")).unwrap_err();
        let error = error.at("opening", Path::new("runs.db"));
        assert_eq!(error.to_string(), "setting `journal_mode` is `memory`, not `wal`");
    }

    #[test]
    fn an_older_file_is_copied_and_then_upgraded() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut connection) = new_database(dir.path());
        connection.execute("INSERT INTO flows VALUES ('enquiries', 3, 1, '')", []).unwrap();
        let next = [MIGRATIONS[0], "ALTER TABLE flows ADD COLUMN note TEXT"];
        upgrade(&mut connection, &path, &next, true).unwrap();

        let epoch: i64 =
            connection.query_row("SELECT epoch FROM flows WHERE note IS NULL", [], |row| row.get(0)).unwrap();
        assert_eq!((epoch, version(&connection).unwrap()), (3, Some(2)));
        let backup = beside(&path, ".v1.bak");
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        let backup = Connection::open(backup).unwrap();
        assert_eq!(version(&backup).unwrap(), Some(1));
        assert_eq!(backup.query_row("SELECT epoch FROM flows", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    }

    #[test]
    fn an_upgrade_waits_until_nobody_else_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut connection) = new_database(dir.path());
        let error = upgrade(&mut connection, &path, &[MIGRATIONS[0], "SELECT 1"], false).unwrap_err();
        assert!(matches!(error, StoreError::UpgradeBlocked { .. }), "{error}");
    }

    #[test]
    fn the_first_to_enter_is_alone_until_it_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.lock");
        let (first, is_alone) = enter(&path).unwrap();
        assert!(is_alone);
        stop_being_alone(&first).unwrap();
        assert!(!enter(&path).unwrap().1);
        drop(first);
        assert!(enter(&path).unwrap().1);
    }
}
