//! Columns and global choices posted as definitions.
//!
//! Promise: a column takes the bounds, format and options its definition gives, and the product's
//! defaults for what it leaves out. Left out: lookups, which come with their relationship.

use std::sync::Arc;

use serde_json::Value as Json;

use super::render;
use super::write::{
    COMPONENT_COLUMN, add_component, body_of, change, created, given_label, kind_of, label_of, require_identifier,
    require_prefix, solution, text,
};
use crate::error::{ApiError, Code};
use crate::schema::{
    ColumnKind, DateBehavior, IntegerFormat, NewColumn, Opt, OptionSet, Relationship, Required, Schema, Table,
    add_column, choice_set,
};
use crate::web::{Access, Answer, Call, Request};

fn number(body: &Json, name: &str, otherwise: f64) -> f64 {
    body.get(name).and_then(Json::as_f64).unwrap_or(otherwise)
}

pub(super) fn new_column(schema: &Schema, body: &Json) -> Result<NewColumn, ApiError> {
    let schema_name = text(body, "SchemaName")?;
    require_prefix(schema_name)?;
    let default = body.get("DefaultValue").and_then(|value| value.as_bool().map(i64::from).or_else(|| value.as_i64()));
    let default = default.or_else(|| body.get("DefaultFormValue").and_then(Json::as_i64).filter(|value| *value >= 0));
    Ok(NewColumn {
        logical: schema_name.to_lowercase(),
        schema_name: schema_name.to_owned(),
        label: label_of(body, "DisplayName", schema_name),
        description: given_label(body, "Description"),
        kind: column_kind(schema, body, schema_name)?,
        required: required_level(body),
        is_custom: true,
        for_create: true,
        for_update: true,
        default,
    })
}

pub(super) fn required_level(body: &Json) -> Required {
    match body.get("RequiredLevel").and_then(|level| level.get("Value")).and_then(Json::as_str) {
        Some("Recommended") => Required::Recommended,
        Some("ApplicationRequired") => Required::Application,
        Some("SystemRequired") => Required::System,
        _ => Required::None,
    }
}

pub(super) fn column_kind(schema: &Schema, body: &Json, schema_name: &str) -> Result<ColumnKind, ApiError> {
    let integer =
        |name: &str, otherwise: u32| body.get(name).and_then(Json::as_u64).map_or(otherwise, |value| value as u32);
    let precision = |otherwise: u64| body.get("Precision").and_then(Json::as_u64).unwrap_or(otherwise).min(10) as u8;
    let format =
        body.get("FormatName").and_then(|name| name.get("Value")).or_else(|| body.get("Format")).and_then(Json::as_str);
    let decimal_max = 100_000_000_000.0;
    // CreateEntities has complex types of the same members.
    Ok(match kind_of(body).trim_start_matches("Complex") {
        "StringAttributeMetadata" => {
            let max = integer("MaxLength", 100);
            if !(1..=4000).contains(&max) {
                return Err(ApiError::bad_request(format!("MaxLength {max} is outside 1 to 4000.")));
            }
            ColumnKind::Text { max, format: format.unwrap_or("Text").to_owned() }
        }
        "MemoAttributeMetadata" => ColumnKind::Memo { max: integer("MaxLength", 2000).min(1_048_576) },
        "IntegerAttributeMetadata" => ColumnKind::Integer {
            min: number(body, "MinValue", f64::from(i32::MIN)) as i64,
            max: number(body, "MaxValue", f64::from(i32::MAX)) as i64,
            format: format.and_then(IntegerFormat::named).unwrap_or_default(),
        },
        "BigIntAttributeMetadata" => ColumnKind::BigInt,
        "DecimalAttributeMetadata" => ColumnKind::Decimal {
            min: number(body, "MinValue", -decimal_max),
            max: number(body, "MaxValue", decimal_max),
            precision: precision(2),
        },
        "DoubleAttributeMetadata" => ColumnKind::Double {
            min: number(body, "MinValue", -decimal_max),
            max: number(body, "MaxValue", decimal_max),
            precision: precision(2).min(5),
        },
        "MoneyAttributeMetadata" => ColumnKind::Money {
            min: number(body, "MinValue", -922_337_203_685_477.0),
            max: number(body, "MaxValue", 922_337_203_685_477.0),
            precision: precision(2).min(4),
            precision_source: integer("PrecisionSource", 2).min(2) as u8,
            base: None,
            is_base: false,
        },
        "BooleanAttributeMetadata" => boolean_kind(body),
        "DateTimeAttributeMetadata" => date_kind(body, format),
        "PicklistAttributeMetadata" => ColumnKind::Choice { set: options_of(schema, body, schema_name)? },
        "MultiSelectPicklistAttributeMetadata" => ColumnKind::Choices { set: options_of(schema, body, schema_name)? },
        "FileAttributeMetadata" => ColumnKind::File { max_kb: integer("MaxSizeInKB", 32_768) },
        "ImageAttributeMetadata" => ColumnKind::Image { max_kb: integer("MaxSizeInKB", 10_240) },
        "UniqueIdentifierAttributeMetadata" => ColumnKind::Guid,
        "LookupAttributeMetadata" => {
            return Err(ApiError::bad_request("A lookup is created with its relationship, not as a column."));
        }
        other => {
            return Err(ApiError::bad_request(format!("The column type '{other}' cannot be created.")));
        }
    })
}

