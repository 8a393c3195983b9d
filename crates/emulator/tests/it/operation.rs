//! Running it: data directories, TLS, faults, snapshots, time.

use flowgate_emulator::{Emulator, Options};
use serde_json::json;

use crate::support::{send, targets, world, world_with};

fn kept_in(directory: &std::path::Path) -> Options {
    Options { data: Some(directory.to_owned()), ..Options::default() }
}

#[tokio::test]
async fn rows_and_schema_survive_a_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, lost, gone);
    {
        let world = world_with(kept_in(directory.path())).await;
        world.order_table().await;
        kept = world.post("wr_orders", &json!({ "wr_ordernumber": "1" })).await.expect(204).id();
        gone = world.post("wr_orders", &json!({ "wr_ordernumber": "2" })).await.expect(204).id();
        world.delete(&format!("wr_orders({gone})"), &[]).await.expect(204);
        lost = world.post("wr_orders", &json!({ "wr_ordernumber": "3" })).await.expect(204).id();
        // Dropped, not stopped: nothing is written at the end.
    }
    let log = directory.path().join("emulator.log");
    let bytes = fs_err::read(&log).unwrap();
    fs_err::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    let world = world_with(kept_in(directory.path())).await;
    world.get(&format!("wr_orders({kept})")).await.expect(200);
    world.get("wr_orders(wr_ordernumber='1')").await.expect(200);
    world.get(&format!("wr_orders({gone})")).await.expect(404);
    world.get(&format!("wr_orders({lost})")).await.expect(404);
    world.post("wr_orders", &json!({ "wr_ordernumber": "1" })).await.refused(412, "0x80060892");
    assert_eq!(world.get("accounts/$count").await.text, "0");
}

#[tokio::test]
async fn tls_answers_under_its_own_authority() {
    let world = world().await;
    let directory = tempfile::tempdir().unwrap();
    let options = Options { tls: true, ..kept_in(directory.path()) };
    let emulator = Emulator::start(options).await.unwrap();
    let ready = emulator.ready();
    let authority = fs_err::read(ready.ca_file.clone().unwrap()).unwrap();
    let certificate = reqwest::Certificate::from_pem(&authority).unwrap();
    let client = crate::support::client_trusting(certificate);
    let url = format!("{}/api/data/v9.2/WhoAmI", ready.url);
    assert!(url.starts_with("https://"));
    send(client.get(&url).bearer_auth(&ready.token)).await.expect(200);
    assert!(world.client.get(&url).bearer_auth(&ready.token).send().await.is_err());
    emulator.stop().await;
}

#[tokio::test]
async fn a_temporary_authority_goes_with_its_emulator() {
    let start = || Emulator::start(Options { tls: true, ..Options::default() });
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    let files = [&first, &second].map(|emulator| emulator.ready().ca_file.clone().unwrap());
    assert!(files[0] != files[1] && files.iter().all(|file| file.try_exists().unwrap()), "each has its own");
    first.stop().await;
    assert!(!files[0].try_exists().unwrap() && files[1].try_exists().unwrap());
    drop(second);
    assert!(!files[1].try_exists().unwrap());
}

#[tokio::test]
async fn a_response_can_be_lost_after_the_commit() {
    let world = world().await;
    let rule = json!([{ "match": { "op": "CreateMultiple", "table": "account", "nth": 1 }, "do": "commit_then_drop" }]);
    world.control("faults", &rule).await;
    let path = "accounts/Microsoft.Dynamics.CRM.CreateMultiple";
    let body = targets("account", vec![json!({ "name": "a" })]);
    let lost = world.request(reqwest::Method::POST, path).json(&body).send().await;
    assert!(lost.is_err());
    assert_eq!(world.get("accounts/$count").await.text, "1");
    world.post(path, &body).await.expect(200);
    assert_eq!(world.stats().await["faults"], 1);
}

