//! The checklist of what emulators get wrong, points 21 to 40: one test per point.

use flowgate_emulator::{Options, ProfileName};
use serde_json::{Value as Json, json};

use crate::support::{World, label, send, table, targets, world, world_with};

async fn account(world: &World, name: &str) -> String {
    world.post("accounts", &json!({ "name": name })).await.expect(204).id()
}

const TRACK: [(&str, &str); 1] = [("prefer", "odata.track-changes")];

#[tokio::test]
async fn point_21_one_version_number_for_the_whole_database() {
    let world = world().await;
    let version = async |path: String| world.get(&path).await.expect(200).json()["versionnumber"].as_i64().unwrap();
    let first = account(&world, "a").await;
    let contact = world.post("contacts", &json!({ "lastname": "b" })).await.expect(204).id();
    let a = version(format!("accounts({first})")).await;
    let b = version(format!("contacts({contact})")).await;
    assert!(b > a);
    world.patch(&format!("accounts({first})"), &[], &json!({ "name": "a" })).await.expect(204);
    let reply = world.get(&format!("accounts({first})")).await.expect(200);
    let again = reply.json()["versionnumber"].as_i64().unwrap();
    assert!(again > b, "an update without a difference still counts");
    assert_eq!(reply.header("etag"), format!("W/\"{again}\""));
}

#[tokio::test]
async fn point_22_delta_links_list_deletions_and_expire() {
    let world = world().await;
    let gone = account(&world, "gone").await;
    account(&world, "kept").await;
    let first = world.get_with("accounts?$select=name", &TRACK).await.expect(200);
    assert_eq!(first.header("preference-applied"), "odata.track-changes");
    let link = first.json()["@odata.deltaLink"].as_str().unwrap().to_owned();
    assert!(link.contains("$deltatoken=") && link.contains("%21"), "{link}");
    world.delete(&format!("accounts({gone})"), &[]).await.expect(204);
    let delta = world.get(&link).await.expect(200).json();
    assert!(delta["@odata.context"].as_str().unwrap().ends_with("#accounts(name)/$delta"));
    let entry = &delta["value"][0];
    assert_eq!((&entry["id"], &entry["reason"]), (&json!(gone), &json!("deleted")));
    assert!(entry["@odata.context"].as_str().unwrap().ends_with("$metadata#accounts/$deletedEntity"));
    assert!(delta["@odata.deltaLink"].is_string());
    world.skip(8.0 * 86_400.0).await;
    world.get(&link).await.refused(400, "0x80044352");
}

#[tokio::test]
async fn point_23_tracked_reads_refuse_filters() {
    let world = world().await;
    let reply = world.get_with("accounts?$filter=name eq 'a'", &TRACK).await.expect(400);
    assert_eq!(reply.message(), "The \"$filter\" query parameter isn't supported when Change Tracking is enabled.");
    let reply = world.get_with("organizations", &TRACK).await.refused(400, "0x80072491");
    assert_eq!(reply.message(), "Entity organization isn't enabled for change tracking.");
}

#[tokio::test]
async fn point_24_created_and_deleted_in_between_is_a_deletion() {
    let world = world().await;
    let link =
        world.get_with("accounts?$select=name", &TRACK).await.json()["@odata.deltaLink"].as_str().unwrap().to_owned();
    let id = account(&world, "short").await;
    world.delete(&format!("accounts({id})"), &[]).await.expect(204);
    let delta = world.get(&link).await.expect(200).json();
    assert_eq!(delta["value"].as_array().unwrap().len(), 1);
    assert_eq!(delta["value"][0]["id"], id);
}

#[tokio::test]
async fn point_25_choices_are_numbers_and_labels_come_on_request() {
    let world = world().await;
    world.post("accounts", &json!({ "industrycode": "Consulting" })).await.expect(400);
    world.post("accounts", &json!({ "industrycode": 999 })).await.refused(400, "0x8004431a");
    let id = world.post("accounts", &json!({ "name": "a", "industrycode": 7 })).await.expect(204).id();
    let path = format!("accounts({id})?$select=industrycode");
    let name = "industrycode@OData.Community.Display.V1.FormattedValue";
    assert!(world.get(&path).await.json()[name].is_null());
    let shown = world.get_with(&path, &[("prefer", "odata.include-annotations=\"*\"")]).await.json();
    assert_eq!(shown[name], "Consulting");
}

