//! Definitions changed, deleted, and followed by clients.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::support::{Reply, World, label, send, table, world};

async fn put(world: &World, path: &str, headers: &[(&str, &str)], body: &Json) -> Reply {
    let mut request = world.request(Method::PUT, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.json(body)).await
}

#[tokio::test]
async fn a_definition_is_put_in_place_of_the_old_one() {
    let world = world().await;
    world.order_table().await;
    let path = "EntityDefinitions(LogicalName='wr_order')";
    let body = json!({ "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata", "LogicalName": "wr_order", "DisplayName": label("Purchase") });
    put(&world, path, &[("mscrm.mergelabels", "true")], &body).await.expect(204);
    let read = world.get(&format!("{path}?$select=DisplayName,DisplayCollectionName")).await.json();
    assert_eq!(read["DisplayName"]["UserLocalizedLabel"]["Label"], "Purchase");
    assert_eq!(read["DisplayCollectionName"]["UserLocalizedLabel"]["Label"], "Orders");
    put(&world, path, &[], &json!({ "LogicalName": "wr_other" })).await.refused(400, "0x80040203");
    put(&world, path, &[], &json!({ "ChangeTrackingEnabled": false })).await.refused(400, "0x80040203");

    let column = format!("{path}/Attributes(LogicalName='wr_ordernumber')");
    let body = json!({ "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "MaxLength": 40, "DisplayName": label("No") });
    put(&world, &column, &[], &body).await.expect(204);
    let long = "n".repeat(30);
    world.post("wr_orders", &json!({ "wr_name": "x", "wr_ordernumber": long })).await.expect(204);
    let body = json!({ "@odata.type": "Microsoft.Dynamics.CRM.MemoAttributeMetadata", "MaxLength": 40 });
    put(&world, &column, &[], &body).await.refused(400, "0x80040203");
    world.patch(path, &[], &body).await.refused(405, "0x80060888");
}

#[tokio::test]
async fn options_are_inserted_updated_ordered_and_deleted_wherever_they_are_used() {
    let world = world().await;
    world.order_table().await;
    let choice = json!({ "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata", "Name": "wr_region", "DisplayName": label("Region"), "IsGlobal": true, "OptionSetType": "Picklist", "Options": [{ "Value": 1, "Label": label("North") }] });
    let id = world.post("GlobalOptionSetDefinitions", &choice).await.expect(204).id();
    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.PicklistAttributeMetadata", "SchemaName": "wr_Region", "DisplayName": label("Region"), "GlobalOptionSet@odata.bind": format!("/GlobalOptionSetDefinitions({id})") });
    world.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
    let added = world
        .post("InsertOptionValue", &json!({ "OptionSetName": "wr_region", "Value": 2, "Label": label("South") }))
        .await;
    assert_eq!(added.expect(200).json()["NewOptionValue"], 2);
    world.post("wr_orders", &json!({ "wr_name": "a", "wr_region": 2 })).await.expect(204);
    world
        .post(
            "UpdateOptionValue",
            &json!({ "OptionSetName": "wr_region", "Value": 2, "Label": label("Sud"), "MergeLabels": true }),
        )
        .await
        .expect(204);
    let read =
        world.get_with("wr_orders?$select=wr_region", &[("prefer", "odata.include-annotations=\"*\"")]).await.json();
    assert_eq!(read["value"][0]["wr_region@OData.Community.Display.V1.FormattedValue"], "Sud");
    world.post("OrderOption", &json!({ "OptionSetName": "wr_region", "Values": [2, 1] })).await.expect(204);
    world.post("OrderOption", &json!({ "OptionSetName": "wr_region", "Values": [2] })).await.expect(400);
    let read = world.get("GlobalOptionSetDefinitions(Name='wr_region')").await.json();
    assert_eq!(read["Options"][0]["Value"], 2);
    world.post("DeleteOptionValue", &json!({ "OptionSetName": "wr_region", "Value": 1 })).await.expect(204);
    world.post("wr_orders", &json!({ "wr_name": "a", "wr_region": 1 })).await.refused(400, "0x8004431a");
    world.delete(&format!("GlobalOptionSetDefinitions({id})"), &[]).await.refused(400, "0x8004f01f");
    let local =
        json!({ "EntityLogicalName": "incident", "AttributeLogicalName": "caseorigincode", "Label": label("Kiosk") });
    assert_eq!(world.post("InsertOptionValue", &local).await.expect(200).json()["NewOptionValue"], 700_610_001);
}

#[tokio::test]
async fn a_status_belongs_to_the_state_it_is_inserted_for() {
    let world = world().await;
    world.order_table().await;
    let body = json!({ "EntityLogicalName": "wr_order", "AttributeLogicalName": "statuscode", "StateCode": 1, "Label": label("Shipped") });
    let value = world.post("InsertStatusValue", &body).await.expect(200).json()["NewOptionValue"].clone();
    let id = world.post("wr_orders", &json!({ "wr_name": "x" })).await.expect(204).id();
    let path = format!("wr_orders({id})");
    world.patch(&path, &[("if-match", "*")], &json!({ "statuscode": value })).await.refused(400, "0x80048408");
    world.patch(&path, &[("if-match", "*")], &json!({ "statecode": 1, "statuscode": value })).await.expect(204);
    let missing = json!({ "EntityLogicalName": "wr_order", "AttributeLogicalName": "statuscode", "StateCode": 9, "Label": label("X") });
    world.post("InsertStatusValue", &missing).await.expect(400);
}

#[tokio::test]
async fn relationships_go_with_their_lookup_or_their_intersect_table() {
    let world = world().await;
    world.order_table().await;
    world.delete("RelationshipDefinitions(SchemaName='wr_account_wr_order')", &[]).await.expect(204);
    world.get("wr_orders?$select=_wr_accountid_value").await.expect(400);
    let pairs = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata", "SchemaName": "wr_order_contact",
        "Entity1LogicalName": "wr_order", "Entity2LogicalName": "contact", "IntersectEntityName": "wr_order_contact",
    });
    let id = world.post("RelationshipDefinitions", &pairs).await.expect(204).id();
    world.get("wr_orders?$filter=wr_order_contact/any()").await.expect(200);
    world.delete(&format!("RelationshipDefinitions({id})"), &[("if-match", "*")]).await.expect(204);
    world.get("wr_orders?$filter=wr_order_contact/any()").await.expect(400);
    world.delete("RelationshipDefinitions(SchemaName='incident_customer_accounts')", &[]).await.expect(400);
}

