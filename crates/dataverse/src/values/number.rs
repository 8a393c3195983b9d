//! Numbers: exact decimal arithmetic, rounded half away from zero.

use std::sync::Arc;

use arrow_array::builder::{Decimal128Builder, Float64Builder, Int32Builder, Int64Builder};
use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_schema::DataType;
use flowgate_core::Code;

use super::Target;
use super::input::Input;

/// The most digits a decimal holds.
const DIGITS_MAX: u32 = 38;

/// Scale at which a text is read to see whether it is whole.
const WHOLE_SCALE: i8 = 12;

/// Exponents beyond this are nonsense, not numbers.
const EXPONENT_MAX: i64 = 400;

/// Why a text is not the number wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberFault {
    NotANumber,
    NotWhole,
    TooLarge,
}

impl NumberFault {
    fn report(self, row: usize, value: &str, target: &mut Target<'_>) {
        match self {
            Self::NotANumber => target.fault(row, Code::ROW_NOT_A_NUMBER, value, "is not a number"),
            Self::NotWhole => target.fault(row, Code::ROW_NOT_A_NUMBER, value, "is not a whole number"),
            Self::TooLarge => target.fault(row, Code::ROW_OUT_OF_RANGE, value, "is beyond what the column holds"),
        }
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
                fault.report(row, &text, target);
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
                let text = float_text(array.value(row));
                parse_decimal(&text, scale).map_err(|fault| (fault, text))
            }
            Input::Text(array) if array.is_valid(row) && !array.value(row).trim().is_empty() => {
                let text = array.value(row).trim();
                parse_decimal(text, scale).map_err(|fault| (fault, text.to_owned()))
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
                fault.report(row, &text, target);
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
        let read = match input {
            Input::Null => None,
            Input::Integer(array) => array.is_valid(row).then(|| array.value(row) as f64),
            Input::Float(array) => array.is_valid(row).then(|| array.value(row)),
            Input::Decimal(array, scale) => {
                array.is_valid(row).then(|| decimal_text(array.value(row), *scale).parse().unwrap_or(f64::NAN))
            }
            Input::Text(array) => {
                let text = array.is_valid(row).then(|| array.value(row).trim()).filter(|text| !text.is_empty());
                text.map(|text| text.parse().unwrap_or(f64::NAN))
            }
            Input::Boolean(_) | Input::Date(_) | Input::Instant(_) | Input::Local(_) => return None,
        };
        let Some(value) = read else {
            builder.append_null();
            continue;
        };
        if !value.is_finite() {
            let shown = if let Input::Text(array) = input { array.value(row).to_owned() } else { value.to_string() };
            NumberFault::NotANumber.report(row, &shown, target);
            builder.append_null();
        } else if value < min || value > max {
            let problem = format!("is not from {min} to {max}");
            target.fault(row, Code::ROW_OUT_OF_RANGE, &value.to_string(), &problem);
            builder.append_null();
        } else {
            let rounded = (value * factor).round() / factor;
            // One zero: the service has no negative one.
            builder.append_value(if rounded.is_finite() { rounded + 0.0 } else { value });
        }
    }
    Some(Arc::new(builder.finish()))
}

/// Reads `text` as a number with `scale` decimals, rounding half away from zero.
pub(super) fn parse_decimal(text: &str, scale: i8) -> Result<i128, NumberFault> {
    let (is_negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i64>().map_err(|_| NumberFault::NotANumber)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || digits().any(|byte| !byte.is_ascii_digit()) {
        return Err(NumberFault::NotANumber);
    }
    if exponent.abs() > EXPONENT_MAX {
        return Err(NumberFault::TooLarge);
    }
    let kept = whole.len() as i64 + exponent + i64::from(scale);
    let mut value: i128 = 0;
    let mut rest = digits();
    for _ in 0..kept.max(0) {
        let digit = i128::from(rest.next().unwrap_or(b'0') - b'0');
        value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(NumberFault::TooLarge)?;
    }
    // Below -1 the first dropped digit is a zero that is not written.
    if kept >= 0 && rest.next().is_some_and(|digit| digit >= b'5') {
        value += 1;
    }
    if value >= 10_i128.pow(DIGITS_MAX) {
        return Err(NumberFault::TooLarge);
    }
    Ok(if is_negative { -value } else { value })
}

/// A number of an answer, which the service wrote itself.
pub(crate) fn read_decimal(text: &str, scale: i8) -> Option<i128> {
    parse_decimal(text, scale).ok()
}

fn parse_whole(text: &str) -> Result<i64, NumberFault> {
    match text.parse::<i64>() {
        Ok(number) => Ok(number),
        Err(_) => whole(parse_decimal(text, WHOLE_SCALE)?, WHOLE_SCALE),
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

/// The same number with another scale, rounded half away from zero.
fn rescale(value: i128, from: i8, to: i8) -> Result<i128, NumberFault> {
    let steps = i32::from(to) - i32::from(from);
    let factor = 10_i128.checked_pow(steps.unsigned_abs()).ok_or(NumberFault::TooLarge)?;
    if steps >= 0 {
        return value.checked_mul(factor).ok_or(NumberFault::TooLarge);
    }
    let half = if value < 0 { -(factor / 2) } else { factor / 2 };
    Ok(value.checked_add(half).ok_or(NumberFault::TooLarge)? / factor)
}

fn scaled_bound(bound: f64, scale: i8) -> i128 {
    let unbounded = if bound < 0.0 { i128::MIN } else { i128::MAX };
    parse_decimal(&float_text(bound), scale).unwrap_or(unbounded)
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
    fn halves_are_rounded_away_from_zero() {
        for (text, scale, value) in [
            ("2.675", 2, 268),
            ("-2.675", 2, -268),
            ("2.674999", 2, 267),
            ("0.5", 0, 1),
            ("-0.5", 0, -1),
            ("0.05", 0, 0),
            ("1e3", 2, 100_000),
            ("1.5E-1", 1, 2),
            ("5e-3", 2, 1),
            ("4e-3", 2, 0),
            (".5", 1, 5),
            ("5.", 1, 50),
        ] {
            assert_eq!(parse_decimal(text, scale), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", ".", "-", "1,000", "1 000", "0x10", "1e", "--1", "1.2.3", "٣", "inf", "NaN"] {
            assert_eq!(parse_decimal(text, 2), Err(NumberFault::NotANumber), "{text}");
        }
        assert_eq!(parse_decimal("1e39", 0), Err(NumberFault::TooLarge));
        assert_eq!(parse_decimal(&"9".repeat(40), 0), Err(NumberFault::TooLarge));
    }

    #[test]
    fn a_whole_number_may_have_empty_decimals() {
        assert_eq!(parse_whole("5.00"), Ok(5));
        assert_eq!(parse_whole("5.5"), Err(NumberFault::NotWhole));
        assert_eq!(parse_whole("1e2"), Ok(100));
    }

    proptest! {
        #[test]
        fn a_decimal_is_read_as_it_is_written(value in -10_i128.pow(30)..10_i128.pow(30), scale in 0_i8..8) {
            prop_assert_eq!(parse_decimal(&decimal_text(value, scale), scale), Ok(value));
        }

        #[test]
        fn reading_and_rescaling_round_alike(value in -10_i128.pow(20)..10_i128.pow(20), from in 0_i8..8, to in 0_i8..8) {
            prop_assert_eq!(parse_decimal(&decimal_text(value, from), to), rescale(value, from, to));
        }
    }
}
