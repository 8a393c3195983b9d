//! The types that a stream's `columns:` declares, and the rows whose values are not of them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use flowgate_core::Code;
use flowgate_core::project::Stream;
use flowgate_core::source::{FILE_COLUMN, LINE_COLUMN, MALFORMED_TEXT_MAX, Malformed};

use crate::RunError;
use crate::letters::payload;

/// A stream's columns with their declared types.
pub(crate) struct Typed {
    pub(crate) schema: SchemaRef,
    /// The declared type of each column, by position.
    types: Vec<Option<DataType>>,
}

impl Typed {
    /// The types of a stream that the source gives as `schema`.
    pub(crate) fn of(stream: &Stream, schema: &SchemaRef) -> Result<Self, RunError> {
        let types = declared_types(stream, schema)?;
        Ok(Self { schema: typed_schema(schema, &types), types })
    }

    /// Rows with their declared types, and the rows whose text is not of the declared type.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<Malformed>), RunError> {
        if self.types.iter().all(Option::is_none) {
            return Ok((batch.clone(), Vec::new()));
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut malformed = Vec::new();
        let mut sound = vec![true; batch.num_rows()];
        for ((column, kind), field) in batch.columns().iter().zip(&self.types).zip(self.schema.fields()) {
            let Some(kind) = kind else {
                columns.push(Arc::clone(column));
                continue;
            };
            let typed = cast_or_null(column, kind)?;
            for row in (0..batch.num_rows()).filter(|row| column.is_valid(*row) && typed.is_null(*row)) {
                if std::mem::replace(&mut sound[row], false) {
                    malformed.push(not_of_type(batch, row, field)?);
                }
            }
            columns.push(typed);
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        if malformed.is_empty() {
            return Ok((rows, malformed));
        }
        Ok((filter_record_batch(&rows, &BooleanArray::from(sound))?, malformed))
    }
}

/// The Arrow type each declared column gets, by position.
fn declared_types(stream: &Stream, schema: &Schema) -> Result<Vec<Option<DataType>>, RunError> {
    if let Some(unknown) = stream.columns.keys().find(|name| schema.field_with_name(name).is_err()) {
        return Err(RunError::refused(
            Code::SOURCE_SCHEMA_CHANGED,
            format!("stream `{}` declares the column `{unknown}`, which the source does not have", stream.name),
        ));
    }
    let kind = |field: &Arc<Field>| stream.columns.get(field.name()).map(|text| arrow_type(text)).transpose();
    schema.fields().iter().map(kind).collect()
}

fn arrow_type(text: &str) -> Result<DataType, RunError> {
    let (name, arguments) = text.trim_end_matches(')').split_once('(').unwrap_or((text, ""));
    Ok(match name {
        "text" => DataType::Utf8,
        "integer" | "bigint" => DataType::Int64,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
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
        DataType::Int64 => "a whole number".to_owned(),
        DataType::Float64 => "a number".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Date32 => "a date".to_owned(),
        DataType::Timestamp(..) => "a date and time".to_owned(),
        DataType::Decimal128(precision, scale) => format!("a decimal({precision},{scale})"),
        other => format!("of the type {other}"),
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

fn not_of_type(batch: &RecordBatch, row: usize, field: &Field) -> Result<Malformed, RunError> {
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
        reason: format!("`{value}` in `{}` is not {}", field.name(), type_text(field.data_type())),
        text,
        // The key may be the very column that cannot be read.
        key_unknown: true,
    })
}

fn cast_or_null(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, RunError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    Ok(cast_with_options(column, kind, &options)?)
}
