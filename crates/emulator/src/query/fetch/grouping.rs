//! Aggregation over joined rows.
//!
//! Promise: at most 50,000 rows go in, or fewer if the query says so; parts of dates are those of
//! UTC; weeks are counted from the one that holds the first of January, Sunday first.

use std::collections::HashMap;

use super::join::{Joiner, Tuple};
use super::output::Output;
use super::page::compare_values;
use super::plan::Plan;
use super::{DateGrouping, Fetch};
use crate::error::ApiError;
use crate::query::periods::Fiscal;
use crate::query::totals::{Accumulator, check_rows};
use crate::storage::{Value, ValueRef, key_hash};
use crate::write::{civil_from_days, days_from_civil};

const DAY: i64 = 86_400;

/// One row of the answer.
pub(super) struct Group<'a> {
    /// The first row that fell into it, for display texts.
    pub(super) example: Option<Tuple<'a>>,
    /// One for each output; those that are not added up hold nothing.
    pub(super) totals: Vec<Accumulator>,
    /// The grouped value of each output that is not added up.
    pub(super) values: Vec<Option<Value>>,
}

pub(super) fn groups<'a>(
    joiner: &Joiner<'a>,
    query: &Fetch,
    plan: &Plan,
    fiscal: Fiscal,
) -> Result<Vec<Group<'a>>, ApiError> {
    let mut found: HashMap<Vec<Option<u128>>, usize> = HashMap::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut seen = 0;
    joiner.run(&plan.nodes, &plan.late, None, &mut |tuple| {
        seen += 1;
        check_rows(seen, query.aggregate_max)?;
        let values: Vec<Option<Value>> = plan.outputs.iter().map(|output| group_value(output, tuple, fiscal)).collect();
        let hashes = values.iter().map(|value| key_hash(std::iter::once(value.as_ref().map(Value::as_ref))));
        let at = *found.entry(hashes.collect()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group { example: Some(tuple.clone()), totals: totals(plan), values });
        }
        for (output, total) in plan.outputs.iter().zip(&mut groups[at].totals) {
            if let Some(method) = output.method {
                total.add(tuple[output.node].and_then(|view| view.value(output.column)), method);
            }
        }
        Ok(true)
    })?;
    let is_grouped = plan.outputs.iter().any(|output| output.method.is_none());
    if groups.is_empty() && !is_grouped {
        groups.push(Group { example: None, totals: totals(plan), values: vec![None; plan.outputs.len()] });
    }
    sort(plan, &mut groups);
    Ok(groups)
}

fn totals(plan: &Plan) -> Vec<Accumulator> {
    plan.outputs.iter().map(|_| Accumulator::default()).collect()
}

fn group_value(output: &Output, tuple: &Tuple<'_>, fiscal: Fiscal) -> Option<Value> {
    if output.method.is_some() {
        return None;
    }
    let value = tuple[output.node]?.value(output.column)?;
    match (&value, output.date_grouping) {
        (ValueRef::Time(at), Some(grouping)) => Some(Value::Int(date_part(*at, grouping, fiscal))),
        _ => Some(value.to_value()),
    }
}

fn date_part(at: i64, grouping: DateGrouping, fiscal: Fiscal) -> i64 {
    let days = at.div_euclid(DAY);
    let (year, month, day) = civil_from_days(days);
    match grouping {
        DateGrouping::Day => day,
        DateGrouping::Week => {
            let first = days_from_civil(year, 1, 1);
            (days - first + (first + 4).rem_euclid(7)) / 7 + 1
        }
        DateGrouping::Month => month,
        DateGrouping::Quarter => (month - 1) / 3 + 1,
        DateGrouping::Year => year,
        DateGrouping::FiscalPeriod => fiscal.period_of(at).1 + 1,
        DateGrouping::FiscalYear => fiscal.period_of(at).0,
    }
}

fn sort(plan: &Plan, groups: &mut [Group<'_>]) {
    let value = |group: &Group<'_>, output: usize| match plan.outputs[output].method {
        Some(method) => group.totals[output].result(method),
        None => group.values[output].clone(),
    };
    let default: Vec<(usize, bool)> = (0..plan.outputs.len())
        .filter(|index| plan.outputs[*index].method.is_none())
        .map(|index| (index, false))
        .collect();
    let asked: Vec<(usize, bool)> =
        plan.orders.iter().filter_map(|order| Some((order.output?, order.is_descending))).collect();
    groups.sort_by(|a, b| {
        for (output, is_descending) in asked.iter().chain(&default) {
            let ordering = compare_values(value(a, *output).as_ref(), value(b, *output).as_ref());
            let ordering = if *is_descending { ordering.reverse() } else { ordering };
            if ordering != std::cmp::Ordering::Equal {
                return ordering;
            }
        }
        std::cmp::Ordering::Equal
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::periods::Template;

    #[test]
    fn weeks_begin_on_sunday_and_the_first_holds_new_year() {
        let fiscal = Fiscal { month: 7, day: 1, template: Template::SemiAnnually };
        let part = |text: &str, grouping| date_part(crate::write::parse_time(text).unwrap(), grouping, fiscal);
        // 2026-01-01 was a Thursday.
        assert_eq!(part("2026-01-03", DateGrouping::Week), 1);
        assert_eq!(part("2026-01-04", DateGrouping::Week), 2);
        assert_eq!(part("2026-12-31", DateGrouping::Week), 53);
        assert_eq!(part("2026-03-31", DateGrouping::FiscalPeriod), 2);
        assert_eq!(part("2026-03-31", DateGrouping::FiscalYear), 2025);
    }
}
