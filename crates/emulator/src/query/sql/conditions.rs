//! Conditions of WHERE and ON: a column, an operator, constants.

use super::parser::{Column, Parser, locate};
use super::tokens::{Token, error};
use crate::error::ApiError;
use crate::query::Operator;
use crate::query::fetch::{Condition, Filter, Operation};
use crate::query::periods::shift_months;
use crate::query::write_time;
use crate::write::parse_time;

/// Deepest nesting of parentheses and functions.
const DEPTH_MAX: u32 = 50;

impl Parser<'_> {
    /// Conditions joined by OR and AND. In an ON clause only columns of table `only` may stand.
    pub(super) fn condition(&mut self, only: Option<usize>) -> Result<Filter, ApiError> {
        let mut parts = vec![self.conjunction(only)?];
        while self.eat("OR") {
            parts.push(self.conjunction(only)?);
        }
        Ok(Filter::Or(parts))
    }

    fn conjunction(&mut self, only: Option<usize>) -> Result<Filter, ApiError> {
        let mut parts = vec![self.term(only)?];
        while self.eat("AND") {
            parts.push(self.term(only)?);
        }
        Ok(Filter::And(parts))
    }

    /// One comparison, or a parenthesis.
    pub(super) fn term(&mut self, only: Option<usize>) -> Result<Filter, ApiError> {
        self.deeper()?;
        let filter = if self.eat_sign("(") {
            let inner = self.condition(only)?;
            self.sign(")")?;
            inner
        } else {
            self.comparison(only)?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self, only: Option<usize>) -> Result<Filter, ApiError> {
        if let Token::Number(literal) | Token::Text(literal) = self.peek() {
            return Err(error(format!("A condition begins with a column, not with the literal '{literal}'.")));
        }
        let column = self.column()?;
        if let Token::Sign(sign @ ("+" | "-" | "*" | "/" | "%" | "(")) = self.peek() {
            return Err(error(format!("The expression with '{sign}' is not supported in a condition.")));
        }
        if self.eat("IS") {
            let is_null = !self.eat("NOT");
            self.keyword("NULL")?;
            return self.filter(only, column, Operation::IsNull(is_null), Vec::new());
        }
        let negated = self.eat("NOT");
        if self.eat("LIKE") {
            let pattern = self.constant()?;
            return self.filter(only, column, Operation::Like { before: "", after: "", negated }, vec![pattern]);
        }
        if self.eat("IN") {
            let function = if negated { "NotIn" } else { "In" };
            let values = self.list()?;
            return self.filter(only, column, Operation::Function(function.to_owned()), values);
        }
        if self.eat("BETWEEN") {
            let function = if negated { "NotBetween" } else { "Between" };
            let low = self.constant()?;
            self.keyword("AND")?;
            let high = self.constant()?;
            return self.filter(only, column, Operation::Function(function.to_owned()), vec![low, high]);
        }
        if negated {
            return Err(self.unexpected());
        }
        let operator = self.operator()?;
        let value = self.constant()?;
        self.filter(only, column, Operation::Compare(operator), vec![value])
    }

    fn operator(&mut self) -> Result<Operator, ApiError> {
        let operator = match self.peek() {
            Token::Sign("=") => Operator::Eq,
            Token::Sign("<>" | "!=") => Operator::Ne,
            Token::Sign("<") => Operator::Lt,
            Token::Sign("<=") => Operator::Le,
            Token::Sign(">") => Operator::Gt,
            Token::Sign(">=") => Operator::Ge,
            _ => return Err(self.unexpected()),
        };
        self.next();
        Ok(operator)
    }

    fn list(&mut self) -> Result<Vec<String>, ApiError> {
        self.sign("(")?;
        let mut values = vec![self.constant()?];
        while self.eat_sign(",") {
            values.push(self.constant()?);
        }
        self.sign(")")?;
        Ok(values)
    }

    fn filter(
        &self,
        only: Option<usize>,
        column: Column,
        operation: Operation,
        values: Vec<String>,
    ) -> Result<Filter, ApiError> {
        let at = locate(&self.sources, self.context.schema, &column)?;
        if only.is_some_and(|only| only != at) {
            return Err(error(format!("'{}' is not a column of the joined table.", column.name)));
        }
        // Inside an ON clause the table around the condition is the joined one itself.
        let entity = (only.is_none() && at > 0).then(|| self.sources[at].name().to_owned());
        Ok(Filter::Condition(Condition { column: column.name, entity, operation, values, value_of: None }))
    }

    /// A literal, `GETUTCDATE()` or `DATEADD(...)`, as the text of its value.
    fn constant(&mut self) -> Result<String, ApiError> {
        self.deeper()?;
        let constant = self.constant_here()?;
        self.depth -= 1;
        Ok(constant)
    }

    /// Counts a level of whatever can hold its like: parentheses, `NOT`, `DATEADD` in each of its places.
    fn deeper(&mut self) -> Result<(), ApiError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(error("The SQL query is nested too deeply.")) } else { Ok(()) }
    }

    fn constant_here(&mut self) -> Result<String, ApiError> {
        if self.eat_sign("-") {
            return match self.next() {
                Token::Number(number) => Ok(format!("-{number}")),
                _ => Err(error("A number was expected after '-'.")),
            };
        }
        match self.peek().clone() {
            Token::Number(text) | Token::Text(text) => {
                self.next();
                Ok(text)
            }
            Token::Word(word) if word.eq_ignore_ascii_case("GETUTCDATE") || word.eq_ignore_ascii_case("DATEADD") => {
                // A time outside the range of dates is refused by the column it is compared with.
                self.date().map(write_time)
            }
            Token::Word(word) | Token::Name(word) => {
                Err(error(format!("'{word}' is not a constant; columns cannot be compared with each other.")))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn date(&mut self) -> Result<i64, ApiError> {
        if self.eat("GETUTCDATE") {
            self.sign("(")?;
            self.sign(")")?;
            return Ok(self.context.now);
        }
        if let Token::Text(text) = self.peek().clone() {
            self.next();
            return parse_time(&text);
        }
        self.keyword("DATEADD")?;
        self.sign("(")?;
        let Token::Word(unit) = self.next() else {
            return Err(error("DATEADD needs a unit."));
        };
        self.sign(",")?;
        let number = self.constant()?;
        let number = number.parse::<i64>().ok().filter(|number| number.abs() <= 1_000_000);
        let number = number.ok_or_else(|| error("DATEADD needs a whole number."))?;
        self.sign(",")?;
        self.deeper()?;
        let at = self.date()?;
        self.depth -= 1;
        self.sign(")")?;
        add(&unit, number, at)
    }
}

fn add(unit: &str, number: i64, at: i64) -> Result<i64, ApiError> {
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "second" | "ss" | "s" => 1,
        "minute" | "mi" | "n" => 60,
        "hour" | "hh" => 3600,
        "day" | "dd" | "d" => 86_400,
        "week" | "wk" | "ww" => 7 * 86_400,
        "month" | "mm" | "m" => return Ok(shift_months(at, number)),
        "quarter" | "qq" | "q" => return Ok(shift_months(at, 3 * number)),
        "year" | "yy" | "yyyy" => return Ok(shift_months(at, 12 * number)),
        other => return Err(error(format!("DATEADD does not know the unit '{other}'."))),
    };
    Ok(at + number * seconds)
}
