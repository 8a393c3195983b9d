//! The filter language as a tree.
//!
//! Grammar: `or` binds looser than `and`, `and` than `not`; a term is a comparison, a call of
//! contains, startswith, endswith or a `Microsoft.Dynamics.CRM` function, a lambda, or a
//! parenthesis. Promise: every text is either a tree or an error with a position; the parser counts
//! depth and conditions as it goes, so a tree is at most `DEPTH_MAX` deep however long its text is.
//! Left out: whether names exist.

use std::collections::HashMap;

use uuid::Uuid;

use crate::error::{ApiError, Code};

/// Deepest nesting of parentheses, `not` and lambdas.
const DEPTH_MAX: u32 = 100;
/// Conditions a filter may hold.
const CONDITIONS_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A property, through navigation properties if it has several steps.
    Path(Vec<String>),
    Text(String),
    /// A number as written.
    Number(String),
    Guid(Uuid),
    Time(String),
    Bool(bool),
    Null,
    List(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// All of them, in the order written. Flat, so that a long filter is no deep one.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Compare(Operator, Operand, Operand),
    /// contains, startswith, endswith.
    Text {
        function: String,
        arguments: Vec<Operand>,
    },
    /// A function of the product, without its namespace.
    Call {
        function: String,
        arguments: Vec<(String, Operand)>,
    },
    Lambda {
        path: Vec<String>,
        is_all: bool,
        variable: String,
        body: Option<Box<Expr>>,
    },
}

/// Parses a filter; `aliases` hold the values of `@name`.
pub(crate) fn parse_filter(text: &str, aliases: &HashMap<String, String>) -> Result<Expr, ApiError> {
    let mut parser = Parser { text, at: 0, aliases, depth: 0, conditions: 0 };
    let expr = parser.or()?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.error("an operator or the end was expected"));
    }
    Ok(expr)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    aliases: &'a HashMap<String, String>,
    depth: u32,
    conditions: usize,
}

