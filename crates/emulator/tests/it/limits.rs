//! Limits as a client meets them: headers, cookie, servers, Retry-After, the day's entitlement.

use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, World, send, targets, world};

/// The lane a cookie pins to.
async fn ask(world: &World, server: u16) -> Reply {
    let cookie = format!("ARRAffinity=server-{server}");
    send(world.request(Method::GET, "WhoAmI").header("cookie", cookie)).await
}

fn remaining(reply: &Reply) -> u32 {
    reply.header("x-ms-ratelimit-burst-remaining-xrm-requests").parse().expect("a number")
}

#[tokio::test]
async fn a_client_that_reads_the_headers_gets_all_there_is_and_no_429() {
    let world = world().await;
    world.control("limits", &json!({ "requests": 60 })).await;
    let mut answered = 0;
    for _window in 0..4 {
        for server in 0..4 {
            loop {
                let reply = ask(&world, server).await.expect(200);
                assert!(reply.header("set-cookie").starts_with(&format!("ARRAffinity=server-{server};")));
                answered += 1;
                if remaining(&reply) == 0 {
                    break;
                }
            }
        }
        world.skip(301.0).await;
    }
    assert_eq!(answered, 4 * 4 * 60);
    let stats = world.stats().await;
    assert_eq!(stats["throttled"]["requests"], 0);
    assert_eq!(stats["entitlement"]["used"], answered);
}

#[tokio::test]
async fn without_the_cookie_every_server_answers() {
    let world = world().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let reply = world.get("WhoAmI").await.expect(200);
        seen.insert(reply.header("set-cookie").split(';').next().unwrap().to_owned());
        assert_eq!(reply.header("x-ms-dop-hint"), "16");
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test]
async fn retry_after_falls_with_time_and_grows_with_calls() {
    let world = world().await;
    world.control("limits", &json!({ "requests": 10, "penalty_s": 2 })).await;
    for _ in 0..10 {
        ask(&world, 0).await.expect(200);
    }
    let wait = |reply: &Reply| reply.header("retry-after").parse::<u64>().unwrap();
    let first = wait(&ask(&world, 0).await.refused(429, "0x80072322"));
    assert!((295..=300).contains(&first), "{first}");
    world.skip(100.0).await;
    let later = wait(&ask(&world, 0).await.refused(429, "0x80072322"));
    assert!((195..=203).contains(&later), "{later}");
    for _ in 0..20 {
        ask(&world, 0).await.expect(429);
    }
    let grown = wait(&ask(&world, 0).await.expect(429));
    assert!(grown >= later + 38, "{grown} after {later}");
    ask(&world, 1).await.expect(200);
    world.skip(grown as f64 + 1.0).await;
    ask(&world, 0).await.expect(200);
}

#[tokio::test]
async fn rows_of_a_bulk_message_count_for_the_day_and_a_batch_is_one_request() {
    let world = world().await;
    world.control("limits", &json!({ "requests": 100 })).await;
    let body = targets("account", (0..25).map(|n| json!({ "name": n.to_string() })).collect());
    world.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", &body).await.expect(200);
    assert_eq!(world.stats().await["entitlement"]["used"], 25);
    let part = "--b\r\nContent-Type: application/http\r\n\r\nPOST /api/data/v9.2/accounts HTTP/1.1\r\n\
                Content-Type: application/json\r\n\r\n{\"name\":\"x\"}\r\n";
    let request = world
        .request(Method::POST, "$batch")
        .header("content-type", "multipart/mixed; boundary=b")
        .header("cookie", "ARRAffinity=server-2")
        .body(format!("{}--b--\r\n", part.repeat(30)));
    send(request).await.expect(200);
    assert_eq!(world.stats().await["entitlement"]["used"], 55);
    let reply = ask(&world, 2).await;
    assert!(remaining(&reply) >= 97, "a batch was counted as many: {}", remaining(&reply));
}
