//! The product's own filter functions: sets, ranges, dates relative to now, ids of the caller,
//! fiscal periods, hierarchies.
//!
//! Promise: what a function means for a column is decided here for every query language. Ids of
//! users and hierarchies are looked up while binding. Left out: the calendar (`periods`).

use std::collections::HashSet;

use uuid::Uuid;

use super::compile::{ColumnPath, Predicate, Scope, Test, column_path, literal};
use super::hierarchy::{self, Relation};
use super::parse::Operand;
use super::periods::time_test;
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, DateBehavior, Table};
use crate::storage::Value;

pub(super) fn bind(
    scope: &Scope<'_>,
    function: &str,
    arguments: &[(String, Operand)],
    variable: &str,
) -> Result<Predicate, ApiError> {
    let name = match argument(arguments, "PropertyName") {
        Some(Operand::Text(name)) => name.clone(),
        _ => {
            return Err(ApiError::query(format!("The function '{function}' needs PropertyName.")));
        }
    };
    let steps: Vec<String> = name.split('/').map(str::to_owned).collect();
    let path = column_path(scope, &steps, variable).or_else(|error| named_lookup(scope, &steps).ok_or(error))?;
    let table = scope.schema.table(path.table);
    let (test, negated) = function_test(scope, table, table.column(path.column), function, &values(arguments))?;
    let predicate = Predicate::Test(path, test);
    Ok(if negated { Predicate::Not(Box::new(predicate)) } else { predicate })
}

/// Functions name columns by their logical names, and so lookups, too.
fn named_lookup(scope: &Scope<'_>, steps: &[String]) -> Option<ColumnPath> {
    let [name] = steps else { return None };
    let column = scope.table.find(name).filter(|column| column.kind.is_lookup())?;
    Some(ColumnPath { hops: Vec::new(), table: scope.table.id, column: column.ordinal })
}

/// What a function tests, and whether its result is turned round.
pub(super) fn function_test(
    scope: &Scope<'_>,
    table: &Table,
    column: &Column,
    function: &str,
    values: &[String],
) -> Result<(Test, bool), ApiError> {
    let ids = |ids: HashSet<Uuid>| Test::InIds(ids);
    let only = |id: Uuid| Test::InIds(HashSet::from([id]));
    let below = |relation| hierarchy::related_ids(scope, table, column, relation, values);
    Ok(match function {
        "In" => (in_test(scope, table, column, values)?, false),
        "NotIn" => (in_test(scope, table, column, values)?, true),
        "Between" => (between(scope, table, column, values)?, false),
        "NotBetween" => (between(scope, table, column, values)?, true),
        "ContainValues" => (contains(column, function, values)?, false),
        "DoesNotContainValues" => (contains(column, function, values)?, true),
        "EqualUserId" => (only(scope.user), false),
        "NotEqualUserId" => (only(scope.user), true),
        "EqualBusinessId" => (only(scope.business_unit), false),
        "NotEqualBusinessId" => (only(scope.business_unit), true),
        "EqualUserTeams" => (ids(hierarchy::teams_of(scope, &[scope.user])), false),
        "EqualUserOrUserTeams" => {
            let mut found = hierarchy::teams_of(scope, &[scope.user]);
            found.insert(scope.user);
            (ids(found), false)
        }
        "EqualUserOrUserHierarchy" => (ids(hierarchy::users_below(scope)), false),
        "EqualUserOrUserHierarchyAndTeams" => {
            let mut found = hierarchy::users_below(scope);
            let users: Vec<Uuid> = found.iter().copied().collect();
            found.extend(hierarchy::teams_of(scope, &users));
            (ids(found), false)
        }
        "EqualUserLanguage" => (Test::InValues(vec![Value::Int(LANGUAGE)]), false),
        "Above" => (ids(below(Relation::Above)?), false),
        "AboveOrEqual" => (ids(below(Relation::AboveOrEqual)?), false),
        "Under" => (ids(below(Relation::Under)?), false),
        "UnderOrEqual" => (ids(below(Relation::UnderOrEqual)?), false),
        "NotUnder" => (ids(below(Relation::Under)?), true),
        _ => return date_function(scope, column, function, values),
    })
}

