//! The `sql` query option: one SELECT, read into a [`Fetch`].
//!
//! Grammar: protocol notes 14.2. Promise: everything outside it is refused by name. The error
//! code of a refused statement and the member name of an aggregate without alias (the function
//! and its column) are UNVERIFIED. Left out: running it (`fetch`).

mod conditions;
mod cosmos;
mod parser;
mod tokens;

pub(crate) use cosmos::parse_cosmos;

use super::fetch::{Attribute, Entity, Fetch, Filter, Language, Link, LinkKind, Order};
use super::totals::{Method, ROWS_MAX};
use crate::error::ApiError;
use crate::schema::Schema;
use parser::{Column, Parser};
use tokens::{Token, error};

/// What reading a statement depends on.
pub(crate) struct SqlContext<'a> {
    pub(crate) schema: &'a Schema,
    /// Simulated seconds since 1970, for `GETUTCDATE()`.
    pub(crate) now: i64,
    /// Whether `TOP` is taken; the documentation and the product's own samples disagree.
    pub(crate) allows_top: bool,
    /// Whether `ORDER BY … OFFSET n ROWS FETCH NEXT m ROWS ONLY` is taken.
    pub(crate) allows_offset: bool,
    pub(crate) skip_token: Option<&'a str>,
}

/// A table of the FROM clause.
#[derive(Debug)]
struct Source {
    table: String,
    alias: Option<String>,
    /// The link that brought it in; none for the first.
    join: Option<Join>,
}

#[derive(Debug)]
struct Join {
    kind: LinkKind,
    /// Index of the table on the other side.
    parent: usize,
    from: String,
    to: String,
    filters: Vec<Filter>,
}

impl Source {
    fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.table)
    }
}

/// One item of the select list.
#[derive(Debug)]
struct Item {
    column: Option<Column>,
    method: Option<Method>,
    alias: Option<String>,
}

/// Reads a statement.
pub(crate) fn parse_sql(text: &str, context: &SqlContext<'_>) -> Result<Fetch, ApiError> {
    let mut parser = Parser::new(text, context)?;
    parser.keyword("SELECT")?;
    let is_distinct = parser.eat("DISTINCT");
    let mut top = if parser.eat("TOP") { Some(top(&mut parser)?) } else { None };
    let items = parser.items()?;
    parser.keyword("FROM")?;
    parser.sources()?;
    let filters = if parser.eat("WHERE") { vec![parser.condition(None)?] } else { Vec::new() };
    let mut groups = Vec::new();
    if parser.eat("GROUP") {
        parser.keyword("BY")?;
        groups = parser.columns()?;
    }
    let mut orders = Vec::new();
    if parser.eat("ORDER") {
        parser.keyword("BY")?;
        orders = parser.orders()?;
    }
    let (mut offset, mut has_window) = (0, false);
    if context.allows_offset && !orders.is_empty() && parser.eat("OFFSET") {
        (offset, has_window) = (window(&mut parser)?, true);
        if parser.eat("FETCH") {
            if !parser.eat("NEXT") {
                parser.keyword("FIRST")?;
            }
            let rows = window(&mut parser)?;
            parser.keyword("ONLY")?;
            let rows = usize::try_from(rows).ok().filter(|rows| (1..=5000).contains(rows) && top.is_none());
            top = Some(rows.ok_or_else(|| error("FETCH needs a number from 1 to 5000, and excludes TOP."))?);
        }
    }
    parser.end()?;
    let statement = Statement { sources: parser.into_sources(), items, groups, orders };
    let is_aggregate = !statement.groups.is_empty() || statement.items.iter().any(|item| item.method.is_some());
    if is_aggregate && has_window {
        return Err(error("OFFSET is not supported in a SQL query that aggregates."));
    }
    let entity = statement.entity(context, filters, is_aggregate)?;
    Ok(Fetch {
        language: Language::Sql { skip_token: context.skip_token.map(str::to_owned) },
        top,
        count: None,
        page: 1,
        offset,
        cookie: None,
        is_distinct,
        is_aggregate,
        wants_total: false,
        aggregate_max: ROWS_MAX,
        entity,
    })
}

/// `n ROWS`, of OFFSET or FETCH.
fn window(parser: &mut Parser<'_>) -> Result<u64, ApiError> {
    let Token::Number(number) = parser.next() else {
        return Err(error("OFFSET and FETCH take a number."));
    };
    if !parser.eat("ROWS") {
        parser.keyword("ROW")?;
    }
    number.parse().map_err(|_| error("OFFSET and FETCH take a whole number."))
}

