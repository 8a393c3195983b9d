//! What only PostgreSQL has: its types, commits that come late, sign-in.

use flowgate_core::source::Image;
use flowgate_core::{Code, ErrorKind, Source};
use insta::assert_snapshot;
use serde_json::json;
use std::fmt::Write as _;

use crate::postgres::{PASSWORD, Postgres};
use crate::support::{lines, open_source, read, request, shown};

fn source_of(server: &Postgres) -> std::sync::Arc<dyn Source> {
    open_source("postgres", &json!({ "url": server.url() }), std::path::Path::new("/")).unwrap()
}

#[tokio::test]
async fn every_type_lands_as_documented() {
    let server = Postgres::start();
    server
        .run(
            "CREATE TYPE mood AS ENUM ('calm', 'loud'); CREATE DOMAIN postcode AS varchar(8);
             CREATE TABLE \"Odd \"\" name\" (id int8 PRIMARY KEY, a int2, b int4, c float4, d float8, e numeric(8, 2),
               f numeric, g bool, h date, i timestamp, j timestamptz, k uuid, l jsonb, m bytea, n mood, o postcode,
               p char(5), q int[], r interval, s time, \"group\" text);
             INSERT INTO \"Odd \"\" name\" VALUES (1, -2, 3, 1.5, 0.1, -1234.5, 12345678901234567890.123456789, true,
               '1999-12-31', '1969-07-20 20:17:40.123456', '2024-03-31 01:30:00+01',
               'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"a\": [1, 2]}', '\\x00ff', 'loud', 'BT1 1AA', 'ab', '{1,2}',
               '1 day 2 hours', '10:00', 'x');
             INSERT INTO \"Odd \"\" name\" (id) VALUES (2);
             INSERT INTO \"Odd \"\" name\" (id, c, d, f, h) VALUES (3, 'NaN', 'Infinity', 'NaN', '0001-01-01');
             INSERT INTO \"Odd \"\" name\" (id, e) VALUES (4, 'NaN');
             INSERT INTO \"Odd \"\" name\" (id, h) VALUES (5, 'infinity');",
        )
        .await;
    let source = source_of(&server);
    let stream = &source.discover().await.unwrap()[0];
    assert_eq!((stream.name.as_str(), stream.key.as_slice()), ("public.Odd \" name", ["id".to_owned()].as_slice()));
    let everything = read(source.as_ref(), request(&stream.settings, None)).await.unwrap();
    let types: Vec<_> =
        stream.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let set_aside: Vec<_> =
        everything.malformed().iter().map(|row| format!("set aside: {} {}", row.text, row.reason)).collect();
    assert_snapshot!(format!("{}\n{}\n{}", types.join("\n"), everything.rows().join("\n"), set_aside.join("\n")));
}

