//! Writing definitions: tables, columns, keys, relationships, choices; deleting them.
//!
//! Promise: what is created is usable at once through `Consistency: Strong` and, for everybody
//! else, after the metadata lag; an alternate key becomes active by a job, or fails when rows
//! share its values. Left out, and refused by name: changing a definition in place.

use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::read::find_table;
use super::render;
use crate::address::split_segment;
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::query::QueryOptions;
use crate::schema::{
    AlternateKey, Cascade, Column, ColumnKind, DateBehavior, KeyStatus, NewColumn, NewTable, Opt,
    OptionSet, Ownership, Relationship, Required, Schema, State, Table, TableId, add_column,
    add_lookup, add_many_to_many, add_system_lookups, add_table, choice_set, stable_id,
};
use crate::storage::{Database, Job, JobKind, Value, encode};
use crate::web::{Access, Answer, Call, Request};

/// Most alternate keys of a table, and most columns of a key.
const KEYS_MAX: usize = 10;
const KEY_COLUMNS_MAX: usize = 16;
/// `componenttype` of a table and of a column.
const COMPONENT_TABLE: i64 = 1;
const COMPONENT_COLUMN: i64 = 2;

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    segments: &[String],
) -> Result<Answer, ApiError> {
    let (set, inner) = split_segment(&segments[0]);
    let parts: Vec<(&str, Option<&str>)> = segments[1..]
        .iter()
        .map(|segment| split_segment(segment))
        .collect();
    let answer = match (request.method.as_str(), set, inner, parts.as_slice()) {
        ("POST", "EntityDefinitions", None, []) => create_table(call, access, request),
        ("POST", "EntityDefinitions", Some(inner), [("Attributes", None)]) => {
            create_column(call, access, request, find_table(schema, inner)?)
        }
        ("POST", "EntityDefinitions", Some(inner), [("Keys", None)]) => {
            create_key(call, access, request, find_table(schema, inner)?)
        }
        ("POST", "RelationshipDefinitions", None, []) => create_relationship(call, access, request),
        ("POST", "GlobalOptionSetDefinitions", None, []) => create_choice(call, access, request),
        ("DELETE", "EntityDefinitions", Some(inner), []) => {
            delete_table(call, access, find_table(schema, inner)?.id)
        }
        ("DELETE", "EntityDefinitions", Some(inner), [("Attributes", Some(column))]) => {
            delete_column(call, access, find_table(schema, inner)?, column)
        }
        ("DELETE", "EntityDefinitions", Some(inner), [("Keys", Some(key))]) => {
            delete_key(call, access, find_table(schema, inner)?, key)
        }
        ("PUT", ..) => Err(ApiError::not_here("updating a definition in place")),
        _ => Err(ApiError::not_here(&format!(
            "{} on these definitions",
            request.method
        ))),
    };
    answer.map(|answer| answer.with_work(Message::Metadata, 1))
}

fn body_of(request: &Request) -> Result<Json, ApiError> {
    serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("The request body does not parse: {error}")))
}

fn text<'a>(body: &'a Json, name: &str) -> Result<&'a str, ApiError> {
    let value = body
        .get(name)
        .and_then(Json::as_str)
        .filter(|text| !text.is_empty());
    value.ok_or_else(|| ApiError::bad_request(format!("Required field '{name}' is missing")))
}

fn flag(body: &Json, name: &str) -> bool {
    let value = body.get(name);
    value
        .and_then(Json::as_bool)
        .or_else(|| value?.get("Value")?.as_bool())
        .unwrap_or(false)
}

fn label_of(body: &Json, name: &str, otherwise: &str) -> String {
    let labels = body
        .get(name)
        .and_then(|label| label.get("LocalizedLabels"))
        .and_then(Json::as_array);
    let first = labels
        .and_then(|labels| labels.first())
        .and_then(|label| label.get("Label"))
        .and_then(Json::as_str);
    first.unwrap_or(otherwise).to_owned()
}

