//! A service that says odd things of its limits, or hangs up: loads go on, and lose nothing.

use flowgate_core::Destination;
use flowgate_core::destination::{Operation, Outcome};

use crate::fake::{Fake, FaultKind, Reply};
use crate::support::{connect, id, unit, write};

const CREATE: &str = "CRM.CreateMultiple";

fn limit(retry_after: &str) -> FaultKind {
    let reply = Reply::error(429, "0x80072322", "Number of requests exceeded the limit of 6000.");
    FaultKind::Reply(if retry_after.is_empty() { reply } else { reply.with("retry-after", retry_after) })
}

#[tokio::test]
async fn whatever_retry_after_says_the_row_is_sent_again_and_applied() {
    let odd =
        ["", "0", "-30", "31536000", "1e400", "soon", "Wed, 21 Oct 2020 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"];
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    for (number, retry_after) in odd.into_iter().enumerate() {
        let name = format!("N{number}");
        let mut unit = unit(&dataverse, Operation::Create, &[(name.as_str(), "a")]).await;
        unit.ids = vec![id(number as u32 + 1)];
        fake.fail(CREATE, limit(retry_after));
        assert_eq!(write(&dataverse, unit).await.unwrap(), [Outcome::Applied], "retry-after `{retry_after}`");
    }
    assert_eq!((dataverse.requests().throttled, fake.state().rows.len()), (8, 8));
}

#[tokio::test]
async fn nonsense_in_the_headers_of_the_limits_is_as_if_they_were_missing() {
    let remaining = "x-ms-ratelimit-time-remaining-xrm-requests";
    let requests = "x-ms-ratelimit-burst-remaining-xrm-requests";
    for value in ["", "-1", "NaN", "inf", "1,19.94", "many", "1e999"] {
        let fake = Fake::start().await;
        fake.state().more_headers = vec![(remaining, value), (requests, value), ("x-ms-dop-hint", value)];
        let dataverse = connect(&fake);
        let unit = unit(&dataverse, Operation::Create, &[("N0", "a"), ("N1", "b")]).await;
        assert_eq!(write(&dataverse, unit).await.unwrap(), [Outcome::Applied, Outcome::Applied], "`{value}`");
        let lane = dataverse.budget().lanes[0].clone();
        assert!(lane.limit_s >= 1_200.0 && lane.limit_requests >= 6_000.0, "the documented ones: {lane:?}");
    }
}

/// As every recording of the service has them, and each of the two alone.
#[tokio::test]
async fn the_headers_of_the_limits_are_heard_as_the_service_writes_them_and_each_alone() {
    let remaining = "x-ms-ratelimit-time-remaining-xrm-requests";
    let requests = "x-ms-ratelimit-burst-remaining-xrm-requests";
    for (seconds, calls, limit_s, limit_requests) in [
        ("1,000.00", "5,500", 1_000.0, 5_500.0),
        ("1000.00", "5500", 1_000.0, 5_500.0),
        ("many", "5500", 1_200.0, 5_500.0),
        ("1,000.00", "many", 1_000.0, 6_000.0),
        ("1,200.00", "7999", 1_200.0, 8_000.0),
    ] {
        let fake = Fake::start().await;
        fake.state().more_headers = vec![(remaining, seconds), (requests, calls)];
        let dataverse = connect(&fake);
        let unit = unit(&dataverse, Operation::Create, &[("N0", "a"), ("N1", "b")]).await;
        assert_eq!(write(&dataverse, unit).await.unwrap(), [Outcome::Applied, Outcome::Applied]);
        let lane = dataverse.budget().lanes[0].clone();
        let is_near = |found: f64, wanted: f64| (found - wanted).abs() < 0.1 * wanted;
        let is_heard = is_near(lane.limit_s, limit_s) && is_near(lane.limit_requests, limit_requests);
        assert!(is_heard, "{seconds} and {calls}: {lane:?}");
    }
}

#[tokio::test]
async fn a_server_that_closes_every_second_connection_loses_and_doubles_nothing() {
    let fake = Fake::start().await;
    fake.state().closes_every_second = true;
    let dataverse = connect(&fake);
    let mut units = Vec::new();
    for number in 0..20 {
        let names = [format!("N{number}a"), format!("N{number}b"), format!("N{number}c")];
        let rows: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a")).collect();
        let mut unit = unit(&dataverse, Operation::Create, &rows).await;
        unit.ids = (0..3).map(|row| id(3 * number + row + 1)).collect();
        units.push(unit);
    }
    let ids: Vec<String> = units.iter().flat_map(|unit| unit.ids.iter().map(ToString::to_string)).collect();
    let written = futures::future::join_all(units.into_iter().map(|unit| write(&dataverse, unit))).await;
    let outcomes: Vec<Outcome> = written.into_iter().flat_map(Result::unwrap).collect();
    for (id, outcome) in ids.iter().zip(&outcomes) {
        match outcome {
            Outcome::Applied => assert!(fake.state().rows.contains_key(id), "{id} is not there"),
            // Cut four times in a row, and said so.
            Outcome::Ambiguous => {}
            other => panic!("{id}: {other:?}"),
        }
    }
    let applied = outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count();
    assert!(applied >= 45, "{applied} of 60 rows are known to be there");
    assert!(fake.state().closed >= 20, "{} connections were closed", fake.state().closed);
}
