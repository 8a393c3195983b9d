//! The product's own filter functions: sets, ranges, dates relative to now, ids of the caller.
//!
//! Promise: times are those of the simulated clock, in UTC; weeks start on Sunday. Left out, and
//! refused by name: fiscal periods and hierarchies.

use std::collections::HashSet;

use uuid::Uuid;

use super::compile::{Predicate, Scope, Test, column_path, literal};
use super::parse::Operand;
use crate::error::ApiError;
use crate::schema::{ColumnKind, DateBehavior};
use crate::storage::Value;
use crate::write::{civil_from_days, days_from_civil};

const DAY: i64 = 86_400;

pub(super) fn bind(scope: &Scope<'_>, function: &str, arguments: &[(String, Operand)]) -> Result<Predicate, ApiError> {
    let name = match argument(arguments, "PropertyName") {
        Some(Operand::Text(name)) => name.clone(),
        _ => {
            return Err(ApiError::query(format!("The function '{function}' needs PropertyName.")));
        }
    };
    let steps: Vec<String> = name.split('/').map(str::to_owned).collect();
    let path = column_path(scope, &steps, "")?;
    let table = scope.schema.table(path.table);
    let column = table.column(path.column);
    let values = values(arguments);
    let test = match function {
        "In" => Some((in_test(scope, table, column, &values)?, false)),
        "NotIn" => Some((in_test(scope, table, column, &values)?, true)),
        "Between" => Some((between(scope, table, column, &values)?, false)),
        "NotBetween" => Some((between(scope, table, column, &values)?, true)),
        "ContainValues" => Some((contains(function, &values)?, false)),
        "DoesNotContainValues" => Some((contains(function, &values)?, true)),
        "EqualUserId" => Some((Test::InIds(HashSet::from([scope.user])), false)),
        "NotEqualUserId" => Some((Test::InIds(HashSet::from([scope.user])), true)),
        "EqualBusinessId" => Some((Test::InIds(HashSet::from([scope.business_unit])), false)),
        "NotEqualBusinessId" => Some((Test::InIds(HashSet::from([scope.business_unit])), true)),
        "EqualUserTeams" => Some((Test::InIds(scope.teams.iter().copied().collect()), false)),
        "EqualUserOrUserTeams" => Some((Test::InIds(scope.teams.iter().copied().chain([scope.user]).collect()), false)),
        _ => None,
    };
    if let Some((test, negated)) = test {
        let predicate = Predicate::Test(path, test);
        return Ok(if negated { Predicate::Not(Box::new(predicate)) } else { predicate });
    }
    let ColumnKind::DateTime { behavior, .. } = &column.kind else {
        return Err(ApiError::not_here(&format!("the filter function '{function}' on the column '{name}'")));
    };
    let is_clock = function.contains("Hours") || function.contains("Minutes");
    if is_clock && *behavior == DateBehavior::DateOnly {
        return Err(ApiError::query(format!(
            "The function '{function}' does not work on the date-only column '{name}'."
        )));
    }
    let (from, to) = time_range(function, &values, scope.now)?;
    Ok(Predicate::Test(path, Test::TimeRange(from, to)))
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

fn literals(
    scope: &Scope<'_>,
    table: &crate::schema::Table,
    column: &crate::schema::Column,
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

fn in_test(
    scope: &Scope<'_>,
    table: &crate::schema::Table,
    column: &crate::schema::Column,
    values: &[String],
) -> Result<Test, ApiError> {
    let found = literals(scope, table, column, values)?;
    let texts: Vec<String> = found
        .iter()
        .filter_map(|value| match value {
            Value::Text(text) => Some(text.to_lowercase()),
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

fn between(
    scope: &Scope<'_>,
    table: &crate::schema::Table,
    column: &crate::schema::Column,
    values: &[String],
) -> Result<Test, ApiError> {
    let mut found = literals(scope, table, column, values)?.into_iter();
    match (found.next(), found.next(), found.next()) {
        (Some(low), Some(high), None) => Ok(Test::Between(low, high)),
        _ => Err(ApiError::query("The function 'Between' takes two values.")),
    }
}

fn contains(function: &str, values: &[String]) -> Result<Test, ApiError> {
    let parsed: Result<Vec<i32>, _> = values.iter().map(|text| text.parse()).collect();
    parsed
        .map(Test::ContainsChoices)
        .map_err(|_| ApiError::query(format!("The function '{function}' takes option numbers.")))
}

/// Midnight of the day.
fn day_of(seconds: i64) -> i64 {
    seconds.div_euclid(DAY) * DAY
}

/// The first day of the month `offset` months away.
fn month(now: i64, offset: i64) -> i64 {
    let (year, month, _) = civil_from_days(now.div_euclid(DAY));
    let months = year * 12 + month - 1 + offset;
    days_from_civil(months.div_euclid(12), months.rem_euclid(12) + 1, 1) * DAY
}

/// The same day and time some months away, or the last day of a shorter month.
fn shift_months(now: i64, offset: i64) -> i64 {
    let (_, _, day) = civil_from_days(now.div_euclid(DAY));
    let first = month(now, offset);
    let days = (month(first, 1) - first) / DAY;
    first + (day.min(days) - 1) * DAY + now.rem_euclid(DAY)
}

/// Sunday of the week; 1970-01-01 was a Thursday.
fn week(now: i64) -> i64 {
    let days = now.div_euclid(DAY);
    (days - (days + 4).rem_euclid(7)) * DAY
}

fn time_range(function: &str, values: &[String], now: i64) -> Result<(i64, i64), ApiError> {
    const ALWAYS: i64 = i64::MAX;
    let today = day_of(now);
    let given = || {
        let text =
            values.first().ok_or_else(|| ApiError::query(format!("The function '{function}' needs PropertyValue.")))?;
        crate::write::parse_time(text).map(day_of)
    };
    let count = || {
        let text = values.first().map_or("", String::as_str);
        let number = text.parse::<i64>().ok().filter(|number| (1..=100_000).contains(number));
        number.ok_or_else(|| ApiError::query(format!("The function '{function}' needs a positive PropertyValue.")))
    };
    Ok(match function {
        "Today" => (today, today + DAY),
        "Yesterday" => (today - DAY, today),
        "Tomorrow" => (today + DAY, today + 2 * DAY),
        "Last7Days" => (today - 7 * DAY, now),
        "Next7Days" => (now, today + 8 * DAY),
        "On" => (given()?, given()? + DAY),
        "OnOrAfter" => (given()?, ALWAYS),
        "OnOrBefore" => (i64::MIN, given()? + DAY),
        "ThisWeek" => (week(now), week(now) + 7 * DAY),
        "LastWeek" => (week(now) - 7 * DAY, week(now)),
        "NextWeek" => (week(now) + 7 * DAY, week(now) + 14 * DAY),
        "ThisMonth" => (month(now, 0), month(now, 1)),
        "LastMonth" => (month(now, -1), month(now, 0)),
        "NextMonth" => (month(now, 1), month(now, 2)),
        "ThisYear" => year_range(now, 0),
        "LastYear" => year_range(now, -1),
        "NextYear" => year_range(now, 1),
        "LastXHours" => (now - count()? * 3600, now),
        "NextXHours" => (now, now + count()? * 3600),
        "LastXDays" => (today - count()? * DAY, now),
        "NextXDays" => (now, today + (count()? + 1) * DAY),
        "LastXWeeks" => (today - count()? * 7 * DAY, now),
        "NextXWeeks" => (now, today + (count()? * 7 + 1) * DAY),
        "LastXMonths" => (shift_months(today, -count()?), now),
        "NextXMonths" => (now, shift_months(today, count()?) + DAY),
        "LastXYears" => (shift_months(today, -12 * count()?), now),
        "NextXYears" => (now, shift_months(today, 12 * count()?) + DAY),
        "OlderThanXMinutes" => (i64::MIN, now - count()? * 60),
        "OlderThanXHours" => (i64::MIN, now - count()? * 3600),
        "OlderThanXDays" => (i64::MIN, today - count()? * DAY),
        "OlderThanXWeeks" => (i64::MIN, today - count()? * 7 * DAY),
        "OlderThanXMonths" => (i64::MIN, shift_months(today, -count()?)),
        "OlderThanXYears" => (i64::MIN, shift_months(today, -12 * count()?)),
        _ => {
            return Err(ApiError::not_here(&format!("the filter function '{function}'")));
        }
    })
}

fn year_range(now: i64, offset: i64) -> (i64, i64) {
    let (year, _, _) = civil_from_days(now.div_euclid(DAY));
    (days_from_civil(year + offset, 1, 1) * DAY, days_from_civil(year + offset + 1, 1, 1) * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        crate::write::parse_time(text).unwrap()
    }

    #[test]
    fn ranges_are_relative_to_the_simulated_now() {
        let now = at("2026-03-31T10:30:00Z");
        let range = |function: &str, value: &str| time_range(function, &[value.to_owned()], now).unwrap();
        assert_eq!(range("Today", ""), (at("2026-03-31"), at("2026-04-01")));
        assert_eq!(range("LastMonth", ""), (at("2026-02-01"), at("2026-03-01")));
        assert_eq!(range("ThisWeek", ""), (at("2026-03-29"), at("2026-04-05")));
        assert_eq!(range("LastXMonths", "1").0, at("2026-02-28"));
        assert_eq!(range("OlderThanXHours", "2").1, at("2026-03-31T08:30:00Z"));
        assert_eq!(range("On", "2026-01-05").0, at("2026-01-05"));
        assert!(time_range("LastXFiscalYears", &["1".to_owned()], now).is_err());
    }
}
