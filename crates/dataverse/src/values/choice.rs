//! Choices, statuses and booleans: by label, whatever its case, or by number. What could be either is neither.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BooleanBuilder, Int32Builder, StringBuilder};
use flowgate_core::Code;
use flowgate_core::key::fold_label;
use flowgate_core::shape::{ChoiceOption, StatusShape};

use super::Target;
use super::input::Input;
use super::number::each_whole;
use super::text::text_at;

/// How many labels a message lists.
const LABELS_SHOWN_MAX: usize = 8;

/// What a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    One(i32),
    /// Two numbers that it may mean.
    Either(i32, i32),
}

impl Meaning {
    fn and(self, value: i32) -> Self {
        match self {
            Self::Nothing => Self::One(value),
            Self::One(known) if known != value => Self::Either(known, value),
            known => known,
        }
    }
}

/// Finds the number of a label or of a number's text.
///
/// Nothing is guessed: a text that two options are labelled with, or that is the label of one option and the number
/// of another, means neither. A number that comes as a number is a value, whatever the labels say.
struct Labels {
    /// By folded label and by number's text.
    texts: HashMap<String, Meaning>,
    numbers: HashSet<i32>,
    shown: String,
}

impl Labels {
    fn new<'a>(options: impl Iterator<Item = (i32, &'a str)> + Clone) -> Self {
        let mut texts: HashMap<String, Meaning> = HashMap::new();
        let mut numbers = HashSet::new();
        for (value, label) in options.clone() {
            for text in [fold_label(label), value.to_string()] {
                let meaning = texts.entry(text).or_insert(Meaning::Nothing);
                *meaning = meaning.and(value);
            }
            numbers.insert(value);
        }
        let labels: Vec<String> =
            options.clone().take(LABELS_SHOWN_MAX).map(|(_, label)| format!("`{label}`")).collect();
        let more = if options.count() > LABELS_SHOWN_MAX { ", …" } else { "" };
        Self { texts, numbers, shown: format!("{}{more}", labels.join(", ")) }
    }

    fn meaning(&self, text: &str) -> Meaning {
        self.texts.get(&fold_label(text)).copied().unwrap_or(Meaning::Nothing)
    }

    /// The value that a text means; otherwise the row gets a fault.
    fn value(&self, row: usize, text: &str, meaning: Meaning, target: &mut Target<'_>) -> Option<i32> {
        match meaning {
            Meaning::One(value) => return Some(value),
            Meaning::Nothing => self.unknown(row, text, target),
            Meaning::Either(one, other) => {
                let problem = format!("may mean the option {one} or {other}; write the number that is meant");
                target.fault(row, Code::ROW_AMBIGUOUS_CHOICE, text, &problem);
            }
        }
        None
    }

    fn number(&self, row: usize, number: i64, target: &mut Target<'_>) -> Option<i32> {
        let value = i32::try_from(number).ok().filter(|value| self.numbers.contains(value));
        if value.is_none() {
            self.unknown(row, &number.to_string(), target);
        }
        value
    }

    fn unknown(&self, row: usize, value: &str, target: &mut Target<'_>) {
        let problem = format!("is none of the column's choices: {}", self.shown);
        target.fault(row, Code::ROW_UNKNOWN_CHOICE, value, &problem);
    }
}

pub(super) fn choices(options: &[ChoiceOption], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let labels = Labels::new(options.iter().map(|option| (option.value, option.label.as_str())));
    single(&labels, input, target)
}

pub(super) fn statuses(statuses: &[StatusShape], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let labels = Labels::new(statuses.iter().map(|status| (status.status, status.label.as_str())));
    single(&labels, input, target)
}

fn single(labels: &Labels, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = Int32Builder::with_capacity(target.rows);
    let Input::Text(array) = input else {
        each_whole(input, target, |row, number, target| {
            builder.append_option(number.and_then(|number| labels.number(row, number, target)));
        })?;
        return Some(Arc::new(builder.finish()));
    };
    // Few texts stand in many rows: each is looked up once.
    let mut seen: HashMap<&str, Meaning> = HashMap::new();
    for row in 0..target.rows {
        let Some(text) = text_at(array, row).filter(|text| !text.trim().is_empty()) else {
            builder.append_null();
            continue;
        };
        let meaning = *seen.entry(text).or_insert_with(|| labels.meaning(text));
        builder.append_option(labels.value(row, text, meaning, target));
    }
    Some(Arc::new(builder.finish()))
}