#[tokio::test]
async fn point_26_dates() {
    let world = world().await;
    world
        .post("contacts", &json!({ "lastname": "a", "birthdate": "2000-01-01T00:00:00Z" }))
        .await
        .refused(400, "0x80040239");
    world.post("contacts", &json!({ "lastname": "a", "birthdate": "1752-12-31" })).await.refused(400, "0x80040239");
    let id = world
        .post(
            "contacts",
            &json!({ "lastname": "a", "birthdate": "2000-02-29", "lastonholdtime": "2026-01-01T01:30:00.9+01:00" }),
        )
        .await
        .expect(204)
        .id();
    let row = world.get(&format!("contacts({id})?$select=birthdate,lastonholdtime")).await.expect(200).json();
    assert_eq!((&row["birthdate"], &row["lastonholdtime"]), (&json!("2000-02-29"), &json!("2026-01-01T00:30:00Z")));
}

#[tokio::test]
async fn point_27_money_has_base_rate_and_currency() {
    let world = world().await;
    let currencies = world.get("transactioncurrencies?$filter=isocurrencycode eq 'USD'").await.json();
    let usd = currencies["value"][0]["transactioncurrencyid"].as_str().unwrap().to_owned();
    let body = json!({ "name": "a", "revenue": 12.7, "transactioncurrencyid@odata.bind": format!("/transactioncurrencies({usd})") });
    let id = world.post("accounts", &body).await.expect(204).id();
    let row = world.get(&format!("accounts({id})?$select=revenue,revenue_base,exchangerate")).await.expect(200).json();
    assert_eq!((row["revenue_base"].as_f64(), row["exchangerate"].as_f64()), (Some(10.0), Some(1.27)));
    let id = world.post("accounts", &json!({ "name": "b", "revenue": 3 })).await.expect(204).id();
    let row = world.get(&format!("accounts({id})?$select=revenue_base")).await.expect(200).json();
    assert_eq!(row["revenue_base"].as_f64(), Some(3.0));
}

#[tokio::test]
async fn point_28_state_and_status_go_together() {
    let world = world().await;
    let id = account(&world, "a").await;
    let path = format!("accounts({id})");
    world.patch(&path, &[], &json!({ "statecode": 1, "statuscode": 1 })).await.refused(400, "0x80048408");
    world.patch(&path, &[], &json!({ "statecode": 1 })).await.expect(204);
    assert_eq!(world.get(&path).await.json()["statuscode"], 2);
    let case = json!({ "title": "t", "customerid_account@odata.bind": format!("/{path}") });
    let case = world.post("incidents", &case).await.expect(204).id();
    let path = format!("incidents({case})");
    world.patch(&path, &[], &json!({ "statecode": 1 })).await.refused(400, "0x80040233");
    let close = json!({ "Status": 5, "IncidentResolution": { "subject": "done", "incidentid@odata.bind": format!("/{path}") } });
    world.post("CloseIncident", &close).await.expect(204);
    let row =
        world.get(&format!("{path}?$expand=Incident_IncidentResolutions($select=subject)")).await.expect(200).json();
    assert_eq!((&row["statecode"], &row["statuscode"]), (&json!(1), &json!(5)));
    assert_eq!(row["Incident_IncidentResolutions"][0]["subject"], "done");
    world.patch(&path, &[], &json!({ "statecode": 0 })).await.expect(204);
    assert_eq!(world.get(&path).await.json()["statuscode"], 1);
}

