//! Pages of rows into canonical columns, without a tree of values in between.
//!
//! Numbers keep their digits: a decimal with twenty of them arrives whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampSecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowgate_core::moment::DAY_SECONDS;
use flowgate_core::shape::{ColumnKind, STATE_COLUMN, TableShape};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::values::{parse_moment, read_decimal};

/// What a page of a table holds besides its rows.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: RecordBatch,
    /// Ids of rows that a delta read tells are gone.
    pub(crate) deleted: Vec<String>,
    pub(crate) next_link: Option<String>,
    pub(crate) delta_link: Option<String>,
    /// How many rows the query has, if that was asked; the service counts no further than 5,000.
    pub(crate) count: Option<u64>,
}

/// Reads pages with the same columns.
#[derive(Debug)]
pub(crate) struct PageReader {
    set: String,
    schema: SchemaRef,
    columns: Vec<Wanted>,
    /// Slot of each JSON member: columns first, then the tables of polymorphic lookups.
    slots: HashMap<String, usize>,
    slot_count: usize,
}

#[derive(Debug)]
struct Wanted {
    /// The member that `$select` names.
    member: String,
    /// The first column that reads this member.
    slot: usize,
    kind: WantedKind,
}

impl Wanted {
    /// Its slot is given when all columns are known.
    fn new(member: String, kind: WantedKind) -> Self {
        Self { member, slot: 0, kind }
    }
}

#[derive(Debug)]
enum WantedKind {
    Column(ColumnKind),
    /// The only table, or the slot of the annotation that names it.
    Lookup(Result<String, usize>),
}

impl PageReader {
    /// Reads the id (named `id_name`) and `columns`; [`STATE_COLUMN`] stands for the status.
    pub(crate) fn new(shape: &TableShape, id_name: &str, columns: &[String]) -> Result<Self, ConnectorError> {
        let mut fields = vec![Field::new(id_name, DataType::Utf8, true)];
        let mut wanted = vec![Wanted::new(shape.primary_id.clone(), WantedKind::Column(ColumnKind::Guid))];
        for name in columns {
            let source = if name == STATE_COLUMN { "statuscode" } else { name };
            let column = shape.column(source).ok_or_else(|| {
                let message = format!("table `{}` has no column `{source}`", shape.table);
                ConnectorError::new(ErrorKind::Schema, Code::COLUMN_NOT_FOUND, message)
            })?;
            fields.push(Field::new(name, column.kind.canonical(), true));
            wanted.push(match &column.kind {
                ColumnKind::Lookup { targets } => {
                    let only = if let [only] = targets.as_slice() { Ok(only.table.clone()) } else { Err(0) };
                    Wanted::new(format!("_{source}_value"), WantedKind::Lookup(only))
                }
                kind => Wanted::new(source.to_owned(), WantedKind::Column(kind.clone())),
            });
        }
        Ok(Self::with_slots(shape.set.clone(), Arc::new(Schema::new(fields)), wanted))
    }

    fn with_slots(set: String, schema: SchemaRef, mut columns: Vec<Wanted>) -> Self {
        let mut slots = HashMap::new();
        let mut slot_count = columns.len();
        for (index, column) in columns.iter_mut().enumerate() {
            column.slot = *slots.entry(column.member.clone()).or_insert(index);
            if let WantedKind::Lookup(Err(slot)) = &mut column.kind {
                *slot = slot_count;
                slots.insert(format!("{}@Microsoft.Dynamics.CRM.lookuplogicalname", column.member), slot_count);
                slot_count += 1;
            }
        }
        Self { set, schema, columns, slots, slot_count }
    }

