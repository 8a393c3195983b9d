//! Reading a transform without running it: is it one SELECT, and which tables does it name?

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectNamePart, SelectItem, SetExpr, Statement as SqlStatement, visit_expressions,
};

use crate::bounds::{require_bounded_relations, require_bounded_text};
use crate::{Place, SqlError};

/// Functions whose answer is another one each time, or in each run.
pub(crate) const UNREPEATABLE_FUNCTIONS: [&str; 10] = [
    "random",
    "rand",
    "uuid",
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "localtime",
    "today",
];

/// What a transform is, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Tables it reads, common table expressions left out, sorted.
    pub tables: Vec<String>,
    /// The columns it returns, as far as every one of them is named in the text; `*` hides them.
    pub columns: Option<Vec<String>>,
}

/// Checks that `sql` is one SELECT within the bounds, and lists the tables it reads.
pub fn inspect(sql: &str) -> Result<Inspected, SqlError> {
    require_bounded_text(sql)?;
    let statements = DFParser::parse_sql(sql).map_err(|error| SqlError::from_datafusion(&error, 0))?;
    if statements.len() != 1 {
        return Err(SqlError::NotASelect { found: format!("{} statements", statements.len()) });
    }
    let statement = &statements[0];
    require_select(statement)?;
    if let Statement::Statement(inner) = statement {
        require_bounded_relations(inner.as_ref())?;
    }
    require_repeatable(statement)?;
    let (references, _) =
        resolve_table_references(statement, true).map_err(|error| SqlError::from_datafusion(&error, 0))?;
    let mut tables = Vec::new();
    for reference in references {
        if reference.schema().is_some() {
            return Err(SqlError::Forbidden { what: format!("the qualified table `{reference}`") });
        }
        tables.push(reference.table().to_owned());
    }
    tables.sort();
    require_unique_names(statement)?;
    let columns = projection(statement).and_then(|items| items.iter().map(output_name).collect());
    Ok(Inspected { tables, columns })
}

fn require_select(statement: &Statement) -> Result<(), SqlError> {
    let found = match statement {
        Statement::Statement(inner) => match inner.as_ref() {
            SqlStatement::Query(query) => match query.body.as_ref() {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    "a statement that writes"
                }
                SetExpr::Select(select) if select.into.is_some() => "SELECT … INTO",
                _ => return Ok(()),
            },
            other => return Err(SqlError::NotASelect { found: format!("`{}`", first_words(&other.to_string())) }),
        },
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE",
        Statement::CopyTo(_) => "COPY",
        _ => "another statement",
    };
    Err(SqlError::NotASelect { found: found.to_owned() })
}

/// Refuses functions that make a second run over the same data another one.
fn require_repeatable(statement: &Statement) -> Result<(), SqlError> {
    let Statement::Statement(inner) = statement else { return Ok(()) };
    let found = visit_expressions(inner, |expression| {
        let Expr::Function(function) = expression else { return ControlFlow::Continue(()) };
        let Some(ObjectNamePart::Identifier(name)) = function.name.0.last() else { return ControlFlow::Continue(()) };
        if UNREPEATABLE_FUNCTIONS.contains(&name.value.to_lowercase().as_str()) {
            ControlFlow::Break(name.clone())
        } else {
            ControlFlow::Continue(())
        }
    });
    let ControlFlow::Break(name) = found else { return Ok(()) };
    let start = name.span.start;
    let place = (start.line > 0).then_some(Place { line: start.line as usize, column: start.column as usize });
    Err(SqlError::Unrepeatable { name: name.value.to_lowercase(), place })
}

/// Refuses names that the outermost SELECT spells out twice; `*` is expanded only when planning.
fn require_unique_names(statement: &Statement) -> Result<(), SqlError> {
    let mut names: Vec<String> = projection(statement).into_iter().flatten().filter_map(output_name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(SqlError::DuplicateColumn { name: pair[0].clone() }),
    }
}

/// What the outermost SELECT returns; of a UNION its first SELECT names the columns.
fn projection(statement: &Statement) -> Option<&[SelectItem]> {
    let Statement::Statement(inner) = statement else { return None };
    let SqlStatement::Query(query) = inner.as_ref() else { return None };
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::Select(select) => return Some(&select.projection),
            SetExpr::Query(query) => body = query.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    }
}

fn output_name(item: &SelectItem) -> Option<String> {
    let name = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(name(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(name(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(name),
        _ => None,
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_listed_without_common_table_expressions() {
        let found = inspect("WITH a AS (SELECT * FROM enquiry) SELECT * FROM a JOIN office USING (id)").unwrap();
        assert_eq!(found.tables, ["enquiry", "office"]);
    }

    #[test]
    fn columns_are_known_when_all_are_named() {
        let columns = |sql| inspect(sql).unwrap().columns;
        let named = columns(r#"SELECT a, x.B, c + 1 AS "D" FROM x UNION ALL SELECT 1, 2, 3"#);
        assert_eq!(named, Some(vec!["a".to_owned(), "b".to_owned(), "D".to_owned()]));
        assert_eq!(columns("SELECT a, * FROM x"), None);
        assert_eq!(columns("SELECT a + 1 FROM x"), None);
    }

    #[test]
    fn anything_but_one_select_is_refused() {
        for sql in [
            "DROP TABLE enquiry",
            "SELECT 1; SELECT 2",
            "INSERT INTO a SELECT 1",
            "COPY enquiry TO 'x.csv'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "SET datafusion.execution.batch_size = 1",
            "EXPLAIN SELECT 1",
            "SELECT * INTO b FROM a",
            "",
        ] {
            assert!(matches!(inspect(sql), Err(SqlError::NotASelect { .. } | SqlError::Syntax { .. })), "{sql}");
        }
        assert!(matches!(inspect("SELECT * FROM information_schema.tables"), Err(SqlError::Forbidden { .. })));
    }

    #[test]
    fn what_differs_from_run_to_run_is_refused_where_it_stands() {
        for (sql, name, column) in [
            ("SELECT a, now() AS b FROM x", "now", 11),
            ("SELECT a FROM x WHERE b < CURRENT_DATE", "current_date", 27),
            ("SELECT a FROM (SELECT upper(Random()) AS a FROM x) AS y", "random", 29),
        ] {
            let error = inspect(sql).unwrap_err();
            assert_eq!(error.to_string(), format!("SQL calls `{name}`, whose answer is another one in each run"));
            assert_eq!(error.place(), Some(Place { line: 1, column }), "{sql}");
        }
        assert!(inspect("SELECT \"now\", current_date_of_sale FROM x").is_ok());
    }

    #[test]
    fn a_syntax_error_says_where() {
        let error = inspect("SELECT a\n  FROM x WHERE )").unwrap_err();
        assert_eq!(error.place().map(|place| place.line), Some(2), "{error}");
    }
}