#[tokio::test]
async fn point_29_a_key_becomes_active_by_and_by_or_fails() {
    let world = world().await;
    for _ in 0..2 {
        world.post("accounts", &json!({ "name": "same", "accountnumber": "1" })).await.expect(204);
    }
    let keys = "EntityDefinitions(LogicalName='account')/Keys";
    let body =
        |name: &str, column: &str| json!({ "SchemaName": name, "KeyAttributes": [column], "DisplayName": label(name) });
    world.control("settings", &json!({ "key_delay_s": 100.0 })).await;
    world.post(keys, &body("wr_Number", "accountnumber")).await.expect(204);
    world.post(keys, &body("wr_Site", "websiteurl")).await.expect(204);
    let status = async || {
        let keys = world.get(&format!("{keys}?$select=SchemaName,EntityKeyIndexStatus")).await.expect(200).json();
        let keys = keys["value"].as_array().unwrap().clone();
        keys.iter().map(|key| key["EntityKeyIndexStatus"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(status().await, ["Pending", "Pending"]);
    world.get("accounts(websiteurl='x')").await.refused(400, "0x80060890");
    world.skip(60.0).await;
    assert_eq!(status().await, ["InProgress", "InProgress"]);
    world.skip(60.0).await;
    assert_eq!(status().await, ["Failed", "Active"]);
    world.get("accounts(websiteurl='x')").await.refused(404, "0x80060891");
}

#[tokio::test]
async fn point_30_new_columns_show_after_a_lag_unless_read_strongly() {
    let world = world().await;
    world.order_table().await;
    world.control("settings", &json!({ "metadata_lag_s": 20.0 })).await;
    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.BigIntAttributeMetadata", "SchemaName": "wr_New", "DisplayName": label("New") });
    world.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
    let path = "wr_orders?$top=1&$select=wr_new";
    world.get(path).await.refused(400, "0x80060888");
    world.get_with(path, &[("consistency", "Strong")]).await.expect(200);
    world.skip(21.0).await;
    world.get(path).await.expect(200);
}

#[tokio::test]
async fn point_31_limits_are_per_user_and_server() {
    let options =
        Options { profile: ProfileName::Realistic, servers: Some(2), time_scale: 1000.0, ..Options::default() };
    let world = world_with(options).await;
    world.control("limits", &json!({ "requests": 3, "window_s": 100_000.0 })).await;
    let on = async |server: u16| world.get_with("WhoAmI", &[("cookie", &format!("ARRAffinity=server-{server}"))]).await;
    for _ in 0..3 {
        on(0).await.expect(200);
    }
    let first = on(0).await.refused(429, "0x80072322");
    on(1).await.expect(200);
    let wait = |reply: &crate::support::Reply| reply.header("retry-after").parse::<u64>().unwrap();
    world.skip(wait(&first) as f64 + 10.0).await;
    on(0).await.expect(200);
    world.control("limits", &json!({ "requests": 6000, "concurrent": 0 })).await;
    on(0).await.refused(429, "0x80072326");
    world.control("limits", &json!({ "concurrent": 52, "execution_ms": 1.0 })).await;
    on(0).await.refused(429, "0x80072321");
}

#[tokio::test]
async fn point_32_duplicates_are_detected_on_request_only() {
    let world = world().await;
    let rule = json!({ "name": "same name", "baseentityname": "account", "matchingentityname": "account", "statecode": 1, "statuscode": 2 });
    let rule = world.post("duplicaterules", &rule).await.expect(204).id();
    let condition = json!({ "regardingobjectid@odata.bind": format!("/duplicaterules({rule})"), "baseattributename": "name", "matchingattributename": "name" });
    world.post("duplicateruleconditions", &condition).await.expect(204);
    for _ in 0..2 {
        world.post("accounts", &json!({ "name": "Contoso" })).await.expect(204);
    }
    let asks = [("mscrm.suppressduplicatedetection", "false")];
    world.post_with("accounts", &asks, &json!({ "name": "contoso" })).await.refused(412, "0x80040333");
    world.post_with("accounts", &asks, &json!({ "name": "other" })).await.expect(204);
}

#[tokio::test]
async fn point_33_requests_take_simulated_time() {
    let options = Options { profile: ProfileName::Realistic, time_scale: 200.0, ..Options::default() };
    let world = world_with(options).await;
    let rows = (0..500).map(|n| json!({ "name": format!("{n}") })).collect();
    world.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", &targets("account", rows)).await.expect(200);
    let stats = world.stats().await;
    let busy: f64 = stats["busy"].as_array().unwrap().iter().map(|lane| lane["busy_ms"].as_f64().unwrap()).sum();
    assert!((2500.0..=10_000.0).contains(&busy), "{busy}");
    assert!(stats["simulated_seconds"].as_f64().unwrap() >= busy / 1000.0);
}

#[tokio::test]
async fn point_34_deletes_cascade() {
    let world = world().await;
    world.order_table().await;
    world.relate("wr_account_wr_order_hard", "account", "wr_order", "wr_OwnerAccountId", "Restrict").await;
    let (linked, held) = (account(&world, "linked").await, account(&world, "held").await);
    let order = json!({ "wr_AccountId@odata.bind": format!("/accounts({linked})"), "wr_OwnerAccountId@odata.bind": format!("/accounts({held})") });
    let order = world.post("wr_orders", &order).await.expect(204).id();
    world.delete(&format!("accounts({held})"), &[]).await.refused(405, "0x80040227");
    world.delete(&format!("accounts({linked})"), &[]).await.expect(204);
    let row = world.get(&format!("wr_orders({order})")).await.expect(200).json();
    assert!(row["_wr_accountid_value"].is_null());
    assert_eq!(row["_wr_owneraccountid_value"], held);
}

#[tokio::test]
async fn point_35_the_caller_owns_what_it_makes() {
    let world = world().await;
    let me = world.get("WhoAmI").await.json();
    let id = account(&world, "a").await;
    let row = world.get(&format!("accounts({id})")).await.json();
    for column in ["_ownerid_value", "_createdby_value", "_modifiedby_value", "_owninguser_value"] {
        assert_eq!(row[column], me["UserId"], "{column}");
    }
    assert_eq!(row["_owningbusinessunit_value"], me["BusinessUnitId"]);
    let body = json!({ "name": "b", "overriddencreatedon": "2020-01-01T00:00:00Z" });
    let id = world.post("accounts", &body).await.expect(204).id();
    assert_eq!(world.get(&format!("accounts({id})")).await.json()["createdon"], "2020-01-01T00:00:00Z");
}

#[tokio::test]
async fn point_36_missing_expired_and_foreign_tokens_are_refused() {
    let world = world().await;
    let ready = world.emulator.ready();
    let reply = send(world.client.get(format!("{}/WhoAmI", world.base))).await.refused(401, "0x80044302");
    assert!(reply.header("www-authenticate").starts_with("Bearer authorization_uri="));
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=https%3A%2F%2Fother.example%2F.default",
        ready.client_id, ready.client_secret
    );
    let request =
        world.client.post(&ready.token_url).header("content-type", "application/x-www-form-urlencoded").body(form);
    let token = send(request).await.expect(200).json()["access_token"].as_str().unwrap().to_owned();
    send(world.client.get(format!("{}/WhoAmI", world.base)).bearer_auth(token)).await.refused(401, "0x80040277");
}

#[tokio::test]
async fn point_37_unknown_properties_are_refused() {
    let world = world().await;
    let reply = world.post("accounts", &json!({ "Name": "a" })).await.expect(400);
    assert!(reply.message().contains("The property 'Name' does not exist on type 'Microsoft.Dynamics.CRM.account'."));
    world.get("accounts?$select=nonsense").await.expect(400);
    world.get("accounts?$filter=nonsense eq 1").await.expect(400);
}

#[tokio::test]
async fn point_38_null_clears_and_absence_keeps() {
    let world = world().await;
    let id = world.post("accounts", &json!({ "name": "a", "telephone1": "1", "fax": "2" })).await.expect(204).id();
    let path = format!("accounts({id})");
    world.patch(&path, &[("if-match", "*")], &json!({ "telephone1": null })).await.expect(204);
    let row = world.get(&path).await.json();
    assert_eq!((&row["telephone1"], &row["fax"]), (&Json::Null, &json!("2")));
}

#[tokio::test]
async fn point_39_delete_multiple_is_for_elastic_tables() {
    let world = world().await;
    let id = account(&world, "a").await;
    let body = targets("account", vec![json!({ "accountid": id })]);
    let reply = world.post("accounts/Microsoft.Dynamics.CRM.DeleteMultiple", &body).await.expect(400);
    assert_eq!(reply.message(), "DeleteMultiple has not yet been implemented.");
    let mut reading = table("wr_Reading", "Reading");
    reading["TableType"] = "Elastic".into();
    world.post("EntityDefinitions", &reading).await.expect(204);
    let id = world.post("wr_readings", &json!({ "wr_name": "a", "partitionid": "dev-1" })).await.expect(204);
    assert!(!id.header("x-ms-session-token").is_empty());
    let id = world.get("wr_readings").await.json()["value"][0]["wr_readingid"].as_str().unwrap().to_owned();
    world.get(&format!("wr_readings({id})?partitionId=dev-1")).await.expect(200);
    let body = targets("wr_reading", vec![json!({ "wr_readingid": id, "partitionid": "dev-1" })]);
    world.post("wr_readings/Microsoft.Dynamics.CRM.DeleteMultiple", &body).await.expect(204);
    assert_eq!(world.get("wr_readings/$count").await.text, "0");
}

#[tokio::test]
async fn point_40_message_filters_answer_the_probe() {
    let world = world().await;
    let probe = async |message: &str, table: &str| {
        let path = format!(
            "sdkmessagefilters?$select=sdkmessagefilterid&$filter=sdkmessageid/name eq @m and primaryobjecttypecode eq @t&@m='{message}'&@t='{table}'"
        );
        world.get(&path).await.expect(200).json()["value"].as_array().unwrap().len()
    };
    world.order_table().await;
    assert_eq!(probe("CreateMultiple", "account").await, 1);
    assert_eq!(probe("UpdateMultiple", "wr_order").await, 1);
    assert_eq!(probe("UpsertMultiple", "account").await, 0);
    assert_eq!(probe("CreateMultiple", "incidentresolution").await, 0);
}
