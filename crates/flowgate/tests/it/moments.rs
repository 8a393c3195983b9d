//! One moment, written in many ways and read from every kind of source, is one moment and one date in the destination.
//!
//! `FLOWGATE_MOMENT_ROWS` says how many rows each zone gets (30 if it is not set); each is compared in 20 columns.
//! `FLOWGATE_MOMENT_ROWS=850` makes 102,000 cases.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use crate::postgres::Postgres;
use crate::support::Place;

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"];

/// Ways by which the moment and its date come, and their expressions over the joined streams.
const WAYS: [(&str, &str); 9] = [
    ("a", "t.seen"),
    ("b", "y.seen"),
    ("c", "to_timestamp(t.seen)"),
    ("d", "CAST(t.seen AS TIMESTAMP)"),
    ("e", "s.seen"),
    ("f", "q.seen"),
    ("g", "p.seen"),
    ("h", "p.local"),
    ("i", "q.local"),
];

/// One moment and how it is written.
struct Case {
    key: String,
    moment: Timestamp,
    text: String,
    local: String,
    /// Whether the local time alone says which moment it is.
    is_plain: bool,
}

fn cases(zone: &TimeZone, rows: usize) -> Vec<Case> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let changes: Vec<i64> = zone
        .following(Timestamp::from_second(1_500_000_000).unwrap())
        .take(16)
        .map(|change| change.timestamp().as_second())
        .collect();
    let mut all = Vec::new();
    for number in 0..rows {
        let second = match (random(3), changes.len()) {
            (0, _) | (_, 0) => random(259_000_000_000) as i64 - 6_600_000_000,
            (1, _) => random(2_000_000_000) as i64,
            (_, known) => changes[random(known as u64) as usize] + random(14_400) as i64 - 7_200,
        };
        let moment = Timestamp::from_second(second).unwrap();
        let offset = zone.to_offset(moment);
        let local = offset.to_datetime(moment);
        let is_plain = !zone.to_ambiguous_timestamp(local).is_ambiguous();
        let separator = if random(2) == 0 { "T" } else { " " };
        let written =
            |offset: Offset| offset.to_datetime(moment).strftime(&format!("%Y-%m-%d{separator}%H:%M:%S")).to_string();
        let with_offset = |offset: Offset| {
            let minutes = offset.seconds() / 60;
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{}{sign}{:02}:{:02}", written(offset), minutes.abs() / 60, minutes.abs() % 60)
        };
        let text = match random(4) {
            0 => format!("{}Z", written(Offset::UTC)),
            1 if offset.seconds() % 60 == 0 => with_offset(offset),
            2 if is_plain => written(offset),
            _ => with_offset(Offset::from_seconds((random(105) as i32 - 48) * 900).unwrap()),
        };
        let local = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        all.push(Case { key: format!("K{number:05}"), moment, text, local, is_plain });
    }
    all
}

