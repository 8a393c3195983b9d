//! Dates and times: ISO 8601 only, whole seconds, from 1753, zones through jiff.
//!
//! A time without an offset is read in the project's zone. In the hour that a clock change skips it
//! becomes the next valid minute; in the hour that comes twice it is the earlier one.

use std::sync::Arc;

use arrow_array::builder::{Date32Builder, TimestampSecondBuilder};
use arrow_array::{Array, ArrayRef};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::Target;
use super::input::Input;
use super::text::text_at;

pub(crate) const DAY_SECONDS: i64 = 86_400;
const MICROSECONDS: i64 = 1_000_000;

/// 1753-01-01 and 9999-12-31, the service's first and last day, as days since 1970.
const DAY_MIN: i64 = -79_257;
const DAY_MAX: i64 = 2_932_896;

/// The zone that times without an offset are in.
pub(super) struct Zone(Option<TimeZone>);

impl Zone {
    /// An empty name stands for "none": then such times are faults of their rows.
    pub(super) fn named(name: &str) -> Result<Self, ConnectorError> {
        if name.is_empty() {
            return Ok(Self(None));
        }
        let zone = TimeZone::get(name).map_err(|error| {
            ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, format!("`{name}` is not a time zone"))
                .hint("use an IANA name such as `Europe/London`")
                .caused_by(error)
        })?;
        Ok(Self(Some(zone)))
    }

    /// Seconds of UTC for seconds that a local clock shows.
    fn to_utc(&self, local: i64) -> Option<i64> {
        let zone = self.0.as_ref()?;
        let shown = Offset::UTC.to_datetime(Timestamp::from_second(local).ok()?);
        Some(match zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => local - i64::from(offset.seconds()),
            AmbiguousOffset::Fold { before, .. } => local - i64::from(before.seconds()),
            AmbiguousOffset::Gap { before, .. } => {
                // Read with the old offset, the skipped time lies after the change.
                let after_change = Timestamp::from_second(local - i64::from(before.seconds()) + 1).ok()?;
                zone.preceding(after_change).next()?.timestamp().as_second()
            }
        })
    }

    fn to_local(&self, utc: i64) -> Option<i64> {
        let zone = self.0.as_ref()?;
        Some(utc + i64::from(zone.to_offset(Timestamp::from_second(utc).ok()?).seconds()))
    }
}

/// A date, with a time and an offset if they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    day: i64,
    second_of_day: Option<i64>,
    offset_seconds: Option<i64>,
}

pub(super) fn moments(user_local: bool, zone: &Zone, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = TimestampSecondBuilder::with_capacity(target.rows);
    for row in 0..target.rows {
        let value = match input {
            Input::Null => None,
            Input::Instant(array) if array.is_valid(row) => {
                let utc = array.value(row).div_euclid(MICROSECONDS);
                if user_local { Some(utc) } else { zoned(zone.to_local(utc), row, target, || moment_text(utc)) }
            }
            Input::Local(array) if array.is_valid(row) => {
                placed(user_local, zone, array.value(row).div_euclid(MICROSECONDS), row, target)
            }
            Input::Date(array) if array.is_valid(row) => {
                placed(user_local, zone, i64::from(array.value(row)) * DAY_SECONDS, row, target)
            }
            Input::Text(array) => match text_at(array, row).map(str::trim).filter(|text| !text.is_empty()) {
                Some(text) => moment_of_text(text, user_local, zone, row, target),
                None => None,
            },
            Input::Instant(_) | Input::Local(_) | Input::Date(_) => None,
            Input::Integer(_) | Input::Decimal(..) | Input::Float(_) | Input::Boolean(_) => return None,
        };
        builder.append_option(value.filter(|seconds| check_range(seconds.div_euclid(DAY_SECONDS), row, target)));
    }
    Some(Arc::new(builder.finish()))
}

