//! Moments, and what a clock on a wall shows: the one place where either becomes the other, and where texts are read.
//!
//! A *moment* is counted in microseconds since 1970-01-01T00:00:00Z. A *local time* is what a clock shows, counted the
//! same way as if the clock showed UTC; it belongs to the project's zone. Text with an offset is a moment, text without
//! one a local time. Every way that a value takes through the program (text, typed column, SQL function, database)
//! asks here, so one moment makes one local time and one date whichever way it came.
//!
//! Promises: no offset is dropped, no local time is moved without the caller being told that it was odd, and what
//! cannot be read says why.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

pub const SECOND: i64 = 1_000_000;
pub const DAY_SECONDS: i64 = 86_400;
pub const DAY: i64 = DAY_SECONDS * SECOND;

/// 0001-01-01 and 9999-12-31: between them every part of the program can name a year.
const NAMED_DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// What becomes of a local time that a clock change skips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NonexistentTimes {
    /// The first moment after the change.
    #[default]
    Next,
    SetAside,
}

/// What becomes of a local time that a clock change brings twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepeatedTimes {
    #[default]
    First,
    Second,
    SetAside,
}

/// The choices for local times that are not exactly one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTimes {
    pub nonexistent: NonexistentTimes,
    pub repeated: RepeatedTimes,
}

/// In what way a local time is not exactly one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oddity {
    Nonexistent,
    Repeated,
}

impl Oddity {
    /// Continues "`2026-03-29T02:30:00`" and is followed by the zone.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nonexistent => "does not exist in",
            Self::Repeated => "comes twice in",
        }
    }
}

/// The moment of a local time; `None` where the project wants such times set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub moment: Option<i64>,
    pub oddity: Option<Oddity>,
}

/// The clock on the wall of the project: its zone, and how odd times are read.
#[derive(Debug, Clone)]
pub struct WallClock {
    name: String,
    zone: TimeZone,
    times: LocalTimes,
}

/// A name that no time zone has.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not a time zone")]
pub struct UnknownZone {
    name: String,
    source: jiff::Error,
}

impl WallClock {
    pub fn new(name: &str, times: LocalTimes) -> Result<Self, UnknownZone> {
        let zone = match fixed_offset(name) {
            Some(zone) => zone,
            None => TimeZone::get(name).map_err(|source| UnknownZone { name: name.to_owned(), source })?,
        };
        Ok(Self { name: name.to_owned(), zone, times })
    }

    /// The IANA name of the zone.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn times(&self) -> LocalTimes {
        self.times
    }

    /// The moment at which the clock shows `local`.
    pub fn moment(&self, local: i64) -> Placed {
        let Some(shown) = civil(local.div_euclid(SECOND)) else {
            // Beyond the years that zones have rules for: nothing stores such a time, and its range is what is wrong.
            return Placed { moment: Some(local), oddity: None };
        };
        let at = |offset: jiff::tz::Offset| local - i64::from(offset.seconds()) * SECOND;
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => Placed { moment: Some(at(offset)), oddity: None },
            AmbiguousOffset::Fold { before, after } => {
                let moment = match self.times.repeated {
                    RepeatedTimes::First => Some(at(before)),
                    RepeatedTimes::Second => Some(at(after)),
                    RepeatedTimes::SetAside => None,
                };
                Placed { moment, oddity: Some(Oddity::Repeated) }
            }
            AmbiguousOffset::Gap { before, .. } => {
                let moment = match self.times.nonexistent {
                    NonexistentTimes::Next => self.change_before(at(before)),
                    NonexistentTimes::SetAside => None,
                };
                Placed { moment, oddity: Some(Oddity::Nonexistent) }
            }
        }
    }

    /// The clock change at or before a moment.
    fn change_before(&self, moment: i64) -> Option<i64> {
        let after = Timestamp::from_second(moment.div_euclid(SECOND) + 1).ok()?;
        self.zone.preceding(after).next().map(|change| change.timestamp().as_second() * SECOND)
    }

    /// What the clock shows at `moment`.
    pub fn shown(&self, moment: i64) -> i64 {
        // The last hours of 9999 lie beyond what `Timestamp` holds; the offset then is the one before.
        let second = moment.div_euclid(SECOND).clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let offset = Timestamp::from_second(second).map_or(0, |second| self.zone.to_offset(second).seconds());
        moment.saturating_add(i64::from(offset) * SECOND)
    }

    /// The date that the clock shows at `moment`, in days since 1970.
    pub fn date(&self, moment: i64) -> i64 {
        self.shown(moment).div_euclid(DAY)
    }
}

