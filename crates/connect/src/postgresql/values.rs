//! PostgreSQL's types and binary values as Arrow columns.
//!
//! | PostgreSQL | Arrow |
//! |---|---|
//! | `boolean`, `smallint`, `integer`, `bigint`, `real`, `double precision` | the same |
//! | `numeric(p, s)` up to 38 digits | `Decimal128(p, s)` |
//! | `date` | `Date32` |
//! | `timestamp`, `timestamptz` | `Timestamp(Microsecond)`, the latter in UTC |
//! | `bytea` | text, hexadecimal digits |
//! | everything else (text, `numeric` without bounds, `uuid`, `json`, enums, arrays…) | text, as the server writes it |
//!
//! `infinity` and `NaN` have no place in dates, times and decimals: such a row is set aside.

use arrow_schema::{DataType, TimeUnit};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Error, Row};

use crate::columns::{ColumnBuilder, quote_identifier};

/// 2000-01-01, where PostgreSQL's dates begin, in days and microseconds of the Unix epoch.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Date,
    Timestamp,
    TimestampUtc,
    Bytes,
    Text,
    /// Anything that the server writes as text for us.
    Other,
}

impl ColumnType {
    /// By the name of a built-in type (empty for others) and its modifier.
    pub(crate) fn of(type_name: &str, modifier: i32) -> Self {
        match type_name {
            "bool" => Self::Boolean,
            "int2" => Self::Int16,
            "int4" => Self::Int32,
            "int8" => Self::Int64,
            "float4" => Self::Float32,
            "float8" => Self::Float64,
            "numeric" => decimal(modifier).unwrap_or(Self::Other),
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::TimestampUtc,
            "bytea" => Self::Bytes,
            "text" | "varchar" => Self::Text,
            _ => Self::Other,
        }
    }

    pub(crate) fn arrow_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampUtc => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::Bytes | Self::Text | Self::Other => DataType::Utf8,
        }
    }

    /// The SQL that selects a column in the form [`append`] reads.
    pub(crate) fn expression(self, column: &str) -> String {
        let column = quote_identifier(column);
        match self {
            Self::Decimal { .. } | Self::Other => format!("{column}::text"),
            Self::Bytes => format!("encode({column}, 'hex')"),
            _ => column,
        }
    }
}

/// The bounds of a `numeric`, packed into its modifier; `None` without bounds, or beyond 38 digits.
fn decimal(modifier: i32) -> Option<ColumnType> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = (packed >> 16) & 0xffff;
    // Eleven bits with a sign.
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    let fits = precision <= 38 && (0..=precision).contains(&scale);
    fits.then_some(ColumnType::Decimal { precision: precision as u8, scale: scale as i8 })
}

/// A value's bytes, whatever its type.
struct Raw<'r>(&'r [u8]);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Raw<'_> {
    /// The bytes as a number of a known width; zero bytes if the server sent another width.
    fn array<const WIDTH: usize>(&self) -> [u8; WIDTH] {
        self.0.try_into().unwrap_or([0; WIDTH])
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.0)
    }
}

/// Why a value cannot be held in its column, if it cannot.
pub(crate) fn problem(row: &Row, index: usize, column_type: ColumnType) -> Result<Option<String>, Error> {
    let Some(raw) = row.try_get::<_, Option<Raw<'_>>>(index)? else { return Ok(None) };
    let is_infinite = match column_type {
        ColumnType::Date => matches!(i32::from_be_bytes(raw.array()), i32::MAX | i32::MIN),
        ColumnType::Timestamp | ColumnType::TimestampUtc => {
            matches!(i64::from_be_bytes(raw.array()), i64::MAX | i64::MIN)
        }
        ColumnType::Decimal { scale, .. } if unscaled(&raw.text(), scale).is_none() => {
            return Ok(Some(format!("is `{}`", raw.text())));
        }
        _ => false,
    };
    Ok(is_infinite.then(|| "is infinite".to_owned()))
}

/// Appends a value that [`problem`] has nothing against.
pub(crate) fn append(
    builder: &mut ColumnBuilder,
    row: &Row,
    index: usize,
    column_type: ColumnType,
) -> Result<(), Error> {
    let Some(raw) = row.try_get::<_, Option<Raw<'_>>>(index)? else {
        builder.append_null();
        return Ok(());
    };
    match builder {
        ColumnBuilder::Boolean(builder) => builder.append_value(raw.0 == [1]),
        ColumnBuilder::Int16(builder) => builder.append_value(i16::from_be_bytes(raw.array())),
        ColumnBuilder::Int32(builder) => builder.append_value(i32::from_be_bytes(raw.array())),
        ColumnBuilder::Int64(builder) => builder.append_value(i64::from_be_bytes(raw.array())),
        ColumnBuilder::Float32(builder) => builder.append_value(f32::from_be_bytes(raw.array())),
        ColumnBuilder::Float64(builder) => builder.append_value(f64::from_be_bytes(raw.array())),
        ColumnBuilder::Date(builder) => {
            builder.append_value(i32::from_be_bytes(raw.array()).saturating_add(EPOCH_DAYS));
        }
        ColumnBuilder::Timestamp(builder) => {
            builder.append_value(i64::from_be_bytes(raw.array()).saturating_add(EPOCH_MICROSECONDS));
        }
        ColumnBuilder::Decimal(builder) => {
            let scale = if let ColumnType::Decimal { scale, .. } = column_type { scale } else { 0 };
            builder.append_option(unscaled(&raw.text(), scale));
        }
        ColumnBuilder::Utf8(builder) => builder.append_value(raw.text()),
    }
    Ok(())
}

/// `-12.5` at scale 2 is -1250. `None` for what is not a plain number of at most that scale.
fn unscaled(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    let mut digits = String::with_capacity(text.len() + missing);
    digits.push_str(whole);
    digits.push_str(fraction);
    digits.extend(std::iter::repeat_n('0', missing));
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_numbers_are_unpacked() {
        let packed = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(ColumnType::of("numeric", packed(10, 2)), ColumnType::Decimal { precision: 10, scale: 2 });
        assert_eq!(ColumnType::of("numeric", packed(39, 2)), ColumnType::Other);
        assert_eq!(ColumnType::of("numeric", packed(5, -2)), ColumnType::Other);
        assert_eq!(ColumnType::of("numeric", -1), ColumnType::Other);
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(unscaled("-12.5", 2), Some(-1250));
        assert_eq!(unscaled("7", 0), Some(7));
        assert_eq!(unscaled("-0.05", 2), Some(-5));
        assert_eq!(unscaled("NaN", 2), None);
        assert_eq!(unscaled("1.234", 2), None);
    }
}