    /// The set whose pages these are.
    pub(crate) fn set(&self) -> &str {
        &self.set
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The value of `$select`.
    pub(crate) fn select(&self) -> String {
        let firsts = self.columns.iter().enumerate().filter(|(index, column)| column.slot == *index);
        firsts.map(|(_, column)| column.member.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether the tables of lookups must be asked for.
    pub(crate) fn needs_annotations(&self) -> bool {
        self.slot_count > self.columns.len()
    }

    pub(crate) fn read(&self, body: &[u8]) -> Result<Page, ConnectorError> {
        let mut builders: Vec<Builder> = self.columns.iter().map(Builder::new).collect();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let page = PageVisitor { reader: self, builders: &mut builders };
        let links = deserializer.deserialize_map(page).and_then(|links| deserializer.end().map(|()| links));
        let links = links.map_err(|error| {
            let message = "a page of rows is not of the expected form";
            ConnectorError::new(ErrorKind::Schema, Code::UNEXPECTED_ANSWER, message).caused_by(error)
        })?;
        let arrays = builders.into_iter().map(Builder::finish).collect();
        let rows = RecordBatch::try_new(self.schema(), arrays).map_err(|error| {
            ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "rows that were read do not fit").caused_by(error)
        })?;
        Ok(Page { rows, deleted: links.deleted, next_link: links.next, delta_link: links.delta, count: links.count })
    }

    /// Takes one row's values into the builders.
    fn append(&self, values: &[Option<&RawValue>], builders: &mut [Builder]) -> Result<(), BadValue> {
        for (column, builder) in self.columns.iter().zip(builders) {
            let value = values.get(column.slot).copied().flatten();
            let table = match &column.kind {
                WantedKind::Column(_) => None,
                WantedKind::Lookup(Ok(table)) => Some(Cow::Borrowed(table.as_str())),
                WantedKind::Lookup(Err(slot)) => values.get(*slot).copied().flatten().and_then(text),
            };
            let value = value.filter(|value| value.get() != "null");
            builder.append(value, table.as_deref()).ok_or_else(|| BadValue {
                member: column.member.clone(),
                value: value.map(|value| value.get().chars().take(60).collect()).unwrap_or_default(),
            })?;
        }
        Ok(())
    }
}

/// A value that is not of its column's type.
struct BadValue {
    member: String,
    value: String,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is `{}`", self.member, self.value)
    }
}

#[derive(Default)]
struct Links {
    next: Option<String>,
    delta: Option<String>,
    count: Option<u64>,
    deleted: Vec<String>,
}

struct PageVisitor<'a> {
    reader: &'a PageReader,
    builders: &'a mut [Builder],
}

impl<'de> Visitor<'de> for PageVisitor<'_> {
    type Value = Links;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a collection of rows")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Links, A::Error> {
        let mut links = Links::default();
        let mut has_rows = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match name.as_ref() {
                "@odata.nextLink" => links.next = Some(map.next_value()?),
                // -1 where the service does not know.
                "@odata.count" => links.count = u64::try_from(map.next_value::<i64>()?).ok(),
                "@odata.deltaLink" => links.delta = Some(map.next_value()?),
                "value" => {
                    has_rows = true;
                    let rows = RowsSeed { reader: self.reader, builders: self.builders, deleted: &mut links.deleted };
                    map.next_value_seed(rows)?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_rows { Ok(links) } else { Err(serde::de::Error::missing_field("value")) }
    }
}

struct RowsSeed<'a> {
    reader: &'a PageReader,
    builders: &'a mut [Builder],
    deleted: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let mut values: Vec<Option<&'de RawValue>> = vec![None; self.reader.slot_count];
        loop {
            values.fill(None);
            let row = RowSeed { reader: self.reader, values: &mut values };
            match rows.next_element_seed(row)? {
                None => return Ok(()),
                Some(Some(deleted)) => self.deleted.push(deleted),
                Some(None) => {
                    self.reader.append(&values, self.builders).map_err(serde::de::Error::custom)?;
                }
            }
        }
    }
}

