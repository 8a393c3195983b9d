//! The checklist of what emulators get wrong, points 1 to 20: one test per point.

use serde_json::{Value as Json, json};

use crate::batches::{batch, change_set, part};
use crate::support::{World, table, targets, world};

const MISSING: &str = "00000000-0000-4000-8000-0000000000aa";

async fn account(world: &World, name: &str) -> String {
    world.post("accounts", &json!({ "name": name })).await.expect(204).id()
}

async fn elastic(world: &World) {
    let mut body = table("wr_Reading", "Reading");
    body["TableType"] = "Elastic".into();
    world.post("EntityDefinitions", &body).await.expect(204);
}

fn bulk(set: &str, message: &str) -> String {
    format!("{set}/Microsoft.Dynamics.CRM.{message}")
}

#[tokio::test]
async fn point_01_if_none_match_null_is_ignored() {
    let world = world().await;
    let id = account(&world, "a").await;
    let path = format!("accounts({id})");
    world.patch(&path, &[("if-none-match", "null")], &json!({ "name": "b" })).await.expect(204);
    world.get_with(&path, &[("if-none-match", "null")]).await.expect(200);
}

#[tokio::test]
async fn point_02_patch_creates_unless_if_match() {
    let world = world().await;
    let path = format!("accounts({MISSING})");
    world.patch(&path, &[("if-match", "*")], &json!({ "name": "a" })).await.refused(404, "0x80040217");
    world.patch(&path, &[], &json!({ "name": "a" })).await.expect(204);
    world.patch(&path, &[("if-none-match", "*")], &json!({ "name": "b" })).await.refused(412, "0x80040237");
    world.patch(&path, &[("if-match", "W/\"1\"")], &json!({ "name": "b" })).await.refused(412, "0x80060882");
    assert_eq!(world.get(&path).await.expect(200).json()["name"], "a");
}

#[tokio::test]
async fn point_03_key_upserts_echo_the_key_and_treat_key_columns_by_path() {
    let world = world().await;
    world.order_table().await;
    let path = "wr_orders(wr_ordernumber='SO-1')";
    let reply = world.patch(path, &[], &json!({ "wr_name": "a" })).await.expect(204);
    assert_eq!(reply.header("odata-entityid"), format!("{}/{path}", world.base));
    // On update the key column in the body is dropped.
    world.patch(path, &[], &json!({ "wr_name": "b", "wr_ordernumber": "OTHER" })).await.expect(204);
    assert_eq!(world.get(path).await.expect(200).json()["wr_name"], "b");
    // On create it wins.
    world.patch("wr_orders(wr_ordernumber='SO-2')", &[], &json!({ "wr_ordernumber": "SO-3" })).await.expect(204);
    world.get("wr_orders(wr_ordernumber='SO-2')").await.refused(404, "0x80060891");
    world.get("wr_orders(wr_ordernumber='SO-3')").await.expect(200);
}

#[tokio::test]
async fn point_04_only_a_representation_tells_created_from_updated() {
    let world = world().await;
    world.order_table().await;
    let wants = [("prefer", "return=representation")];
    let path = |n: u32| format!("wr_orders(wr_ordernumber='SO-{n}')");
    for _ in 0..2 {
        assert_eq!(world.patch(&path(1), &[], &json!({ "wr_name": "a" })).await.expect(204).text, "");
    }
    let path = format!("{}?$select=wr_orderid", path(2));
    let created = world.patch(&path, &wants, &json!({ "wr_name": "a" })).await.expect(201).json();
    let updated = world.patch(&path, &wants, &json!({ "wr_name": "b" })).await.expect(200).json();
    assert_eq!(created["wr_orderid"], updated["wr_orderid"]);
}

#[tokio::test]
async fn point_05_a_failed_bulk_request_leaves_no_trace() {
    let world = world().await;
    world.order_table().await;
    let before = world.stats().await["version"].clone();
    let rows =
        vec![json!({ "wr_name": "ok", "wr_ordernumber": "1" }), json!({ "wr_name": "x", "wr_ordernumber": "1" })];
    world.post(&bulk("wr_orders", "CreateMultiple"), &targets("wr_order", rows)).await.refused(412, "0x80060892");
    assert_eq!(world.get("wr_orders/$count").await.text, "0");
    assert_eq!(world.stats().await["version"], before);
    elastic(&world).await;
    let id = "00000000-0000-4000-8000-000000000001";
    let rows = vec![json!({ "wr_readingid": id }), json!({ "wr_readingid": id }), json!({ "wr_name": "c" })];
    let reply =
        world.post(&bulk("wr_readings", "CreateMultiple"), &targets("wr_reading", rows)).await.expect(400).json();
    let details = reply["error"]["@Microsoft.PowerApps.CDS.ErrorDetails.Plugin.BulkApiErrorDetails"].as_str().unwrap();
    let details: Json = serde_json::from_str(details).unwrap();
    assert_eq!((&details[0]["RequestIndex"], &details[0]["StatusCode"]), (&json!(1), &json!(409)));
    assert_eq!(world.get("wr_readings/$count").await.text, "2");
}

