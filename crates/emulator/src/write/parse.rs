//! Bodies of writes, read straight into typed values without a JSON tree in between.
//!
//! Promise: an unknown property, a lookup written as `_x_value`, a wrong type or a bad value is
//! refused while reading; bulk bodies cost one pass. Left out: anything that needs the database,
//! such as whether a bind's target exists.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::convert::{Scalar, ValueRules, convert};
use super::resolve::BindReference;
use crate::address::{KeyText, Reference, RowAddress, parse_reference, parse_reference_with};
use crate::error::ApiError;
use crate::schema::{ColumnKind, Ordinal, Property, Schema, Table};
use crate::storage::Value;

/// One row of a request body.
#[derive(Debug, Default)]
pub(crate) struct RowInput {
    /// The primary id, when the body gives it.
    pub(crate) id: Option<Uuid>,
    pub(crate) cells: Vec<(Ordinal, Option<Value>)>,
    /// Lookups to set, with the index of the navigation property's target.
    pub(crate) binds: Vec<(Ordinal, u16, BindReference)>,
    /// `@odata.id`.
    pub(crate) address: Option<RowAddress>,
    /// Related rows to create or link: navigation property and body.
    pub(crate) children: Vec<(String, Property, serde_json::Value)>,
    /// Contents of image columns.
    pub(crate) images: Vec<(Ordinal, Option<Vec<u8>>)>,
    /// Takes the place of a row that is there: an upsert into an elastic table.
    pub(crate) replaces: bool,
    has_type: bool,
}

impl RowInput {
    /// Whether the body sets a column, to a value or to null.
    pub(crate) fn sets(&self, ordinal: Ordinal) -> bool {
        self.cells.iter().any(|(found, _)| *found == ordinal) || self.binds.iter().any(|(found, ..)| *found == ordinal)
    }
}

/// What the reader needs at every level, and where it leaves the error it stops for.
struct Context<'a> {
    schema: &'a Schema,
    table: &'a Table,
    rules: ValueRules,
    error: RefCell<Option<ApiError>>,
}

impl Context<'_> {
    fn fail<E: serde::de::Error>(&self, error: ApiError) -> E {
        *self.error.borrow_mut() = Some(error);
        E::custom("row refused")
    }
}

/// Reads a body of one row.
pub(crate) fn parse_row(schema: &Schema, table: &Table, body: &[u8], rules: ValueRules) -> Result<RowInput, ApiError> {
    let context = Context { schema, table, rules, error: RefCell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = RowSeed(&context).deserialize(&mut deserializer).and_then(|row| deserializer.end().map(|()| row));
    read.map_err(|error| {
        let given = context.error.borrow_mut().take();
        given.unwrap_or_else(|| ApiError::payload(&table.set_name, format!("Microsoft.OData.ODataException: {error}")))
    })
}

/// Reads a body of `Targets`; every one must name its type.
pub(crate) fn parse_targets(
    schema: &Schema,
    table: &Table,
    body: &[u8],
    rules: ValueRules,
) -> Result<Vec<RowInput>, ApiError> {
    let context = Context { schema, table, rules, error: RefCell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = TargetsSeed(&context).deserialize(&mut deserializer).and_then(|rows| deserializer.end().map(|()| rows));
    let rows = read.map_err(|error| refusal(&context, &error))?;
    let rows = rows.ok_or_else(|| ApiError::bad_request("Required field 'Targets' is missing"))?;
    if rows.is_empty() {
        return Err(ApiError::bad_request("The value of the parameter 'Targets' cannot be null or empty."));
    }
    Ok(rows)
}

fn refusal(context: &Context<'_>, error: &serde_json::Error) -> ApiError {
    context.error.borrow_mut().take().unwrap_or_else(|| {
        ApiError::bad_request(format!("An error occurred while validating input parameters: {error}"))
    })
}

struct TargetsSeed<'a>(&'a Context<'a>);

impl<'de> DeserializeSeed<'de> for TargetsSeed<'_> {
    type Value = Option<Vec<RowInput>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TargetsSeed<'_> {
    type Value = Option<Vec<RowInput>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with Targets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut targets = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "Targets" {
                targets = Some(map.next_value_seed(RowsSeed(self.0))?);
            } else if name.starts_with('@') {
                map.next_value::<IgnoredAny>()?;
            } else {
                let message = format!(
                    "The parameter '{name}' in the request payload is not a valid parameter for the operation."
                );
                return Err(self.0.fail(ApiError::bad_request(message)));
            }
        }
        Ok(targets)
    }
}

