//! A connection to one environment, in the roles it plays.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use flowgate_core::destination::{
    Changes, Checked, Class, Estimate, Newest, Operation, Outcome, Pace, ProvisionStep, RequestCounts, Selection,
    Sighting, WriteUnit,
};
use flowgate_core::examination::{Finding, TableUse};
use flowgate_core::project::TableSpec;
use flowgate_core::{CancellationToken, Clock, Code, ConnectorError, Destination, ErrorKind, TableShape, WallClock};
use futures::stream::BoxStream;
use jiff::Timestamp;
use uuid::Uuid;

use crate::budget::{Snapshot, Waits};
use crate::call::Bounds;
use crate::client::Client;
use crate::load::{self, Tally, pace};
use crate::metadata::Metadata;
use crate::options::DataverseOptions;
use crate::{examine, read, values};

/// A connection to one environment. Cheap to share; one budget serves all who share it.
#[derive(Debug)]
pub struct Dataverse {
    pub(crate) client: Arc<Client>,
    pub(crate) metadata: Metadata,
    pub(crate) solution: Option<String>,
    /// How many seconds of the service pass in a real one.
    pub(crate) time_scale: f64,
    tally: Tally,
}

impl Dataverse {
    /// Prepares a connection. Nothing is sent yet: the first request signs in and compares the
    /// pinned organisation.
    ///
    /// `clock` runs in real time; `options.time_scale` makes it the service's.
    pub fn connect(options: DataverseOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ConnectorError> {
        let client = Arc::new(Client::new(&options, clock)?);
        let (metadata, tally) = (Metadata::default(), Tally::default());
        Ok(Arc::new(Self { client, metadata, solution: options.solution, time_scale: options.time_scale, tally }))
    }

    /// All that is known of the service's limits now, and what is used of them.
    pub fn budget(&self) -> Snapshot {
        self.client.budget_snapshot()
    }

    /// How long requests of a class have waited to be let in, since the connection was opened.
    pub fn waits(&self, class: Class) -> Waits {
        self.client.waits(class)
    }
}

#[async_trait]
impl Destination for Dataverse {
    async fn check(&self) -> Result<String, ConnectorError> {
        let session = self.client.session(self.client.bounds()).await;
        let who = session.map_err(|error| error.into_error("signing in to the environment"))?;
        let origin = self.client.service_origin();
        Ok(format!("{origin}: organization `{}`, user `{}`", who.organization_id, who.user_id))
    }

    async fn examine(&self, uses: &[TableUse]) -> Result<Vec<Finding>, ConnectorError> {
        examine::examine(self, uses).await
    }

    async fn describe(&self, table: &str) -> Result<Arc<TableShape>, ConnectorError> {
        Ok(Arc::clone(&self.metadata.table(&self.client, table).await?.shape))
    }

    fn canonical(&self, shape: &TableShape, rows: &RecordBatch, clock: &WallClock) -> Result<Checked, ConnectorError> {
        values::canonical(shape, rows, clock)
    }

    fn estimate(&self, shape: &TableShape, changes: Changes) -> Estimate {
        pace::estimate(self.client.costs(), shape, changes, self.client.parallel_max())
    }

    fn pace(&self, shape: &TableShape, operation: Operation) -> Pace {
        pace::pace(self.client.costs(), shape, operation, self.client.parallel_max())
    }

    async fn write(
        &self,
        unit: WriteUnit,
        class: Class,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Outcome>, ConnectorError> {
        if unit.rows.num_columns() > 0 && unit.rows.num_rows() != unit.len() {
            let message = format!("a unit has {} ids and {} rows", unit.len(), unit.rows.num_rows());
            return Err(ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message));
        }
        let facts = self.metadata.table_as_described(&self.client, &unit.shape.table).await?;
        let bounds = Bounds { until: self.client.clock().elapsed().after(deadline), cancel };
        load::write(&self.client, &facts, &unit, class, bounds, &self.tally).await
    }

    async fn sight(&self, shape: &Arc<TableShape>, ids: &[Uuid]) -> Result<Sighting, ConnectorError> {
        let session = self.client.session(self.client.bounds()).await;
        let who = session.map_err(|error| error.into_error("asking who answers"))?;
        let versions = read::versions(&self.client, shape, ids).await?;
        Ok(Sighting { identity: who.organization_id.to_string(), versions })
    }

    async fn newest(&self, shape: &Arc<TableShape>, which: Newest, limit: usize) -> Result<Vec<Uuid>, ConnectorError> {
        let found = read::newest(&self.client, shape, which, limit).await;
        found.map_err(|error| error.into_error(&format!("looking for the newest rows of `{}`", shape.table)))
    }

    async fn probe(&self, shape: &TableShape, ids: &[Uuid]) -> Result<Vec<Uuid>, ConnectorError> {
        let found = read::probe(&self.client, shape, ids, Class::Batch, self.client.bounds()).await;
        let found = found.map_err(|error| error.into_error(&format!("looking for rows of `{}`", shape.table)))?;
        Ok(ids.iter().copied().filter(|id| found.contains(id)).collect())
    }

    async fn read_current(
        &self,
        shape: Arc<TableShape>,
        columns: Vec<String>,
        selection: Selection,
        class: Class,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ConnectorError>>, ConnectorError> {
        read::read_current(&self.client, &shape, &columns, selection, class)
    }

    async fn plan_provision(&self, tables: &[TableSpec]) -> Result<Vec<ProvisionStep>, ConnectorError> {
        Ok(self.plan_missing(tables).await?.into_iter().map(|planned| planned.step).collect())
    }

    async fn provision(
        &self,
        tables: &[TableSpec],
        progress: &(dyn for<'a> Fn(&'a ProvisionStep) + Send + Sync),
    ) -> Result<(), ConnectorError> {
        self.create_missing(tables, progress).await
    }

    fn requests(&self) -> RequestCounts {
        self.client.requests()
    }

    fn unanswered(&self, table: &str) -> Option<Timestamp> {
        self.client.unanswered().of(table)
    }

    fn lateness_max(&self) -> Duration {
        self.client.unanswered().lateness_max()
    }
}
