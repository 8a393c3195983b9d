//! Activities: their definitions, their parties, and the names of their navigation properties.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::{Value as Json, json};

use crate::support::{World, world};

/// Set, logical name, and the column that holds the parties one of its forms writes.
const ACTIVITIES: &[(&str, &str, i64)] = &[
    ("phonecalls", "phonecall", 2),
    ("emails", "email", 2),
    ("appointments", "appointment", 5),
    ("letters", "letter", 2),
    ("faxes", "fax", 2),
    ("tasks", "task", 9),
];

#[tokio::test]
async fn the_lookups_of_every_table_are_readable_with_their_targets() {
    let world = world().await;
    let tables = world.get("EntityDefinitions?$select=LogicalName").await.expect(200).json();
    let names: Vec<String> = tables["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["LogicalName"].as_str().unwrap().to_owned())
        .collect();
    for name in names {
        // As a loader reads them: every type of column by its cast.
        let path = format!(
            "EntityDefinitions(LogicalName='{name}')/Attributes/Microsoft.Dynamics.CRM.LookupAttributeMetadata"
        );
        let lookups = world.get(&format!("{path}?$select=LogicalName,AttributeType,Targets")).await.expect(200).json();
        for lookup in lookups["value"].as_array().unwrap() {
            assert!(lookup["Targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{name}: {lookup}");
        }
    }
}

async fn people(world: &World) -> (String, String, String) {
    let account = world.post("accounts", &json!({ "name": "Depot" })).await.expect(204).id();
    let contact = world.post("contacts", &json!({ "lastname": "Ada" })).await.expect(204).id();
    let user = world.get("WhoAmI").await.json()["UserId"].as_str().unwrap().to_owned();
    (account, contact, user)
}

#[tokio::test]
async fn every_activity_is_created_with_its_parties_and_read_back() {
    let world = world().await;
    let (account, contact, user) = people(&world).await;
    for (set, name, mask) in ACTIVITIES {
        let parties = json!([
            { "partyid_contact@odata.bind": format!("/contacts({contact})"), "participationtypemask": mask },
            { "partyid_account@odata.bind": format!("/accounts({account})"), "participationtypemask": mask },
            { "partyid_systemuser@odata.bind": format!("/systemusers({user})"), "participationtypemask": 1 },
            { "addressused": "somebody@example.org", "participationtypemask": 3 },
        ]);
        let body = json!({
            "subject": "call back",
            format!("regardingobjectid_account_{name}@odata.bind"): format!("/accounts({account})"),
            format!("{name}_activity_parties"): parties,
            format!("ownerid_{name}@odata.bind"): format!("/systemusers({user})"),
        });
        let id = world.post(set, &body).await.expect(204).id();
        let read = world
            .get(&format!(
                "{set}({id})?$select=subject,_regardingobjectid_value,_ownerid_value&$expand={name}_activity_parties"
            ))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&read["_regardingobjectid_value"], &read["_ownerid_value"]),
            (&json!(account), &json!(user)),
            "{name}"
        );
        let found = read[format!("{name}_activity_parties")].as_array().unwrap().clone();
        let has = |party: &Json, mask: i64| {
            found.iter().any(|row| row["_partyid_value"] == *party && row["participationtypemask"] == mask)
        };
        assert!(
            has(&json!(contact), *mask) && has(&json!(account), *mask) && has(&json!(user), 1),
            "{name}: {found:?}"
        );
        // The regarding row and the owner are parties, too; a plain address has no row behind it.
        assert!(has(&json!(account), 8) && has(&json!(user), 9), "{name}: {found:?}");
        assert!(
            found.iter().any(|row| row["addressused"] == "somebody@example.org" && row["_partyid_value"].is_null()),
            "{name}"
        );
        let pointer =
            world.get(&format!("activitypointers({id})?$select=subject,activitytypecode")).await.expect(200).json();
        assert_eq!((&pointer["subject"], &pointer["activitytypecode"]), (&json!("call back"), &json!(name)));
        // The name that all activities share works, too.
        let change = json!({ "ownerid@odata.bind": format!("/systemusers({user})") });
        world.patch(&format!("{set}({id})"), &[("if-match", "*")], &change).await.expect(204);
    }
}

#[tokio::test]
async fn the_document_declares_activities_as_what_they_derive_from() {
    let world = world().await;
    let text = world.get("$metadata").await.expect(200).text;
    let document = roxmltree::Document::parse(&text).expect("well-formed");
    let kind = |name: &str| {
        document
            .descendants()
            .find(|node| node.has_tag_name_local("EntityType", name))
            .unwrap_or_else(|| panic!("{name}"))
    };
    let has =
        |node: roxmltree::Node<'_, '_>, name: &str| node.children().any(|child| child.attribute("Name") == Some(name));
    for (_, name, _) in ACTIVITIES {
        let node = kind(name);
        assert_eq!(node.attribute("BaseType"), Some("mscrm.activitypointer"), "{name}");
        assert!(has(node, &format!("ownerid_{name}")) && has(node, &format!("sla_{name}_sla")), "{name}");
        for shared in ["createdby", "_createdby_value", "activityid", "statecode", "owningteam"] {
            assert!(!has(node, shared), "{name} declares {shared}, which all activities share");
        }
    }
    let pointer = kind("activitypointer");
    assert!(has(pointer, "ownerid") && has(pointer, "createdby") && has(pointer, "activityid"));
    assert!(has(kind("account"), "sla_account_sla") && has(kind("contact"), "sla_contact_sla"));
    let names: Vec<_> = document
        .descendants()
        .filter(|node| node.tag_name().name() == "ActionImport")
        .filter_map(|node| node.attribute("Name"))
        .collect();
    assert!(names.contains(&"CloseIncident") && names.contains(&"Merge"), "{names:?}");
    assert!(!text.contains("Org.OData.Core.V1.Computed"), "annotations come where they are asked for");
    assert!(world.get("$metadata?annotations=true").await.text.contains("Org.OData.Core.V1.Computed"));
    // Every type that is named is declared.
    for node in document.descendants() {
        for attribute in ["Type", "BaseType", "EntityType"] {
            let Some(value) = node.attribute(attribute) else { continue };
            let inner = value.strip_prefix("Collection(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(value);
            let Some(name) = inner.strip_prefix("mscrm.").or_else(|| inner.strip_prefix("Microsoft.Dynamics.CRM."))
            else {
                continue;
            };
            let is_declared = document.descendants().any(|node| {
                matches!(node.tag_name().name(), "EntityType" | "ComplexType") && node.attribute("Name") == Some(name)
            });
            assert!(is_declared, "{value}");
        }
    }
}

trait Named {
    fn has_tag_name_local(&self, tag: &str, name: &str) -> bool;
}

impl Named for roxmltree::Node<'_, '_> {
    fn has_tag_name_local(&self, tag: &str, name: &str) -> bool {
        self.tag_name().name() == tag && self.attribute("Name") == Some(name)
    }
}
