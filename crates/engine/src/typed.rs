//! The types that a stream's `columns:` declares, and the rows whose values are not of them.
//!
//! A value is taken exactly, or its row is set aside with the value, the line and the reason: no decimal is rounded,
//! no fraction cut off, `NaN` is no number, and a time keeps its offset. A declared `timestamp` is a moment: text
//! without an offset is what the project's clock shows. Moments of the source are shown by the same clock from here on.

use std::sync::Arc;

use arrow_array::builder::PrimitiveBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use flowgate_core::decimal::{self, NumberFault};
use flowgate_core::moment::{self, DAY, WallClock, date_text, local_text};
use flowgate_core::project::Stream;
use flowgate_core::source::{FILE_COLUMN, LINE_COLUMN, MALFORMED_TEXT_MAX, Malformed};
use flowgate_core::{Code, Note, Notes};

use crate::RunError;
use crate::letters::payload;

/// A stream's columns with their declared types.
pub(crate) struct Typed {
    pub(crate) schema: SchemaRef,
    /// The type of each column that gets another one, by position.
    types: Vec<Option<DataType>>,
    pub(crate) clock: WallClock,
    /// Times that are not exactly one moment, so far.
    pub(crate) notes: Notes,
}

impl Typed {
    /// The types of a stream that the source gives as `schema`.
    pub(crate) fn of(stream: &Stream, schema: &SchemaRef, clock: WallClock) -> Result<Self, RunError> {
        let types = declared_types(stream, schema, clock.name())?;
        Ok(Self { schema: typed_schema(schema, &types), types, clock, notes: Notes::default() })
    }

    /// Rows with their declared types, and the rows whose values are not of the declared type.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<Malformed>), RunError> {
        if self.types.iter().all(Option::is_none) {
            return Ok((batch.clone(), Vec::new()));
        }
        let schema = Arc::clone(&self.schema);
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut malformed = Vec::new();
        let mut sound = vec![true; batch.num_rows()];
        for (at, (column, field)) in batch.columns().iter().zip(schema.fields()).enumerate() {
            let Some(kind) = &self.types[at] else {
                columns.push(Arc::clone(column));
                continue;
            };
            let (typed, faults) = convert(column, kind, field.name(), &self.clock, &mut self.notes)?;
            for (row, why) in faults {
                if std::mem::replace(&mut sound[row], false) {
                    malformed.push(not_of_type(batch, row, field, &why)?);
                }
            }
            columns.push(typed);
        }
        let rows = RecordBatch::try_new(schema, columns)?;
        if malformed.is_empty() {
            return Ok((rows, malformed));
        }
        malformed.sort_by_key(|row| row.line);
        Ok((filter_record_batch(&rows, &BooleanArray::from(sound))?, malformed))
    }
}

/// The Arrow type each declared column gets, by position.
fn declared_types(stream: &Stream, schema: &Schema, zone: &str) -> Result<Vec<Option<DataType>>, RunError> {
    if let Some(unknown) = stream.columns.keys().find(|name| schema.field_with_name(name).is_err()) {
        return Err(RunError::refused(
            Code::SOURCE_SCHEMA_CHANGED,
            format!("stream `{}` declares the column `{unknown}`, which the source does not have", stream.name),
        ));
    }
    let kind = |field: &Arc<Field>| match stream.columns.get(field.name()) {
        Some(text) => {
            let kind = arrow_type(text, zone)?;
            require_unit(stream, field, &kind)?;
            Ok(Some(kind))
        }
        // One clock shows every moment, wherever it came from.
        None => Ok(match field.data_type() {
            DataType::Timestamp(unit, Some(own)) if **own != *zone => {
                Some(DataType::Timestamp(*unit, Some(zone.into())))
            }
            _ => None,
        }),
    };
    schema.fields().iter().map(kind).collect()
}

