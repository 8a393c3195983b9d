//! FetchXML as text into a [`Fetch`].
//!
//! Promise: unknown elements, attributes and operators are refused by name. The XML parser does not
//! recurse; what does is the walk over its elements here, and it counts its own depth.

use roxmltree::{Document, Node, ParsingOptions};

use super::operators::from_fetch;
use super::{
    Attribute, Condition, DateGrouping, Entity, Fetch, Filter, Language, Link, LinkKind, Method, Operation, Order,
};
use crate::error::{ApiError, Code};
use crate::query::totals::ROWS_MAX;

/// Deepest nesting of elements.
const DEPTH_MAX: usize = 60;
/// Elements, attributes and texts of one query.
const NODES_MAX: u32 = 20_000;
/// The parser compares the attributes of an element with each other.
const BYTES_MAX: usize = 512 << 10;

/// XML a caller sent, of bounded size.
pub(crate) fn parse_xml(text: &str) -> Result<Document<'_>, ApiError> {
    if text.len() > BYTES_MAX {
        return Err(ApiError::new(Code::InvalidXml, "Invalid XML: it is too long."));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options)
        .map_err(|error| ApiError::new(Code::InvalidXml, format!("Invalid XML: {error}.")))
}

/// Reads a query.
pub(crate) fn parse_fetch_xml(text: &str) -> Result<Fetch, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::new(Code::EmptyFetch, "The FetchXML query is empty."));
    }
    let document = parse_xml(text)?;
    fetch(document.root_element())
}

/// A level deeper, if there is one.
fn deeper(depth: usize) -> Result<usize, ApiError> {
    if depth < DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(ApiError::new(Code::InvalidXml, "Invalid XML: it is nested too deeply."))
}

fn invalid_node(what: &str) -> ApiError {
    ApiError::new(Code::InvalidFetchNode, what.to_owned())
}

/// The attributes of an element, which must all be among the known ones.
fn check_attributes(node: Node<'_, '_>, known: &[&str]) -> Result<(), ApiError> {
    match node.attributes().find(|attribute| !known.contains(&attribute.name())) {
        Some(attribute) => Err(invalid_node(&format!(
            "The attribute '{}' is not valid on the element '{}'.",
            attribute.name(),
            node.tag_name().name()
        ))),
        None => Ok(()),
    }
}

fn flag(node: Node<'_, '_>, name: &str) -> Result<bool, ApiError> {
    match node.attribute(name) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(invalid_value(name, other)),
    }
}

fn invalid_value(name: &str, value: &str) -> ApiError {
    invalid_node(&format!("The value '{value}' of the attribute '{name}' is not valid."))
}

fn number(node: Node<'_, '_>, name: &str, max: u64) -> Result<Option<u64>, ApiError> {
    let Some(text) = node.attribute(name) else {
        return Ok(None);
    };
    let number = text.trim().parse::<u64>().ok().filter(|number| (1..=max).contains(number));
    number.map(Some).ok_or_else(|| invalid_value(name, text))
}

fn required<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, ApiError> {
    let value = node.attribute(name).filter(|value| !value.is_empty());
    value
        .ok_or_else(|| invalid_node(&format!("The element '{}' lacks the attribute '{name}'.", node.tag_name().name())))
}

const FETCH: &[&str] = &[
    "top",
    "count",
    "page",
    "paging-cookie",
    "distinct",
    "aggregate",
    "returntotalrecordcount",
    "aggregatelimit",
    "version",
    "mapping",
    "output-format",
    "no-lock",
    "utc-offset",
    "latematerialize",
    "useraworderby",
    "options",
    "datasource",
];

