//! Sums, averages, extremes and counts: what every aggregating query language adds up with.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::eval::compare;
use super::json::write_value;
use crate::error::{ApiError, Code};
use crate::schema::{Column, ColumnKind};
use crate::storage::{Value, ValueRef, key_hash};

/// Rows an aggregation may read.
pub(super) const ROWS_MAX: usize = 50_000;
/// 10^10, the scale of stored decimals.
const SCALE: i128 = 10_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Sum,
    Average,
    Min,
    Max,
    /// Rows, whatever the column holds.
    Count,
    /// Rows whose column is not null.
    CountColumn,
    /// Different values of the column, null left out.
    CountDistinct,
}

/// Refuses an aggregation over too many rows.
pub(super) fn check_rows(seen: usize, limit: usize) -> Result<(), ApiError> {
    if seen <= limit {
        return Ok(());
    }
    let message = "The maximum record limit is exceeded. Reduce the number of records.";
    Err(ApiError::new(Code::AggregateLimit, message))
}

/// What one group has added up so far.
#[derive(Default)]
pub(super) struct Accumulator {
    count: u64,
    values: u64,
    decimal: i128,
    double: f64,
    extreme: Option<Value>,
    distinct: HashSet<u128>,
}

impl Accumulator {
    pub(super) fn add(&mut self, value: Option<ValueRef<'_>>, method: Method) {
        self.count += 1;
        let Some(value) = value else { return };
        self.values += 1;
        match &value {
            ValueRef::Int(number) => self.decimal += i128::from(*number) * SCALE,
            ValueRef::Decimal(number) => self.decimal += number,
            ValueRef::Double(number) => self.double += number,
            _ => {}
        }
        if method == Method::CountDistinct {
            self.distinct.extend(key_hash(std::iter::once(Some(value.clone()))));
        }
        if !matches!(method, Method::Min | Method::Max) {
            return;
        }
        let wanted = if method == Method::Max { Ordering::Greater } else { Ordering::Less };
        if self.extreme.as_ref().is_none_or(|current| compare(&value, &current.as_ref()) == Some(wanted)) {
            self.extreme = Some(value.to_value());
        }
    }

    /// The result as a value to sort by: counts and sums as decimals of the common scale.
    pub(super) fn result(&self, method: Method) -> Option<Value> {
        let counted = |count: u64| Some(Value::Decimal(i128::from(count) * SCALE));
        match method {
            Method::Count => counted(self.count),
            Method::CountColumn => counted(self.values),
            Method::CountDistinct => counted(self.distinct.len() as u64),
            Method::Min | Method::Max => self.extreme.clone(),
            Method::Sum | Method::Average if self.values == 0 => None,
            Method::Sum if self.double != 0.0 => Some(Value::Double(self.double)),
            Method::Average if self.double != 0.0 => Some(Value::Double(self.double / self.values as f64)),
            Method::Sum => Some(Value::Decimal(self.decimal)),
            Method::Average => Some(Value::Decimal(self.decimal / i128::from(self.values))),
        }
    }

    pub(super) fn write(&self, column: Option<&Column>, method: Method, out: &mut Vec<u8>) {
        let number = |count: u64, out: &mut Vec<u8>| out.extend_from_slice(count.to_string().as_bytes());
        let Some(column) = column.filter(|_| method != Method::Count) else {
            return number(self.count, out);
        };
        match method {
            Method::CountColumn => return number(self.values, out),
            Method::CountDistinct => return number(self.distinct.len() as u64, out),
            _ if self.values == 0 => return out.extend_from_slice(b"null"),
            _ => {}
        }
        if let Some(extreme) = &self.extreme {
            return write_value(column, &extreme.as_ref(), out);
        }
        let is_average = method == Method::Average;
        let divisor = if is_average { self.values } else { 1 };
        match column.kind {
            ColumnKind::Double { .. } => {
                out.extend_from_slice(ryu::Buffer::new().format(self.double / divisor as f64).as_bytes());
            }
            ColumnKind::Integer { .. } | ColumnKind::BigInt if !is_average => {
                out.extend_from_slice((self.decimal / SCALE).to_string().as_bytes());
            }
            ColumnKind::Integer { .. } | ColumnKind::BigInt => {
                let average = self.decimal as f64 / SCALE as f64 / divisor as f64;
                out.extend_from_slice(ryu::Buffer::new().format(average).as_bytes());
            }
            _ => write_value(column, &ValueRef::Decimal(self.decimal / i128::from(divisor)), out),
        }
    }
}

/// Whether a column's values can be added up.
pub(super) fn is_number(column: &Column) -> bool {
    matches!(
        column.kind,
        ColumnKind::Integer { .. }
            | ColumnKind::BigInt
            | ColumnKind::Decimal { .. }
            | ColumnKind::Double { .. }
            | ColumnKind::Money { .. }
    )
}

/// Rounds a decimal scaled by 10^10 to a number of places, half away from zero.
pub(super) fn round_places(value: i128, places: u8) -> i128 {
    let unit = 10i128.pow(10u32.saturating_sub(u32::from(places)));
    let half = if value >= 0 { unit / 2 } else { -(unit / 2) };
    (value + half) / unit * unit
}
