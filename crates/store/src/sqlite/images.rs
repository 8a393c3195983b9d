//! The tables of staged images and of manifests.

use flowgate_core::{FlowName, LoadName, StreamName};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::Fault;
use super::runs::{from_json, to_json};
use crate::{ImageRecord, ManifestRecord, StoreError};

pub(super) fn record(transaction: &Transaction<'_>, image: &ImageRecord) -> Result<(), Fault> {
    // An image recorded again (after a resumed run) becomes the newest.
    transaction.execute(
        "INSERT OR REPLACE INTO images (flow, stream, path, record) VALUES (?1, ?2, ?3, ?4)",
        (image.flow.as_str(), image.stream.as_str(), &image.path, to_json("image", image)?),
    )?;
    Ok(())
}

pub(super) fn of_stream(
    connection: &Connection,
    flow: &FlowName,
    stream: &StreamName,
) -> Result<Vec<ImageRecord>, Fault> {
    let mut statement =
        connection.prepare("SELECT record FROM images WHERE flow = ?1 AND stream = ?2 ORDER BY number DESC")?;
    let mut rows = statement.query([flow.as_str(), stream.as_str()])?;
    let mut images = Vec::new();
    while let Some(row) = rows.next()? {
        images.push(from_json("image", &row.get::<_, String>(0)?)?);
    }
    Ok(images)
}

pub(super) fn retire(
    transaction: &Transaction<'_>,
    flow: &FlowName,
    stream: &StreamName,
    keep: usize,
) -> Result<Vec<String>, Fault> {
    let mut statement = transaction.prepare(
        "DELETE FROM images WHERE flow = ?1 AND stream = ?2 AND number NOT IN
             (SELECT number FROM images WHERE flow = ?1 AND stream = ?2 ORDER BY number DESC LIMIT ?3)
         RETURNING path",
    )?;
    let paths = statement.query_map((flow.as_str(), stream.as_str(), keep as i64), |row| row.get(0))?;
    Ok(paths.collect::<Result<_, _>>()?)
}

pub(super) fn manifest(
    connection: &Connection,
    flow: &FlowName,
    load: &LoadName,
) -> Result<Option<ManifestRecord>, Fault> {
    let found = connection
        .query_row(
            "SELECT version, json FROM manifests WHERE flow = ?1 AND load = ?2",
            [flow.as_str(), load.as_str()],
            |row| Ok(ManifestRecord { version: row.get::<_, i64>(0)? as u64, json: row.get(1)? }),
        )
        .optional()?;
    Ok(found)
}

pub(super) fn swap_manifest(
    transaction: &Transaction<'_>,
    flow: &FlowName,
    load: &LoadName,
    expected: u64,
    json: &str,
) -> Result<(), Fault> {
    let found = manifest(transaction, flow, load)?.map_or(0, |record| record.version);
    if found != expected {
        return Err(StoreError::ManifestMoved { flow: flow.clone(), load: load.clone(), expected, found }.into());
    }
    transaction.execute(
        "INSERT OR REPLACE INTO manifests (flow, load, version, json) VALUES (?1, ?2, ?3, ?4)",
        (flow.as_str(), load.as_str(), (expected + 1) as i64, json),
    )?;
    Ok(())
}
