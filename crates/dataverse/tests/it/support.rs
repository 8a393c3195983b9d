//! Connections to the fake, and units of rows for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::Schema;
use flowgate_core::destination::{Class, Operation, Outcome, WriteOptions, WriteUnit};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::{CancellationToken, Clock, ConnectorError, Destination, Elapsed, Secret};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions};
use flowgate_http::SystemClock;
use futures::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

use crate::fake::Fake;

/// Seconds of the service in a real one, so that back-offs take milliseconds.
const TIME_SCALE: f64 = 1_000.0;

/// The machine's clock, and time that is simply skipped.
#[derive(Debug)]
pub(crate) struct SkippingClock {
    clock: SystemClock,
    skipped_seconds: AtomicU64,
}

impl Default for SkippingClock {
    fn default() -> Self {
        Self { clock: SystemClock::new(1.0), skipped_seconds: AtomicU64::new(0) }
    }
}

impl SkippingClock {
    pub(crate) fn skip(&self, duration: Duration) {
        self.skipped_seconds.fetch_add(duration.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for SkippingClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Elapsed {
        self.clock.elapsed().after(Duration::from_secs(self.skipped_seconds.load(Ordering::Relaxed)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

pub(crate) fn options(fake: &Fake) -> DataverseOptions {
    let credential = Credential::Token(Secret::new("t0ken"));
    DataverseOptions { time_scale: TIME_SCALE, ..DataverseOptions::new(&fake.url, credential) }
}

pub(crate) fn connect_with(options: DataverseOptions) -> Arc<Dataverse> {
    Dataverse::connect(options, Arc::new(SystemClock::new(1.0))).unwrap()
}

pub(crate) fn connect(fake: &Fake) -> Arc<Dataverse> {
    connect_with(options(fake))
}

pub(crate) fn id(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// A unit of accounts with ids from 1: (account number, name).
pub(crate) async fn unit(dataverse: &Dataverse, operation: Operation, rows: &[(&str, &str)]) -> WriteUnit {
    let shape = dataverse.describe("account").await.unwrap();
    let numbers: StringArray = rows.iter().map(|(number, _)| Some(*number)).collect();
    let names: StringArray = rows.iter().map(|(_, name)| Some(*name)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![("accountnumber", Arc::new(numbers)), ("name", Arc::new(names))];
    WriteUnit {
        shape,
        operation,
        ids: (1..=rows.len() as u32).map(id).collect(),
        rows: RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap(),
        columns: None,
        resent: false,
        options: WriteOptions { match_columns: vec!["accountnumber".to_owned()], ..WriteOptions::default() },
    }
}

/// A unit without columns, or with the wanted status alone.
pub(crate) async fn plain_unit(
    dataverse: &Dataverse,
    operation: Operation,
    ids: &[u32],
    statuses: &[i32],
) -> WriteUnit {
    let mut unit = unit(dataverse, operation, &[]).await;
    unit.ids = ids.iter().copied().map(id).collect();
    let count = RecordBatchOptions::new().with_row_count(Some(ids.len()));
    unit.rows = if statuses.is_empty() {
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &count).unwrap()
    } else {
        let column: ArrayRef = Arc::new(Int32Array::from(statuses.to_vec()));
        RecordBatch::try_from_iter_with_nullable([(STATE_COLUMN, column, true)]).unwrap()
    };
    unit
}

pub(crate) async fn write(dataverse: &Dataverse, unit: WriteUnit) -> Result<Vec<Outcome>, ConnectorError> {
    write_within(dataverse, unit, Duration::from_hours(1)).await
}

pub(crate) async fn write_within(
    dataverse: &Dataverse,
    unit: WriteUnit,
    deadline: Duration,
) -> Result<Vec<Outcome>, ConnectorError> {
    dataverse.write(unit, Class::Batch, deadline, &CancellationToken::new()).await
}

/// The error as a person reads it: code, message, hints.
pub(crate) fn shown(error: &ConnectorError) -> String {
    let mut lines = vec![format!("{}: {error}", error.code)];
    lines.extend(error.hints.iter().map(|hint| format!("  hint: {hint}")));
    lines.join("\n")
}
