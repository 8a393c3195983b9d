//! The rows of the source on each day, and what the destination must then hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the destination holds of one row: name, city, and whether it is inactive.
pub(crate) type Row = (String, String, bool);

/// Rows by their key.
pub(crate) type Rows = BTreeMap<String, Row>;

/// One key in so many leaves each day, and as many new ones come.
const DAYS_OF_A_KEY: u32 = 5;

/// The source of `size` rows on a day, from 1. Each day three quarters of the rows that stay have another name, so
/// that many change on two days running, and some have another status.
pub(crate) fn rows_of(size: u32, day: u32) -> Rows {
    let moved = size / DAYS_OF_A_KEY * (day - 1);
    let keys = moved..size + moved;
    let version = |number: u32| (1..=day).rev().find(|day| number % 4 != day % 4).unwrap_or(0);
    keys.map(|number| {
        let name = format!("Office {number}, edition {}", version(number));
        let is_inactive = (number + day).is_multiple_of(10);
        (format!("K-{number:05}"), (name, format!("City {}", number % 17), is_inactive))
    })
    .collect()
}

/// The rows as the source's file.
pub(crate) fn as_csv(rows: &Rows) -> String {
    let mut text = "code,name,city,status\n".to_owned();
    for (key, (name, city, is_inactive)) in rows {
        let status = if *is_inactive { "Closed" } else { "Open" };
        writeln!(text, "{key},\"{name}\",{city},{status}").unwrap_or_default();
    }
    text
}

/// The first differences between what is there and what should be, for a person.
pub(crate) fn differences(found: &Rows, expected: &Rows) -> Vec<String> {
    let missing = expected.keys().filter(|key| !found.contains_key(*key)).map(|key| format!("{key} is lost"));
    let extra = found.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key} should be gone"));
    let wrong = found.iter().filter_map(|(key, row)| {
        let should = expected.get(key)?;
        (row != should).then(|| format!("{key} is {row:?} and should be {should:?}"))
    });
    const SHOWN_MAX: usize = 5;
    missing.chain(extra).chain(wrong).take(SHOWN_MAX).collect()
}
