//! One JSON value into one typed cell, under the rules of its column.
//!
//! Promise: what comes out is what a read gives back: decimals at the column's precision, whole
//! seconds, lower-case GUIDs, `''` as null. Left out: rules between columns.

use std::borrow::Cow;

use uuid::Uuid;

use super::time::{invalid_time, parse_time};
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind, DateBehavior, Opt, Schema, Table};
use crate::storage::Value;

/// A JSON scalar before its column is known to accept it.
#[derive(Clone, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A number as it was written, for columns of exact arithmetic.
    Number(&'a str),
    Text(Cow<'a, str>),
}

/// What decides how strictly values and the names of rows are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueRules {
    /// Literals of queries and addresses are texts, whatever their column.
    pub(crate) is_query: bool,
    pub(crate) round_decimals: bool,
    pub(crate) drop_sub_seconds: bool,
    pub(crate) big_integer_texts: bool,
    /// Rows of bulk messages may be named by keys that an address cannot carry.
    pub(crate) any_key_text: bool,
}

impl ValueRules {
    pub(crate) const QUERY: Self = Self {
        is_query: true,
        round_decimals: true,
        drop_sub_seconds: true,
        big_integer_texts: true,
        any_key_text: false,
    };
}

/// Most selections of a multi-select column.
const SELECTIONS_MAX: usize = 150;
/// 10^10: the scale of stored decimals.
const SCALE: i128 = 10_000_000_000;

/// Converts a value for a column. `None` clears it.
pub(crate) fn convert(
    schema: &Schema,
    table: &Table,
    column: &Column,
    scalar: Scalar<'_>,
    rules: ValueRules,
) -> Result<Option<Value>, ApiError> {
    if matches!(scalar, Scalar::Null) {
        return Ok(None);
    }
    match &column.kind {
        ColumnKind::Text { max, .. } | ColumnKind::Memo { max } => text(table, column, scalar, *max as usize),
        ColumnKind::Integer { min, max, .. } => {
            let number = integer(table, column, &scalar)?;
            if number < *min || number > *max {
                return Err(out_of_range(Code::IntegerValueOutOfRange, table, column, *min, *max));
            }
            Ok(Some(Value::Int(number)))
        }
        ColumnKind::BigInt if matches!(scalar, Scalar::Text(_)) && !rules.big_integer_texts => {
            Err(cannot_convert(table, column, &scalar))
        }
        ColumnKind::BigInt => integer(table, column, &scalar).map(|number| Some(Value::Int(number))),
        ColumnKind::Decimal { min, max, precision } => {
            decimal((table, column), &scalar, (*min, *max), *precision, Code::DecimalValueOutOfRange, rules).map(Some)
        }
        ColumnKind::Money { min, max, precision, .. } => {
            decimal((table, column), &scalar, (*min, *max), *precision, Code::MoneySizeExceeded, rules).map(Some)
        }
        ColumnKind::Double { min, max, precision } => {
            double(table, column, &scalar, (*min, *max), *precision).map(Some)
        }
        ColumnKind::Boolean { .. } => boolean(table, column, &scalar, rules.is_query).map(Some),
        ColumnKind::DateTime { behavior, .. } => time(table, column, &scalar, *behavior, rules).map(Some),
        ColumnKind::Choice { set } | ColumnKind::Status { set } => {
            choice(table, column, &scalar, &set.options).map(Some)
        }
        ColumnKind::State { states } => {
            let number = integer(table, column, &scalar)?;
            let known = states.iter().any(|state| i64::from(state.value) == number);
            if known { Ok(Some(Value::Int(number))) } else { Err(unknown_option(table, column, number)) }
        }
        ColumnKind::Choices { set } => choices(table, column, &scalar, &set.options),
        ColumnKind::Guid => guid(table, column, &scalar).map(|id| Some(Value::Guid(id))),
        ColumnKind::EntityName => entity_name(schema, table, column, &scalar),
        ColumnKind::Lookup { .. }
        | ColumnKind::File { .. }
        | ColumnKind::Image { .. }
        | ColumnKind::PartyList { .. } => Err(cannot_convert(table, column, &scalar)),
    }
}

/// The error of a value that is not of its column's type.
fn cannot_convert(table: &Table, column: &Column, found: &Scalar<'_>) -> ApiError {
    let literal = match found {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Number(text) => (*text).to_owned(),
        Scalar::Text(text) => text.chars().take(LITERAL_CHARACTERS_MAX).collect(),
    };
    let inner = format!(
        "Microsoft.OData.ODataException: Cannot convert the literal '{literal}' to the expected type '{}'. (Property '{}'.)",
        column.kind.edm_type(),
        column.logical
    );
    ApiError::payload(&table.set_name, inner)
}

/// How much of a value a refusal repeats.
const LITERAL_CHARACTERS_MAX: usize = 200;

