//! FetchXML: joins, filters, paging, aggregation, refusals.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::batches::{batch, part};
use crate::support::{Reply, World, world};

const ALL: &[(&str, &str)] = &[("prefer", "odata.include-annotations=\"*\"")];

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
    out
}

async fn fetch(world: &World, set: &str, xml: &str) -> Reply {
    world.get_with(&format!("{set}?fetchXml={}", encoded(xml)), ALL).await
}

/// A query as a part of a batch, where addresses may be longer.
async fn in_batch(world: &World, xml: &str) -> Reply {
    let request = format!("GET /api/data/v9.2/accounts?fetchXml={}", encoded(xml));
    batch(world, &[], &format!("{}--b--\n", part(&request, ""))).await
}

async fn rows(world: &World, set: &str, xml: &str) -> Vec<Json> {
    let reply = fetch(world, set, xml).await.expect(200);
    reply.json()["value"].as_array().expect("rows").clone()
}

fn column(rows: &[Json], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)).collect()
}

/// Three accounts; the first has two contacts, the second one, the third none.
async fn people(world: &World) -> Vec<String> {
    let mut ids = Vec::new();
    for (name, revenue) in [("Alpha", 100.5), ("Beta", 200.0), ("Gamma", 300.25)] {
        ids.push(world.post("accounts", &json!({ "name": name, "revenue": revenue })).await.expect(204).id());
    }
    for (first, last, at) in [("Ann", "Ash", 0), ("Bob", "Birch", 0), ("Cy", "Cedar", 1)] {
        let bind = format!("/accounts({})", ids[at]);
        let body = json!({ "firstname": first, "lastname": last, "parentcustomerid_account@odata.bind": bind });
        world.post("contacts", &body).await.expect(204);
    }
    ids
}

const LINK: &str = "<link-entity name='contact' from='parentcustomerid' to='accountid'";

#[tokio::test]
async fn links_join_inner_outer_and_by_existence() {
    let world = world().await;
    people(&world).await;
    let query = |rest: &str| {
        format!(
            "<fetch><entity name='account'><attribute name='name'/>{rest}<order attribute='name'/></entity></fetch>"
        )
    };
    let link = |kind: &str, inside: &str| query(&format!("{LINK} link-type='{kind}' alias='c'>{inside}</link-entity>"));
    let inner = rows(&world, "accounts", &link("inner", "<attribute name='lastname'/>")).await;
    assert_eq!(column(&inner, "name"), ["Alpha", "Alpha", "Beta"]);
    assert_eq!(column(&inner, "c.lastname"), ["Ash", "Birch", "Cedar"]);
    let outer = rows(&world, "accounts", &link("outer", "<attribute name='lastname'/>")).await;
    assert_eq!(column(&outer, "name"), ["Alpha", "Alpha", "Beta", "Gamma"]);
    assert!(outer[3].get("c.lastname").is_none());
    let none = format!(
        "{}<filter><condition entityname='c' attribute='contactid' operator='null'/></filter>",
        format_args!("{LINK} link-type='outer' alias='c'/>")
    );
    assert_eq!(column(&rows(&world, "accounts", &query(&none)).await, "name"), ["Gamma"]);
    for kind in ["exists", "in"] {
        assert_eq!(column(&rows(&world, "accounts", &link(kind, "")).await, "name"), ["Alpha", "Beta"]);
    }
    let first = rows(&world, "accounts", &link("matchfirstrowusingcrossapply", "<attribute name='lastname'/>")).await;
    assert_eq!(column(&first, "c.lastname"), ["Ash", "Cedar"]);
    let filtered = |kind: &str| {
        let inside = "<filter><condition attribute='lastname' operator='begins-with' value='b'/></filter>";
        query(&format!("<filter>{LINK} link-type='{kind}'>{inside}</link-entity></filter>"))
    };
    assert_eq!(column(&rows(&world, "accounts", &filtered("any")).await, "name"), ["Alpha"]);
    assert_eq!(column(&rows(&world, "accounts", &filtered("not any")).await, "name"), ["Beta", "Gamma"]);
    assert_eq!(column(&rows(&world, "accounts", &filtered("all")).await, "name"), ["Beta"]);
    assert_eq!(column(&rows(&world, "accounts", &filtered("not all")).await, "name"), ["Alpha"]);
}

