//! The SQL types there are, reduced to the few that differ in meaning.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, TimeUnit};
use flowgate_core::{Code, ConnectorError, ErrorKind};

/// One column of prepared rows.
pub(super) enum Input {
    /// No value at all, of no type.
    Null,
    Text(StringArray),
    Integer(Int64Array),
    Decimal(Decimal128Array, i8),
    Float(Float64Array),
    Boolean(BooleanArray),
    Date(Date32Array),
    /// A moment.
    Instant(TimestampMicrosecondArray),
    /// What a clock on a wall shows, somewhere.
    Local(TimestampMicrosecondArray),
}

/// A column in the form that differs in meaning, and the rows whose values that form has no place for.
pub(super) struct Reduced {
    pub(super) values: Input,
    pub(super) beyond: Vec<usize>,
}

impl Input {
    /// `None` for types that hold nothing a column could store (lists, structs, bytes).
    pub(super) fn of(given: &ArrayRef) -> Result<Option<Reduced>, ConnectorError> {
        let Some(target) = reduced(given.data_type()) else { return Ok(None) };
        let array = floored(given);
        // A value beyond the target becomes null here, and a fault of its row below.
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let array = cast_with_options(&array, &target, &options).map_err(|error| {
            let message = format!("a value of SQL type `{}` cannot be read", given.data_type());
            ConnectorError::new(ErrorKind::Data, Code::TYPE_MISMATCH, message)
                .hint("cast the column in the SELECT")
                .caused_by(error)
        })?;
        let is_beyond = |row: &usize| given.is_valid(*row) && array.is_null(*row);
        let has_beyond = array.null_count() > given.logical_null_count();
        let beyond = if has_beyond { (0..given.len()).filter(is_beyond).collect() } else { Vec::new() };
        let values = match &target {
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive::<Decimal128Type>().clone(), *scale),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Timestamp(_, None) => Self::Local(array.as_primitive::<TimestampMicrosecondType>().clone()),
            DataType::Timestamp(_, Some(_)) => Self::Instant(array.as_primitive::<TimestampMicrosecondType>().clone()),
            _ => Self::Null,
        };
        Ok(Some(Reduced { values, beyond }))
    }
}

/// Nanoseconds cut down to microseconds, so that a moment before 1970 does not slip into the next second.
fn floored(array: &ArrayRef) -> ArrayRef {
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = array.data_type() else { return Arc::clone(array) };
    let nanoseconds = array.as_primitive::<TimestampNanosecondType>();
    let floored = nanoseconds.unary::<_, TimestampMicrosecondType>(|value| value.div_euclid(1_000));
    Arc::new(floored.with_timezone_opt(zone.clone()))
}

fn reduced(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Null => DataType::Null,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => reduced(values)?,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Date32 => DataType::Date32,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        _ => return None,
    })
}
