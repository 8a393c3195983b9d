//! The rows of `lanes.db`, and what one beat does to them, all in one transaction.

use flowgate_core::ports::{
    Beat, Beaten, Checkpoint, GuestUse, LANE_LEASE, LaneReport, RowsBeat, SharedLane, Standing, Tenure, UserBeat,
};
use jiff::Timestamp;
use rusqlite::{Connection, Error, Transaction, params};

use super::share::fair_share;
use super::{BudgetRecord, LaneHolder};

/// Lanes and budgets that nobody told of for so long are forgotten: a nightly run still knows them.
const FORGET_MS: i64 = 2 * 24 * 3_600 * 1_000;

/// What guests used longer ago cannot be in any window.
const FORGET_GUESTS_MS: i64 = 10 * 60 * 1_000;

/// Rows are counted by the minute.
const COUNT_MS: i64 = 60 * 1_000;

/// Another budget that is taken for alive.
pub(super) struct Other {
    pub(super) owner: String,
    pub(super) until_ms: i64,
}

/// The budget that tells.
pub(super) struct Asker<'a> {
    pub(super) owner: &'a str,
    pub(super) connection: &'a str,
    pub(super) now_ms: i64,
}

/// A row of the table of lanes.
struct Row {
    shared: SharedLane,
    owner: Option<String>,
    epoch: u64,
}