#[tokio::test]
async fn lookups_aliases_and_display_texts_come_with_their_annotations() {
    let world = world().await;
    let ids = people(&world).await;
    let xml = "<fetch><entity name='contact'><attribute name='lastname' alias='surname'/><attribute name='parentcustomerid'/>\
               <filter type='or'><condition attribute='parentcustomerid' operator='eq' value='ID'/></filter>\
               <link-entity name='account' from='accountid' to='parentcustomerid'><attribute name='revenue'/></link-entity>\
               </entity></fetch>";
    let rows = rows(&world, "contacts", &xml.replace("ID", &ids[1])).await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row["surname"], "Cedar");
    assert_eq!(row["surname@OData.Community.Display.V1.AttributeName"], "lastname");
    assert_eq!(row["_parentcustomerid_value"], *ids[1]);
    assert_eq!(row["_parentcustomerid_value@OData.Community.Display.V1.FormattedValue"], "Beta");
    assert_eq!(row["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"], "account");
    assert_eq!(row["account1.revenue"], 200.0);
    assert_eq!(row["account1.revenue@OData.Community.Display.V1.FormattedValue"], "£200.00");
    assert!(row["contactid"].is_string() && row["@odata.etag"].is_string());
}

#[tokio::test]
async fn a_paging_cookie_leads_through_all_rows_once() {
    let world = world().await;
    for index in 0..7 {
        world.post("accounts", &json!({ "name": format!("A{}", index % 3) })).await.expect(204);
    }
    for order in ["", "<order attribute='name' descending='true'/>"] {
        let (mut seen, mut page, mut cookie) = (Vec::new(), 1, String::new());
        loop {
            let paging = if cookie.is_empty() { String::new() } else { format!(" paging-cookie='{cookie}'") };
            let xml = format!(
                "<fetch count='3' page='{page}'{paging}><entity name='account'><attribute name='name'/>{order}</entity></fetch>"
            );
            let answer = fetch(&world, "accounts", &xml).await.expect(200).json();
            seen.extend(answer["value"].as_array().unwrap().iter().map(|row| row["accountid"].to_string()));
            if answer["@Microsoft.Dynamics.CRM.morerecords"] == false {
                assert!(answer.get("@Microsoft.Dynamics.CRM.fetchxmlpagingcookie").is_none());
                break;
            }
            let outer = answer["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"].as_str().unwrap().to_owned();
            assert!(
                outer.starts_with(&format!("<cookie pagenumber=\"{}\" pagingcookie=\"%253ccookie", page + 1)),
                "{outer}"
            );
            let inner = outer.split('"').nth(3).unwrap();
            let decode = |text: &str| percent_decode(text);
            cookie = decode(&decode(inner)).replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            page += 1;
        }
        assert_eq!(seen.len(), 7);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7, "{order}");
    }
}

fn percent_decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(&after[..2]).expect("two digits");
            out.push(u8::from_str_radix(hex, 16).expect("hexadecimal"));
            rest = &after[2..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    String::from_utf8(out).expect("text")
}

#[tokio::test]
async fn an_order_by_a_linked_column_pages_by_number_only() {
    let world = world().await;
    people(&world).await;
    let xml = |page: u32| {
        format!(
            "<fetch count='2' page='{page}'><entity name='account'><attribute name='name'/>{LINK} alias='c'>\
             <attribute name='lastname'/><order attribute='lastname' descending='true'/></link-entity></entity></fetch>"
        )
    };
    let first = fetch(&world, "accounts", &xml(1)).await.expect(200).json();
    assert_eq!(first["@Microsoft.Dynamics.CRM.morerecords"], true);
    assert!(first.get("@Microsoft.Dynamics.CRM.fetchxmlpagingcookie").is_none());
    assert_eq!(column(first["value"].as_array().unwrap(), "c.lastname"), ["Cedar", "Birch"]);
    assert_eq!(column(&rows(&world, "accounts", &xml(2)).await, "c.lastname"), ["Ash"]);
    fetch(&world, "accounts", &xml(30_000)).await.refused(400, "0x8004430a");
}

#[tokio::test]
async fn aggregates_group_add_up_and_sort_by_alias() {
    let world = world().await;
    people(&world).await;
    let xml = format!(
        "<fetch aggregate='true'><entity name='account'><attribute name='name' alias='n' groupby='true'/>\
         <attribute name='revenue' alias='total' aggregate='sum'/>{LINK} link-type='outer'>\
         <attribute name='contactid' alias='people' aggregate='countcolumn'/></link-entity>\
         <order alias='people' descending='true'/></entity></fetch>"
    );
    let found = rows(&world, "accounts", &xml).await;
    assert_eq!(column(&found, "n"), ["Alpha", "Beta", "Gamma"]);
    assert_eq!(column(&found, "people"), ["2", "1", "0"]);
    assert_eq!(column(&found, "total"), ["201.0", "200.0", "300.25"]);
    let parts = "<fetch aggregate='true'><entity name='account'><attribute name='createdon' alias='y' groupby='true' dategrouping='year'/>\
                 <attribute name='accountid' alias='n' aggregate='count'/><attribute name='revenue' alias='m' aggregate='max'/>\
                 <attribute name='revenue' alias='a' aggregate='avg'/></entity></fetch>";
    let found = rows(&world, "accounts", parts).await;
    assert_eq!(
        (found.len(), &found[0]["n"], &found[0]["m"], &found[0]["a"]),
        (1, &json!(3), &json!(300.25), &json!(200.25))
    );
    assert!(found[0]["y"].as_i64().unwrap() >= 2024);
}

