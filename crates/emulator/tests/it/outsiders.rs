//! Requests that clients send and no other test does: odd but legal forms, and what is refused by name.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::support::{World, send, world};

async fn account(world: &World, body: Json) -> String {
    world.post("accounts", &body).await.expect(204).id()
}

fn names(answer: &Json, member: &str) -> Vec<String> {
    let rows = answer["value"].as_array().expect("a collection");
    rows.iter().map(|row| row[member].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn lists_of_filter_functions_come_in_either_quotes() {
    let world = world().await;
    for name in ["One", "Two", "O'Three"] {
        account(&world, json!({ "name": name })).await;
    }
    for (list, found) in
        [("['One','Two']", 2), ("[\"One\",\"O'Three\"]", 2), ("[ 'O''Three' , 'none' ]", 1), ("['One']", 1)]
    {
        let filter = format!("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues={list})");
        let rows = world.get(&format!("accounts?$select=name&$filter={filter}")).await.expect(200).json();
        assert_eq!(names(&rows, "name").len(), found, "{list}");
    }
    for wrong in ["['One'", "['One' 'Two']", "[One]", "['One',]"] {
        let filter = format!("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues={wrong})");
        world.get(&format!("accounts?$filter={filter}")).await.refused(400, "0x80060888");
    }
}

#[tokio::test]
async fn a_null_navigation_property_clears_its_lookup() {
    let world = world().await;
    let parent = account(&world, json!({ "name": "parent" })).await;
    let child = account(
        &world,
        json!({ "name": "child", "primarycontactid": null,
        "parentaccountid@odata.bind": format!("/accounts({parent})") }),
    )
    .await;
    let path = format!("accounts({child})");
    world.patch(&path, &[("if-match", "*")], &json!({ "parentaccountid": null })).await.expect(204);
    let row = world.get(&format!("{path}?$select=_parentaccountid_value")).await.expect(200).json();
    assert!(row["_parentaccountid_value"].is_null());
}

#[tokio::test]
async fn a_row_of_a_collection_and_the_value_of_a_lookup_have_addresses() {
    let world = world().await;
    let parent = account(&world, json!({ "name": "parent" })).await;
    let contact = json!({ "lastname": "in", "parentcustomerid_account@odata.bind": format!("/accounts({parent})") });
    let inside = world.post("contacts", &contact).await.expect(204).id();
    let outside = world.post("contacts", &json!({ "lastname": "out" })).await.expect(204).id();
    let path = format!("accounts({parent})/contact_customer_accounts");
    assert_eq!(world.get(&format!("{path}({inside})?$select=lastname")).await.expect(200).json()["lastname"], "in");
    world.get(&format!("{path}({outside})")).await.refused(404, "0x80040217");
    let value = world.get(&format!("contacts({inside})/_parentcustomerid_value")).await.expect(200).json();
    assert_eq!(value["value"], parent);
    let put = world.request(Method::PUT, &format!("contacts({inside})/_parentcustomerid_value")).json(&value);
    send(put).await.expect(404);
}

#[tokio::test]
async fn a_caller_that_is_no_user_is_nobody() {
    let world = world().await;
    let nobody = "11111111-1111-4111-8111-111111111111";
    for header in ["MSCRMCallerID", "CallerObjectId"] {
        world.get_with("WhoAmI", &[(header, nobody)]).await.refused(403, "0x8004a110");
    }
    let unit = json!({ "name": "North", "parentbusinessunitid@odata.bind": format!("/businessunits({})",
        world.get("WhoAmI").await.json()["BusinessUnitId"].as_str().unwrap()) });
    let unit = world.post("businessunits", &unit).await.expect(204).id();
    let user = json!({ "domainname": "ann@contoso.example", "lastname": "Ann",
        "businessunitid@odata.bind": format!("/businessunits({unit})") });
    let user = world.post("systemusers", &user).await.expect(204).id();
    let me = world.get_with("WhoAmI", &[("MSCRMCallerID", &user)]).await.expect(200).json();
    assert_eq!((&me["UserId"], &me["BusinessUnitId"]), (&json!(user), &json!(unit)));
}

#[tokio::test]
async fn views_are_queries() {
    let world = world().await;
    account(&world, json!({ "name": "b" })).await;
    account(&world, json!({ "name": "a" })).await;
    let closed = account(&world, json!({ "name": "closed" })).await;
    let state = json!({ "statecode": 1, "statuscode": 2 });
    world.patch(&format!("accounts({closed})"), &[("if-match", "*")], &state).await.expect(204);
    let views = "savedqueries?$select=savedqueryid&$filter=name eq 'Active Accounts' and returnedtypecode eq 'account'";
    let views = world.get(views).await.expect(200).json();
    let view = views["value"][0]["savedqueryid"].as_str().unwrap().to_owned();
    let rows = world.get(&format!("accounts?savedQuery={view}")).await.expect(200).json();
    assert_eq!(names(&rows, "name"), ["a", "b"]);
    world.get(&format!("contacts?savedQuery={view}")).await.expect(400);
    let own = json!({ "name": "Bs", "returnedtypecode": "account", "querytype": 0, "fetchxml":
        "<fetch><entity name='account'><attribute name='name'/><filter><condition attribute='name' operator='eq' value='b'/></filter></entity></fetch>" });
    let own = world.post("userqueries", &own).await.expect(204).id();
    let rows = world.get(&format!("accounts?userQuery={own}")).await.expect(200).json();
    assert_eq!(names(&rows, "name"), ["b"]);
    world.get(&format!("accounts?userQuery={view}")).await.refused(404, "0x80040217");
    world.get("accounts?savedQuery=mine").await.expect(400);
}

#[tokio::test]
async fn rows_of_a_hierarchy_count_their_children() {
    let world = world().await;
    let top = account(&world, json!({ "name": "top" })).await;
    for name in ["left", "right"] {
        account(&world, json!({ "name": name, "parentaccountid@odata.bind": format!("/accounts({top})") })).await;
    }
    let query = |attribute: &str| {
        format!(
            "accounts?fetchXml=<fetch><entity name='account'><attribute name='name'/>{attribute}<order attribute='name'/></entity></fetch>"
        )
    };
    let counted = "<attribute name='accountid' alias='below' rowaggregate='CountChildren'/>";
    let rows = world.get(&query(counted)).await.expect(200).json();
    let below: Vec<&Json> = rows["value"].as_array().unwrap().iter().map(|row| &row["below"]).collect();
    assert_eq!(below, [&json!(0), &json!(0), &json!(2)]);
    world.get(&query("<attribute name='accountid' rowaggregate='CountChildren'/>")).await.expect(400);
    world.get(&query("<attribute name='accountid' alias='n' rowaggregate='Sum'/>")).await.expect(400);
    let contacts = "contacts?fetchXml=<fetch><entity name='contact'><attribute name='contactid' alias='n' rowaggregate='CountChildren'/></entity></fetch>";
    world.get(contacts).await.expect(400);
}

#[tokio::test]
async fn other_services_of_an_environment_are_refused_by_name() {
    let world = world().await;
    for (method, path, name) in [
        (Method::POST, "/XRMServices/2011/Organization.svc/web?SDKClientVersion=9.2", "The SOAP Organization service"),
        (Method::GET, "/XRMServices/2011/Discovery.svc", "The SOAP discovery service"),
        (Method::GET, "/api/discovery/v2.0/Instances", "The discovery service"),
        (Method::POST, "/api/search/v2.0/query", "Dataverse search"),
    ] {
        let reply = send(world.client.request(method, format!("{}{path}", world.root))).await.expect(501);
        assert!(reply.text.contains(name) && reply.text.contains("is not implemented"), "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn duplicates_are_alike_in_the_ways_that_rules_name() {
    // Operator and its parameter, whether blanks are ignored, one value, another: a duplicate or not.
    for (operator, parameter, ignores_blanks, first, second, is_duplicate) in [
        (0, Json::Null, false, json!("Contoso"), json!("CONTOSO "), true),
        (0, Json::Null, false, json!("Contoso"), json!("Contoso Ltd"), false),
        (1, json!(4), false, json!("Contoso"), json!("conTROL"), true),
        (1, json!(5), false, json!("Contoso"), json!("conTROL"), false),
        (2, json!(3), false, json!("One Ltd"), json!("Two LTD"), true),
        (2, json!(4), false, json!("One Ltd"), json!("TwoxLTD"), false),
        (0, Json::Null, false, Json::Null, Json::Null, true),
        (0, Json::Null, true, Json::Null, Json::Null, false),
        (0, Json::Null, true, json!("a"), json!("a"), true),
    ] {
        let world = world().await;
        rule(&world, "accountnumber", operator, &parameter, ignores_blanks).await;
        account(&world, json!({ "name": "first", "accountnumber": first })).await;
        let row = json!({ "name": "second", "accountnumber": second });
        let reply = world.post_with("accounts", &[("MSCRM.SuppressDuplicateDetection", "false")], &row).await;
        let status = reply.status.as_u16();
        assert_eq!(status == 412, is_duplicate, "{operator} {parameter} {first} {second}: {status}");
    }
}

#[tokio::test]
async fn dates_are_alike_by_day_or_to_the_second() {
    for (operator, second, is_duplicate) in [
        (3, "2026-01-05T23:00:00Z", true),
        (3, "2026-01-06T00:00:00Z", false),
        (4, "2026-01-05T08:00:00Z", true),
        (4, "2026-01-05T08:00:01Z", false),
    ] {
        let world = world().await;
        rule(&world, "lastonholdtime", operator, &Json::Null, false).await;
        account(&world, json!({ "name": "first", "lastonholdtime": "2026-01-05T08:00:00Z" })).await;
        let row = json!({ "name": "second", "lastonholdtime": second });
        let reply = world.post_with("accounts", &[("MSCRM.SuppressDuplicateDetection", "false")], &row).await;
        assert_eq!(reply.status.as_u16() == 412, is_duplicate, "{operator} {second}");
    }
}

/// Gives accounts one published rule on one column.
async fn rule(world: &World, column: &str, operator: i32, parameter: &Json, ignores_blanks: bool) {
    let rule = json!({ "name": "rule", "baseentityname": "account", "matchingentityname": "account" });
    let rule = world.post("duplicaterules", &rule).await.expect(204).id();
    let condition = json!({ "regardingobjectid@odata.bind": format!("/duplicaterules({rule})"), "baseattributename": column,
        "matchingattributename": column, "operatorcode": operator, "operatorparam": parameter,
        "ignoreblankvalues": ignores_blanks });
    world.post("duplicateruleconditions", &condition).await.expect(204);
    let publish = json!({ "statecode": 1, "statuscode": 2 });
    world.patch(&format!("duplicaterules({rule})"), &[("if-match", "*")], &publish).await.expect(204);
}
