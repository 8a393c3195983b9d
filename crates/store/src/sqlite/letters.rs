//! The table of letters.

use flowgate_core::{Code, FlowName, KeyHash};
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};

use super::Fault;
use super::runs::{flow_name, timestamp};
use crate::time::to_text;
use crate::{Letter, LetterFilter, LetterGroup, LetterMark, LetterPage, LetterSelection, LetterStatus};

/// Shorter beginnings of an id are too likely to be a slip of the hand.
const ID_PREFIX_LENGTH_MIN: usize = 8;

/// Parameters 1 to 4 are those of [`filter_values`].
const MATCHES: &str = "(?1 IS NULL OR flow = ?1) AND (?2 IS NULL OR place = ?2) AND (?3 IS NULL OR code = ?3)
                       AND (?4 IS NULL OR status = ?4)";

type FilterValues<'a> = (Option<&'a str>, Option<&'a str>, Option<u16>, Option<&'static str>);

fn filter_values(filter: &LetterFilter) -> FilterValues<'_> {
    (
        filter.flow.as_ref().map(FlowName::as_str),
        filter.place.as_deref(),
        filter.code.map(|code| code.0),
        filter.status.map(LetterStatus::as_str),
    )
}

pub(super) fn save(transaction: &Transaction<'_>, letters: &[Letter]) -> Result<(), Fault> {
    let mut statement = transaction.prepare(
        r#"INSERT INTO letters
               (id, flow, place, key_hash, key_text, row_hash, project_version, metadata_version, attempts, first_at,
                last_at, code, "column", reason, service_code, request_id, file, line, "offset", payload, status)
           VALUES
               (:id, :flow, :place, :key_hash, :key_text, :row_hash, :project_version, :metadata_version, :attempts,
                :first_at, :last_at, :code, :column, :reason, :service_code, :request_id, :file, :line, :offset,
                :payload, :status)
           ON CONFLICT (id) DO UPDATE SET
               status = CASE WHEN status = 'discarded' AND row_hash = excluded.row_hash
                        THEN status ELSE excluded.status END,
               key_text = excluded.key_text, row_hash = excluded.row_hash,
               project_version = excluded.project_version, metadata_version = excluded.metadata_version,
               attempts = attempts + excluded.attempts, last_at = excluded.last_at, code = excluded.code,
               "column" = excluded."column", reason = excluded.reason, service_code = excluded.service_code,
               request_id = excluded.request_id, file = excluded.file, line = excluded.line,
               "offset" = excluded."offset", payload = excluded.payload"#,
    )?;
    for letter in letters {
        statement.execute(named_params! {
            ":id": letter.id,
            ":flow": letter.flow.as_str(),
            ":place": letter.place,
            ":key_hash": letter.key_hash.map(|key| key.0.to_be_bytes()),
            ":key_text": letter.key_text,
            ":row_hash": letter.row_hash as i64,
            ":project_version": letter.project_version,
            ":metadata_version": letter.metadata_version,
            ":attempts": letter.attempts,
            ":first_at": to_text(letter.first_at),
            ":last_at": to_text(letter.last_at),
            ":code": letter.code.0,
            ":column": letter.column,
            ":reason": letter.reason,
            ":service_code": letter.service_code,
            ":request_id": letter.request_id,
            ":file": letter.file,
            ":line": letter.line.map(|line| line as i64),
            ":offset": letter.offset.map(|offset| offset as i64),
            ":payload": letter.payload,
            ":status": letter.status.as_str(),
        })?;
    }
    Ok(())
}

pub(super) fn resolve(transaction: &Transaction<'_>, flow: &FlowName, ids: &[String]) -> Result<u64, Fault> {
    let mut statement = transaction.prepare("DELETE FROM letters WHERE id = ?1 AND flow = ?2")?;
    let mut removed = 0;
    for id in ids {
        removed += statement.execute([id, flow.as_str()])? as u64;
    }
    Ok(removed)
}