#[tokio::test]
async fn distinct_top_and_totals() {
    let world = world().await;
    for name in ["One", "One", "Two"] {
        world.post("accounts", &json!({ "name": name })).await.expect(204);
    }
    let entity = "<entity name='account'><attribute name='name'/></entity></fetch>";
    let found = rows(&world, "accounts", &format!("<fetch distinct='true'>{entity}")).await;
    assert_eq!(column(&found, "name"), ["One", "Two"]);
    assert!(found[0].get("accountid").is_none());
    assert_eq!(rows(&world, "accounts", &format!("<fetch top='2'>{entity}")).await.len(), 2);
    let total =
        fetch(&world, "accounts", &format!("<fetch count='1' returntotalrecordcount='true'>{entity}")).await.json();
    assert_eq!(total["@Microsoft.Dynamics.CRM.totalrecordcount"], 3);
}

#[tokio::test]
async fn columns_of_several_tables_compare_with_each_other() {
    let world = world().await;
    let id = world.post("accounts", &json!({ "name": "Same" })).await.expect(204).id();
    for last in ["Same", "Other"] {
        let bind = format!("/accounts({id})");
        world
            .post("contacts", &json!({ "lastname": last, "parentcustomerid_account@odata.bind": bind }))
            .await
            .expect(204);
    }
    let xml = "<fetch><entity name='contact'><attribute name='lastname'/><filter>\
               <condition attribute='lastname' operator='eq' valueof='a.name'/></filter>\
               <link-entity name='account' from='accountid' to='parentcustomerid' alias='a'/></entity></fetch>";
    assert_eq!(column(&rows(&world, "contacts", xml).await, "lastname"), ["Same"]);
}

#[tokio::test]
async fn a_long_query_travels_in_a_batch() {
    let world = world().await;
    world.post("accounts", &json!({ "name": "N0019" })).await.expect(204);
    let names: Vec<String> = (0..2000).map(|index| format!("<value>N{index:04}</value>")).collect();
    let names = names.concat();
    let xml = format!(
        "<fetch><entity name='account'><attribute name='name'/><filter><condition attribute='name' operator='in'>{names}\
         </condition></filter></entity></fetch>"
    );
    let reply = in_batch(&world, &xml).await.expect(200);
    assert!(reply.text.contains("N0019"), "{}", reply.text);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_has_its_own_code() {
    let world = world().await;
    let wrong = |inside: &str| format!("<fetch><entity name='account'>{inside}</entity></fetch>");
    for (xml, code) in [
        ("<fetch><entity name='contact'/></fetch>".to_owned(), "0x80041128"),
        (wrong("<attribute name='nothing'/>"), "0x80041103"),
        (wrong("<link-entity name='nothing' from='a' to='b'/>"), "0x80041102"),
        (wrong("<attribute name='name' alias='1x'/>"), "0x80041109"),
        (wrong("<attribute name='name' alias='x'/><attribute name='telephone1' alias='x'/>"), "0x80041130"),
        (wrong("<filter><condition attribute='name' operator='sounds'/></filter>"), "0x80041120"),
        (wrong("<filter><condition attribute='name' operator='last-x-days' value='2'/></filter>"), "0x80041120"),
        (wrong("<filter type='xor'/>"), "0x80041122"),
        (wrong("<filter><condition entityname='z' attribute='name' operator='null'/></filter>"), "0x8004110a"),
        (wrong(&"<link-entity name='contact' from='parentcustomerid' to='accountid'/>".repeat(16)), "0x8004430d"),
        (
            wrong(&format!("<filter>{}</filter>", "<condition attribute='name' operator='null'/>".repeat(501))),
            "0x8004430c",
        ),
        ("<fetch count='1' page='2' paging-cookie='x'><entity name='account'/></fetch>".to_owned(), "0x8004112a"),
        ("<fetch aggregate='true'><entity name='account'><attribute name='name' aggregate='count'/></entity></fetch>".to_owned(), "0x8004110b"),
        ("<fetch aggregate='true'><entity name='account'><attribute name='name' alias='n' aggregate='sum'/></entity></fetch>".to_owned(), "0x8004112f"),
        ("<fetch".to_owned(), "0x80040201"),
    ] {
        let query = in_batch(&world, &xml).await;
        assert!(query.text.contains(code), "{code}: {xml}: {}", query.text);
    }
}
