//! Sharing of rows: `GrantAccess`, `ModifyAccess`, `RevokeAccess`, and the functions that tell who has what.
//!
//! Shares are rows of `principalobjectaccess`. Promise: what is granted is told until it is revoked or the row is
//! gone. Left out: what shares change, as every user is a system administrator here and may do everything anyway,
//! and shares that follow a relationship.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::actions::{body_of, call_arguments, entity_reference, member, object};
use super::rows::RowRequest;
use super::{Access, Answer, Call, Request};
use crate::address::{Reference, parse_reference};
use crate::error::{ApiError, Code};
use crate::schema::{Schema, Table, stable_id};
use crate::storage::{Database, Row, Value, ValueRef, encode};

/// The rights, in the order that answers list them, with their bits.
const RIGHTS: &[(&str, i64)] = &[
    ("ReadAccess", 1),
    ("WriteAccess", 2),
    ("AppendAccess", 4),
    ("AppendToAccess", 16),
    ("CreateAccess", 32),
    ("DeleteAccess", 65_536),
    ("ShareAccess", 262_144),
    ("AssignAccess", 524_288),
];

type Named = (Arc<Table>, Uuid);

/// Answers an unbound operation of this kind, if it is one.
pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    (name, arguments): (&str, &str),
) -> Option<Result<Answer, ApiError>> {
    match (request.method.as_str(), name) {
        ("POST", "GrantAccess" | "ModifyAccess" | "RevokeAccess") => Some(change(call, access, request, schema, name)),
        ("GET", "RetrieveSharedPrincipalsAndAccess") => Some(principals(call, access, request, schema, arguments)),
        _ => None,
    }
}

/// `ReadAccess,WriteAccess`, in any spacing.
fn parse_mask(text: &str) -> Result<i64, ApiError> {
    let mut mask = 0;
    for name in text.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "None")) {
        let right = RIGHTS.iter().find(|(known, _)| *known == name);
        mask |= right.ok_or_else(|| ApiError::bad_request(format!("The access right '{name}' is not known.")))?.1;
    }
    Ok(mask)
}

fn mask_text(mask: i64) -> String {
    let names: Vec<&str> = RIGHTS.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "None".to_owned() } else { names.join(", ") }
}

fn reference(schema: &Schema, value: &Json) -> Result<Named, ApiError> {
    entity_reference(schema, value).map(|(table, id)| (Arc::clone(table), id))
}

fn principal(schema: &Schema, value: &Json) -> Result<Named, ApiError> {
    let found = reference(schema, value)?;
    if found.0.is_principal { Ok(found) } else { Err(ApiError::bad_request("Rows are shared with users and teams.")) }
}

fn exists(database: &Database, (table, id): &Named) -> Result<(), ApiError> {
    database.get(table.id, id).map(|_| ()).ok_or_else(|| crate::address::does_not_exist(table, *id))
}

fn change(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    name: &str,
) -> Result<Answer, ApiError> {
    let body: Map<String, Json> = body_of(request)?;
    let target = reference(schema, member(&body, "Target")?)?;
    let (who, mask) = if name == "RevokeAccess" {
        (principal(schema, member(&body, "Revokee")?)?, None)
    } else {
        let given = member(&body, "PrincipalAccess")?;
        let of = |name: &str| {
            given.get(name).ok_or_else(|| ApiError::bad_request(format!("PrincipalAccess has no '{name}'.")))
        };
        (principal(schema, of("Principal")?)?, Some(parse_mask(of("AccessMask")?.as_str().unwrap_or_default())?))
    };
    if target.0.known.owner.is_none() {
        let message = format!("The '{name}' method does not support entities of type '{}'.", target.0.logical);
        return Err(ApiError::new(Code::MessageNotSupported, message));
    }
    let shares = schema.by_logical("principalobjectaccess").ok_or_else(|| ApiError::not_here("shares"))?;
    access.write(|database| {
        exists(database, &target)?;
        exists(database, &who)?;
        let id = stable_id(&format!("share:{}:{}", target.1, who.1));
        let had = database.get(shares.id, &id).and_then(|row| row.int(shares.ordinal("accessrightsmask"))).unwrap_or(0);
        let now = call.now as i64;
        match mask.map(|mask| if name == "GrantAccess" { had | mask } else { mask }) {
            None | Some(0) => {
                database.remove(shares.id, id, now);
            }
            Some(mask) => store(database, shares, id, (&target, &who), (mask, now)),
        }
        Ok(())
    })?;
    Ok(Answer::no_content())
}