fn write_parquet(place: &Place, cases: &[Case]) {
    let micros = |case: &Case| case.moment.as_microsecond();
    let local = |case: &Case| case.local.parse::<jiff::civil::DateTime>().unwrap();
    let wall = |case: &Case| case.is_plain.then(|| Offset::UTC.to_timestamp(local(case)).unwrap().as_microsecond());
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(cases.iter().map(|case| &case.key)));
    let seen = TimestampMicrosecondArray::from_iter_values(cases.iter().map(micros)).with_timezone("UTC");
    let local: ArrayRef = Arc::new(cases.iter().map(wall).collect::<TimestampMicrosecondArray>());
    let rows =
        RecordBatch::try_from_iter([("no", keys), ("seen", Arc::new(seen) as ArrayRef), ("local", local)]).unwrap();
    let file = fs_err::File::create(place.file("data/p.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// The statements that make the table `name` of a database.
fn table(name: &str, types: [&str; 2], cases: &[Case], seen: impl Fn(&Case) -> String) -> String {
    let mut sql = format!(
        "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (no text PRIMARY KEY, seen {}, local {});\n",
        types[0], types[1]
    );
    for case in cases {
        let local = if case.is_plain { format!("'{}'", case.local) } else { "NULL".to_owned() };
        writeln!(sql, "INSERT INTO {name} VALUES ('{}', '{}', {local});", case.key, seen(case)).unwrap();
    }
    sql
}

fn project(zone: &str, server: &Postgres) -> Place {
    let place = Place::empty();
    place.write("environments/local.yaml", "provision: allow\n");
    place.write("business.url", &server.url());
    let connections = "  crm: { dataverse: { emulator: {}, solution: agency_integration } }\n  \
                       csv: { files: { path: data/t.csv } }\n  parquet: { files: { path: data/p.parquet } }\n  \
                       lite: { sqlite: { path: data/s.sqlite } }\n  pg: { postgres: { url: \"${file:business.url}\" } }\n";
    place.write("flowgate.yaml", &format!("flowgate: 1\ntime_zone: {zone}\nconnections:\n{connections}"));
    let columns: Vec<String> = WAYS.iter().map(|(way, _)| format!("wr_{way}m: datetime, wr_{way}d: date")).collect();
    place.write(
        "tables/account.yaml",
        &format!(
            "table: account\nin: crm\ncolumns: {{ {}, wr_jd: date, wr_kd: date }}\nkeys: {{ wr_no: [accountnumber] }}\n",
            columns.join(", ")
        ),
    );
    let selected: Vec<String> =
        WAYS.iter().map(|(way, from)| format!("{from} AS wr_{way}m, {from} AS wr_{way}d")).collect();
    let sql = format!(
        "SELECT t._row, t.no AS accountnumber, {}, CAST(t.seen AS DATE) AS wr_jd, d.seen AS wr_kd FROM t \
         JOIN y ON y.no = t.no JOIN d ON d.no = t.no JOIN s ON s.no = t.no JOIN q ON q.no = t.no JOIN p ON p.no = t.no",
        selected.join(", ")
    );
    place.write(
        "flows/f.yaml",
        &format!(
            "flow: f\nstreams:\n  t: {{ from: csv }}\n  y: {{ from: csv, columns: {{ seen: timestamp }} }}\n  \
             d: {{ from: csv, columns: {{ seen: date }} }}\n  s: {{ from: lite, table: s }}\n  \
             q: {{ from: pg, table: moments }}\n  p: {{ from: parquet }}\nloads:\n  l:\n    into: crm\n    table: account\n    \
             select: \"{sql}\"\n    match: [accountnumber]\n    driver: t\n"
        ),
    );
    place
}

#[test]
fn one_moment_is_one_moment_and_one_date_whichever_way_it_comes() {
    let rows = std::env::var("FLOWGATE_MOMENT_ROWS").map_or(30, |rows| rows.parse().unwrap());
    let server = Postgres::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut compared = 0;
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        let cases = cases(&zone, rows);
        let place = project(name, &server);
        let mut lines = "no,seen\n".to_owned();
        for case in &cases {
            writeln!(lines, "{},{}", case.key, case.text).unwrap();
        }
        place.write("data/t.csv", &lines);
        write_parquet(&place, &cases);
        let lite = table("s", ["text", "text"], &cases, |case| case.text.clone());
        rusqlite::Connection::open(place.file("data/s.sqlite")).unwrap().execute_batch(&lite).unwrap();
        runtime.block_on(
            server.run(&table("moments", ["timestamptz", "timestamp"], &cases, |case| case.moment.to_string())),
        );
        let _emulator = place.keep_emulator();
        for arguments in [vec!["provision", "--yes"], vec!["run", "f"]] {
            let said = place.flowgate(&arguments);
            assert_eq!(said.status, 0, "{name}: {}", said.everything());
        }
        let page = place.emulator().send("GET", "api/data/v9.2/accounts?$orderby=accountnumber", "");
        let read = page["value"].as_array().unwrap();
        assert_eq!(read.len(), cases.len(), "{name}");
        for (row, case) in read.iter().zip(&cases) {
            let date = json!(case.local[..10]);
            for (way, expression) in WAYS {
                let is_there = case.is_plain || !expression.ends_with("local");
                let moment = if is_there { json!(case.moment.to_string()) } else { json!(null) };
                let date = if is_there { date.clone() } else { json!(null) };
                assert_eq!(row[format!("wr_{way}m")], moment, "{name} `{}` by {expression}", case.text);
                assert_eq!(row[format!("wr_{way}d")], date, "{name} date of `{}` by {expression}", case.text);
                compared += 2;
            }
            assert_eq!(row["wr_jd"], date, "{name} CAST(`{}` AS DATE)", case.text);
            assert_eq!(row["wr_kd"], date, "{name} date column of `{}`", case.text);
            compared += 2;
        }
    }
    assert_eq!(compared, ZONES.len() * rows * 20);
}
