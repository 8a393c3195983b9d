//! Filter functions that depend on rows: hierarchies, teams, the fiscal calendar; lambdas.

use serde_json::{Value as Json, json};

use crate::support::{World, world};

async fn names(world: &World, filter: &str) -> Vec<String> {
    let filter = filter.replace(' ', "%20");
    let reply = world.get(&format!("accounts?$select=name&$orderby=name&$filter={filter}")).await.expect(200);
    let rows = reply.json()["value"].as_array().expect("rows").clone();
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

async fn account(world: &World, name: &str, parent: Option<&str>) -> String {
    let mut body = json!({ "name": name });
    if let Some(parent) = parent {
        body["parentaccountid@odata.bind"] = format!("/accounts({parent})").into();
    }
    world.post("accounts", &body).await.expect(204).id()
}

fn call(function: &str, column: &str, value: &str) -> String {
    format!("Microsoft.Dynamics.CRM.{function}(PropertyName='{column}',PropertyValue='{value}')")
}

#[tokio::test]
async fn hierarchies_are_followed_up_and_down() {
    let world = world().await;
    let top = account(&world, "A top", None).await;
    let middle = account(&world, "B middle", Some(&top)).await;
    account(&world, "C leaf", Some(&middle)).await;
    account(&world, "D other", None).await;
    assert_eq!(names(&world, &call("Under", "accountid", &top)).await, ["B middle", "C leaf"]);
    assert_eq!(names(&world, &call("UnderOrEqual", "accountid", &middle)).await, ["B middle", "C leaf"]);
    assert_eq!(names(&world, &call("NotUnder", "accountid", &top)).await, ["A top", "D other"]);
    assert_eq!(names(&world, &call("Above", "accountid", &middle)).await, ["A top"]);
    assert_eq!(names(&world, &call("AboveOrEqual", "accountid", &middle)).await, ["A top", "B middle"]);
    let path = format!("accounts?$filter={}", call("Under", "name", &top).replace(' ', "%20"));
    world.get(&path).await.refused(400, "0x80047020");
}

#[tokio::test]
async fn the_fiscal_year_is_the_organisations() {
    let world = world().await;
    let organization = world.emulator.ready().organization.clone();
    let path = format!("organizations({organization})");
    let calendar = json!({ "fiscalcalendarstart": "2026-04-01T00:00:00Z", "fiscalperiodtype": 2002 });
    world.patch(&path, &[("if-match", "*")], &calendar).await.expect(204);
    for (name, at) in
        [("March", "2024-03-31T12:00:00Z"), ("April", "2024-04-01T12:00:00Z"), ("June", "2024-06-30T12:00:00Z")]
    {
        world.post("accounts", &json!({ "name": name, "overriddencreatedon": at })).await.expect(204);
    }
    assert_eq!(names(&world, &call("InFiscalYear", "createdon", "2024")).await, ["April", "June"]);
    assert_eq!(names(&world, &call("InFiscalYear", "createdon", "2023")).await, ["March"]);
    let both = |function: &str| {
        format!("Microsoft.Dynamics.CRM.{function}(PropertyName='createdon',PropertyValues=[\"4\",\"2023\"])")
    };
    assert_eq!(names(&world, &both("InFiscalPeriodAndYear")).await, ["March"]);
    assert_eq!(names(&world, &both("InOrAfterFiscalPeriodAndYear")).await, ["April", "June", "March"]);
    assert_eq!(names(&world, &call("InFiscalPeriod", "createdon", "1")).await, ["April", "June"]);
    assert_eq!(names(&world, "Microsoft.Dynamics.CRM.ThisFiscalYear(PropertyName='createdon')").await, [] as [&str; 0]);
}

#[tokio::test]
async fn users_see_their_teams_and_those_below_them() {
    let world = world().await;
    let me = world.get("WhoAmI").await.json()["UserId"].as_str().unwrap().to_owned();
    let unit = world.get("WhoAmI").await.json()["BusinessUnitId"].as_str().unwrap().to_owned();
    let user = json!({ "firstname": "Bo", "lastname": "Low", "domainname": "bo@contoso.example",
        "businessunitid@odata.bind": format!("/businessunits({unit})"), "parentsystemuserid@odata.bind": format!("/systemusers({me})") });
    let below = world.post("systemusers", &user).await.expect(204).id();
    let team = json!({ "name": "Crew", "businessunitid@odata.bind": format!("/businessunits({unit})") });
    let team = world.post("teams", &team).await.expect(204).id();
    for (name, owner) in
        [("mine", None), ("below", Some(format!("/systemusers({below})"))), ("team", Some(format!("/teams({team})")))]
    {
        let mut body = json!({ "name": name });
        if let Some(owner) = owner {
            body["ownerid@odata.bind"] = owner.into();
        }
        world.post("accounts", &body).await.expect(204);
    }
    let of = |function: &str| format!("Microsoft.Dynamics.CRM.{function}(PropertyName='ownerid')");
    let owner = |function: &str| of(function).replace("'ownerid'", "'_ownerid_value'");
    assert_eq!(names(&world, &owner("EqualUserId")).await, ["mine"]);
    assert_eq!(names(&world, &owner("EqualUserOrUserHierarchy")).await, ["below", "mine"]);
    assert_eq!(names(&world, &owner("EqualUserTeams")).await, [] as [&str; 0]);
    let link = json!({ "@odata.id": format!("{}/systemusers({me})", world.base) });
    world.post(&format!("teams({team})/teammembership_association/$ref"), &link).await.expect(204);
    assert_eq!(names(&world, &owner("EqualUserTeams")).await, ["team"]);
    assert_eq!(names(&world, &owner("EqualUserOrUserTeams")).await, ["mine", "team"]);
    assert_eq!(names(&world, &owner("EqualUserOrUserHierarchyAndTeams")).await, ["below", "mine", "team"]);
}

#[tokio::test]
async fn lambdas_nest_and_begin_behind_lookups() {
    let world = world().await;
    let top = account(&world, "Top", None).await;
    account(&world, "Child", Some(&top)).await;
    let contact =
        |last: &str| json!({ "lastname": last, "parentcustomerid_account@odata.bind": format!("/accounts({top})") });
    let id = world.post("contacts", &contact("Ash")).await.expect(204).id();
    let case = json!({ "title": "Leak", "customerid_contact@odata.bind": format!("/contacts({id})") });
    world.post("incidents", &case).await.expect(204);
    assert_eq!(names(&world, "contact_customer_accounts/any(c:c/lastname eq 'ash')").await, ["Top"]);
    let nested = "contact_customer_accounts/any(c:c/incident_customer_contacts/any(i:i/title eq 'leak'))";
    assert_eq!(names(&world, nested).await, ["Top"]);
    assert_eq!(names(&world, "parentaccountid/contact_customer_accounts/any(c:c/lastname eq 'Ash')").await, ["Child"]);
    assert_eq!(names(&world, "contact_customer_accounts/all(c:c/lastname eq 'x')").await, ["Child"]);
    let inside = format!("contact_customer_accounts/any(c:{})", call("In", "c/lastname", "Ash"));
    assert_eq!(names(&world, &inside).await, ["Top"]);
    world.get("accounts?$filter=contact_customer_accounts/all()").await.refused(400, "0x80060888");
}

#[tokio::test]
async fn choices_are_tested_by_their_values() {
    let world = world().await;
    world.order_table().await;
    let options: Vec<Json> =
        [1, 2, 3].iter().map(|value| json!({ "Value": value, "Label": crate::support::label("x") })).collect();
    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata", "SchemaName": "wr_Tags",
        "DisplayName": crate::support::label("Tags"), "OptionSet": { "IsGlobal": false, "Options": options } });
    world.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
    world.post("wr_orders", &json!({ "wr_name": "a", "wr_tags": "1,3" })).await.expect(204);
    world.post("wr_orders", &json!({ "wr_name": "b", "wr_tags": "2" })).await.expect(204);
    let count = async |function: &str| {
        let path = format!(
            "wr_orders/$count?$filter=Microsoft.Dynamics.CRM.{function}(PropertyName='wr_tags',PropertyValues=[\"1\",\"3\"])"
        );
        world.get(&path).await.expect(200).text
    };
    assert_eq!((count("ContainValues").await, count("DoesNotContainValues").await), ("1".to_owned(), "1".to_owned()));
    let path = "wr_orders?$filter=Microsoft.Dynamics.CRM.ContainValues(PropertyName='wr_name',PropertyValues=[\"1\"])";
    world.get(path).await.refused(400, "0x80041120");
}

