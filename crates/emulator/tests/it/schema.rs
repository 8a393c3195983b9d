//! The starting schema: facts of Microsoft's table reference, and what its relationships do.

use serde_json::{Value as Json, json};

use crate::support::world;

const REFERENCE: &str = include_str!("../table-reference.json");

#[tokio::test]
async fn the_starting_tables_are_those_of_the_table_reference() {
    let world = world().await;
    let reference: Json = serde_json::from_str(REFERENCE).unwrap();
    for (table, facts) in reference.as_object().unwrap() {
        let path = format!("EntityDefinitions(LogicalName='{table}')");
        let definition =
            world.get(&format!("{path}?$expand=Attributes,OneToManyRelationships")).await.expect(200).json();
        assert_eq!(definition["EntitySetName"], facts["set"], "{table}");
        let choices = format!("{path}/Attributes/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$expand=OptionSet");
        let choices = world.get(&choices).await.expect(200).json();
        for (name, fact) in facts["columns"].as_object().unwrap() {
            let column = named(&definition["Attributes"], "LogicalName", name);
            assert_eq!(column["AttributeType"], fact["type"], "{table}.{name}");
            assert_eq!(column["RequiredLevel"]["Value"], fact["level"], "{table}.{name}");
            for (member, wanted) in [("MaxLength", &fact["length"]), ("MaxValue", &fact["most"])] {
                assert!(wanted.is_null() || column[member] == *wanted, "{table}.{name} {member} {}", column[member]);
            }
            for (value, label) in fact["options"].as_object().into_iter().flatten() {
                let options = &named(&choices["value"], "LogicalName", name)["OptionSet"]["Options"];
                let option =
                    options.as_array().unwrap().iter().find(|option| option["Value"].as_i64() == value.parse().ok());
                assert_eq!(option.unwrap()["Label"]["UserLocalizedLabel"]["Label"], *label, "{table}.{name} {value}");
            }
        }
        for (name, fact) in facts["relationships"].as_object().unwrap() {
            let found = named(&definition["OneToManyRelationships"], "SchemaName", name);
            let cascade = &found["CascadeConfiguration"];
            let shown = json!([
                found["ReferencingEntity"],
                found["ReferencingAttribute"],
                cascade["Assign"],
                cascade["Delete"]
            ]);
            assert_eq!(shown, *fact, "{name}");
        }
    }
}

fn named<'a>(list: &'a Json, member: &str, name: &str) -> &'a Json {
    list.as_array()
        .expect("a list")
        .iter()
        .find(|item| item[member] == *name)
        .unwrap_or_else(|| panic!("{name} is missing"))
}

#[tokio::test]
async fn columns_that_show_another_are_definitions_and_no_properties() {
    let world = world().await;
    let path = "EntityDefinitions(LogicalName='incident')/Attributes";
    let shown = world.get(&format!("{path}?$select=LogicalName,AttributeType,AttributeOf")).await.expect(200).json();
    for (name, kind, of) in [
        ("customeridname", "String", "customerid"),
        ("customeridyominame", "String", "customerid"),
        ("customeridtype", "EntityName", "customerid"),
        ("statuscodename", "Virtual", "statuscode"),
        ("isescalatedname", "Virtual", "isescalated"),
    ] {
        let column = named(&shown["value"], "LogicalName", name);
        assert_eq!((&column["AttributeType"], &column["AttributeOf"]), (&json!(kind), &json!(of)), "{name}");
    }
    world.get(&format!("{path}(LogicalName='customeridname')")).await.expect(200);
    world.get("incidents?$select=customeridname").await.expect(400);
}

#[tokio::test]
async fn rows_follow_their_parent_to_a_new_owner_where_the_relationship_says_so() {
    let world = world().await;
    let unit = world.get("WhoAmI").await.json()["BusinessUnitId"].as_str().unwrap().to_owned();
    let user = json!({ "domainname": "ann@contoso.example", "lastname": "Ann",
        "businessunitid@odata.bind": format!("/businessunits({unit})") });
    let user = world.post("systemusers", &user).await.expect(204).id();
    let account = world.post("accounts", &json!({ "name": "Contoso" })).await.expect(204).id();
    let contact = json!({ "lastname": "Bob", "parentcustomerid_account@odata.bind": format!("/accounts({account})") });
    let contact = world.post("contacts", &contact).await.expect(204).id();
    let task =
        json!({ "subject": "Call", "regardingobjectid_contact_task@odata.bind": format!("/contacts({contact})") });
    let task = world.post("tasks", &task).await.expect(204).id();
    // An account's primary contact is another relationship, which follows nowhere.
    let other = world.post("contacts", &json!({ "lastname": "Other" })).await.expect(204).id();
    let change = json!({ "ownerid@odata.bind": format!("/systemusers({user})"),
        "primarycontactid@odata.bind": format!("/contacts({other})") });
    world.patch(&format!("accounts({account})"), &[("if-match", "*")], &change).await.expect(204);
    for (row, follows) in [
        (format!("contacts({contact})"), true),
        (format!("tasks({task})"), true),
        (format!("contacts({other})"), false),
    ] {
        let read = world.get(&format!("{row}?$select=_ownerid_value,_owninguser_value")).await.expect(200).json();
        assert_eq!(read["_ownerid_value"] == *user, follows, "{row}");
        assert_eq!(read["_ownerid_value"], read["_owninguser_value"]);
    }
}

#[tokio::test]
async fn cascades_are_shown_as_they_were_defined_and_unknown_ones_are_refused() {
    let world = world().await;
    world.order_table().await;
    let relationship = |assign: &str| {
        json!({
            "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
            "SchemaName": "wr_contact_wr_order", "ReferencedEntity": "contact", "ReferencingEntity": "wr_order",
            "CascadeConfiguration": { "Assign": assign, "Delete": "Cascade", "Share": "Cascade" },
            "Lookup": { "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata", "SchemaName": "wr_ContactId",
                "DisplayName": crate::support::label("Contact") },
        })
    };
    world.post("RelationshipDefinitions", &relationship("UserOwned")).await.expect(501);
    world.post("RelationshipDefinitions", &relationship("Cascade")).await.expect(204);
    let shown = world.get("RelationshipDefinitions(SchemaName='wr_contact_wr_order')").await.expect(200).json();
    let cascade = &shown["CascadeConfiguration"];
    assert_eq!(
        (&cascade["Assign"], &cascade["Delete"], &cascade["Share"]),
        (&json!("Cascade"), &json!("Cascade"), &json!("Cascade"))
    );
    assert_eq!((&cascade["Reparent"], &cascade["Merge"]), (&json!("NoCascade"), &json!("NoCascade")));
}