fn moment_of_text(text: &str, user_local: bool, zone: &Zone, row: usize, target: &mut Target<'_>) -> Option<i64> {
    let Some(written) = parse(text) else {
        target.fault(row, Code::ROW_BAD_DATE, text, "is not a date and time in ISO 8601 form");
        return None;
    };
    let shown = written.day * DAY_SECONDS + written.second_of_day.unwrap_or(0);
    match written.offset_seconds {
        Some(offset) if user_local => Some(shown - offset),
        // A time-zone independent column stores what is written.
        Some(_) => Some(shown),
        None => placed(user_local, zone, shown, row, target),
    }
}

/// A local time as the column stores it.
fn placed(user_local: bool, zone: &Zone, local: i64, row: usize, target: &mut Target<'_>) -> Option<i64> {
    if !user_local {
        return Some(local);
    }
    if !is_in_range(local.div_euclid(DAY_SECONDS)) {
        // Left for the range check, which says so.
        return Some(local);
    }
    zoned(zone.to_utc(local), row, target, || moment_text(local))
}

fn zoned(value: Option<i64>, row: usize, target: &mut Target<'_>, shown: impl Fn() -> String) -> Option<i64> {
    if value.is_none() {
        target.fault(row, Code::ROW_NO_ZONE, &shown(), "has no offset, and there is no time zone to read it in");
    }
    value
}

pub(super) fn dates(zone: &Zone, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = Date32Builder::with_capacity(target.rows);
    for row in 0..target.rows {
        let day = match input {
            Input::Null => None,
            Input::Date(array) => array.is_valid(row).then(|| i64::from(array.value(row))),
            Input::Local(array) => {
                array.is_valid(row).then(|| array.value(row).div_euclid(MICROSECONDS).div_euclid(DAY_SECONDS))
            }
            Input::Instant(array) if array.is_valid(row) => {
                let utc = array.value(row).div_euclid(MICROSECONDS);
                let local = zoned(zone.to_local(utc), row, target, || moment_text(utc));
                local.map(|local| local.div_euclid(DAY_SECONDS))
            }
            Input::Instant(_) => None,
            Input::Text(array) => match text_at(array, row).map(str::trim).filter(|text| !text.is_empty()) {
                Some(text) => date_of_text(text, row, target),
                None => None,
            },
            Input::Integer(_) | Input::Decimal(..) | Input::Float(_) | Input::Boolean(_) => return None,
        };
        builder.append_option(day.filter(|day| check_range(*day, row, target)).map(|day| day as i32));
    }
    Some(Arc::new(builder.finish()))
}

fn date_of_text(text: &str, row: usize, target: &mut Target<'_>) -> Option<i64> {
    let written = parse(text);
    if written.is_none() {
        target.fault(row, Code::ROW_BAD_DATE, text, "is not a date in ISO 8601 form (2026-03-01)");
    }
    written.map(|written| written.day)
}

fn is_in_range(day: i64) -> bool {
    (DAY_MIN..=DAY_MAX).contains(&day)
}

fn check_range(day: i64, row: usize, target: &mut Target<'_>) -> bool {
    let fits = is_in_range(day);
    if !fits {
        let shown = i32::try_from(day).map_or_else(|_| day.to_string(), date_text);
        target.fault(row, Code::ROW_BAD_DATE, &shown, "is not from 1753 to 9999");
    }
    fits
}

/// Seconds since 1970 of a time with an offset or `Z`, as answers hold it; without one it counts as UTC.
pub(crate) fn parse_moment(text: &str) -> Option<i64> {
    let written = parse(text)?;
    Some(written.day * DAY_SECONDS + written.second_of_day.unwrap_or(0) - written.offset_seconds.unwrap_or(0))
}

