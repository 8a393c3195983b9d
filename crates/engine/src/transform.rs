//! The SELECTs of a flow over its images, with the load's checks around them.
//!
//! A check becomes one more boolean column (`_check_0`, …), so that checks and transform run as one
//! plan. A check that is not true fails; a null is not true.

use std::path::PathBuf;

use arrow_schema::SchemaRef;
use flowgate_core::Notes;
use flowgate_core::project::{Check, Load, Project};
use flowgate_sql::{Limits, Rows, Session, Transform};

use crate::RunError;
use crate::run::wall_clock;

/// Rows to a batch between operators; small enough that wide rows stay in cache.
const BATCH_ROWS: usize = 8_192;

/// Spilled files take at most so many times the memory: 25.6 GB beside the memory that is there if nothing is said.
const SPILL_FACTOR: u64 = 100;

/// The prefix of the columns that checks become.
pub(crate) const CHECK_PREFIX: &str = "_check_";

/// What our own SELECTs call the rows of the load's. No stream has such a name.
const PREPARED: &str = "_prepared";

/// The images of one flow, ready for SELECTs.
pub(crate) struct Transforms {
    session: Session,
}

impl Transforms {
    /// Opens a session in which every image is a table named like its stream.
    ///
    /// Operators spill into `spill_dir`, which is this flow's alone.
    pub(crate) async fn open(
        project: &Project,
        spill_dir: PathBuf,
        images: &[(String, PathBuf)],
    ) -> Result<Self, RunError> {
        flowgate_files::create_dir(&spill_dir)?;
        let memory_bytes_max = project.staging.memory_bytes_max;
        let limits = Limits {
            memory_bytes_max,
            spill_dir,
            spill_bytes_max: (memory_bytes_max as u64).saturating_mul(SPILL_FACTOR),
            batch_rows: BATCH_ROWS,
            partitions: 2,
            clock: wall_clock(project)?,
        };
        let session = Session::new(&limits).map_err(|error| RunError::stage(&error))?;
        for (name, path) in images {
            session.register(name, path).await.map_err(|error| RunError::stage(&error))?;
        }
        Ok(Self { session })
    }

    /// Plans the load's SELECT with its checks.
    pub(crate) async fn select(&self, load: &Load) -> Result<Select, RunError> {
        let plain = self.session.prepare(&load.sql.text).await.map_err(|error| RunError::sql(error, &load.sql))?;
        let schema = plain.schema();
        if load.checks.is_empty() {
            return Ok(Select { transform: plain, schema });
        }
        let transform = self.over(&plain, &with_checks(&load.checks), load).await?;
        let schema = transform.schema();
        Ok(Select { transform, schema })
    }

    /// The distinct values of some columns of the load's SELECT.
    pub(crate) async fn distinct(&self, load: &Load, columns: &[String]) -> Result<Rows, RunError> {
        let plain = self.session.prepare(&load.sql.text).await.map_err(|error| RunError::sql(error, &load.sql))?;
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let distinct = self.over(&plain, &format!("SELECT DISTINCT {} FROM {PREPARED}", list.join(", ")), load).await?;
        distinct.run().await.map_err(|error| RunError::sql(error, &load.sql))
    }

    /// Plans a SELECT of ours over the load's.
    async fn over(&self, plain: &Transform, sql: &str, load: &Load) -> Result<Transform, RunError> {
        let planned = self.session.prepare_over(plain, PREPARED, sql).await;
        planned.map_err(|error| RunError::sql_of_ours(error, &load.sql))
    }

    /// Times that SELECTs read otherwise than they are written, since the last call.
    pub(crate) fn take_notes(&self) -> Notes {
        self.session.take_notes()
    }

    /// Runs a SELECT of ours.
    pub(crate) async fn run(&self, sql: &str) -> Result<Rows, flowgate_sql::SqlError> {
        self.session.prepare(sql).await?.run().await
    }
}

/// A planned SELECT of one load.
pub(crate) struct Select {
    transform: Transform,
    pub(crate) schema: SchemaRef,
}

impl Select {
    pub(crate) async fn run(self, load: &Load) -> Result<Rows, RunError> {
        self.transform.run().await.map_err(|error| RunError::sql(error, &load.sql))
    }
}

/// `name` as an identifier in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The prepared rows with one more column for each check.
fn with_checks(checks: &[Check]) -> String {
    let conditions: Vec<String> = checks
        .iter()
        .enumerate()
        .map(|(number, check)| format!("coalesce({}, false) AS \"{CHECK_PREFIX}{number}\"", condition(check)))
        .collect();
    format!("SELECT prepared.*, {} FROM {PREPARED} AS prepared", conditions.join(", "))
}

fn condition(check: &Check) -> String {
    match check {
        Check::NotNull(columns) => {
            let parts: Vec<_> = columns.iter().map(|column| format!("{} IS NOT NULL", quoted(column))).collect();
            format!("({})", parts.join(" AND "))
        }
        Check::Unique(columns) => {
            let list: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
            format!("count(*) OVER (PARTITION BY {}) = 1", list.join(", "))
        }
        Check::Accepted { column, values } => {
            let list: Vec<_> = values.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
            let column = quoted(column);
            format!("({column} IS NULL OR CAST({column} AS VARCHAR) IN ({}))", list.join(", "))
        }
        Check::Range { column, min, max } => {
            let column = quoted(column);
            let number = format!("TRY_CAST({column} AS DOUBLE)");
            let low = min.map(|min| format!(" AND {number} >= {min:?}")).unwrap_or_default();
            let high = max.map(|max| format!(" AND {number} <= {max:?}")).unwrap_or_default();
            format!("({column} IS NULL OR ({number} IS NOT NULL{low}{high}))")
        }
        Check::That(condition) => format!("({condition})"),
    }
}

/// What a failed check is called in a letter.
pub(crate) fn describe(check: &Check) -> String {
    match check {
        Check::NotNull(columns) => format!("`{}` must not be empty", columns.join("`, `")),
        Check::Unique(columns) => format!("`{}` must be unique", columns.join("`, `")),
        Check::Accepted { column, values } => format!("`{column}` must be one of `{}`", values.join("`, `")),
        Check::Range { column, min: Some(min), max: Some(max) } => format!("`{column}` must be from {min} to {max}"),
        Check::Range { column, min: Some(min), .. } => format!("`{column}` must be at least {min}"),
        Check::Range { column, max: Some(max), .. } => format!("`{column}` must be at most {max}"),
        Check::Range { column, .. } => format!("`{column}` must be a number"),
        Check::That(condition) => format!("`{condition}` must be true"),
    }
}
