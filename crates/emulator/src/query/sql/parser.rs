//! The clauses of a SELECT, one function each.

use super::tokens::{Token, error, tokens};
use super::{Item, Join, Source, SqlContext};
use crate::error::{ApiError, Code};
use crate::query::fetch::LinkKind;
use crate::query::totals::Method;
use crate::schema::Schema;

/// A column, perhaps behind the name of its table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) source: Option<String>,
    pub(super) name: String,
}

impl Column {
    pub(super) fn is_same(&self, other: Option<&Column>) -> bool {
        other.is_some_and(|other| {
            self.name == other.name && (self.source.is_none() || other.source.is_none() || self.source == other.source)
        })
    }
}

/// Tables of one query. Each may hang below the one before it, so this bounds the depth of the tree, too.
const SOURCES_MAX: usize = 16;

/// Words that begin or join clauses and so end a name.
const RESERVED: &[&str] = &[
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "OUTER",
    "JOIN",
    "ON",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "BETWEEN",
    "IS",
    "NULL",
    "AS",
    "BY",
    "ASC",
    "DESC",
    "OFFSET",
    "FETCH",
    "FOR",
    "OPTION",
    "SELECT",
    "DISTINCT",
    "TOP",
    "CASE",
    "EXISTS",
    "INTO",
    "WITH",
];

pub(super) struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    pub(super) context: &'a SqlContext<'a>,
    pub(super) sources: Vec<Source>,
    pub(super) depth: u32,
}

