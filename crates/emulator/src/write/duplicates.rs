//! Duplicate detection: published rules, only when asked for.
//!
//! Promise: a rule whose every condition finds a like value in one other row refuses the write.
//! A condition compares whole values, so many first or last characters, or dates; texts by folded
//! case. Two blanks are alike unless the condition ignores them. Left out: rules over two tables,
//! which are refused when they are read.

use uuid::Uuid;

use crate::collation::lowered;
use crate::error::{ApiError, Code};
use crate::schema::{Ordinal, Schema, Table};
use crate::storage::{Database, Row, Value, ValueRef, key_hash};

type Cell = (Ordinal, Option<Value>);

/// `statuscode` of a published rule.
const PUBLISHED: i64 = 2;
const DAY_S: i64 = 86_400;

/// What two values must have in common; the numbers are those of `operatorcode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// 0, and 5 and 6 of choices.
    Whole,
    /// 1.
    First(usize),
    /// 2.
    Last(usize),
    /// 3.
    Date,
    /// 4.
    Time,
}

#[derive(Debug)]
struct Condition {
    column: Ordinal,
    likeness: Likeness,
    ignores_blanks: bool,
}

#[derive(Debug)]
struct Rule {
    conditions: Vec<Condition>,
    skips_inactive: bool,
}

impl Condition {
    /// What is left of a value when only what must be alike is kept.
    fn reduce(&self, value: Option<ValueRef<'_>>) -> Option<Value> {
        let value = value.filter(|value| !matches!(value, ValueRef::Text(text) if text.trim().is_empty()));
        let Some(value) = value else {
            // A blank stands for itself, in a form that no text has.
            return (!self.ignores_blanks).then(|| Value::Text("\u{0}".into()));
        };
        Some(match (self.likeness, value) {
            (Likeness::First(count), ValueRef::Text(text)) => {
                Value::Text(lowered(text).chars().take(count).collect::<String>().into())
            }
            (Likeness::Last(count), ValueRef::Text(text)) => {
                let text = lowered(text);
                let skipped = text.chars().count().saturating_sub(count);
                Value::Text(text.chars().skip(skipped).collect::<String>().into())
            }
            (Likeness::Date, ValueRef::Time(seconds)) => Value::Time(seconds.div_euclid(DAY_S)),
            (_, value) => value.to_value(),
        })
    }
}

impl Rule {
    /// The hash that duplicates share; `None` where a blank rules them out.
    fn hash<'a>(&self, value: impl Fn(Ordinal) -> Option<ValueRef<'a>>) -> Option<u128> {
        let reduced: Option<Vec<Value>> =
            self.conditions.iter().map(|condition| condition.reduce(value(condition.column))).collect();
        key_hash(reduced?.iter().map(|value| Some(value.as_ref())))
    }
}

pub(super) fn check(
    database: &Database,
    schema: &Schema,
    table: &Table,
    cells: &[Cell],
    id: Option<Uuid>,
) -> Result<(), ApiError> {
    if !table.duplicates {
        return Ok(());
    }
    let before = id.and_then(|id| database.get(table.id, &id));
    for rule in published_rules(database, schema, table)? {
        let Some(wanted) = rule.hash(|ordinal| current(cells, before, ordinal)) else { continue };
        let found = database.store(table.id).rows_after(None).any(|(other, row)| {
            let counts = !rule.skips_inactive || row.int(table.known.state).unwrap_or(0) == 0;
            Some(*other) != id && counts && rule.hash(|ordinal| row.get(ordinal)) == Some(wanted)
        });
        if found {
            return Err(ApiError::new(
                Code::DuplicateRecordsFound,
                "A record was not created or updated because a duplicate of the current record already exists.",
            ));
        }
    }
    Ok(())
}

fn current<'a>(cells: &'a [Cell], before: Option<&'a Row>, ordinal: Ordinal) -> Option<ValueRef<'a>> {
    match cells.iter().find(|(found, _)| *found == ordinal) {
        Some((_, value)) => value.as_ref().map(Value::as_ref),
        None => before.and_then(|row| row.get(ordinal)),
    }
}

fn text(row: &Row, ordinal: Option<Ordinal>) -> Option<String> {
    match row.get(ordinal?)? {
        ValueRef::Text(text) => Some(text.to_owned()),
        _ => None,
    }
}

/// The published rules of a table.
fn published_rules(database: &Database, schema: &Schema, table: &Table) -> Result<Vec<Rule>, ApiError> {
    let (Some(rules), Some(conditions)) =
        (schema.by_logical("duplicaterule"), schema.by_logical("duplicaterulecondition"))
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (id, row) in database.store(rules.id).rows_after(None) {
        let base = text(row, rules.ordinal("baseentityname"));
        if row.int(rules.known.status) != Some(PUBLISHED) || base.as_deref() != Some(table.logical.as_str()) {
            continue;
        }
        let matching = text(row, rules.ordinal("matchingentityname"));
        if matching.is_some_and(|matching| matching != table.logical) {
            return Err(ApiError::not_here("a duplicate rule that compares two tables"));
        }
        let mut rule = Rule {
            conditions: Vec::new(),
            skips_inactive: row.int(rules.ordinal("excludeinactiverecords")) == Some(1),
        };
        for (_, condition) in database.store(conditions.id).rows_after(None) {
            if condition.lookup(conditions.ordinal("regardingobjectid")).map(|(_, rule)| rule) == Some(*id) {
                rule.conditions.extend(read_condition(conditions, condition, table)?);
            }
        }
        if !rule.conditions.is_empty() {
            found.push(rule);
        }
    }
    Ok(found)
}

fn read_condition(conditions: &Table, row: &Row, table: &Table) -> Result<Option<Condition>, ApiError> {
    let count = row.int(conditions.ordinal("operatorparam")).and_then(|count| usize::try_from(count).ok());
    let counted = || {
        count.filter(|count| *count > 0).ok_or_else(|| {
            ApiError::bad_request(
                "A duplicate rule condition on some characters needs their number in 'operatorparam'.",
            )
        })
    };
    let likeness = match row.int(conditions.ordinal("operatorcode")).unwrap_or(0) {
        0 | 5 | 6 => Likeness::Whole,
        1 => Likeness::First(counted()?),
        2 => Likeness::Last(counted()?),
        3 => Likeness::Date,
        4 => Likeness::Time,
        other => {
            return Err(ApiError::bad_request(format!(
                "The operator {other} of a duplicate rule condition is not valid."
            )));
        }
    };
    let column = text(row, conditions.ordinal("baseattributename")).and_then(|name| table.ordinal(&name));
    let ignores_blanks = row.int(conditions.ordinal("ignoreblankvalues")) == Some(1);
    Ok(column.map(|column| Condition { column, likeness, ignores_blanks }))
}
