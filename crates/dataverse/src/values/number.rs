//! Numbers, exact: a value with more decimals than its column holds is a fault of its row, because a loader that rounds
//! changes what it was given. Two things are binary by nature and treated so: a floating-point input is taken as the
//! decimal it is next to, and a `Double` column, whose values Dataverse itself rounds to the column's places when it
//! stores them, is rounded here in the same way, counted and shown.

use std::sync::Arc;

use arrow_array::builder::{Decimal128Builder, Float64Builder, Int32Builder, Int64Builder};
use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_schema::DataType;
use flowgate_core::decimal::{self, DIGITS_MAX, NumberFault, is_exact_in_double};
use flowgate_core::{Code, Note};

use super::Target;
use super::input::Input;

/// Scale at which a text is read to see whether it is whole.
const WHOLE_SCALE: i8 = 0;

fn report(fault: NumberFault, row: usize, value: &str, target: &mut Target<'_>) {
    match fault {
        NumberFault::NotANumber => target.fault(row, Code::ROW_NOT_A_NUMBER, value, "is not a number"),
        NumberFault::NotWhole => target.fault(row, Code::ROW_NOT_A_NUMBER, value, "is not a whole number"),
        NumberFault::TooLarge => target.fault(row, Code::ROW_OUT_OF_RANGE, value, "is beyond what the column holds"),
        NumberFault::TooFine => target.fault(
            row,
            Code::ROW_TOO_FINE,
            value,
            "has more decimals than the column holds; `round()` in the SELECT, or a column with more places, decides",
        ),
    }
}

pub(super) fn integers(min: i32, max: i32, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = Int32Builder::with_capacity(target.rows);
    each_whole(input, target, |row, value, target| match value {
        Some(number) if (i64::from(min)..=i64::from(max)).contains(&number) => builder.append_value(number as i32),
        Some(number) => {
            target.fault(row, Code::ROW_OUT_OF_RANGE, &number.to_string(), &format!("is not from {min} to {max}"));
            builder.append_null();
        }
        None => builder.append_null(),
    })?;
    Some(Arc::new(builder.finish()))
}

pub(super) fn big_integers(input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let mut builder = Int64Builder::with_capacity(target.rows);
    each_whole(input, target, |_, value, _| builder.append_option(value))?;
    Some(Arc::new(builder.finish()))
}

