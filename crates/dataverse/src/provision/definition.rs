//! Definitions as the service takes them (dossier section 6). Pure.

use flowgate_core::project::{ColumnSpec, ColumnSpecKind, TableSpec};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use serde_json::{Value, json};

use super::Publisher;

/// Labels are written in English, the language every environment knows.
const LANGUAGE: u32 = 1033;

/// The widest range of each kind.
const DECIMAL_MAX: f64 = 100_000_000_000.0;
const MONEY_MAX: f64 = 922_337_203_685_477.0;
/// Money keeps all digits the service stores.
const MONEY_SCALE: u8 = 4;

/// Option values of a publisher start here, times its prefix.
pub(crate) const OPTIONS_PER_PREFIX: i32 = 10_000;

pub(crate) fn table(spec: &TableSpec) -> Result<Value, ConnectorError> {
    let (Some([singular, plural]), Some((name, length))) = (&spec.display, &spec.primary_name) else {
        let message = format!("table `{}` cannot be created without display names and a name column", spec.table);
        return Err(ConnectorError::new(ErrorKind::Configuration, Code::MISSING_KEY, message)
            .hint("add `display: [Asset, Assets]` and `name: { column: wr_name, length: 100 }` to the table"));
    };
    Ok(table_body(&spec.table, [singular, plural], (name, *length), spec.change_tracking))
}

/// A user-owned table with its name column.
pub(crate) fn table_body(
    table: &str,
    [singular, plural]: [&str; 2],
    (name, length): (&str, u32),
    change_tracking: bool,
) -> Value {
    json!({
        "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata",
        "SchemaName": table,
        "DisplayName": label(singular),
        "DisplayCollectionName": label(plural),
        "OwnershipType": "UserOwned",
        "IsActivity": false,
        "HasActivities": false,
        "HasNotes": false,
        "ChangeTrackingEnabled": change_tracking,
        "Attributes": [{
            "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
            "SchemaName": name,
            "IsPrimaryName": true,
            "MaxLength": length,
            "FormatName": {"Value": "Text"},
            "RequiredLevel": {"Value": "None"},
            "DisplayName": label("Name"),
        }],
    })
}

pub(crate) fn column(spec: &ColumnSpec, publisher: &Publisher) -> Value {
    let (name, details) = typed(&spec.kind, publisher);
    let mut body = json!({
        "@odata.type": format!("Microsoft.Dynamics.CRM.{name}AttributeMetadata"),
        "SchemaName": spec.name,
        "DisplayName": label(display(spec)),
        "RequiredLevel": {"Value": "None"},
    });
    if let (Some(body), Value::Object(details)) = (body.as_object_mut(), details) {
        body.extend(details);
    }
    body
}

/// The type's name and its own properties.
fn typed(kind: &ColumnSpecKind, publisher: &Publisher) -> (&'static str, Value) {
    match kind {
        ColumnSpecKind::Text { length } => ("String", json!({"MaxLength": length, "FormatName": {"Value": "Text"}})),
        ColumnSpecKind::Memo { length } => ("Memo", json!({"MaxLength": length, "Format": "TextArea"})),
        ColumnSpecKind::Integer => ("Integer", json!({"MinValue": i32::MIN, "MaxValue": i32::MAX, "Format": "None"})),
        ColumnSpecKind::BigInteger => ("BigInt", json!({})),
        ColumnSpecKind::Decimal { scale } => {
            ("Decimal", json!({"MinValue": -DECIMAL_MAX, "MaxValue": DECIMAL_MAX, "Precision": scale}))
        }
        ColumnSpecKind::Double { precision } => {
            ("Double", json!({"MinValue": -DECIMAL_MAX, "MaxValue": DECIMAL_MAX, "Precision": precision}))
        }
        ColumnSpecKind::Money => (
            "Money",
            json!({"MinValue": -MONEY_MAX, "MaxValue": MONEY_MAX, "Precision": MONEY_SCALE, "PrecisionSource": 0}),
        ),
        ColumnSpecKind::Boolean => (
            "Boolean",
            json!({"DefaultValue": false, "OptionSet": {
                "@odata.type": "Microsoft.Dynamics.CRM.BooleanOptionSetMetadata",
                "TrueOption": {"Value": 1, "Label": label("Yes")},
                "FalseOption": {"Value": 0, "Label": label("No")},
            }}),
        ),
        ColumnSpecKind::DateTime => {
            ("DateTime", json!({"Format": "DateAndTime", "DateTimeBehavior": {"Value": "UserLocal"}}))
        }
        ColumnSpecKind::Date => ("DateTime", json!({"Format": "DateOnly", "DateTimeBehavior": {"Value": "DateOnly"}})),
        ColumnSpecKind::Choice { labels } => ("Picklist", json!({"OptionSet": option_set(labels, publisher)})),
        // A lookup comes with its relationship; see `relationship`.
        ColumnSpecKind::Lookup { .. } => ("Lookup", json!({})),
    }
}

fn option_set(labels: &[String], publisher: &Publisher) -> Value {
    let first = publisher.option_prefix.saturating_mul(OPTIONS_PER_PREFIX);
    let options: Vec<Value> =
        labels.iter().zip(first..).map(|(text, value)| json!({"Value": value, "Label": label(text)})).collect();
    json!({
        "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata",
        "IsGlobal": false,
        "OptionSetType": "Picklist",
        "Options": options,
    })
}

/// A lookup column and the relationship that makes it; `None` for other columns.
pub(crate) fn relationship(table: &str, spec: &ColumnSpec, target_id: &str) -> Option<Value> {
    let ColumnSpecKind::Lookup { target } = &spec.kind else { return None };
    Some(json!({
        "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
        "SchemaName": format!("{}_{target}_{table}", spec.name),
        "ReferencedEntity": target,
        "ReferencedAttribute": target_id,
        "ReferencingEntity": table,
        "CascadeConfiguration": {
            "Assign": "NoCascade", "Delete": "RemoveLink", "Merge": "NoCascade",
            "Reparent": "NoCascade", "Share": "NoCascade", "Unshare": "NoCascade",
        },
        "Lookup": {
            "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata",
            "SchemaName": spec.name,
            "AttributeType": "Lookup",
            "AttributeTypeName": {"Value": "LookupType"},
            "RequiredLevel": {"Value": "None"},
            "DisplayName": label(display(spec)),
        },
    }))
}

pub(crate) fn key(name: &str, columns: &[String]) -> Value {
    json!({"SchemaName": name, "KeyAttributes": columns, "DisplayName": label(name)})
}

fn display(spec: &ColumnSpec) -> &str {
    spec.display.as_deref().unwrap_or(&spec.name)
}

pub(crate) fn label(text: &str) -> Value {
    json!({
        "@odata.type": "Microsoft.Dynamics.CRM.Label",
        "LocalizedLabels": [{
            "@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel",
            "Label": text,
            "LanguageCode": LANGUAGE,
        }],
    })
}
