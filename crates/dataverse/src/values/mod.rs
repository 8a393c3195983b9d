//! Prepared rows into the form the destination stores (core's module `shape` fixes that form).
//!
//! Column by column: a SQL type that can never become the column's type is an error of the load; a
//! value that cannot is a fault of its row, whose value becomes null. Nothing is guessed: a date in
//! another order than ISO 8601, a number with thousands separators or a text too long is a fault.

mod choice;
mod input;
mod number;
mod reference;
mod text;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use flowgate_core::destination::{Checked, RowFault};
use flowgate_core::shape::{ColumnKind, ColumnShape, STATE_COLUMN, TableShape};
use flowgate_core::{Code, ConnectorError, ErrorKind, Note, Notes, WallClock};

use input::Input;
pub(crate) use number::read_decimal;
pub(crate) use reference::split_lookup;
pub(crate) use time::parse_moment;

/// The longest value a message shows, in characters.
const VALUE_TEXT_MAX: usize = 80;

const CURRENCY_COLUMN: &str = "transactioncurrencyid";

/// Gives `rows` the canonical form of `shape`; see [`flowgate_core::Destination::canonical`].
pub(crate) fn canonical(shape: &TableShape, rows: &RecordBatch, clock: &WallClock) -> Result<Checked, ConnectorError> {
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut faults = Faults::default();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(names.len());
    for (name, array) in names.iter().zip(rows.columns()) {
        columns.push(column(shape, name, array, clock, &mut faults)?);
    }
    check_currency(shape, &names, &columns, &mut faults);
    let schema = shape.canonical_schema(names.iter().copied()).ok_or_else(|| internal("the canonical schema"))?;
    let rows = RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|error| internal("the canonical rows").caused_by(error))?;
    Ok(Checked { rows, faults: faults.by_row.into_iter().collect(), notes: faults.notes })
}

fn column(
    shape: &TableShape,
    name: &str,
    array: &ArrayRef,
    clock: &WallClock,
    faults: &mut Faults,
) -> Result<ArrayRef, ConnectorError> {
    let input = Input::of(array)?.ok_or_else(|| mismatch(name, array, "anything the destination stores"))?;
    let mut target = Target { column: name, rows: array.len(), faults };
    for row in input.beyond {
        target.fault(row, Code::ROW_OUT_OF_RANGE, &shown(array, row), "is beyond what any column holds");
    }
    let input = input.values;
    if name == STATE_COLUMN {
        let converted = choice::statuses(&shape.statuses, &input, &mut target);
        return converted.ok_or_else(|| mismatch(name, array, "a status"));
    }
    let column = shape.column(name).ok_or_else(|| column_not_found(shape, name))?;
    let converted = convert(&column.kind, &input, clock, &mut target);
    let converted = converted.ok_or_else(|| mismatch(name, array, kind_name(&column.kind)))?;
    require(column, &converted, faults);
    Ok(converted)
}

/// `None` if the input's type can never become the kind.
fn convert(kind: &ColumnKind, input: &Input, clock: &WallClock, target: &mut Target<'_>) -> Option<ArrayRef> {
    match kind {
        ColumnKind::Text { length_max } => Some(text::texts(*length_max, input, target)),
        ColumnKind::Integer { min, max } => number::integers(*min, *max, input, target),
        ColumnKind::BigInteger => number::big_integers(input, target),
        ColumnKind::Decimal { scale, min, max } | ColumnKind::Money { scale, min, max } => {
            number::decimals(*scale, *min, *max, input, target)
        }
        ColumnKind::Double { precision, min, max } => number::doubles(*precision, *min, *max, input, target),
        ColumnKind::Boolean { labels } => choice::booleans(labels, input, target),
        ColumnKind::DateTime { user_local } => time::moments(*user_local, clock, input, target),
        ColumnKind::Date => time::dates(clock, input, target),
        ColumnKind::Choice { options } => choice::choices(options, input, target),
        ColumnKind::Choices { options } => choice::several_choices(options, input, target),
        ColumnKind::Guid => reference::guids(input, target),
        ColumnKind::Lookup { targets } => reference::lookups(targets, input, target),
        ColumnKind::Unsupported { .. } => None,
    }
}

/// Where the values of one column go, and their faults.
struct Target<'a> {
    column: &'a str,
    rows: usize,
    faults: &'a mut Faults,
}