#[tokio::test]
async fn point_06_duplicate_targets() {
    let world = world().await;
    world.order_table().await;
    let id = MISSING;
    let twice = |column: &str| {
        targets(
            "wr_order",
            vec![json!({ "wr_orderid": id, column: "first" }), json!({ "wr_orderid": id, column: "second" })],
        )
    };
    world.post(&bulk("wr_orders", "CreateMultiple"), &twice("wr_name")).await.refused(412, "0x80040237");
    world.post("wr_orders", &json!({ "wr_orderid": id, "wr_name": "zero" })).await.expect(204);
    world.post(&bulk("wr_orders", "UpdateMultiple"), &twice("wr_name")).await.expect(204);
    assert_eq!(world.get(&format!("wr_orders({id})")).await.json()["wr_name"], "first");
    world.post(&bulk("wr_orders", "UpsertMultiple"), &twice("wr_name")).await.refused(412, "0x80040237");
}

#[tokio::test]
async fn point_07_key_columns_in_an_upsert_body_fail_on_create_only() {
    let world = world().await;
    world.order_table().await;
    let row = json!({ "@odata.id": "wr_orders(wr_ordernumber='SO-1')", "wr_ordernumber": "SO-1", "wr_name": "a" });
    let body = targets("wr_order", vec![row]);
    world.post(&bulk("wr_orders", "UpsertMultiple"), &body).await.refused(400, "0x80040216");
    world.patch("wr_orders(wr_ordernumber='SO-1')", &[], &json!({ "wr_name": "z" })).await.expect(204);
    world.post(&bulk("wr_orders", "UpsertMultiple"), &body).await.expect(204);
}

#[tokio::test]
async fn point_08_targets_need_a_type() {
    let world = world().await;
    let body = json!({ "Targets": [{ "name": "a" }] });
    world.post(&bulk("accounts", "CreateMultiple"), &body).await.expect(400);
    world.post(&bulk("accounts", "CreateMultiple"), &json!({ "Targets": [] })).await.expect(400);
    world.post(&bulk("accounts", "CreateMultiple"), &targets("contact", vec![json!({})])).await.expect(400);
    assert_eq!(world.get("accounts/$count").await.text, "0");
}