fn store(database: &mut Database, shares: &Table, id: Uuid, (target, who): (&Named, &Named), (mask, now): (i64, i64)) {
    let values = [
        ("accessrightsmask", Value::Int(mask)),
        ("changedon", Value::Time(now)),
        ("inheritedaccessrightsmask", Value::Int(0)),
        ("objectid", Value::Guid(target.1)),
        ("objecttypecode", Value::Text(target.0.logical.as_str().into())),
        ("principalid", Value::Guid(who.1)),
        ("principaltypecode", Value::Text(who.0.logical.as_str().into())),
    ];
    let mut cells: Vec<_> =
        values.into_iter().filter_map(|(name, value)| Some((shares.ordinal(name)?, Some(value)))).collect();
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    // The table has no alternate keys that could object.
    let _stored = database.put(shares.id, id, encode(&cells));
}

/// The row that a function's `Target` names.
fn target_of(request: &Request, schema: &Schema, database: &Database, arguments: &str) -> Result<Named, ApiError> {
    let arguments = call_arguments(request, arguments)?;
    let missing = || ApiError::bad_request("The function needs Target, as {'@odata.id': 'accounts(…)'}.");
    let text = arguments.get("Target").ok_or_else(missing)?;
    // OData has single quotes, and clients write either.
    let value: Json = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace('\'', "\"")))
        .map_err(|_| missing())?;
    let link = value.get("@odata.id").and_then(Json::as_str).ok_or_else(missing)?;
    match parse_reference(schema, link)? {
        Reference::Row(table, address) => {
            let id = address.find(database, &table).ok_or_else(|| address.missing(&table))?;
            Ok((table, id))
        }
        Reference::ContentId(_) => Err(missing()),
    }
}

/// The shares of a row: with whom, and which rights.
fn shares_of(database: &Database, schema: &Schema, target: Uuid) -> Vec<(Named, i64)> {
    let Some(shares) = schema.by_logical("principalobjectaccess") else { return Vec::new() };
    let guid = |row: &Row, name: &str| match row.get(shares.ordinal(name)?)? {
        ValueRef::Guid(id) => Some(id),
        _ => None,
    };
    let rows = database.store(shares.id).rows_after(None).filter(|(_, row)| guid(row, "objectid") == Some(target));
    let share = |row: &Row| {
        let table = match row.get(shares.ordinal("principaltypecode")?)? {
            ValueRef::Text(name) => Arc::clone(schema.by_logical(name)?),
            _ => return None,
        };
        let who = (table, guid(row, "principalid")?);
        exists(database, &who).ok()?;
        Some((who, row.int(shares.ordinal("accessrightsmask"))?))
    };
    rows.filter_map(|(_, row)| share(row)).collect()
}

fn principals(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    schema: &Schema,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let list = access.read(|database| {
        let target = target_of(request, schema, database, arguments)?;
        let shown = |((table, id), mask): (Named, i64)| {
            let mut principal = Map::new();
            principal.insert("@odata.type".into(), format!("#{}", table.odata_type).into());
            principal.insert(table.primary_id().to_owned(), id.to_string().into());
            json!({ "AccessMask": mask_text(mask), "Principal": principal })
        };
        Ok::<Vec<Json>, ApiError>(shares_of(database, schema, target.1).into_iter().map(shown).collect())
    })?;
    Ok(object(call, "RetrieveSharedPrincipalsAndAccessResponse", [("PrincipalAccesses", list.into())]))
}

/// `RetrievePrincipalAccess`, bound to a user or a team: a user and an owner may do everything, a team what is shared.
pub(super) fn rights_of(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    arguments: &str,
) -> Result<Answer, ApiError> {
    let mask = access.read(|database| {
        let who = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        let (table, target) = target_of(request, row.schema, database, arguments)?;
        let owner = database.get(table.id, &target).and_then(|row| row.lookup(table.known.owner)).map(|(_, id)| id);
        if row.table.logical == "systemuser" || owner == Some(who) {
            return Ok(RIGHTS.iter().fold(0, |mask, (_, bit)| mask | bit));
        }
        let shares = shares_of(database, row.schema, target);
        Ok::<i64, ApiError>(shares.iter().find(|((_, id), _)| *id == who).map_or(0, |(_, mask)| *mask))
    })?;
    Ok(object(call, "RetrievePrincipalAccessResponse", [("AccessRights", mask_text(mask).into())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_and_written_by_name() {
        assert_eq!(parse_mask("ReadAccess, WriteAccess").unwrap(), 3);
        assert_eq!(mask_text(3), "ReadAccess, WriteAccess");
        assert_eq!(mask_text(parse_mask("None").unwrap()), "None");
        assert!(parse_mask("EveryAccess").is_err());
    }
}
