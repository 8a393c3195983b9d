//! Options of choices, changed by name: insert, update, delete, order.
//!
//! Promise: an option of a global choice changes in every column that uses it. A value that is
//! not given follows the greatest one (UNVERIFIED). Left out: rows that hold a deleted value,
//! which keep it, as the product's do.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::write::{body_of, change, given_label, label_of, text};
use crate::error::{ApiError, Code};
use crate::profile::Message;
use crate::schema::{Column, ColumnKind, Label, Opt, OptionSet, Schema, TableId};
use crate::web::{Access, Answer, Call, Request};

/// First value of a publisher with the option prefix 10000.
const FIRST_VALUE: i64 = 100_000_000;

/// Answers an action on options; `None` if the name is none.
pub(crate) fn option_action(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    name: &str,
) -> Option<Result<Answer, ApiError>> {
    let edit: fn(&mut Schema, &Json) -> Result<Option<i64>, ApiError> = match name {
        "InsertOptionValue" => insert_option,
        "UpdateOptionValue" => update_option,
        "DeleteOptionValue" => delete_option,
        "OrderOption" => order_options,
        "InsertStatusValue" => insert_status,
        "UpdateStateValue" => update_state,
        _ => return None,
    };
    let changed =
        body_of(request).and_then(|body| access.write(|database| change(call, database, |schema| edit(schema, &body))));
    Some(changed.map(|value| answer(call, name, value).with_work(Message::Metadata, 1)))
}

fn answer(call: &Call<'_>, name: &str, value: Option<i64>) -> Answer {
    let Some(value) = value else {
        return Answer::no_content();
    };
    let context = format!("{}/$metadata#Microsoft.Dynamics.CRM.{name}Response", call.base);
    Answer::json(json!({ "@odata.context": context, "NewOptionValue": value }).to_string().into_bytes())
}

fn column_of(schema: &Schema, body: &Json) -> Result<(TableId, usize), ApiError> {
    let (table, column) = (text(body, "EntityLogicalName")?, text(body, "AttributeLogicalName")?);
    let table = schema.by_logical(table).ok_or_else(|| {
        ApiError::new(
            Code::NoSuchTable,
            format!("The entity with a name = '{table}' was not found in the MetadataCache."),
        )
    })?;
    let found = table
        .find(column)
        .ok_or_else(|| ApiError::new(Code::NoSuchColumn, format!("'{}' has no column '{column}'.", table.logical)))?;
    Ok((table.id, usize::from(found.ordinal)))
}

fn column_mut(schema: &mut Schema, (table, column): (TableId, usize)) -> &mut Column {
    &mut Arc::make_mut(&mut schema.tables[usize::from(table)]).columns[column]
}

fn set_mut(column: &mut Column) -> Option<&mut OptionSet> {
    match &mut column.kind {
        ColumnKind::Choice { set } | ColumnKind::Choices { set } | ColumnKind::Status { set } => Some(set),
        _ => None,
    }
}

/// Applies an edit to the options that a body names, wherever they are used.
fn edit_set<T: Clone>(
    schema: &mut Schema,
    body: &Json,
    mut edit: impl FnMut(&mut OptionSet) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    if body.get("OptionSetName").and_then(Json::as_str).is_some() {
        let name = text(body, "OptionSetName")?;
        let global = schema.option_sets.iter_mut().find(|set| set.name.eq_ignore_ascii_case(name));
        let global = global
            .ok_or_else(|| ApiError::new(Code::ObjectDoesNotExist, format!("The choice '{name}' does not exist.")))?;
        let result = edit(global)?;
        let global = global.clone();
        share(schema, &global);
        return Ok(result);
    }
    let place = column_of(schema, body)?;
    let set = set_mut(column_mut(schema, place));
    let set = set.ok_or_else(|| ApiError::bad_request("The column is not a choice."))?;
    let result = edit(set)?;
    if set.is_global {
        let global = set.clone();
        if let Some(known) = schema.option_sets.iter_mut().find(|known| known.id == global.id) {
            known.clone_from(&global);
        }
        share(schema, &global);
    }
    Ok(result)
}

/// Gives every column that uses a global choice its options.
pub(super) fn share(schema: &mut Schema, global: &OptionSet) {
    for table in &mut schema.tables {
        let uses = |column: &Column| match &column.kind {
            ColumnKind::Choice { set } | ColumnKind::Choices { set } => set.id == global.id,
            _ => false,
        };
        if !table.columns.iter().any(uses) {
            continue;
        }
        for column in Arc::make_mut(table).columns.iter_mut().filter(|column| uses(column)) {
            if let Some(set) = set_mut(column) {
                set.clone_from(global);
            }
        }
    }
}