/// Reads one row's wanted members into slots; the value is the id of a deleted row.
struct RowSeed<'a, 'de> {
    reader: &'a PageReader,
    values: &'a mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, 'de> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, 'de> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut is_deleted = false;
        let mut id = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if let Some(slot) = self.reader.slots.get(name.as_ref()) {
                self.values[*slot] = Some(map.next_value()?);
            } else if name == "@odata.context" {
                is_deleted = map.next_value::<Cow<'de, str>>()?.ends_with("$deletedEntity");
            } else if name == "id" {
                id = text(map.next_value()?).map(Cow::into_owned);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(if is_deleted { id } else { None })
    }
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get();
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(quoted).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The column a value goes into.
enum Builder {
    Text(StringBuilder),
    Guid(StringBuilder),
    Lookup(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Decimal(Decimal128Builder, i8),
    Float64(Float64Builder, f64),
    Boolean(BooleanBuilder),
    Moment(TimestampSecondBuilder),
    Date(Date32Builder),
}

impl Builder {
    fn new(wanted: &Wanted) -> Self {
        let WantedKind::Column(kind) = &wanted.kind else { return Self::Lookup(StringBuilder::new()) };
        match kind {
            ColumnKind::Text { .. } | ColumnKind::Choices { .. } | ColumnKind::Unsupported { .. } => {
                Self::Text(StringBuilder::new())
            }
            ColumnKind::Guid | ColumnKind::Lookup { .. } => Self::Guid(StringBuilder::new()),
            ColumnKind::Integer { .. } | ColumnKind::Choice { .. } => Self::Int32(Int32Builder::new()),
            ColumnKind::BigInteger => Self::Int64(Int64Builder::new()),
            ColumnKind::Decimal { scale, .. } | ColumnKind::Money { scale, .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(kind.canonical()), *scale)
            }
            ColumnKind::Double { precision, .. } => {
                Self::Float64(Float64Builder::new(), 10_f64.powi(i32::from(*precision)))
            }
            ColumnKind::Boolean { .. } => Self::Boolean(BooleanBuilder::new()),
            ColumnKind::DateTime { .. } => Self::Moment(TimestampSecondBuilder::new()),
            ColumnKind::Date => Self::Date(Date32Builder::new()),
        }
    }

