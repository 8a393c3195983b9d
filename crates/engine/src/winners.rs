//! Of several prepared rows with one key, the one that counts.
//!
//! With `latest_by:` the greatest value wins; nothing is guessed about it: text is ordered as numbers or as times only
//! where it can mean nothing else, and is refused otherwise. When the newest row of a key cannot be loaded, no older
//! one takes its place: what is there stays, and where nothing is there, nothing is created.

use std::cmp::Ordering;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_ord::ord::{DynComparator, make_comparator};
use arrow_schema::{DataType, SortOptions};
use flowgate_core::moment::{self, WallClock};
use flowgate_core::project::Load;
use flowgate_core::{Code, decimal};
use flowgate_sorted::{SortedRows, groups};

use crate::RunError;
use crate::diff::DiffCounts;
use crate::letters::key_text;
use crate::mapping::Mapping;
use crate::prepare::{FAULT_COLUMN, LATEST_COLUMN};

/// One example of each thing that a person should know about rows with one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyExamples {
    pub contradictory: Option<String>,
    pub tied: Option<String>,
    pub held_back: Option<String>,
    /// The key of the row that won, and the other spelling.
    pub respelled: Option<(String, String)>,
}

impl KeyExamples {
    pub(crate) fn or(&mut self, more: Self) {
        self.contradictory = self.contradictory.take().or(more.contradictory);
        self.tied = self.tied.take().or(more.tied);
        self.held_back = self.held_back.take().or(more.held_back);
        self.respelled = self.respelled.take().or(more.respelled);
    }

    /// What a person is told, a sentence each.
    pub fn warnings(&self, counts: &DiffCounts) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(key) = &self.contradictory {
            said.push(format!(
                "rows that differ from another row with the same key: {} (first `{key}`); `latest_by:` would decide which one counts",
                counts.contradictory
            ));
        }
        if let Some(key) = &self.tied {
            said.push(format!(
                "rows that differ from another row with the same key and the same `latest_by:`: {} (first `{key}`); \
                 which one counts is decided by content",
                counts.tied
            ));
        }
        if let Some(key) = &self.held_back {
            said.push(format!(
                "keys whose newest row cannot be loaded: {} (first `{key}`); what is there stays, and older rows are not sent",
                counts.held_back
            ));
        }
        if let Some((key, other)) = &self.respelled {
            said.push(format!(
                "rows whose key is written otherwise than that of the row that counts: {} (first `{other}`, for `{key}`)",
                counts.respelled
            ));
        }
        said
    }
}

/// The winners of sorted rows, and what their keys came to.
pub(crate) struct Winners {
    /// In the order of their keys.
    pub(crate) rows: Vec<usize>,
    pub(crate) examples: KeyExamples,
}

/// One row for each key: the latest, ties by canonical content. A faulty row never wins.
pub(crate) fn winners(
    load: &Load,
    mapping: &Mapping,
    clock: &WallClock,
    new: &SortedRows,
    counts: &mut DiffCounts,
) -> Result<Winners, RunError> {
    let faults = faults(new)?;
    let order = Order::new(&new.rows, clock)?;
    let keys = Spelling::new(&new.rows, mapping)?;
    let mut rows = Vec::with_capacity(new.keys.len());
    let mut examples = KeyExamples::default();
    for group in groups(&new.keys) {
        counts.prepared += group.len() as u64;
        if group.len() == 1 {
            if faults.value(group.start) {
                counts.quarantined += 1;
            } else {
                rows.push(group.start);
            }
            continue;
        }
        let text = |row: usize| key_text(&new.rows, &mapping.match_positions, row);
        let unordered = |error: Unordered| refused(load, &error, text(group.start));
        let sound: Vec<usize> = group.clone().filter(|at| !faults.value(*at)).collect();
        counts.quarantined += (group.len() - sound.len()) as u64;
        let newest = order.newest(group.clone()).map_err(unordered)?;
        let Some(winner) = order.best(&sound).map_err(unordered)? else { continue };
        if order.by_latest(newest, winner).map_err(unordered)?.is_gt() {
            counts.superseded += sound.len() as u64;
            counts.held_back += 1;
            if examples.held_back.is_none() {
                examples.held_back = Some(text(newest)?);
            }
            continue;
        }
        counts.superseded += sound.len() as u64 - 1;
        for loser in sound.iter().copied().filter(|at| *at != winner) {
            let differs = new.row_hashes[loser] != new.row_hashes[winner];
            if keys.differ(loser, winner) {
                counts.respelled += 1;
                if examples.respelled.is_none() {
                    examples.respelled = Some((text(winner)?, text(loser)?));
                }
            }
            if differs && order.latest.is_none() {
                counts.contradictory += 1;
                if examples.contradictory.is_none() {
                    examples.contradictory = Some(text(winner)?);
                }
            } else if differs && order.by_latest(loser, winner).map_err(unordered)?.is_eq() {
                counts.tied += 1;
                if examples.tied.is_none() {
                    examples.tied = Some(text(winner)?);
                }
            }
        }
        rows.push(winner);
    }
    Ok(Winners { rows, examples })
}