#[tokio::test]
async fn a_lookup_to_several_tables_takes_another() {
    let world = world().await;
    world.order_table().await;
    let relationship = |parent: &str| json!({ "SchemaName": format!("wr_{parent}_item"), "ReferencedEntity": parent, "ReferencingEntity": "wr_order" });
    let body = json!({
        "OneToManyRelationships": [relationship("account"), relationship("contact")],
        "Lookup": { "@odata.type": "Microsoft.Dynamics.CRM.ComplexLookupAttributeMetadata", "SchemaName": "wr_Item", "DisplayName": label("Item") },
    });
    world.post("CreatePolymorphicLookupAttribute", &body).await.expect(200);
    let third = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata", "SchemaName": "wr_incident_item",
        "ReferencedEntity": "incident", "ReferencingEntity": "wr_order",
        "Lookup": { "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata", "SchemaName": "wr_Item", "DisplayName": label("Item") },
    });
    world.post("RelationshipDefinitions", &third).await.expect(204);
    let path = "EntityDefinitions(LogicalName='wr_order')/Attributes(LogicalName='wr_item')/Microsoft.Dynamics.CRM.LookupAttributeMetadata?$select=Targets";
    assert_eq!(world.get(path).await.expect(200).json()["Targets"], json!(["account", "contact", "incident"]));
    world.delete("RelationshipDefinitions(SchemaName='wr_contact_item')", &[]).await.expect(204);
    assert_eq!(world.get(path).await.expect(200).json()["Targets"], json!(["account", "incident"]));
    let account = world.post("accounts", &json!({ "name": "A" })).await.expect(204).id();
    let order = json!({ "wr_name": "x", "wr_Item_account@odata.bind": format!("/accounts({account})") });
    world.post("wr_orders", &order).await.expect(204);
}

fn encoded(value: &Json) -> String {
    value
        .to_string()
        .replace('%', "%25")
        .replace('"', "%22")
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace(' ', "%20")
}

