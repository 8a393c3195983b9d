//! `$expand`: related rows inside a row.
//!
//! Promise: at most 15 in one query; options by kind of navigation as documented; a first-level
//! collection is not paged, holds up to 5,000 rows, and carries the static nextLink of its
//! filtered collection; with a nested expand and a page size, nested collections are paged.
//! Left out, and refused by name: many-to-many inside another expand.

use uuid::Uuid;

use super::compile::{Link, Predicate, Scope, compile};
use super::eval::{collection, matches};
use super::json::write_text;
use super::options::QueryOptions;
use super::order::{OrderKey, compare_keys, parse_order, sort_key};
use super::page::{Cookie, PAGE_ROWS_MAX, encode_query};
use super::parse::parse_filter;
use super::read::{Projection, Reader, check_answer, projection, write_row};
use super::view::RowView;
use crate::address::split_outside_quotes;
use crate::error::ApiError;
use crate::schema::{ColumnKind, Ordinal, Property, Relationship, TableId};
use crate::storage::ValueRef;

/// Expansions one query may hold.
const EXPANDS_MAX: usize = 15;

#[derive(Clone, Debug)]
enum Navigation {
    ToOne { column: Ordinal },
    ToMany(Link),
}

#[derive(Clone, Debug)]
pub(crate) struct Expand {
    pub(crate) name: String,
    pub(crate) projection: Projection,
    table: TableId,
    navigation: Navigation,
    filter: Option<Predicate>,
    order: Vec<OrderKey>,
    top: Option<usize>,
    expands: Vec<Expand>,
    is_reference: bool,
    /// `$select` and `$filter` as written, for the nextLink.
    options: String,
}

pub(crate) fn parse_expand(scope: &Scope<'_>, text: &str, options: &QueryOptions) -> Result<Vec<Expand>, ApiError> {
    parse_level(scope, text, &mut Parsing { options, left: EXPANDS_MAX, is_nested: false })
}

/// How far the parser has come: it counts expansions as it reads them, so no text leads it deeper.
struct Parsing<'a> {
    options: &'a QueryOptions,
    /// Expansions the query may still hold.
    left: usize,
    is_nested: bool,
}

fn parse_level(scope: &Scope<'_>, text: &str, parsing: &mut Parsing<'_>) -> Result<Vec<Expand>, ApiError> {
    let nested = parsing.is_nested;
    let mut expands = Vec::new();
    for item in split_outside_quotes(text, ',') {
        parsing.left = parsing.left.checked_sub(1).ok_or_else(|| {
            ApiError::query(format!("The query holds too many $expand options; at most {EXPANDS_MAX} are allowed."))
        })?;
        expands.push(parse_item(scope, item.trim(), parsing)?);
    }
    let has_linked =
        expands.iter().any(|expand| matches!(expand.navigation, Navigation::ToMany(Link::Intersect { .. })));
    if has_linked && (nested || expands.len() > 1 || expands.iter().any(|expand| !expand.expands.is_empty())) {
        return Err(ApiError::query(
            "Expand on a many-to-many relationship cannot be nested or combined with other expands.",
        ));
    }
    Ok(expands)
}

fn parse_item(scope: &Scope<'_>, item: &str, parsing: &mut Parsing<'_>) -> Result<Expand, ApiError> {
    let (name, inner) = match item.split_once('(') {
        Some((name, rest)) => (
            name,
            rest.strip_suffix(')').ok_or_else(|| ApiError::query("An $expand option has no closing parenthesis."))?,
        ),
        None => (item, ""),
    };
    let (name, is_reference) = name.strip_suffix("/$ref").map_or((name, false), |name| (name, true));
    let (table, navigation) = navigation(scope, name)?;
    if is_reference && !matches!(navigation, Navigation::ToOne { .. }) {
        return Err(ApiError::query("Expand with $ref is only supported on lookup type navigation property."));
    }
    let target = scope.schema.table(table);
    let inner_scope = Scope { table: target, ..*scope };
    let mut expand = Expand {
        name: name.to_owned(),
        projection: projection(target, None)?,
        table,
        navigation,
        filter: None,
        order: Vec::new(),
        top: None,
        expands: Vec::new(),
        is_reference,
        options: String::new(),
    };
    for option in split_outside_quotes(inner, ';') {
        if !option.trim().is_empty() {
            apply_option(&inner_scope, &mut expand, option.trim(), parsing)?;
        }
    }
    Ok(expand)
}