struct RowsSeed<'a>(&'a Context<'a>);

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = Vec<RowInput>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = Vec<RowInput>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = seq.next_element_seed(RowSeed(self.0))? {
            if !row.has_type {
                let message = "An error occurred while validating input parameters: a target has no '@odata.type', \
                               which every item of 'Targets' must have.";
                return Err(self.0.fail(ApiError::bad_request(message)));
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

struct RowSeed<'a>(&'a Context<'a>);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = RowInput;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = RowInput;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowInput, A::Error> {
        let context = self.0;
        let mut row = RowInput { cells: Vec::with_capacity(24), ..RowInput::default() };
        while let Some(member) = map.next_key_seed(MemberSeed(context))? {
            match member {
                Member::Column(ordinal) if matches!(context.table.column(ordinal).kind, ColumnKind::Image { .. }) => {
                    let text: Option<Cow<'de, str>> = map.next_value()?;
                    let image = text.filter(|text| !text.is_empty()).map(|text| image(context, ordinal, &text));
                    row.images.push((ordinal, image.transpose().map_err(|error| context.fail(error))?));
                }
                Member::Column(ordinal) => {
                    let value = map.next_value_seed(CellSeed { context, ordinal })?;
                    set_cell(&mut row, ordinal, value);
                }
                Member::Bind(ordinal, target) => {
                    let text: Option<Cow<'de, str>> = map.next_value()?;
                    let reference =
                        bind_reference(context.schema, text.as_deref()).map_err(|error| context.fail(error))?;
                    row.binds.push((ordinal, target, reference));
                }
                Member::Type => {
                    let name: Cow<'de, str> = map.next_value()?;
                    check_type(context.table, &name).map_err(|error| context.fail(error))?;
                    row.has_type = true;
                }
                Member::Address => {
                    let link: Cow<'de, str> = map.next_value()?;
                    row.address = Some(target_address(context, &link).map_err(|error| context.fail(error))?);
                }
                Member::Child(name, property) => match (property, map.next_value::<serde_json::Value>()?) {
                    // A navigation property that leads nowhere clears its lookup, as a null bind does.
                    (Property::ToOne(ordinal, target), serde_json::Value::Null) => {
                        let nowhere = bind_reference(context.schema, None).map_err(|error| context.fail(error))?;
                        row.binds.push((ordinal, target, nowhere));
                    }
                    (property, value) => row.children.push((name, property, value)),
                },
                Member::Ignored => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(row)
    }
}

/// Images travel as base64.
fn image(context: &Context<'_>, ordinal: Ordinal, text: &str) -> Result<Vec<u8>, ApiError> {
    STANDARD.decode(text).map_err(|_| {
        let name = &context.table.column(ordinal).logical;
        ApiError::bad_request(format!("Cannot convert the value of '{name}' to 'Edm.Binary': it is not base64."))
    })
}

fn set_cell(row: &mut RowInput, ordinal: Ordinal, value: Option<Value>) {
    if ordinal == 0 {
        row.id = match value {
            Some(Value::Guid(id)) => Some(id),
            _ => None,
        };
        return;
    }
    match row.cells.iter_mut().find(|(found, _)| *found == ordinal) {
        Some(cell) => cell.1 = value,
        None => row.cells.push((ordinal, value)),
    }
}

fn bind_reference(schema: &Schema, text: Option<&str>) -> Result<BindReference, ApiError> {
    match text {
        None => Ok(BindReference::Clear),
        Some(text) => parse_reference(schema, text).map(BindReference::To),
    }
}

fn check_type(table: &Table, name: &str) -> Result<(), ApiError> {
    let name = name.strip_prefix('#').unwrap_or(name);
    if name == table.odata_type {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "A type named '{name}' is not compatible with the expected type '{}'; all targets belong to one table.",
        table.odata_type
    )))
}

fn target_address(context: &Context<'_>, link: &str) -> Result<RowAddress, ApiError> {
    let key_text = if context.rules.any_key_text { KeyText::Any } else { KeyText::Addressable };
    match parse_reference_with(context.schema, link, key_text)? {
        Reference::Row(table, address) if table.id == context.table.id => Ok(address),
        _ => Err(ApiError::bad_request(format!(
            "The '@odata.id' '{link}' does not name a row of {}.",
            context.table.set_name
        ))),
    }
}

/// What a member's name means.
enum Member {
    Column(Ordinal),
    Bind(Ordinal, u16),
    Type,
    Address,
    Child(String, Property),
    Ignored,
}

