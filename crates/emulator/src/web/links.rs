//! Links between rows: related rows, filtered collections, and `$ref`.
//!
//! Promise: associating over a 1:N relationship sets the lookup of the other row, over N:N adds a
//! row to the intersect table. Left out: bulk association, which the product does not have.

use uuid::Uuid;

use super::rows::RowRequest;
use super::{Access, Answer, Call, Request, route, sets};
use crate::address::{Reference, parse_predicate, parse_reference};
use crate::error::ApiError;
use crate::query::{ColumnPath, Operator, PAGE_ROWS_MAX, Predicate, QueryOptions, Test, write_text};
use crate::schema::{ColumnKind, ManyToMany, Ordinal, Property, Relationship, TableId};
use crate::storage::{Database, Value, ValueRef};
use crate::write::{BindReference, RowInput, Session, link, resolve, unlink, update};

pub(super) fn answer(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    (name, property): (&str, Property),
    key: Option<&str>,
    tail: &[&str],
) -> Result<Answer, ApiError> {
    match (request.method.as_str(), tail) {
        ("GET", []) if key.is_none() => match property {
            Property::ToOne(ordinal, _) => related_row(call, access, request, row, ordinal),
            _ => collection(call, access, request, row, (name, property)),
        },
        ("GET", []) => member(call, access, request, row, (name, property), key.unwrap_or_default()),
        ("GET", ["$ref"]) => reference(call, access, row, (name, property)),
        ("GET", ["$count"]) if key.is_none() => count(call, access, request, row, (name, property)),
        ("POST" | "PUT", ["$ref"]) => associate(call, access, request, row, (name, property)),
        ("DELETE", ["$ref"]) => disassociate(call, access, request, row, (name, property), key),
        ("GET", [other, ..]) => Err(ApiError::no_resource(other)),
        _ => Err(route::method_not_allowed(request)),
    }
}

/// The row a single-valued navigation property leads to.
fn lookup_of(database: &Database, row: &RowRequest<'_>, ordinal: Ordinal) -> Result<Option<(TableId, Uuid)>, ApiError> {
    let key = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
    Ok(database.get(row.table.id, &key).and_then(|row| row.lookup(Some(ordinal))))
}

fn related_row(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
) -> Result<Answer, ApiError> {
    let found = access.read(|database| lookup_of(database, row, ordinal))?;
    let Some((table, id)) = found else {
        return Ok(Answer::no_content());
    };
    let inner = id.to_string();
    let address = crate::address::RowAddress::Id(id);
    let related = RowRequest { schema: row.schema, table: row.schema.table(table), address, inner: &inner };
    super::rows::retrieve(call, access, request, &related)
}

fn reference(
    call: &Call<'_>,
    access: &Access<'_>,
    row: &RowRequest<'_>,
    (name, property): (&str, Property),
) -> Result<Answer, ApiError> {
    let Property::ToOne(ordinal, _) = property else {
        return references(call, access, row, (name, property));
    };
    let found = access.read(|database| lookup_of(database, row, ordinal))?;
    let Some((table, id)) = found else {
        return Ok(Answer::no_content());
    };
    let mut body = b"{\"@odata.context\":".to_vec();
    write_text(&format!("{}/$metadata#$ref", call.base), &mut body);
    body.extend_from_slice(b",\"@odata.id\":");
    write_text(&format!("{}/{}({id})", call.base, row.schema.table(table).set_name), &mut body);
    body.push(b'}');
    Ok(Answer::json(body))
}

/// One row of a collection, by its key.
fn member(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    property: (&str, Property),
    inner: &str,
) -> Result<Answer, ApiError> {
    let found = related(access, row, property)?;
    let table = row.schema.table(found.table);
    let address = parse_predicate(row.schema, table, inner)?;
    let is_member = access.read(|database| {
        let id = address.find(database, table);
        id.is_some_and(|id| found.ids(database).contains(&id))
    });
    if !is_member {
        return Err(address.missing(table));
    }
    super::rows::retrieve(call, access, request, &RowRequest { schema: row.schema, table, address, inner })
}

