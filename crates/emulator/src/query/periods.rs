//! The calendar of filters: days, weeks, months, years and fiscal periods around a moment.
//!
//! Promise: times are those of the simulated clock, in UTC; weeks start on Sunday; fiscal years
//! follow the organisation's settings. Left out: which columns they apply to (`functions`).

use super::compile::Test;
use crate::error::ApiError;
use crate::write::{civil_from_days, days_from_civil};

const DAY: i64 = 86_400;

/// The organisation's fiscal calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fiscal {
    /// Month and day a fiscal year starts on.
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) template: Template,
}

/// How a fiscal year is divided; the numbers are those of `organization.fiscalperiodtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    Annually,
    SemiAnnually,
    Quarterly,
    Monthly,
    FourWeeks,
}

impl Template {
    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            2000 => Template::Annually,
            2001 => Template::SemiAnnually,
            2003 => Template::Monthly,
            2004 => Template::FourWeeks,
            _ => Template::Quarterly,
        }
    }

    fn periods(self) -> i64 {
        match self {
            Template::Annually => 1,
            Template::SemiAnnually => 2,
            Template::Quarterly => 4,
            Template::Monthly => 12,
            Template::FourWeeks => 13,
        }
    }
}

impl Fiscal {
    fn year_start(self, year: i64) -> i64 {
        days_from_civil(year, self.month, self.day) * DAY
    }

    /// The first second of a period, counted from 0; the one after the last is the next year's.
    fn period_start(self, year: i64, period: i64) -> i64 {
        let count = self.template.periods();
        let (year, period) = (year + period.div_euclid(count), period.rem_euclid(count));
        if self.template == Template::FourWeeks {
            return self.year_start(year) + period * 28 * DAY;
        }
        let months = self.month - 1 + period * (12 / count);
        days_from_civil(year + months / 12, months % 12 + 1, self.day) * DAY
    }