fn text(table: &Table, column: &Column, scalar: Scalar<'_>, max: usize) -> Result<Option<Value>, ApiError> {
    let Scalar::Text(text) = scalar else {
        return Err(cannot_convert(table, column, &scalar));
    };
    if text.is_empty() {
        return Ok(None);
    }
    // Lengths count UTF-16 units, of which there are never more than bytes.
    if text.len() > max && text.encode_utf16().count() > max {
        return Err(ApiError::new(
            Code::StringLengthTooLong,
            format!(
                "A validation error occurred.  The length of the '{}' attribute of the '{}' entity exceeded the maximum \
                 allowed length of '{max}'.",
                column.logical, table.logical
            ),
        ));
    }
    if text.chars().any(is_forbidden) {
        return Err(ApiError::new(
            Code::InvalidCharactersInField,
            format!("Invalid character in field '{}': a character is not allowed in XML 1.0.", column.logical),
        ));
    }
    Ok(Some(Value::Text(text.into())))
}

/// Characters that XML 1.0 cannot hold.
fn is_forbidden(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

fn integer(table: &Table, column: &Column, scalar: &Scalar<'_>) -> Result<i64, ApiError> {
    let parsed = match scalar {
        Scalar::Int(number) => Some(*number),
        // Numbers that are whole may be written with a point.
        Scalar::Float(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Some(*number as i64),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Number(text) => text.parse().ok(),
        Scalar::Float(_) | Scalar::Bool(_) | Scalar::Null => None,
    };
    parsed.ok_or_else(|| cannot_convert(table, column, scalar))
}

fn out_of_range(
    code: Code,
    table: &Table,
    column: &Column,
    min: impl std::fmt::Display,
    max: impl std::fmt::Display,
) -> ApiError {
    ApiError::new(
        code,
        format!(
            "A validation error occurred.  The value of '{}' on record of type '{}' is outside the valid range of {min} to {max}.",
            column.logical, table.logical
        ),
    )
}

fn unknown_option(table: &Table, column: &Column, number: i64) -> ApiError {
    ApiError::new(
        Code::PicklistValueOutOfRange,
        format!(
            "A validation error occurred. The value {number} of '{}' on record of type '{}' is outside the valid range. \
             Accepted Values: see the options of the column.",
            column.logical, table.logical
        ),
    )
}

/// Parses a decimal number, with or without exponent, to an integer scaled by 10^10, and tells
/// whether digits were lost.
pub(crate) fn parse_decimal(text: &str) -> Option<(i128, bool)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, i64::from(text.get(at + 1..)?.parse::<i32>().ok()?)),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: String = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut shift = 10 + exponent - i64::try_from(fraction.len()).ok()?;
    let mut value: i128 = 0;
    let mut lost = false;
    for digit in all.bytes() {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    // Nothing stays nothing, whatever its exponent.
    while shift > 0 && value != 0 {
        value = value.checked_mul(10)?;
        shift -= 1;
    }
    if shift < 0 {
        let places = u32::try_from(shift.unsigned_abs()).unwrap_or(u32::MAX);
        let divisor = 10i128.checked_pow(places).unwrap_or(i128::MAX);
        lost = value % divisor != 0;
        value = divide_rounded(value, divisor);
    }
    Some((if negative { -value } else { value }, lost))
}

/// Half away from zero.
fn divide_rounded(value: i128, divisor: i128) -> i128 {
    let half = divisor / 2;
    if value >= 0 { (value + half) / divisor } else { (value - half) / divisor }
}

/// Rounds a scaled decimal to a number of places.
pub(super) fn round_to(value: i128, places: u8) -> i128 {
    let unit = 10i128.pow(10u32.saturating_sub(u32::from(places)));
    divide_rounded(value, unit) * unit
}

fn number_text(table: &Table, column: &Column, scalar: &Scalar<'_>) -> Result<String, ApiError> {
    match scalar {
        Scalar::Number(text) => Ok((*text).to_owned()),
        Scalar::Text(text) => Ok(text.to_string()),
        Scalar::Int(number) => Ok(number.to_string()),
        Scalar::Float(number) => Ok(number.to_string()),
        Scalar::Bool(_) | Scalar::Null => Err(cannot_convert(table, column, scalar)),
    }
}

fn decimal(
    (table, column): (&Table, &Column),
    scalar: &Scalar<'_>,
    (min, max): (f64, f64),
    precision: u8,
    code: Code,
    rules: ValueRules,
) -> Result<Value, ApiError> {
    let text = number_text(table, column, scalar)?;
    let range = || out_of_range(code, table, column, min, max);
    let valid = text.parse::<f64>().map_err(|_| cannot_convert(table, column, scalar))?;
    if valid < min || valid > max {
        return Err(range());
    }
    let (value, is_cut) = parse_decimal(&text).ok_or_else(range)?;
    let rounded = round_to(value, precision);
    if !rules.round_decimals && (is_cut || rounded != value) {
        return Err(range());
    }
    Ok(Value::Decimal(rounded))
}

fn double(
    table: &Table,
    column: &Column,
    scalar: &Scalar<'_>,
    (min, max): (f64, f64),
    precision: u8,
) -> Result<Value, ApiError> {
    let text = number_text(table, column, scalar)?;
    let value = text.parse::<f64>().map_err(|_| cannot_convert(table, column, scalar))?;
    if !value.is_finite() || value < min || value > max {
        return Err(out_of_range(Code::DecimalValueOutOfRange, table, column, min, max));
    }
    let unit = 10f64.powi(i32::from(precision));
    let scaled = value * unit;
    Ok(Value::Double(if scaled.is_finite() { scaled.round() / unit } else { value }))
}

fn boolean(table: &Table, column: &Column, scalar: &Scalar<'_>, is_query: bool) -> Result<Value, ApiError> {
    match scalar {
        Scalar::Bool(value) => Ok(Value::Int(i64::from(*value))),
        Scalar::Text(text) if is_query && text.eq_ignore_ascii_case("true") => Ok(Value::Int(1)),
        Scalar::Text(text) if is_query && text.eq_ignore_ascii_case("false") => Ok(Value::Int(0)),
        _ => Err(cannot_convert(table, column, scalar)),
    }
}

fn time(
    table: &Table,
    column: &Column,
    scalar: &Scalar<'_>,
    behavior: DateBehavior,
    rules: ValueRules,
) -> Result<Value, ApiError> {
    let Scalar::Text(text) = scalar else {
        return Err(cannot_convert(table, column, scalar));
    };
    let seconds = parse_time(text)?;
    if !rules.drop_sub_seconds && text.contains('.') {
        return Err(invalid_time());
    }
    // A date-only column takes a date, nothing more.
    if behavior == DateBehavior::DateOnly && text.trim().len() != 10 {
        return Err(invalid_time());
    }
    Ok(Value::Time(seconds))
}

fn choice(table: &Table, column: &Column, scalar: &Scalar<'_>, options: &[Opt]) -> Result<Value, ApiError> {
    let number = match scalar {
        // A label is not a value; a numeric string is not one either.
        Scalar::Text(text) if text.parse::<i32>().is_err() => {
            return Err(cannot_convert(table, column, scalar));
        }
        other => integer(table, column, other)?,
    };
    if options.iter().any(|option| i64::from(option.value) == number) {
        Ok(Value::Int(number))
    } else {
        Err(unknown_option(table, column, number))
    }
}

fn choices(table: &Table, column: &Column, scalar: &Scalar<'_>, options: &[Opt]) -> Result<Option<Value>, ApiError> {
    let Scalar::Text(text) = scalar else {
        return Err(cannot_convert(table, column, scalar));
    };
    let mut selected = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number: i32 = part.parse().map_err(|_| cannot_convert(table, column, scalar))?;
        if !options.iter().any(|option| option.value == number) {
            return Err(unknown_option(table, column, i64::from(number)));
        }
        selected.push(number);
    }
    if selected.len() > SELECTIONS_MAX {
        return Err(ApiError::new(
            Code::TooManySelections,
            format!("The attribute '{}' holds more than {SELECTIONS_MAX} selections.", column.logical),
        ));
    }
    selected.sort_unstable();
    selected.dedup();
    Ok((!selected.is_empty()).then(|| Value::Choices(selected.into())))
}

