//! How large a transform may be, decided on its text before anything recurses over it.
//!
//! Parsing, planning and running descend once for each level of an expression, and planning takes time that grows
//! with the square of some lengths. What is within these bounds needs no more stack than [`STACK_BYTES`], and no minutes; `check`,
//! `plan` and `run` ask the same function, so what one takes the others take.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, Query, SetExpr, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::{Place, SqlError};

/// Bytes of one SELECT's text.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// Words, numbers and signs of one SELECT.
pub(crate) const TOKENS_MAX: usize = 50_000;
/// Operators below each other, those of an expression and of what encloses it together. A chain of operators, as in
/// `a OR b OR c`, is as deep as it is long.
pub(crate) const DEPTH_MAX: usize = 500;
/// SELECTs and tables, each counted as often as it is read by way of common table expressions.
pub(crate) const RELATIONS_MAX: usize = 250;

/// The stack of each thread that plans or runs SELECTs: what is within the bounds needs a fraction of it, and memory is
/// taken only for what is used.
pub const STACK_BYTES: usize = 64 << 20;

/// Refuses a text that is too long or too deep. One that has no tokens is left to the parser, which says why.
pub(crate) fn require_bounded_text(sql: &str) -> Result<(), SqlError> {
    if sql.len() > TEXT_BYTES_MAX {
        return Err(too_large("more bytes of text".to_owned(), TEXT_BYTES_MAX, None));
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize_with_location() else { return Ok(()) };
    let mut seen = 0;
    let mut levels = Levels::default();
    for TokenWithSpan { token, span } in &tokens {
        if matches!(token, Token::Whitespace(_)) {
            continue;
        }
        seen += 1;
        if seen > TOKENS_MAX {
            return Err(too_large("more words and signs".to_owned(), TOKENS_MAX, Some(span.start)));
        }
        levels.take(token);
        if levels.deepest() > DEPTH_MAX {
            return Err(too_large("operators nested deeper".to_owned(), DEPTH_MAX, Some(span.start)));
        }
    }
    Ok(())
}

fn too_large(what: String, max: usize, at: Option<Location>) -> SqlError {
    let place = at.map(|at| Place { line: at.line as usize, column: at.column as usize });
    SqlError::TooLarge { what, max, place }
}

/// The brackets that are open, outermost first, and how deep what stands in each of them is.
struct Levels(Vec<Level>);

#[derive(Default)]
struct Level {
    /// Operators since the last comma or clause.
    links: usize,
    /// The deepest closed bracket since then.
    inner: usize,
    /// The deepest part before that.
    before: usize,
    /// UNIONs and joins: they chain over clauses.
    chained: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.before.max(self.links + self.inner) + self.chained
    }

    fn begin_part(&mut self) {
        self.before = self.before.max(self.links + self.inner);
        (self.links, self.inner) = (0, 0);
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self(vec![Level::default()])
    }
}

impl Levels {
    fn deepest(&self) -> usize {
        self.0.iter().map(|level| level.links + level.chained + 1).sum::<usize>().max(self.innermost_depth())
    }

    /// The depth of what is closed already, below the level that is open.
    fn innermost_depth(&self) -> usize {
        self.0.last().map_or(0, Level::depth) + self.0.len()
    }

    fn take(&mut self, token: &Token) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => self.0.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Word(word) if word.quote_style.is_some() => {}
            Token::Word(word) => self.take_word(word.keyword),
            Token::Comma | Token::SemiColon => self.last(Level::begin_part),
            Token::Period | Token::Number(..) | Token::SingleQuotedString(_) | Token::NationalStringLiteral(_) => {}
            _ => self.last(|level| level.links += 1),
        }
    }

    fn take_word(&mut self, keyword: Keyword) {
        use Keyword as K;
        match keyword {
            K::SELECT | K::FROM | K::WHERE | K::GROUP | K::HAVING | K::ORDER | K::QUALIFY | K::LIMIT | K::WITH => {
                self.last(Level::begin_part);
            }
            K::UNION | K::EXCEPT | K::INTERSECT | K::MINUS | K::JOIN => self.last(|level| {
                level.begin_part();
                level.chained += 1;
            }),
            K::OR
            | K::AND
            | K::XOR
            | K::NOT
            | K::IS
            | K::IN
            | K::BETWEEN
            | K::LIKE
            | K::ILIKE
            | K::SIMILAR
            | K::RLIKE
            | K::REGEXP
            | K::DIV
            | K::COLLATE
            | K::AT
            | K::OVERLAPS
            | K::CASE
            | K::OPERATOR
            | K::MEMBER
            | K::ESCAPE
            | K::NOTNULL => {
                self.last(|level| level.links += 1);
            }
            _ => {}
        }
    }

    fn last(&mut self, change: impl FnOnce(&mut Level)) {
        if let Some(level) = self.0.last_mut() {
            change(level);
        }
    }

    /// A bracket that closes more than was opened is the parser's to refuse.
    fn close(&mut self) {
        if self.0.len() > 1 {
            let depth = self.0.pop().map_or(0, |level| level.depth());
            self.last(|level| level.inner = level.inner.max(depth + 1));
        }
    }
}