/// Calls `append` with each row's whole number, or with `None` after reporting a fault.
pub(super) fn each_whole(
    input: &Input,
    target: &mut Target<'_>,
    mut append: impl FnMut(usize, Option<i64>, &mut Target<'_>),
) -> Option<()> {
    for row in 0..target.rows {
        let read = match input {
            Input::Null => Ok(None),
            Input::Integer(array) => Ok(array.is_valid(row).then(|| array.value(row))),
            Input::Boolean(array) => Ok(array.is_valid(row).then(|| i64::from(array.value(row)))),
            Input::Decimal(array, scale) if array.is_valid(row) => {
                whole(array.value(row), *scale).map(Some).map_err(|fault| (fault, array.value_as_string(row)))
            }
            Input::Float(array) if array.is_valid(row) => {
                let text = float_text(array.value(row));
                parse_whole(&text).map(Some).map_err(|fault| (fault, text))
            }
            Input::Text(array) if array.is_valid(row) && !array.value(row).trim().is_empty() => {
                let text = array.value(row).trim();
                parse_whole(text).map(Some).map_err(|fault| (fault, text.to_owned()))
            }
            Input::Decimal(..) | Input::Float(_) | Input::Text(_) => Ok(None),
            Input::Date(_) | Input::Instant(_) | Input::Local(_) => return None,
        };
        match read {
            Ok(value) => append(row, value, target),
            Err((fault, text)) => {
                report(fault, row, &text, target);
                append(row, None, target);
            }
        }
    }
    Some(())
}

pub(super) fn decimals(scale: i8, min: f64, max: f64, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let data_type = DataType::Decimal128(DIGITS_MAX as u8, scale);
    let bounds = (scaled_bound(min, scale), scaled_bound(max, scale));
    let mut builder = Decimal128Builder::with_capacity(target.rows).with_data_type(data_type.clone());
    for row in 0..target.rows {
        let read = match input {
            Input::Null => return Some(new_null_array(&data_type, target.rows)),
            Input::Integer(array) if array.is_valid(row) => {
                rescale(i128::from(array.value(row)), 0, scale).map_err(|fault| (fault, array.value(row).to_string()))
            }
            Input::Decimal(array, from) if array.is_valid(row) => {
                rescale(array.value(row), *from, scale).map_err(|fault| (fault, array.value_as_string(row)))
            }
            Input::Float(array) if array.is_valid(row) => {
                of_float(array.value(row), scale).map_err(|fault| (fault, float_text(array.value(row))))
            }
            Input::Text(array) if array.is_valid(row) && !array.value(row).trim().is_empty() => {
                let text = array.value(row).trim();
                decimal::read(text, scale).map_err(|fault| (fault, text.to_owned()))
            }
            Input::Integer(_) | Input::Decimal(..) | Input::Float(_) | Input::Text(_) => {
                builder.append_null();
                continue;
            }
            Input::Boolean(_) | Input::Date(_) | Input::Instant(_) | Input::Local(_) => return None,
        };
        match read {
            Ok(value) if (bounds.0..=bounds.1).contains(&value) => builder.append_value(value),
            Ok(value) => {
                let shown = decimal_text(value, scale);
                target.fault(row, Code::ROW_OUT_OF_RANGE, &shown, &format!("is not from {min} to {max}"));
                builder.append_null();
            }
            Err((fault, text)) => {
                report(fault, row, &text, target);
                builder.append_null();
            }
        }
    }
    Some(Arc::new(builder.finish()))
}

pub(super) fn doubles(precision: u8, min: f64, max: f64, input: &Input, target: &mut Target<'_>) -> Option<ArrayRef> {
    let factor = 10_f64.powi(i32::from(precision));
    let mut builder = Float64Builder::with_capacity(target.rows);
    for row in 0..target.rows {
        let value = match double(input, row)? {
            Ok(Some(value)) => value,
            Ok(None) => {
                builder.append_null();
                continue;
            }
            Err((fault, text)) => {
                report(fault, row, &text, target);
                builder.append_null();
                continue;
            }
        };
        if value < min || value > max {
            let problem = format!("is not from {min} to {max}");
            target.fault(row, Code::ROW_OUT_OF_RANGE, &value.to_string(), &problem);
            builder.append_null();
            continue;
        }
        let rounded = (value * factor).round() / factor;
        let rounded = if rounded.is_finite() { rounded } else { value };
        if (rounded - value).abs() > f64::EPSILON * value.abs() * 4.0 {
            target.note(Note::RoundedDouble, || value.to_string());
        }
        // One zero: the service has no negative one.
        builder.append_value(rounded + 0.0);
    }
    Some(Arc::new(builder.finish()))
}

type Double = Result<Option<f64>, (NumberFault, String)>;

/// The number of one row. `None` if the input's type can never become one.
fn double(input: &Input, row: usize) -> Option<Double> {
    let whole = |value: i128| {
        if is_exact_in_double(value) { Ok(Some(value as f64)) } else { Err((NumberFault::TooFine, value.to_string())) }
    };
    let of_text = |text: &str| decimal::read_double(text).map(Some).map_err(|fault| (fault, text.to_owned()));
    Some(match input {
        Input::Null => Ok(None),
        Input::Integer(array) if array.is_valid(row) => whole(i128::from(array.value(row))),
        Input::Float(array) if array.is_valid(row) => match array.value(row) {
            value if value.is_finite() => Ok(Some(value)),
            value => Err((NumberFault::NotANumber, value.to_string())),
        },
        Input::Decimal(array, scale) if array.is_valid(row) => of_text(&decimal_text(array.value(row), *scale)),
        Input::Text(array) if array.is_valid(row) => match array.value(row).trim() {
            "" => Ok(None),
            text => of_text(text),
        },
        Input::Integer(_) | Input::Float(_) | Input::Decimal(..) | Input::Text(_) => Ok(None),
        Input::Boolean(_) | Input::Date(_) | Input::Instant(_) | Input::Local(_) => return None,
    })
}

/// A number of an answer, which the service wrote itself.
pub(crate) fn read_decimal(text: &str, scale: i8) -> Option<i128> {
    decimal::read_rounded(text, scale).ok()
}

fn parse_whole(text: &str) -> Result<i64, NumberFault> {
    match text.parse::<i64>() {
        Ok(number) => Ok(number),
        Err(_) => match decimal::read(text, WHOLE_SCALE) {
            Ok(value) => i64::try_from(value).map_err(|_| NumberFault::TooLarge),
            Err(NumberFault::TooFine) => Err(NumberFault::NotWhole),
            Err(fault) => Err(fault),
        },
    }
}

fn whole(value: i128, scale: i8) -> Result<i64, NumberFault> {
    let Ok(scale) = u32::try_from(scale) else {
        return i64::try_from(rescale(value, scale, 0)?).map_err(|_| NumberFault::TooLarge);
    };
    let unit = 10_i128.pow(scale.min(DIGITS_MAX));
    if value % unit != 0 {
        return Err(NumberFault::NotWhole);
    }
    i64::try_from(value / unit).map_err(|_| NumberFault::TooLarge)
}

/// The same number with another scale, if it has no decimals beyond that.
fn rescale(value: i128, from: i8, to: i8) -> Result<i128, NumberFault> {
    let steps = i32::from(to) - i32::from(from);
    let Some(factor) = 10_i128.checked_pow(steps.unsigned_abs()) else {
        return if value == 0 { Ok(0) } else { Err(NumberFault::TooLarge) };
    };
    if steps >= 0 {
        return value.checked_mul(factor).ok_or(NumberFault::TooLarge);
    }
    if value % factor == 0 { Ok(value / factor) } else { Err(NumberFault::TooFine) }
}

/// The decimal that a double is next to: `0.1 + 0.2` is 0.30 to two places, and 2.675 has three.
fn of_float(value: f64, scale: i8) -> Result<i128, NumberFault> {
    let text = float_text(value);
    match decimal::read(&text, scale) {
        Err(NumberFault::TooFine) => {}
        other => return other,
    }
    let rounded = decimal::read_rounded(&text, scale)?;
    let near: f64 = decimal_text(rounded, scale).parse().map_err(|_| NumberFault::NotANumber)?;
    // What arithmetic leaves behind: some units in the last of sixteen places.
    if (near - value).abs() <= f64::EPSILON * value.abs() * 8.0 { Ok(rounded) } else { Err(NumberFault::TooFine) }
}

fn scaled_bound(bound: f64, scale: i8) -> i128 {
    let unbounded = if bound < 0.0 { i128::MIN } else { i128::MAX };
    decimal::read_rounded(&float_text(bound), scale).unwrap_or(unbounded)
}

/// The shortest text that is this number, so that 0.1 is a tenth and not its binary neighbour.
fn float_text(value: f64) -> String {
    if value.is_finite() { ryu::Buffer::new().format_finite(value).to_owned() } else { value.to_string() }
}

/// `-12.50` for (-1250, 2).
pub(super) fn decimal_text(value: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else {
        return format!("{value}{}", "0".repeat(scale.unsigned_abs().into()));
    };
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_number_may_have_empty_decimals() {
        assert_eq!(parse_whole("5.00"), Ok(5));
        assert_eq!(parse_whole("5.5"), Err(NumberFault::NotWhole));
        assert_eq!(parse_whole("1.0000000000000001"), Err(NumberFault::NotWhole));
        assert_eq!(parse_whole("1e2"), Ok(100));
    }

    #[test]
    fn what_arithmetic_leaves_behind_is_no_decimal_and_what_was_written_is() {
        assert_eq!(of_float(0.1 + 0.2, 2), Ok(30));
        assert_eq!(of_float(2.675, 2), Err(NumberFault::TooFine));
        assert_eq!(of_float(1.0 / 3.0, 10), Err(NumberFault::TooFine));
        assert_eq!(of_float(f64::NAN, 2), Err(NumberFault::NotANumber));
    }

    proptest! {
        #[test]
        fn a_decimal_is_read_as_it_is_written(value in -10_i128.pow(30)..10_i128.pow(30), scale in 0_i8..8) {
            prop_assert_eq!(decimal::read(&decimal_text(value, scale), scale), Ok(value));
        }

        #[test]
        fn reading_and_rescaling_agree(value in -10_i128.pow(20)..10_i128.pow(20), from in 0_i8..8, to in 0_i8..8) {
            prop_assert_eq!(decimal::read(&decimal_text(value, from), to), rescale(value, from, to));
        }
    }
}