fn apply_option(
    scope: &Scope<'_>,
    expand: &mut Expand,
    option: &str,
    parsing: &mut Parsing<'_>,
) -> Result<(), ApiError> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let only_two = parsing.is_nested || matches!(expand.navigation, Navigation::ToOne { .. });
    match name {
        "$select" => expand.projection = projection(scope.table, Some(value))?,
        "$filter" => expand.filter = Some(compile(scope, &parse_filter(value, &parsing.options.aliases)?)?),
        "$expand" => {
            let was_nested = std::mem::replace(&mut parsing.is_nested, true);
            expand.expands = parse_level(scope, value, parsing)?;
            parsing.is_nested = was_nested;
        }
        "$orderby" | "$top" if only_two => {
            return Err(ApiError::query(
                "Only $select and $filter clause can be provided while doing $expand on many-to-one relationship or nested \
                 one-to-many relationship.",
            ));
        }
        "$orderby" => expand.order = parse_order(scope, value)?,
        "$top" => {
            expand.top = Some(value.parse().map_err(|_| ApiError::query(format!("Invalid $top '{value}'.")))?);
        }
        _ => {
            return Err(ApiError::query(format!("The option '{name}' is not supported inside $expand.")));
        }
    }
    if matches!(name, "$select" | "$filter") {
        let joint = if expand.options.is_empty() { "" } else { "&" };
        expand.options = format!("{}{joint}{name}={}", expand.options, encode_query(value));
    }
    Ok(())
}

fn navigation(scope: &Scope<'_>, name: &str) -> Result<(TableId, Navigation), ApiError> {
    match scope.table.properties.get(name) {
        Some(Property::ToOne(column, target)) => {
            let ColumnKind::Lookup { targets } = &scope.table.column(*column).kind else {
                return Err(super::compile::unknown_property(scope.table, name));
            };
            Ok((targets[usize::from(*target)].table, Navigation::ToOne { column: *column }))
        }
        Some(Property::ToMany(index)) => match &scope.schema.relationships[usize::from(*index)] {
            Relationship::OneToMany(one) => {
                let link = Link::Lookup { column: one.column, parent: scope.table.id };
                Ok((one.referencing, Navigation::ToMany(link)))
            }
            Relationship::ManyToMany(many) => {
                let own = many.side_of(scope.table.id, name);
                let linked = Navigation::ToMany(Link::Intersect {
                    table: many.intersect,
                    own: many.columns[own],
                    other: many.columns[1 - own],
                });
                Ok((many.tables[1 - own], linked))
            }
        },
        _ => Err(super::compile::unknown_property(scope.table, name)),
    }
}

/// Writes the expansions of a row as further members.
pub(super) fn write_expands(
    reader: &Reader<'_>,
    view: RowView<'_>,
    expands: &[Expand],
    page_size: Option<usize>,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    // Nested expansion turns on paging of collections, but only together with a page size.
    let nested = expands.iter().any(|expand| !expand.expands.is_empty());
    for expand in expands {
        out.push(b',');
        write_text(&expand.name, out);
        out.push(b':');
        if let Navigation::ToOne { column } = expand.navigation {
            write_one(reader, view, expand, column, page_size, out)?;
        } else {
            write_collection(reader, view, expand, page_size.filter(|_| nested), out)?;
        }
    }
    Ok(())
}