/// Links to every row of a collection, up to a page.
fn references(
    call: &Call<'_>,
    access: &Access<'_>,
    row: &RowRequest<'_>,
    property: (&str, Property),
) -> Result<Answer, ApiError> {
    let found = related(access, row, property)?;
    let set = &row.schema.table(found.table).set_name;
    let ids = access.read(|database| found.ids(database));
    let links: Vec<_> = ids
        .iter()
        .take(PAGE_ROWS_MAX)
        .map(|id| serde_json::json!({ "@odata.id": format!("{}/{set}({id})", call.base) }))
        .collect();
    let context = format!("{}/$metadata#Collection($ref)", call.base);
    let body = serde_json::json!({ "@odata.context": context, "value": links });
    Ok(Answer::json(body.to_string().into_bytes()))
}

/// The number of rows in a collection.
fn count(
    call: &Call<'_>,
    access: &Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    property: (&str, Property),
) -> Result<Answer, ApiError> {
    let found = related(access, row, property)?;
    let table = row.schema.table(found.table);
    sets::count_where(call, access, request, row.schema, table, Some(found.restriction))
}

/// The rows of a collection: their table, and what singles them out.
struct Related {
    table: TableId,
    restriction: Predicate,
    name: String,
}

impl Related {
    fn ids(&self, database: &Database) -> Vec<Uuid> {
        match &self.restriction {
            Predicate::Test(path, Test::Compare(_, Value::Lookup(table, id))) => {
                let store = database.store(self.table);
                let mut ids = store.pointing(path.column, id);
                let column = Some(path.column);
                ids.retain(|key| store.get(key).and_then(|row| row.lookup(column)) == Some((*table, *id)));
                ids
            }
            Predicate::Test(_, Test::InIds(ids)) => {
                let mut ids: Vec<Uuid> = ids.iter().copied().collect();
                ids.sort_unstable();
                ids
            }
            _ => Vec::new(),
        }
    }
}

/// The related rows of a collection, with all query options.
fn collection(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    property: (&str, Property),
) -> Result<Answer, ApiError> {
    let found = related(access, row, property)?;
    let path = format!("{}({})/{}", row.table.set_name, row.inner, found.name);
    let table = row.schema.table(found.table);
    sets::list_where(call, access, request, row.schema, table, Some(found.restriction), &path)
}

fn related(access: &Access<'_>, row: &RowRequest<'_>, (name, property): (&str, Property)) -> Result<Related, ApiError> {
    let Property::ToMany(index) = property else {
        return Err(ApiError::no_resource(row.inner));
    };
    let key =
        access.read(|database| row.address.find(database, row.table)).ok_or_else(|| row.address.missing(row.table))?;
    Ok(match &row.schema.relationships[usize::from(index)] {
        Relationship::OneToMany(one) => {
            let path = ColumnPath { hops: Vec::new(), table: one.referencing, column: one.column };
            let test = Test::Compare(Operator::Eq, Value::Lookup(row.table.id, key));
            Related { table: one.referencing, restriction: Predicate::Test(path, test), name: one.to_many.clone() }
        }
        Relationship::ManyToMany(many) => {
            let own = many.side_of(row.table.id, name);
            let table = many.tables[1 - own];
            let ids = access.read(|database| linked_ids(database, many, own, key));
            let path = ColumnPath { hops: Vec::new(), table, column: 0 };
            Related { table, restriction: Predicate::Test(path, Test::InIds(ids)), name: many.navigation[own].clone() }
        }
    })
}

fn linked_ids(database: &Database, many: &ManyToMany, own: usize, key: Uuid) -> std::collections::HashSet<Uuid> {
    let store = database.store(many.intersect);
    let links = store.pointing(many.columns[own], &key);
    let other = links.iter().filter_map(|link| match store.get(link)?.get(many.columns[1 - own]) {
        Some(ValueRef::Guid(theirs)) => Some(theirs),
        _ => None,
    });
    other.collect()
}

