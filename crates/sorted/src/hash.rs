//! Keys and rows to hashes.
//!
//! A row hash is made column by column over canonical rows (core's module `shape`): first the names,
//! because a value that moves to another column is a change; then each value by XXH3-64, seeded with
//! its type so that `1` and `'1'` differ, nulls apart from any value, and the columns folded together
//! in their order. It is compared only between rows of one key, so a change goes unseen with a chance
//! of 5e-20. The hashes are stored: the recipe never changes.
//!
//! A key hash folds text as the destination compares it ([`flowgate_core::key`]).

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type, Int64Type};
use arrow_array::{
    Array, ArrayAccessor, ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray,
};
use arrow_buffer::NullBuffer;
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use flowgate_core::KeyHash;
use flowgate_core::key::KeyHasher;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::SortedError;

/// Seeds by type. Stored hashes depend on them.
mod seed {
    pub(super) const NAME: u64 = 0;
    pub(super) const NULL: u64 = 1;
    pub(super) const BOOLEAN: u64 = 2;
    pub(super) const INTEGER: u64 = 3;
    pub(super) const FLOAT: u64 = 4;
    pub(super) const TEXT: u64 = 5;
    pub(super) const DATE: u64 = 6;
    pub(super) const TIMESTAMP_SECOND: u64 = 16;
    pub(super) const TIMESTAMP_MILLISECOND: u64 = 17;
    pub(super) const TIMESTAMP_MICROSECOND: u64 = 18;
    pub(super) const TIMESTAMP_NANOSECOND: u64 = 19;
    /// Plus the scale, which may be negative.
    pub(super) const DECIMAL: u64 = 512;
}

/// Where every row hash begins, and the multiplier of [`fold`]: odd, otherwise arbitrary.
const START: u64 = 0x9E37_79B9_7F4A_7C15;

/// One hash a row, over all columns of `rows` in their order. `seed` stands for all else that makes
/// another row of the same values.
pub fn row_hashes(rows: &RecordBatch, seed: u64) -> Result<Vec<u64>, SortedError> {
    let names = rows.schema_ref().fields().iter();
    let start =
        names.fold(START ^ seed, |hash, field| fold(hash, xxh3_64_with_seed(field.name().as_bytes(), seed::NAME)));
    let mut hashes = vec![start; rows.num_rows()];
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let column = Plain::of(field.name(), column)?;
        let hash = |bytes: &[u8]| xxh3_64_with_seed(bytes, column.seed);
        let hashes = hashes.as_mut_slice();
        match column.values {
            Values::Text(array) => fold_column(hashes, &array, |text| hash(text.as_bytes())),
            Values::Boolean(array) => fold_column(hashes, &array, |value| hash(&[u8::from(value)])),
            Values::Number(array) => fold_column(hashes, &array, |value| hash(&value.to_le_bytes())),
            Values::Decimal(array) => fold_column(hashes, &array, |value| hash(&value.to_le_bytes())),
        }
    }
    Ok(hashes)
}

fn fold_column<A: ArrayAccessor + Copy>(hashes: &mut [u64], array: A, hash: impl Fn(A::Item) -> u64) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (row, slot) in hashes.iter_mut().enumerate() {
                *slot = fold(*slot, hash(array.value(row)));
            }
        }
        Some(nulls) => {
            for (row, slot) in hashes.iter_mut().enumerate() {
                *slot = fold(*slot, if nulls.is_valid(row) { hash(array.value(row)) } else { seed::NULL });
            }
        }
    }
}

/// Folds one column's hash into a row's. With either fixed it is a bijection of the other: rows
/// that differ in one column collide only where that column's hashes do.
fn fold(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(START);
    mixed ^ (mixed >> 32)
}