#[tokio::test]
async fn point_09_a_batch_stops_at_the_first_failure_and_keeps_what_went_before() {
    let world = world().await;
    let body = part("POST /api/data/v9.2/accounts", r#"{"name":"a"}"#)
        + &part("POST /api/data/v9.2/accounts", r#"{"nonsense":1}"#)
        + &part("POST /api/data/v9.2/accounts", r#"{"name":"c"}"#)
        + "--b--\n";
    let reply = batch(&world, &[], &body).await.expect(400);
    assert_eq!(reply.text.matches("HTTP/1.1 ").count(), 2, "{}", reply.text);
    assert_eq!(world.get("accounts/$count").await.text, "1");
    let reply = batch(&world, &[("prefer", "odata.continue-on-error")], &body).await.expect(200);
    assert_eq!(reply.text.matches("HTTP/1.1 ").count(), 3, "{}", reply.text);
    assert!(reply.text.contains("REQ_ID: "));
}

#[tokio::test]
async fn point_10_content_ids_live_inside_their_change_set() {
    let world = world().await;
    let first = change_set(&[("1", "POST /api/data/v9.2/accounts", r#"{"name":"a"}"#)]);
    let outside = first + &part("PATCH $1", r#"{"name":"b"}"#) + "--b--\n";
    let reply = batch(&world, &[], &outside).await.expect(400);
    assert!(reply.text.contains("Content-ID Reference: '$1' does not exist in the batch context."), "{}", reply.text);
    let early =
        change_set(&[("1", "PATCH $2", r#"{"name":"b"}"#), ("2", "POST /api/data/v9.2/accounts", r#"{"name":"x"}"#)])
            + "--b--\n";
    batch(&world, &[], &early).await.expect(400);
    assert_eq!(world.get("accounts/$count").await.text, "1");
}

#[tokio::test]
async fn point_11_a_batch_holds_1000_operations() {
    let world = world().await;
    let of = |count: usize| part("GET /api/data/v9.2/WhoAmI", "").repeat(count) + "--b--\n";
    batch(&world, &[], &of(1000)).await.expect(200);
    let reply = batch(&world, &[], &of(1001)).await.expect(400);
    assert!(reply.header("content-type").starts_with("application/json"));
}

#[tokio::test]
async fn point_12_counts_and_pages_stop_at_5000_and_skip_is_refused() {
    let world = world().await;
    for _ in 0..6 {
        let rows = (0..1000).map(|n| json!({ "name": format!("{n}") })).collect();
        world.post(&bulk("accounts", "CreateMultiple"), &targets("account", rows)).await.expect(200);
    }
    let page = world.get("accounts?$select=name&$count=true").await.expect(200).json();
    assert_eq!(page["@odata.count"], 5000);
    assert_eq!(page["value"].as_array().unwrap().len(), 5000);
    let rest = world.get(page["@odata.nextLink"].as_str().unwrap()).await.expect(200).json();
    assert_eq!(rest["value"].as_array().unwrap().len(), 1000);
    assert!(rest["@odata.nextLink"].is_null());
    let big = [("prefer", "odata.maxpagesize=9999,odata.include-annotations=\"*\"")];
    let page = world.get_with("accounts?$select=name&$count=true", &big).await.expect(200).json();
    assert_eq!(page["value"].as_array().unwrap().len(), 5000);
    assert_eq!(page["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"], true);
    assert_eq!(world.get("accounts/$count").await.text, "5000");
    let full = world.get("RetrieveTotalRecordCount(EntityNames=['account'])").await.expect(200).json();
    assert_eq!(full["EntityRecordCountCollection"]["Values"], json!([6000]));
    world.get("accounts?$skip=10").await.expect(400);
}

#[tokio::test]
async fn point_13_top_yields_to_a_page_size() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        account(&world, name).await;
    }
    let paged = world.get_with("accounts?$top=1", &[("prefer", "odata.maxpagesize=2")]).await.json();
    assert_eq!(paged["value"].as_array().unwrap().len(), 2);
    let top = world.get("accounts?$top=1").await.json();
    assert_eq!(top["value"].as_array().unwrap().len(), 1);
    assert!(top["@odata.nextLink"].is_null());
}

#[tokio::test]
async fn point_14_next_links_are_absolute_and_hold_the_cookie() {
    let world = world().await;
    for name in ["b", "a", "c", "d", "a"] {
        account(&world, name).await;
    }
    let size = [("prefer", "odata.maxpagesize=2")];
    let mut link = "accounts?$select=name&$orderby=name desc".to_owned();
    let mut names = Vec::new();
    loop {
        let page = world.get_with(&link, &size).await.expect(200).json();
        names.extend(page["value"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["@odata.nextLink"].as_str() else {
            break;
        };
        let start =
            format!("{}/accounts?$select=name&$orderby=name%20desc&$skiptoken=%3ccookie%20pagenumber", world.base);
        assert!(next.starts_with(&start), "{next}");
        assert!(next.contains("istracking%3d%22False%22"));
        link = next.to_owned();
    }
    assert_eq!(names, ["d", "c", "b", "a", "a"]);
}

#[tokio::test]
async fn point_15_collection_expands_are_unpaged_with_a_static_link() {
    let world = world().await;
    world.order_table().await;
    let id = account(&world, "a").await;
    for n in 0..3 {
        let order = json!({ "wr_name": format!("{n}"), "wr_AccountId@odata.bind": format!("/accounts({id})") });
        world.post("wr_orders", &order).await.expect(204);
    }
    let query = format!("accounts({id})?$select=name&$expand=wr_account_wr_order($select=wr_name)");
    let row = world.get_with(&query, &[("prefer", "odata.maxpagesize=2")]).await.expect(200).json();
    assert_eq!(row["wr_account_wr_order"].as_array().unwrap().len(), 3);
    let link = row["wr_account_wr_order@odata.nextLink"].as_str().unwrap();
    assert!(!link.contains("skiptoken"), "{link}");
    assert_eq!(world.get(link).await.expect(200).json()["value"].as_array().unwrap().len(), 3);
    let bad = "wr_orders?$expand=wr_AccountId($orderby=name)&$select=wr_name";
    world.get(bad).await.refused(400, "0x80060888");
}

#[tokio::test]
async fn point_16_strings_compare_without_case_and_know_wildcards() {
    let world = world().await;
    world.order_table().await;
    for name in ["Contoso", "50% off", "500 off"] {
        account(&world, name).await;
    }
    let count = async |filter: &str| {
        let reply = world.get(&format!("accounts?$filter={}", filter.replace('%', "%25"))).await.expect(200);
        reply.json()["value"].as_array().unwrap().len()
    };
    assert_eq!(count("name eq 'CONTOSO'").await, 1);
    assert_eq!(count("startswith(name,'c_nt')").await, 1);
    assert_eq!(count("contains(name,'50%')").await, 2);
    assert_eq!(count("contains(name,'50[%]')").await, 1);
    world.post("wr_orders", &json!({ "wr_ordernumber": "Abc" })).await.expect(204);
    world.post("wr_orders", &json!({ "wr_ordernumber": "aBC" })).await.refused(412, "0x80060892");
    world.get("wr_orders(wr_ordernumber='ABC')").await.expect(200);
}

#[tokio::test]
async fn point_17_lookups_are_written_through_binds_of_the_right_case() {
    let world = world().await;
    world.order_table().await;
    let id = account(&world, "a").await;
    world.post("wr_orders", &json!({ "_wr_accountid_value": id })).await.expect(400);
    let reply =
        world.post("wr_orders", &json!({ "wr_accountid@odata.bind": format!("/accounts({id})") })).await.expect(400);
    assert!(reply.message().contains("undeclared property"), "{}", reply.text);
    for link in [format!("/accounts({id})"), format!("accounts({id})"), format!("{}/accounts({id})", world.base)] {
        world.post("wr_orders", &json!({ "wr_AccountId@odata.bind": link })).await.expect(204);
    }
    let missing = json!({ "wr_AccountId@odata.bind": format!("/accounts({MISSING})") });
    world.post("wr_orders", &missing).await.refused(404, "0x80040217");
}

#[tokio::test]
async fn point_18_the_primary_key_is_always_there_and_money_brings_its_currency() {
    let world = world().await;
    world.post("accounts", &json!({ "name": "a", "revenue": 5 })).await.expect(204);
    let rows = world.get("accounts?$select=revenue").await.expect(200);
    let row = &rows.json()["value"][0];
    assert!(row["accountid"].is_string() && row["_transactioncurrencyid_value"].is_string(), "{row}");
    assert!(rows.text.contains(r#""revenue":5.0000"#), "{}", rows.text);
}

#[tokio::test]
async fn point_19_errors_have_hexadecimal_codes_and_their_own_status() {
    let world = world().await;
    world.get(&format!("accounts({MISSING})")).await.refused(404, "0x80040217");
    world.post("accounts", &json!({ "accountid": MISSING, "name": "a" })).await.expect(204);
    world.post("accounts", &json!({ "accountid": MISSING, "name": "a" })).await.refused(412, "0x80040237");
    world.post("accounts", &json!({ "name": "x".repeat(161) })).await.refused(400, "0x80044331");
    world.post("accounts", &json!({ "numberofemployees": -1 })).await.refused(400, "0x8004432f");
    world.control("limits", &json!({ "requests": 0 })).await;
    let reply = world.get("WhoAmI").await.refused(429, "0x80072322");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 5);
}

#[tokio::test]
async fn point_20_every_answer_has_its_headers() {
    let world = world().await;
    let reply = world.get_with("accounts", &[("prefer", "odata.maxpagesize=3")]).await.expect(200);
    for name in [
        "odata-version",
        "req_id",
        "x-ms-ratelimit-burst-remaining-xrm-requests",
        "x-ms-ratelimit-time-remaining-xrm-requests",
    ] {
        assert!(!reply.header(name).is_empty(), "{name}");
    }
    assert_eq!(reply.header("x-ms-dop-hint"), "16");
    assert_eq!(reply.header("preference-applied"), "odata.maxpagesize=3");
    assert!(reply.header("set-cookie").starts_with("ARRAffinity=server-"));
}
