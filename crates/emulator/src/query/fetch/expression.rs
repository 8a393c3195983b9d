//! A QueryExpression or FetchExpression as JSON, as actions take them, into a [`Fetch`].
//!
//! Promise: what a query cannot say is refused by name. Left out: paging, which actions ignore.

use serde_json::Value as Json;

use super::operators::from_expression;
use super::xml::parse_fetch_xml;
use super::{Condition, Entity, Fetch, Filter, Language, Link, LinkKind};
use crate::error::{ApiError, Code};
use crate::query::totals::ROWS_MAX;

/// Deepest nesting of filters and links.
const DEPTH_MAX: u32 = 30;

fn list<'a>(value: &'a Json, name: &str) -> &'a [Json] {
    value.get(name).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Json, name: &str) -> Result<&'a str, ApiError> {
    let found = value.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    found.ok_or_else(|| ApiError::bad_request(format!("A query expression needs '{name}'.")))
}

/// Reads a query.
pub(crate) fn parse_expression(value: &Json) -> Result<Fetch, ApiError> {
    let kind = value.get("@odata.type").and_then(Json::as_str).unwrap_or_default();
    if kind.ends_with("FetchExpression") {
        return parse_fetch_xml(text(value, "Query")?);
    }
    if !kind.is_empty() && !kind.ends_with("QueryExpression") {
        return Err(ApiError::bad_request(format!("The query type '{kind}' is not known.")));
    }
    let mut entity = Entity { table: text(value, "EntityName")?.to_owned(), no_columns: true, ..Entity::default() };
    fill(&mut entity, value, "Criteria", 0)?;
    Ok(Fetch {
        language: Language::FetchXml,
        top: value.get("TopCount").and_then(Json::as_u64).map(|top| top as usize),
        count: None,
        page: 1,
        offset: 0,
        cookie: None,
        is_distinct: value.get("Distinct").and_then(Json::as_bool).unwrap_or(false),
        is_aggregate: false,
        wants_total: false,
        aggregate_max: ROWS_MAX,
        entity,
    })
}

fn fill(entity: &mut Entity, value: &Json, criteria: &str, depth: u32) -> Result<(), ApiError> {
    if let Some(criteria) = value.get(criteria).filter(|criteria| !criteria.is_null()) {
        entity.filters.push(filter(criteria, depth)?);
    }
    for item in list(value, "LinkEntities") {
        entity.links.push(link(item, depth + 1)?);
    }
    Ok(())
}

fn check_depth(depth: u32) -> Result<(), ApiError> {
    if depth <= DEPTH_MAX { Ok(()) } else { Err(ApiError::bad_request("The query is nested too deeply.")) }
}

fn filter(criteria: &Json, depth: u32) -> Result<Filter, ApiError> {
    check_depth(depth)?;
    let mut parts = Vec::new();
    for item in list(criteria, "Conditions") {
        parts.push(Filter::Condition(condition(item)?));
    }
    for item in list(criteria, "Filters") {
        parts.push(filter(item, depth + 1)?);
    }
    match criteria.get("FilterOperator").and_then(Json::as_str) {
        None | Some("And") => Ok(Filter::And(parts)),
        Some("Or") => Ok(Filter::Or(parts)),
        Some(other) => {
            Err(ApiError::new(Code::InvalidFilterType, format!("The filter operator '{other}' is not valid.")))
        }
    }
}

/// Values are objects of value and type, or stand bare.
fn condition(item: &Json) -> Result<Condition, ApiError> {
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let values = list(item, "Values").iter().map(|value| plain(value.get("Value").unwrap_or(value)));
    Ok(Condition {
        column: text(item, "AttributeName")?.to_owned(),
        entity: item.get("EntityName").and_then(Json::as_str).filter(|name| !name.is_empty()).map(str::to_owned),
        operation: from_expression(text(item, "Operator")?),
        values: values.collect(),
        value_of: None,
    })
}

fn link(item: &Json, depth: u32) -> Result<Link, ApiError> {
    check_depth(depth)?;
    let kind = match item.get("JoinOperator").and_then(Json::as_str).unwrap_or("Inner") {
        "Inner" | "Natural" => LinkKind::Inner,
        "LeftOuter" => LinkKind::Outer,
        "Exists" | "In" | "Any" => LinkKind::Any,
        "MatchFirstRowUsingCrossApply" => LinkKind::First,
        other => {
            return Err(ApiError::new(Code::InvalidLinkType, format!("The join operator '{other}' is not valid.")));
        }
    };
    let mut entity = Entity {
        table: text(item, "LinkToEntityName")?.to_owned(),
        alias: item.get("EntityAlias").and_then(Json::as_str).map(str::to_owned),
        ..Entity::default()
    };
    fill(&mut entity, item, "LinkCriteria", depth)?;
    Ok(Link {
        kind,
        from: Some(text(item, "LinkToAttributeName")?.to_owned()),
        to: Some(text(item, "LinkFromAttributeName")?.to_owned()),
        entity,
    })
}