/// The key of each row of `keys`, whose columns are the match columns in their order; `None` where
/// a part is null.
pub fn key_hashes(keys: &RecordBatch) -> Result<Vec<Option<KeyHash>>, SortedError> {
    let mut columns = Vec::new();
    for (field, column) in keys.schema_ref().fields().iter().zip(keys.columns()) {
        columns.push(Plain::of(field.name(), column)?);
    }
    let nulls = columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()));
    let mut hasher = KeyHasher::new();
    let mut hashes = Vec::with_capacity(keys.num_rows());
    for row in 0..keys.num_rows() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            hashes.push(None);
            continue;
        }
        // Blanks at the end do not count, so a text of blanks alone is an empty one.
        if columns.iter().any(|column| column.is_blank(row)) {
            hashes.push(None);
            continue;
        }
        for column in &columns {
            column.add_to_key(row, &mut hasher);
        }
        hashes.push(Some(hasher.finish()));
    }
    Ok(hashes)
}

/// An order-free sum over rows: two sides with the same rows have the same one.
pub fn fingerprint(keys: &[KeyHash], row_hashes: &[u64]) -> u64 {
    let mut sum: u64 = 0;
    for (key, row_hash) in keys.iter().zip(row_hashes) {
        sum = sum.wrapping_add(xxh3_64_with_seed(&key.0.to_le_bytes(), *row_hash));
    }
    sum
}

/// A column in one of the few forms that are hashed.
struct Plain {
    seed: u64,
    values: Values,
}

enum Values {
    Text(StringArray),
    Boolean(BooleanArray),
    /// Integers, and what is stored as one: dates, times, the bits of floats.
    Number(Int64Array),
    Decimal(Decimal128Array),
}

impl Plain {
    fn of(name: &str, column: &ArrayRef) -> Result<Self, SortedError> {
        let unsupported =
            || SortedError::UnsupportedType { column: name.to_owned(), data_type: column.data_type().clone() };
        let (seed, values) = match column.data_type() {
            DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                (seed::TEXT, Values::Text(cast_to(column, &DataType::Utf8)?.as_string().clone()))
            }
            DataType::Boolean => (seed::BOOLEAN, Values::Boolean(column.as_boolean().clone())),
            DataType::UInt64 => (seed::DECIMAL, decimal(column, 0)?),
            data_type if data_type.is_integer() => (seed::INTEGER, number(column)?),
            DataType::Float32 | DataType::Float64 => (seed::FLOAT, float_bits(column)?),
            DataType::Date32 => {
                let days = column.as_primitive::<Date32Type>().unary::<_, Int64Type>(i64::from);
                (seed::DATE, Values::Number(days))
            }
            DataType::Timestamp(unit, _) => (timestamp_seed(*unit), number(column)?),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                (seed::DECIMAL.wrapping_add_signed(i64::from(*scale)), decimal(column, *scale)?)
            }
            DataType::Dictionary(_, data_type) => return Self::of(name, &cast_to(column, data_type)?),
            _ => return Err(unsupported()),
        };
        Ok(Self { seed, values })
    }

    fn nulls(&self) -> Option<&NullBuffer> {
        match &self.values {
            Values::Text(array) => array.nulls(),
            Values::Boolean(array) => array.nulls(),
            Values::Number(array) => array.nulls(),
            Values::Decimal(array) => array.nulls(),
        }
    }

    /// Whether the value is a text without a character that counts in a key.
    fn is_blank(&self, row: usize) -> bool {
        matches!(&self.values, Values::Text(texts) if texts.value(row).trim_end_matches(' ').is_empty())
    }

    /// Adds the value of `row`, which is not null.
    fn add_to_key(&self, row: usize, hasher: &mut KeyHasher) {
        match &self.values {
            Values::Text(array) => hasher.text(array.value(row)),
            Values::Boolean(array) => hasher.bytes(&[u8::from(array.value(row))]),
            Values::Number(array) => hasher.bytes(&array.value(row).to_le_bytes()),
            Values::Decimal(array) => hasher.bytes(&array.value(row).to_le_bytes()),
        };
    }
}

