//! The rows of the source on each day, and what the destination must then hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the destination holds of one row: name, city, and whether it is inactive.
pub(crate) type Row = (String, String, bool);

/// Rows by their key.
pub(crate) type Rows = BTreeMap<String, Row>;

/// Keys of the first day; the second begins and ends 150 later, so that rows are gone and rows are new.
const FIRST_KEYS: std::ops::Range<u32> = 0..700;
const MOVED_EACH_DAY: u32 = 150;

/// The source on a day, from 1. Each day a third of the rows that stay has another name, and some another status.
pub(crate) fn rows_of(day: u32) -> Rows {
    let moved = MOVED_EACH_DAY * (day - 1);
    let keys = FIRST_KEYS.start + moved..FIRST_KEYS.end + moved;
    let version = |number: u32| (1..=day).rev().find(|day| number % 3 == day % 3).unwrap_or(0);
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
