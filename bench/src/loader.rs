//! The whole loader over HTTP: units of generated rows, as many at once as the connection asks for.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use flowgate_core::destination::{Class, Operation, Outcome, WriteOptions, WriteUnit};
use flowgate_core::{CancellationToken, Clock, Destination, Secret, TableShape};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions};
use flowgate_emulator::Ready;
use flowgate_http::SystemClock;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use uuid::Uuid;

use crate::Error;

/// As long as the engine gives a unit.
const UNIT_WAIT: Duration = Duration::from_mins(15);

/// How one unit ended.
type Ended = Result<Vec<Outcome>, Error>;

/// Makes a unit's rows, the first of them with this number.
pub(crate) type MakeRows = fn(u64, usize) -> Result<RecordBatch, Error>;

pub(crate) struct Loader {
    pub(crate) dataverse: Arc<Dataverse>,
    shape: Arc<TableShape>,
    make_rows: MakeRows,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    rows_begun: u64,
}

/// How to reach an emulator that says it is ready.
pub(crate) fn of_ready(ready: &Ready) -> DataverseOptions {
    let credential = Credential::Token(Secret::new(&ready.token));
    DataverseOptions { ca_file: ready.ca_file.clone(), ..DataverseOptions::new(&ready.url, credential) }
}

/// Rows by their end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    pub(crate) applied: u64,
    pub(crate) ambiguous: u64,
    pub(crate) others: u64,
}

impl Loader {
    pub(crate) async fn connect(
        options: DataverseOptions,
        time_scale: f64,
        table: &str,
        make_rows: MakeRows,
    ) -> Result<Self, Error> {
        let options = DataverseOptions { time_scale, ..options };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(1.0));
        let dataverse = Dataverse::connect(options, clock)?;
        let shape = dataverse.describe(table).await?;
        Ok(Self { dataverse, shape, make_rows, under_way: FuturesUnordered::new(), rows_begun: 0 })
    }

    /// Begins as many units as may be under way, up to so many rows altogether.
    pub(crate) fn begin(&mut self, rows_max: u64) -> Result<(), Error> {
        let pace = self.dataverse.pace(&self.shape, Operation::Create);
        while self.under_way.len() < pace.units && self.rows_begun < rows_max {
            let rows = (pace.rows as u64).min(rows_max - self.rows_begun) as usize;
            let unit = unit(&self.shape, (self.make_rows)(self.rows_begun, rows)?);
            self.under_way.push(Box::pin(write(Arc::clone(&self.dataverse), unit, Class::Batch)));
            self.rows_begun += rows as u64;
        }
        Ok(())
    }

    /// The end of some unit; `None` when none is under way.
    pub(crate) async fn next(&mut self) -> Result<Option<Ends>, Error> {
        let Some(outcomes) = self.under_way.next().await else { return Ok(None) };
        let mut ends = Ends::default();
        for outcome in outcomes? {
            match outcome {
                Outcome::Applied => ends.applied += 1,
                Outcome::Ambiguous => ends.ambiguous += 1,
                Outcome::Exists { .. } | Outcome::Missing | Outcome::Refused(_) | Outcome::Unsent => ends.others += 1,
            }
        }
        Ok(Some(ends))
    }

    /// What a person does: one row by itself. True if it was done.
    pub(crate) fn interactive(&self, number: u64) -> Result<BoxFuture<'static, Result<bool, Error>>, Error> {
        let mut unit = unit(&self.shape, (self.make_rows)(number, 1)?);
        unit.options.one_at_a_time = true;
        let dataverse = Arc::clone(&self.dataverse);
        Ok(Box::pin(async move { Ok(write(dataverse, unit, Class::Interactive).await? == [Outcome::Applied]) }))
    }
}

fn unit(shape: &Arc<TableShape>, rows: RecordBatch) -> WriteUnit {
    WriteUnit {
        shape: Arc::clone(shape),
        operation: Operation::Create,
        ids: (0..rows.num_rows()).map(|_| Uuid::now_v7()).collect(),
        rows,
        columns: None,
        resent: false,
        options: WriteOptions::default(),
    }
}

async fn write(dataverse: Arc<Dataverse>, unit: WriteUnit, class: Class) -> Ended {
    Ok(dataverse.write(unit, class, UNIT_WAIT, &CancellationToken::new()).await?)
}

/// Contacts with a name: small, where requests are measured and not rows.
pub(crate) fn names(first: u64, rows: usize) -> Result<RecordBatch, Error> {
    let names: ArrayRef = Arc::new(texts(first, rows, |row| format!("name {row}")));
    Ok(RecordBatch::try_from_iter_with_nullable([("lastname", names, true)])?)
}

/// Accounts of ten columns, the ones that `bench/emulator.py` writes.
pub(crate) fn accounts(first: u64, rows: usize) -> Result<RecordBatch, Error> {
    let text = |make: fn(u64) -> String| -> ArrayRef { Arc::new(texts(first, rows, make)) };
    let numbers = first..first + rows as u64;
    let employees: ArrayRef = Arc::new(Int32Array::from_iter_values(numbers.clone().map(|row| (row % 1_000) as i32)));
    let calls: ArrayRef = Arc::new(numbers.map(|row| Some(row % 2 == 0)).collect::<BooleanArray>());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("name", text(|row| format!("Customer {row}")), true),
        ("accountnumber", text(|row| format!("C-{row:08}")), true),
        ("telephone1", text(|_| "+44 20 7946 0000".to_owned()), true),
        ("emailaddress1", text(|row| format!("customer{row}@example.org")), true),
        ("address1_line1", text(|_| "1 High Street".to_owned()), true),
        ("address1_city", text(|_| "London".to_owned()), true),
        ("address1_postalcode", text(|_| "SW1A 1AA".to_owned()), true),
        ("numberofemployees", employees, true),
        ("donotphone", calls, true),
        ("description", text(|_| "A row of ten columns".to_owned()), true),
    ])?)
}

fn texts(first: u64, rows: usize, make: fn(u64) -> String) -> StringArray {
    StringArray::from_iter_values((first..first + rows as u64).map(make))
}