fn linked_reference(request: &Request, row: &RowRequest<'_>) -> Result<Reference, ApiError> {
    let body: serde_json::Value = serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("The body does not parse: {error}")))?;
    let link = body.get("@odata.id").and_then(serde_json::Value::as_str);
    parse_reference(row.schema, link.ok_or_else(|| ApiError::bad_request("The body has no '@odata.id'."))?)
}

fn set_lookup(
    session: &Session<'_>,
    database: &mut Database,
    (table, key): (&crate::schema::Table, Uuid),
    ordinal: Ordinal,
    target: TableId,
    bind: BindReference,
) -> Result<(), ApiError> {
    let ColumnKind::Lookup { targets } = &table.column(ordinal).kind else {
        return Err(ApiError::bad_request("The property is not a lookup."));
    };
    let index = targets.iter().position(|known| known.table == target).unwrap_or(0);
    let mut input = RowInput::default();
    input.binds.push((ordinal, index as u16, bind));
    update(session, database, table, key, input)
}

fn associate(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    (name, property): (&str, Property),
) -> Result<Answer, ApiError> {
    let reference = linked_reference(request, row)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let key = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        let (other_table, other) = resolve(&session, database, &reference)?;
        match property {
            Property::ToOne(ordinal, _) => {
                set_lookup(&session, database, (row.table, key), ordinal, other_table, BindReference::To(reference))?;
            }
            Property::ToMany(index) => match &row.schema.relationships[usize::from(index)] {
                Relationship::OneToMany(one) => {
                    let own = crate::address::RowAddress::Id(key);
                    let bind = BindReference::To(Reference::Row(std::sync::Arc::clone(row.table), own));
                    let child = row.schema.table(one.referencing);
                    set_lookup(&session, database, (child, other), one.column, row.table.id, bind)?;
                }
                Relationship::ManyToMany(many) => {
                    if other_table != many.tables[1 - many.side_of(row.table.id, name)] {
                        return Err(ApiError::bad_request("The row to associate belongs to another table."));
                    }
                    link(database, many, many.side_of(row.table.id, name), key, other)?;
                }
            },
            _ => {
                return Err(ApiError::bad_request("The property is not a navigation property."));
            }
        }
        Ok(Answer::no_content())
    })
}

fn disassociate(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    (name, property): (&str, Property),
    key: Option<&str>,
) -> Result<Answer, ApiError> {
    let options = QueryOptions::parse(&request.query)?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let own = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        match property {
            Property::ToOne(ordinal, _) => {
                set_lookup(&session, database, (row.table, own), ordinal, row.table.id, BindReference::Clear)?;
            }
            Property::ToMany(index) => {
                let relationship = &row.schema.relationships[usize::from(index)];
                let other = unlinked_row(&session, database, row, (name, relationship), key, options.id.as_deref())?;
                match relationship {
                    Relationship::OneToMany(one) => {
                        let child = row.schema.table(one.referencing);
                        set_lookup(&session, database, (child, other), one.column, row.table.id, BindReference::Clear)?;
                    }
                    Relationship::ManyToMany(many) => {
                        unlink(&session, database, many, many.side_of(row.table.id, name), own, other);
                    }
                }
            }
            _ => {
                return Err(ApiError::bad_request("The property is not a navigation property."));
            }
        }
        Ok(Answer::no_content())
    })
}

/// The other row of a link, named in the path or in `$id`.
fn unlinked_row(
    session: &Session<'_>,
    database: &Database,
    row: &RowRequest<'_>,
    (name, relationship): (&str, &Relationship),
    key: Option<&str>,
    link: Option<&str>,
) -> Result<Uuid, ApiError> {
    let other = match relationship {
        Relationship::OneToMany(one) => one.referencing,
        Relationship::ManyToMany(many) => many.tables[1 - many.side_of(row.table.id, name)],
    };
    let table = row.schema.table(other);
    if let Some(inner) = key {
        let address = parse_predicate(row.schema, table, inner)?;
        return address.find(database, table).ok_or_else(|| address.missing(table));
    }
    let link =
        link.ok_or_else(|| ApiError::bad_request("The link to remove is named neither in the path nor in '$id'."))?;
    resolve(session, database, &parse_reference(row.schema, link)?).map(|(_, id)| id)
}