fn cast_to(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, SortedError> {
    if column.data_type() == data_type {
        return Ok(ArrayRef::clone(column));
    }
    cast(column, data_type).map_err(hashing_failed)
}

fn number(column: &ArrayRef) -> Result<Values, SortedError> {
    Ok(Values::Number(cast_to(column, &DataType::Int64)?.as_primitive().clone()))
}

fn decimal(column: &ArrayRef, scale: i8) -> Result<Values, SortedError> {
    Ok(Values::Decimal(cast_to(column, &DataType::Decimal128(38, scale))?.as_primitive().clone()))
}

/// The bits of each float; the two zeros are one, and so are all that are not a number.
fn float_bits(column: &ArrayRef) -> Result<Values, SortedError> {
    let floats = cast_to(column, &DataType::Float64)?;
    let bits = floats.as_primitive::<Float64Type>().unary::<_, Int64Type>(|value| {
        let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
        value.to_bits() as i64
    });
    Ok(Values::Number(bits))
}

fn timestamp_seed(unit: TimeUnit) -> u64 {
    match unit {
        TimeUnit::Second => seed::TIMESTAMP_SECOND,
        TimeUnit::Millisecond => seed::TIMESTAMP_MILLISECOND,
        TimeUnit::Microsecond => seed::TIMESTAMP_MICROSECOND,
        TimeUnit::Nanosecond => seed::TIMESTAMP_NANOSECOND,
    }
}

fn hashing_failed(source: ArrowError) -> SortedError {
    SortedError::Arrow { doing: "hashing a column", source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, Int32Array, StringViewArray};

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let names = (0..columns.len()).map(|index| format!("c{index}"));
        RecordBatch::try_from_iter(names.zip(columns)).unwrap()
    }

    #[test]
    fn stored_hashes_keep_their_values() {
        let rows = batch(vec![
            Arc::new(Int32Array::from(vec![Some(7), None])),
            Arc::new(StringArray::from(vec![Some("pothole"), Some("")])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(38, 2).unwrap()),
        ]);
        // Numbers that a changed recipe would break: then every stored row would look changed.
        assert_eq!(row_hashes(&rows, 0).unwrap(), [18_306_697_441_193_841_704, 7_229_784_519_754_798_129]);
    }

    #[test]
    fn a_fingerprint_is_free_of_order_and_of_nothing_else() {
        let [one, two] = [KeyHash(1), KeyHash(2)];
        assert_eq!(fingerprint(&[one, two], &[3, 4]), fingerprint(&[two, one], &[4, 3]));
        assert_ne!(fingerprint(&[one, two], &[3, 4]), fingerprint(&[one, two], &[4, 3]));
    }

    #[test]
    fn types_nulls_order_and_neighbours_are_told_apart() {
        let hash = |columns| row_hashes(&batch(columns), 0).unwrap()[0];
        let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let whole = |value| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
        let hashes = [
            hash(vec![text(Some("1"))]),
            hash(vec![whole(1)]),
            hash(vec![text(None)]),
            hash(vec![text(Some(""))]),
            hash(vec![text(Some("a")), text(Some("b"))]),
            hash(vec![text(Some("b")), text(Some("a"))]),
            hash(vec![text(Some("ab")), text(Some(""))]),
            hash(vec![text(Some("ab")), text(None)]),
        ];
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn both_zeros_are_one_value() {
        let zeros = batch(vec![Arc::new(Float64Array::from(vec![0.0, -0.0]))]);
        let hashes = row_hashes(&zeros, 0).unwrap();
        assert_eq!(hashes[0], hashes[1]);
    }

    #[test]
    fn keys_are_those_of_core() {
        let keys = batch(vec![
            Arc::new(StringViewArray::from(vec![Some("Škoda-1 "), Some("x"), None])),
            Arc::new(Int32Array::from(vec![Some(5), None, Some(1)])),
        ]);
        let expected = KeyHasher::new().text("škoda-1").bytes(&5_i64.to_le_bytes()).finish();
        assert_eq!(key_hashes(&keys).unwrap(), [Some(expected), None, None]);
    }
}
