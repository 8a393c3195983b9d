//! Definition objects: tables, columns, keys, relationships, choices, as the product shows them.

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::schema::{
    AlternateKey, Cascade, Column, ColumnKind, DateBehavior, Follow, KeyStatus, LANGUAGE, Label, ManyToMany, OneToMany,
    Opt, OptionSet, Ownership, Required, Schema, State, Table, stable_id,
};

/// A label in every language it has. The caller's language is the organisation's.
pub(super) fn label(label: &Label) -> Json {
    let localized = |(language, text): (u32, &str)| {
        json!({
            "Label": text, "LanguageCode": language, "IsManaged": false,
            "MetadataId": stable_id(&format!("label:{language}:{text}")), "HasChanged": null,
        })
    };
    let all: Vec<Json> = label.languages().map(localized).collect();
    let own = label.languages().find(|(language, _)| *language == LANGUAGE).map(localized);
    json!({ "LocalizedLabels": all, "UserLocalizedLabel": own })
}

/// A managed property, whose value stands one level down.
fn managed(value: bool, name: &str) -> Json {
    json!({ "Value": value, "CanBeChanged": true, "ManagedPropertyLogicalName": name })
}

/// What a role can allow on a table. Activities share the privileges of one.
const PRIVILEGES: [&str; 8] = ["Create", "Read", "Write", "Delete", "Assign", "Share", "Append", "AppendTo"];

/// The privileges of a table: kind and name.
pub(crate) fn privileges(table: &Table) -> impl Iterator<Item = (&'static str, String)> {
    let subject = if table.is_activity { "Activity" } else { table.schema_name.as_str() };
    PRIVILEGES.iter().map(move |kind| (*kind, format!("prv{kind}{subject}")))
}

pub(super) fn table(table: &Table) -> Map<String, Json> {
    let ownership = match table.ownership {
        Ownership::User => "UserOwned",
        Ownership::Organization => "OrganizationOwned",
        Ownership::Business => "BusinessOwned",
        Ownership::None => "None",
    };
    let value = json!({
        "MetadataId": table.metadata_id,
        "LogicalName": table.logical,
        "SchemaName": table.schema_name,
        "EntitySetName": table.set_name,
        "LogicalCollectionName": table.set_name,
        "CollectionSchemaName": table.collection_name.clone().unwrap_or_else(|| format!("{}s", table.schema_name)),
        "ObjectTypeCode": table.object_type_code,
        "PrimaryIdAttribute": table.primary_id(),
        "PrimaryNameAttribute": table.primary_name().map(|column| &column.logical),
        "PrimaryImageAttribute": primary_image(table),
        "DisplayName": label(&table.label),
        "DisplayCollectionName": label(&table.plural),
        "Description": label(&table.description),
        "OwnershipType": ownership,
        "TableType": if table.is_elastic { "Elastic" } else { "Standard" },
        "DataProviderId": null,
        "ChangeTrackingEnabled": table.change_tracking,
        "CanChangeTrackingBeEnabled": managed(!table.is_intersect, "canchangetrackingbeenabled"),
        "IsOptimisticConcurrencyEnabled": table.optimistic,
        "IsActivity": table.is_activity,
        "HasActivities": table.has_activities,
        "HasNotes": table.has_notes,
        "IsCustomEntity": table.is_custom,
        "IsIntersect": table.is_intersect,
        "IsPrivate": false,
        "IsManaged": !table.is_custom,
        "IsLogicalEntity": false,
        "IsValidForAdvancedFind": true,
        "IsBulkDeletable": table.writable,
        "IsDuplicateDetectionEnabled": managed(table.duplicates, "isduplicatedetectionenabled"),
        "IsCustomizable": managed(true, "iscustomizable"),
        "HasChanged": null,
        "Privileges": privileges(table).map(|(kind, name)| json!({
            "PrivilegeType": kind, "Name": name, "PrivilegeId": stable_id(&format!("privilege:{name}")),
            "CanBeBasic": true, "CanBeLocal": true, "CanBeDeep": true, "CanBeGlobal": true,
        })).collect::<Vec<_>>(),
    });
    into_map(value)
}

/// The first image column; which of several a real table shows is chosen by its maker.
fn primary_image(table: &Table) -> Option<&str> {
    let image = table.live_columns().find(|column| matches!(column.kind, ColumnKind::Image { .. }));
    image.map(|column| column.logical.as_str())
}