#[tokio::test]
async fn a_change_committed_late_is_not_missed() {
    let server = Postgres::start();
    server.run("CREATE TABLE works (id int PRIMARY KEY, changed int); INSERT INTO works VALUES (1, 10), (2, 20)").await;
    let source = source_of(&server);
    let settings = json!({"table": "works", "cursor": "changed"});

    // A transaction writes a small value, and commits only after a read has seen a greater one.
    let late = server.connect().await;
    late.batch_execute("BEGIN; INSERT INTO works VALUES (3, 15); UPDATE works SET changed = 5 WHERE id = 1")
        .await
        .unwrap();
    let first = read(source.as_ref(), request(&settings, None)).await.unwrap();
    assert_eq!(first.rows(), ["1|10", "2|20"]);
    let cursor = first.batches.last().unwrap().cursor.clone().unwrap();
    late.batch_execute("COMMIT").await.unwrap();

    let second = read(source.as_ref(), request(&settings, Some(&cursor))).await.unwrap();
    assert_eq!((second.image, second.rows()), (Image::Changes, vec!["1|5".into(), "3|15".into(), "2|20".into()]));
    let cursor = second.batches.last().unwrap().cursor.clone().unwrap();
    let third = read(source.as_ref(), request(&settings, Some(&cursor))).await.unwrap();
    assert_eq!(third.rows(), ["2|20"], "only the greatest value is read again");
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_password() {
    let server = Postgres::start();
    server.run("CREATE TABLE people (id int); CREATE VIEW everyone AS SELECT * FROM people; CREATE ROLE guest LOGIN PASSWORD 'guest'").await;
    let source = source_of(&server);
    let mut text = String::new();
    for settings in [
        json!({"table": "poeple"}),
        json!({"table": "people", "cursor": "changed"}),
        json!({"table": "everyone", "cursor": "id"}),
    ] {
        writeln!(text, "{}", shown(&read(source.as_ref(), request(&settings, None)).await.err().unwrap())).unwrap();
    }
    let cursor = flowgate_core::Cursor("{\"column\":\"other\",\"value\":\"1\",\"horizon\":1}".to_owned());
    let settings = json!({"table": "people", "cursor": "id"});
    writeln!(text, "{}", shown(&read(source.as_ref(), request(&settings, Some(&cursor))).await.err().unwrap()))
        .unwrap();

    let at = |user: &str, port: u16| json!({ "url": format!("postgres://{user}@127.0.0.1:{port}/postgres") });
    let dir = std::path::Path::new("/");
    let wrong = open_source("postgres", &at("app:nonsense", server.port), dir).unwrap().check().await.unwrap_err();
    assert_eq!((wrong.kind, wrong.code), (ErrorKind::Authentication, Code::SIGN_IN_FAILED));
    writeln!(text, "{}", shown(&wrong)).unwrap();
    let guest = open_source("postgres", &at("guest:guest", server.port), dir).unwrap();
    let refused = read(guest.as_ref(), request(&json!({"table": "people"}), None)).await.err().unwrap();
    writeln!(text, "{}", shown(&refused)).unwrap();
    assert!(source.check().await.unwrap().starts_with("PostgreSQL "));
    assert!(!text.contains(PASSWORD) && !text.contains("nonsense"), "{text}");
    insta::with_settings!({filters => vec![(r"127\.0\.0\.1:\d+", "[server]")]}, { assert_snapshot!(text) });
}

#[tokio::test]
async fn an_abandoned_read_stops_its_query() {
    let server = Postgres::start();
    server.run("CREATE VIEW endless AS SELECT generate_series(1, 1000000000000) AS id").await;
    let source = source_of(&server);
    let request = request(&json!({"table": "endless"}), None);
    let mut reading = source.read(request.clone()).await.unwrap();
    let first = futures::StreamExt::next(&mut reading.batches).await.unwrap().unwrap();
    assert_eq!(lines(&first.upserts)[0], "1");
    request.cancel.cancel();
    let error = futures::StreamExt::next(&mut reading.batches).await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    // The server says so itself: this waits until nobody reads the view any more.
    let watch = "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' \
                 AND application_name = 'flowgate') LOOP PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); \
                 END LOOP; END $$";
    server.run(watch).await;
}

#[tokio::test]
async fn tls_is_verified_against_the_named_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = Postgres::start_with_tls(&made.cert.pem(), &made.signing_key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("authority.pem"), made.cert.pem()).unwrap();
    fs_err::write(dir.path().join("empty.pem"), "").unwrap();
    let url = format!("{}?sslmode=verify-full", server.url());

    let trusting = json!({"url": url, "ca_file": "authority.pem"});
    let reached = open_source("postgres", &trusting, dir.path()).unwrap().check().await.unwrap();
    assert!(reached.starts_with("PostgreSQL "), "{reached}");

    let error = open_source("postgres", &json!({ "url": url }), dir.path()).unwrap().check().await.unwrap_err();
    assert_eq!(error.code, Code::CONNECTION_FAILED);
    assert!(error.hints[0].contains("ca_file"), "{}", shown(&error));

    let error = open_source("postgres", &json!({"url": url, "ca_file": "empty.pem"}), dir.path()).err().unwrap();
    assert!(error.message.ends_with("empty.pem` holds no certificate"), "{error}");
}
