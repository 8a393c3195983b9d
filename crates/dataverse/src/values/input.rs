//! The SQL types there are, reduced to the few that differ in meaning.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
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

impl Input {
    /// `None` for types that hold nothing a column could store (lists, structs, bytes).
    pub(super) fn of(array: &ArrayRef) -> Result<Option<Self>, ConnectorError> {
        let Some(target) = reduced(array.data_type()) else { return Ok(None) };
        // Not the lossy default: a value beyond the target must not become null in silence.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(array, &target, &options).map_err(|error| {
            let message = format!("a value of SQL type `{}` cannot be read", array.data_type());
            ConnectorError::new(ErrorKind::Data, Code::TYPE_MISMATCH, message)
                .hint("cast the column in the SELECT")
                .caused_by(error)
        })?;
        Ok(Some(match &target {
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive::<Decimal128Type>().clone(), *scale),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Timestamp(_, None) => Self::Local(array.as_primitive::<TimestampMicrosecondType>().clone()),
            DataType::Timestamp(_, Some(_)) => Self::Instant(array.as_primitive::<TimestampMicrosecondType>().clone()),
            _ => Self::Null,
        }))
    }
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
