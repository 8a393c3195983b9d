//! Dates and times as columns store them: whole seconds, from 1753 to 9999.
//!
//! What a text says and which moment a local time is, [`flowgate_core::moment`] decides for every way that a value can
//! take. Here a moment finds its column: a `UserLocal` column stores the moment itself, in UTC; a `TimeZoneIndependent`
//! one what the project's clock shows then; a date column the date that it shows then. A local time (without an offset)
//! is what the project's clock shows already. Parts of a second are cut off, as the service does.

use std::sync::Arc;

use arrow_array::builder::{Date32Builder, TimestampSecondBuilder};
use arrow_array::{Array, ArrayRef};
use flowgate_core::moment::{self, DAY, SECOND, Unreadable, WallClock, date_text, local_text};
use flowgate_core::{Code, Note};

use super::Target;
use super::input::Input;
use super::text::text_at;

/// 1753-01-01 and 9999-12-31, the service's first and last day, as days since 1970.
const DAY_MIN: i64 = -79_257;
const DAY_MAX: i64 = 2_932_896;

/// A value as it came: a moment, or a local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Moment(i64),
    Local(i64),
}

pub(super) fn moments(user_local: bool, clock: &WallClock, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = TimestampSecondBuilder::with_capacity(target.rows);
    for row in 0..target.rows {
        let stored = match came(input, row)? {
            Ok(Some(Came::Moment(moment))) if user_local => Some(moment),
            Ok(Some(Came::Moment(moment))) => Some(clock.shown(moment)),
            Ok(Some(Came::Local(local))) if user_local => placed(clock, local, row, target),
            Ok(Some(Came::Local(local))) => Some(local),
            Ok(None) => None,
            Err((why, text)) => {
                target.fault(row, Code::ROW_BAD_DATE, &text, &why.to_string());
                None
            }
        };
        let stored = stored.filter(|stored| check_range(stored.div_euclid(DAY), || local_text(*stored), row, target));
        builder.append_option(stored.map(|stored| stored.div_euclid(SECOND)));
    }
    Some(Arc::new(builder.finish()))
}

pub(super) fn dates(clock: &WallClock, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = Date32Builder::with_capacity(target.rows);
    for row in 0..target.rows {
        let day = match came(input, row)? {
            Ok(Some(Came::Moment(moment))) => Some(clock.date(moment)),
            Ok(Some(Came::Local(local))) => Some(local.div_euclid(DAY)),
            Ok(None) => None,
            Err((why, text)) => {
                let why = if why == Unreadable::Form {
                    "is not a date in ISO 8601 form (2026-03-01)".to_owned()
                } else {
                    why.to_string()
                };
                target.fault(row, Code::ROW_BAD_DATE, &text, &why);
                None
            }
        };
        let day = day.filter(|day| check_range(*day, || date_text(*day), row, target));
        builder.append_option(day.map(|day| day as i32));
    }
    Some(Arc::new(builder.finish()))
}

/// One value. Outer `None`: the input's type can never be a time.
fn came(input: &Input, row: usize) -> Option<Result<Option<Came>, (Unreadable, String)>> {
    Some(match input {
        Input::Null => Ok(None),
        Input::Instant(array) => Ok(array.is_valid(row).then(|| Came::Moment(array.value(row)))),
        Input::Local(array) => Ok(array.is_valid(row).then(|| Came::Local(array.value(row)))),
        Input::Date(array) if array.is_valid(row) => match i64::from(array.value(row)).checked_mul(DAY) {
            Some(local) => Ok(Some(Came::Local(local))),
            None => Err((Unreadable::Year, date_text(i64::from(array.value(row))))),
        },
        Input::Date(_) => Ok(None),
        Input::Text(array) => match text_at(array, row).map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => match moment::read(text) {
                Ok(written) => Ok(Some(written.moment().map_or_else(|| Came::Local(written.local()), Came::Moment))),
                Err(why) => Err((why, text.to_owned())),
            },
            None => Ok(None),
        },
        Input::Integer(_) | Input::Decimal(..) | Input::Float(_) | Input::Boolean(_) => return None,
    })
}

/// The moment of a local time; counted if it is not exactly one.
fn placed(clock: &WallClock, local: i64, row: usize, target: &mut Target<'_>) -> Option<i64> {
    let placed = clock.moment(local);
    if let Some(oddity) = placed.oddity {
        if placed.moment.is_none() {
            let problem = format!("{} {}", oddity.words(), clock.name());
            target.fault(row, Code::ROW_ODD_TIME, &local_text(local), &problem);
        } else {
            target.note(Note::Time(oddity), || local_text(local));
        }
    }
    placed.moment
}

fn check_range(day: i64, shown: impl FnOnce() -> String, row: usize, target: &mut Target<'_>) -> bool {
    let fits = (DAY_MIN..=DAY_MAX).contains(&day);
    if !fits {
        target.fault(row, Code::ROW_BAD_DATE, &shown(), "is not from 1753 to 9999");
    }
    fits
}

/// Seconds since 1970 of a time with an offset or `Z`, as answers hold it; without one it counts as UTC.
pub(crate) fn parse_moment(text: &str) -> Option<i64> {
    let written = moment::read(text).ok()?;
    Some(written.moment().unwrap_or_else(|| written.local()).div_euclid(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_last_day_are_what_they_say() {
        assert_eq!((date_text(DAY_MIN), date_text(DAY_MAX)), ("1753-01-01".to_owned(), "9999-12-31".to_owned()));
    }
}
