//! The whole connection against the emulator: sign-in over TLS, tables of its own, a migration of
//! cases, changes, deletes. The two share no code, so what agrees here agrees by the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::Schema;
use flowgate_core::destination::{Class, ColumnSet, Operation, Outcome, Selection, WriteOptions};
use flowgate_core::moment::LocalTimes;
use flowgate_core::project::{ColumnSpec, ColumnSpecKind, History, TableSpec};
use flowgate_core::shape::STATE_COLUMN;
use flowgate_core::source::Image;
use flowgate_core::{CancellationToken, Cursor, Destination, Secret, TableShape, WallClock, WriteUnit};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions, TableRead, known_codes};
use flowgate_emulator::{Emulator, Options, ProfileName};
use flowgate_http::SystemClock;
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::verify::switched;

const TIME_SCALE: f64 = 50.0;

/// What this load needs of the service: the tenant of a credential that names none, a currency for its
/// amounts, and lookups that can be cleared. Rows that lack the last two are refused, each with its reason.
const NEEDED: [&str; 3] = ["challenge", "default_currency", "null_bind_clears"];

async fn start() -> (Emulator, Arc<Dataverse>, tempfile::TempDir) {
    start_with(&json!({})).await
}

/// An emulator with these settings.
async fn start_with(settings: &Value) -> (Emulator, Arc<Dataverse>, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("settings.json");
    fs_err::write(&file, json!({"version": 1, "settings": settings}).to_string()).unwrap();
    let options = Options {
        tls: true,
        time_scale: TIME_SCALE,
        data: Some(data.path().to_owned()),
        settings: Some(file),
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.unwrap();
    let ready = emulator.ready();
    let credential = Credential::ClientSecret {
        // The emulator announces it, as an environment does.
        token_url: None,
        client_id: ready.client_id.clone(),
        secret: Secret::new(&ready.client_secret),
    };
    let options = DataverseOptions {
        organization: Some(ready.organization.parse().unwrap()),
        solution: Some("Default".to_owned()),
        ca_file: ready.ca_file.clone(),
        time_scale: TIME_SCALE,
        ..DataverseOptions::new(&ready.url, credential)
    };
    let dataverse = Dataverse::connect(options, Arc::new(SystemClock::new(1.0))).unwrap();
    (emulator, dataverse, data)
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(
        values.iter().map(|value| Some(*value).filter(|value| !value.is_empty())).collect::<Vec<_>>(),
    ))
}

fn ids(first: u128, count: usize) -> Vec<Uuid> {
    (first..).take(count).map(|number| Uuid::from_u128((0x0199 << 112) | number)).collect()
}

/// A unit of canonical rows.
fn unit(shape: &Arc<TableShape>, operation: Operation, ids: Vec<Uuid>, columns: Vec<(&str, ArrayRef)>) -> WriteUnit {
    let rows = if columns.is_empty() {
        let count = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &count).unwrap()
    } else {
        let given =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
        let checked = canonical(shape, &given.unwrap());
        assert_eq!(checked.faults, []);
        checked.rows
    };
    WriteUnit {
        shape: Arc::clone(shape),
        operation,
        ids,
        rows,
        columns: None,
        resent: false,
        options: WriteOptions::default(),
    }
}

/// `canonical` needs no service, so any connection does.
fn canonical(shape: &TableShape, rows: &RecordBatch) -> flowgate_core::destination::Checked {
    let options = DataverseOptions::new("https://nowhere.example", Credential::Token(Secret::new("t")));
    let dataverse = Dataverse::connect(options, Arc::new(SystemClock::new(1.0))).unwrap();
    let clock = WallClock::new("Europe/London", LocalTimes::default()).unwrap();
    dataverse.canonical(shape, rows, &clock).unwrap()
}

async fn write(dataverse: &Dataverse, unit: WriteUnit) -> Vec<Outcome> {
    dataverse.write(unit, Class::Batch, Duration::from_hours(1), &CancellationToken::new()).await.unwrap()
}

async fn read(
    dataverse: &Dataverse,
    shape: &Arc<TableShape>,
    columns: &[&str],
    selection: Selection,
) -> Vec<RecordBatch> {
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    let batches = dataverse.read_current(Arc::clone(shape), columns, selection, Class::Batch).await.unwrap();
    batches.try_collect().await.unwrap()
}