/// A number counts seconds, or milliseconds, or days: nothing says which.
fn require_unit(stream: &Stream, field: &Field, kind: &DataType) -> Result<(), RunError> {
    let is_time = matches!(kind, DataType::Timestamp(..) | DataType::Date32);
    if !(is_time && field.data_type().is_numeric()) {
        return Ok(());
    }
    let message = format!(
        "stream `{}` declares `{}` as a time, and the source gives numbers, whose unit nothing says",
        stream.name,
        field.name()
    );
    Err(RunError::refused(Code::WRONG_TYPE, message)
        .hint(format!("write `to_timestamp_seconds({0})` or `to_timestamp_millis({0})` in the SELECT", field.name())))
}

fn arrow_type(text: &str, zone: &str) -> Result<DataType, RunError> {
    let (name, arguments) = text.trim_end_matches(')').split_once('(').unwrap_or((text, ""));
    Ok(match name {
        "text" => DataType::Utf8,
        "integer" | "bigint" => DataType::Int64,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into())),
        "decimal" => {
            let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
            let precision = precision.trim().parse().unwrap_or(38);
            DataType::Decimal128(precision, scale.trim().parse().unwrap_or(0))
        }
        _ => return Err(RunError::refused(Code::WRONG_TYPE, format!("`{text}` is not a column type"))),
    })
}

/// What a value of a stream's `columns:` should have been, in the words of the configuration.
fn type_text(kind: &DataType) -> String {
    match kind {
        DataType::Int64 => "is not a whole number".to_owned(),
        DataType::Float64 => "is not a number".to_owned(),
        DataType::Boolean => "is not true or false".to_owned(),
        DataType::Date32 => "is not a date".to_owned(),
        DataType::Timestamp(..) => "is not a date and time".to_owned(),
        DataType::Decimal128(precision, scale) => format!("is not a decimal({precision},{scale})"),
        other => format!("is not of the type {other}"),
    }
}

fn typed_schema(schema: &SchemaRef, types: &[Option<DataType>]) -> SchemaRef {
    if types.iter().all(Option::is_none) {
        return Arc::clone(schema);
    }
    let field = |(field, kind): (&Arc<Field>, &Option<DataType>)| match kind {
        Some(kind) => Arc::new(Field::new(field.name(), kind.clone(), true)),
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().zip(types).map(field).collect::<Vec<_>>()))
}

fn not_of_type(batch: &RecordBatch, row: usize, field: &Field, why: &str) -> Result<Malformed, RunError> {
    let column = batch.column_by_name(field.name()).ok_or(RunError::Defect("a typed column that is not there"))?;
    let value = arrow_cast::display::array_value_to_string(column, row)?;
    let text: String = payload(batch, row)?.chars().take(MALFORMED_TEXT_MAX).collect();
    let number = |name: &str| {
        let column = batch.column_by_name(name).filter(|column| column.is_valid(row))?;
        arrow_cast::display::array_value_to_string(column, row).ok()
    };
    Ok(Malformed {
        file: number(FILE_COLUMN),
        line: number(LINE_COLUMN).and_then(|line| line.parse().ok()),
        offset: None,
        reason: format!("`{value}` in `{}` {why}", field.name()),
        text,
        // The key may be the very column that cannot be read.
        key_unknown: true,
    })
}

/// Rows with a fault, and why: the words follow the value and the column.
type Faults = Vec<(usize, String)>;

fn convert(
    column: &ArrayRef,
    kind: &DataType,
    name: &str,
    clock: &WallClock,
    notes: &mut Notes,
) -> Result<(ArrayRef, Faults), RunError> {
    if let DataType::Dictionary(_, value) = column.data_type() {
        return convert(&cast_or_null(column, value)?, kind, name, clock, notes);
    }
    let from = column.data_type();
    let is_text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match kind {
        DataType::Int64 | DataType::Float64 | DataType::Decimal128(..)
            if (is_text || from.is_numeric()) && from != kind || from == &DataType::Float64 =>
        {
            numbers(&cast_or_null(column, &DataType::Utf8)?, kind)
        }
        DataType::Date32 | DataType::Timestamp(..) if is_text || from.is_temporal() => {
            times(column, kind, name, clock, notes)
        }
        _ => {
            let typed = cast_or_null(column, kind)?;
            let is_lost = |row: &usize| column.is_valid(*row) && typed.is_null(*row);
            let faults = (0..column.len()).filter(is_lost).map(|row| (row, type_text(kind))).collect();
            Ok((typed, faults))
        }
    }
}

