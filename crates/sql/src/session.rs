//! A DataFusion session over the images of one flow.
//!
//! Promises: what operators keep stays under [`Limits::memory_bytes_max`] (those that can spill do, into
//! [`Limits::spill_dir`], no more than [`Limits::spill_bytes_max`]), what a function makes of one batch under the
//! same bound, and nothing but the registered images is read.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SQLOptions, SessionConfig, SessionContext};
use flowgate_core::{Notes, WallClock};
use futures::{Stream, StreamExt};

use crate::error::meant;
use crate::growth::{GuardJoins, guard};
use crate::moments::{ReadMoments, Reader, Types, functions, widen_zones};
use crate::statement::UNREPEATABLE_FUNCTIONS;
use crate::{SqlError, inspect};

/// What one session may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub spill_dir: PathBuf,
    /// Bytes of spilled files at once.
    pub spill_bytes_max: u64,
    /// Rows to a batch.
    pub batch_rows: usize,
    /// Partitions worked on at once.
    pub partitions: usize,
    /// By which times are read and shown.
    pub clock: WallClock,
}

/// The rows of a transform, in batches.
pub type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// The images of one flow as tables.
pub struct Session {
    context: SessionContext,
    reader: Arc<Reader>,
    memory_bytes_max: usize,
}

impl Session {
    pub fn new(limits: &Limits) -> Result<Self, SqlError> {
        let failed = |error| SqlError::from_datafusion(&error, limits.memory_bytes_max);
        let disk = DiskManagerBuilder::default().with_mode(
            datafusion::execution::disk_manager::DiskManagerMode::Directories(vec![limits.spill_dir.clone()]),
        );
        let disk = disk.with_max_temp_directory_size(limits.spill_bytes_max);
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
        // What times mean is decided in `moments`, not by this setting.
        options.execution.time_zone = None;
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        let value_bytes_max = limits.memory_bytes_max;
        let reader = Reader::new(limits.clock.clone());
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(Types(Arc::clone(&reader))))
            .with_analyzer_rule(Arc::new(GuardJoins { bytes_max: value_bytes_max }))
            .with_analyzer_rule(Arc::new(ReadMoments(Arc::clone(&reader))))
            .build();
        let context = SessionContext::new_with_state(state);
        for function in functions(&reader) {
            context.register_udf(function);
        }
        guard(&context, value_bytes_max).map_err(failed)?;
        for name in UNREPEATABLE_FUNCTIONS {
            context.deregister_udf(name);
        }
        Ok(Self { context, reader, memory_bytes_max: limits.memory_bytes_max })
    }

    /// Makes the Parquet file `path` readable as the table `name`.
    pub async fn register(&self, name: &str, path: &Path) -> Result<(), SqlError> {
        let quoted = format!("\"{name}\"");
        // A path would be taken for a pattern where a directory's name holds `*`, `?` or `[`; an address never is.
        let address = std::path::absolute(path).ok().and_then(|path| url::Url::from_file_path(path).ok());
        let address = address.map_or_else(|| path.to_string_lossy().into_owned(), String::from);
        self.context
            .register_parquet(quoted, address, ParquetReadOptions::default())
            .await
            .map_err(|error| self.error(&error))
    }

    /// Plans `sql`: one SELECT over registered tables, each output column once.
    pub async fn prepare(&self, sql: &str) -> Result<Transform, SqlError> {
        self.require_known_tables(sql)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.plan(sql, options).await.map_err(|error| self.error(&error))?;
        let transform = Transform { frame, memory_bytes_max: self.memory_bytes_max };
        transform.require_unique_columns()?;
        Ok(transform)
    }

    async fn plan(&self, sql: &str, options: SQLOptions) -> datafusion::error::Result<DataFrame> {
        let state = self.context.state();
        let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        widen_zones(&mut statement);
        let plan = state.statement_to_plan(statement).await?;
        options.verify_plan(&plan)?;
        self.context.execute_logical_plan(plan).await
    }

    /// Times that SELECTs read otherwise than they are written, since the last call.
    pub fn take_notes(&self) -> Notes {
        self.reader.take_notes()
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
                let nearest = meant(&name, known.iter().map(String::as_str)).into_iter().next();
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
        // An operator that panics ends the SELECT, not the run's account of it.
        let batches = std::panic::AssertUnwindSafe(stream).catch_unwind().map(move |batch| match batch {
            Ok(batch) => batch.map_err(|error| SqlError::from_datafusion(&error, limit)),
            Err(_) => {
                Err(SqlError::Failed { message: "an operator panicked; please report it".to_owned(), place: None })
            }
        });
        Ok(Box::pin(batches))
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