fn fetch(node: Node<'_, '_>) -> Result<Fetch, ApiError> {
    if node.tag_name().name() != "fetch" {
        return Err(invalid_node(&format!("Unexpected element '{}'; 'fetch' was expected.", node.tag_name().name())));
    }
    check_attributes(node, FETCH)?;
    if let Some(source) = node.attribute("datasource") {
        return Err(ApiError::not_here(&format!("the FetchXML data source '{source}'")));
    }
    let top = number(node, "top", 5000)?;
    let pages = ["count", "page", "paging-cookie", "returntotalrecordcount"];
    if let (Some(_), Some(name)) = (top, pages.into_iter().find(|name| node.has_attribute(*name))) {
        let text = format!("The top attribute can't be specified with paging attribute {name}");
        return Err(invalid_node(&text));
    }
    let mut entities = node.children().filter(Node::is_element);
    let (Some(entity), None) = (entities.next(), entities.next()) else {
        return Err(invalid_node("A fetch element holds exactly one entity element."));
    };
    if entity.tag_name().name() != "entity" {
        return Err(invalid_node(&format!("Unexpected element '{}' inside fetch.", entity.tag_name().name())));
    }
    check_attributes(entity, &["name", "enableprefiltering", "prefilterparametername"])?;
    Ok(Fetch {
        language: Language::FetchXml,
        top: top.map(|top| top as usize),
        count: number(node, "count", 5000)?.map(|count| count as usize),
        page: number(node, "page", u64::from(u32::MAX))?.unwrap_or(1),
        offset: 0,
        cookie: node.attribute("paging-cookie").filter(|cookie| !cookie.is_empty()).map(str::to_owned),
        is_distinct: flag(node, "distinct")?,
        is_aggregate: flag(node, "aggregate")?,
        wants_total: flag(node, "returntotalrecordcount")?,
        aggregate_max: number(node, "aggregatelimit", ROWS_MAX as u64)?.map_or(ROWS_MAX, |limit| limit as usize),
        entity: self::entity(entity, 0)?,
    })
}

/// What an `entity` or `link-entity` element holds.
fn entity(node: Node<'_, '_>, depth: usize) -> Result<Entity, ApiError> {
    let depth = deeper(depth)?;
    let mut entity = Entity { table: required(node, "name")?.to_owned(), ..Entity::default() };
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "attribute" => entity.columns.push(attribute(child)?),
            "all-attributes" => entity.all_columns = true,
            "no-attrs" => entity.no_columns = true,
            "order" => entity.orders.push(order(child)?),
            "filter" => entity.filters.push(filter(child, depth)?),
            "link-entity" => entity.links.push(link(child, depth)?),
            other => return Err(invalid_node(&format!("Unexpected element '{other}' inside an entity."))),
        }
    }
    Ok(entity)
}

fn attribute(node: Node<'_, '_>) -> Result<Attribute, ApiError> {
    let known = [
        "name",
        "alias",
        "aggregate",
        "groupby",
        "dategrouping",
        "distinct",
        "usertimezone",
        "rowaggregate",
        "build",
        "addedby",
    ];
    check_attributes(node, &known)?;
    let counts_children = match node.attribute("rowaggregate") {
        None => false,
        Some(name) if name.eq_ignore_ascii_case("countchildren") => true,
        Some(other) => {
            return Err(invalid_node(&format!("The row aggregate '{other}' is not valid.")));
        }
    };
    let is_distinct = flag(node, "distinct")?;
    let aggregate = match node.attribute("aggregate") {
        None => None,
        Some("sum") => Some(Method::Sum),
        Some("avg") => Some(Method::Average),
        Some("min") => Some(Method::Min),
        Some("max") => Some(Method::Max),
        Some("count") => Some(Method::Count),
        Some("countcolumn") if is_distinct => Some(Method::CountDistinct),
        Some("countcolumn") => Some(Method::CountColumn),
        Some(other) => {
            return Err(ApiError::new(Code::InvalidAggregate, format!("The aggregate '{other}' is not valid.")));
        }
    };
    let date_grouping = node.attribute("dategrouping").map(date_grouping).transpose()?;
    Ok(Attribute {
        name: required(node, "name")?.to_owned(),
        alias: node.attribute("alias").map(alias).transpose()?,
        aggregate,
        is_group: flag(node, "groupby")?,
        date_grouping,
        counts_children,
    })
}

fn date_grouping(text: &str) -> Result<DateGrouping, ApiError> {
    Ok(match text {
        "day" => DateGrouping::Day,
        "week" => DateGrouping::Week,
        "month" => DateGrouping::Month,
        "quarter" => DateGrouping::Quarter,
        "year" => DateGrouping::Year,
        "fiscal-period" => DateGrouping::FiscalPeriod,
        "fiscal-year" => DateGrouping::FiscalYear,
        other => {
            return Err(ApiError::new(Code::InvalidDateGrouping, format!("The dategrouping '{other}' is not valid.")));
        }
    })
}

