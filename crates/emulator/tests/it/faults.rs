//! Faults by rule over HTTP: each kind of section 29.3, one-off or by chance.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::support::{World, label, send, targets, world, world_with};

const CREATE_MULTIPLE: &str = "accounts/Microsoft.Dynamics.CRM.CreateMultiple";

async fn once(world: &World, operation: &str, effect: Json) {
    world.control("faults", &json!([{ "match": { "op": operation, "times": 1 }, "do": effect }])).await;
}

async fn count(world: &World) -> String {
    world.get("accounts/$count").await.expect(200).text
}

#[tokio::test]
async fn every_refusal_with_a_name_happens_once() {
    let world = world().await;
    let cases = [
        (json!({ "limit": "requests" }), 429, "0x80072322"),
        (json!({ "limit": "time" }), 429, "0x80072321"),
        (json!({ "limit": "concurrency" }), 429, "0x80072326"),
        (json!("bad_gateway"), 502, "0x80040216"),
        (json!("service_unavailable"), 503, "0x80040216"),
        (json!("gateway_timeout"), 504, "0x80040216"),
        (json!("sql_deadlock"), 500, "0x80044150"),
        (json!("sql_timeout"), 500, "0x80044151"),
        (json!("expired_token"), 401, "0x8004A101"),
        (json!("expired_delta_token"), 400, "0x80044352"),
        (json!("environment_disabled"), 403, "0x8004A104"),
        (json!({ "status": 503, "code": "0x80072324", "message": "Too many.", "retry_after": 9 }), 503, "0x80072324"),
    ];
    for (effect, status, code) in cases {
        once(&world, "Create", effect.clone()).await;
        let refused = world.post("accounts", &json!({ "name": "x" })).await.refused(status, code);
        if status == 429 || effect["retry_after"] == 9 {
            refused.header("retry-after").parse::<u64>().unwrap();
        }
        assert_eq!(count(&world).await, "0", "{effect}");
    }
    world.post("accounts", &json!({ "name": "x" })).await.expect(204);
    assert_eq!(world.stats().await["faults"], 12);
}

#[tokio::test]
async fn a_page_of_html_or_nothing_at_all() {
    let world = world().await;
    once(&world, "WhoAmI", json!("html")).await;
    let page = world.get("WhoAmI").await.expect(502);
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("<h1>502"));
    once(&world, "WhoAmI", json!({ "status": 503, "empty": true })).await;
    assert_eq!(world.get("WhoAmI").await.expect(503).text, "");
    once(&world, "WhoAmI", json!({ "content_type": "text/plain", "body": "not json" })).await;
    assert_eq!(world.get("WhoAmI").await.expect(200).text, "not json");
    once(&world, "WhoAmI", json!({ "truncate": 7 })).await;
    assert!(world.request(Method::GET, "WhoAmI").send().await.unwrap().bytes().await.is_err());
}

#[tokio::test]
async fn connections_are_cut_before_and_after_the_commit() {
    let world = world().await;
    for (effect, rows) in [("drop_before_commit", "0"), ("commit_then_drop", "1")] {
        once(&world, "Create", json!(effect)).await;
        let sent = world.request(Method::POST, "accounts").json(&json!({ "name": "x" })).send().await;
        assert!(sent.is_err());
        assert_eq!(count(&world).await, rows, "{effect}");
    }
}

#[tokio::test]
async fn large_chunks_time_out_and_small_ones_pass() {
    let world = world().await;
    let rule = json!([{ "match": { "op": "CreateMultiple", "rows_min": 50 }, "do": "sql_timeout" }]);
    world.control("faults", &rule).await;
    let rows = |n: usize| targets("account", (0..n).map(|n| json!({ "name": n.to_string() })).collect());
    world.post(CREATE_MULTIPLE, &rows(50)).await.refused(500, "0x80044151");
    world.post(CREATE_MULTIPLE, &rows(49)).await.expect(200);
    assert_eq!(count(&world).await, "49");
}

#[tokio::test]
async fn a_race_for_a_key_is_lost() {
    let world = world().await;
    world.order_table().await;
    once(&world, "Create", json!("race")).await;
    world.post("wr_orders", &json!({ "wr_ordernumber": "1" })).await.refused(412, "0x80060892");
    assert_eq!(world.get("wr_orders/$count").await.text, "1");
}