    /// `None` if the value is not of the column's type.
    fn append(&mut self, value: Option<&RawValue>, table: Option<&str>) -> Option<()> {
        match self {
            // The service stores an empty text as null; canonical rows have only the latter.
            Self::Text(builder) => match value {
                Some(value) => builder.append_option(Some(text(value)?).filter(|text| !text.is_empty())),
                None => builder.append_null(),
            },
            Self::Guid(builder) => match value {
                Some(value) => builder.append_value(text(value)?.to_ascii_lowercase()),
                None => builder.append_null(),
            },
            Self::Lookup(builder) => match (value, table) {
                (Some(value), Some(table)) => {
                    builder.append_value(format!("{table}/{}", text(value)?.to_ascii_lowercase()));
                }
                (Some(_), None) => return None,
                (None, _) => builder.append_null(),
            },
            Self::Int32(builder) => builder.append_option(parsed(value)?),
            Self::Int64(builder) => builder.append_option(parsed(value)?),
            Self::Decimal(builder, scale) => match value {
                Some(value) => builder.append_value(read_decimal(value.get(), *scale)?),
                None => builder.append_null(),
            },
            Self::Float64(builder, factor) => {
                let number = parsed::<f64>(value)?;
                builder.append_option(number.map(|number| (number * *factor).round() / *factor + 0.0));
            }
            Self::Boolean(builder) => builder.append_option(parsed(value)?),
            Self::Moment(builder) => match value {
                Some(value) => builder.append_value(parse_moment(&text(value)?)?),
                None => builder.append_null(),
            },
            Self::Date(builder) => match value {
                Some(value) => builder.append_value((parse_moment(&text(value)?)? / DAY_SECONDS) as i32),
                None => builder.append_null(),
            },
        }
        Some(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) | Self::Guid(mut builder) | Self::Lookup(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder, _) => Arc::new(builder.finish()),
            Self::Float64(mut builder, _) => Arc::new(builder.finish()),
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Moment(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// Outer `None`: not of the type. Inner `None`: null.
#[expect(clippy::option_option, reason = "bad and absent are different here, and both are handled at once")]
fn parsed<T: std::str::FromStr>(value: Option<&RawValue>) -> Option<Option<T>> {
    let Some(value) = value else { return Some(None) };
    value.get().trim_matches('"').parse().ok().map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Decimal128Type;
    use flowgate_core::destination::ID_COLUMN;
    use flowgate_core::shape::{ColumnShape, LookupTarget};

    use super::*;

    fn shape() -> TableShape {
        let target =
            |table: &str| LookupTarget { table: table.to_owned(), set: String::new(), navigation: String::new() };
        let kinds = [
            ("wr_amount", ColumnKind::Decimal { scale: 10, min: -1e11, max: 1e11 }),
            ("wr_name", ColumnKind::Text { length_max: 100 }),
            ("customerid", ColumnKind::Lookup { targets: vec![target("account"), target("contact")] }),
            ("wr_day", ColumnKind::Date),
        ];
        let column = |(name, kind): (&str, ColumnKind)| {
            let shape =
                ColumnShape { name: name.to_owned(), kind, required: false, can_create: true, can_update: true };
            (name.to_owned(), shape)
        };
        TableShape {
            table: "wr_order".to_owned(),
            set: "wr_orders".to_owned(),
            primary_id: "wr_orderid".to_owned(),
            columns: kinds.into_iter().map(column).collect::<BTreeMap<_, _>>(),
            keys: Vec::new(),
            atomic: true,
            owner: None,
            created_on: None,
            statuses: Vec::new(),
        }
    }

    fn read(columns: &[&str], body: &str) -> Result<Page, ConnectorError> {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        PageReader::new(&shape(), ID_COLUMN, &columns)?.read(body.as_bytes())
    }

    #[test]
    fn long_decimals_keep_every_digit() {
        let page =
            read(&["wr_amount"], r#"{"value":[{"wr_amount":12345678901.0123456789,"wr_orderid":"A"}]}"#).unwrap();
        assert_eq!(page.rows.column(1).as_primitive::<Decimal128Type>().value(0), 123_456_789_010_123_456_789);
        assert_eq!(page.rows.column(0).as_string::<i32>().value(0), "a");
    }

    #[test]
    fn lookups_carry_their_table_wherever_the_annotation_stands() {
        let body = r#"{"value":[
            {"_customerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":"contact","_customerid_value":"AB"},
            {"_customerid_value":null}]}"#;
        let page = read(&["customerid"], body).unwrap();
        let values = page.rows.column(1).as_string::<i32>();
        assert_eq!((values.value(0), values.is_null(1)), ("contact/ab", true));
    }

    #[test]
    fn links_and_deleted_rows_stand_beside_the_rows() {
        let body = r#"{"@odata.deltaLink":"D","value":[{"wr_name":"a\u0041\"","wr_day":"1970-01-03"},
            {"@odata.context":"x/$metadata#wr_orders/$deletedEntity","id":"2e45","reason":"deleted"}],"@odata.nextLink":"N"}"#;
        let page = read(&["wr_name", "wr_day"], body).unwrap();
        assert_eq!((page.rows.num_rows(), page.deleted.as_slice()), (1, ["2e45".to_owned()].as_slice()));
        assert_eq!((page.next_link.as_deref(), page.delta_link.as_deref()), (Some("N"), Some("D")));
        assert_eq!(page.rows.column(1).as_string::<i32>().value(0), "aA\"");
    }

    #[test]
    fn an_answer_without_rows_or_with_a_wrong_type_is_refused() {
        assert!(read(&[], r#"{"error":{}}"#).is_err());
        let error = read(&["wr_name"], r#"{"value":[{"wr_name":5}]}"#).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("`wr_name` is `5`"), "{cause}");
    }
}