impl Target<'_> {
    /// Sets the row aside: `value` is shown in backticks before `problem`.
    fn fault(&mut self, row: usize, code: Code, value: &str, problem: &str) {
        let shown: String = value.chars().take(VALUE_TEXT_MAX).collect();
        let more = if shown.len() < value.len() { "…" } else { "" };
        self.faults.add(row, RowFault::new(code, Some(self.column), format!("`{shown}{more}` {problem}")));
    }

    /// Counts a value that is taken otherwise than it was written.
    fn note(&mut self, note: Note, shown: impl FnOnce() -> String) {
        self.faults.notes.add(self.column, note, shown);
    }
}

/// At most one fault a row: the first in the order of the columns.
#[derive(Default)]
struct Faults {
    by_row: BTreeMap<usize, RowFault>,
    notes: Notes,
}

impl Faults {
    fn add(&mut self, row: usize, fault: RowFault) {
        self.by_row.entry(row).or_insert(fault);
    }
}

fn require(column: &ColumnShape, values: &ArrayRef, faults: &mut Faults) {
    if !column.required || values.null_count() == 0 {
        return;
    }
    for row in (0..values.len()).filter(|row| values.is_null(*row)) {
        let reason = format!("`{}` is empty, and the system requires it", column.name);
        faults.add(row, RowFault::new(Code::ROW_REQUIRED, Some(&column.name), reason));
    }
}

/// A row with money whose selected currency is null: the service would refuse it, or guess.
fn check_currency(shape: &TableShape, names: &[&str], columns: &[ArrayRef], faults: &mut Faults) {
    let Some(currency) = names.iter().position(|name| *name == CURRENCY_COLUMN) else { return };
    let is_money = |name: &str| matches!(shape.column(name).map(|column| &column.kind), Some(ColumnKind::Money { .. }));
    let money: Vec<usize> = (0..names.len()).filter(|column| is_money(names[*column])).collect();
    for row in (0..columns[currency].len()).filter(|row| columns[currency].is_null(*row)) {
        if let Some(column) = money.iter().find(|column| columns[**column].is_valid(row)) {
            let reason = format!("`{}` holds money, and `{CURRENCY_COLUMN}` is empty", names[*column]);
            faults.add(row, RowFault::new(Code::ROW_NO_CURRENCY, Some(CURRENCY_COLUMN), reason));
        }
    }
}

/// A value as a message shows it.
fn shown(array: &ArrayRef, row: usize) -> String {
    arrow_cast::display::array_value_to_string(array, row).unwrap_or_else(|_| array.data_type().to_string())
}

fn column_not_found(shape: &TableShape, name: &str) -> ConnectorError {
    let message = format!("table `{}` has no column `{name}`", shape.table);
    let error = ConnectorError::new(ErrorKind::Schema, Code::COLUMN_NOT_FOUND, message);
    let folded = name.to_lowercase();
    match shape.columns.keys().find(|known| **known == folded || known.ends_with(&format!("_{folded}"))) {
        Some(known) => error.hint(format!("did you mean `{known}`? names are logical names in lower case")),
        None => error.hint("names are logical names in lower case; `flowgate provision` creates missing columns"),
    }
}

fn mismatch(name: &str, array: &ArrayRef, kind: &str) -> ConnectorError {
    let message = format!("column `{name}` is `{}` in SQL, and cannot become {kind}", array.data_type());
    ConnectorError::new(ErrorKind::Schema, Code::TYPE_MISMATCH, message)
        .hint("cast it in the SELECT, or leave the column out")
}

fn kind_name(kind: &ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text { .. } => "text",
        ColumnKind::Integer { .. } | ColumnKind::BigInteger => "a whole number",
        ColumnKind::Decimal { .. } | ColumnKind::Money { .. } | ColumnKind::Double { .. } => "a number",
        ColumnKind::Boolean { .. } => "a yes or no",
        ColumnKind::DateTime { .. } => "a time",
        ColumnKind::Date => "a date",
        ColumnKind::Choice { .. } => "a choice",
        ColumnKind::Choices { .. } => "several choices",
        ColumnKind::Guid => "a GUID",
        ColumnKind::Lookup { .. } => "a reference to a row",
        ColumnKind::Unsupported { .. } => "the column's type, which loads cannot write",
    }
}

fn internal(what: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, format!("{what} could not be made"))
}

#[cfg(test)]
mod tests;
