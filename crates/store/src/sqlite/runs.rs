//! The table of runs.

use flowgate_core::{Code, FlowName, RunId};
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Fault;
use crate::time::to_text;
use crate::{RunRecord, RunState, StoreError};

const COLUMNS: &str = "run, flow, state, project_version, started, finished, error, error_code, streams, loads, \
                       seconds, requests_sent, requests_throttled";

pub(super) fn save(transaction: &Transaction<'_>, record: &RunRecord) -> Result<(), Fault> {
    let sql = format!(
        "INSERT INTO runs ({COLUMNS})
         VALUES (:run, :flow, :state, :project_version, :started, :finished, :error, :error_code, :streams, :loads,
                 :seconds, :requests_sent, :requests_throttled)
         ON CONFLICT (run) DO UPDATE SET
             state = excluded.state, project_version = excluded.project_version, finished = excluded.finished,
             error = excluded.error, error_code = excluded.error_code, streams = excluded.streams,
             loads = excluded.loads, seconds = excluded.seconds, requests_sent = excluded.requests_sent,
             requests_throttled = excluded.requests_throttled"
    );
    transaction.execute(
        &sql,
        named_params! {
            ":run": record.run.to_string(),
            ":flow": record.flow.as_str(),
            ":state": record.state.as_str(),
            ":project_version": record.project_version,
            ":started": to_text(record.started),
            ":finished": record.finished.map(to_text),
            ":error": record.error,
            ":error_code": record.error_code.map(|code| code.0),
            ":streams": to_json("streams of a run", &record.streams)?,
            ":loads": to_json("loads of a run", &record.loads)?,
            ":seconds": to_json("seconds of a run", &record.seconds)?,
            ":requests_sent": record.requests_sent as i64,
            ":requests_throttled": record.requests_throttled as i64,
        },
    )?;
    Ok(())
}

/// Closes what earlier runs of the flow left open, because `record` begins anew.
pub(super) fn abandon_others(transaction: &Transaction<'_>, record: &RunRecord) -> Result<(), Fault> {
    transaction.execute(
        "UPDATE runs SET state = ?1, finished = coalesce(finished, ?2)
         WHERE flow = ?3 AND run <> ?4 AND state IN (?5, ?6)",
        (
            RunState::Abandoned.as_str(),
            to_text(record.started),
            record.flow.as_str(),
            record.run.to_string(),
            RunState::Running.as_str(),
            RunState::Interrupted.as_str(),
        ),
    )?;
    Ok(())
}

pub(super) fn by_id(connection: &Connection, run: RunId) -> Result<Option<RunRecord>, Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM runs WHERE run = ?1"))?;
    let mut rows = statement.query([run.to_string()])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn newest(connection: &Connection, flow: Option<&FlowName>, limit: usize) -> Result<Vec<RunRecord>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE ?1 IS NULL OR flow = ?1 ORDER BY number DESC LIMIT ?2");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query((flow.map(FlowName::as_str), limit as i64))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(read(row)?);
    }
    Ok(records)
}

pub(super) fn forget(transaction: &Transaction<'_>, flow: &FlowName, keep: usize) -> Result<u64, Fault> {
    let forgotten = transaction.execute(
        "DELETE FROM runs WHERE flow = ?1 AND number NOT IN
             (SELECT number FROM runs WHERE flow = ?1 ORDER BY number DESC LIMIT ?2)",
        (flow.as_str(), keep as i64),
    )?;
    Ok(forgotten as u64)
}

fn read(row: &Row<'_>) -> Result<RunRecord, Fault> {
    let run: String = row.get("run")?;
    let state: String = row.get("state")?;
    let finished: Option<String> = row.get("finished")?;
    Ok(RunRecord {
        run: run.parse().map_err(|_| Fault::damaged("run id", &run))?,
        flow: flow_name(row.get("flow")?)?,
        state: RunState::from_text(&state).ok_or_else(|| Fault::damaged("state of a run", &state))?,
        project_version: row.get("project_version")?,
        started: timestamp(&row.get::<_, String>("started")?)?,
        finished: finished.as_deref().map(timestamp).transpose()?,
        error: row.get("error")?,
        error_code: row.get::<_, Option<u16>>("error_code")?.map(Code),
        streams: from_json("list of streams", &row.get::<_, String>("streams")?)?,
        loads: from_json("list of loads", &row.get::<_, String>("loads")?)?,
        seconds: from_json("list of seconds", &row.get::<_, String>("seconds")?)?,
        requests_sent: row.get::<_, i64>("requests_sent")? as u64,
        requests_throttled: row.get::<_, i64>("requests_throttled")? as u64,
    })
}

pub(super) fn flow_name(text: String) -> Result<FlowName, Fault> {
    FlowName::new(text).map_err(|error| Fault::Damaged(error.to_string()))
}

pub(super) fn timestamp(text: &str) -> Result<Timestamp, Fault> {
    text.parse().map_err(|_| Fault::damaged("time", text))
}

pub(super) fn to_json(what: &'static str, value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|source| Fault::Store(StoreError::Encode { what, source }))
}

pub(super) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged(format!("no {what}: {error}")))
}