/// Where a column belongs; without its table's name it must be in one table only.
pub(super) fn locate(sources: &[Source], schema: &Schema, column: &Column) -> Result<usize, ApiError> {
    if let Some(name) = &column.source {
        let found = sources.iter().position(|source| source.name().eq_ignore_ascii_case(name));
        return found.ok_or_else(|| error(format!("The table or alias '{name}' is not in the FROM clause.")));
    }
    let has =
        |source: &Source| schema.by_logical(&source.table).is_some_and(|table| table.find(&column.name).is_some());
    let mut found = sources.iter().enumerate().filter(|(_, source)| has(source)).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(error(format!("Ambiguous column name '{}'.", column.name))),
        (None, _) => Err(ApiError::new(Code::NoSuchColumn, format!("Invalid column name '{}'.", column.name))),
    }
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &str, context: &'a SqlContext<'a>) -> Result<Self, ApiError> {
        Ok(Parser { tokens: tokens(text)?, at: 0, context, sources: Vec::new(), depth: 0 })
    }

    pub(super) fn into_sources(self) -> Vec<Source> {
        self.sources
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn peek_after(&self) -> &Token {
        self.tokens.get(self.at + 1).unwrap_or(&Token::End)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn unexpected(&self) -> ApiError {
        let found = match self.peek() {
            Token::Word(word) | Token::Name(word) | Token::Number(word) | Token::Text(word) => word.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "the end".to_owned(),
        };
        let is_clause = RESERVED.iter().any(|word| found.eq_ignore_ascii_case(word));
        if is_clause {
            return error(format!("{} is not supported here in a SQL query.", found.to_ascii_uppercase()));
        }
        error(format!("Incorrect syntax near '{found}'."))
    }

    pub(super) fn keyword(&mut self, word: &str) -> Result<(), ApiError> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn sign(&mut self, sign: &str) -> Result<(), ApiError> {
        if self.eat_sign(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn end(&mut self) -> Result<(), ApiError> {
        self.eat_sign(";");
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A name, in lower case as logical names are.
    fn name(&mut self) -> Result<String, ApiError> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.to_lowercase();
                self.at += 1;
                Ok(name)
            }
            Token::Word(word) if !RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)) => {
                let name = word.to_lowercase();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn column(&mut self) -> Result<Column, ApiError> {
        let first = self.name()?;
        if self.eat_sign(".") {
            return Ok(Column { source: Some(first), name: self.name()? });
        }
        Ok(Column { source: None, name: first })
    }

    pub(super) fn columns(&mut self) -> Result<Vec<Column>, ApiError> {
        let mut columns = vec![self.column()?];
        while self.eat_sign(",") {
            columns.push(self.column()?);
        }
        Ok(columns)
    }

    pub(super) fn orders(&mut self) -> Result<Vec<(Column, bool)>, ApiError> {
        let mut orders = Vec::new();
        loop {
            let column = self.column()?;
            let is_descending = self.eat("DESC");
            if !is_descending {
                self.eat("ASC");
            }
            orders.push((column, is_descending));
            if !self.eat_sign(",") {
                return Ok(orders);
            }
        }
    }

    /// An alias keeps its capitals: it becomes a member name.
    fn alias(&mut self) -> Result<Option<String>, ApiError> {
        let is_named = self.eat("AS");
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(Some(name))
            }
            Token::Word(word) if !RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)) => {
                self.at += 1;
                Ok(Some(word))
            }
            _ if is_named => Err(self.unexpected()),
            _ => Ok(None),
        }
    }

    pub(super) fn items(&mut self) -> Result<Vec<Item>, ApiError> {
        let mut items = vec![self.item()?];
        while self.eat_sign(",") {
            items.push(self.item()?);
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item, ApiError> {
        if matches!(self.peek(), Token::Sign("*")) {
            return Err(error("SELECT * is not supported in a SQL query; name the columns."));
        }
        if let Token::Number(literal) | Token::Text(literal) = self.peek() {
            return Err(error(format!("The literal '{literal}' is not supported in the select list.")));
        }
        let is_call = matches!(self.peek_after(), Token::Sign("("));
        let (column, method) = match self.peek().clone() {
            Token::Word(function) if is_call => self.aggregate(&function)?,
            _ => (Some(self.column()?), None),
        };
        if let Token::Sign(sign @ ("+" | "-" | "*" | "/" | "%")) = self.peek() {
            return Err(error(format!("The expression with '{sign}' is not supported in the select list.")));
        }
        Ok(Item { column, method, alias: self.alias()? })
    }

    fn aggregate(&mut self, function: &str) -> Result<(Option<Column>, Option<Method>), ApiError> {
        let method = match function.to_ascii_uppercase().as_str() {
            "COUNT" => Method::CountColumn,
            "SUM" => Method::Sum,
            "AVG" => Method::Average,
            "MIN" => Method::Min,
            "MAX" => Method::Max,
            _ => return Err(error(format!("The function {function} is not supported in the select list."))),
        };
        self.at += 2;
        if method == Method::CountColumn && self.eat_sign("*") {
            self.sign(")")?;
            return Ok((None, Some(Method::Count)));
        }
        let method = match (self.eat("DISTINCT"), method) {
            (true, Method::CountColumn) => Method::CountDistinct,
            (true, _) => return Err(error(format!("{function}(DISTINCT ...) is not supported in a SQL query."))),
            (false, method) => method,
        };
        let column = self.column()?;
        self.sign(")")?;
        Ok((Some(column), Some(method)))
    }

    /// FROM and its joins.
    pub(super) fn sources(&mut self) -> Result<(), ApiError> {
        let first = self.source()?;
        self.sources.push(first);
        loop {
            let kind = if self.eat("INNER") || self.is_word("JOIN") {
                LinkKind::Inner
            } else if self.eat("LEFT") {
                self.eat("OUTER");
                LinkKind::Outer
            } else if matches!(self.peek(), Token::Sign(",")) {
                return Err(error("Several tables in FROM are not supported in a SQL query; use JOIN."));
            } else {
                return Ok(());
            };
            self.keyword("JOIN")?;
            let source = self.source()?;
            self.sources.push(source);
            if self.sources.len() > SOURCES_MAX {
                let message = format!("The SQL query joins too many tables; at most {SOURCES_MAX} are allowed.");
                return Err(ApiError::new(Code::TooManyLinks, message));
            }
            self.keyword("ON")?;
            self.join(kind)?;
        }
    }

    fn source(&mut self) -> Result<Source, ApiError> {
        if matches!(self.peek(), Token::Sign("(")) {
            return Err(error("A subquery in FROM is not supported in a SQL query."));
        }
        let mut table = self.name()?;
        if self.eat_sign(".") {
            table = self.name()?;
        }
        let alias = self.alias()?.map(|alias| alias.to_lowercase());
        Ok(Source { table, alias, join: None })
    }

    /// `a.x = b.y`, then filters on the joined table.
    fn join(&mut self, kind: LinkKind) -> Result<(), ApiError> {
        let (left, right) = {
            let left = self.column()?;
            self.sign("=")?;
            (left, self.column()?)
        };
        let joined = self.sources.len() - 1;
        let at = |column: &Column| locate(&self.sources, self.context.schema, column);
        let (from, to, parent) = match (at(&left)?, at(&right)?) {
            (own, parent) if own == joined && parent != joined => (left.name, right.name, parent),
            (parent, own) if own == joined && parent != joined => (right.name, left.name, parent),
            _ => {
                return Err(error(
                    "A join condition compares a column of the joined table with one of a table before it.",
                ));
            }
        };
        let mut filters = Vec::new();
        while self.eat("AND") {
            filters.push(self.term(Some(joined))?);
        }
        self.sources[joined].join = Some(Join { kind, parent, from, to, filters });
        Ok(())
    }
}