/// `+02:00`, as databases and files name zones that are none.
fn fixed_offset(name: &str) -> Option<TimeZone> {
    if !name.starts_with(['+', '-']) {
        return None;
    }
    let seconds = i32::try_from(offset(name.as_bytes())??).ok()?;
    Some(TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?))
}

/// A second of local time as jiff's, if its year has a name.
fn civil(second: i64) -> Option<DateTime> {
    let days = second.div_euclid(DAY_SECONDS);
    if !NAMED_DAYS.contains(&days) {
        return None;
    }
    let (year, month, day) = civil_from_days(days);
    let of_day = second.rem_euclid(DAY_SECONDS);
    let (hour, minute) = ((of_day / 3_600) as i8, (of_day / 60 % 60) as i8);
    DateTime::new(year as i16, month as i8, day as i8, hour, minute, (of_day % 60) as i8, 0).ok()
}

/// A date, with a time and an offset if they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Days since 1970-01-01.
    pub day: i64,
    pub of_day: Option<i64>,
    pub offset_seconds: Option<i64>,
}

impl Written {
    /// What is written, offset left out, in microseconds. Years have at most six digits, of which all fit.
    pub fn local(&self) -> i64 {
        self.day * DAY + self.of_day.unwrap_or(0)
    }

    /// The moment, where an offset says which it is.
    pub fn moment(&self) -> Option<i64> {
        self.offset_seconds.map(|offset| self.local() - offset * SECOND)
    }
}

/// Why a text is not a date or a time; each continues the text in backticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("is not a date and time in ISO 8601 form (2026-03-01T08:30:00+01:00)")]
    Form,
    #[error("names a day that the calendar does not have")]
    NoSuchDay,
    #[error("names a time that a day does not have")]
    NoSuchTime,
    #[error("names the hour 24, which is the hour 0 of the next day")]
    Hour24,
    #[error("names a leap second, which has no place in a column of times")]
    LeapSecond,
    #[error("is a time without a date")]
    TimeOnly,
    #[error("is infinite, and no date or time is")]
    Infinite,
    #[error("lies in a year that no column of times has a place for")]
    Year,
}

/// Reads `2026-03-01`, `2026-03-01T08:30`, `2026-03-01 08:30:15.123+01:00`; blanks around it do not count.
pub fn read(text: &str) -> Result<Written, Unreadable> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let year_length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_dated = bytes.len() >= year_length + 6
        && (4..=6).contains(&year_length)
        && bytes[year_length] == b'-'
        && bytes[year_length + 3] == b'-';
    if !is_dated {
        return Err(of_another_form(text));
    }
    let (date, rest) = bytes.split_at(year_length + 6);
    let year = number(&date[..year_length]).ok_or(Unreadable::Form)?;
    let month = number(&date[year_length + 1..year_length + 3]).ok_or(Unreadable::Form)?;
    let day = number(&date[year_length + 4..]).ok_or(Unreadable::Form)?;
    if year > 200_000 {
        return Err(Unreadable::Year);
    }
    let day = civil_day(year, month, day).ok_or(Unreadable::NoSuchDay)?;
    if rest.is_empty() {
        return Ok(Written { day, of_day: None, offset_seconds: None });
    }
    let (of_day, rest) = time_of_day(rest)?;
    Ok(Written { day, of_day: Some(of_day), offset_seconds: offset(rest).ok_or(Unreadable::Form)? })
}

