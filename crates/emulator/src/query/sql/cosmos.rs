//! The SQL of `ExecuteCosmosSqlQuery`: queries over the documents of an elastic table.
//!
//! Grammar: `SELECT [TOP n] * | [VALUE] items FROM c [WHERE condition] [ORDER BY paths]
//! [OFFSET n LIMIT n]`; conditions with comparison, AND, OR, NOT, IN, BETWEEN and the functions
//! CONTAINS, STARTSWITH, ENDSWITH, IS_DEFINED, IS_NULL, LOWER, UPPER; COUNT(1) as the only
//! aggregate. Promise: anything else is refused by name; what is undefined matches nothing.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::tokens::{Token, error, tokens};
use crate::error::ApiError;
use crate::query::Operator;

/// Deepest nesting of conditions.
const DEPTH_MAX: u32 = 50;

#[derive(Clone, Debug)]
enum Expr {
    Path(Vec<String>),
    Value(Json),
    Not(Box<Expr>),
    /// Flat, so that a long condition is no deep one.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Operator, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    Call(&'static str, Vec<Expr>),
}

#[derive(Clone, Debug)]
enum Selection {
    All,
    Items(Vec<(Expr, String)>),
    Value(Expr),
    /// The number of rows, under a name or bare.
    Count(Option<String>),
}

/// A query, parameters put in.
#[derive(Clone, Debug)]
pub(crate) struct CosmosQuery {
    selection: Selection,
    filter: Option<Expr>,
    orders: Vec<(Vec<String>, bool)>,
    offset: usize,
    limit: Option<usize>,
}

const FUNCTIONS: &[&str] = &["CONTAINS", "STARTSWITH", "ENDSWITH", "IS_DEFINED", "IS_NULL", "LOWER", "UPPER"];

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    /// The name of the documents, `c` as a rule.
    root: Option<String>,
    parameters: &'a HashMap<String, Json>,
    depth: u32,
}

/// Reads a query; `parameters` hold the values of `@name`.
pub(crate) fn parse_cosmos(text: &str, parameters: &HashMap<String, Json>) -> Result<CosmosQuery, ApiError> {
    let tokens = tokens(text)?;
    let root = root_name(&tokens);
    let mut parser = Parser { tokens, at: 0, root, parameters, depth: 0 };
    parser.query()
}

