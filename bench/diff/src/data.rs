//! Two days of one stream, as staging keeps them: 20 columns, about 200 bytes a row.
//!
//! On the second day one row in a hundred has other values in three columns, one in a thousand is
//! new and one in a thousand is gone.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampSecondArray,
};
use arrow_schema::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::Error;

const BATCH_ROWS: u64 = 8_192;

/// As staging writes them.
const ROW_GROUP_ROWS: usize = 65_536;

/// The columns that change.
const CHANGING: [u64; 3] = [3, 8, 14];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Day {
    First,
    Second,
}

/// Writes the stream of `day` as one Parquet file; `rows` is the number of the first day.
pub(crate) fn write(path: &Path, rows: u64, day: Day, compression: Compression) -> Result<(), Error> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut numbers = numbers(rows, day);
    let schema = batch(&[], day)?.schema();
    let mut writer = ArrowWriter::try_new(fs_err::File::create(path)?, schema, Some(properties))?;
    loop {
        let some: Vec<u64> = numbers.by_ref().take(BATCH_ROWS as usize).collect();
        if some.is_empty() {
            break;
        }
        writer.write(&batch(&some, day)?)?;
    }
    writer.close()?;
    Ok(())
}

/// The rows of a day by their numbers, in an order that is not that of their keys' hashes.
fn numbers(rows: u64, day: Day) -> Box<dyn Iterator<Item = u64>> {
    match day {
        Day::First => Box::new(0..rows),
        Day::Second => Box::new((0..rows).filter(|row| !is_one_in(*row, 1_000, 1)).chain(rows..rows + rows / 1_000)),
    }
}

fn is_one_in(row: u64, in_how_many: u64, salt: u64) -> bool {
    mixed(row, salt).is_multiple_of(in_how_many)
}

fn mixed(row: u64, salt: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&row.to_le_bytes(), salt)
}

fn batch(numbers: &[u64], day: Day) -> Result<RecordBatch, ArrowError> {
    let rows = Rows { numbers, day };
    let keys: StringArray = numbers.iter().map(|row| Some(format!("AST-{row:09}"))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("asset_number", Arc::new(keys)),
        ("name", rows.text(1, |value| format!("Asset {value:016x}"))),
        ("street", rows.text(2, |value| format!("{} Longford Road", value % 40_000))),
        ("status_text", rows.text(3, |value| format!("condition {:03}", value % 300))),
        ("category", rows.text(4, |value| format!("category {:02}", value % 60))),
        ("remark", rows.text(5, remark)),
        ("owner_code", rows.text(6, |value| format!("OWN{:05}", value % 5_000))),
        ("district", rows.whole(7)),
        ("height_mm", rows.whole(8)),
        ("lanes", rows.whole(9)),
        ("surveyed_on", rows.time(10)),
        ("built_on", rows.time(11)),
        ("changed_on", rows.time(12)),
        ("cost", rows.amount(13)?),
        ("book_value", rows.amount(14)?),
        ("latitude", rows.degrees(15, 90)),
        ("longitude", rows.degrees(16, 180)),
        ("sequence", Arc::new(rows.each(17).map(|value| Some((value >> 8) as i64)).collect::<Int64Array>())),
        ("due_on", Arc::new(rows.each(18).map(|value| Some((value % 20_000) as i32)).collect::<Date32Array>())),
        ("is_active", Arc::new(rows.each(19).map(|value| Some(value.is_multiple_of(3))).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}

/// Three rows in four have none.
fn remark(value: u64) -> String {
    if value.is_multiple_of(4) { format!("inspected, ref {:08}", value % 100_000_000) } else { String::new() }
}

/// Some rows of a day, column by column.
struct Rows<'a> {
    numbers: &'a [u64],
    day: Day,
}

impl Rows<'_> {
    /// What stands for the value of each row: the same number gives the same value.
    fn each(&self, column: u64) -> impl Iterator<Item = u64> {
        self.numbers.iter().map(move |row| {
            let is_other = self.day == Day::Second && CHANGING.contains(&column) && is_one_in(*row, 100, 2);
            mixed(*row, column + if is_other { 100 } else { 10 })
        })
    }

    fn text(&self, column: u64, form: impl Fn(u64) -> String) -> ArrayRef {
        Arc::new(self.each(column).map(|value| Some(form(value))).collect::<StringArray>())
    }

    fn whole(&self, column: u64) -> ArrayRef {
        Arc::new(self.each(column).map(|value| Some((value % 1_000_000) as i32)).collect::<Int32Array>())
    }

    fn time(&self, column: u64) -> ArrayRef {
        let second = |value: u64| Some(1_500_000_000 + (value % 200_000_000) as i64);
        Arc::new(self.each(column).map(second).collect::<TimestampSecondArray>())
    }

    fn amount(&self, column: u64) -> Result<ArrayRef, ArrowError> {
        let amounts: Decimal128Array = self.each(column).map(|value| Some(i128::from(value % 100_000_000))).collect();
        Ok(Arc::new(amounts.with_precision_and_scale(38, 2)?))
    }

    /// From `-most` to `most`, with six digits.
    fn degrees(&self, column: u64, most: u32) -> ArrayRef {
        let degree = |value: u64| (value % (2_000_000 * u64::from(most))) as f64 / 1e6 - f64::from(most);
        Arc::new(self.each(column).map(|value| Some(degree(value))).collect::<Float64Array>())
    }
}