fn write_one(
    reader: &Reader<'_>,
    view: RowView<'_>,
    expand: &Expand,
    column: Ordinal,
    page_size: Option<usize>,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let found = match view.value(column) {
        Some(ValueRef::Lookup(table, id)) => reader.database.get(table, &id).map(|row| (table, id, row)),
        _ => None,
    };
    let Some((table, id, row)) = found else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let target = reader.scope.schema.table(table);
    if expand.is_reference {
        out.extend_from_slice(b"{\"@odata.id\":");
        write_text(&format!("{}/{}({id})", reader.base, target.set_name), out);
        out.push(b'}');
        return Ok(());
    }
    let related = RowView { table: target, key: id, row };
    // The owner's second target has columns of its own; then all of them are shown.
    let own = (table == expand.table).then(|| expand.projection.clone());
    let projection = own.map_or_else(|| projection(target, None), Ok)?;
    out.push(b'{');
    write_row(reader.database, reader.scope.schema, related, &projection, reader.annotations, out);
    write_expands(reader, related, &expand.expands, page_size, out)?;
    out.push(b'}');
    Ok(())
}

fn related_rows(reader: &Reader<'_>, view: RowView<'_>, expand: &Expand) -> Vec<Uuid> {
    let Navigation::ToMany(link) = expand.navigation else {
        return Vec::new();
    };
    let rows = collection(reader.database, reader.scope.schema, view, expand.table, link);
    rows.map(|row| row.key).collect()
}

fn write_collection(
    reader: &Reader<'_>,
    view: RowView<'_>,
    expand: &Expand,
    page_size: Option<usize>,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (database, schema) = (reader.database, reader.scope.schema);
    let target = schema.table(expand.table);
    let as_view = |key: Uuid| database.get(expand.table, &key).map(|row| RowView { table: target, key, row });
    let mut rows = related_rows(reader, view, expand);
    rows.retain(|key| {
        as_view(*key)
            .is_some_and(|row| expand.filter.as_ref().is_none_or(|filter| matches(database, schema, row, filter)))
    });
    expand.filter.as_ref().map_or(Ok(()), Predicate::check_visits)?;
    if !expand.order.is_empty() {
        let mut sorted: Vec<_> = rows
            .iter()
            .filter_map(|key| as_view(*key).map(|row| (sort_key(database, schema, row, &expand.order), *key)))
            .collect();
        sorted.sort_by(|a, b| compare_keys(&expand.order, (&a.0, a.1), (&b.0, b.1)));
        rows = sorted.into_iter().map(|(_, key)| key).collect();
    }
    let limit = page_size.unwrap_or(PAGE_ROWS_MAX).min(expand.top.unwrap_or(PAGE_ROWS_MAX));
    let more = rows.len() > limit;
    rows.truncate(limit);
    out.push(b'[');
    for (index, key) in rows.iter().enumerate() {
        let Some(row) = as_view(*key) else { continue };
        if index > 0 {
            out.push(b',');
        }
        out.push(b'{');
        write_row(database, schema, row, &expand.projection, reader.annotations, out);
        write_expands(reader, row, &expand.expands, page_size, out)?;
        out.push(b'}');
        check_answer(out)?;
    }
    out.push(b']');
    write_next_link(reader, view, expand, page_size.is_some(), more.then(|| rows.last().copied()).flatten(), out);
    Ok(())
}

/// A paged collection links to its next page, any other to its whole filtered collection.
fn write_next_link(
    reader: &Reader<'_>,
    view: RowView<'_>,
    expand: &Expand,
    is_paged: bool,
    last: Option<Uuid>,
    out: &mut Vec<u8>,
) {
    if is_paged && last.is_none() {
        return;
    }
    let mut link = format!("{}/{}({})/{}", reader.base, view.table.set_name, view.id(), expand.name);
    let mut options = expand.options.clone();
    if let (true, Some(last)) = (is_paged, last) {
        let cookie = Cookie { page: 2, keys: Vec::new(), last, first: last, is_tracking: false };
        let token = cookie.encode(reader.scope.schema.table(expand.table).primary_id());
        let joint = if options.is_empty() { "" } else { "&" };
        options = format!("{options}{joint}$skiptoken={token}");
    }
    if !options.is_empty() {
        link = format!("{link}?{options}");
    }
    out.push(b',');
    write_text(&format!("{}@odata.nextLink", expand.name), out);
    out.push(b':');
    write_text(&link, out);
}
