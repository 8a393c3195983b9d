//! Which tables a relationship may join: `GetValidManyToMany`, `CanBeReferenced` and their siblings.
//!
//! Promise: what these say can be, can be made through the definitions. Left out: customizations that an
//! environment's managed properties forbid.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::actions::{body_of, call_arguments, member, object};
use super::{Answer, Call, Request};
use crate::error::{ApiError, Code};
use crate::schema::{Schema, Table};

/// What a table may be in a relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The one that others point at.
    Referenced,
    /// The one that holds the lookup.
    Referencing,
    /// Either side of a many-to-many relationship.
    ManyToMany,
}

/// Functions that list tables, with the member of their answer; actions that ask about one.
const FUNCTIONS: &[(&str, Part)] = &[
    ("GetValidManyToMany", Part::ManyToMany),
    ("GetValidReferencedEntities", Part::Referenced),
    ("GetValidReferencingEntities", Part::Referencing),
];
const ACTIONS: &[(&str, &str, Part)] = &[
    ("CanBeReferenced", "CanBeReferenced", Part::Referenced),
    ("CanBeReferencing", "CanBeReferencing", Part::Referencing),
    ("CanManyToMany", "CanManyToMany", Part::ManyToMany),
];

/// Answers an operation of this kind, if it is one.
pub(super) fn answer(
    call: &Call<'_>,
    request: &Request,
    schema: &Schema,
    name: &str,
    arguments: Option<&str>,
) -> Option<Result<Answer, ApiError>> {
    if let (&http::Method::GET, Some((_, part))) = (&request.method, FUNCTIONS.iter().find(|(known, _)| *known == name))
    {
        return Some(list(call, request, schema, (name, *part), arguments.unwrap_or_default()));
    }
    let action = ACTIONS.iter().find(|(known, ..)| *known == name)?;
    (request.method == http::Method::POST).then(|| ask(call, request, schema, action))
}

/// Whether definitions let a table take a part.
fn can_be(table: &Table, part: Part) -> bool {
    let is_plain = !table.is_intersect && table.writable && !table.is_elastic;
    match part {
        Part::Referenced => !table.is_intersect,
        Part::Referencing => is_plain,
        Part::ManyToMany => is_plain && !table.is_activity,
    }
}

fn named<'s>(schema: &'s Schema, name: &str) -> Result<&'s Arc<Table>, ApiError> {
    schema.by_logical(name).ok_or_else(|| {
        let message = format!("The entity with a name = '{name}' was not found in the MetadataCache.");
        ApiError::new(Code::NoSuchTable, message).with_status(http::StatusCode::BAD_REQUEST)
    })
}

fn list(
    call: &Call<'_>,
    request: &Request,
    schema: &Schema,
    (name, part): (&str, Part),
    arguments: &str,
) -> Result<Answer, ApiError> {
    // The partner may be named; which tables there are depends on it only in that it must exist.
    let arguments = call_arguments(request, arguments)?;
    for partner in arguments.values() {
        named(schema, partner.trim_matches('\''))?;
    }
    let names: Vec<Json> =
        schema.live_tables().filter(|table| can_be(table, part)).map(|table| table.logical.as_str().into()).collect();
    Ok(object(call, &format!("{name}Response"), [("EntityNames", names.into())]))
}

fn ask(
    call: &Call<'_>,
    request: &Request,
    schema: &Schema,
    (name, shown, part): &(&str, &str, Part),
) -> Result<Answer, ApiError> {
    let body: Map<String, Json> = body_of(request)?;
    let table = member(&body, "EntityName")?.as_str().unwrap_or_default();
    let can = can_be(named(schema, table)?, *part);
    Ok(object(call, &format!("{name}Response"), [(shown, can.into())]))
}