/// The one language of the stand-in.
const LANGUAGE: i64 = 1033;

fn date_function(
    scope: &Scope<'_>,
    column: &Column,
    function: &str,
    values: &[String],
) -> Result<(Test, bool), ApiError> {
    let ColumnKind::DateTime { behavior, .. } = &column.kind else {
        return Err(unknown_function(function, column));
    };
    let is_clock = function.contains("Hours") || function.contains("Minutes");
    if is_clock && *behavior == DateBehavior::DateOnly {
        return Err(ApiError::query(format!(
            "The function '{function}' does not work on the date-only column '{}'.",
            column.logical
        )));
    }
    let test = time_test(function, values, scope.now, || scope.fiscal())?;
    test.map(|test| (test, false)).ok_or_else(|| unknown_function(function, column))
}

fn unknown_function(function: &str, column: &Column) -> ApiError {
    ApiError::new(
        Code::InvalidConditionOperator,
        format!("The function '{function}' does not exist or does not apply to the column '{}'.", column.logical),
    )
}

fn argument<'a>(arguments: &'a [(String, Operand)], name: &str) -> Option<&'a Operand> {
    arguments.iter().find(|(found, _)| found == name).map(|(_, operand)| operand)
}

fn values(arguments: &[(String, Operand)]) -> Vec<String> {
    match argument(arguments, "PropertyValues").or_else(|| argument(arguments, "PropertyValue")) {
        Some(Operand::List(items)) => items.clone(),
        Some(Operand::Text(text) | Operand::Number(text) | Operand::Time(text)) => {
            vec![text.clone()]
        }
        Some(Operand::Guid(id)) => vec![id.to_string()],
        Some(Operand::Bool(value)) => vec![value.to_string()],
        _ => Vec::new(),
    }
}

pub(super) fn literals(
    scope: &Scope<'_>,
    table: &Table,
    column: &Column,
    values: &[String],
) -> Result<Vec<Value>, ApiError> {
    let operand = |text: &String| match column.kind {
        ColumnKind::Guid | ColumnKind::Lookup { .. } => {
            Uuid::parse_str(text).map_or_else(|_| Operand::Text(text.clone()), Operand::Guid)
        }
        ColumnKind::Boolean { .. } => Operand::Bool(text == "true" || text == "1"),
        _ => Operand::Text(text.clone()),
    };
    let values = values.iter().map(|text| literal(scope.schema, table, column, &operand(text)));
    Ok(values.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn in_test(scope: &Scope<'_>, table: &Table, column: &Column, values: &[String]) -> Result<Test, ApiError> {
    let found = literals(scope, table, column, values)?;
    let texts: Vec<String> = found
        .iter()
        .filter_map(|value| match value {
            Value::Text(text) => Some(crate::collation::folded(text).into_owned()),
            _ => None,
        })
        .collect();
    let ids: Vec<Uuid> = found
        .iter()
        .filter_map(|value| match value {
            Value::Guid(id) | Value::Lookup(_, id) => Some(*id),
            _ => None,
        })
        .collect();
    Ok(match (texts.is_empty(), ids.is_empty()) {
        (false, _) => Test::InTexts(texts.into_iter().collect()),
        (_, false) => Test::InIds(ids.into_iter().collect()),
        _ => Test::InValues(found),
    })
}

fn between(scope: &Scope<'_>, table: &Table, column: &Column, values: &[String]) -> Result<Test, ApiError> {
    let mut found = literals(scope, table, column, values)?.into_iter();
    match (found.next(), found.next(), found.next()) {
        (Some(low), Some(high), None) => Ok(Test::Between(low, high)),
        _ => Err(ApiError::query("The function 'Between' takes two values.")),
    }
}

fn contains(column: &Column, function: &str, values: &[String]) -> Result<Test, ApiError> {
    if !matches!(column.kind, ColumnKind::Choices { .. }) {
        return Err(unknown_function(function, column));
    }
    let parsed: Result<Vec<i32>, _> = values.iter().map(|text| text.parse()).collect();
    parsed
        .map(Test::ContainsChoices)
        .map_err(|_| ApiError::query(format!("The function '{function}' takes option numbers.")))
}