struct MemberSeed<'a>(&'a Context<'a>);

impl<'de> DeserializeSeed<'de> for MemberSeed<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberSeed<'_> {
    type Value = Member;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a property name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Member, E> {
        member(self.0.table, name).map_err(|error| self.0.fail(error))
    }
}

fn member(table: &Table, name: &str) -> Result<Member, ApiError> {
    match table.properties.get(name) {
        Some(Property::Column(ordinal)) => return Ok(Member::Column(*ordinal)),
        Some(Property::LookupValue(ordinal)) => {
            return Err(lookup_value(table, *ordinal, name));
        }
        // Parties are written through the collection of the activity's parties.
        Some(Property::Parties(_)) => return Err(unknown_property(table, name)),
        Some(property) => return Ok(Member::Child(name.to_owned(), *property)),
        None => {}
    }
    if let Some(navigation) = name.strip_suffix("@odata.bind") {
        return match table.properties.get(navigation) {
            Some(Property::ToOne(ordinal, target)) => Ok(Member::Bind(*ordinal, *target)),
            Some(property @ Property::ToMany(_)) => Ok(Member::Child(name.to_owned(), *property)),
            _ => Err(undeclared(table, navigation)),
        };
    }
    match name {
        "@odata.type" => Ok(Member::Type),
        "@odata.id" => Ok(Member::Address),
        _ if name.contains('@') => Ok(Member::Ignored),
        _ => Err(unknown_property(table, name)),
    }
}

/// The error of a lookup that is written as it is read; `@odata.bind` to its navigation property sets it.
fn lookup_value(table: &Table, ordinal: Ordinal, name: &str) -> ApiError {
    let message = format!(
        "Property {name} cannot be updated to null. The reference property can only be deleted. ('{}' is set through its \
         navigation property with '@odata.bind'.)",
        table.column(ordinal).logical
    );
    ApiError::query(message)
}

/// The error of a property the type does not declare.
pub(super) fn unknown_property(table: &Table, name: &str) -> ApiError {
    let type_name = &table.odata_type;
    let inner = format!(
        "Microsoft.Crm.CrmException: Invalid property '{name}' was found in entity '{type_name}'. ---> \
         Microsoft.OData.ODataException: The property '{name}' does not exist on type '{type_name}'. Make sure to only use \
         property names that are defined by the type."
    );
    ApiError::payload(&table.set_name, inner)
}

fn undeclared(table: &Table, navigation: &str) -> ApiError {
    let inner = format!(
        "Microsoft.OData.ODataException: An undeclared property '{navigation}' which only has property annotations in the \
         payload but no property value was found in the payload. In OData, only declared navigation properties and \
         declared named streams can be represented as properties without values."
    );
    ApiError::payload(&table.set_name, inner)
}

struct CellSeed<'a> {
    context: &'a Context<'a>,
    ordinal: Ordinal,
}

impl CellSeed<'_> {
    fn convert<E: serde::de::Error>(&self, scalar: Scalar<'_>) -> Result<Option<Value>, E> {
        let table = self.context.table;
        convert(self.context.schema, table, table.column(self.ordinal), scalar, self.context.rules)
            .map_err(|error| self.context.fail(error))
    }
}

impl<'de> DeserializeSeed<'de> for CellSeed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.context.table.column(self.ordinal).kind {
            // Exact arithmetic needs the digits as written.
            ColumnKind::Decimal { .. } | ColumnKind::Money { .. } => {
                let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
                let scalar = raw_scalar(raw.get()).map_err(D::Error::custom)?;
                self.convert(scalar)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

fn raw_scalar(raw: &str) -> Result<Scalar<'_>, serde_json::Error> {
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Scalar::Null,
        Some(b't' | b'f') => Scalar::Bool(raw == "true"),
        Some(b'"') => Scalar::Text(Cow::Owned(serde_json::from_str(raw)?)),
        Some(b'{' | b'[') => return Err(serde_json::Error::custom("expected a number")),
        _ => Scalar::Number(raw),
    })
}

impl<'de> Visitor<'de> for CellSeed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a value for property '{}'", self.context.table.column(self.ordinal).logical)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.convert(Scalar::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.convert(Scalar::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.convert(Scalar::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.convert(Scalar::Int(value)),
            Err(_) => self.convert(Scalar::Float(value as f64)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.convert(Scalar::Float(value))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        self.convert(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.convert(Scalar::Text(Cow::Borrowed(value)))
    }
}