fn kind_of(body: &Json) -> &str {
    let kind = body
        .get("@odata.type")
        .and_then(Json::as_str)
        .unwrap_or_default();
    kind.trim_start_matches('#')
        .trim_start_matches("Microsoft.Dynamics.CRM.")
}

/// A name is custom when it carries a publisher's prefix.
fn require_prefix(schema_name: &str) -> Result<(), ApiError> {
    let prefix = schema_name.split_once('_').map(|(prefix, _)| prefix);
    let valid = prefix.is_some_and(|prefix| {
        (2..=8).contains(&prefix.len()) && prefix.chars().all(char::is_alphanumeric)
    });
    if valid {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "The schema name '{schema_name}' needs the customization prefix of a publisher."
    )))
}

/// Applies a change to a copy of the current schema and puts it in force.
fn change<T>(
    call: &Call<'_>,
    database: &mut Database,
    edit: impl FnOnce(&mut Schema) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut schema = Schema::clone(&database.schema);
    let result = edit(&mut schema)?;
    schema.version += 1;
    schema.reindex();
    database.forget_old_schemas(call.now);
    database.set_schema(schema, call.now + call.settings.metadata_lag_s);
    Ok(result)
}

fn created(call: &Call<'_>, path: &str) -> Answer {
    let mut answer = Answer::no_content();
    answer.set("odata-entityid", &format!("{}/{path}", call.base));
    answer
}

/// The solution a component is created in, which must exist.
fn solution(database: &Database, request: &Request) -> Result<Option<Uuid>, ApiError> {
    let header = request
        .headers
        .get("mscrm.solutionuniquename")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let option = QueryOptions::parse(&request.query)?
        .other
        .get("SolutionUniqueName")
        .cloned();
    let Some(name) = header.or(option) else {
        return Ok(None);
    };
    let table = database
        .schema
        .by_logical("solution")
        .ok_or_else(|| ApiError::not_here("solutions"))?;
    let unique_name = table.ordinal("uniquename").unwrap_or_default();
    let found =
        database
            .store(table.id)
            .rows_after(None)
            .find(|(_, row)| match row.get(unique_name) {
                Some(crate::storage::ValueRef::Text(text)) => text.eq_ignore_ascii_case(&name),
                _ => false,
            });
    let id = found.map(|(id, _)| *id);
    id.map(Some).ok_or_else(|| {
        ApiError::new(
            Code::ObjectDoesNotExist,
            format!("The solution '{name}' does not exist."),
        )
    })
}

/// Records that a component belongs to a solution.
fn add_component(database: &mut Database, solution: Option<Uuid>, kind: i64, id: Uuid) {
    let (Some(solution), Some(table)) = (
        solution,
        database.schema.by_logical("solutioncomponent").cloned(),
    ) else {
        return;
    };
    let solutions = database
        .schema
        .by_logical("solution")
        .map_or(0, |table| table.id);
    let mut cells = Vec::new();
    let values = [
        ("solutionid", Value::Lookup(solutions, solution)),
        ("componenttype", Value::Int(kind)),
        ("objectid", Value::Guid(id)),
    ];
    for (name, value) in values {
        cells.extend(table.ordinal(name).map(|ordinal| (ordinal, Some(value))));
    }
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let row = stable_id(&format!("component:{solution}:{id}"));
    // The table has no alternate keys that could object.
    let _stored = database.put(table.id, row, encode(&cells));
}

