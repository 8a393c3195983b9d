//! Dates and times as text: ISO 8601 in, whole UTC seconds inside, `Z` out.
//!
//! Promise: years 1753 to 9999 only; an offset is applied, a missing one means UTC, both `Z` and
//! an offset are refused; fractions of a second are dropped. Left out: local time zones.

use crate::error::{ApiError, Code};

/// 1753-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIME_MIN: i64 = -6_847_804_800;
const TIME_MAX: i64 = 253_402_300_799;

pub(crate) fn invalid_time() -> ApiError {
    ApiError::new(Code::InvalidDateTime, "The date-time format is invalid, or value is outside the supported range.")
}

/// Days since 1970-01-01 of a civil date.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The civil date of days since 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    let days = days_from_civil(year, month, day);
    // A day that does not exist comes back as another one.
    ((1..=12).contains(&month) && civil_from_days(days) == (year, month, day)).then_some(days * 86_400)
}

fn parse_clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let second = match parts.next() {
        None => 0,
        Some(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            digits(fraction)?;
            digits(whole)?
        }
    };
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Seconds east of Greenwich of `+hh:mm` or `-hhmm`.
fn parse_offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let rest = text.get(1..)?.replace(':', "");
    if rest.len() != 4 {
        return None;
    }
    let (hours, minutes) = (digits(rest.get(..2)?)?, digits(rest.get(2..)?)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn parse_zoned_clock(text: &str) -> Option<i64> {
    let zulu = text.strip_suffix(['Z', 'z']);
    let body = zulu.unwrap_or(text);
    match body.rfind(['+', '-']) {
        // `Z` together with an offset is invalid.
        Some(_) if zulu.is_some() => None,
        Some(at) => Some(parse_clock(body.get(..at)?)? - parse_offset(body.get(at..)?)?),
        None => parse_clock(body),
    }
}

/// Parses a date or a date with time.
pub(crate) fn parse_time(text: &str) -> Result<i64, ApiError> {
    let text = text.trim();
    let parsed = match text.find(['T', 't', ' ']) {
        None => parse_date(text),
        Some(at) => text.get(..at).and_then(parse_date).and_then(|date| {
            let clock = text.get(at + 1..).and_then(parse_zoned_clock)?;
            Some(date + clock)
        }),
    };
    parsed.filter(|seconds| (TIME_MIN..=TIME_MAX).contains(seconds)).ok_or_else(invalid_time)
}

/// `yyyy-MM-dd`.
pub(crate) fn format_date(seconds: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    push_digits(year, 4, out);
    out.push(b'-');
    push_digits(month, 2, out);
    out.push(b'-');
    push_digits(day, 2, out);
}

/// `yyyy-MM-ddTHH:mm:ssZ`.
pub(crate) fn format_time(seconds: i64, out: &mut Vec<u8>) {
    format_date(seconds, out);
    let clock = seconds.rem_euclid(86_400);
    for (prefix, part) in [(b'T', clock / 3600), (b':', clock / 60 % 60), (b':', clock % 60)] {
        out.push(prefix);
        push_digits(part, 2, out);
    }
    out.push(b'Z');
}

fn push_digits(value: i64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10i64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> Option<String> {
        let mut out = Vec::new();
        format_time(parse_time(text).ok()?, &mut out);
        String::from_utf8(out).ok()
    }

    #[test]
    fn times_become_whole_utc_seconds() {
        assert_eq!(round("2026-03-01T08:00:00Z").as_deref(), Some("2026-03-01T08:00:00Z"));
        assert_eq!(round("2026-03-01T08:00:00.987").as_deref(), Some("2026-03-01T08:00:00Z"));
        assert_eq!(round("2026-03-01T08:00:00+01:30").as_deref(), Some("2026-03-01T06:30:00Z"));
        assert_eq!(round("2024-02-29").as_deref(), Some("2024-02-29T00:00:00Z"));
        assert_eq!(round("1753-01-01").as_deref(), Some("1753-01-01T00:00:00Z"));
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in
            ["1752-12-31", "2023-02-29", "2026-03-01T08:00:00+01:00Z", "2026-3-1", "2026-03-01T24:00:00", "x", ""]
        {
            assert_eq!(round(text), None, "{text}");
        }
    }
}