#[tokio::test]
async fn rows_named_by_their_ids_are_found_with_whatever_else_is_asked_of_them() {
    let world = world().await;
    let mut ids = Vec::new();
    for name in ["A", "B", "C", "D"] {
        ids.push(account(&world, name, None).await);
    }
    let missing = "11111111-2222-3333-4444-555555555555";
    let list = format!("[\"{}\",\"{}\",\"{missing}\",\"{}\"]", ids[3], ids[0], ids[1]);
    let among = format!("Microsoft.Dynamics.CRM.In(PropertyName='accountid',PropertyValues={list})");
    assert_eq!(names(&world, &among).await, ["A", "B", "D"]);
    assert_eq!(names(&world, &format!("{among} and name ne 'B'")).await, ["A", "D"]);
    assert_eq!(names(&world, &format!("name eq 'C' or {among}")).await, ["A", "B", "C", "D"]);
    assert_eq!(names(&world, &format!("not {among}")).await, ["C"]);
    assert_eq!(names(&world, &format!("accountid eq {}", ids[2])).await, ["C"]);
    assert_eq!(names(&world, &format!("accountid eq {missing}")).await, [""; 0]);
    let path = format!("accounts?$select=name&$filter={}", among.replace(' ', "%20"));
    let mut reply = world.get_with(&path, &[("prefer", "odata.maxpagesize=2")]).await.expect(200).json();
    assert_eq!(reply["value"].as_array().expect("rows").len(), 2);
    let link = reply["@odata.nextLink"].as_str().expect("a next page").to_owned();
    let rest = link.split("/api/data/v9.2/").nth(1).expect("a path");
    reply = world.get_with(rest, &[("prefer", "odata.maxpagesize=2")]).await.expect(200).json();
    assert_eq!((reply["value"].as_array().expect("rows").len(), reply.get("@odata.nextLink")), (1, None));
}