fn create_table(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let schema_name = text(&body, "SchemaName")?.to_owned();
    require_prefix(&schema_name)?;
    let columns = body
        .get("Attributes")
        .and_then(Json::as_array)
        .cloned()
        .unwrap_or_default();
    let primary = columns.iter().find(|column| flag(column, "IsPrimaryName"));
    let primary = primary.ok_or_else(|| {
        ApiError::bad_request("A table needs a string column with IsPrimaryName true.")
    })?;
    let primary = text(primary, "SchemaName")?.to_lowercase();
    let id = access.write(|database| {
        let solution = solution(database, request)?;
        let (id, table) = change(call, database, |schema| {
            if schema.by_logical(&schema_name.to_lowercase()).is_some() {
                let message =
                    format!("An entity with the specified name {schema_name} already exists.");
                return Err(ApiError::new(Code::NameExists, message));
            }
            let table = add_table(schema, new_table(&body, &schema_name));
            add_system_lookups(schema, &[table]);
            schema.reindex();
            for column in &columns {
                let new = new_column(schema, column)?;
                add_column(schema, table, new);
            }
            let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
            let position = entry
                .columns
                .iter()
                .position(|column| column.logical == primary);
            entry.primary_name = position.map(|index| index as u16);
            add_elastic_key(entry);
            Ok((entry.metadata_id, table))
        })?;
        add_component(database, solution, COMPONENT_TABLE, id);
        register_messages(database, table);
        Ok(id)
    })?;
    Ok(created(call, &format!("EntityDefinitions({id})")))
}

/// Every elastic table has the key of primary id and partition.
fn add_elastic_key(table: &mut Table) {
    if table.is_elastic {
        let partition = table
            .columns
            .iter()
            .position(|column| column.logical == "partitionid")
            .unwrap_or_default();
        let name = "KeyForNoSqlEntityWithPKPartitionId";
        table.keys.push(AlternateKey {
            id: stable_id(&format!("{}.key.{name}", table.logical)),
            schema_name: name.to_owned(),
            label: name.to_owned(),
            columns: vec![0, partition as u16],
            status: KeyStatus::Active,
        });
    }
}

/// The rows of `sdkmessagefilter` that say which bulk messages a table has.
pub(super) fn register_messages(database: &mut Database, table: TableId) {
    crate::engine::register_messages(database, &[table]);
}

fn new_table(body: &Json, schema_name: &str) -> NewTable {
    let ownership = match body.get("OwnershipType").and_then(Json::as_str) {
        Some("OrganizationOwned") => Ownership::Organization,
        Some("None") => Ownership::None,
        _ => Ownership::User,
    };
    let state = |value: i32, label: &str, status: i32| {
        let option = Opt {
            value: status,
            label: label.to_owned(),
            state: Some(value),
        };
        (
            State {
                value,
                label: label.to_owned(),
                default_status: status,
            },
            vec![option],
        )
    };
    let label = label_of(body, "DisplayName", schema_name);
    NewTable {
        logical: schema_name.to_lowercase(),
        schema_name: schema_name.to_owned(),
        set_name: body
            .get("EntitySetName")
            .and_then(Json::as_str)
            .map(str::to_owned),
        plural: label_of(body, "DisplayCollectionName", &format!("{label}s")),
        label,
        object_type_code: None,
        ownership,
        is_activity: flag(body, "IsActivity"),
        is_elastic: body.get("TableType").and_then(Json::as_str) == Some("Elastic"),
        is_custom: true,
        has_notes: flag(body, "HasNotes"),
        has_activities: flag(body, "HasActivities"),
        change_tracking: flag(body, "ChangeTrackingEnabled"),
        states: vec![state(0, "Active", 1), state(1, "Inactive", 2)],
    }
}

fn number(body: &Json, name: &str, otherwise: f64) -> f64 {
    body.get(name).and_then(Json::as_f64).unwrap_or(otherwise)
}

fn new_column(schema: &Schema, body: &Json) -> Result<NewColumn, ApiError> {
    let schema_name = text(body, "SchemaName")?;
    require_prefix(schema_name)?;
    let required = match body
        .get("RequiredLevel")
        .and_then(|level| level.get("Value"))
        .and_then(Json::as_str)
    {
        Some("Recommended") => Required::Recommended,
        Some("ApplicationRequired") => Required::Application,
        Some("SystemRequired") => Required::System,
        _ => Required::None,
    };
    let default = body
        .get("DefaultValue")
        .and_then(|value| value.as_bool().map(i64::from).or_else(|| value.as_i64()));
    let default = default.or_else(|| {
        body.get("DefaultFormValue")
            .and_then(Json::as_i64)
            .filter(|value| *value >= 0)
    });
    Ok(NewColumn {
        logical: schema_name.to_lowercase(),
        schema_name: schema_name.to_owned(),
        label: label_of(body, "DisplayName", schema_name),
        kind: new_kind(schema, body, schema_name)?,
        required,
        is_custom: true,
        for_create: true,
        for_update: true,
        default,
    })
}