/// Aliases are names: letters, digits and underscores, not beginning with a digit.
fn alias(text: &str) -> Result<String, ApiError> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
        return Ok(text.to_owned());
    }
    Err(ApiError::new(
        Code::InvalidAlias,
        format!(
            "Invalid character specified for alias: {text}. Only characters within the ranges [A-Z], [a-z] or [0-9] or _ \
             are allowed.  The first character may only be in the ranges [A-Z], [a-z] or _."
        ),
    ))
}

fn order(node: Node<'_, '_>) -> Result<Order, ApiError> {
    check_attributes(node, &["attribute", "alias", "entityname", "descending"])?;
    let (name, by_alias) = match (node.attribute("attribute"), node.attribute("alias")) {
        (Some(name), None) => (name, false),
        (None, Some(alias)) => (alias, true),
        _ => return Err(invalid_node("An order element needs either an attribute or an alias.")),
    };
    Ok(Order {
        name: name.to_owned(),
        by_alias,
        entity: node.attribute("entityname").map(str::to_owned),
        is_descending: flag(node, "descending")?,
    })
}

fn filter(node: Node<'_, '_>, depth: usize) -> Result<Filter, ApiError> {
    let depth = deeper(depth)?;
    check_attributes(
        node,
        &["type", "hint", "isquickfindfields", "overridequickfindrecordlimitenabled", "bypassquickfind"],
    )?;
    let mut parts = Vec::new();
    for child in node.children().filter(Node::is_element) {
        parts.push(match child.tag_name().name() {
            "condition" => Filter::Condition(condition(child)?),
            "filter" => filter(child, depth)?,
            "link-entity" => Filter::Link(Box::new(link(child, depth)?)),
            other => return Err(invalid_node(&format!("Unexpected element '{other}' inside a filter."))),
        });
    }
    match node.attribute("type") {
        None | Some("and") => Ok(Filter::And(parts)),
        Some("or") => Ok(Filter::Or(parts)),
        Some(other) => Err(ApiError::new(Code::InvalidFilterType, format!("The filter type '{other}' is not valid."))),
    }
}

fn condition(node: Node<'_, '_>) -> Result<Condition, ApiError> {
    let known = [
        "attribute",
        "operator",
        "value",
        "valueof",
        "entityname",
        "column",
        "aggregate",
        "alias",
        "rowaggregate",
        "uitype",
        "uiname",
        "uihidden",
    ];
    check_attributes(node, &known)?;
    let name = required(node, "operator")?;
    let operation = from_fetch(name).ok_or_else(|| {
        ApiError::new(Code::InvalidConditionOperator, format!("The condition operator '{name}' is not valid."))
    })?;
    let mut values: Vec<String> = node.attribute("value").map(str::to_owned).into_iter().collect();
    for child in node.children().filter(Node::is_element) {
        if child.tag_name().name() != "value" {
            let message = format!("Unexpected element '{}' inside a condition.", child.tag_name().name());
            return Err(invalid_node(&message));
        }
        values.push(child.text().unwrap_or_default().trim().to_owned());
    }
    let value_of = node.attribute("valueof").map(str::to_owned);
    let takes_one = matches!(operation, Operation::Compare(_) | Operation::Like { .. });
    if takes_one && value_of.is_none() && values.len() != 1 {
        let message = format!("The condition operator '{name}' takes one value; {} were given.", values.len());
        return Err(ApiError::new(Code::InvalidConditionValue, message));
    }
    Ok(Condition {
        column: required(node, "attribute")?.to_owned(),
        entity: node.attribute("entityname").map(str::to_owned),
        operation,
        values,
        value_of,
    })
}