/// Each text as a number of `kind`; a number of another type arrives as its shortest text.
fn numbers(column: &ArrayRef, kind: &DataType) -> Result<(ArrayRef, Faults), RunError> {
    let texts: &StringArray = column.as_string();
    let mut faults = Vec::new();
    let mut fault = |row: usize, fault: NumberFault| {
        faults.push((row, number_fault_text(fault, kind)));
    };
    let typed: ArrayRef = match kind {
        DataType::Int64 => {
            let read = |text: &str| match text.parse::<i64>() {
                Ok(number) => Ok(number),
                Err(_) => {
                    decimal::read(text, 0).and_then(|number| i64::try_from(number).map_err(|_| NumberFault::TooLarge))
                }
            };
            Arc::new(each::<Int64Type>(texts, read, &mut fault))
        }
        DataType::Float64 => Arc::new(each::<Float64Type>(texts, decimal::read_double, &mut fault)),
        DataType::Decimal128(precision, scale) => {
            let limit = 10_i128.pow(u32::from((*precision).min(decimal::DIGITS_MAX as u8)));
            let read = |text: &str| match decimal::read(text, *scale)? {
                value if value.abs() < limit => Ok(value),
                _ => Err(NumberFault::TooLarge),
            };
            let values = each::<Decimal128Type>(texts, read, &mut fault);
            Arc::new(values.with_precision_and_scale(*precision, *scale)?)
        }
        _ => return Err(RunError::Defect("a number of no numeric type")),
    };
    Ok((typed, faults))
}

fn each<T: arrow_array::types::ArrowPrimitiveType>(
    texts: &StringArray,
    read: impl Fn(&str) -> Result<T::Native, NumberFault>,
    fault: &mut impl FnMut(usize, NumberFault),
) -> PrimitiveArray<T> {
    let mut values = PrimitiveBuilder::<T>::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        match text.map(|text| read(text.trim())) {
            Some(Ok(value)) => values.append_value(value),
            None => values.append_null(),
            Some(Err(why)) => {
                fault(row, why);
                values.append_null();
            }
        }
    }
    values.finish()
}

fn number_fault_text(fault: NumberFault, kind: &DataType) -> String {
    match (fault, kind) {
        (NumberFault::TooFine, DataType::Decimal128(precision, scale)) => {
            format!("has more than the {scale} decimals of a decimal({precision},{scale})")
        }
        (NumberFault::TooFine, DataType::Float64) => "is a whole number that no double stands for".to_owned(),
        (NumberFault::TooLarge, DataType::Decimal128(precision, scale)) => {
            format!("has more digits than a decimal({precision},{scale})")
        }
        (NumberFault::TooLarge, _) => format!("{} of that size", type_text(kind)),
        (NumberFault::NotANumber | NumberFault::NotWhole | NumberFault::TooFine, _) => type_text(kind),
    }
}

/// Dates and moments out of texts, dates, moments and local times.
fn times(
    column: &ArrayRef,
    kind: &DataType,
    name: &str,
    clock: &WallClock,
    notes: &mut Notes,
) -> Result<(ArrayRef, Faults), RunError> {
    let DataType::Timestamp(unit, _) = kind else { return dates(column, clock) };
    if let DataType::Timestamp(own, Some(_)) = column.data_type()
        && own == unit
    {
        // The same moments, shown by another clock.
        return Ok((cast_or_null(column, kind)?, Vec::new()));
    }
    let mut faults = Vec::new();
    let mut moments: Vec<Option<i64>> = Vec::with_capacity(column.len());
    let values = Values::of(column)?;
    for row in 0..column.len() {
        let local = match values.came(row) {
            Ok(Some(Came::Local(local))) => local,
            Ok(Some(Came::Moment(moment))) => {
                moments.push(Some(moment));
                continue;
            }
            Ok(None) => {
                moments.push(None);
                continue;
            }
            Err(why) => {
                faults.push((row, why));
                moments.push(None);
                continue;
            }
        };
        let placed = clock.moment(local);
        moments.push(placed.moment);
        if let Some(oddity) = placed.oddity {
            match placed.moment {
                Some(_) => notes.add(name, Note::Time(oddity), || local_text(local)),
                None => faults.push((row, format!("{} {}", oddity.words(), clock.name()))),
            }
        }
    }
    let moments = TimestampMicrosecondArray::from(moments).with_timezone(clock.name());
    Ok((cast_or_null(&(Arc::new(moments) as ArrayRef), kind)?, faults))
}