#[expect(clippy::too_many_lines, reason = "one short arm per column type")]
fn new_kind(schema: &Schema, body: &Json, schema_name: &str) -> Result<ColumnKind, ApiError> {
    let integer = |name: &str, otherwise: u32| {
        body.get(name)
            .and_then(Json::as_u64)
            .map_or(otherwise, |value| value as u32)
    };
    let precision = |otherwise: u64| {
        body.get("Precision")
            .and_then(Json::as_u64)
            .unwrap_or(otherwise)
            .min(10) as u8
    };
    let format = body
        .get("FormatName")
        .and_then(|name| name.get("Value"))
        .or_else(|| body.get("Format"))
        .and_then(Json::as_str);
    let decimal_max = 100_000_000_000.0;
    Ok(match kind_of(body) {
        "StringAttributeMetadata" => {
            let max = integer("MaxLength", 100);
            if !(1..=4000).contains(&max) {
                return Err(ApiError::bad_request(format!(
                    "MaxLength {max} is outside 1 to 4000."
                )));
            }
            ColumnKind::Text {
                max,
                format: format.unwrap_or("Text").to_owned(),
            }
        }
        "MemoAttributeMetadata" => ColumnKind::Memo {
            max: integer("MaxLength", 2000).min(1_048_576),
        },
        "IntegerAttributeMetadata" => ColumnKind::Integer {
            min: number(body, "MinValue", f64::from(i32::MIN)) as i64,
            max: number(body, "MaxValue", f64::from(i32::MAX)) as i64,
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
            base: None,
            is_base: false,
        },
        "BooleanAttributeMetadata" => boolean_kind(body),
        "DateTimeAttributeMetadata" => date_kind(body, format),
        "PicklistAttributeMetadata" => ColumnKind::Choice {
            set: options_of(schema, body, schema_name)?,
        },
        "MultiSelectPicklistAttributeMetadata" => ColumnKind::Choices {
            set: options_of(schema, body, schema_name)?,
        },
        "FileAttributeMetadata" => ColumnKind::File {
            max_kb: integer("MaxSizeInKB", 32_768),
        },
        "ImageAttributeMetadata" => ColumnKind::Image {
            max_kb: integer("MaxSizeInKB", 10_240),
        },
        "UniqueIdentifierAttributeMetadata" => ColumnKind::Guid,
        "LookupAttributeMetadata" | "ComplexLookupAttributeMetadata" => {
            return Err(ApiError::bad_request(
                "A lookup is created with its relationship, not as a column.",
            ));
        }
        other => {
            return Err(ApiError::bad_request(format!(
                "The column type '{other}' cannot be created."
            )));
        }
    })
}

fn boolean_kind(body: &Json) -> ColumnKind {
    let set = body.get("OptionSet").cloned().unwrap_or_default();
    let label = |name: &str, otherwise: &str| {
        set.get(name).map_or_else(
            || otherwise.to_owned(),
            |option| label_of(option, "Label", otherwise),
        )
    };
    ColumnKind::Boolean {
        true_label: label("TrueOption", "Yes"),
        false_label: label("FalseOption", "No"),
    }
}

fn date_kind(body: &Json, format: Option<&str>) -> ColumnKind {
    let behavior = match body
        .get("DateTimeBehavior")
        .and_then(|value| value.get("Value"))
        .and_then(Json::as_str)
    {
        Some("DateOnly") => DateBehavior::DateOnly,
        Some("TimeZoneIndependent") => DateBehavior::TimeZoneIndependent,
        _ => DateBehavior::UserLocal,
    };
    // Without a format the product shows the date alone.
    ColumnKind::DateTime {
        behavior,
        date_format: format != Some("DateAndTime") || behavior == DateBehavior::DateOnly,
    }
}