fn asset() -> TableSpec {
    let column = |(name, kind): (&str, ColumnSpecKind)| ColumnSpec { name: name.to_owned(), display: None, kind };
    let kinds = [
        ("new_code", ColumnSpecKind::Text { length: 64 }),
        ("new_notes", ColumnSpecKind::Memo { length: 5_000 }),
        ("new_count", ColumnSpecKind::Integer),
        ("new_height", ColumnSpecKind::Decimal { scale: 3 }),
        ("new_weight", ColumnSpecKind::Double { precision: 2 }),
        ("new_price", ColumnSpecKind::Money),
        ("new_open", ColumnSpecKind::Boolean),
        ("new_seen", ColumnSpecKind::DateTime),
        ("new_built", ColumnSpecKind::Date),
        ("new_grade", ColumnSpecKind::Choice { labels: vec!["Good".to_owned(), "Poor".to_owned()] }),
        ("new_owneraccount", ColumnSpecKind::Lookup { target: "account".to_owned() }),
    ];
    TableSpec {
        table: "new_asset".to_owned(),
        connection: serde_json::from_value(json!("crm")).unwrap(),
        display: Some(["Asset".to_owned(), "Assets".to_owned()]),
        primary_name: Some(("new_name".to_owned(), 100)),
        change_tracking: true,
        columns: kinds.into_iter().map(column).collect(),
        keys: BTreeMap::from([("new_codekey".to_owned(), vec!["new_code".to_owned()])]),
    }
}