impl Asker<'_> {
    pub(super) fn beat(&self, transaction: &Transaction<'_>, beat: &Beat) -> Result<Beaten, Error> {
        self.sit(transaction, &beat.snapshot, true)?;
        // Of a lane that nobody holds nobody else removes them.
        forget_guests(transaction, self.now_ms)?;
        let mut beaten = Beaten::default();
        for user in &beat.users {
            self.ask(transaction, &user.identity, user.wants_lanes)?;
            self.report(transaction, user)?;
            beaten.users.push(self.share(transaction, user)?);
        }
        if let Some(rows) = &beat.rows {
            beaten.rows = self.count(transaction, rows)?;
        }
        Ok(beaten)
    }

    pub(super) fn leave(&self, transaction: &Transaction<'_>, beat: &Beat) -> Result<(), Error> {
        self.sit(transaction, &beat.snapshot, false)?;
        for user in &beat.users {
            self.ask(transaction, &user.identity, false)?;
            self.report(transaction, user)?;
        }
        if let Some(rows) = &beat.rows {
            self.count(transaction, rows)?;
        }
        unseat(transaction, self.owner, self.now_ms)
    }

    fn until_ms(&self) -> i64 {
        self.now_ms.saturating_add(LANE_LEASE.as_millis() as i64)
    }

    fn sit(&self, transaction: &Transaction<'_>, snapshot: &str, is_taken: bool) -> Result<(), Error> {
        transaction.execute(
            "INSERT INTO seats (owner, connection, pid, beat_at, until, is_taken, snapshot)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (owner) DO UPDATE SET
                 beat_at = excluded.beat_at, until = excluded.until, is_taken = excluded.is_taken,
                 snapshot = excluded.snapshot",
            params![self.owner, self.connection, std::process::id(), self.now_ms, self.until_ms(), is_taken, snapshot],
        )?;
        Ok(())
    }

    fn ask(&self, transaction: &Transaction<'_>, identity: &str, wants_lanes: bool) -> Result<(), Error> {
        let sql = if wants_lanes {
            "INSERT OR IGNORE INTO askers (identity, owner) VALUES (?1, ?2)"
        } else {
            "DELETE FROM askers WHERE identity = ?1 AND owner = ?2"
        };
        transaction.execute(sql, (identity, self.owner))?;
        Ok(())
    }

    fn report(&self, transaction: &Transaction<'_>, user: &UserBeat) -> Result<(), Error> {
        for lane in &user.lanes {
            self.report_lane(transaction, &user.identity, lane)?;
        }
        Ok(())
    }

    fn report_lane(&self, transaction: &Transaction<'_>, identity: &str, lane: &LaneReport) -> Result<(), Error> {
        let server = lane.server.as_str();
        if lane.standing == Standing::Gone {
            let sql = "DELETE FROM lanes WHERE identity = ?1 AND server = ?2 AND (owner IS NULL OR owner = ?3)";
            transaction.execute(sql, (identity, server, self.owner))?;
            return Ok(());
        }
        transaction.execute(
            "INSERT INTO lanes (identity, server, epoch, seen_at, at, open_until) VALUES (?1, ?2, 0, ?3, ?3, ?3)
             ON CONFLICT (identity, server) DO UPDATE SET seen_at = excluded.seen_at",
            (identity, server, self.now_ms),
        )?;
        match &lane.standing {
            Standing::Holder { epoch, checkpoint } => {
                self.save(transaction, (identity, server), *epoch, checkpoint, Some(self.owner))?;
            }
            Standing::Left { epoch, checkpoint } => {
                self.save(transaction, (identity, server), *epoch, checkpoint, None)?;
            }
            Standing::Guest | Standing::Gone => {}
        }
        if let Some(used) = &lane.used_as_guest {
            let sql = "INSERT INTO guests (identity, server, at, used) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, (identity, server, self.now_ms, used))?;
        }
        Ok(())
    }

    /// Keeps the checkpoint if the lane is still held under `epoch`, and passes it on to `owner`.
    fn save(
        &self,
        transaction: &Transaction<'_>,
        (identity, server): (&str, &str),
        epoch: u64,
        checkpoint: &str,
        owner: Option<&str>,
    ) -> Result<(), Error> {
        let open_until_ms = if owner.is_some() { self.until_ms() } else { self.now_ms };
        transaction.execute(
            "UPDATE lanes SET checkpoint = ?1, at = ?2, open_until = ?3, owner = ?4
             WHERE identity = ?5 AND server = ?6 AND owner = ?7 AND epoch = ?8",
            params![checkpoint, self.now_ms, open_until_ms, owner, identity, server, self.owner, epoch as i64],
        )?;
        Ok(())
    }

    /// Takes what is free up to the fair share, and finds out what of the own is too much.
    fn share(&self, transaction: &Transaction<'_>, user: &UserBeat) -> Result<Vec<SharedLane>, Error> {
        let mut rows = rows(transaction, &user.identity)?;
        let askers = askers(transaction, &user.identity)?;
        let held = rows.iter().filter(|row| row.owner.as_deref() == Some(self.owner)).count();
        let share = match askers.iter().position(|asker| asker == self.owner) {
            Some(place) => fair_share(rows.len(), askers.len(), place, self.now_ms),
            None if askers.is_empty() => held,
            None => 0,
        };
        let mut kept = held.min(share);
        let mut room = share.saturating_sub(held);
        for row in &mut rows {
            let is_own = row.owner.as_deref() == Some(self.owner);
            if is_own {
                row.shared.tenure =
                    if kept > 0 { Tenure::Held { epoch: row.epoch } } else { Tenure::Asked { epoch: row.epoch } };
                kept = kept.saturating_sub(1);
            } else if row.owner.is_none() && room > 0 {
                room -= 1;
                let epoch = row.epoch + 1;
                self.take(transaction, &user.identity, &row.shared.server, epoch)?;
                row.shared.tenure = Tenure::Held { epoch };
            }
            row.shared.guests = guests(transaction, &user.identity, &row.shared.server)?;
            if row.shared.tenure != Tenure::NotHeld {
                let sql = "DELETE FROM guests WHERE identity = ?1 AND server = ?2";
                transaction.execute(sql, (&user.identity, &row.shared.server))?;
            }
        }
        Ok(rows.into_iter().map(|row| row.shared).collect())
    }

    fn take(&self, transaction: &Transaction<'_>, identity: &str, server: &str, epoch: u64) -> Result<(), Error> {
        transaction.execute(
            "UPDATE lanes SET owner = ?1, epoch = ?2, open_until = ?3 WHERE identity = ?4 AND server = ?5",
            params![self.owner, epoch as i64, self.until_ms(), identity, server],
        )?;
        Ok(())
    }

    fn count(&self, transaction: &Transaction<'_>, rows: &RowsBeat) -> Result<u64, Error> {
        let (pool, since_ms) = (rows.pool.as_str(), rows.since.as_millisecond());
        if rows.rows > 0 {
            transaction.execute(
                "INSERT INTO row_counts (pool, at, rows) VALUES (?1, ?2, ?3)
                 ON CONFLICT (pool, at) DO UPDATE SET rows = rows + excluded.rows",
                params![pool, self.now_ms.div_euclid(COUNT_MS) * COUNT_MS, rows.rows as i64],
            )?;
        }
        let counted: i64 = transaction.query_row(
            "SELECT coalesce(sum(rows), 0) FROM row_counts WHERE pool = ?1 AND at > ?2",
            (pool, since_ms - COUNT_MS),
            |row| row.get(0),
        )?;
        Ok(counted as u64)
    }
}

