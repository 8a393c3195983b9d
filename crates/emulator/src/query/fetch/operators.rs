//! Names of condition operators: those of FetchXML and those of a QueryExpression.
//!
//! Both languages say what the functions of `$filter` say; only the spelling differs.

use super::Operation;
use crate::query::Operator;

/// `last-x-fiscal-periods`, `eq`, `not-like`, ...; `None` if there is no such operator.
pub(super) fn from_fetch(name: &str) -> Option<Operation> {
    let like = |before, after, negated| Some(Operation::Like { before, after, negated });
    match name {
        "eq" => return Some(Operation::Compare(Operator::Eq)),
        "ne" | "neq" => return Some(Operation::Compare(Operator::Ne)),
        "gt" => return Some(Operation::Compare(Operator::Gt)),
        "ge" => return Some(Operation::Compare(Operator::Ge)),
        "lt" => return Some(Operation::Compare(Operator::Lt)),
        "le" => return Some(Operation::Compare(Operator::Le)),
        "null" => return Some(Operation::IsNull(true)),
        "not-null" => return Some(Operation::IsNull(false)),
        "like" => return like("", "", false),
        "not-like" => return like("", "", true),
        "begins-with" => return like("", "%", false),
        "not-begin-with" => return like("", "%", true),
        "ends-with" => return like("%", "", false),
        "not-end-with" => return like("%", "", true),
        _ => {}
    }
    let function = match name {
        "in" => "In",
        "not-in" => "NotIn",
        "between" => "Between",
        "not-between" => "NotBetween",
        "contain-values" => "ContainValues",
        "not-contain-values" => "DoesNotContainValues",
        "eq-userid" => "EqualUserId",
        "ne-userid" => "NotEqualUserId",
        "eq-businessid" => "EqualBusinessId",
        "ne-businessid" => "NotEqualBusinessId",
        "eq-userteams" => "EqualUserTeams",
        "eq-useroruserteams" => "EqualUserOrUserTeams",
        "eq-useroruserhierarchy" => "EqualUserOrUserHierarchy",
        "eq-useroruserhierarchyandteams" => "EqualUserOrUserHierarchyAndTeams",
        "eq-userlanguage" => "EqualUserLanguage",
        "above" => "Above",
        "eq-or-above" => "AboveOrEqual",
        "under" => "Under",
        "eq-or-under" => "UnderOrEqual",
        "not-under" => "NotUnder",
        "last-seven-days" => "Last7Days",
        "next-seven-days" => "Next7Days",
        _ if DATES.contains(&name) => return Some(Operation::Function(pascal(name))),
        _ => return None,
    };
    Some(Operation::Function(function.to_owned()))
}

/// Date operators whose function is their name in another spelling.
const DATES: &[&str] = &[
    "yesterday",
    "today",
    "tomorrow",
    "on",
    "on-or-before",
    "on-or-after",
    "last-week",
    "this-week",
    "next-week",
    "last-month",
    "this-month",
    "next-month",
    "last-year",
    "this-year",
    "next-year",
    "last-x-hours",
    "next-x-hours",
    "last-x-days",
    "next-x-days",
    "last-x-weeks",
    "next-x-weeks",
    "last-x-months",
    "next-x-months",
    "last-x-years",
    "next-x-years",
    "olderthan-x-minutes",
    "olderthan-x-hours",
    "olderthan-x-days",
    "olderthan-x-weeks",
    "olderthan-x-months",
    "olderthan-x-years",
    "last-fiscal-period",
    "this-fiscal-period",
    "next-fiscal-period",
    "last-fiscal-year",
    "this-fiscal-year",
    "next-fiscal-year",
    "last-x-fiscal-periods",
    "next-x-fiscal-periods",
    "last-x-fiscal-years",
    "next-x-fiscal-years",
    "in-fiscal-period",
    "in-fiscal-year",
    "in-fiscal-period-and-year",
    "in-or-before-fiscal-period-and-year",
    "in-or-after-fiscal-period-and-year",
];

/// `olderthan-x-days` as `OlderThanXDays`.
fn pascal(name: &str) -> String {
    let mut out = String::new();
    for part in name.split('-') {
        if part == "olderthan" {
            out.push_str("OlderThan");
            continue;
        }
        let mut characters = part.chars();
        out.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        out.extend(characters);
    }
    out
}

/// An operator of a ConditionExpression, as BulkDelete takes them.
pub(super) fn from_expression(name: &str) -> Operation {
    let like = |before, after, negated| Operation::Like { before, after, negated };
    match name {
        "Equal" => Operation::Compare(Operator::Eq),
        "NotEqual" => Operation::Compare(Operator::Ne),
        "GreaterThan" => Operation::Compare(Operator::Gt),
        "GreaterEqual" => Operation::Compare(Operator::Ge),
        "LessThan" => Operation::Compare(Operator::Lt),
        "LessEqual" => Operation::Compare(Operator::Le),
        "Null" => Operation::IsNull(true),
        "NotNull" => Operation::IsNull(false),
        "Like" => like("", "", false),
        "NotLike" => like("", "", true),
        "BeginsWith" => like("", "%", false),
        "DoesNotBeginWith" => like("", "%", true),
        "EndsWith" => like("%", "", false),
        "DoesNotEndWith" => like("%", "", true),
        "Contains" => like("%", "%", false),
        "DoesNotContain" => like("%", "%", true),
        // What is no function either is refused when it is bound to a column.
        other => Operation::Function(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_operator_is_a_function() {
        let now = 1_775_000_000;
        let fiscal =
            || crate::query::periods::Fiscal { month: 1, day: 1, template: crate::query::periods::Template::Quarterly };
        for name in DATES {
            let Some(Operation::Function(function)) = from_fetch(name) else { panic!("{name}") };
            let value = if name.starts_with("on") { "2026-01-01" } else { "2" };
            let values = if *name == "in-fiscal-year" {
                vec!["2026".to_owned()]
            } else {
                vec![value.to_owned(), "2026".to_owned()]
            };
            let test = crate::query::periods::time_test(&function, &values, now, fiscal);
            assert!(matches!(test, Ok(Some(_))), "{name}: {test:?}");
        }
        assert_eq!(from_fetch("sounds-like"), None);
    }
}