fn top(parser: &mut Parser<'_>) -> Result<usize, ApiError> {
    if !parser.context.allows_top {
        return Err(error("TOP is not supported in a SQL query; use the odata.maxpagesize preference."));
    }
    let braced = parser.eat_sign("(");
    let Token::Number(number) = parser.next() else {
        return Err(error("TOP needs a number."));
    };
    if braced {
        parser.sign(")")?;
    }
    let number = number.parse::<usize>().ok().filter(|number| (1..=5000).contains(number));
    number.ok_or_else(|| error("TOP needs a number from 1 to 5000."))
}

struct Statement {
    sources: Vec<Source>,
    items: Vec<Item>,
    groups: Vec<Column>,
    orders: Vec<(Column, bool)>,
}

impl Statement {
    /// The tables as a tree, each with the columns and orders that are its own.
    fn entity(&self, context: &SqlContext<'_>, filters: Vec<Filter>, is_aggregate: bool) -> Result<Entity, ApiError> {
        let mut entities: Vec<Entity> = self
            .sources
            .iter()
            .map(|source| Entity {
                table: source.table.clone(),
                alias: Some(source.name().to_owned()),
                no_columns: true,
                ..Entity::default()
            })
            .collect();
        for item in &self.items {
            let (at, attribute) = self.attribute(context, item, is_aggregate)?;
            entities[at].columns.push(attribute);
        }
        self.check_groups(context)?;
        for (column, is_descending) in &self.orders {
            let (at, order) = self.order(context, column, *is_descending, is_aggregate)?;
            entities[at].orders.push(order);
        }
        entities[0].filters = filters;
        // Links hang below tables that stand before them, so the last one is taken off first.
        for (index, source) in self.sources.iter().enumerate().skip(1).rev() {
            let (Some(join), Some(mut entity)) = (&source.join, entities.pop()) else { continue };
            debug_assert_eq!(entities.len(), index);
            entity.filters.extend(join.filters.iter().cloned());
            let link = Link { kind: join.kind, from: Some(join.from.clone()), to: Some(join.to.clone()), entity };
            entities[join.parent].links.insert(0, link);
        }
        entities.pop().ok_or_else(|| error("The SQL query names no table."))
    }

    /// The table a column belongs to and the column's own name.
    fn locate(&self, context: &SqlContext<'_>, column: &Column) -> Result<usize, ApiError> {
        parser::locate(&self.sources, context.schema, column)
    }

    fn attribute(
        &self,
        context: &SqlContext<'_>,
        item: &Item,
        is_aggregate: bool,
    ) -> Result<(usize, Attribute), ApiError> {
        let (at, name) = match &item.column {
            Some(column) => (self.locate(context, column)?, column.name.clone()),
            // COUNT(*) counts rows: any column will do, and the primary id is always there.
            None => (0, primary_id(context, &self.sources[0].table)?),
        };
        let alias = match (&item.alias, item.method) {
            (Some(alias), _) => Some(alias.clone()),
            (None, Some(method)) => Some(default_alias(method, item.column.as_ref())),
            (None, None) if is_aggregate => Some(name.clone()),
            (None, None) => None,
        };
        let is_group = is_aggregate && item.method.is_none();
        if is_group && !self.groups.iter().any(|group| group.is_same(item.column.as_ref())) {
            return Err(error(format!(
                "Column '{name}' is invalid in the select list because it is not contained in either an aggregate function \
                 or the GROUP BY clause."
            )));
        }
        Ok((
            at,
            Attribute { name, alias, aggregate: item.method, is_group, date_grouping: None, counts_children: false },
        ))
    }

    fn check_groups(&self, context: &SqlContext<'_>) -> Result<(), ApiError> {
        for group in &self.groups {
            self.locate(context, group)?;
            if !self.items.iter().any(|item| item.method.is_none() && group.is_same(item.column.as_ref())) {
                return Err(error(format!("The GROUP BY column '{}' must stand in the select list.", group.name)));
            }
        }
        Ok(())
    }

    fn order(
        &self,
        context: &SqlContext<'_>,
        column: &Column,
        is_descending: bool,
        is_aggregate: bool,
    ) -> Result<(usize, Order), ApiError> {
        let of_alias = |item: &&Item| column.source.is_none() && item.alias.as_deref() == Some(column.name.as_str());
        let of_column = |item: &&Item| item.method.is_none() && column.is_same(item.column.as_ref());
        let item = self.items.iter().find(of_alias).or_else(|| self.items.iter().find(of_column));
        if is_aggregate {
            let item = item.ok_or_else(|| error(format!("ORDER BY '{}' is not in the select list.", column.name)))?;
            let (at, attribute) = self.attribute(context, item, true)?;
            let name = attribute.alias.unwrap_or(attribute.name);
            return Ok((at, Order { name, by_alias: true, entity: None, is_descending }));
        }
        let column = item.and_then(|item| item.column.as_ref()).unwrap_or(column);
        let at = self.locate(context, column)?;
        Ok((at, Order { name: column.name.clone(), by_alias: false, entity: None, is_descending }))
    }
}

