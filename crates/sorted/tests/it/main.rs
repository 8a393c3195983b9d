//! Spilled buckets, merges and states against naive models of them.

#![expect(clippy::unwrap_used, reason = "in a test, a step that fails is a test that fails")]

mod arrivals;
mod known;
mod spill;
mod state;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray,
};
use flowgate_core::KeyHash;

/// A key for a small number, anywhere in the range of hashes.
fn key(number: u64) -> KeyHash {
    KeyHash(u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

/// Rows of the types that states hold, one for each number; some values are null.
fn rows(numbers: &[u64]) -> RecordBatch {
    let signed = || numbers.iter().map(|number| *number as i64);
    let text = |number: &u64| (!number.is_multiple_of(3)).then(|| format!("text {number}"));
    let amounts: Decimal128Array = signed().map(|number| Some(i128::from(number) * 25)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("number", Arc::new(signed().collect::<Int64Array>())),
        ("text", Arc::new(numbers.iter().map(text).collect::<StringArray>())),
        ("is_even", Arc::new(signed().map(|number| Some(number % 2 == 0)).collect::<BooleanArray>())),
        ("amount", Arc::new(amounts.with_precision_and_scale(38, 2).unwrap())),
        ("time", Arc::new(signed().map(|number| Some(number * 60)).collect::<TimestampSecondArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}