#[tokio::test]
async fn a_next_link_can_lead_nowhere() {
    let world = world().await;
    let rows = targets("account", (0..5).map(|n| json!({ "name": n.to_string() })).collect());
    world.post(CREATE_MULTIPLE, &rows).await.expect(200);
    world.control("faults", &json!([{ "match": { "op": "RetrieveMultiple" }, "do": "repeat_next_link" }])).await;
    let page = world.get_with("accounts?$select=name", &[("prefer", "odata.maxpagesize=2")]).await.json();
    let link = page["@odata.nextLink"].as_str().unwrap().to_owned();
    assert_eq!(link, format!("{}/accounts?$select=name", world.base));
    let again = world.get_with(&link, &[("prefer", "odata.maxpagesize=2")]).await.json();
    assert_eq!(again["value"], page["value"]);
}

#[tokio::test]
async fn rows_of_an_elastic_bulk_fail_by_place() {
    let world = world().await;
    let mut table = crate::support::table("wr_Reading", "Reading");
    table["TableType"] = "Elastic".into();
    table["DisplayName"] = label("Reading");
    world.post("EntityDefinitions", &table).await.expect(204);
    once(&world, "CreateMultiple", json!({ "fail_rows": { "at": [0, 2], "status": 429 } })).await;
    let rows = targets("wr_reading", ["a", "b", "c", "d"].map(|name| json!({ "wr_name": name })).to_vec());
    let reply = world.post("wr_readings/Microsoft.Dynamics.CRM.CreateMultiple", &rows).await;
    assert!(reply.status.is_client_error(), "{reply:?}");
    let error = reply.json()["error"]["@Microsoft.PowerApps.CDS.ErrorDetails.Plugin.BulkApiErrorDetails"].clone();
    let failed: Json = serde_json::from_str(error.as_str().unwrap()).unwrap();
    assert_eq!((&failed[0]["RequestIndex"], &failed[1]["RequestIndex"]), (&json!(0), &json!(2)));
    assert_eq!(failed[0]["StatusCode"], 429);
    let kept = world.get("wr_readings?$select=wr_name&$orderby=wr_name").await.json();
    let names: Vec<&str> =
        kept["value"].as_array().unwrap().iter().map(|row| row["wr_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "d"]);
}

#[tokio::test]
async fn a_slow_server_takes_simulated_time() {
    let options = flowgate_emulator::Options { time_scale: 1000.0, ..flowgate_emulator::Options::default() };
    let world = world_with(options).await;
    once(&world, "WhoAmI", json!({ "delay": "45s" })).await;
    let before = world.stats().await["simulated_now"].as_f64().unwrap();
    world.get("WhoAmI").await.expect(200);
    assert!(world.stats().await["simulated_now"].as_f64().unwrap() - before >= 45.0);
}

#[tokio::test]
async fn chance_comes_from_the_seed() {
    let run = async |seed| {
        let world = world_with(flowgate_emulator::Options { seed, ..flowgate_emulator::Options::default() }).await;
        let rule = json!([{ "match": { "op": "WhoAmI", "probability": 0.3 }, "do": "service_unavailable" }]);
        world.control("faults", &rule).await;
        let mut hits = Vec::new();
        for n in 0..60 {
            if world.get_with("WhoAmI", &[("cookie", "ARRAffinity=server-0")]).await.status == 503 {
                hits.push(n);
            }
        }
        hits
    };
    let (first, same, other) = (run(7).await, run(7).await, run(8).await);
    assert_eq!(first, same);
    assert_ne!(first, other);
    assert!((5..=32).contains(&first.len()), "{first:?}");
}

#[tokio::test]
async fn rules_are_shown_with_what_they_did_and_nonsense_is_refused() {
    let world = world().await;
    once(&world, "WhoAmI", json!("html")).await;
    world.get("WhoAmI").await.expect(502);
    world.get("WhoAmI").await.expect(200);
    let rules = send(world.client.get(format!("{}/__emulator/faults", world.root))).await.json();
    assert_eq!(
        rules["rules"][0],
        json!({ "rule": { "match": { "op": "WhoAmI", "times": 1 }, "do": "html" }, "seen": 2, "hits": 1 })
    );
    for nonsense in
        [json!([{ "do": "explode" }]), json!([{ "match": { "operation": "x" }, "do": "html" }]), json!({ "faults": 1 })]
    {
        let reply = send(world.client.post(format!("{}/__emulator/faults", world.root)).json(&nonsense)).await;
        assert_eq!(reply.status, 400, "{nonsense}");
    }
}