/// What stands after FROM, needed before the select list can be read.
fn root_name(tokens: &[Token]) -> Option<String> {
    let is_from = |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("from"));
    match tokens.iter().position(is_from).and_then(|at| tokens.get(at + 1)) {
        Some(Token::Word(name)) => Some(name.clone()),
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self) -> ApiError {
        let found = match self.peek() {
            Token::Word(text) | Token::Name(text) | Token::Number(text) | Token::Text(text) => text.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "the end".to_owned(),
        };
        error(format!("Syntax error near '{found}' in the Cosmos SQL query."))
    }

    fn expect(&mut self, found: bool) -> Result<(), ApiError> {
        if found { Ok(()) } else { Err(self.unexpected()) }
    }

    fn number(&mut self) -> Result<usize, ApiError> {
        match self.next() {
            Token::Number(text) => text.parse().map_err(|_| error("A whole number was expected.")),
            _ => Err(error("A whole number was expected.")),
        }
    }

    fn query(&mut self) -> Result<CosmosQuery, ApiError> {
        let found = self.eat("SELECT");
        self.expect(found)?;
        let mut limit = if self.eat("TOP") { Some(self.number()?) } else { None };
        let selection = self.selection()?;
        let found = self.eat("FROM");
        self.expect(found)?;
        self.next();
        let filter = if self.eat("WHERE") { Some(self.or()?) } else { None };
        let mut orders = Vec::new();
        if self.eat("ORDER") {
            let found = self.eat("BY");
            self.expect(found)?;
            orders = self.orders()?;
        }
        let mut offset = 0;
        if self.eat("OFFSET") {
            offset = self.number()?;
            let found = self.eat("LIMIT");
            self.expect(found)?;
            limit = Some(self.number()?);
        }
        self.sign(";");
        let ended = *self.peek() == Token::End;
        self.expect(ended)?;
        Ok(CosmosQuery { selection, filter, orders, offset, limit })
    }

    fn selection(&mut self) -> Result<Selection, ApiError> {
        if self.sign("*") {
            return Ok(Selection::All);
        }
        let is_value = self.eat("VALUE");
        if self.eat("COUNT") {
            let found = self.sign("(");
            self.expect(found)?;
            self.next();
            let found = self.sign(")");
            self.expect(found)?;
            let name = if self.eat("AS") { Some(self.name()?) } else { None };
            return Ok(Selection::Count((!is_value).then(|| name.unwrap_or_else(|| "$1".to_owned()))));
        }
        if is_value {
            return Ok(Selection::Value(self.operand()?));
        }
        let mut items = Vec::new();
        loop {
            let item = self.operand()?;
            let own = match &item {
                Expr::Path(steps) => steps.last().cloned(),
                _ => None,
            };
            let name =
                if self.eat("AS") { self.name()? } else { own.unwrap_or_else(|| format!("${}", items.len() + 1)) };
            items.push((item, name));
            if !self.sign(",") {
                return Ok(Selection::Items(items));
            }
        }
    }

    fn name(&mut self) -> Result<String, ApiError> {
        match self.next() {
            Token::Word(name) | Token::Name(name) => Ok(name),
            _ => Err(error("A name was expected in the Cosmos SQL query.")),
        }
    }

    fn orders(&mut self) -> Result<Vec<(Vec<String>, bool)>, ApiError> {
        let mut orders = Vec::new();
        loop {
            let Expr::Path(path) = self.operand()? else {
                return Err(error("ORDER BY takes paths."));
            };
            let is_descending = self.eat("DESC");
            if !is_descending {
                self.eat("ASC");
            }
            orders.push((path, is_descending));
            if !self.sign(",") {
                return Ok(orders);
            }
        }
    }

    fn or(&mut self) -> Result<Expr, ApiError> {
        let mut terms = vec![self.and()?];
        while self.eat("OR") {
            terms.push(self.and()?);
        }
        Ok(Expr::Or(terms))
    }

    fn and(&mut self) -> Result<Expr, ApiError> {
        let mut terms = vec![self.condition()?];
        while self.eat("AND") {
            terms.push(self.condition()?);
        }
        Ok(Expr::And(terms))
    }

    fn condition(&mut self) -> Result<Expr, ApiError> {
        self.deeper()?;
        let expr = if self.eat("NOT") {
            Expr::Not(Box::new(self.condition()?))
        } else if self.sign("(") {
            let inner = self.or()?;
            let found = self.sign(")");
            self.expect(found)?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Counts a level of whatever can hold its like: parentheses, `NOT`, functions.
    fn deeper(&mut self) -> Result<(), ApiError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(error("The Cosmos SQL query is nested too deeply.")) } else { Ok(()) }
    }

    fn comparison(&mut self) -> Result<Expr, ApiError> {
        let left = self.operand()?;
        let operator = match self.peek() {
            Token::Sign("=") => Operator::Eq,
            Token::Sign("!=" | "<>") => Operator::Ne,
            Token::Sign("<") => Operator::Lt,
            Token::Sign("<=") => Operator::Le,
            Token::Sign(">") => Operator::Gt,
            Token::Sign(">=") => Operator::Ge,
            _ => return self.set_condition(left),
        };
        self.next();
        Ok(Expr::Compare(operator, Box::new(left), Box::new(self.operand()?)))
    }

    /// IN, BETWEEN, or a value that stands alone.
    fn set_condition(&mut self, left: Expr) -> Result<Expr, ApiError> {
        let negated = self.eat("NOT");
        let expr = if self.eat("IN") {
            let found = self.sign("(");
            self.expect(found)?;
            let mut values = vec![self.operand()?];
            while self.sign(",") {
                values.push(self.operand()?);
            }
            let found = self.sign(")");
            self.expect(found)?;
            Expr::In(Box::new(left), values)
        } else if self.eat("BETWEEN") {
            let low = self.operand()?;
            let found = self.eat("AND");
            self.expect(found)?;
            let high = self.operand()?;
            let least = Expr::Compare(Operator::Ge, Box::new(left.clone()), Box::new(low));
            let greatest = Expr::Compare(Operator::Le, Box::new(left), Box::new(high));
            Expr::And(vec![least, greatest])
        } else if negated {
            return Err(self.unexpected());
        } else {
            left
        };
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn operand(&mut self) -> Result<Expr, ApiError> {
        let is_negative = self.sign("-");
        match self.next() {
            Token::Number(text) => {
                let text = if is_negative { format!("-{text}") } else { text };
                let number = serde_json::from_str(&text).map_err(|_| error(format!("'{text}' is not a number.")))?;
                Ok(Expr::Value(number))
            }
            _ if is_negative => Err(error("A number was expected after '-'.")),
            Token::Text(text) | Token::Name(text) => Ok(Expr::Value(text.into())),
            Token::Word(word) => self.word(&word),
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<Expr, ApiError> {
        if word.starts_with('@') {
            let value = self.parameters.get(word);
            return value
                .cloned()
                .map(Expr::Value)
                .ok_or_else(|| error(format!("The parameter '{word}' has no value.")));
        }
        match word.to_ascii_lowercase().as_str() {
            "true" => return Ok(Expr::Value(true.into())),
            "false" => return Ok(Expr::Value(false.into())),
            "null" => return Ok(Expr::Value(Json::Null)),
            _ => {}
        }
        if self.sign("(") {
            let name = FUNCTIONS.iter().find(|name| word.eq_ignore_ascii_case(name));
            let name = name.ok_or_else(|| error(format!("The function '{word}' is not supported.")))?;
            self.deeper()?;
            let mut arguments = vec![self.operand()?];
            while self.sign(",") {
                arguments.push(self.operand()?);
            }
            let found = self.sign(")");
            self.expect(found)?;
            self.depth -= 1;
            return Ok(Expr::Call(name, arguments));
        }
        if self.root.as_deref() != Some(word) {
            return Err(error(format!("Identifier '{word}' could not be resolved.")));
        }
        let mut steps = Vec::new();
        while self.sign(".") {
            steps.push(self.name()?);
        }
        Ok(Expr::Path(steps))
    }
}

/// The value of an expression; none where something is undefined.
fn eval(expr: &Expr, document: &Json) -> Option<Json> {
    let truth = |expr: &Expr| eval(expr, document).and_then(|value| value.as_bool());
    match expr {
        Expr::Path(steps) => steps.iter().try_fold(document, |value, step| value.get(step)).cloned(),
        Expr::Value(value) => Some(value.clone()),
        Expr::Not(inner) => truth(inner).map(|value| (!value).into()),
        // A part that stands alone is its own value: it may be no truth at all.
        Expr::And(parts) | Expr::Or(parts) if parts.len() == 1 => eval(&parts[0], document),
        Expr::And(parts) => joined(parts.iter().map(truth), false),
        Expr::Or(parts) => joined(parts.iter().map(truth), true),
        Expr::Compare(operator, a, b) => {
            let (a, b) = (eval(a, document)?, eval(b, document)?);
            match operator {
                Operator::Eq => Some((order(&a, &b) == Some(Ordering::Equal)).into()),
                Operator::Ne => Some((order(&a, &b) != Some(Ordering::Equal)).into()),
                Operator::Lt => Some((order(&a, &b)? == Ordering::Less).into()),
                Operator::Le => Some((order(&a, &b)? != Ordering::Greater).into()),
                Operator::Gt => Some((order(&a, &b)? == Ordering::Greater).into()),
                Operator::Ge => Some((order(&a, &b)? != Ordering::Less).into()),
            }
        }
        Expr::In(value, list) => {
            let value = eval(value, document)?;
            let found = list.iter().filter_map(|item| eval(item, document));
            Some(found.into_iter().any(|item| order(&value, &item) == Some(Ordering::Equal)).into())
        }
        Expr::Call(name, arguments) => call(name, arguments, document),
    }
}

/// Truths joined; `decisive` ends an or with true, an and with false, whatever the others are.
fn joined(truths: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<Json> {
    let mut result = Some(!decisive);
    for truth in truths {
        match truth {
            Some(value) if value == decisive => return Some(decisive.into()),
            None => result = None,
            Some(_) => {}
        }
    }
    result.map(Json::from)
}

fn call(name: &str, arguments: &[Expr], document: &Json) -> Option<Json> {
    let value = |index: usize| arguments.get(index).and_then(|argument| eval(argument, document));
    match name {
        "IS_DEFINED" => return Some(value(0).is_some().into()),
        "IS_NULL" => return Some((value(0) == Some(Json::Null)).into()),
        _ => {}
    }
    let first = value(0)?.as_str()?.to_owned();
    match name {
        "LOWER" => return Some(first.to_lowercase().into()),
        "UPPER" => return Some(first.to_uppercase().into()),
        _ => {}
    }
    let second = value(1)?.as_str()?.to_owned();
    // A third argument asks for comparison without case.
    let (first, second) = match value(2) {
        Some(Json::Bool(true)) => (first.to_lowercase(), second.to_lowercase()),
        _ => (first, second),
    };
    Some(match name {
        "CONTAINS" => first.contains(&second).into(),
        "STARTSWITH" => first.starts_with(&second).into(),
        _ => first.ends_with(&second).into(),
    })
}

/// Orders values of one type.
fn order(a: &Json, b: &Json) -> Option<Ordering> {
    match (a, b) {
        (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
        (Json::Number(a), Json::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

impl CosmosQuery {
    /// Runs the query over documents; every result is an object.
    pub(crate) fn run(&self, documents: Vec<Json>) -> Vec<Json> {
        let passes = |document: &Json| match &self.filter {
            Some(filter) => eval(filter, document) == Some(Json::Bool(true)),
            None => true,
        };
        let mut found: Vec<Json> = documents.into_iter().filter(passes).collect();
        if !self.orders.is_empty() {
            let key = |document: &Json, path: &Vec<String>| eval(&Expr::Path(path.clone()), document);
            found.sort_by(|a, b| {
                for (path, is_descending) in &self.orders {
                    let ordering = match (key(a, path), key(b, path)) {
                        (Some(a), Some(b)) => order(&a, &b).unwrap_or(Ordering::Equal),
                        (a, b) => a.is_some().cmp(&b.is_some()),
                    };
                    let ordering = if *is_descending { ordering.reverse() } else { ordering };
                    if ordering != Ordering::Equal {
                        return ordering;
                    }
                }
                Ordering::Equal
            });
        }
        if let Selection::Count(name) = &self.selection {
            let name = name.clone().unwrap_or_else(|| "_value".to_owned());
            return vec![Json::Object(Map::from_iter([(name, Json::from(found.len()))]))];
        }
        let limit = self.limit.unwrap_or(usize::MAX);
        found.into_iter().skip(self.offset).take(limit).map(|document| self.shown(document)).collect()
    }

    fn shown(&self, document: Json) -> Json {
        let one = |name: &str, value: Json| Json::Object(Map::from_iter([(name.to_owned(), value)]));
        match &self.selection {
            Selection::All | Selection::Count(_) => document,
            Selection::Value(expr) => match eval(expr, &document) {
                Some(value @ Json::Object(_)) => value,
                value => one("_value", value.unwrap_or(Json::Null)),
            },
            Selection::Items(items) => {
                let members = items.iter().filter_map(|(expr, name)| Some((name.clone(), eval(expr, &document)?)));
                Json::Object(members.collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(text: &str) -> Result<Vec<Json>, String> {
        let documents =
            vec![json!({"props": {"n": "a", "v": 1}}), json!({"props": {"n": "b", "v": 5, "j": {"k": true}}})];
        let parameters = HashMap::from([("@v".to_owned(), json!(3))]);
        parse_cosmos(text, &parameters).map(|query| query.run(documents)).map_err(|error| error.message)
    }

    #[test]
    fn documents_are_filtered_projected_and_counted() {
        assert_eq!(run("select c.props.n as d from c where c.props.v > @v").unwrap(), [json!({"d": "b"})]);
        assert_eq!(run("SELECT c.props.n FROM c ORDER BY c.props.v DESC").unwrap()[0], json!({"n": "b"}));
        assert_eq!(run("SELECT COUNT(1) AS k FROM c WHERE NOT c.props.n IN ('a')").unwrap(), [json!({"k": 1})]);
        assert_eq!(run("SELECT c.props.n FROM c WHERE c.props.j.k = true").unwrap(), [json!({"n": "b"})]);
        assert_eq!(run("SELECT * FROM c WHERE STARTSWITH(c.props.n, 'A', true)").unwrap().len(), 1);
        assert_eq!(run("SELECT * FROM c OFFSET 1 LIMIT 5").unwrap().len(), 1);
    }

    #[test]
    fn a_long_condition_is_no_deep_one() {
        let long = format!("select c.props.n from c where {}", vec!["c.props.v = 5"; 60_000].join(" or "));
        assert_eq!(run(&long).unwrap(), [json!({"n": "b"})]);
    }

    #[test]
    fn the_rest_is_refused() {
        for text in [
            "",
            "select x.a from c",
            "select c.a from c group by c.a",
            "select c.a from c where c.a = @w",
            "select abs(c.a) from c",
            &format!("select c.a from c where {}c.a", "not ".repeat(100_000)),
            &format!("select c.a from c where {}c.a", "(".repeat(100_000)),
            &format!("select {}c.a from c", "lower(".repeat(100_000)),
            &format!("select c.a from c where c.a in ({}", "upper(".repeat(100_000)),
        ] {
            assert!(run(text).is_err(), "{text}");
        }
    }
}
