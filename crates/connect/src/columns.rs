//! What connectors share: names from a catalog, typed column builders, and batches of columns.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef, TimeUnit};
use flowgate_core::{Code, ConnectorError, ErrorKind};

use crate::suggest::did_you_mean;

/// The catalog's own spelling of a configured name: exact, or the only one but for case.
///
/// Only what this returns may go into SQL, quoted by [`quote_identifier`].
pub(crate) fn resolve_name(name: &str, catalog: &[String], what: &str, owner: &str) -> Result<String, ConnectorError> {
    if let Some(exact) = catalog.iter().find(|known| *known == name) {
        return Ok(exact.clone());
    }
    let mut alike = catalog.iter().filter(|known| known.eq_ignore_ascii_case(name));
    if let (Some(only), None) = (alike.next(), alike.next()) {
        return Ok(only.clone());
    }
    let message = format!("`{owner}` has no {} `{name}`", what.trim_end_matches('s'));
    let mut error = ConnectorError::new(ErrorKind::NotFound, Code::STREAM_NOT_FOUND, message);
    error.hints.extend(did_you_mean(name, what, catalog.iter().map(String::as_str)));
    Err(error)
}

/// A name that the catalog gave, as SQL.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Columns as a batch of `schema`, whose types they were built for.
pub(crate) fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, ConnectorError> {
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| {
        ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "building a batch of rows failed").caused_by(error)
    })
}

/// A builder for one column of a database table.
pub(crate) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Utf8(StringBuilder),
}

impl ColumnBuilder {
    /// A builder for each column of `schema`.
    pub(crate) fn all(schema: &Schema) -> Vec<Self> {
        schema.fields().iter().map(|field| Self::new(field.data_type())).collect()
    }

    /// The builder for a type that a database connector gives; text for any other.
    pub(crate) fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone())),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()))
            }
            _ => Self::Utf8(StringBuilder::new()),
        }
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Utf8(builder) => builder.append_null(),
        }
    }

    /// The column so far; the builder starts again.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Utf8(builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_catalogs_and_never_the_users() {
        let catalog = ["Order".to_owned(), "order\"s".to_owned(), "people".to_owned(), "People".to_owned()];
        let resolve = |name| resolve_name(name, &catalog, "tables", "works");
        assert_eq!(resolve("order").unwrap(), "Order");
        assert_eq!(resolve("people").unwrap(), "people");
        assert_eq!(resolve("PEOPLE").unwrap_err().message, "`works` has no table `PEOPLE`");
        assert_eq!(resolve("x\"; DROP TABLE people --").unwrap_err().code, Code::STREAM_NOT_FOUND);
        assert_eq!(quote_identifier("order\"s"), "\"order\"\"s\"");
    }

    #[test]
    fn bytes_become_digits() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
    }
}