async fn changes(world: &World, query: &Json, stamp: Option<&str>) -> Json {
    let stamp = stamp.map_or("null".to_owned(), |stamp| format!("'{stamp}'"));
    let path = format!(
        "RetrieveMetadataChanges(Query=@q,ClientVersionStamp=@s,DeletedMetadataFilters=@d)?@q={}&@s={stamp}&@d=Microsoft.Dynamics.CRM.DeletedMetadataFilters'All'",
        encoded(query)
    );
    world.get(&path).await.expect(200).json()
}

#[tokio::test]
async fn metadata_changes_are_told_since_a_stamp() {
    let world = world().await;
    world.order_table().await;
    let query = json!({
        "Criteria": { "FilterOperator": "And", "Conditions": [
            { "PropertyName": "LogicalName", "ConditionOperator": "In", "Value": { "Type": "System.String[]", "Value": "[\"wr_order\",\"account\"]" } },
        ] },
        "Properties": { "AllProperties": false, "PropertyNames": ["EntitySetName", "Attributes"] },
        "AttributeQuery": {
            "Criteria": { "Conditions": [{ "PropertyName": "AttributeType", "ConditionOperator": "Equals", "Value": { "Type": "Microsoft.Xrm.Sdk.Metadata.AttributeTypeCode", "Value": "Money" } }] },
            "Properties": { "AllProperties": false, "PropertyNames": ["MaxLength"] },
        },
    });
    let all = changes(&world, &query, None).await;
    let names: Vec<&str> =
        all["EntityMetadata"].as_array().unwrap().iter().map(|table| table["LogicalName"].as_str().unwrap()).collect();
    assert_eq!(names, ["account", "wr_order"]);
    assert_eq!(all["EntityMetadata"][1]["EntitySetName"], "wr_orders");
    assert!(all["EntityMetadata"][1].get("DisplayName").is_none());
    let money: Vec<&Json> = all["EntityMetadata"][1]["Attributes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| &column["LogicalName"])
        .collect();
    assert_eq!(money, ["wr_amount", "wr_amount_base"]);
    let stamp = all["ServerVersionStamp"].as_str().unwrap().to_owned();
    assert_eq!(changes(&world, &query, Some(&stamp)).await["EntityMetadata"], json!([]));

    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.MoneyAttributeMetadata", "SchemaName": "wr_Fee", "DisplayName": label("Fee") });
    let fee = world
        .post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column)
        .await
        .expect(204)
        .header("odata-entityid")
        .to_owned();
    let after = changes(&world, &query, Some(&stamp)).await;
    assert_eq!(after["EntityMetadata"].as_array().unwrap().len(), 1);
    assert_eq!(after["EntityMetadata"][0]["HasChanged"], false);
    assert_eq!(after["EntityMetadata"][0]["Attributes"][0]["LogicalName"], "wr_fee");
    assert_eq!(after["EntityMetadata"][0]["Attributes"][0]["HasChanged"], true);

    world.delete("EntityDefinitions(LogicalName='wr_order')/Attributes(LogicalName='wr_fee')", &[]).await.expect(204);
    let deleted = &changes(&world, &query, Some(&stamp)).await["DeletedMetadata"];
    assert_eq!(deleted["Keys"], json!(["Attribute"]));
    let id = fee.rsplit_once('(').unwrap().1.trim_end_matches(')');
    assert!(deleted["Values"][0].as_array().unwrap().contains(&json!(id)), "{deleted}");
    let future = "RetrieveMetadataChanges(ClientVersionStamp=@s)?@s='999999!x'";
    world.get(future).await.refused(400, "0x80044352");
}

#[tokio::test]
async fn publishing_needs_a_document_and_tables_that_exist() {
    let world = world().await;
    world.post("EntityDefinitions", &table("wr_Thing", "Thing")).await.expect(204);
    let xml = |name: &str| json!({ "ParameterXml": format!("<importexportxml><entities><entity>{name}</entity></entities></importexportxml>") });
    world.post("PublishXml", &xml("wr_thing")).await.expect(204);
    world.post("PublishXml", &xml("wr_nothing")).await.refused(404, "0x80041102");
    world.post("PublishXml", &json!({ "ParameterXml": "<x" })).await.refused(400, "0x80040201");
    world.post("PublishAllXml", &json!({})).await.expect(204);
}

fn in_languages(labels: &[(u32, &str)]) -> Json {
    let labels: Vec<Json> = labels
        .iter()
        .map(|(language, text)| json!({ "@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", "Label": text, "LanguageCode": language }))
        .collect();
    json!({ "@odata.type": "Microsoft.Dynamics.CRM.Label", "LocalizedLabels": labels })
}