pub(super) fn touch(
    transaction: &Transaction<'_>,
    flow: &FlowName,
    ids: &[String],
    now: Timestamp,
) -> Result<u64, Fault> {
    let now = to_text(now);
    let mut statement = transaction.prepare("UPDATE letters SET last_at = ?1 WHERE id = ?2 AND flow = ?3")?;
    let mut touched = 0;
    for id in ids {
        touched += statement.execute([&now, id, flow.as_str()])? as u64;
    }
    Ok(touched)
}

pub(super) fn resolve_unmet(
    transaction: &Transaction<'_>,
    flow: &FlowName,
    place: &str,
    code: Code,
    before: Timestamp,
) -> Result<u64, Fault> {
    let sql = "DELETE FROM letters WHERE flow = ?1 AND place = ?2 AND key_hash IS NULL AND code = ?3 AND last_at < ?4";
    Ok(transaction.execute(sql, (flow.as_str(), place, code.0, to_text(before)))? as u64)
}

pub(super) fn by_id(connection: &Connection, id: &str) -> Result<Option<Letter>, Fault> {
    if id.len() < ID_PREFIX_LENGTH_MIN {
        return Ok(None);
    }
    // Ids are hexadecimal: 'g' comes after every digit.
    let mut statement = connection.prepare("SELECT * FROM letters WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let letter = read(row)?;
    let is_only_one = rows.next()?.is_none();
    Ok(is_only_one.then_some(letter))
}

pub(super) fn page(
    connection: &Connection,
    filter: &LetterFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<LetterPage, Fault> {
    let sql = format!("SELECT * FROM letters WHERE {MATCHES} AND number > ?5 ORDER BY number LIMIT ?6");
    let mut statement = connection.prepare(&sql)?;
    let (flow, place, code, status) = filter_values(filter);
    let mut rows = statement.query((flow, place, code, status, after.unwrap_or(0) as i64, limit as i64))?;
    let mut page = LetterPage { letters: Vec::new(), next: None };
    let mut last = None;
    while let Some(row) = rows.next()? {
        last = Some(row.get::<_, i64>("number")? as u64);
        page.letters.push(read(row)?);
    }
    if page.letters.len() == limit {
        page.next = last;
    }
    Ok(page)
}

pub(super) fn count(connection: &Connection, filter: &LetterFilter) -> Result<u64, Fault> {
    let sql = format!("SELECT count(*) FROM letters WHERE {MATCHES}");
    let count: i64 = connection.query_row(&sql, filter_values(filter), |row| row.get(0))?;
    Ok(count as u64)
}

pub(super) fn groups(connection: &Connection, flow: Option<&FlowName>) -> Result<Vec<LetterGroup>, Fault> {
    let mut statement = connection.prepare(
        "SELECT flow, place, code, status, count(*) FROM letters WHERE ?1 IS NULL OR flow = ?1
         GROUP BY flow, place, code, status ORDER BY count(*) DESC, flow, place, code, status",
    )?;
    let mut rows = statement.query([flow.map(FlowName::as_str)])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        groups.push(LetterGroup {
            flow: flow_name(row.get(0)?)?,
            place: row.get(1)?,
            code: Code(row.get(2)?),
            status: letter_status(&row.get::<_, String>(3)?)?,
            letters: row.get::<_, i64>(4)? as u64,
        });
    }
    Ok(groups)
}

pub(super) fn marks(connection: &Connection, flow: &FlowName, place: &str) -> Result<Vec<LetterMark>, Fault> {
    let mut statement = connection.prepare(
        "SELECT id, key_hash, row_hash, project_version, metadata_version, code, status FROM letters
         WHERE flow = ?1 AND place = ?2 AND key_hash IS NOT NULL ORDER BY key_hash",
    )?;
    let mut rows = statement.query([flow.as_str(), place])?;
    let mut marks = Vec::new();
    while let Some(row) = rows.next()? {
        marks.push(LetterMark {
            id: row.get(0)?,
            key_hash: KeyHash(u128::from_be_bytes(row.get(1)?)),
            row_hash: row.get::<_, i64>(2)? as u64,
            project_version: row.get(3)?,
            metadata_version: row.get(4)?,
            code: Code(row.get(5)?),
            status: letter_status(&row.get::<_, String>(6)?)?,
        });
    }
    Ok(marks)
}

pub(super) fn set_status(
    transaction: &Transaction<'_>,
    selection: &LetterSelection,
    status: LetterStatus,
) -> Result<u64, Fault> {
    match selection {
        LetterSelection::Ids(ids) => {
            let mut statement = transaction.prepare("UPDATE letters SET status = ?1 WHERE id = ?2")?;
            let mut changed = 0;
            for id in ids {
                changed += statement.execute([status.as_str(), id])? as u64;
            }
            Ok(changed)
        }
        LetterSelection::Matching(filter) => {
            let sql = format!("UPDATE letters SET status = ?5 WHERE {MATCHES}");
            let (flow, place, code, wanted) = filter_values(filter);
            Ok(transaction.execute(&sql, (flow, place, code, wanted, status.as_str()))? as u64)
        }
    }
}

pub(super) fn correct(transaction: &Transaction<'_>, flow: &FlowName, now: Timestamp) -> Result<u64, Fault> {
    let sql = "UPDATE letters SET last_at = ?2, first_at = min(first_at, ?2) WHERE flow = ?1 AND last_at > ?2";
    Ok(transaction.execute(sql, (flow.as_str(), to_text(now)))? as u64)
}

/// A discarded letter with a key is what keeps its row out. One without a key keeps nothing out: it
/// is met again with its input, or is of no use.
pub(super) fn expire(transaction: &Transaction<'_>, before: Timestamp) -> Result<u64, Fault> {
    let before = to_text(before);
    let is_kept = "status = 'discarded' AND key_hash IS NOT NULL";
    let blank = format!("UPDATE letters SET payload = '{{}}' WHERE last_at < ?1 AND {is_kept} AND payload <> '{{}}'");
    transaction.execute(&blank, [&before])?;
    let remove = format!("DELETE FROM letters WHERE last_at < ?1 AND NOT ({is_kept})");
    Ok(transaction.execute(&remove, [&before])? as u64)
}

fn read(row: &Row<'_>) -> Result<Letter, Fault> {
    let key_hash: Option<[u8; 16]> = row.get("key_hash")?;
    Ok(Letter {
        id: row.get("id")?,
        flow: flow_name(row.get("flow")?)?,
        place: row.get("place")?,
        key_hash: key_hash.map(|bytes| KeyHash(u128::from_be_bytes(bytes))),
        key_text: row.get("key_text")?,
        row_hash: row.get::<_, i64>("row_hash")? as u64,
        project_version: row.get("project_version")?,
        metadata_version: row.get("metadata_version")?,
        attempts: row.get("attempts")?,
        first_at: timestamp(&row.get::<_, String>("first_at")?)?,
        last_at: timestamp(&row.get::<_, String>("last_at")?)?,
        code: Code(row.get("code")?),
        column: row.get("column")?,
        reason: row.get("reason")?,
        service_code: row.get("service_code")?,
        request_id: row.get("request_id")?,
        file: row.get("file")?,
        line: row.get::<_, Option<i64>>("line")?.map(|line| line as u64),
        offset: row.get::<_, Option<i64>>("offset")?.map(|offset| offset as u64),
        payload: row.get("payload")?,
        status: letter_status(&row.get::<_, String>("status")?)?,
    })
}

fn letter_status(text: &str) -> Result<LetterStatus, Fault> {
    LetterStatus::from_text(text).ok_or_else(|| Fault::damaged("status of a letter", text))
}