fn into_map(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// `AttributeType`, `AttributeTypeName`, and the metadata type of a column.
pub(super) fn type_names(column: &Column) -> (&'static str, &'static str, &'static str) {
    match &column.kind {
        ColumnKind::Text { .. } => ("String", "StringType", "StringAttributeMetadata"),
        ColumnKind::Memo { .. } => ("Memo", "MemoType", "MemoAttributeMetadata"),
        ColumnKind::Integer { .. } => ("Integer", "IntegerType", "IntegerAttributeMetadata"),
        ColumnKind::BigInt => ("BigInt", "BigIntType", "BigIntAttributeMetadata"),
        ColumnKind::Decimal { .. } => ("Decimal", "DecimalType", "DecimalAttributeMetadata"),
        ColumnKind::Double { .. } => ("Double", "DoubleType", "DoubleAttributeMetadata"),
        ColumnKind::Money { .. } => ("Money", "MoneyType", "MoneyAttributeMetadata"),
        ColumnKind::Boolean { .. } => ("Boolean", "BooleanType", "BooleanAttributeMetadata"),
        ColumnKind::DateTime { .. } => ("DateTime", "DateTimeType", "DateTimeAttributeMetadata"),
        ColumnKind::Choice { .. } => ("Picklist", "PicklistType", "PicklistAttributeMetadata"),
        ColumnKind::Choices { .. } => ("Virtual", "MultiSelectPicklistType", "MultiSelectPicklistAttributeMetadata"),
        ColumnKind::State { .. } => ("State", "StateType", "StateAttributeMetadata"),
        ColumnKind::Status { .. } => ("Status", "StatusType", "StatusAttributeMetadata"),
        ColumnKind::Lookup { .. } if column.logical == "ownerid" => ("Owner", "OwnerType", "LookupAttributeMetadata"),
        ColumnKind::Lookup { .. } if matches!(column.logical.as_str(), "customerid" | "parentcustomerid") => {
            ("Customer", "CustomerType", "LookupAttributeMetadata")
        }
        ColumnKind::Lookup { .. } => ("Lookup", "LookupType", "LookupAttributeMetadata"),
        ColumnKind::Guid => ("Uniqueidentifier", "UniqueidentifierType", "UniqueIdentifierAttributeMetadata"),
        ColumnKind::EntityName => ("EntityName", "EntityNameType", "EntityNameAttributeMetadata"),
        ColumnKind::File { .. } => ("Virtual", "FileType", "FileAttributeMetadata"),
        ColumnKind::Image { .. } => ("Virtual", "ImageType", "ImageAttributeMetadata"),
        ColumnKind::PartyList { .. } => ("PartyList", "PartyListType", "LookupAttributeMetadata"),
    }
}

pub(super) fn required(level: Required) -> &'static str {
    match level {
        Required::None => "None",
        Required::Recommended => "Recommended",
        Required::Application => "ApplicationRequired",
        Required::System => "SystemRequired",
    }
}

pub(super) fn column(schema: &Schema, table: &Table, column: &Column) -> Map<String, Json> {
    let (kind, kind_name, metadata_type) = type_names(column);
    let mut object = into_map(json!({
        "@odata.type": format!("#Microsoft.Dynamics.CRM.{metadata_type}"),
        "MetadataId": column.id,
        "LogicalName": column.logical,
        "SchemaName": column.schema_name,
        "EntityLogicalName": table.logical,
        "AttributeType": kind,
        "AttributeTypeName": { "Value": kind_name },
        "DisplayName": label(&column.label),
        "Description": label(&column.description),
        "RequiredLevel": { "Value": required(column.required), "CanBeChanged": true, "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings" },
        "IsValidForCreate": column.for_create,
        "IsValidForUpdate": column.for_update && column.ordinal != 0,
        "IsValidForRead": column.for_read,
        "IsPrimaryId": column.ordinal == 0,
        "IsPrimaryName": table.primary_name == Some(column.ordinal),
        "IsCustomAttribute": column.is_custom,
        "IsManaged": !column.is_custom,
        "IsSecured": false,
        "IsLogical": false,
        "AttributeOf": part_of(table, column),
        "ColumnNumber": column.ordinal + 1,
        "HasChanged": null,
    }));
    object.extend(into_map(type_members(schema, table, column)));
    object
}

/// The file or image that a column is a part of.
fn part_of<'a>(table: &'a Table, column: &Column) -> Option<&'a str> {
    let whole = table.columns.iter().find(|whole| {
        let ends: &[&str] = match whole.kind {
            ColumnKind::File { .. } => &["_name"],
            ColumnKind::Image { .. } => &["id", "_timestamp", "_url"],
            _ => return false,
        };
        column.logical.strip_prefix(&whole.logical).is_some_and(|end| ends.contains(&end))
    });
    whole.map(|whole| whole.logical.as_str())
}

/// Every column of a table, those that only show another included.
pub(super) fn columns(schema: &Schema, table: &Table) -> Vec<Map<String, Json>> {
    let mut columns = Vec::new();
    for shown in table.live_columns() {
        columns.push(column(schema, table, shown));
        columns.extend(super::shadows::of_column(schema, table, shown));
    }
    columns
}