/// Frees the lanes of a budget that is gone. It sends nothing from now on, so nothing is unknown of
/// the time after.
pub(super) fn unseat(transaction: &Transaction<'_>, owner: &str, now_ms: i64) -> Result<(), Error> {
    transaction
        .execute("UPDATE lanes SET owner = NULL, open_until = min(open_until, ?1) WHERE owner = ?2", (now_ms, owner))?;
    transaction.execute("DELETE FROM askers WHERE owner = ?1", [owner])?;
    transaction.execute("UPDATE seats SET is_taken = 0 WHERE owner = ?1", [owner])?;
    Ok(())
}

/// The budgets besides `owner` that sit.
pub(super) fn others(connection: &Connection, owner: &str) -> Result<Vec<Other>, Error> {
    let mut statement = connection.prepare("SELECT owner, until FROM seats WHERE is_taken AND owner <> ?1")?;
    let found = statement.query_map([owner], |row| Ok(Other { owner: row.get(0)?, until_ms: row.get(1)? }))?;
    found.collect()
}

/// Removes what is too old to be of use.
pub(super) fn forget(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), Error> {
    let now_ms = now.as_millisecond();
    transaction.execute("DELETE FROM lanes WHERE owner IS NULL AND seen_at < ?1", [now_ms - FORGET_MS])?;
    transaction.execute("DELETE FROM seats WHERE NOT is_taken AND beat_at < ?1", [now_ms - FORGET_MS])?;
    transaction.execute("DELETE FROM row_counts WHERE at < ?1", [now_ms - FORGET_MS])?;
    forget_guests(transaction, now_ms)?;
    // Of budgets that are gone the newest word of each connection is enough.
    transaction.execute(
        "DELETE FROM seats WHERE NOT is_taken AND beat_at <
             (SELECT max(beat_at) FROM seats AS newer WHERE newer.connection = seats.connection)",
        [],
    )?;
    Ok(())
}

fn forget_guests(transaction: &Transaction<'_>, now_ms: i64) -> Result<(), Error> {
    transaction.execute("DELETE FROM guests WHERE at < ?1", [now_ms - FORGET_GUESTS_MS])?;
    Ok(())
}

pub(super) fn seats(transaction: &Transaction<'_>) -> Result<Vec<(String, BudgetRecord)>, Error> {
    let mut statement =
        transaction.prepare("SELECT owner, connection, pid, beat_at, is_taken, snapshot FROM seats ORDER BY owner")?;
    let found = statement.query_map([], |row| {
        let record = BudgetRecord {
            connection: row.get(1)?,
            pid: row.get(2)?,
            at: moment(row.get(3)?),
            is_alive: row.get(4)?,
            snapshot: row.get(5)?,
        };
        Ok((row.get(0)?, record))
    })?;
    found.collect()
}

pub(super) fn holders(transaction: &Transaction<'_>) -> Result<Vec<(String, LaneHolder)>, Error> {
    let mut statement = transaction
        .prepare("SELECT owner, identity, server, pid FROM lanes JOIN seats USING (owner) ORDER BY identity, server")?;
    let found = statement.query_map([], |row| {
        Ok((row.get(0)?, LaneHolder { identity: row.get(1)?, server: row.get(2)?, pid: row.get(3)? }))
    })?;
    found.collect()
}

fn askers(connection: &Connection, identity: &str) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare("SELECT owner FROM askers WHERE identity = ?1 ORDER BY owner")?;
    statement.query_map([identity], |row| row.get(0))?.collect()
}

fn rows(connection: &Connection, identity: &str) -> Result<Vec<Row>, Error> {
    let mut statement = connection.prepare(
        "SELECT server, epoch, owner, checkpoint, at, open_until FROM lanes WHERE identity = ?1 ORDER BY server",
    )?;
    let found = statement.query_map([identity], |row| {
        let state: Option<String> = row.get(3)?;
        let (at, open_until) = (moment(row.get(4)?), moment(row.get(5)?));
        let checkpoint = state.map(|state| Checkpoint { state, at, open_until });
        let shared = SharedLane { server: row.get(0)?, tenure: Tenure::NotHeld, checkpoint, guests: Vec::new() };
        Ok(Row { shared, epoch: row.get::<_, i64>(1)? as u64, owner: row.get(2)? })
    })?;
    found.collect()
}

fn guests(connection: &Connection, identity: &str, server: &str) -> Result<Vec<GuestUse>, Error> {
    let mut statement =
        connection.prepare("SELECT used, at FROM guests WHERE identity = ?1 AND server = ?2 ORDER BY number")?;
    let found =
        statement.query_map((identity, server), |row| Ok(GuestUse { used: row.get(0)?, at: moment(row.get(1)?) }))?;
    found.collect()
}

/// A stored time; the start of time for one that no clock can have shown.
fn moment(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
