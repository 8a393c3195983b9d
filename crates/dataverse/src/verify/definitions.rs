//! Probes of metadata.

use futures::FutureExt;
use serde_json::json;

use super::lab::Lab;
use super::probe::{Probing, Seen, unobservable};

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
        let label = |text: &str| {
            let labels =
                [json!({"@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", "Label": text, "LanguageCode": 1033})];
            json!({"@odata.type": "Microsoft.Dynamics.CRM.Label", "LocalizedLabels": labels})
        };
        let body = json!({
            "@odata.type": "Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata",
            "SchemaName": lab.column("choices"),
            "DisplayName": label("Choices"),
            "RequiredLevel": {"Value": "None"},
            "OptionSet": {
                "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata",
                "IsGlobal": false, "OptionSetType": "Picklist",
                "Options": [{"Value": lab.first_option(), "Label": label("One")}],
            },
        });
        lab.try_define(&attributes, &body).await?.required("adding a column of several choices")?;
        let path =
            format!("{attributes}(LogicalName='{}')?$select=AttributeType,AttributeTypeName", lab.column("choices"));
        let reply = lab.get_with(&path, &[("consistency", "Strong")]).await?.required("reading the new column")?;
        let (plain, name) = (&reply.json["AttributeType"], &reply.json["AttributeTypeName"]["Value"]);
        Ok(Seen::new(plain == "Virtual" && name == "MultiSelectPicklistType", format!("{plain} and {name}")))
    }
    .boxed()
}