fn guid(table: &Table, column: &Column, scalar: &Scalar<'_>) -> Result<Uuid, ApiError> {
    match scalar {
        Scalar::Text(text) => Uuid::parse_str(text).map_err(|_| cannot_convert(table, column, scalar)),
        _ => Err(cannot_convert(table, column, scalar)),
    }
}

fn entity_name(
    schema: &Schema,
    table: &Table,
    column: &Column,
    scalar: &Scalar<'_>,
) -> Result<Option<Value>, ApiError> {
    let Scalar::Text(text) = scalar else {
        return Err(cannot_convert(table, column, scalar));
    };
    if schema.by_logical(text).is_none() {
        return Err(ApiError::new(
            Code::InvalidEntityLogicalName,
            format!("The entity with a name = '{text}' was not found."),
        ));
    }
    Ok(Some(Value::Text(text.as_ref().into())))
}

/// The scale of stored decimals, for arithmetic with them.
pub(super) const fn decimal_scale() -> i128 {
    SCALE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(parse_decimal("125.5"), Some((1_255_000_000_000, false)));
        assert_eq!(parse_decimal("-0.0000000001"), Some((-1, false)));
        assert_eq!(parse_decimal("1e3"), Some((10_000_000_000_000, false)));
        assert_eq!(parse_decimal("0e2147483647"), Some((0, false)));
        assert_eq!(parse_decimal("0.0e-2147483648"), Some((0, false)));
        assert_eq!(parse_decimal("1e2147483647"), None);
        assert_eq!(parse_decimal("1e-2147483648"), Some((0, true)));
        assert_eq!(parse_decimal("0.00000000015"), Some((2, true)));
        assert_eq!(parse_decimal("1.2.3"), None);
        assert_eq!(parse_decimal("."), None);
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let of = |text| parse_decimal(text).unwrap().0;
        assert_eq!(round_to(of("1.005"), 2), of("1.01"));
        assert_eq!(round_to(of("-1.005"), 2), of("-1.01"));
        assert_eq!(round_to(of("1.004"), 2), of("1.00"));
    }
}