/// Language codes and texts of a label.
fn languages(label: &Json) -> Vec<(u64, String)> {
    let labels = label["LocalizedLabels"].as_array().expect("a label");
    labels
        .iter()
        .map(|one| (one["LanguageCode"].as_u64().expect("a code"), one["Label"].as_str().expect("a text").to_owned()))
        .collect()
}

#[tokio::test]
async fn labels_keep_every_language() {
    let world = world().await;
    let both = [(1031, "Auftrag"), (1033, "Order")].map(|(language, text): (u64, &str)| (language, text.to_owned()));
    let mut definition = table("wr_Order", "Order");
    definition["DisplayName"] = in_languages(&[(1031, "Auftrag"), (1033, "Order")]);
    definition["Description"] = in_languages(&[(1033, "What was ordered")]);
    world.post("EntityDefinitions", &definition).await.expect(204);
    let path = "EntityDefinitions(LogicalName='wr_order')";
    let read = world.get(path).await.expect(200).json();
    let mut found = languages(&read["DisplayName"]);
    found.sort_unstable();
    assert_eq!(found, both);
    assert_eq!(read["DisplayName"]["UserLocalizedLabel"]["Label"], "Order");
    assert_eq!(languages(&read["Description"]), [(1033, "What was ordered".to_owned())]);
    let german = world.get(&format!("{path}?$select=DisplayName&LabelLanguages=1031")).await.expect(200).json();
    assert_eq!(languages(&german["DisplayName"]), [(1031, "Auftrag".to_owned())]);
    assert!(german["DisplayName"]["UserLocalizedLabel"].is_null());

    // One language put in place: with MergeLabels the other stays, without it goes.
    let mut changed = read.clone();
    changed["DisplayName"] = in_languages(&[(1033, "Purchase")]);
    let put = |body: &Json, merge: &'static str| {
        world.request(reqwest::Method::PUT, path).header("MSCRM.MergeLabels", merge).json(body)
    };
    send(put(&changed, "true")).await.expect(204);
    let merged = world.get(path).await.json();
    assert_eq!(languages(&merged["DisplayName"]), [(1033, "Purchase".to_owned()), (1031, "Auftrag".to_owned())]);
    send(put(&changed, "false")).await.expect(204);
    assert_eq!(languages(&world.get(path).await.json()["DisplayName"]), [(1033, "Purchase".to_owned())]);
}

#[tokio::test]
async fn options_keep_every_language() {
    let world = world().await;
    world.post("EntityDefinitions", &table("wr_Order", "Order")).await.expect(204);
    let option = json!({ "Value": 1, "Label": in_languages(&[(1033, "Red"), (1031, "Rot"), (1036, "Rouge")]) });
    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.PicklistAttributeMetadata", "SchemaName": "wr_Colour",
        "DisplayName": in_languages(&[(1033, "Colour")]), "OptionSet": { "IsGlobal": false, "Options": [option] } });
    let path = "EntityDefinitions(LogicalName='wr_order')/Attributes";
    world.post(path, &column).await.expect(204);
    let choices = format!(
        "{path}(LogicalName='wr_colour')/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet"
    );
    let read = world.get(&choices).await.expect(200).json();
    let label = &read["OptionSet"]["Options"][0]["Label"];
    assert_eq!(languages(label).iter().map(|(code, _)| *code).collect::<Vec<_>>(), [1033, 1031, 1036]);
    let french = world.get(&format!("{choices}&LabelLanguages=1036")).await.expect(200).json();
    assert_eq!(languages(&french["OptionSet"]["Options"][0]["Label"]), [(1036, "Rouge".to_owned())]);
    let update = |merge: bool| {
        json!({ "EntityLogicalName": "wr_order", "AttributeLogicalName": "wr_colour", "Value": 1,
            "Label": in_languages(&[(1033, "Crimson")]), "MergeLabels": merge })
    };
    for (merge, left) in [(true, 3), (false, 1)] {
        world.post("UpdateOptionValue", &update(merge)).await.expect(204);
        let read = world.get(&choices).await.json();
        assert_eq!(languages(&read["OptionSet"]["Options"][0]["Label"]).len(), left);
    }
}