fn new_value(set: &OptionSet, body: &Json) -> Result<i32, ApiError> {
    let given = body.get("Value").and_then(Json::as_i64);
    let greatest = set.options.iter().map(|option| i64::from(option.value)).max().unwrap_or(0);
    let value = given.unwrap_or_else(|| FIRST_VALUE.max(greatest + 1));
    let value = i32::try_from(value).map_err(|_| ApiError::bad_request(format!("The value {value} is too large.")))?;
    if set.options.iter().any(|option| option.value == value) {
        return Err(ApiError::new(Code::NameExists, format!("An option with the value {value} already exists.")));
    }
    Ok(value)
}

fn insert_option(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    let value = edit_set(schema, body, |set| {
        let value = new_value(set, body)?;
        set.options.push(Opt { value, label: label_of(body, "Label", &value.to_string()), state: None });
        Ok(value)
    })?;
    Ok(Some(i64::from(value)))
}

fn option_mut<'s>(set: &'s mut OptionSet, body: &Json) -> Result<&'s mut Opt, ApiError> {
    let value = body.get("Value").and_then(Json::as_i64);
    let value = value.ok_or_else(|| ApiError::bad_request("Required field 'Value' is missing"))?;
    let found = set.options.iter_mut().find(|option| i64::from(option.value) == value);
    found.ok_or_else(|| ApiError::new(Code::PicklistValueOutOfRange, format!("The option {value} does not exist.")))
}

/// Gives a label the languages of the body; those it lacks stay with `MergeLabels` only.
fn relabel(body: &Json, label: &mut Label) {
    let given = given_label(body, "Label");
    if given.languages().next().is_none() {
        return;
    }
    if body.get("MergeLabels").and_then(Json::as_bool) == Some(true) {
        label.merge(&given);
    } else {
        *label = given;
    }
}

fn update_option(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    edit_set(schema, body, |set| {
        let option = option_mut(set, body)?;
        relabel(body, &mut option.label);
        Ok(())
    })?;
    Ok(None)
}

fn delete_option(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    edit_set(schema, body, |set| {
        let value = option_mut(set, body)?.value;
        set.options.retain(|option| option.value != value);
        Ok(())
    })?;
    Ok(None)
}

fn order_options(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    let values: Vec<i64> =
        body.get("Values").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_i64).collect();
    edit_set(schema, body, |set| {
        let position = |option: &Opt| values.iter().position(|value| *value == i64::from(option.value));
        if values.len() != set.options.len() || set.options.iter().any(|option| position(option).is_none()) {
            return Err(ApiError::bad_request("Values must hold every value of the choice once."));
        }
        set.options.sort_by_key(position);
        Ok(())
    })?;
    Ok(None)
}

fn insert_status(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    let state = body.get("StateCode").and_then(Json::as_i64);
    let state = state.ok_or_else(|| ApiError::bad_request("Required field 'StateCode' is missing"))?;
    let place = column_of(schema, body)?;
    let known = schema.table(place.0).columns.iter().any(|column| match &column.kind {
        ColumnKind::State { states } => states.iter().any(|known| i64::from(known.value) == state),
        _ => false,
    });
    let ColumnKind::Status { set } = &mut column_mut(schema, place).kind else {
        return Err(ApiError::bad_request("InsertStatusValue takes a status column."));
    };
    if !known {
        return Err(ApiError::new(Code::InvalidState, format!("The table has no state {state}.")));
    }
    let value = new_value(set, body)?;
    let label = label_of(body, "Label", &value.to_string());
    set.options.push(Opt { value, label, state: Some(state as i32) });
    Ok(Some(i64::from(value)))
}

fn update_state(schema: &mut Schema, body: &Json) -> Result<Option<i64>, ApiError> {
    let place = column_of(schema, body)?;
    let value = body.get("Value").and_then(Json::as_i64);
    let ColumnKind::State { states } = &mut column_mut(schema, place).kind else {
        return Err(ApiError::bad_request("UpdateStateValue takes a state column."));
    };
    let state = states.iter_mut().find(|state| Some(i64::from(state.value)) == value);
    let state = state.ok_or_else(|| ApiError::new(Code::InvalidState, "The state does not exist."))?;
    relabel(body, &mut state.label);
    if let Some(default) = body.get("DefaultStatusCode").and_then(Json::as_i64) {
        state.default_status = default as i32;
    }
    Ok(None)
}