fn primary_id(context: &SqlContext<'_>, table: &str) -> Result<String, ApiError> {
    let table = context.schema.by_logical(table);
    table.map(|table| table.primary_id().to_owned()).ok_or_else(|| error("The SQL query names an unknown table."))
}

fn default_alias(method: Method, column: Option<&Column>) -> String {
    let function = match method {
        Method::Sum => "sum",
        Method::Average => "avg",
        Method::Min => "min",
        Method::Max => "max",
        Method::Count | Method::CountColumn | Method::CountDistinct => "count",
    };
    column.map_or_else(|| function.to_owned(), |column| format!("{function}_{}", column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fetch, String> {
        let schema = crate::schema::starting_schema().unwrap();
        let context = SqlContext { schema: &schema, now: 0, allows_top: true, allows_offset: false, skip_token: None };
        parse_sql(text, &context).map_err(|error| error.message)
    }

    #[test]
    fn joins_become_links_below_the_table_they_name() {
        let query = parse(
            "SELECT a.name AS n, c.lastname FROM account a INNER JOIN contact c ON c.parentcustomerid = a.accountid \
             AND (c.lastname LIKE 'S%' OR c.firstname IS NULL) LEFT JOIN incident i ON i.primarycontactid = c.contactid \
             WHERE a.statecode = 0 AND i.title IS NOT NULL ORDER BY n DESC",
        )
        .unwrap();
        assert_eq!(query.entity.columns[0].alias.as_deref(), Some("n"));
        let contact = &query.entity.links[0];
        assert_eq!((contact.kind, contact.entity.links[0].kind), (LinkKind::Inner, LinkKind::Outer));
        assert_eq!(contact.entity.filters.len(), 1);
        assert_eq!(query.entity.orders[0].name, "name");
    }

    #[test]
    fn depth_is_counted_in_every_place_that_can_hold_its_like() {
        let deep = 100_000;
        for text in [
            format!("SELECT name FROM account WHERE {}name = 'a'", "(".repeat(deep)),
            format!("SELECT name FROM account WHERE createdon > {}", "DATEADD(day,1,".repeat(deep)),
            format!("SELECT name FROM account WHERE createdon > {}", "DATEADD(day,".repeat(deep)),
            format!("SELECT name FROM account WHERE createdon IN ({}", "DATEADD(day,-".repeat(deep)),
        ] {
            let message = parse(&text).unwrap_err();
            assert!(message.contains("nested too deeply") || message.contains("number was expected"), "{message}");
        }
        let join =
            |number: usize| format!(" JOIN account a{number} ON a{number}.accountid = a{}.accountid", number - 1);
        let joins: String = (1..5000).map(join).collect();
        assert!(parse(&format!("SELECT a0.name FROM account a0{joins}")).unwrap_err().contains("too many tables"));
        assert!(parse(&format!("SELECT name FROM account WHERE {}", vec!["name = 'a'"; 60_000].join(" OR "))).is_ok());
    }

    #[test]
    fn what_the_grammar_lacks_is_refused_by_name() {
        for (text, named) in [
            ("SELECT * FROM account", "*"),
            ("SELECT 1 FROM account", "1"),
            ("SELECT UPPER(name) FROM account", "UPPER"),
            ("SELECT name + name FROM account", "+"),
            ("SELECT name FROM account RIGHT JOIN contact ON 1 = 1", "RIGHT"),
            ("SELECT name FROM account UNION SELECT name FROM account", "UNION"),
            ("WITH x AS (SELECT name FROM account) SELECT name FROM x", "WITH"),
            ("SELECT name FROM account WHERE accountid IN (SELECT accountid FROM account)", "SELECT"),
            ("SELECT name FROM account WHERE EXISTS (SELECT 1)", "EXISTS"),
            ("SELECT COUNT(*) AS n FROM account GROUP BY name HAVING COUNT(*) > 1", "HAVING"),
            ("SELECT name FROM account WHERE name = telephone1", "telephone1"),
            ("SELECT name FROM account WHERE 1 = 1", "1"),
            ("SELECT name FROM account ORDER BY name OFFSET 5 ROWS", "OFFSET"),
            ("DELETE FROM account", "DELETE"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