#[tokio::test]
async fn a_table_is_provisioned_filled_changed_and_followed() {
    provisioned_filled_changed_and_followed(&json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_the_same_where_the_service_behaves_otherwise() {
    let settings = switched().into_iter().filter(|(name, _)| !NEEDED.contains(&name.as_str()));
    provisioned_filled_changed_and_followed(&Value::Object(settings.collect())).await;
}

async fn provisioned_filled_changed_and_followed(settings: &Value) {
    let (_emulator, dataverse, _data) = start_with(settings).await;
    let tables = [asset()];
    let planned = dataverse.plan_provision(&tables).await.unwrap();
    assert_eq!((planned.len(), planned[0].what.as_str()), (13, "table new_asset"));
    dataverse.provision(&tables, &|_| ()).await.unwrap();
    assert!(dataverse.plan_provision(&tables).await.unwrap().is_empty());

    let account = dataverse.describe("account").await.unwrap();
    let owner = ids(1, 1);
    let accounts = unit(&account, Operation::Create, owner.clone(), vec![("name", texts(&["Agency"]))]);
    assert_eq!(write(&dataverse, accounts).await, [Outcome::Applied]);

    let shape = dataverse.describe("new_asset").await.unwrap();
    assert!(shape.keys.iter().any(|key| key.active && key.columns == ["new_code"]));
    let reference = format!("account/{}", owner[0]);
    let columns = vec![
        ("new_name", texts(&["Büro \"A\"\n", "second", "third"])),
        ("new_code", texts(&["A-1", "A-2", "A-3"])),
        ("new_count", texts(&["-5", "", "7"])),
        ("new_height", texts(&["1.234", "99999.999", "0"])),
        ("new_weight", texts(&["2.555", "", "1e3"])),
        ("new_price", texts(&["12.34", "1", ""])),
        // Not null anywhere: the service gives a yes-or-no that is left out its default.
        ("new_open", texts(&["yes", "No", "1"])),
        ("new_seen", texts(&["2026-07-01T10:00:00", "1753-01-01T00:00:00Z", ""])),
        ("new_built", texts(&["1999-12-31", "", "2026-02-28"])),
        ("new_grade", texts(&["good", "Poor", ""])),
        ("new_owneraccount", texts(&[&reference, "", &reference])),
    ];
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let created = unit(&shape, Operation::Create, ids(10, 3), columns);
    let sent = created.rows.clone();
    assert_eq!(write(&dataverse, created.clone()).await, [Outcome::Applied, Outcome::Applied, Outcome::Applied]);

    // What is read back is what was sent, value by value, in the same form.
    let current = read(&dataverse, &shape, &names, Selection::Ids(ids(10, 3))).await;
    assert_eq!(current.len(), 1);
    assert_eq!(current[0].project(&(1..=names.len()).collect::<Vec<_>>()).unwrap().columns(), sent.columns());

    // Creating it again is our own earlier success; the same key under another id is someone else's.
    assert_eq!(write(&dataverse, created.clone()).await, [Outcome::Applied, Outcome::Applied, Outcome::Applied]);
    let mut other = unit(&shape, Operation::Create, ids(20, 2), vec![("new_code", texts(&["a-2 ", "A-9"]))]);
    other.options.match_columns = vec!["new_code".to_owned()];
    assert_eq!(write(&dataverse, other).await, [Outcome::Exists { id: ids(11, 1)[0] }, Outcome::Applied]);

    followed(&dataverse, &shape, created).await;
}

/// Change tracking over an update, a clearing of values and a delete.
async fn followed(dataverse: &Dataverse, shape: &Arc<TableShape>, created: WriteUnit) {
    let (image, cursor, rows, _) = changes(dataverse, None).await;
    assert_eq!((image, rows), (Image::Whole, 4));

    let mut update = created;
    update.operation = Operation::Update;
    update.rows = update.rows.slice(0, 2);
    update.ids.truncate(2);
    let columns = [("new_count", "5"), ("new_owneraccount", ""), ("new_price", "")];
    let changed: Vec<(&str, ArrayRef)> = columns.iter().map(|(name, text)| (*name, texts(&[text, text]))).collect();
    let changed = unit(shape, Operation::Update, update.ids.clone(), changed);
    let changed =
        WriteUnit { columns: Some(vec![(0..3).collect::<ColumnSet>(), ColumnSet::from_iter([0])]), ..changed };
    assert_eq!(write(dataverse, changed).await, [Outcome::Applied, Outcome::Applied]);
    let current =
        read(dataverse, shape, &["new_count", "new_owneraccount", "new_price"], Selection::Ids(update.ids.clone()))
            .await;
    assert_eq!(current[0].column(1).as_primitive::<Int32Type>().values(), &[5, 5]);
    assert_eq!((current[0].column(2).null_count(), current[0].column(3).null_count()), (2, 1));

    let deleted = unit(shape, Operation::Delete, vec![ids(12, 1)[0], ids(999, 1)[0]], Vec::new());
    assert_eq!(write(dataverse, deleted).await, [Outcome::Applied, Outcome::Applied]);
    let gone =
        unit(shape, Operation::Update, vec![ids(10, 1)[0], ids(12, 1)[0]], vec![("new_count", texts(&["1", "1"]))]);
    assert_eq!(write(dataverse, gone).await, [Outcome::Applied, Outcome::Missing]);

    let (image, _, rows, deletes) = changes(dataverse, cursor).await;
    assert_eq!((image, rows, deletes), (Image::Changes, 2, vec![ids(12, 1)[0].to_string()]));
}

async fn changes(dataverse: &Dataverse, cursor: Option<Cursor>) -> (Image, Option<Cursor>, usize, Vec<String>) {
    let cancel = CancellationToken::new();
    let read = TableRead { table: "new_asset".to_owned(), columns: Vec::new(), cursor, cancel };
    let reading = dataverse.read_table(read).await.unwrap();
    let image = reading.image;
    let (mut rows, mut deletes, mut cursor) = (0, Vec::new(), None);
    let batches: Vec<_> = reading.batches.try_collect().await.unwrap();
    for batch in batches {
        rows += batch.upserts.num_rows();
        if let Some(keys) = &batch.deletes {
            deletes.extend(keys.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        cursor = batch.cursor;
    }
    (image, cursor, rows, deletes)
}

#[tokio::test]
async fn cases_are_migrated_closed_reopened_and_cancelled() {
    let (_emulator, dataverse, _data) = start().await;
    let account = dataverse.describe("account").await.unwrap();
    write(&dataverse, unit(&account, Operation::Create, ids(1, 1), vec![("name", texts(&["Agency"]))])).await;
    let shape = dataverse.describe("incident").await.unwrap();
    assert!(!shape.columns["ticketnumber"].required, "the service numbers cases itself");
    let customer = format!("account/{}", ids(1, 1)[0]);
    let columns = vec![
        ("title", texts(&["pothole", "lamp"])),
        ("customerid", texts(&[&customer, &customer])),
        ("overriddencreatedon", texts(&["2019-05-06T07:08:09Z", "2019-05-06T07:08:09Z"])),
    ];
    let mut cases = unit(&shape, Operation::Create, ids(50, 2), columns);
    cases.options.history = Some(History { created_on: Some("overriddencreatedon".to_owned()), bypass_logic: true });
    assert_eq!(write(&dataverse, cases).await, [Outcome::Applied, Outcome::Applied]);
    let current = read(&dataverse, &shape, &["createdon", "customerid", STATE_COLUMN], Selection::All).await;
    let created = arrow_cast::display::array_value_to_string(current[0].column(1), 0).unwrap();
    assert_eq!(created, "2019-05-06T07:08:09");
    assert_eq!(current[0].column(2).as_string::<i32>().value(0), customer);

    let state = |labels: &[&str]| unit(&shape, Operation::SetState, ids(50, 2), vec![(STATE_COLUMN, texts(labels))]);
    for (labels, statuses) in [
        (["Problem Solved", "Information Provided"], [5, 1_000]),
        // Closing what is closed already is not a fault.
        (["Problem Solved", "Information Provided"], [5, 1_000]),
        (["On Hold", ""], [2, 1]),
    ] {
        assert_eq!(write(&dataverse, state(&labels)).await, [Outcome::Applied, Outcome::Applied], "{labels:?}");
        assert_eq!(current_statuses(&dataverse, &shape).await, statuses);
    }
    let cancelled = unit(&shape, Operation::Deactivate, ids(50, 2), Vec::new());
    assert_eq!(write(&dataverse, cancelled).await, [Outcome::Applied, Outcome::Applied]);
    assert_eq!(current_statuses(&dataverse, &shape).await, [6, 6]);
}

async fn current_statuses(dataverse: &Dataverse, shape: &Arc<TableShape>) -> Vec<i32> {
    let current = read(dataverse, shape, &[STATE_COLUMN], Selection::Ids(ids(50, 2))).await;
    current[0].column(1).as_primitive::<Int32Type>().values().to_vec()
}

#[tokio::test]
async fn a_large_unit_and_a_page_beyond_five_thousand_arrive_whole() {
    let (_emulator, dataverse, _data) = start().await;
    let shape = dataverse.describe("contact").await.unwrap();
    let count = 5_200;
    let names: Vec<String> = (0..count).map(|number| format!("name {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let contacts = unit(&shape, Operation::Create, ids(1, count), vec![("lastname", texts(&names))]);
    let outcomes = write(&dataverse, contacts).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied));
    let current = read(&dataverse, &shape, &["lastname"], Selection::All).await;
    let read_names: BTreeSet<&str> =
        current.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten()).collect();
    assert_eq!((current.len(), read_names.len()), (2, count));
    let found = dataverse.probe(&shape, &ids(1, 1_500)).await.unwrap();
    assert_eq!(found.len(), 1_500);
}

#[test]
fn client_and_emulator_know_each_others_codes() {
    let ours: BTreeMap<u32, &str> = known_codes().collect();
    let unknown: Vec<String> = flowgate_emulator::error_codes()
        .into_iter()
        .filter(|(code, _)| *code != 0 && !ours.contains_key(code))
        .map(|(code, name)| format!("0x{code:08x} {name}"))
        .collect();
    assert_eq!(unknown, Vec::<String>::new());
}

#[tokio::test]
async fn under_the_realistic_limits_a_load_is_paced_and_loses_nothing() {
    let options = Options { profile: ProfileName::Realistic, time_scale: 200.0, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let ready = emulator.ready();
    let options = DataverseOptions {
        time_scale: 200.0,
        ..DataverseOptions::new(&ready.url, Credential::Token(Secret::new(&ready.token)))
    };
    let dataverse = Dataverse::connect(options, Arc::new(SystemClock::new(1.0))).unwrap();
    let shape = dataverse.describe("account").await.unwrap();
    let pace = dataverse.pace(&shape, Operation::Create);
    assert!(pace.units > 1, "the hint allows several units at once");
    let names: Vec<String> = (0..pace.rows).map(|number| format!("name {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let units = (0..40_u128).map(|number| {
        let first = 1 + number * pace.rows as u128;
        unit(&shape, Operation::Create, ids(first, pace.rows), vec![("name", texts(&names))])
    });
    let outcomes = futures::future::join_all(units.map(|unit| write(&dataverse, unit))).await;
    assert!(outcomes.iter().flatten().all(|outcome| *outcome == Outcome::Applied));
    assert_eq!(dataverse.requests().throttled, 0);
}