fn boolean_kind(body: &Json) -> ColumnKind {
    let set = body.get("OptionSet").cloned().unwrap_or_default();
    let label = |name: &str, otherwise: &str| {
        set.get(name).map_or_else(|| otherwise.into(), |option| label_of(option, "Label", otherwise))
    };
    ColumnKind::Boolean { true_label: label("TrueOption", "Yes"), false_label: label("FalseOption", "No") }
}

fn date_kind(body: &Json, format: Option<&str>) -> ColumnKind {
    let behavior = match body.get("DateTimeBehavior").and_then(|value| value.get("Value")).and_then(Json::as_str) {
        Some("DateOnly") => DateBehavior::DateOnly,
        Some("TimeZoneIndependent") => DateBehavior::TimeZoneIndependent,
        _ => DateBehavior::UserLocal,
    };
    // Without a format the product shows the date alone.
    ColumnKind::DateTime { behavior, date_format: format != Some("DateAndTime") || behavior == DateBehavior::DateOnly }
}

fn options_of(schema: &Schema, body: &Json, schema_name: &str) -> Result<OptionSet, ApiError> {
    if let Some(link) = body.get("GlobalOptionSet@odata.bind").and_then(Json::as_str) {
        let inner = link.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or_default();
        let found = schema.option_sets.iter().find(|set| render::is_named(inner, set.id, "Name", &set.name));
        return found
            .cloned()
            .ok_or_else(|| ApiError::bad_request(format!("The global choice '{link}' does not exist.")));
    }
    let set = body.get("OptionSet").ok_or_else(|| ApiError::bad_request("A choice column needs an OptionSet."))?;
    Ok(choice_set(&schema_name.to_lowercase(), &label_of(set, "DisplayName", schema_name), option_list(set)))
}

fn option_list(set: &Json) -> Vec<Opt> {
    let options = set.get("Options").and_then(Json::as_array).cloned().unwrap_or_default();
    options
        .iter()
        .enumerate()
        .map(|(index, option)| {
            let value = option.get("Value").and_then(Json::as_i64).unwrap_or(100_000_000 + index as i64);
            Opt { value: value as i32, label: label_of(option, "Label", &value.to_string()), state: None }
        })
        .collect()
}

pub(super) fn create_column(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table_id, logical) = (table.id, table.logical.clone());
    let id = access.write(|database| {
        let solution = solution(database, request)?;
        let id = change(call, database, |schema| {
            let new = new_column(schema, &body)?;
            if schema.table(table_id).find(&new.logical).is_some() {
                let message = format!(
                    "An attribute with the specified name {} already exists for entity {logical}.",
                    new.logical
                );
                return Err(ApiError::new(Code::NameExists, message));
            }
            let ordinal = add_column(schema, table_id, new);
            Ok(schema.table(table_id).column(ordinal).id)
        })?;
        add_component(database, solution, COMPONENT_COLUMN, id);
        Ok(id)
    })?;
    Ok(created(call, &format!("EntityDefinitions({})/Attributes({id})", table.metadata_id)))
}

pub(super) fn create_choice(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let name = text(&body, "Name")?.to_lowercase();
    require_identifier(&name)?;
    let mut set = choice_set(&name, &label_of(&body, "DisplayName", &name), option_list(&body));
    set.is_global = true;
    let id = set.id;
    access.write(|database| {
        change(call, database, |schema| {
            if schema.option_sets.iter().any(|known| known.name == name) {
                return Err(ApiError::new(Code::NameExists, format!("A choice with the name {name} already exists.")));
            }
            schema.option_sets.push(set);
            Ok(())
        })
    })?;
    Ok(created(call, &format!("GlobalOptionSetDefinitions({id})")))
}

pub(super) fn delete_column(
    call: &Call<'_>,
    access: &mut Access<'_>,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let found = table.live_columns().find(|column| render::is_named(inner, column.id, "LogicalName", &column.logical));
    let column = found.ok_or_else(|| ApiError::no_resource(inner))?;
    if !column.is_custom
        || table.primary_name == Some(column.ordinal)
        || table.keys.iter().any(|key| key.columns.contains(&column.ordinal))
    {
        return Err(ApiError::bad_request(format!("The attribute '{}' cannot be deleted.", column.logical)));
    }
    let (id, ordinal) = (table.id, column.ordinal);
    access.write(|database| {
        change(call, database, |schema| {
            Arc::make_mut(&mut schema.tables[usize::from(id)]).columns[usize::from(ordinal)].deleted = true;
            schema.relationships.retain(|relationship| match relationship {
                Relationship::OneToMany(one) => one.referencing != id || one.column != ordinal,
                Relationship::ManyToMany(_) => true,
            });
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

/// Deletes a global choice that no column uses.
pub(super) fn delete_choice(call: &Call<'_>, access: &mut Access<'_>, inner: &str) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            let found = schema.option_sets.iter().position(|set| render::is_named(inner, set.id, "Name", &set.name));
            let set = schema.option_sets.remove(found.ok_or_else(|| ApiError::no_resource(inner))?);
            let uses = |kind: &ColumnKind| match kind {
                ColumnKind::Choice { set: used } | ColumnKind::Choices { set: used } => used.id == set.id,
                _ => false,
            };
            let user = schema.live_tables().find(|table| table.live_columns().any(|column| uses(&column.kind)));
            match user {
                Some(table) => Err(ApiError::new(
                    Code::DependencyExists,
                    format!(
                        "The choice '{}' is used by columns of '{}' and cannot be deleted.",
                        set.name, table.logical
                    ),
                )),
                None => Ok(()),
            }
        })
    })?;
    Ok(Answer::no_content())
}
