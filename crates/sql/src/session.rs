//! A DataFusion session over the images of one flow.
//!
//! Promises: memory stays under [`Limits::memory_bytes_max`] (operators that can spill do, into
//! [`Limits::spill_dir`]), and nothing but the registered images is read.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SQLOptions, SessionConfig, SessionContext};
use futures::{Stream, StreamExt};

use crate::error::nearest;
use crate::statement::UNREPEATABLE_FUNCTIONS;
use crate::{SqlError, inspect};

/// What one session may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub spill_dir: PathBuf,
    /// Rows to a batch.
    pub batch_rows: usize,
    /// Partitions worked on at once.
    pub partitions: usize,
}

/// The rows of a transform, in batches.
pub type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// The images of one flow as tables.
pub struct Session {
    context: SessionContext,
    memory_bytes_max: usize,
}

impl Session {
    pub fn new(limits: &Limits) -> Result<Self, SqlError> {
        let failed = |error| SqlError::from_datafusion(&error, limits.memory_bytes_max);
        let disk = DiskManagerBuilder::default().with_mode(
            datafusion::execution::disk_manager::DiskManagerMode::Directories(vec![limits.spill_dir.clone()]),
        );
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes_max)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(failed)?;
        let mut config = SessionConfig::new()
            .with_batch_size(limits.batch_rows)
            .with_target_partitions(limits.partitions)
            .with_information_schema(false);
        let options = config.options_mut();
        // Times without an offset stay without one: the destination's column decides what they mean. With a
        // zone here, DataFusion 55's `to_timestamp` fails while running.
        options.execution.time_zone = None;
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        let context = SessionContext::new_with_config_rt(config, runtime);
        for name in UNREPEATABLE_FUNCTIONS {
            context.deregister_udf(name);
        }
        Ok(Self { context, memory_bytes_max: limits.memory_bytes_max })
    }

    /// Makes the Parquet file `path` readable as the table `name`.
    pub async fn register(&self, name: &str, path: &Path) -> Result<(), SqlError> {
        let quoted = format!("\"{name}\"");
        let path = path.to_string_lossy();
        self.context
            .register_parquet(quoted, path, ParquetReadOptions::default())
            .await
            .map_err(|error| self.error(&error))
    }

    /// Plans `sql`: one SELECT over registered tables, each output column once.
    pub async fn prepare(&self, sql: &str) -> Result<Transform, SqlError> {
        self.require_known_tables(sql)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, options).await.map_err(|error| self.error(&error))?;
        let transform = Transform { frame, memory_bytes_max: self.memory_bytes_max };
        transform.require_unique_columns()?;
        Ok(transform)
    }

    /// Plans `sql` over the rows of `inner`, which it reads as the table `name`.
    pub async fn prepare_over(&self, inner: &Transform, name: &str, sql: &str) -> Result<Transform, SqlError> {
        let quoted = format!("\"{name}\"");
        self.context
            .register_table(quoted.clone(), inner.frame.clone().into_view())
            .map_err(|error| self.error(&error))?;
        let outer = self.prepare(sql).await;
        // A plan holds what it reads: the name is needed no longer.
        self.context.deregister_table(quoted).map_err(|error| self.error(&error))?;
        outer
    }

    fn require_known_tables(&self, sql: &str) -> Result<(), SqlError> {
        let known: Vec<String> = self
            .context
            .catalog("datafusion")
            .and_then(|catalog| catalog.schema("public"))
            .map(|schema| schema.table_names())
            .unwrap_or_default();
        match inspect(sql)?.tables.into_iter().find(|table| !known.contains(table)) {
            None => Ok(()),
            Some(name) => {
                let nearest = nearest(&name, known.iter().map(String::as_str), 1).pop();
                Err(SqlError::UnknownTable { name, nearest })
            }
        }
    }

    fn error(&self, error: &datafusion::error::DataFusionError) -> SqlError {
        SqlError::from_datafusion(error, self.memory_bytes_max)
    }
}

/// A planned SELECT.
#[derive(Debug)]
pub struct Transform {
    frame: DataFrame,
    memory_bytes_max: usize,
}

impl Transform {
    pub fn schema(&self) -> SchemaRef {
        Arc::new(self.frame.schema().as_arrow().clone())
    }

    /// Runs it. Rows come in no particular order.
    pub async fn run(self) -> Result<Rows, SqlError> {
        let limit = self.memory_bytes_max;
        let stream = self.frame.execute_stream().await.map_err(|error| SqlError::from_datafusion(&error, limit))?;
        Ok(Box::pin(stream.map(move |batch| batch.map_err(|error| SqlError::from_datafusion(&error, limit)))))
    }

    fn require_unique_columns(&self) -> Result<(), SqlError> {
        let mut names: Vec<_> = self.frame.schema().fields().iter().map(|field| field.name().clone()).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(SqlError::DuplicateColumn { name: pair[0].clone() }),
        }
    }
}