/// Refuses a statement that reads too many relations, each common table expression counted where it is read: thirty
/// of them that read the one before twice are a thousand million.
pub(crate) fn require_bounded_relations(statement: &impl Visit) -> Result<(), SqlError> {
    let mut relations = Relations { open: vec![0], ..Relations::default() };
    if statement.visit(&mut relations).is_break() {
        return Err(too_large(
            "more SELECTs and tables, each counted as often as it is read,".to_owned(),
            RELATIONS_MAX,
            None,
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Relations {
    /// Relations of each query that is being visited, the outermost first.
    open: Vec<usize>,
    /// The names of the queries that are common table expressions, by their address in the statement.
    names: HashMap<*const Query, String>,
    /// How many relations each name stands for.
    sizes: HashMap<String, usize>,
}

impl Relations {
    fn add(&mut self, size: usize) -> ControlFlow<()> {
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(size);
            if *open > RELATIONS_MAX {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(&raw const *table.query, name_of(&table.alias.name.value));
        }
        self.open.push(0);
        self.add(selects(&query.body))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let size = self.open.pop().unwrap_or_default();
        match self.names.get(&(&raw const *query)) {
            Some(name) => {
                self.sizes.insert(name.clone(), size);
                ControlFlow::Continue(())
            }
            None => self.add(size),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let size = match relation.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => self.sizes.get(&name_of(&name.value)).copied(),
            _ => None,
        };
        self.add(size.unwrap_or(1))
    }
}

/// Names that differ in case alone are taken for one: that counts too much at worst.
fn name_of(name: &str) -> String {
    name.to_lowercase()
}

/// SELECTs and VALUES of a query, without those of queries within it, which are visited by themselves.
fn selects(body: &SetExpr) -> usize {
    match body {
        SetExpr::SetOperation { left, right, .. } => selects(left) + selects(right),
        SetExpr::Query(_) => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;

    fn code_of(sql: &str) -> Option<String> {
        inspect(sql).err().map(|error| error.code().to_string())
    }

    #[test]
    fn what_people_and_generators_write_is_within_the_bounds() {
        let columns: Vec<_> = (0..1_000).map(|number| format!("a || '-' || b AS c{number}")).collect();
        let values: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
        let cases: Vec<_> = (0..200).map(|number| format!("WHEN a = {number} THEN 'x'")).collect();
        let selects = vec!["SELECT a FROM x"; 100];
        for sql in [
            format!("SELECT {} FROM x", columns.join(", ")),
            format!("SELECT a FROM x WHERE a IN ({})", values.join(", ")),
            format!("SELECT CASE {} ELSE 'y' END AS c FROM x", cases.join(" ")),
            selects.join(" UNION ALL "),
            format!("SELECT a FROM x WHERE {}", vec!["a = 1"; 200].join(" OR ")),
        ] {
            assert_eq!(code_of(&sql), None, "{} …", &sql[..60]);
        }
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused_with_its_place() {
        let chain = |what: &str, count| vec!["1"; count].join(what);
        let inner = format!("SELECT {} AS a FROM x", chain("+", 300));
        for sql in [
            format!("SELECT a FROM x WHERE {}", vec!["a = 1"; 8_000].join(" OR ")),
            vec!["SELECT a FROM x"; 4_000].join(" UNION ALL "),
            format!("SELECT {} AS a", chain(" + ", 2_000)),
            format!("SELECT {}1{} AS a", "(".repeat(100_000), ")".repeat(100_000)),
            format!("SELECT {}1 AS a", "- ".repeat(100_000)),
            format!("SELECT {} 1 AS a", "CASE WHEN ".repeat(100_000)),
            format!("SELECT {}a", "x.".repeat(100_000)),
            format!("SELECT a{} FROM x", "::int".repeat(100_000)),
            format!("SELECT a{} AS a FROM x", "[1]".repeat(40_000)),
            format!("SELECT ({}) + {} AS a FROM x", chain("+", 300), chain("+", 300)),
            format!("SELECT a + {} AS a FROM ({inner}) AS y", chain("+", 600)),
            format!("SELECT a FROM x {}", "JOIN x ON true ".repeat(3_000)),
            format!("SELECT '{}' AS a", "a".repeat(TEXT_BYTES_MAX)),
            format!("SELECT a FROM x WHERE a IN ({})", chain(",", 60_000)),
            format!("SELECT a FROM {}", vec!["x"; 3_000].join(", ")),
        ] {
            let code = code_of(&sql);
            assert!(matches!(code.as_deref(), Some("FG0209" | "FG0200")), "{code:?}: {} …", &sql[..60]);
        }
        let error = inspect(&format!("SELECT\n  {} AS a", chain("+", 2_000))).unwrap_err();
        assert_eq!(error.place().map(|place| place.line), Some(2), "{error}");
    }

    #[test]
    fn common_table_expressions_are_counted_where_they_are_read() {
        let doubling = |count: usize| {
            let names = (1..=count)
                .map(|number| format!(", t{number} AS (SELECT a.v FROM t{0} AS a, t{0} AS b)", number - 1))
                .collect::<Vec<_>>()
                .concat();
            format!("WITH t0 AS (SELECT v FROM x){names} SELECT v FROM t{count}")
        };
        assert_eq!(code_of(&doubling(5)), None);
        assert_eq!(code_of(&doubling(30)).as_deref(), Some("FG0209"));
    }
}