/// The time after a date, in microseconds, and what follows it.
fn time_of_day(text: &[u8]) -> Result<(i64, &[u8]), Unreadable> {
    let time = &text[1..];
    if !matches!(text[0], b'T' | b't' | b' ') || time.len() < 5 || time[2] != b':' {
        return Err(Unreadable::Form);
    }
    let two = |at: usize| number(&time[at..at + 2]).ok_or(Unreadable::Form);
    let (hour, minute) = (two(0)?, two(3)?);
    let (second, fraction, rest) = match time.get(5) {
        Some(b':') if time.len() >= 8 => {
            let (fraction, rest) = fraction(&time[8..]).ok_or(Unreadable::Form)?;
            (two(6)?, fraction, rest)
        }
        Some(b':') => return Err(Unreadable::Form),
        _ => (0, 0, &time[5..]),
    };
    match (hour, minute, second) {
        (24, 0, 0) => Err(Unreadable::Hour24),
        (0..=23, 0..=59, 60) => Err(Unreadable::LeapSecond),
        (0..=23, 0..=59, 0..=59) => Ok(((hour * 3_600 + minute * 60 + second) * SECOND + fraction, rest)),
        _ => Err(Unreadable::NoSuchTime),
    }
}

/// What else a text may be that somebody took for a time.
fn of_another_form(text: &str) -> Unreadable {
    let bytes = text.as_bytes();
    let plain = text.trim_start_matches(['+', '-']);
    if plain.eq_ignore_ascii_case("infinity") || plain.eq_ignore_ascii_case("inf") {
        return Unreadable::Infinite;
    }
    let is_time = matches!(bytes, [hour, minute, b':', rest @ ..]
        if hour.is_ascii_digit() && minute.is_ascii_digit() && rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_digit));
    if is_time { Unreadable::TimeOnly } else { Unreadable::Form }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Microseconds of a fraction of a second, further digits cut off. `None`: a point or comma without digits.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    if !matches!(rest.first(), Some(b'.' | b',')) {
        return Some((0, rest));
    }
    let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let micros = (0..6).fold(0, |micros, at| {
        let digit = if at < digits { i64::from(rest[1 + at] - b'0') } else { 0 };
        micros * 10 + digit
    });
    (digits > 0).then(|| (micros, &rest[1 + digits..]))
}