fn options_of(schema: &Schema, body: &Json, schema_name: &str) -> Result<OptionSet, ApiError> {
    if let Some(link) = body
        .get("GlobalOptionSet@odata.bind")
        .and_then(Json::as_str)
    {
        let inner = link
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'))
            .unwrap_or_default();
        let found = schema
            .option_sets
            .iter()
            .find(|set| render::is_named(inner, set.id, "Name", &set.name));
        return found.cloned().ok_or_else(|| {
            ApiError::bad_request(format!("The global choice '{link}' does not exist."))
        });
    }
    let set = body
        .get("OptionSet")
        .ok_or_else(|| ApiError::bad_request("A choice column needs an OptionSet."))?;
    Ok(choice_set(
        &schema_name.to_lowercase(),
        &label_of(set, "DisplayName", schema_name),
        option_list(set),
    ))
}

fn option_list(set: &Json) -> Vec<Opt> {
    let options = set
        .get("Options")
        .and_then(Json::as_array)
        .cloned()
        .unwrap_or_default();
    options
        .iter()
        .enumerate()
        .map(|(index, option)| {
            let value = option
                .get("Value")
                .and_then(Json::as_i64)
                .unwrap_or(100_000_000 + index as i64);
            Opt {
                value: value as i32,
                label: label_of(option, "Label", &value.to_string()),
                state: None,
            }
        })
        .collect()
}

fn create_column(
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
    Ok(created(
        call,
        &format!("EntityDefinitions({})/Attributes({id})", table.metadata_id),
    ))
}

fn create_choice(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let name = text(&body, "Name")?.to_lowercase();
    let mut set = choice_set(
        &name,
        &label_of(&body, "DisplayName", &name),
        option_list(&body),
    );
    set.is_global = true;
    let id = set.id;
    access.write(|database| {
        change(call, database, |schema| {
            if schema.option_sets.iter().any(|known| known.name == name) {
                return Err(ApiError::new(
                    Code::NameExists,
                    format!("A choice with the name {name} already exists."),
                ));
            }
            schema.option_sets.push(set);
            Ok(())
        })
    })?;
    Ok(created(call, &format!("GlobalOptionSetDefinitions({id})")))
}

fn create_key(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    table: &Table,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let schema_name = text(&body, "SchemaName")?.to_owned();
    let names: Vec<String> = body
        .get("KeyAttributes")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let label = label_of(&body, "DisplayName", &schema_name);
    let table_id = table.id;
    let id = stable_id(&format!("{}.key.{schema_name}.{}", table.logical, call.now));
    access.write(|database| {
        change(call, database, |schema| {
            let columns = key_columns(schema.table(table_id), &schema_name, &names)?;
            let entry = Arc::make_mut(&mut schema.tables[usize::from(table_id)]);
            entry.keys.push(AlternateKey {
                id,
                schema_name,
                label,
                columns,
                status: KeyStatus::Pending,
            });
            Ok(())
        })?;
        schedule_key(call, database, table_id, id);
        Ok(())
    })?;
    Ok(created(
        call,
        &format!("EntityDefinitions({})/Keys({id})", table.metadata_id),
    ))
}

fn schedule_key(call: &Call<'_>, database: &mut Database, table: TableId, key: Uuid) {
    let delay = call.settings.key_delay_s;
    for share in [0.5, 1.0] {
        database.schedule(Job {
            due: call.now + delay * share,
            kind: JobKind::Key { table, key },
        });
    }
}