fn refused(load: &Load, error: &Unordered, key: Result<String, RunError>) -> RunError {
    let key = match key {
        Ok(key) => key,
        Err(error) => return error,
    };
    let column = load.latest_by.as_deref().unwrap_or_default();
    let message = format!(
        "load `{}`: `latest_by: {column}` cannot tell which row of the key `{key}` is the newest: `{}` and `{}` have no order",
        load.name, error.one, error.other
    );
    RunError::refused(Code::LATEST_UNORDERED, message)
        .hint(format!("give `{column}` a type in the stream's `columns:`, or cast it in the SELECT"))
}

fn faults(new: &SortedRows) -> Result<&BooleanArray, RunError> {
    new.rows
        .column_by_name(FAULT_COLUMN)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or(RunError::Defect("a bucket without its fault column"))
}

/// Whether the match columns of two rows with one key are written alike.
struct Spelling(Vec<DynComparator>);

impl Spelling {
    fn new(rows: &RecordBatch, mapping: &Mapping) -> Result<Self, RunError> {
        let column = |at: &usize| compare(rows.column(*at));
        Ok(Self(mapping.match_positions.iter().map(column).collect::<Result<_, _>>()?))
    }

    fn differ(&self, a: usize, b: usize) -> bool {
        self.0.iter().any(|compare| compare(a, b).is_ne())
    }
}

/// Two values that nothing orders.
struct Unordered {
    one: String,
    other: String,
}

/// What the column of `latest_by` is ordered by.
enum Latest<'a> {
    Typed(DynComparator),
    /// `NaN` is neither before nor behind a number.
    Floats(&'a arrow_array::Float64Array),
    Texts(&'a StringArray, &'a WallClock),
}

/// What a text means where it can mean only one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A number and how many decimals it is written with: `1.9` and `1.10` may be numbers or versions.
    Number {
        value: i128,
        places: usize,
    },
    Moment(i64),
}

/// Which of two rows with one key wins.
struct Order<'a> {
    latest: Option<Latest<'a>>,
    content: Vec<DynComparator>,
}

fn compare(column: &ArrayRef) -> Result<DynComparator, RunError> {
    Ok(make_comparator(column, column, SortOptions { descending: false, nulls_first: true })?)
}

impl<'a> Order<'a> {
    fn new(rows: &'a RecordBatch, clock: &'a WallClock) -> Result<Self, RunError> {
        let latest = match rows.column_by_name(LATEST_COLUMN) {
            None => None,
            Some(column) => Some(match column.data_type() {
                DataType::Utf8 => Latest::Texts(column.as_string(), clock),
                DataType::Float64 => Latest::Floats(column.as_primitive::<Float64Type>()),
                _ => Latest::Typed(compare(column)?),
            }),
        };
        let content = rows.columns().iter().map(compare).collect::<Result<_, _>>()?;
        Ok(Self { latest, content })
    }

    /// The row with the greatest value of `latest_by`; any without it.
    fn newest(&self, group: Range<usize>) -> Result<usize, Unordered> {
        let mut newest = group.start;
        for row in group.skip(1) {
            if self.by_latest(row, newest)?.is_gt() {
                newest = row;
            }
        }
        Ok(newest)
    }

