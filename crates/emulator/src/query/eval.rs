//! Running a bound filter over a row.
//!
//! Promise: three-valued as SQL is: a comparison with null is neither true nor false, and only
//! true rows are returned. Texts compare by the `collation`; `%`, `_` and `[...]` are wildcards in
//! contains, startswith and endswith.

use std::cmp::Ordering;

use super::compile::{ColumnPath, Link, Predicate, Test};
use super::parse::Operator;
use super::view::RowView;
use crate::collation;
use crate::schema::{Ordinal, Schema, TableId};
use crate::storage::{Database, ValueRef};

/// Whether a row is in the result.
pub(crate) fn matches(database: &Database, schema: &Schema, view: RowView<'_>, predicate: &Predicate) -> bool {
    eval(database, schema, view, predicate) == Some(true)
}

fn eval(database: &Database, schema: &Schema, view: RowView<'_>, predicate: &Predicate) -> Option<bool> {
    match predicate {
        Predicate::Constant(value) => Some(*value),
        Predicate::And(parts) => fold(parts, false, |part| eval(database, schema, view, part)),
        Predicate::Or(parts) => fold(parts, true, |part| eval(database, schema, view, part)),
        Predicate::Not(inner) => eval(database, schema, view, inner).map(|value| !value),
        Predicate::Test(path, test) => run_test(column_value(database, schema, view, path), test),
        Predicate::Columns(operator, a, b) => {
            let left = column_value(database, schema, view, a)?;
            let right = column_value(database, schema, view, b)?;
            Some(holds(*operator, compare(&left, &right)?))
        }
        Predicate::Related { hops, table, link, is_all, body, visits, cost } => {
            let Some(from) = follow(database, schema, view, hops) else {
                return Some(*is_all);
            };
            let mut rows = collection(database, schema, from, *table, *link);
            // Whoever runs the filter asks it afterwards whether it gave up.
            let holds = |row: RowView<'_>| {
                visits.take(*cost) && body.as_ref().is_none_or(|body| matches(database, schema, row, body))
            };
            Some(if *is_all { rows.all(holds) } else { rows.any(holds) })
        }
    }
}

/// Joins what parts say; `decisive` ends an or with true, an and with false.
fn fold(parts: &[Predicate], decisive: bool, eval: impl Fn(&Predicate) -> Option<bool>) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match eval(part) {
            Some(value) if value == decisive => return Some(decisive),
            None => result = None,
            Some(_) => {}
        }
    }
    result
}

/// The row that lookups lead to; none as soon as one of them is null or of another table.
fn follow<'a>(
    database: &'a Database,
    schema: &'a Schema,
    view: RowView<'a>,
    hops: &[(Ordinal, TableId)],
) -> Option<RowView<'a>> {
    let mut view = view;
    for (ordinal, table) in hops {
        let Some(ValueRef::Lookup(found, id)) = view.value(*ordinal) else {
            return None;
        };
        if found != *table {
            return None;
        }
        view = RowView { table: schema.table(found), key: id, row: database.get(found, &id)? };
    }
    Some(view)
}

/// The value at the end of a path; null as soon as a lookup on the way is.
pub(crate) fn column_value<'a>(
    database: &'a Database,
    schema: &'a Schema,
    view: RowView<'a>,
    path: &ColumnPath,
) -> Option<ValueRef<'a>> {
    follow(database, schema, view, &path.hops)?.value(path.column)
}

/// One value against one test; `None` is unknown.
pub(super) fn run_test(value: Option<ValueRef<'_>>, test: &Test) -> Option<bool> {
    if let Test::IsNull(wanted) = test {
        return Some(value.is_none() == *wanted);
    }
    let value = value?;
    Some(match test {
        Test::IsNull(_) => false,
        Test::Compare(operator, literal) => holds(*operator, compare(&value, &literal.as_ref())?),
        Test::Like(pattern) => like(&collation::lowered(text_of(&value)?), pattern),
        Test::InTexts(texts) => texts.contains(collation::folded(text_of(&value)?).as_ref()),
        Test::InValues(values) => {
            values.iter().any(|literal| compare(&value, &literal.as_ref()) == Some(Ordering::Equal))
        }
        Test::Between(low, high) => {
            compare(&value, &low.as_ref())? != Ordering::Less && compare(&value, &high.as_ref())? != Ordering::Greater
        }
        Test::TimeRange(from, to) => matches!(value, ValueRef::Time(at) if at >= *from && at < *to),
        Test::FiscalPeriod(fiscal, period) => {
            matches!(value, ValueRef::Time(at) if fiscal.period_of(at).1 == *period)
        }
        Test::ContainsChoices(wanted) => match value {
            ValueRef::Choices(choices) => wanted.iter().any(|choice| choices.contains(choice)),
            _ => false,
        },
        Test::InIds(ids) => match value {
            ValueRef::Guid(id) | ValueRef::Lookup(_, id) => ids.contains(&id),
            _ => false,
        },
    })
}