/// `Red; Blue`, `1,3` or one label that holds a comma itself; ascending numbers come out.
pub(super) fn several_choices(options: &[ChoiceOption], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let labels = Labels::new(options.iter().map(|option| (option.value, option.label.as_str())));
    let mut builder = StringBuilder::with_capacity(target.rows, target.rows * 8);
    let Input::Text(array) = input else {
        each_whole(input, target, |row, number, target| {
            let value = number.and_then(|number| labels.number(row, number, target));
            builder.append_option(value.map(|value| value.to_string()));
        })?;
        return Some(Arc::new(builder.finish()));
    };
    for row in 0..target.rows {
        let text = text_at(array, row).unwrap_or_default();
        match selection(&labels, text) {
            Ok(numbers) if numbers.is_empty() => builder.append_null(),
            Ok(numbers) => builder.append_value(numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")),
            Err((part, meaning)) => {
                builder.append_option(labels.value(row, part, meaning, target).map(|value| value.to_string()));
            }
        }
    }
    Some(Arc::new(builder.finish()))
}

/// The numbers of a text, or the part of it that is not one option.
fn selection<'a>(labels: &Labels, text: &'a str) -> Result<Vec<i32>, (&'a str, Meaning)> {
    match labels.meaning(text) {
        Meaning::One(value) => return Ok(vec![value]),
        meaning @ Meaning::Either(..) => return Err((text, meaning)),
        Meaning::Nothing => {}
    }
    let separator = if text.contains(';') { ';' } else { ',' };
    let mut numbers = Vec::new();
    for part in text.split(separator).map(str::trim).filter(|part| !part.is_empty()) {
        match labels.meaning(part) {
            Meaning::One(value) => numbers.push(value),
            meaning => return Err((part, meaning)),
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

pub(super) fn booleans(labels: &[String; 2], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(target.rows);
    match input {
        Input::Text(array) => {
            let mut seen: HashMap<&str, Meaning> = HashMap::new();
            for row in 0..target.rows {
                let Some(text) = text_at(array, row).filter(|text| !text.trim().is_empty()) else {
                    builder.append_null();
                    continue;
                };
                let value = match *seen.entry(text).or_insert_with(|| boolean(labels, text)) {
                    Meaning::One(number) => Some(number == 1),
                    Meaning::Nothing => {
                        let problem = format!("is neither `{}` nor `{}`", labels[1], labels[0]);
                        target.fault(row, Code::ROW_NOT_A_BOOLEAN, text, &problem);
                        None
                    }
                    Meaning::Either(..) => {
                        let problem = format!("may be yes (`{}`) or no (`{}`)", labels[1], labels[0]);
                        target.fault(row, Code::ROW_AMBIGUOUS_CHOICE, text, &problem);
                        None
                    }
                };
                builder.append_option(value);
            }
        }
        Input::Boolean(array) => builder.append_array(array),
        other => each_whole(other, target, |row, number, target| match number {
            Some(0) => builder.append_value(false),
            Some(1) => builder.append_value(true),
            Some(number) => {
                target.fault(row, Code::ROW_NOT_A_BOOLEAN, &number.to_string(), "is neither 0 nor 1");
                builder.append_null();
            }
            None => builder.append_null(),
        })?,
    }
    Some(Arc::new(builder.finish()))
}

/// 0 for no, 1 for yes. `yes` and `no` are only what they say where no label says otherwise; `true`, `false`, `1` and
/// `0` are values, and a label that says otherwise makes them ambiguous.
fn boolean(labels: &[String; 2], text: &str) -> Meaning {
    let folded = fold_label(text);
    let mut meaning = Meaning::Nothing;
    for (value, label) in (0..).zip(labels) {
        if fold_label(label) == folded {
            meaning = meaning.and(value);
        }
    }
    match folded.as_str() {
        "true" | "1" => meaning.and(1),
        "false" | "0" => meaning.and(0),
        "yes" if meaning == Meaning::Nothing => Meaning::One(1),
        "no" if meaning == Meaning::Nothing => Meaning::One(0),
        _ => meaning,
    }
}