fn key_columns(table: &Table, schema_name: &str, names: &[String]) -> Result<Vec<u16>, ApiError> {
    if table
        .keys
        .iter()
        .any(|key| key.schema_name.eq_ignore_ascii_case(schema_name))
    {
        return Err(ApiError::new(
            Code::EntityKeyNameExists,
            format!("An entity key with the name {schema_name} already exists."),
        ));
    }
    let mut columns = Vec::new();
    for name in names {
        let column = table.find(name).ok_or_else(|| {
            ApiError::new(
                Code::NoSuchColumn,
                format!(
                    "The attribute '{name}' does not exist on '{}'.",
                    table.logical
                ),
            )
        })?;
        if !can_be_key(column) {
            let message =
                format!("The attribute '{name}' is of a type that an entity key cannot have.");
            return Err(ApiError::new(Code::InvalidEntityKeyOperation, message));
        }
        columns.push(column.ordinal);
    }
    if columns.is_empty()
        || columns.len() > KEY_COLUMNS_MAX
        || table.keys.len() >= KEYS_MAX
        || table.is_elastic
    {
        return Err(ApiError::new(
            Code::InvalidEntityKeyOperation,
            "The entity key cannot be created: too many keys, or too few or too many columns.",
        ));
    }
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    let same = |key: &AlternateKey| {
        let mut other = key.columns.clone();
        other.sort_unstable();
        other == sorted
    };
    if table.keys.iter().any(same) {
        return Err(ApiError::new(
            Code::EntityKeyWithSelectedAttributesExists,
            "An entity key with the selected attributes already exists.",
        ));
    }
    Ok(columns)
}

fn can_be_key(column: &Column) -> bool {
    matches!(
        column.kind,
        ColumnKind::Text { .. }
            | ColumnKind::Integer { .. }
            | ColumnKind::Decimal { .. }
            | ColumnKind::DateTime { .. }
            | ColumnKind::Lookup { .. }
            | ColumnKind::Choice { .. }
    )
}

/// Moves a key on by one step; called when its job falls due.
pub(crate) fn finish_key(database: &mut Database, table: TableId, key: Uuid, now: f64) {
    let current = database
        .schema
        .table(table)
        .keys
        .iter()
        .find(|known| known.id == key);
    let Some((status, columns)) = current.map(|key| (key.status, key.columns.clone())) else {
        return;
    };
    let next = match status {
        KeyStatus::Pending => KeyStatus::InProgress,
        KeyStatus::InProgress if database.build_index(table, key, &columns) => KeyStatus::Active,
        KeyStatus::InProgress => KeyStatus::Failed,
        done => done,
    };
    let mut schema = Schema::clone(&database.schema);
    let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
    if let Some(known) = entry.keys.iter_mut().find(|known| known.id == key) {
        known.status = next;
    }
    schema.version += 1;
    schema.reindex();
    database.set_schema(schema, now);
}

/// `ReactivateEntityKey`: tries a failed key again.
pub(crate) fn reactivate_key(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let (table, key) = (
        text(&body, "EntityLogicalName")?.to_owned(),
        text(&body, "EntityKeyLogicalName")?.to_owned(),
    );
    access.write(|database| {
        let (table, id) = change(call, database, |schema| {
            let table = schema
                .by_logical(&table)
                .map(|table| table.id)
                .ok_or_else(|| ApiError::no_resource(&table))?;
            let entry = Arc::make_mut(&mut schema.tables[usize::from(table)]);
            let found = entry
                .keys
                .iter_mut()
                .find(|known| known.schema_name.eq_ignore_ascii_case(&key));
            let found = found.ok_or_else(|| ApiError::no_resource(&key))?;
            if found.status != KeyStatus::Failed {
                return Err(ApiError::new(
                    Code::EntityKeyNotFailed,
                    "The entity key is not in the failed state.",
                ));
            }
            found.status = KeyStatus::Pending;
            Ok((table, found.id))
        })?;
        schedule_key(call, database, table, id);
        Ok(())
    })?;
    Ok(Answer::no_content().with_work(Message::Metadata, 1))
}

fn cascade_of(body: &Json) -> Cascade {
    match body
        .get("CascadeConfiguration")
        .and_then(|config| config.get("Delete"))
        .and_then(Json::as_str)
    {
        Some("Cascade") => Cascade::Cascade,
        Some("Restrict") => Cascade::Restrict,
        Some("NoCascade") => Cascade::NoCascade,
        _ => Cascade::RemoveLink,
    }
}

fn table_named(schema: &Schema, body: &Json, member: &str) -> Result<TableId, ApiError> {
    let name = text(body, member)?;
    let found = schema
        .by_logical(&name.to_lowercase())
        .map(|table| table.id);
    found.ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{name}' was not found in the MetadataCache."),
        )
    })
}