/// `2026-03-01`, `2026-03-01T08:30`, `2026-03-01 08:30:15.123+01:00`. Fractions of a second are dropped.
fn parse(text: &str) -> Option<Written> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let day = civil_day(number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?)?;
    if bytes.len() == 10 {
        return Some(Written { day, second_of_day: None, offset_seconds: None });
    }
    let time = &bytes[11..];
    if !matches!(bytes[10], b'T' | b't' | b' ') || time.len() < 5 || time[2] != b':' {
        return None;
    }
    let (hour, minute) = (number(&time[..2])?, number(&time[3..5])?);
    let (second, rest) = match time.get(5) {
        Some(b':') if time.len() >= 8 => (number(&time[6..8])?, skip_fraction(&time[8..])?),
        Some(b':') => return None,
        _ => (0, &time[5..]),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let second_of_day = Some(hour * 3_600 + minute * 60 + second);
    Some(Written { day, second_of_day, offset_seconds: offset(rest)? })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// `None` if a point or comma stands there without digits after it.
fn skip_fraction(rest: &[u8]) -> Option<&[u8]> {
    if !matches!(rest.first(), Some(b'.' | b',')) {
        return Some(rest);
    }
    let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &rest[1 + digits..])
}

/// Outer `None`: not an offset. Inner `None`: nothing is written.
#[expect(clippy::option_option, reason = "bad and absent are different here, and both are handled at once")]
fn offset(rest: &[u8]) -> Option<Option<i64>> {
    let (sign, digits) = match rest {
        [] => return Some(None),
        [b'Z' | b'z'] => return Some(Some(0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (number(digits)?, 0),
        4 => (number(&digits[..2])?, number(&digits[2..])?),
        5 if digits[2] == b':' => (number(&digits[..2])?, number(&digits[3..])?),
        _ => return None,
    };
    (hours <= 14 && minutes <= 59).then(|| Some(sign * (hours * 3_600 + minutes * 60)))
}

fn civil_day(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return None,
    };
    (1..=length).contains(&day).then(|| days_from_civil(year, month, day))
}

/// Days since 1970-01-01 of a valid date (Howard Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of days since 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// `2026-03-01`
pub(super) fn date_text(day: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(day));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-03-01T08:30:15`
pub(super) fn moment_text(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
    let second = seconds.rem_euclid(DAY_SECONDS);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(zone: &str, local: &str) -> String {
        moment_text(Zone::named(zone).unwrap().to_utc(parse_moment(local).unwrap()).unwrap())
    }

    #[test]
    fn the_first_and_last_day_are_what_they_say() {
        assert_eq!((days_from_civil(1753, 1, 1), days_from_civil(9999, 12, 31)), (DAY_MIN, DAY_MAX));
    }

    #[test]
    fn a_skipped_time_becomes_the_next_valid_minute() {
        for skipped in ["2026-03-29T01:00:00", "2026-03-29T01:30:00", "2026-03-29T01:59:59"] {
            assert_eq!(utc("Europe/London", skipped), "2026-03-29T01:00:00", "{skipped}");
        }
        assert_eq!(utc("Europe/London", "2026-03-29T00:59:59"), "2026-03-29T00:59:59");
        assert_eq!(utc("Europe/London", "2026-03-29T02:00:00"), "2026-03-29T01:00:00");
    }

    #[test]
    fn of_a_repeated_time_the_earlier_counts() {
        assert_eq!(utc("Europe/London", "2026-10-25T01:30:00"), "2026-10-25T00:30:00");
        assert_eq!(utc("America/New_York", "2026-11-01T01:30:00"), "2026-11-01T05:30:00");
    }

    #[test]
    fn forms_that_are_read_and_forms_that_are_not() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:01", 60),
            ("1970-01-01 00:00:01.999Z", 1),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T19:00:00-0500", 0),
            ("1970-01-01T00:00:00,5+00", 0),
        ] {
            assert_eq!(parse_moment(text), Some(seconds), "{text}");
        }
        for text in [
            "01/02/2026",
            "2026-2-1",
            "2026-02-30",
            "2025-02-29",
            "2026-01-01T24:00:00",
            "2026-01-01T10:00:60",
            "2026-01-01T10",
            "2026-01-01T10:00:00.",
            "2026-01-01T10:00:00+1",
            "2026-01-01T10:00Z+01",
            "20260101",
            "",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(day in DAY_MIN..=DAY_MAX) {
            let (year, month, of_month) = civil_from_days(day);
            prop_assert_eq!(days_from_civil(year, month, of_month), day);
            prop_assert_eq!(parse_moment(&date_text(day as i32)), Some(day * DAY_SECONDS));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _parsed = parse(&text);
        }
    }
}