fn type_members(schema: &Schema, table: &Table, column: &Column) -> Json {
    match &column.kind {
        ColumnKind::Text { max, format } => {
            json!({ "MaxLength": max, "DatabaseLength": max * 2, "Format": format, "FormatName": { "Value": format }, "AutoNumberFormat": column.auto_number })
        }
        ColumnKind::Memo { max } => {
            json!({ "MaxLength": max, "Format": "TextArea", "FormatName": { "Value": "TextArea" }, "ImeMode": "Auto" })
        }
        ColumnKind::Integer { min, max, format } => {
            json!({ "MinValue": min, "MaxValue": max, "Format": format.name() })
        }
        ColumnKind::Decimal { min, max, precision } | ColumnKind::Double { min, max, precision } => {
            json!({ "MinValue": min, "MaxValue": max, "Precision": precision })
        }
        ColumnKind::Money { min, max, precision, precision_source, is_base, .. } => {
            json!({ "MinValue": min, "MaxValue": max, "Precision": precision, "PrecisionSource": precision_source, "IsBaseCurrency": is_base, "CalculationOf": calculation_of(table, column) })
        }
        ColumnKind::Boolean { true_label, false_label } => json!({
            "DefaultValue": column.default.unwrap_or(0) != 0,
            "OptionSet": {
                "TrueOption": option(&Opt { value: 1, label: true_label.clone(), state: None }),
                "FalseOption": option(&Opt { value: 0, label: false_label.clone(), state: None }),
            },
        }),
        ColumnKind::DateTime { behavior, date_format } => json!({
            "Format": if *date_format { "DateOnly" } else { "DateAndTime" },
            "DateTimeBehavior": { "Value": behavior_name(*behavior) },
        }),
        ColumnKind::Choice { set } | ColumnKind::Choices { set } => {
            let shown = option_set(set);
            let global = if set.is_global { shown.clone() } else { Json::Null };
            json!({ "DefaultFormValue": column.default.unwrap_or(-1), "OptionSet": shown, "GlobalOptionSet": global })
        }
        ColumnKind::Status { set } => {
            json!({ "OptionSet": option_set(set), "GlobalOptionSet": null })
        }
        ColumnKind::State { states } => {
            json!({ "OptionSet": states_set(table, states), "GlobalOptionSet": null })
        }
        ColumnKind::Lookup { targets } => {
            json!({ "Targets": targets.iter().map(|target| &schema.table(target.table).logical).collect::<Vec<_>>() })
        }
        ColumnKind::File { max_kb } | ColumnKind::Image { max_kb } => {
            json!({ "MaxSizeInKB": max_kb })
        }
        // Parties are rows of a table of their own, whose lookup says what they may be.
        ColumnKind::PartyList { .. } => {
            let party = schema.by_logical("activityparty").and_then(|parties| parties.find("partyid"));
            let targets: Vec<&String> = match party.map(|party| &party.kind) {
                Some(ColumnKind::Lookup { targets }) => {
                    targets.iter().map(|target| &schema.table(target.table).logical).collect()
                }
                _ => Vec::new(),
            };
            json!({ "Targets": targets })
        }
        ColumnKind::BigInt | ColumnKind::Guid | ColumnKind::EntityName => json!({}),
    }
}

fn calculation_of(table: &Table, column: &Column) -> Option<String> {
    let owner = table.columns.iter().find(|other| match other.kind {
        ColumnKind::Money { base, .. } => base == Some(column.ordinal),
        _ => false,
    });
    owner.map(|owner| owner.logical.clone())
}

fn behavior_name(behavior: DateBehavior) -> &'static str {
    match behavior {
        DateBehavior::UserLocal => "UserLocal",
        DateBehavior::DateOnly => "DateOnly",
        DateBehavior::TimeZoneIndependent => "TimeZoneIndependent",
    }
}

fn option(option: &Opt) -> Json {
    let mut object = json!({
        "Value": option.value, "Label": label(&option.label), "Description": label(&Label::default()), "Color": null,
        "IsManaged": false, "MetadataId": null, "HasChanged": null,
    });
    if let Some(state) = option.state {
        object["@odata.type"] = "#Microsoft.Dynamics.CRM.StatusOptionMetadata".into();
        object["State"] = state.into();
    }
    object
}

pub(super) fn option_set(set: &OptionSet) -> Json {
    json!({
        "@odata.type": "#Microsoft.Dynamics.CRM.OptionSetMetadata",
        "MetadataId": set.id, "Name": set.name, "DisplayName": label(&set.label), "IsGlobal": set.is_global,
        "IsCustomOptionSet": true, "OptionSetType": "Picklist",
        "Options": set.options.iter().map(option).collect::<Vec<_>>(),
    })
}

