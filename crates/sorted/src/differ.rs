//! Which columns of two rows differ.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ord::ord::{DynComparator, make_comparator};
use arrow_schema::{DataType, SortOptions};
use flowgate_core::destination::ColumnSet;

use crate::SortedError;

/// Compares rows of two batches that have the same columns. Made once, for many pairs.
///
/// Two nulls are equal. Of floats the two zeros are equal, and so are all that are not a number,
/// as in the row hash.
pub struct ColumnComparer {
    columns: Vec<DynComparator>,
}

impl ColumnComparer {
    pub fn new(left: &RecordBatch, right: &RecordBatch) -> Result<Self, SortedError> {
        if left.num_columns() != right.num_columns() {
            return Err(SortedError::Misused("rows with different columns cannot be compared"));
        }
        let pairs = left.columns().iter().zip(right.columns());
        Ok(Self { columns: pairs.map(|(left, right)| comparator(left, right)).collect::<Result<_, _>>()? })
    }

    /// The columns in which row `left` of the one and row `right` of the other differ.
    pub fn differing(&self, left: usize, right: usize) -> ColumnSet {
        let columns = self.columns.iter().enumerate();
        columns.filter(|(_, compare)| compare(left, right) != Ordering::Equal).map(|(index, _)| index).collect()
    }
}

impl std::fmt::Debug for ColumnComparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ColumnComparer({} columns)", self.columns.len())
    }
}

fn comparator(left: &ArrayRef, right: &ArrayRef) -> Result<DynComparator, SortedError> {
    if *left.data_type() == DataType::Float64 && *right.data_type() == DataType::Float64 {
        return Ok(float_comparator(left, right));
    }
    make_comparator(left, right, SortOptions::default()).map_err(SortedError::arrow("comparing columns"))
}

/// Arrow's own order tells the two zeros apart.
fn float_comparator(left: &ArrayRef, right: &ArrayRef) -> DynComparator {
    let left = left.as_primitive::<Float64Type>().clone();
    let right = right.as_primitive::<Float64Type>().clone();
    Box::new(move |left_row, right_row| {
        let left = left.is_valid(left_row).then(|| left.value(left_row) + 0.0);
        let right = right.is_valid(right_row).then(|| right.value(right_row) + 0.0);
        match (left, right) {
            (Some(left), Some(right)) if left.is_nan() && right.is_nan() => Ordering::Equal,
            (Some(left), Some(right)) => left.total_cmp(&right),
            (left, right) => left.is_some().cmp(&right.is_some()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, Int32Array, StringArray};

    use super::*;

    fn batch(number: Option<i32>, text: Option<&str>, float: f64) -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("number", Arc::new(Int32Array::from(vec![None, number]))),
            ("text", Arc::new(StringArray::from(vec![None, text]))),
            ("float", Arc::new(Float64Array::from(vec![None, Some(float)]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn differing_columns_are_named() {
        let comparer = ColumnComparer::new(&batch(Some(1), None, 0.0), &batch(Some(2), Some("x"), -0.0)).unwrap();
        assert_eq!(comparer.differing(1, 1).iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(comparer.differing(0, 0).iter().count(), 0, "nulls are equal");
        assert_eq!(comparer.differing(0, 1).iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn no_number_equals_no_number() {
        let comparer = ColumnComparer::new(&batch(None, None, f64::NAN), &batch(None, None, -f64::NAN)).unwrap();
        assert_eq!(comparer.differing(1, 1).iter().count(), 0);
    }

    #[test]
    fn other_columns_are_refused() {
        let one = batch(None, None, 0.0);
        assert!(ColumnComparer::new(&one, &one.project(&[0]).unwrap()).is_err());
        assert!(ColumnComparer::new(&one, &one.project(&[1, 0, 2]).unwrap()).is_err());
    }
}