#[tokio::test]
async fn a_commit_can_come_after_the_answer() {
    let world = world().await;
    let effect = json!({ "delay_commit": "300ms", "answer": 504 });
    world.control("faults", &json!([{ "match": { "op": "Create", "nth": 1 }, "do": effect }])).await;
    world.post("accounts", &json!({ "name": "late" })).await.expect(504);
    assert_eq!(world.get("accounts/$count").await.text, "0");
    let mut count = String::new();
    for _ in 0..100 {
        count = world.get("accounts/$count").await.text;
        if count == "1" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(count, "1");
}

#[tokio::test]
async fn injected_answers_have_the_shape_they_are_given() {
    let world = world().await;
    let rules = json!([
        { "match": { "op": "WhoAmI", "nth": 1 }, "do": { "limit": "time", "retry_after": "Fri, 31 Dec 1999 23:59:59 GMT" } },
        { "match": { "op": "WhoAmI", "nth": 1 }, "do": { "status": 502, "html": true } },
        { "match": { "op": "WhoAmI", "nth": 1 }, "do": { "truncate": 10 } },
        { "match": { "table": "account" }, "do": { "reject": { "column": "name", "value": "bad", "message": "no" } } },
    ]);
    world.control("faults", &rules).await;
    let limited = world.get("WhoAmI").await.refused(429, "0x80072321");
    assert_eq!(limited.header("retry-after"), "Fri, 31 Dec 1999 23:59:59 GMT");
    let broken = world.get("WhoAmI").await.expect(502);
    assert!(broken.header("content-type").starts_with("text/html"));
    let cut = world.request(reqwest::Method::GET, "WhoAmI").send().await.unwrap();
    assert!(cut.bytes().await.is_err());
    world.post("accounts", &json!({ "name": "bad" })).await.refused(400, "0x80040265");
    world.post("accounts", &json!({ "name": "good" })).await.expect(204);
    assert_eq!(world.get("accounts/$count").await.text, "1");
    world.control("faults", &json!([])).await;
    world.post("accounts", &json!({ "name": "bad" })).await.expect(204);
}

#[tokio::test]
async fn snapshots_take_the_service_back_in_time() {
    let world = world().await;
    world.control("snapshot", &json!({ "name": "before" })).await;
    let version = world.stats().await["version"].clone();
    world.post("accounts", &json!({ "name": "a" })).await.expect(204);
    world.control("restore", &json!({ "name": "before" })).await;
    assert_eq!(world.get("accounts/$count").await.text, "0");
    assert_eq!(world.stats().await["version"], version);
    world.post("accounts", &json!({ "name": "a" })).await.expect(204);
    world.control("reset", &json!({})).await;
    assert_eq!(world.get("accounts/$count").await.text, "0");
}

#[tokio::test]
async fn a_request_under_way_does_not_survive_a_restore() {
    let world = world().await;
    world.control("snapshot", &json!({ "name": "before" })).await;
    let effect = json!({ "delay_commit": "200ms", "answer": 504 });
    world.control("faults", &json!([{ "match": { "op": "Create" }, "do": effect }])).await;
    world.post("accounts", &json!({ "name": "before" })).await.expect(504);
    world.control("restore", &json!({ "name": "before" })).await;
    world.post("accounts", &json!({ "name": "after" })).await.expect(504);
    // The first would come before the second.
    for _ in 0..100 {
        if world.get("accounts/$count").await.text != "0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let rows = world.get("accounts?$select=name").await.json();
    let names: Vec<_> = rows["value"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["after"]);
}

#[tokio::test]
async fn bulk_deletion_is_a_job() {
    let world = world().await;
    for name in ["a", "b", "b"] {
        world.post("accounts", &json!({ "name": name })).await.expect(204);
    }
    let condition =
        json!({ "AttributeName": "name", "Operator": "In", "Values": [{ "Value": "b", "Type": "System.String" }] });
    let query = json!({ "EntityName": "account", "Criteria": { "FilterOperator": "And", "Conditions": [condition] } });
    let reply = world.post("BulkDelete", &json!({ "JobName": "purge", "QuerySet": [query] })).await.expect(200);
    let job = format!("asyncoperations({})?$select=statecode,statuscode", reply.json()["JobId"].as_str().unwrap());
    assert_eq!(world.get(&job).await.expect(200).json()["statecode"], 0);
    assert_eq!(world.get("accounts/$count").await.text, "3");
    world.skip(60.0).await;
    assert_eq!(world.get(&job).await.json()["statuscode"], 30);
    assert_eq!(world.get("accounts/$count").await.text, "1");
}

#[tokio::test]
async fn what_was_observed_of_an_environment_is_what_it_starts_and_resets_with() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("observed.json");
    let observed = json!({
        "version": 1, "servers": 2, "probes": [{ "name": "key_violation_status", "seen": "status 400" }],
        "settings": { "key_violation_status": 400, "change_tracking_days": 30 },
    });
    fs_err::write(&file, observed.to_string()).unwrap();
    let world = world_with(Options { settings: Some(file.clone()), ..Options::default() }).await;
    world.control("settings", &json!({ "key_violation_status": 409 })).await;
    world.control("reset", &json!({})).await;
    world.order_table().await;
    let order = json!({ "wr_ordernumber": "1" });
    world.post("wr_orders", &order).await.expect(204);
    world.post("wr_orders", &order).await.refused(400, "0x80060892");
    let organization = world.get("organizations?$select=expirechangetrackingindays").await.json();
    assert_eq!(organization["value"][0]["expirechangetrackingindays"], 30);
    let stats = send(world.client.get(format!("{}/__emulator/stats", world.root))).await.json();
    assert_eq!(stats["servers"], 2);

    for (wrong, said) in [
        (json!({ "version": 2 }), "it is of version 2"),
        (json!({ "version": 1, "settings": { "key_violation": 400 } }), "unknown field"),
        (json!({ "settings": {} }), "missing field"),
    ] {
        fs_err::write(&file, wrong.to_string()).unwrap();
        let error = Emulator::start(Options { settings: Some(file.clone()), ..Options::default() }).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_sink_keeps_ids_and_keys_and_nothing_else() {
    let options = Options { profile: flowgate_emulator::ProfileName::Sink, ..Options::default() };
    let world = world_with(options).await;
    world.order_table().await;
    let row = json!({ "wr_ordernumber": "1", "wr_name": "forgotten", "wr_qty": 5 });
    let id = world.post("wr_orders", &row).await.expect(204).id();
    let kept =
        world.get("wr_orders(wr_ordernumber='1')?$select=wr_name,wr_qty,wr_ordernumber").await.expect(200).json();
    assert_eq!((&kept["wr_orderid"], &kept["wr_ordernumber"]), (&json!(id), &json!("1")));
    assert_eq!((&kept["wr_name"], &kept["wr_qty"]), (&json!(null), &json!(null)));
    world.post("wr_orders", &row).await.refused(412, "0x80060892");
    world.patch(&format!("wr_orders({id})"), &[("if-match", "*")], &json!({ "wr_qty": 6 })).await.expect(204);
    assert_eq!(world.get(&format!("wr_orders({id})?$select=wr_qty")).await.json()["wr_qty"], json!(null));
    // What is not kept is checked all the same.
    world.post("wr_orders", &json!({ "wr_qty": 1001 })).await.refused(400, "0x8004432f");
}

/// The digest of a table as somebody computes it from a source, by the words of the documentation.
fn digest_of(rows: &[&[(&str, &str)]]) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64;
    let rows = rows.iter().map(|row| {
        let values = row.iter().map(|(column, value)| hash(format!("{column}={value}").as_bytes()) & 0xf_ffff);
        hash(&values.sum::<u64>().to_le_bytes())
    });
    format!("{:016x}", rows.fold(0u64, u64::wrapping_add))
}

#[tokio::test]
async fn digests_follow_every_write_and_agree_between_profiles() {
    let columns = "table=wr_order&columns=wr_name,wr_qty,wr_amount,wr_ordernumber,wr_accountid";
    let mut answers = Vec::new();
    for profile in [flowgate_emulator::ProfileName::Sink, flowgate_emulator::ProfileName::Instant] {
        let world = world_with(Options { profile, ..Options::default() }).await;
        world.order_table().await;
        let account = "7a1c2f8e-0000-4000-8000-00000000000a";
        world.post("accounts", &json!({ "accountid": account, "name": "Contoso" })).await.expect(204);
        let row = json!({
            "wr_ordernumber": "1", "wr_name": "né", "wr_qty": 5, "wr_amount": 125.5,
            "wr_AccountId@odata.bind": format!("/accounts({account})"),
        });
        let first = world.post("wr_orders", &row).await.expect(204).id();
        let second = world.post("wr_orders", &json!({ "wr_name": "gone" })).await.expect(204).id();
        world.post("wr_orders", &json!({ "wr_ordernumber": "3" })).await.expect(204);
        let change = json!({ "wr_qty": 6, "wr_amount": null });
        world.patch(&format!("wr_orders({first})"), &[("if-match", "*")], &change).await.expect(204);
        world.delete(&format!("wr_orders({second})"), &[]).await.expect(204);
        let url = format!("{}/__emulator/digests?{columns}", world.root);
        answers.push(send(world.client.get(url)).await.expect(200).json());
        let first_row = [("wr_ordernumber", "1"), ("wr_name", "né"), ("wr_qty", "6"), ("wr_accountid", account)];
        let found = &answers[answers.len() - 1]["wr_order"];
        assert_eq!(
            (&found["rows"], &found["digest"]),
            (&json!(2), &json!(digest_of(&[&[("wr_ordernumber", "3")], &first_row])))
        );
        assert_eq!(found["columns"]["wr_ordernumber"]["values"], json!(2));
        assert_eq!(found["columns"]["wr_amount"], json!(null));
    }
    assert_eq!(answers[0], answers[1]);
}
