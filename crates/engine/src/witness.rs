//! Whether the destination still is the one that the state describes.
//!
//! A restored environment has forgotten rows and changes that the state takes for granted; a copied one answers
//! under another identity. Either would make a load skip what is missing. A load that was given another table or
//! other match columns finds none of its keys in the state, and would create what is there. So each state keeps what
//! it is of, and a few rows it wrote last, with the versions they had, and before the first write of a run they are
//! looked at again: versions there only ever rise. `run --adopt` reads the destination anew and takes new witnesses.

use std::collections::HashSet;

use flowgate_core::Code;
use flowgate_core::destination::Sighting;
use flowgate_sorted::{Manifest, Witness, Witnesses};
use uuid::Uuid;

use crate::RunError;
use crate::mapping::Mapping;
use crate::run::Scope;

/// Rows looked at before each run: few enough for one request.
const WITNESSES_MAX: usize = 24;

/// So many rows that are all gone were not removed by people one by one.
const MISSING_MIN: usize = 4;

/// Fails if the destination is older than `manifest`, or another one, or the load another. `removed`: rows that this run itself deleted.
pub(crate) async fn check(
    scope: &Scope<'_>,
    mapping: &Mapping,
    manifest: &Manifest,
    removed: &HashSet<Uuid>,
) -> Result<(), RunError> {
    let Some(known) = &manifest.witnesses else { return Ok(()) };
    require_same_keys(scope, known)?;
    let rows: Vec<&Witness> = known.rows.iter().filter(|witness| !removed.contains(&witness.id)).collect();
    let ids: Vec<Uuid> = rows.iter().map(|witness| witness.id).collect();
    let seen = scope.destination.sight(&mapping.shape, &ids).await?;
    if seen.identity != known.identity {
        let message = format!(
            "load `{}`: organization `{}` answers, and the state is of `{}`",
            scope.load.name, seen.identity, known.identity
        );
        return Err(refusal(scope, message, "the environment was copied, or the address leads to another one"));
    }
    let older = rows.iter().zip(&seen.versions).filter(|(row, version)| version.is_some_and(|is| is < row.version));
    let (older, missing) = (older.count(), seen.versions.iter().filter(|version| version.is_none()).count());
    if older == 0 && (missing < rows.len() || missing < MISSING_MIN) {
        return Ok(());
    }
    let message = format!(
        "load `{}`: `{}` is older than our state: of {} rows that were written last, {older} have an older version and {missing} are not there",
        scope.load.name,
        scope.load.table,
        rows.len()
    );
    Err(refusal(scope, message, "the environment was restored to an earlier moment"))
}

fn require_same_keys(scope: &Scope<'_>, known: &Witnesses) -> Result<(), RunError> {
    let load = scope.load;
    if known.table == load.table && known.match_columns == load.match_columns {
        return Ok(());
    }
    let rows_of = |table: &str, columns: &[String]| format!("rows of `{table}` by `{}`", columns.join("`, `"));
    let message = format!(
        "load `{}` now matches {}, and its state is of {}",
        load.name,
        rows_of(&load.table, &load.match_columns),
        rows_of(&known.table, &known.match_columns)
    );
    Err(RunError::refused(Code::STATE_OF_OTHER_ROWS, message)
        .hint("no key would be found in the state, and every row would be created once more; nothing was sent")
        .hint(format!(
            "`flowgate run {} --adopt` reads the rows that the new keys find and goes on from them",
            scope.flow.name
        )))
}

fn refusal(scope: &Scope<'_>, message: String, cause: &str) -> RunError {
    RunError::refused(Code::WENT_BACK_IN_TIME, message)
        .hint(format!("{cause}; nothing was sent"))
        .hint(format!("`flowgate run {} --adopt` reads what is there and goes on from it", scope.flow.name))
}

/// The rows that stand witness for the next state: those written last, then the witnesses so far.
pub(crate) async fn take(
    scope: &Scope<'_>,
    mapping: &Mapping,
    written: &[Uuid],
    before: Option<&Witnesses>,
    removed: &HashSet<Uuid>,
) -> Result<Witnesses, RunError> {
    let before = before.into_iter().flat_map(|witnesses| &witnesses.rows).map(|witness| witness.id);
    let mut ids: Vec<Uuid> = Vec::new();
    for id in written.iter().rev().copied().chain(before) {
        if ids.len() < WITNESSES_MAX && !removed.contains(&id) && !ids.contains(&id) {
            ids.push(id);
        }
    }
    let Sighting { identity, versions } = scope.destination.sight(&mapping.shape, &ids).await?;
    let rows = ids.into_iter().zip(versions).filter_map(|(id, version)| Some(Witness { id, version: version? }));
    let (table, match_columns) = (scope.load.table.clone(), scope.load.match_columns.clone());
    Ok(Witnesses { identity, table, match_columns, rows: rows.collect() })
}

/// Keeps the newest of many ids.
pub(crate) fn remember(written: &mut Vec<Uuid>, ids: impl Iterator<Item = Uuid>) {
    written.extend(ids);
    if written.len() > WITNESSES_MAX {
        written.drain(..written.len() - WITNESSES_MAX);
    }
}