    /// Fiscal year and period, from 0, of a moment.
    pub(super) fn period_of(self, at: i64) -> (i64, i64) {
        let (civil, ..) = civil_from_days(at.div_euclid(DAY));
        let year = if at < self.year_start(civil) { civil - 1 } else { civil };
        let period = (1..self.template.periods()).take_while(|period| self.period_start(year, *period) <= at).count();
        (year, period as i64)
    }
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
pub(super) fn shift_months(now: i64, offset: i64) -> i64 {
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

/// The first value as a whole number within bounds.
fn number(function: &str, values: &[String], at: usize, bounds: (i64, i64)) -> Result<i64, ApiError> {
    let text = values.get(at).map_or("", String::as_str);
    let number = text.trim().parse::<i64>().ok().filter(|number| (bounds.0..=bounds.1).contains(number));
    number.ok_or_else(|| {
        ApiError::query(format!("The function '{function}' needs a number from {} to {}.", bounds.0, bounds.1))
    })
}

/// What a date function tests; `None` if there is no such function.
pub(super) fn time_test(
    function: &str,
    values: &[String],
    now: i64,
    fiscal: impl Fn() -> Fiscal,
) -> Result<Option<Test>, ApiError> {
    if function == "InFiscalPeriod" {
        let fiscal = fiscal();
        let period = number(function, values, 0, (1, fiscal.template.periods()))?;
        return Ok(Some(Test::FiscalPeriod(fiscal, period - 1)));
    }
    let range = if function.contains("Fiscal") {
        fiscal_range(function, values, now, fiscal())?
    } else {
        time_range(function, values, now)?
    };
    Ok(range.map(|(from, to)| Test::TimeRange(from, to)))
}

const ALWAYS: i64 = i64::MAX;
const COUNT: (i64, i64) = (1, 100_000);
const YEARS: (i64, i64) = (1970, 2100);

type Range = Option<(i64, i64)>;

fn fiscal_range(function: &str, values: &[String], now: i64, fiscal: Fiscal) -> Result<Range, ApiError> {
    let (year, period) = fiscal.period_of(now);
    let years = |from: i64, to: i64| (fiscal.year_start(year + from), fiscal.year_start(year + to));
    let periods =
        |from: i64, to: i64| (fiscal.period_start(year, period + from), fiscal.period_start(year, period + to));
    let count = || number(function, values, 0, (1, 1000));
    let given = || {
        let period = number(function, values, 0, (1, fiscal.template.periods()))? - 1;
        let year = number(function, values, 1, YEARS)?;
        Ok::<_, ApiError>((fiscal.period_start(year, period), fiscal.period_start(year, period + 1)))
    };
    Ok(Some(match function {
        "ThisFiscalYear" => years(0, 1),
        "LastFiscalYear" => years(-1, 0),
        "NextFiscalYear" => years(1, 2),
        "LastXFiscalYears" => years(-count()?, 0),
        "NextXFiscalYears" => years(1, count()? + 1),
        "ThisFiscalPeriod" => periods(0, 1),
        "LastFiscalPeriod" => periods(-1, 0),
        "NextFiscalPeriod" => periods(1, 2),
        "LastXFiscalPeriods" => periods(-count()?, 0),
        "NextXFiscalPeriods" => periods(1, count()? + 1),
        "InFiscalYear" => {
            let year = number(function, values, 0, YEARS)?;
            (fiscal.year_start(year), fiscal.year_start(year + 1))
        }
        "InFiscalPeriodAndYear" => given()?,
        "InOrBeforeFiscalPeriodAndYear" => (i64::MIN, given()?.1),
        "InOrAfterFiscalPeriodAndYear" => (given()?.0, ALWAYS),
        _ => return Ok(None),
    }))
}

fn time_range(function: &str, values: &[String], now: i64) -> Result<Range, ApiError> {
    let today = day_of(now);
    let given = || {
        let text =
            values.first().ok_or_else(|| ApiError::query(format!("The function '{function}' needs PropertyValue.")))?;
        crate::write::parse_time(text).map(day_of)
    };
    let count = || number(function, values, 0, COUNT);
    Ok(Some(match function {
        "Today" => (today, today + DAY),
        "Yesterday" => (today - DAY, today),
        "Tomorrow" => (today + DAY, today + 2 * DAY),
        "Last7Days" => (today - 7 * DAY, now + 1),
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
        "LastXHours" => (now - count()? * 3600, now + 1),
        "NextXHours" => (now, now + count()? * 3600),
        "LastXDays" => (today - count()? * DAY, now + 1),
        "NextXDays" => (now, today + (count()? + 1) * DAY),
        "LastXWeeks" => (today - count()? * 7 * DAY, now + 1),
        "NextXWeeks" => (now, today + (count()? * 7 + 1) * DAY),
        "LastXMonths" => (shift_months(today, -count()?), now + 1),
        "NextXMonths" => (now, shift_months(today, count()?) + DAY),
        "LastXYears" => (shift_months(today, -12 * count()?), now + 1),
        "NextXYears" => (now, shift_months(today, 12 * count()?) + DAY),
        "OlderThanXMinutes" => (i64::MIN, now - count()? * 60),
        "OlderThanXHours" => (i64::MIN, now - count()? * 3600),
        "OlderThanXDays" => (i64::MIN, today - count()? * DAY),
        "OlderThanXWeeks" => (i64::MIN, today - count()? * 7 * DAY),
        "OlderThanXMonths" => (i64::MIN, shift_months(today, -count()?)),
        "OlderThanXYears" => (i64::MIN, shift_months(today, -12 * count()?)),
        _ => return Ok(None),
    }))
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
        let range = |function: &str, value: &str| time_range(function, &[value.to_owned()], now).unwrap().unwrap();
        assert_eq!(range("Today", ""), (at("2026-03-31"), at("2026-04-01")));
        assert_eq!(range("LastMonth", ""), (at("2026-02-01"), at("2026-03-01")));
        assert_eq!(range("ThisWeek", ""), (at("2026-03-29"), at("2026-04-05")));
        assert_eq!(range("LastXMonths", "1").0, at("2026-02-28"));
        assert_eq!(range("OlderThanXHours", "2").1, at("2026-03-31T08:30:00Z"));
        assert_eq!(range("On", "2026-01-05").0, at("2026-01-05"));
        assert_eq!(time_range("Sometime", &[], now).unwrap(), None);
    }

    #[test]
    fn fiscal_years_start_where_the_organisation_says() {
        let fiscal = Fiscal { month: 4, day: 1, template: Template::Quarterly };
        let now = at("2026-03-31T10:30:00Z");
        assert_eq!(fiscal.period_of(now), (2025, 3));
        let range = |function: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            fiscal_range(function, &values, now, fiscal).unwrap().unwrap()
        };
        assert_eq!(range("ThisFiscalYear", &[]), (at("2025-04-01"), at("2026-04-01")));
        assert_eq!(range("NextFiscalPeriod", &[]), (at("2026-04-01"), at("2026-07-01")));
        assert_eq!(range("LastXFiscalPeriods", &["2"]), (at("2025-07-01"), at("2026-01-01")));
        assert_eq!(range("InFiscalPeriodAndYear", &["2", "2024"]), (at("2024-07-01"), at("2024-10-01")));
    }
}