const TEXT_FUNCTIONS: &[&str] = &["contains", "startswith", "endswith"];
const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> ApiError {
        ApiError::query(format!("Syntax error at position {} in '{}': {what}.", self.at, self.text))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn expect(&mut self, symbol: char) -> Result<(), ApiError> {
        if self.eat(symbol) { Ok(()) } else { Err(self.error(&format!("'{symbol}' was expected"))) }
    }

    /// The run of characters that make names, numbers, ids and times.
    fn peek_word(&mut self) -> &'a str {
        self.blanks();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_.-:/@$+".contains(c))).unwrap_or(rest.len());
        &rest[..end]
    }

    fn eat_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek_word() == keyword;
        if found {
            self.at += keyword.len();
        }
        found
    }

    fn or(&mut self) -> Result<Expr, ApiError> {
        let first = self.and()?;
        let mut terms = vec![first];
        while self.eat_keyword("or") {
            terms.push(self.and()?);
        }
        Ok(single_or(terms, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, ApiError> {
        let first = self.not()?;
        let mut terms = vec![first];
        while self.eat_keyword("and") {
            terms.push(self.not()?);
        }
        Ok(single_or(terms, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, ApiError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("the filter is nested too deeply"));
        }
        let expr = if self.eat_keyword("not") { Expr::Not(Box::new(self.not()?)) } else { self.term()? };
        self.depth -= 1;
        Ok(expr)
    }

    fn term(&mut self) -> Result<Expr, ApiError> {
        if self.eat('(') {
            let inner = self.or()?;
            self.expect(')')?;
            return Ok(inner);
        }
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            let message = format!("Number of conditions in query exceeded maximum limit of {CONDITIONS_MAX}.");
            return Err(ApiError::new(Code::TooManyConditions, message));
        }
        let word = self.peek_word();
        let is_call = self.rest().get(word.len()..).is_some_and(|after| after.trim_start().starts_with('('));
        if is_call && !word.is_empty() {
            self.at += word.len();
            return self.call(word);
        }
        let left = self.operand()?;
        let Some(operator) = self.operator() else {
            // A boolean column may stand alone.
            return match left {
                Operand::Path(_) => Ok(Expr::Compare(Operator::Eq, left, Operand::Bool(true))),
                _ => Err(self.error("a comparison operator was expected")),
            };
        };
        let right = self.operand()?;
        Ok(Expr::Compare(operator, left, right))
    }

    fn operator(&mut self) -> Option<Operator> {
        let operators = [
            ("eq", Operator::Eq),
            ("ne", Operator::Ne),
            ("gt", Operator::Gt),
            ("ge", Operator::Ge),
            ("lt", Operator::Lt),
            ("le", Operator::Le),
        ];
        operators.into_iter().find(|(name, _)| self.eat_keyword(name)).map(|(_, operator)| operator)
    }

    fn call(&mut self, name: &str) -> Result<Expr, ApiError> {
        if let Some(path) = name.strip_suffix("/any") {
            return self.lambda(path, false);
        }
        if let Some(path) = name.strip_suffix("/all") {
            return self.lambda(path, true);
        }
        self.expect('(')?;
        if TEXT_FUNCTIONS.contains(&name) {
            let mut arguments = vec![self.operand()?];
            while self.eat(',') {
                arguments.push(self.operand()?);
            }
            self.expect(')')?;
            return Ok(Expr::Text { function: name.to_owned(), arguments });
        }
        let Some(function) = name.strip_prefix(NAMESPACE) else {
            return Err(ApiError::query(format!(
                "An unknown function with name '{name}' was found. This may also be a function import or a key lookup on a navigation property, which is not allowed."
            )));
        };
        let mut arguments = Vec::new();
        while !self.eat(')') {
            let name = self.peek_word().to_owned();
            self.at += name.len();
            self.expect('=')?;
            arguments.push((name, self.operand()?));
            self.eat(',');
            if self.at >= self.text.len() {
                return Err(self.error("')' was expected"));
            }
        }
        Ok(Expr::Call { function: function.to_owned(), arguments })
    }

    fn lambda(&mut self, path: &str, is_all: bool) -> Result<Expr, ApiError> {
        let path = path.split('/').map(str::to_owned).collect();
        self.expect('(')?;
        if self.eat(')') {
            return Ok(Expr::Lambda { path, is_all, variable: String::new(), body: None });
        }
        // The variable and its colon come out as one word: `o:o/name`.
        let word = self.peek_word();
        let Some(colon) = word.find(':') else {
            return Err(self.error("a lambda variable and ':' were expected"));
        };
        let variable = word[..colon].to_owned();
        self.at += colon + 1;
        let body = self.or()?;
        self.expect(')')?;
        Ok(Expr::Lambda { path, is_all, variable, body: Some(Box::new(body)) })
    }

    fn operand(&mut self) -> Result<Operand, ApiError> {
        self.blanks();
        match self.rest().chars().next() {
            Some('\'') => self.quoted().map(Operand::Text),
            Some('[') => self.list(),
            Some('"') => Err(self.error("strings stand in single quotes")),
            _ => self.word(),
        }
    }

    fn quoted(&mut self) -> Result<String, ApiError> {
        let start = self.at;
        let mut value = String::new();
        let mut characters = self.rest().char_indices().skip(1).peekable();
        while let Some((index, character)) = characters.next() {
            if character != '\'' {
                value.push(character);
            } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
                value.push('\'');
            } else {
                self.at = start + index + 1;
                return Ok(value);
            }
        }
        Err(ApiError::query(format!("There is an unterminated literal at position {start} in '{}'.", self.text)))
    }

    fn list(&mut self) -> Result<Operand, ApiError> {
        let rest = self.rest();
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Vec<serde_json::Value>>();
        let Some(Ok(items)) = stream.next() else {
            return self.quoted_list();
        };
        self.at += stream.byte_offset();
        let text = |item: serde_json::Value| match item {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Operand::List(items.into_iter().map(text).collect()))
    }

    /// `['1','2']`: the service reads single quotes, too, as OData literals have them.
    fn quoted_list(&mut self) -> Result<Operand, ApiError> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.blanks();
            if !self.rest().starts_with('\'') {
                return Err(self.error("a JSON array was expected"));
            }
            items.push(self.quoted()?);
            self.blanks();
            match self.rest().chars().next() {
                Some(',') => self.at += 1,
                Some(']') => {
                    self.at += 1;
                    return Ok(Operand::List(items));
                }
                _ => return Err(self.error("a JSON array was expected")),
            }
        }
    }

    fn word(&mut self) -> Result<Operand, ApiError> {
        let word = self.peek_word();
        if word.is_empty() {
            return Err(self.error("a value or a property was expected"));
        }
        self.at += word.len();
        if let Some(value) = word.starts_with('@').then(|| self.aliases.get(word)) {
            let value = value.ok_or_else(|| self.error(&format!("the parameter alias '{word}' has no value")))?;
            let none = HashMap::new();
            let mut inner = Parser { text: value, at: 0, aliases: &none, depth: 0, conditions: 0 };
            return inner.operand();
        }
        // `Namespace.Type'Value'` is an enumeration literal.
        if self.rest().starts_with('\'') && word.contains('.') {
            return self.quoted().map(Operand::Text);
        }
        Ok(literal(word))
    }
}