fn create_relationship(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let name = text(&body, "SchemaName")?.to_owned();
    require_prefix(&name)?;
    let id = access.write(|database| {
        let solution = solution(database, request)?;
        let id = change(call, database, |schema| {
            let exists = |relationship: &Relationship| match relationship {
                Relationship::OneToMany(one) => one.schema_name.eq_ignore_ascii_case(&name),
                Relationship::ManyToMany(many) => many.schema_name.eq_ignore_ascii_case(&name),
            };
            if schema.relationships.iter().any(exists) {
                return Err(ApiError::new(
                    Code::NameExists,
                    format!("A relationship with the name {name} already exists."),
                ));
            }
            match kind_of(&body) {
                "OneToManyRelationshipMetadata" => add_one_to_many(schema, &body)?,
                "ManyToManyRelationshipMetadata" => {
                    let tables = [
                        table_named(schema, &body, "Entity1LogicalName")?,
                        table_named(schema, &body, "Entity2LogicalName")?,
                    ];
                    let navigation = |member: &str| {
                        body.get(member)
                            .and_then(Json::as_str)
                            .map_or_else(|| name.clone(), str::to_owned)
                    };
                    let names = [
                        navigation("Entity1NavigationPropertyName"),
                        navigation("Entity2NavigationPropertyName"),
                    ];
                    add_many_to_many(
                        schema,
                        &name,
                        text(&body, "IntersectEntityName")?,
                        tables,
                        names,
                    );
                }
                other => {
                    return Err(ApiError::bad_request(format!(
                        "The relationship type '{other}' cannot be created."
                    )));
                }
            }
            Ok(stable_id(&format!("relationship:{name}")))
        })?;
        add_component(database, solution, 10, id);
        Ok(id)
    })?;
    Ok(created(call, &format!("RelationshipDefinitions({id})")))
}

fn add_one_to_many(schema: &mut Schema, body: &Json) -> Result<(), ApiError> {
    let parent = table_named(schema, body, "ReferencedEntity")?;
    let child = table_named(schema, body, "ReferencingEntity")?;
    let lookup = body
        .get("Lookup")
        .ok_or_else(|| ApiError::bad_request("Required field 'Lookup' is missing"))?;
    let new = lookup_column(schema, child, lookup)?;
    // The default name on the many side is the lookup's schema name, capitals and all.
    let navigation = body
        .get("ReferencingEntityNavigationPropertyName")
        .and_then(Json::as_str);
    let navigation = navigation.unwrap_or(&new.schema_name).to_owned();
    let name = text(body, "SchemaName")?.to_owned();
    add_lookup(
        schema,
        child,
        new,
        &[(parent, navigation, name)],
        cascade_of(body),
    );
    Ok(())
}

fn lookup_column(schema: &Schema, table: TableId, lookup: &Json) -> Result<NewColumn, ApiError> {
    let schema_name = text(lookup, "SchemaName")?.to_owned();
    require_prefix(&schema_name)?;
    if schema
        .table(table)
        .find(&schema_name.to_lowercase())
        .is_some()
    {
        return Err(ApiError::new(
            Code::NameExists,
            format!("An attribute with the specified name {schema_name} already exists."),
        ));
    }
    Ok(NewColumn {
        logical: schema_name.to_lowercase(),
        label: label_of(lookup, "DisplayName", &schema_name),
        schema_name,
        kind: ColumnKind::Lookup {
            targets: Vec::new(),
        },
        required: Required::None,
        is_custom: true,
        for_create: true,
        for_update: true,
        default: None,
    })
}

