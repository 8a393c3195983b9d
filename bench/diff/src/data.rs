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
    let is_other = |row: u64| day == Day::Second && is_one_in(row, 100, 2);
    // The columns 3, 8 and 14 are those that change.
    let value = |row: u64, column: u64| {
        mixed(row, column + if is_other(row) && [3, 8, 14].contains(&column) { 100 } else { 10 })
    };
    let each = |column: u64| numbers.iter().map(move |row| value(*row, column));
    let text = |column: u64, form: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(each(column).map(|value| Some(form(value))).collect::<StringArray>())
    };
    let whole = |column: u64| -> ArrayRef {
        Arc::new(each(column).map(|value| Some((value % 1_000_000) as i32)).collect::<Int32Array>())
    };
    let time = |column: u64| -> ArrayRef {
        Arc::new(
            each(column)
                .map(|value| Some(1_500_000_000 + (value % 200_000_000) as i64))
                .collect::<TimestampSecondArray>(),
        )
    };
    let amount = |column: u64| -> Result<ArrayRef, ArrowError> {
        let amounts: Decimal128Array = each(column).map(|value| Some(i128::from(value % 100_000_000))).collect();
        Ok(Arc::new(amounts.with_precision_and_scale(38, 2)?))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("asset_number", Arc::new(numbers.iter().map(|row| Some(format!("AST-{row:09}"))).collect::<StringArray>())),
        ("name", text(1, &|value| format!("Asset {value:016x}"))),
        ("street", text(2, &|value| format!("{} Longford Road", value % 40_000))),
        ("status_text", text(3, &|value| format!("condition {:03}", value % 300))),
        ("category", text(4, &|value| format!("category {:02}", value % 60))),
        (
            "remark",
            text(5, &|value| {
                if value.is_multiple_of(4) {
                    format!("inspected, ref {:08}", value % 100_000_000)
                } else {
                    String::new()
                }
            }),
        ),
        ("owner_code", text(6, &|value| format!("OWN{:05}", value % 5_000))),
        ("district", whole(7)),
        ("height_mm", whole(8)),
        ("lanes", whole(9)),
        ("surveyed_on", time(10)),
        ("built_on", time(11)),
        ("changed_on", time(12)),
        ("cost", amount(13)?),
        ("book_value", amount(14)?),
        (
            "latitude",
            Arc::new(each(15).map(|value| Some((value % 180_000_000) as f64 / 1e6 - 90.0)).collect::<Float64Array>()),
        ),
        (
            "longitude",
            Arc::new(each(16).map(|value| Some((value % 360_000_000) as f64 / 1e6 - 180.0)).collect::<Float64Array>()),
        ),
        ("sequence", Arc::new(each(17).map(|value| Some((value >> 8) as i64)).collect::<Int64Array>())),
        ("due_on", Arc::new(each(18).map(|value| Some((value % 20_000) as i32)).collect::<Date32Array>())),
        ("is_active", Arc::new(each(19).map(|value| Some(value.is_multiple_of(3))).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