fn text_of<'a>(value: &ValueRef<'a>) -> Option<&'a str> {
    match value {
        ValueRef::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn holds(operator: Operator, ordering: Ordering) -> bool {
    match operator {
        Operator::Eq => ordering == Ordering::Equal,
        Operator::Ne => ordering != Ordering::Equal,
        Operator::Gt => ordering == Ordering::Greater,
        Operator::Ge => ordering != Ordering::Less,
        Operator::Lt => ordering == Ordering::Less,
        Operator::Le => ordering != Ordering::Greater,
    }
}

/// Orders two values of one column's type; `None` if their types differ.
pub(crate) fn compare(a: &ValueRef<'_>, b: &ValueRef<'_>) -> Option<Ordering> {
    match (a, b) {
        (ValueRef::Text(a), ValueRef::Text(b)) => Some(collation::compare(a, b)),
        (ValueRef::Int(a) | ValueRef::Time(a), ValueRef::Int(b) | ValueRef::Time(b)) => Some(a.cmp(b)),
        (ValueRef::Decimal(a), ValueRef::Decimal(b)) => Some(a.cmp(b)),
        (ValueRef::Double(a), ValueRef::Double(b)) => a.partial_cmp(b),
        (ValueRef::Guid(a) | ValueRef::Lookup(_, a), ValueRef::Guid(b) | ValueRef::Lookup(_, b)) => Some(a.cmp(b)),
        (ValueRef::Choices(a), ValueRef::Choices(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// SQL's LIKE over lower-case text: `%`, `_`, `[abc]`, `[^abc]`.
fn like(text: &str, pattern: &[char]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut rule) = (0, 0);
    // Where to go back to: the last `%` and the text position it is tried at.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if rule < pattern.len() && pattern[rule] == '%' {
            retry = Some((rule + 1, at));
            rule += 1;
            continue;
        }
        let step = if at < text.len() && rule < pattern.len() { single(text[at], &pattern[rule..]) } else { None };
        if let Some(length) = step {
            at += 1;
            rule += length;
            continue;
        }
        if at == text.len() && rule == pattern.len() {
            return true;
        }
        match retry {
            Some((after, tried)) if tried < text.len() => {
                retry = Some((after, tried + 1));
                at = tried + 1;
                rule = after;
            }
            _ => return false,
        }
    }
}

/// Matches one character; returns how many pattern characters it took.
fn single(character: char, pattern: &[char]) -> Option<usize> {
    match pattern.first()? {
        '_' => Some(1),
        '[' => {
            let Some(end) = pattern.iter().skip(1).position(|c| *c == ']').map(|index| index + 1) else {
                return (character == '[').then_some(1);
            };
            let set = &pattern[1..end];
            let (negated, set) = match set.split_first() {
                Some(('^', rest)) => (true, rest),
                _ => (false, set),
            };
            (in_set(character, set) != negated).then_some(end + 1)
        }
        wanted => (*wanted == character).then_some(1),
    }
}

fn in_set(character: char, set: &[char]) -> bool {
    set.contains(&character)
        || set.windows(3).any(|range| range[1] == '-' && range[0] <= character && character <= range[2])
}

/// The rows of a collection below a row.
pub(super) fn collection<'a>(
    database: &'a Database,
    schema: &'a Schema,
    view: RowView<'a>,
    table: TableId,
    link: Link,
) -> Box<dyn Iterator<Item = RowView<'a>> + 'a> {
    let target = schema.table(table);
    match link {
        Link::Lookup { column, parent } => {
            let store = database.store(table);
            let rows = store.pointing(column, &view.key).into_iter().filter_map(move |key| {
                let row = store.get(&key).filter(|row| row.lookup(Some(column)) == Some((parent, view.key)))?;
                Some(RowView { table: target, key, row })
            });
            Box::new(rows)
        }
        Link::Intersect { table: intersect, own, other } => {
            let links = database.store(intersect);
            let rows = links.pointing(own, &view.key).into_iter().filter_map(move |link| {
                let Some(ValueRef::Guid(key)) = links.get(&link)?.get(other) else {
                    return None;
                };
                Some(RowView { table: target, key, row: database.get(table, &key)? })
            });
            Box::new(rows)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, pattern: &str) -> bool {
        like(text, &pattern.chars().collect::<Vec<_>>())
    }

    #[test]
    fn like_knows_sql_wildcards() {
        assert!(check("contoso", "con%"));
        assert!(check("contoso", "%o_o%"));
        assert!(check("50% off", "%50[%]%"));
        assert!(!check("500 off", "%50[%]%"));
        assert!(check("b1", "[a-c]_"));
        assert!(!check("b1", "[^a-c]_"));
        assert!(check("", "%"));
        assert!(!check("abc", "ab"));
    }
}