fn dates(column: &ArrayRef, clock: &WallClock) -> Result<(ArrayRef, Faults), RunError> {
    let mut faults = Vec::new();
    let mut days: Vec<Option<i32>> = Vec::with_capacity(column.len());
    let values = Values::of(column)?;
    for row in 0..column.len() {
        let day = match values.came(row) {
            Ok(Some(Came::Moment(moment))) => Some(clock.date(moment)),
            Ok(Some(Came::Local(local))) => Some(local.div_euclid(DAY)),
            Ok(None) => None,
            Err(why) => {
                faults.push((row, why));
                None
            }
        };
        // Of every moment in microseconds the day fits.
        days.push(day.and_then(|day| i32::try_from(day).ok()));
    }
    Ok((Arc::new(PrimitiveArray::<Date32Type>::from(days)), faults))
}

/// A value as it came.
enum Came {
    Moment(i64),
    Local(i64),
}

/// A column of texts, dates or times, in microseconds.
enum Values {
    Texts(StringArray),
    Dates(PrimitiveArray<Date32Type>),
    /// The original decides whether a value was there, and the times whether it could be read.
    Times(ArrayRef, TimestampMicrosecondArray),
}

impl Values {
    fn of(column: &ArrayRef) -> Result<Self, RunError> {
        Ok(match column.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Texts(cast_or_null(column, &DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Date32 => Self::Dates(column.as_primitive::<Date32Type>().clone()),
            DataType::Timestamp(_, zone) => {
                let micros = cast_or_null(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Self::Times(Arc::clone(column), micros.as_primitive::<TimestampMicrosecondType>().clone())
            }
            _ => {
                let micros = cast_or_null(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                Self::Times(Arc::clone(column), micros.as_primitive::<TimestampMicrosecondType>().clone())
            }
        })
    }

    fn came(&self, row: usize) -> Result<Option<Came>, String> {
        match self {
            Self::Texts(texts) if texts.is_null(row) => Ok(None),
            Self::Texts(texts) => {
                let written = moment::read(texts.value(row)).map_err(|why| why.to_string())?;
                Ok(Some(written.moment().map_or_else(|| Came::Local(written.local()), Came::Moment)))
            }
            Self::Dates(dates) if dates.is_null(row) => Ok(None),
            Self::Dates(dates) => {
                let day = i64::from(dates.value(row));
                let local = day.checked_mul(DAY).ok_or_else(|| format!("is {}, beyond every time", date_text(day)))?;
                Ok(Some(Came::Local(local)))
            }
            Self::Times(given, _) if given.is_null(row) => Ok(None),
            Self::Times(_, micros) if micros.is_null(row) => Err("is beyond every time".to_owned()),
            Self::Times(_, micros) if micros.timezone().is_some() => Ok(Some(Came::Moment(micros.value(row)))),
            Self::Times(_, micros) => Ok(Some(Came::Local(micros.value(row)))),
        }
    }
}

fn cast_or_null(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, RunError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    Ok(cast_with_options(column, kind, &options)?)
}

#[cfg(test)]
mod tests {
    use flowgate_core::moment::LocalTimes;

    use super::*;

    /// The typed values of some texts, or why they are none.
    fn typed(kind: &str, column: &ArrayRef) -> Vec<Result<String, String>> {
        let clock = WallClock::new("Europe/Berlin", LocalTimes::default()).unwrap();
        let kind = arrow_type(kind, clock.name()).unwrap();
        let (values, faults) = convert(column, &kind, "c", &clock, &mut Notes::default()).unwrap();
        assert_eq!(*values.data_type(), kind);
        let value = |row| match faults.iter().find(|(at, _)| *at == row) {
            Some((_, why)) => Err(why.clone()),
            None => Ok(arrow_cast::display::array_value_to_string(&values, row).unwrap()),
        };
        (0..column.len()).map(value).collect()
    }

    fn of_text(kind: &str, text: &str) -> Result<String, String> {
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        typed(kind, &column).remove(0)
    }

    #[test]
    fn numbers_are_taken_exactly_or_set_aside() {
        for (kind, text, value) in [
            ("decimal(10,2)", "12.30", "12.30"),
            ("decimal(10,2)", "12.3000", "12.30"),
            ("decimal(10,2)", " -1e2 ", "-100.00"),
            ("integer", "5.00", "5"),
            ("integer", "-9223372036854775808", "-9223372036854775808"),
            ("double", "0.10000000000000001", "0.1"),
        ] {
            assert_eq!(of_text(kind, text).as_deref(), Ok(value), "{kind} {text}");
        }
        for (kind, text, why) in [
            ("decimal(10,2)", "12.345", "has more than the 2 decimals of a decimal(10,2)"),
            ("decimal(4,2)", "123.45", "has more digits than a decimal(4,2)"),
            ("decimal(10,2)", "1,5", "is not a decimal(10,2)"),
            ("integer", "1.5", "is not a whole number"),
            ("integer", "9223372036854775808", "is not a whole number of that size"),
            ("double", "NaN", "is not a number"),
            ("double", "-Infinity", "is not a number"),
            ("double", "1,5", "is not a number"),
            ("double", "1e400", "is not a number of that size"),
            ("double", "9007199254740993", "is a whole number that no double stands for"),
        ] {
            assert_eq!(of_text(kind, text).unwrap_err(), why, "{kind} {text}");
        }
        let floats = || Arc::new(arrow_array::Float64Array::from(vec![1.5, 2.0, f64::NAN])) as ArrayRef;
        let is_sound = |kind| typed(kind, &floats()).iter().map(Result::is_ok).collect::<Vec<_>>();
        assert_eq!(is_sound("integer"), [false, true, false]);
        assert_eq!(is_sound("decimal(5,0)"), [false, true, false]);
        assert_eq!(is_sound("double"), [true, true, false]);
        let long: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![9_007_199_254_740_993]));
        assert!(typed("double", &long)[0].is_err());
    }

    #[test]
    fn times_keep_their_offset_and_dates_are_those_of_the_projects_clock() {
        for (kind, text, value) in [
            ("timestamp", "2024-07-01T12:00:00Z", "2024-07-01T14:00:00+02:00"),
            ("timestamp", "2024-07-01 12:00:00+02:00", "2024-07-01T12:00:00+02:00"),
            ("timestamp", "2024-07-01T12:00:00", "2024-07-01T12:00:00+02:00"),
            ("timestamp", "2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+01:00"),
            ("timestamp", "9999-12-31", "9999-12-31T00:00:00+01:00"),
            ("date", "1990-06-14T22:00:00Z", "1990-06-15"),
            ("date", "1990-06-14T22:00:00", "1990-06-14"),
        ] {
            assert_eq!(of_text(kind, text).as_deref(), Ok(value), "{kind} {text}");
        }
        assert!(of_text("timestamp", "2016-12-31T23:59:60Z").unwrap_err().contains("leap second"));
        assert!(of_text("date", "infinity").unwrap_err().contains("infinite"));
        let utc: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![645_400_800_000_000]).with_timezone("UTC"));
        assert_eq!(typed("date", &utc), [Ok("1990-06-15".to_owned())]);
        assert_eq!(typed("timestamp", &utc), [Ok("1990-06-15T00:00:00+02:00".to_owned())]);
        let local: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![645_400_800_000_000]));
        assert_eq!(typed("timestamp", &local), [Ok("1990-06-14T22:00:00+02:00".to_owned())]);
    }
}