/// CreateCustomerRelationships and CreatePolymorphicLookupAttribute.
pub(crate) fn create_polymorphic(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    action: &str,
) -> Result<Answer, ApiError> {
    let body = body_of(request)?;
    let relationships = body
        .get("OneToManyRelationships")
        .and_then(Json::as_array)
        .cloned()
        .unwrap_or_default();
    let lookup = body
        .get("Lookup")
        .ok_or_else(|| ApiError::bad_request("Required field 'Lookup' is missing"))?;
    let first = relationships.first().ok_or_else(|| {
        ApiError::bad_request("Required field 'OneToManyRelationships' is missing")
    })?;
    let (column, ids) = access.write(|database| {
        change(call, database, |schema| {
            let child = table_named(schema, first, "ReferencingEntity")?;
            let new = lookup_column(schema, child, lookup)?;
            let mut targets = Vec::new();
            for relationship in &relationships {
                let target = table_named(schema, relationship, "ReferencedEntity")?;
                let navigation = format!("{}_{}", new.schema_name, schema.table(target).logical);
                targets.push((
                    target,
                    navigation,
                    text(relationship, "SchemaName")?.to_owned(),
                ));
            }
            let ordinal = add_lookup(schema, child, new, &targets, cascade_of(first));
            let ids: Vec<Uuid> = targets
                .iter()
                .map(|(_, _, name)| stable_id(&format!("relationship:{name}")))
                .collect();
            Ok((schema.table(child).column(ordinal).id, ids))
        })
    })?;
    let context = format!(
        "{}/$metadata#Microsoft.Dynamics.CRM.{action}Response",
        call.base
    );
    let answer = serde_json::json!({ "@odata.context": context, "RelationshipIds": ids, "AttributeId": column });
    Ok(Answer::json(answer.to_string().into_bytes()).with_work(Message::Metadata, 1))
}

fn delete_table(call: &Call<'_>, access: &mut Access<'_>, id: TableId) -> Result<Answer, ApiError> {
    access.write(|database| {
        change(call, database, |schema| {
            if !schema.table(id).is_custom {
                return Err(ApiError::new(
                    Code::InvalidArgument,
                    "A system table cannot be deleted.",
                ));
            }
            Arc::make_mut(&mut schema.tables[usize::from(id)]).deleted = true;
            schema
                .relationships
                .retain(|relationship| match relationship {
                    Relationship::OneToMany(one) => one.referenced != id && one.referencing != id,
                    Relationship::ManyToMany(many) => !many.tables.contains(&id),
                });
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

fn delete_column(
    call: &Call<'_>,
    access: &mut Access<'_>,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let found = table
        .live_columns()
        .find(|column| render::is_named(inner, column.id, "LogicalName", &column.logical));
    let column = found.ok_or_else(|| ApiError::no_resource(inner))?;
    if !column.is_custom
        || table.primary_name == Some(column.ordinal)
        || table
            .keys
            .iter()
            .any(|key| key.columns.contains(&column.ordinal))
    {
        return Err(ApiError::bad_request(format!(
            "The attribute '{}' cannot be deleted.",
            column.logical
        )));
    }
    let (id, ordinal) = (table.id, column.ordinal);
    access.write(|database| {
        change(call, database, |schema| {
            Arc::make_mut(&mut schema.tables[usize::from(id)]).columns[usize::from(ordinal)]
                .deleted = true;
            schema
                .relationships
                .retain(|relationship| match relationship {
                    Relationship::OneToMany(one) => one.referencing != id || one.column != ordinal,
                    Relationship::ManyToMany(_) => true,
                });
            Ok(())
        })
    })?;
    Ok(Answer::no_content())
}

fn delete_key(
    call: &Call<'_>,
    access: &mut Access<'_>,
    table: &Table,
    inner: &str,
) -> Result<Answer, ApiError> {
    let key = table.keys.iter().find(|key| {
        render::is_named(
            inner,
            key.id,
            "LogicalName",
            &key.schema_name.to_lowercase(),
        )
    });
    let (table, key) = (
        table.id,
        key.ok_or_else(|| ApiError::no_resource(inner))?.id,
    );
    access.write(|database| {
        change(call, database, |schema| {
            Arc::make_mut(&mut schema.tables[usize::from(table)])
                .keys
                .retain(|known| known.id != key);
            Ok(())
        })?;
        database.drop_index(table, key);
        Ok(())
    })?;
    Ok(Answer::no_content())
}
