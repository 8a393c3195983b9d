//! Columns that only show another column: the text of a lookup, the table it points at, the label
//! of a choice. Definitions list them with `AttributeOf`; no row has them as properties.
//!
//! Promise: names as the table reference has them, and the members that other columns of their
//! type have. Left out: the few that follow no rule.

use serde_json::{Map, Value as Json, json};

use super::render;
use crate::schema::{Column, ColumnKind, Label, Required, Schema, Table, stable_id};

/// Tables whose names are also kept by their sound.
const WITH_YOMI: [&str; 4] = ["systemuser", "account", "contact", "externalparty"];
/// Characters of a text that a lookup shows, in most tables.
const NAME_LENGTH_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShadowKind {
    /// The name of the row that a lookup points at.
    Text,
    /// The table that a lookup points at.
    TableName,
    /// The label of a choice.
    OptionLabel,
}

struct Shadow {
    schema_name: String,
    kind: ShadowKind,
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
        | ColumnKind::Boolean { .. } => vec![named(column, "Name", ShadowKind::OptionLabel)],
        _ => Vec::new(),
    };
    let shown = shadows.into_iter().map(|shadow| object(schema, table, column, shadow));
    shown.filter(|shadow| table.columns.iter().all(|known| shadow["LogicalName"] != known.logical.as_str())).collect()
}

fn of_lookup(column: &Column, targets: &[&str]) -> Vec<Shadow> {
    if matches!(column.logical.as_str(), "owninguser" | "owningteam" | "owningbusinessunit") {
        return Vec::new();
    }
    let mut shadows = vec![named(column, "Name", ShadowKind::Text)];
    if targets.iter().any(|target| WITH_YOMI.contains(target)) {
        shadows.push(named(column, "YomiName", ShadowKind::Text));
    }
    if targets.len() > 1 {
        let schema_name = match column.logical.as_str() {
            "regardingobjectid" => "RegardingObjectTypeCode".to_owned(),
            "partyid" => "PartyObjectTypeCode".to_owned(),
            "objectid" | "parentsiteorlocation" => format!("{}TypeCode", column.schema_name),
            _ => format!("{}Type", column.schema_name),
        };
        shadows.push(Shadow { schema_name, kind: ShadowKind::TableName });
    }
    shadows
}

fn named(column: &Column, end: &str, kind: ShadowKind) -> Shadow {
    // One lookup is older than the rule.
    let stem = match column.logical.as_str() {
        "slaid" => "SLA",
        _ => &column.schema_name,
    };
    Shadow { schema_name: format!("{stem}{end}"), kind }
}

/// The longest name that a lookup's target has. Of customers it was recorded: that of accounts, and their readings.
fn name_length(schema: &Schema, column: &Column, shadow: &str) -> u32 {
    let ColumnKind::Lookup { targets } = &column.kind else { return NAME_LENGTH_MAX };
    let leads_to = |name: &str| targets.iter().any(|target| schema.table(target.table).logical == name);
    match leads_to("account") && leads_to("contact") && targets.len() == 2 {
        true if shadow.ends_with("yominame") => 450,
        true => 160,
        false => NAME_LENGTH_MAX,
    }
}

fn object(schema: &Schema, table: &Table, column: &Column, shadow: Shadow) -> Map<String, Json> {
    // The table that a lookup points at is written with it, by name of the navigation property.
    let is_written = shadow.kind == ShadowKind::TableName;
    let logical = shadow.schema_name.to_lowercase();
    let kind = match shadow.kind {
        ShadowKind::Text => ColumnKind::Text { max: name_length(schema, column, &logical), format: "Text".to_owned() },
        ShadowKind::TableName | ShadowKind::OptionLabel => ColumnKind::EntityName,
    };
    let shown = Column {
        id: stable_id(&format!("{}.{logical}", table.logical)),
        wire: logical.clone(),
        logical,
        schema_name: shadow.schema_name,
        label: Label::default(),
        description: Label::default(),
        kind,
        required: if column.required == Required::System { Required::System } else { Required::None },
        for_create: is_written && column.for_create,
        for_update: is_written && column.for_update,
        for_read: true,
        default: None,
        auto_number: None,
        ..column.clone()
    };
    let mut object = render::column(schema, table, &shown);
    for (member, value) in [
        ("AttributeOf", json!(column.logical)),
        ("IsLogical", json!(true)),
        ("IsPrimaryId", json!(false)),
        ("IsPrimaryName", json!(false)),
    ] {
        object.insert(member.to_owned(), value);
    }
    if shadow.kind == ShadowKind::OptionLabel {
        object.insert("@odata.type".to_owned(), json!("#Microsoft.Dynamics.CRM.AttributeMetadata"));
        object.insert("AttributeType".to_owned(), json!("Virtual"));
        object.insert("AttributeTypeName".to_owned(), json!({ "Value": "VirtualType" }));
    }
    object
}