fn link(node: Node<'_, '_>, depth: usize) -> Result<Link, ApiError> {
    let known = [
        "name",
        "from",
        "to",
        "alias",
        "link-type",
        "intersect",
        "visible",
        "enableprefiltering",
        "prefilterparametername",
    ];
    check_attributes(node, &known)?;
    let in_filter = node.parent().is_some_and(|parent| parent.tag_name().name() == "filter");
    let kind = match (node.attribute("link-type").unwrap_or("inner"), in_filter) {
        ("any" | "not all", true) => LinkKind::Any,
        ("not any", true) => LinkKind::NotAny,
        ("all", true) => LinkKind::AllNot,
        ("inner" | "natural", false) => LinkKind::Inner,
        ("outer", false) => LinkKind::Outer,
        ("exists" | "in", false) => LinkKind::Any,
        ("matchfirstrowusingcrossapply", false) => LinkKind::First,
        (other, _) => {
            let place = if in_filter { "inside a filter" } else { "outside a filter" };
            let message = format!("The link-type '{other}' is not valid {place}.");
            return Err(ApiError::new(Code::InvalidLinkType, message));
        }
    };
    let mut entity = entity(node, depth)?;
    entity.alias = node.attribute("alias").filter(|text| !text.is_empty()).map(alias).transpose()?;
    Ok(Link {
        kind,
        from: node.attribute("from").map(str::to_owned),
        to: node.attribute("to").map(str::to_owned),
        entity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> u32 {
        parse_fetch_xml(text).unwrap_err().code
    }

    #[test]
    fn a_query_is_read_whole() {
        let query = parse_fetch_xml(
            "<fetch count='3' page='2'><entity name='account'><attribute name='name' alias='n'/>\
             <filter type='or'><condition attribute='name' operator='in'><value>a</value><value>b</value></condition></filter>\
             <link-entity name='contact' from='parentcustomerid' to='accountid' link-type='outer' alias='c'/>\
             <order attribute='name' descending='true'/></entity></fetch>",
        )
        .unwrap();
        assert_eq!((query.count, query.page), (Some(3), 2));
        assert_eq!(query.entity.links[0].kind, LinkKind::Outer);
        assert!(query.entity.orders[0].is_descending);
        let Filter::Or(parts) = &query.entity.filters[0] else { panic!("not an or") };
        assert!(matches!(&parts[0], Filter::Condition(condition) if condition.values == ["a", "b"]));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_code() {
        assert_eq!(code(""), Code::EmptyFetch as u32);
        assert_eq!(code("<fetch"), Code::InvalidXml as u32);
        assert_eq!(code("<fetch/>"), Code::InvalidFetchNode as u32);
        assert_eq!(code("<fetch nonsense='1'><entity name='a'/></fetch>"), Code::InvalidFetchNode as u32);
        assert_eq!(code("<fetch top='1' count='2'><entity name='a'/></fetch>"), Code::InvalidFetchNode as u32);
        let inside = |text: &str| code(&format!("<fetch><entity name='a'>{text}</entity></fetch>"));
        assert_eq!(
            inside("<filter><condition attribute='a' operator='near'/></filter>"),
            Code::InvalidConditionOperator as u32
        );
        assert_eq!(inside("<link-entity name='b' link-type='any'/>"), Code::InvalidLinkType as u32);
        assert_eq!(code(&"<a>".repeat(10_000)), Code::InvalidXml as u32);
    }

    #[test]
    fn depth_is_counted_by_the_walk_that_nests() {
        let around = |open: &str, close: &str, levels: usize| {
            let inner = format!("{}{}", open.repeat(levels), close.repeat(levels));
            parse_fetch_xml(&format!("<fetch><entity name='a'>{inner}</entity></fetch>")).map_err(|error| error.code)
        };
        // What a comment, a processing instruction or a value says of depth is no depth.
        let shapes = [
            ("<filter>", "</filter>"),
            ("<filter><!-- </filter></filter> -->", "</filter>"),
            ("<filter><?x </filter>?>", "</filter>"),
            ("<filter hint='</filter></filter>'>", "</filter>"),
            ("<link-entity name='b'>", "</link-entity>"),
            ("<filter><link-entity name='b' link-type='any'>", "</link-entity></filter>"),
        ];
        for (open, close) in shapes {
            let is_valid = !open.contains("='<");
            assert_eq!(around(open, close, 20).is_ok(), is_valid, "{open}");
            assert_eq!(around(open, close, 3000).unwrap_err(), Code::InvalidXml as u32, "{open}");
        }
    }
}
