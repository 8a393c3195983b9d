//! Probes of metadata.

use futures::FutureExt;
use serde_json::{Value, json};

use super::lab::Lab;
use super::probe::{Probing, Seen, unobservable};
use crate::provision::definition;

/// One more than may be selected at once.
const OPTIONS: i32 = 151;

const DUPLICATE_RECORD: u32 = 0x8004_0237;
const TOO_MANY_SELECTIONS: u32 = 0x8005_0222;

pub(super) fn key_delay<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async { Ok(Seen::new(lab.key_seconds, format!("usable after {:.1} s", lab.key_seconds))) }.boxed()
}

pub(super) fn metadata_lag<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async { Ok(Seen::new(lab.lag_seconds, format!("visible after {:.1} s", lab.lag_seconds))) }.boxed()
}

pub(super) fn base_type<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = lab.get("$metadata").await?.required("reading $metadata")?;
        let start = format!("<EntityType Name=\"{}\"", lab.table);
        let element = reply.text.split_once(&start).and_then(|(_, rest)| rest.split('>').next());
        match element {
            None => unobservable("$metadata does not show the scratch table"),
            Some(text) => Ok(Seen::new(
                text.contains("crmbaseentity"),
                if text.contains("BaseType") { "it has a base type" } else { "it has no base type" },
            )),
        }
    }
    .boxed()
}

/// Currencies belong to the organisation in every environment.
pub(super) fn organization_columns<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let path = "EntityDefinitions(LogicalName='transactioncurrency')/Attributes?$select=LogicalName";
        let reply = lab.get(path).await?.required("reading a table of the organisation")?;
        let has = |name: &str| reply.rows().iter().any(|column| column["LogicalName"] == name);
        let (organization, owner) = (has("organizationid"), has("ownerid"));
        Ok(Seen::new(organization && !owner, format!("organizationid: {organization}, ownerid: {owner}")))
    }
    .boxed()
}

pub(super) fn multi_select_is_virtual<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let attributes = format!("EntityDefinitions(LogicalName='{}')/Attributes", lab.table);
        let numbers = lab.first_option()..lab.first_option().saturating_add(OPTIONS);
        let options: Vec<Value> =
            numbers.map(|number| json!({"Value": number, "Label": definition::label(&number.to_string())})).collect();
        let body = json!({
            "@odata.type": "Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata",
            "SchemaName": lab.column("choices"),
            "DisplayName": definition::label("Choices"),
            "RequiredLevel": {"Value": "None"},
            "OptionSet": {
                "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata",
                "IsGlobal": false, "OptionSetType": "Picklist",
                "Options": options,
            },
        });
        lab.try_define(&attributes, &body).await?.required("adding a column of several choices")?;
        let path =
            format!("{attributes}(LogicalName='{}')?$select=AttributeType,AttributeTypeName", lab.column("choices"));
        let reply = lab.get(&path).await?.required("reading the new column")?;
        let (plain, name) = (&reply.json["AttributeType"], &reply.json["AttributeTypeName"]["Value"]);
        Ok(Seen::new(plain == "Virtual" && name == "MultiSelectPicklistType", format!("{plain} and {name}")))
    }
    .boxed()
}

/// All but one of the options, then all.
pub(super) fn selections_max<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let all: Vec<String> = (0..OPTIONS).map(|number| (lab.first_option() + number).to_string()).collect();
        let most = all.iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(",");
        let row = |selected: &str| json!({ lab.column("choices"): selected });
        lab.post(&lab.set, &row(&most)).await?.required("selecting 150 options")?;
        let reply = lab.post(&lab.set, &row(&all.join(","))).await?;
        Ok(Seen::new(reply.code == Some(TOO_MANY_SELECTIONS), reply.words()))
    }
    .boxed()
}

/// A relationship of the scratch table with itself, and one pair of rows linked twice.
pub(super) fn pairs_are_linked_once<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = lab.column("pairs");
        let body = json!({
            "@odata.type": "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata",
            "SchemaName": name, "IntersectEntityName": format!("{}p", lab.table),
            "Entity1LogicalName": lab.table, "Entity2LogicalName": lab.table,
        });
        lab.try_define("RelationshipDefinitions", &body).await?.required("making a many-to-many relationship")?;
        let path = format!("EntityDefinitions(LogicalName='{}')/ManyToManyRelationships?$select=SchemaName,Entity1NavigationPropertyName", lab.table);
        lab.wait_until_visible(&path).await?;
        let reply = lab.get(&path).await?.required("reading relationships")?;
        let Some(link) = reply.rows().first().and_then(|row| row["Entity1NavigationPropertyName"].as_str()) else {
            return unobservable("the relationship does not tell its navigation property");
        };
        let (one, two) = (lab.create(&json!({})).await?, lab.create(&json!({})).await?);
        let client = &lab.dataverse.client;
        let target = format!("{}{}", client.service_origin(), client.part_address(&lab.row_path(two)));
        let path = format!("{}/{link}/$ref", lab.row_path(one));
        lab.post(&path, &json!({ "@odata.id": target })).await?.required("linking two rows")?;
        let reply = lab.post(&path, &json!({ "@odata.id": target })).await?;
        Ok(Seen::new(reply.code == Some(DUPLICATE_RECORD), reply.words()))
    }
    .boxed()
}