fn states_set(table: &Table, states: &[State]) -> Json {
    let options: Vec<Json> = states
        .iter()
        .map(|state| {
            let mut shown = option(&Opt { value: state.value, label: state.label.clone(), state: None });
            shown["@odata.type"] = "#Microsoft.Dynamics.CRM.StateOptionMetadata".into();
            shown["DefaultStatus"] = state.default_status.into();
            shown["InvariantName"] = state.label.to_string().into();
            shown
        })
        .collect();
    json!({ "Name": format!("{}_statecode", table.logical), "IsGlobal": false, "OptionSetType": "State", "Options": options })
}

pub(super) fn key(table: &Table, key: &AlternateKey) -> Map<String, Json> {
    let columns: Vec<&str> = key.columns.iter().map(|ordinal| table.column(*ordinal).logical.as_str()).collect();
    let status = match key.status {
        KeyStatus::Pending => "Pending",
        KeyStatus::InProgress => "InProgress",
        KeyStatus::Active => "Active",
        KeyStatus::Failed => "Failed",
    };
    into_map(json!({
        "MetadataId": key.id,
        "LogicalName": key.schema_name.to_lowercase(),
        "SchemaName": key.schema_name,
        "EntityLogicalName": table.logical,
        "KeyAttributes": columns,
        "EntityKeyIndexStatus": status,
        "DisplayName": label(&key.label),
        "IsManaged": false,
        "IsSynchronous": false,
        "IsSecondaryKey": false,
        "HasChanged": null,
    }))
}

fn cascade(value: Cascade) -> &'static str {
    match value {
        Cascade::Cascade => "Cascade",
        Cascade::NoCascade => "NoCascade",
        Cascade::RemoveLink => "RemoveLink",
        Cascade::Restrict => "Restrict",
    }
}

fn follows(one: &OneToMany, operation: Follow) -> &'static str {
    cascade(if one.follows.contains(&operation) { Cascade::Cascade } else { Cascade::NoCascade })
}

pub(super) fn one_to_many(schema: &Schema, one: &OneToMany) -> Map<String, Json> {
    let (parent, child) = (schema.table(one.referenced), schema.table(one.referencing));
    into_map(json!({
        "@odata.type": "#Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
        "MetadataId": one.id,
        "SchemaName": one.schema_name,
        "RelationshipType": "OneToManyRelationship",
        "ReferencedEntity": parent.logical,
        "ReferencedAttribute": parent.primary_id(),
        "ReferencingEntity": child.logical,
        "ReferencingAttribute": child.column(one.column).logical,
        "ReferencingEntityNavigationPropertyName": one.to_one,
        "ReferencedEntityNavigationPropertyName": one.to_many,
        "CascadeConfiguration": {
            "Assign": follows(one, Follow::Assign), "Delete": cascade(one.on_delete),
            "Merge": follows(one, Follow::Merge), "Reparent": follows(one, Follow::Reparent),
            "Share": follows(one, Follow::Share), "Unshare": follows(one, Follow::Unshare),
            "RollupView": "NoCascade",
        },
        "IsCustomRelationship": one.is_custom,
        "IsHierarchical": one.is_hierarchical,
        "IsManaged": !one.is_custom,
        "HasChanged": null,
    }))
}

pub(super) fn many_to_many(schema: &Schema, many: &ManyToMany) -> Map<String, Json> {
    let intersect = schema.table(many.intersect);
    let [first, second] = many.tables.map(|table| schema.table(table));
    into_map(json!({
        "@odata.type": "#Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata",
        "MetadataId": many.id,
        "SchemaName": many.schema_name,
        "RelationshipType": "ManyToManyRelationship",
        "IntersectEntityName": intersect.logical,
        "Entity1LogicalName": first.logical,
        "Entity2LogicalName": second.logical,
        "Entity1IntersectAttribute": intersect.column(many.columns[0]).logical,
        "Entity2IntersectAttribute": intersect.column(many.columns[1]).logical,
        "Entity1NavigationPropertyName": many.navigation[0],
        "Entity2NavigationPropertyName": many.navigation[1],
        "IsCustomRelationship": true,
        "HasChanged": null,
    }))
}

/// Whether a path segment names this part: by metadata id or by name.
pub(super) fn is_named(inner: &str, id: Uuid, property: &str, name: &str) -> bool {
    if let Ok(wanted) = Uuid::parse_str(inner) {
        return wanted == id;
    }
    inner.split_once('=').is_some_and(|(found, value)| {
        found.trim() == property && value.trim().trim_matches('\'').eq_ignore_ascii_case(name)
    })
}
