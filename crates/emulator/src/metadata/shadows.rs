//! Columns that only show another column: the text of a lookup, the table it points at, the label
//! of a choice. Definitions list them with `AttributeOf`; no row has them as properties.
//!
//! Promise: names as the table reference has them. Left out: the few that follow no rule.

use serde_json::{Map, Value as Json, json};

use super::render::{label, required};
use crate::schema::{Column, ColumnKind, Label, Required, Schema, Table, stable_id};

/// Tables whose names are also kept by their sound.
const WITH_YOMI: [&str; 4] = ["systemuser", "account", "contact", "externalparty"];

/// What a shadow is: the end of its name, its type, and its members of that type.
struct Shadow {
    logical: String,
    schema_name: String,
    kind: [&'static str; 3],
    length: Option<u32>,
}

/// The shadows of a column, as definitions show them.
pub(super) fn of_column(schema: &Schema, table: &Table, column: &Column) -> Vec<Map<String, Json>> {
    let shadows = match &column.kind {
        ColumnKind::Lookup { targets } => {
            let names: Vec<&str> = targets.iter().map(|target| schema.table(target.table).logical.as_str()).collect();
            of_lookup(column, &names)
        }
        ColumnKind::Choice { .. }
        | ColumnKind::Choices { .. }
        | ColumnKind::State { .. }
        | ColumnKind::Status { .. }
        | ColumnKind::Boolean { .. } => {
            vec![named(column, "Name", ["Virtual", "VirtualType", "AttributeMetadata"], None)]
        }
        _ => Vec::new(),
    };
    let is_new = |shadow: &Shadow| table.columns.iter().all(|known| known.logical != shadow.logical);
    shadows.into_iter().filter(is_new).map(|shadow| object(table, column, &shadow)).collect()
}

fn of_lookup(column: &Column, targets: &[&str]) -> Vec<Shadow> {
    if matches!(column.logical.as_str(), "owninguser" | "owningteam" | "owningbusinessunit") {
        return Vec::new();
    }
    let text = ["String", "StringType", "StringAttributeMetadata"];
    let mut shadows = vec![named(column, "Name", text, Some(100))];
    if targets.iter().any(|target| WITH_YOMI.contains(target)) {
        shadows.push(named(column, "YomiName", text, Some(100)));
    }
    if targets.len() > 1 {
        let kind = ["EntityName", "EntityNameType", "EntityNameAttributeMetadata"];
        let schema_name = match column.logical.as_str() {
            "regardingobjectid" => "RegardingObjectTypeCode".to_owned(),
            "partyid" => "PartyObjectTypeCode".to_owned(),
            "objectid" | "parentsiteorlocation" => format!("{}TypeCode", column.schema_name),
            _ => format!("{}Type", column.schema_name),
        };
        shadows.push(Shadow { logical: schema_name.to_lowercase(), schema_name, kind, length: None });
    }
    shadows
}

fn named(column: &Column, end: &str, kind: [&'static str; 3], length: Option<u32>) -> Shadow {
    // One lookup is older than the rule.
    let stem = match column.logical.as_str() {
        "slaid" => "SLA",
        _ => &column.schema_name,
    };
    let schema_name = format!("{stem}{end}");
    Shadow { logical: schema_name.to_lowercase(), schema_name, kind, length }
}

fn object(table: &Table, column: &Column, shadow: &Shadow) -> Map<String, Json> {
    let [kind, kind_name, metadata_type] = shadow.kind;
    let level = if column.required == Required::System { Required::System } else { Required::None };
    // The table that a lookup points at is written with it, by name of the navigation property.
    let is_type = kind == "EntityName";
    let mut object = json!({
        "@odata.type": format!("#Microsoft.Dynamics.CRM.{metadata_type}"),
        "MetadataId": stable_id(&format!("{}.{}", table.logical, shadow.logical)),
        "LogicalName": shadow.logical,
        "SchemaName": shadow.schema_name,
        "EntityLogicalName": table.logical,
        "AttributeType": kind,
        "AttributeTypeName": { "Value": kind_name },
        "DisplayName": label(&Label::default()),
        "Description": label(&Label::default()),
        "RequiredLevel": { "Value": required(level), "CanBeChanged": false, "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings" },
        "IsValidForCreate": is_type && column.for_create,
        "IsValidForUpdate": is_type && column.for_update,
        "IsValidForRead": true,
        "IsPrimaryId": false,
        "IsPrimaryName": false,
        "IsCustomAttribute": column.is_custom,
        "IsManaged": !column.is_custom,
        "IsSecured": false,
        "IsLogical": true,
        "AttributeOf": column.logical,
        "HasChanged": null,
    });
    if let (Some(length), Json::Object(members)) = (shadow.length, &mut object) {
        members.insert("MaxLength".to_owned(), length.into());
        members.insert("DatabaseLength".to_owned(), (length * 2).into());
        members.insert("AutoNumberFormat".to_owned(), Json::Null);
        members.insert("Format".to_owned(), "Text".into());
        members.insert("FormatName".to_owned(), json!({ "Value": "Text" }));
    }
    match object {
        Json::Object(members) => members,
        _ => Map::new(),
    }
}
