//! One collation: whatever asks whether two texts are the same gets the same answer.

use serde_json::{Value as Json, json};

use crate::support::{Reply, World, world};

/// The text that is stored, and how it may be asked for.
const SAME: &[(&str, &[&str])] = &[
    ("Depot 7", &["Depot 7", "DEPOT 7", "depot 7  "]),
    ("Blank  ", &["Blank", "blank ", "BLANK      "]),
    ("Ünder", &["ünder", "ÜNDER "]),
    ("ΟΔΟΣ", &["οδος", "οδοσ", "ΟΔΟΣ "]),
];
const OTHER: &[(&str, &str)] = &[("Depot 7", " Depot 7"), ("Ünder", "Under"), ("Blank  ", "Blan"), ("ΟΔΟΣ", "ΟΔΟ")];

fn names(reply: &Reply) -> Vec<String> {
    let rows = reply.json();
    let rows = rows["value"].as_array().expect("rows").clone();
    rows.iter().map(|row| row["accountnumber"].as_str().expect("a text").to_owned()).collect()
}

/// Everything that finds rows by a text.
async fn found(world: &World, text: &str) -> Vec<(&'static str, Vec<String>)> {
    let select = "accounts?$select=accountnumber";
    let quoted = text.replace('\'', "''");
    let list = json!([text]).to_string();
    let xml = |condition: &str| {
        format!(
            "<fetch><entity name='account'><attribute name='accountnumber'/><filter>{condition}</filter></entity></fetch>"
        )
    };
    let eq = xml(&format!("<condition attribute='accountnumber' operator='eq' value='{text}'/>"));
    let within = xml(&format!(
        "<condition attribute='accountnumber' operator='in'><value>{text}</value><value>?</value></condition>"
    ));
    let between = xml(&format!(
        "<condition attribute='accountnumber' operator='between'><value>{text}</value><value>{text}</value></condition>"
    ));
    let addresses = [
        ("eq", format!("{select}&$filter=accountnumber eq '{quoted}'")),
        ("ge and le", format!("{select}&$filter=accountnumber ge '{quoted}' and accountnumber le '{quoted}'")),
        ("not ne", format!("{select}&$filter=not (accountnumber ne '{quoted}')")),
        (
            "In",
            format!("{select}&$filter=Microsoft.Dynamics.CRM.In(PropertyName='accountnumber',PropertyValues={list})"),
        ),
        ("lambda", format!("{select}&$filter=account_parent_account/any(a:a/accountnumber eq '{quoted}')")),
        ("fetch eq", format!("accounts?fetchXml={eq}")),
        ("fetch in", format!("accounts?fetchXml={within}")),
        ("fetch between", format!("accounts?fetchXml={between}")),
        ("sql =", format!("accounts?sql=SELECT accountnumber FROM account WHERE accountnumber = '{quoted}'")),
        ("sql in", format!("accounts?sql=SELECT accountnumber FROM account WHERE accountnumber IN ('{quoted}','?')")),
    ];
    let mut all = Vec::new();
    for (name, address) in addresses {
        all.push((name, names(&world.get(&address).await.expect(200))));
    }
    all
}

#[tokio::test]
async fn every_way_to_ask_compares_as_one_collation_does() {
    let world = world().await;
    world.key("account", "wr_NumberKey", &["accountnumber"]).await;
    let mut ids = Vec::new();
    for (stored, _) in SAME {
        let id = world.post("accounts", &json!({ "name": stored, "accountnumber": stored })).await.expect(204).id();
        // Each is its own parent, so that a lambda finds what a comparison does.
        let own = json!({ "parentaccountid@odata.bind": format!("accounts({id})") });
        world.patch(&format!("accounts({id})"), &[], &own).await.expect(204);
        ids.push(id);
    }
    for ((stored, texts), id) in SAME.iter().zip(&ids) {
        for text in *texts {
            for (way, rows) in found(&world, text).await {
                // FetchXML drops blanks around a value of its own element, which changes nothing here.
                assert_eq!(rows, [(*stored).to_owned()], "{way}: {text:?}");
            }
            let key = format!("accounts(accountnumber='{text}')");
            assert_eq!(
                world.get(&format!("{key}?$select=name")).await.expect(200).json()["accountid"],
                json!(id),
                "{key}"
            );
            world.post("accounts", &json!({ "name": "twin", "accountnumber": text })).await.refused(412, "0x80060892");
            // An upsert meets the row, a lookup by key leads to it.
            world.patch(&key, &[], &json!({ "name": text })).await.expect(204);
            let child = json!({ "lastname": "x", "parentcustomerid_account@odata.bind": key });
            let contact = world.post("contacts", &child).await.expect(204).id();
            let shown = world.get(&format!("contacts({contact})?$select=_parentcustomerid_value")).await.json();
            assert_eq!(shown["_parentcustomerid_value"], json!(id), "{key}");
        }
    }
    for (_, text) in OTHER {
        for (way, rows) in found(&world, text).await {
            let trims = way.starts_with("fetch in") || way.starts_with("fetch between");
            assert!(rows.is_empty() || trims, "{way}: {text:?} {rows:?}");
        }
    }
    assert_eq!(world.get("accounts?$select=name").await.json()["value"].as_array().unwrap().len(), SAME.len());
}

#[tokio::test]
async fn groups_and_distinct_rows_follow_it_too() {
    let world = world().await;
    for name in ["Depot", "depot", "DEPOT  ", "Other"] {
        world.post("accounts", &json!({ "name": name, "creditlimit": 5 })).await.expect(204);
    }
    let groups = world.get("accounts?$apply=groupby((name),aggregate($count as n))").await.expect(200).json();
    let mut counts: Vec<_> = groups["value"].as_array().unwrap().iter().map(|group| group["n"].clone()).collect();
    counts.sort_by_key(Json::to_string);
    assert_eq!(counts, [json!(1), json!(3)]);
    let fetch = |attributes: &str, head: &str| {
        format!("accounts?fetchXml=<fetch {head}><entity name='account'>{attributes}</entity></fetch>")
    };
    let distinct = world.get(&fetch("<attribute name='name'/>", "distinct='true'")).await.expect(200).json();
    assert_eq!(distinct["value"].as_array().unwrap().len(), 2);
    let grouped = fetch(
        "<attribute name='name' alias='g' groupby='true'/><attribute name='name' alias='n' aggregate='count'/>",
        "aggregate='true'",
    );
    assert_eq!(world.get(&grouped).await.expect(200).json()["value"].as_array().unwrap().len(), 2);
    let ordered = world.get("accounts?$select=name&$orderby=name,createdon").await.expect(200).json();
    assert_eq!(ordered["value"][3]["name"], "Other");
}