/// Outer `None`: not an offset. Inner `None`: nothing is written.
#[expect(clippy::option_option, reason = "bad and absent are different here, and both are handled at once")]
fn offset(rest: &[u8]) -> Option<Option<i64>> {
    let (sign, digits) = match rest {
        [] => return Some(None),
        [b'Z' | b'z'] | b" Z" | b" UTC" => return Some(Some(0)),
        // PostgreSQL and Python write no blank, some exports do.
        [b' ', b'+', digits @ ..] | [b'+', digits @ ..] => (1, digits),
        [b' ', b'-', digits @ ..] | [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes, seconds) = match digits.len() {
        2 => (number(digits)?, 0, 0),
        4 => (number(&digits[..2])?, number(&digits[2..])?, 0),
        5 if digits[2] == b':' => (number(&digits[..2])?, number(&digits[3..])?, 0),
        // Local mean time, as databases write it for years before there were zones.
        8 if digits[2] == b':' && digits[5] == b':' => {
            (number(&digits[..2])?, number(&digits[3..5])?, number(&digits[6..])?)
        }
        _ => return None,
    };
    let is_offset = hours <= 15 && minutes <= 59 && seconds <= 59;
    is_offset.then(|| Some(sign * (hours * 3_600 + minutes * 60 + seconds)))
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
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
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
pub fn date_text(day: i64) -> String {
    let (year, month, day) = civil_from_days(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-03-01T08:30:15`, with `.25` after it where there are parts of a second.
pub fn local_text(local: i64) -> String {
    let second = local.div_euclid(SECOND).rem_euclid(DAY_SECONDS);
    let micros = local.rem_euclid(SECOND);
    let mut text = format!(
        "{}T{:02}:{:02}:{:02}",
        date_text(local.div_euclid(DAY)),
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    if micros > 0 {
        text.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(zone: &str) -> WallClock {
        WallClock::new(zone, LocalTimes::default()).unwrap()
    }

    fn local(text: &str) -> i64 {
        read(text).unwrap().local()
    }

    fn utc(zone: &str, text: &str) -> String {
        local_text(clock(zone).moment(local(text)).moment.unwrap())
    }

    #[test]
    fn a_skipped_time_becomes_the_next_moment_and_says_so() {
        for skipped in ["2026-03-29T01:00:00", "2026-03-29T01:30:00", "2026-03-29T01:59:59"] {
            assert_eq!(utc("Europe/London", skipped), "2026-03-29T01:00:00", "{skipped}");
            assert_eq!(clock("Europe/London").moment(local(skipped)).oddity, Some(Oddity::Nonexistent));
        }
        assert_eq!(utc("Europe/London", "2026-03-29T00:59:59"), "2026-03-29T00:59:59");
        assert_eq!(utc("Europe/London", "2026-03-29T02:00:00"), "2026-03-29T01:00:00");
        assert_eq!(utc("Pacific/Apia", "2011-12-30T12:00:00"), "2011-12-30T10:00:00", "a whole day was skipped");
    }

    #[test]
    fn of_a_repeated_time_the_configured_one_counts() {
        assert_eq!(utc("Europe/London", "2026-10-25T01:30:00"), "2026-10-25T00:30:00");
        assert_eq!(utc("America/New_York", "2026-11-01T01:30:00"), "2026-11-01T05:30:00");
        let of = |repeated| {
            let times = LocalTimes { repeated, ..LocalTimes::default() };
            WallClock::new("Europe/London", times).unwrap().moment(local("2026-10-25T01:30:00"))
        };
        let second = of(RepeatedTimes::Second);
        assert_eq!((second.moment, second.oddity), (Some(local("2026-10-25T01:30:00")), Some(Oddity::Repeated)));
        assert_eq!(of(RepeatedTimes::SetAside), Placed { moment: None, oddity: Some(Oddity::Repeated) });
    }

    #[test]
    fn the_first_and_last_days_are_placed_in_every_zone() {
        for zone in ["Europe/Berlin", "Pacific/Kiritimati", "Pacific/Midway", "UTC"] {
            for text in ["0001-01-01", "1753-01-01", "9999-12-31T23:59:59"] {
                let wall = clock(zone);
                let placed = wall.moment(local(text));
                assert_eq!(wall.shown(placed.moment.unwrap()), local(text), "{zone} {text}");
            }
        }
        assert_eq!(utc("Pacific/Midway", "9999-12-31T23:00:00"), "10000-01-01T10:00:00");
        let wall = clock("Europe/Berlin");
        assert_eq!(wall.moment(local("12000-01-01")).moment, Some(local("12000-01-01")));
    }

    #[test]
    fn forms_that_are_read_and_forms_that_are_not() {
        for (text, moment) in [
            ("1970-01-01T00:01Z", 60 * SECOND),
            ("1970-01-01 00:00:01.999Z", 1_999_000),
            ("1970-01-01T01:00:00+01:00", 0),
            (" 1970-01-01T01:00:00 +0100 ", 0),
            ("1969-12-31T19:00:00-0500", 0),
            ("1970-01-01T00:00:00,5+00", 500_000),
            ("1970-01-01T00:53:28+00:53:28", 0),
            ("1970-01-01T00:00:00.1234567Z", 123_456),
        ] {
            assert_eq!(read(text).map(|written| written.moment()), Ok(Some(moment)), "{text}");
        }
        for (text, why) in [
            ("01/02/2026", Unreadable::Form),
            ("2026-2-1", Unreadable::Form),
            ("2026-02-30", Unreadable::NoSuchDay),
            ("2025-02-29", Unreadable::NoSuchDay),
            ("2026-01-01T24:00:00", Unreadable::Hour24),
            ("2026-01-01T25:00:00", Unreadable::NoSuchTime),
            ("2026-06-30T23:59:60Z", Unreadable::LeapSecond),
            ("2026-01-01T10", Unreadable::Form),
            ("2026-01-01T10:00:00.", Unreadable::Form),
            ("2026-01-01T10:00:00+1", Unreadable::Form),
            ("2026-01-01T10:00Z+01", Unreadable::Form),
            ("20260101", Unreadable::Form),
            ("10:30", Unreadable::TimeOnly),
            ("-infinity", Unreadable::Infinite),
            ("999999-01-01", Unreadable::Year),
            ("", Unreadable::Form),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for day in (-719_162..=2_932_896).step_by(89) {
            let (year, month, of_month) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, of_month), day);
            assert_eq!(read(&date_text(day)).map(|written| written.day), Ok(day));
        }
    }
}