/// A term that stands alone, or several joined.
fn single_or(mut terms: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match (terms.len(), terms.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            terms.extend(last);
            join(terms)
        }
    }
}

fn literal(word: &str) -> Operand {
    match word {
        "null" => return Operand::Null,
        "true" => return Operand::Bool(true),
        "false" => return Operand::Bool(false),
        _ => {}
    }
    if word.len() == 36 {
        if let Ok(id) = Uuid::parse_str(word) {
            return Operand::Guid(id);
        }
    }
    let starts_number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+' || c == '.');
    if !starts_number {
        return Operand::Path(word.split('/').map(str::to_owned).collect());
    }
    let is_date = word.len() >= 10 && word.as_bytes()[4] == b'-' && word.as_bytes()[7] == b'-';
    if is_date { Operand::Time(word.to_owned()) } else { Operand::Number(word.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Expr, String> {
        parse_filter(text, &HashMap::new()).map_err(|error| error.message)
    }

    #[test]
    fn and_binds_tighter_than_or_and_not_tighter_than_both() {
        let Expr::Or(terms) = parse("a eq 1 or not b eq 2 and c eq 3").unwrap() else { panic!("not an or") };
        let [Expr::Compare(..), Expr::And(both)] = terms.as_slice() else { panic!("{terms:?}") };
        assert!(matches!(both[0], Expr::Not(_)));
    }

    #[test]
    fn depth_and_conditions_are_counted_while_reading() {
        let chain = |terms: usize, joint: &str| vec!["a eq 1"; terms].join(joint);
        assert!(parse(&chain(500, " or ")).is_ok() && parse(&chain(500, " and ")).is_ok());
        for text in [chain(60_000, " or "), chain(60_000, " and "), format!("x/any(o:{})", chain(501, " or "))] {
            let error = parse_filter(&text, &HashMap::new()).unwrap_err();
            assert_eq!(error.code, Code::TooManyConditions as u32);
        }
        let nested = |open: &str, close: &str, levels: usize| {
            parse(&format!("{}a eq 1{}", open.repeat(levels), close.repeat(levels)))
        };
        for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")"), ("x/any(o:", ")"), ("x/all(o:(", "))")] {
            assert!(nested(open, close, 40).is_ok(), "{open}");
            assert!(nested(open, close, 100_000).unwrap_err().contains("nested too deeply"), "{open}");
        }
    }

    #[test]
    fn literals_have_types() {
        let value = |text: &str| match parse(&format!("x eq {text}")).unwrap() {
            Expr::Compare(_, _, value) => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(value("'it''s'"), Operand::Text("it's".into()));
        assert_eq!(value("-5.25"), Operand::Number("-5.25".into()));
        assert_eq!(value("2026-03-01T08:00:00Z"), Operand::Time("2026-03-01T08:00:00Z".into()));
        assert!(matches!(value("a1b2c3d4-0000-4000-8000-000000000001"), Operand::Guid(_)));
        assert_eq!(value("null"), Operand::Null);
    }

    #[test]
    fn an_open_literal_is_named_with_its_position() {
        assert_eq!(
            parse("name eq 'abc").unwrap_err(),
            "There is an unterminated literal at position 8 in 'name eq 'abc'."
        );
    }

    #[test]
    fn aliases_stand_for_values() {
        let aliases = HashMap::from([
            ("@v".to_owned(), r#"["O'Brian","Smith"]"#.to_owned()),
            ("@p".to_owned(), "'lastname'".to_owned()),
        ]);
        let expr = parse_filter("Microsoft.Dynamics.CRM.In(PropertyName=@p,PropertyValues=@v)", &aliases).unwrap();
        let Expr::Call { function, arguments } = expr else { panic!("not a call") };
        assert_eq!(function, "In");
        assert_eq!(arguments[1].1, Operand::List(vec!["O'Brian".into(), "Smith".into()]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a eq", "a eq 1 b", "(a eq 1", "foo(a)", "a eq 1 and", "tolower(name) eq 'x'", "a in (1,2)"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
