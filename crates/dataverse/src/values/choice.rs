//! Choices, statuses and booleans: by label, whatever its case, or by number.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BooleanBuilder, Int32Builder, StringBuilder};
use flowgate_core::Code;
use flowgate_core::shape::{ChoiceOption, StatusShape};

use super::Target;
use super::input::Input;
use super::number::each_whole;
use super::text::text_at;

/// How many labels a message lists.
const LABELS_SHOWN_MAX: usize = 8;

/// Finds the number of a label or of a number's text.
struct Labels {
    /// By folded label and by number.
    values: HashMap<String, i32>,
    shown: String,
}

impl Labels {
    fn new<'a>(options: impl Iterator<Item = (i32, &'a str)> + Clone) -> Self {
        let mut values = HashMap::new();
        for (value, _) in options.clone() {
            values.insert(value.to_string(), value);
        }
        // Labels win over numbers: a choice may be labelled with years.
        let mut labelled = HashMap::new();
        for (value, label) in options.clone() {
            labelled.entry(fold(label)).or_insert(value);
        }
        values.extend(labelled);
        let labels: Vec<String> =
            options.clone().take(LABELS_SHOWN_MAX).map(|(_, label)| format!("`{label}`")).collect();
        let more = if options.count() > LABELS_SHOWN_MAX { ", …" } else { "" };
        Self { values, shown: format!("{}{more}", labels.join(", ")) }
    }

    fn value(&self, text: &str) -> Option<i32> {
        self.values.get(&fold(text)).copied()
    }

    fn unknown(&self, row: usize, value: &str, target: &mut Target<'_>) {
        let problem = format!("is none of the column's choices: {}", self.shown);
        target.fault(row, Code::ROW_UNKNOWN_CHOICE, value, &problem);
    }
}

fn fold(text: &str) -> String {
    text.trim().to_lowercase()
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
            let value = number.and_then(|number| labels.value(&number.to_string()));
            if let (Some(number), None) = (number, value) {
                labels.unknown(row, &number.to_string(), target);
            }
            builder.append_option(value);
        })?;
        return Some(Arc::new(builder.finish()));
    };
    // Few texts stand in many rows: each is looked up once.
    let mut seen: HashMap<&str, Option<i32>> = HashMap::new();
    for row in 0..target.rows {
        let Some(text) = text_at(array, row).filter(|text| !text.trim().is_empty()) else {
            builder.append_null();
            continue;
        };
        let value = *seen.entry(text).or_insert_with(|| labels.value(text));
        if value.is_none() {
            labels.unknown(row, text, target);
        }
        builder.append_option(value);
    }
    Some(Arc::new(builder.finish()))
}

/// `Red; Blue`, `1,3` or one label that holds a comma itself; ascending numbers come out.
pub(super) fn several_choices(options: &[ChoiceOption], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let labels = Labels::new(options.iter().map(|option| (option.value, option.label.as_str())));
    let mut builder = StringBuilder::with_capacity(target.rows, target.rows * 8);
    let Input::Text(array) = input else {
        each_whole(input, target, |row, number, target| {
            let value = number.and_then(|number| labels.value(&number.to_string()));
            if let (Some(number), None) = (number, value) {
                labels.unknown(row, &number.to_string(), target);
            }
            builder.append_option(value.map(|value| value.to_string()));
        })?;
        return Some(Arc::new(builder.finish()));
    };
    for row in 0..target.rows {
        let text = text_at(array, row).unwrap_or_default();
        match selection(&labels, text) {
            Ok(numbers) if numbers.is_empty() => builder.append_null(),
            Ok(numbers) => builder.append_value(numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")),
            Err(unknown) => {
                labels.unknown(row, unknown, target);
                builder.append_null();
            }
        }
    }
    Some(Arc::new(builder.finish()))
}

fn selection<'a>(labels: &Labels, text: &'a str) -> Result<Vec<i32>, &'a str> {
    if let Some(value) = labels.value(text) {
        return Ok(vec![value]);
    }
    let separator = if text.contains(';') { ';' } else { ',' };
    let mut numbers = Vec::new();
    for part in text.split(separator).map(str::trim).filter(|part| !part.is_empty()) {
        numbers.push(labels.value(part).ok_or(part)?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

pub(super) fn booleans(labels: &[String; 2], input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(target.rows);
    match input {
        Input::Text(array) => {
            let mut seen: HashMap<&str, Option<bool>> = HashMap::new();
            for row in 0..target.rows {
                let Some(text) = text_at(array, row).filter(|text| !text.trim().is_empty()) else {
                    builder.append_null();
                    continue;
                };
                let value = *seen.entry(text).or_insert_with(|| boolean(labels, text));
                if value.is_none() {
                    let problem = format!("is neither `{}` nor `{}`", labels[1], labels[0]);
                    target.fault(row, Code::ROW_NOT_A_BOOLEAN, text, &problem);
                }
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

fn boolean(labels: &[String; 2], text: &str) -> Option<bool> {
    let folded = fold(text);
    if let Some(label) = labels.iter().position(|label| fold(label) == folded) {
        return Some(label == 1);
    }
    match folded.as_str() {
        "true" | "yes" | "1" => Some(true),
        "false" | "no" | "0" => Some(false),
        _ => None,
    }
}