    fn best(&self, rows: &[usize]) -> Result<Option<usize>, Unordered> {
        let Some((first, others)) = rows.split_first() else { return Ok(None) };
        let mut best = *first;
        for row in others {
            if self.by_latest(*row, best)?.then_with(|| self.by_content(*row, best)).is_gt() {
                best = *row;
            }
        }
        Ok(Some(best))
    }

    fn by_latest(&self, a: usize, b: usize) -> Result<Ordering, Unordered> {
        match &self.latest {
            None => Ok(Ordering::Equal),
            Some(Latest::Typed(compare)) => Ok(compare(a, b)),
            Some(Latest::Floats(values)) => match (values.is_valid(a), values.is_valid(b)) {
                (true, true) => values
                    .value(a)
                    .partial_cmp(&values.value(b))
                    .ok_or_else(|| Unordered { one: values.value(a).to_string(), other: values.value(b).to_string() }),
                (a, b) => Ok(a.cmp(&b)),
            },
            Some(Latest::Texts(texts, clock)) => match (texts.is_valid(a), texts.is_valid(b)) {
                (true, true) => by_meaning(texts.value(a), texts.value(b), clock),
                (a, b) => Ok(a.cmp(&b)),
            },
        }
    }

    fn by_content(&self, a: usize, b: usize) -> Ordering {
        self.content.iter().map(|compare| compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

fn by_meaning(a: &str, b: &str, clock: &WallClock) -> Result<Ordering, Unordered> {
    match (meaning(a, clock), meaning(b, clock)) {
        (Some(Meaning::Number { value: a, places: m }), Some(Meaning::Number { value: b, places: n })) if m == n => {
            Ok(a.cmp(&b))
        }
        (Some(Meaning::Moment(a)), Some(Meaning::Moment(b))) => Ok(a.cmp(&b)),
        _ if a == b => Ok(Ordering::Equal),
        // An empty text is no value, as everywhere.
        _ if a.trim().is_empty() || b.trim().is_empty() => Ok(b.trim().is_empty().cmp(&a.trim().is_empty())),
        _ => Err(Unordered { one: a.to_owned(), other: b.to_owned() }),
    }
}

fn meaning(text: &str, clock: &WallClock) -> Option<Meaning> {
    let text = text.trim();
    if let Ok(written) = moment::read(text) {
        let local = written.local();
        return Some(Meaning::Moment(written.moment().or(clock.moment(local).moment).unwrap_or(local)));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain =
        !whole.is_empty() && [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let places = fraction.len();
    let value = decimal::read(text, i8::try_from(places).ok()?).ok()?;
    is_plain.then_some(Meaning::Number { value, places })
}

#[cfg(test)]
mod tests {
    use flowgate_core::moment::LocalTimes;

    use super::*;

    #[test]
    fn texts_are_ordered_where_they_can_mean_one_thing_only() {
        let clock = WallClock::new("Europe/Berlin", LocalTimes::default()).unwrap();
        let order = |a: &str, b: &str| by_meaning(a, b, &clock).ok();
        for (less, greater) in [
            ("9", "10"),
            ("-10", "-9"),
            ("007", "8"),
            ("1.09", "1.10"),
            ("2023-12-31", "2024-02-01"),
            ("2024-07-01T12:00:00+02:00", "2024-07-01T11:00:00Z"),
            ("2024-07-01T12:00:00", "2024-07-01T12:00:00Z"),
            ("2024-07-01T12:00:00.1Z", "2024-07-01T12:00:00.25Z"),
            ("", "1"),
        ] {
            assert_eq!(order(less, greater), Some(Ordering::Less), "{less} {greater}");
            assert_eq!(order(greater, less), Some(Ordering::Greater), "{less} {greater}");
        }
        for (one, other) in [
            ("31/12/2023", "01/02/2024"),
            ("1.9", "1.10"),
            ("10", "2024-01-01"),
            ("A", "B"),
            ("1,5", "1,6"),
            ("1e3", "2"),
        ] {
            assert_eq!(order(one, other), None, "{one} {other}");
        }
        assert_eq!(order("v1", "v1"), Some(Ordering::Equal));
    }
}
