//! `flowgate check`: reads the whole project offline, SQL included, and reports every mistake.

use std::path::Path;

use flowgate_config::{Loaded, Problem, Report};
use flowgate_core::Code;
use flowgate_core::Project;
use flowgate_core::nearest::nearest;
use flowgate_core::project::{Flow, Load};
use flowgate_sql::{Inspected, SqlError, inspect};
use serde_json::json;

use super::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::number::counted;

pub(crate) fn run(app: &App) -> Exit {
    match read(app) {
        Ok(Loaded { project, warnings }) => {
            if !warnings.problems.is_empty() {
                app.printer.report(&warnings);
            }
            let flows: Vec<_> = project.flows.keys().collect();
            app.printer.json(&json!({
                "ok": true, "environment": project.environment, "flows": flows, "problems": warnings.to_json(),
            }));
            app.printer.answer(format!("{} {}", app.printer.out.good("✓"), size(&project)));
            Exit::Complete
        }
        Err(Failure { report }) => {
            app.printer.report(&report);
            app.printer.json(&json!({ "ok": false, "problems": report.to_json() }));
            Exit::Usage
        }
    }
}

/// The project with its SQL checked, for commands that are about to use it.
pub(crate) fn load(app: &App) -> Result<Project, Failure> {
    let Loaded { project, warnings } = read(app)?;
    if !warnings.problems.is_empty() && !app.printer.is_quiet {
        app.printer.report(&warnings);
    }
    Ok(project)
}

fn read(app: &App) -> Result<Loaded, Failure> {
    let loaded = app.read()?;
    let mut report = Report::default();
    for flow in loaded.project.flows.values() {
        for load in &flow.loads {
            report.problems.extend(problem_of(&loaded.project, flow, load));
        }
    }
    if report.problems.is_empty() { Ok(loaded) } else { Err(report.into()) }
}

fn size(project: &Project) -> String {
    let loads: usize = project.flows.values().map(|flow| flow.loads.len()).sum();
    let counts = [(project.connections.len(), "connection"), (project.flows.len(), "flow"), (loads, "load")];
    let counts: Vec<_> = counts.iter().map(|(number, what)| counted(*number as u64, what)).collect();
    format!("{}; environment `{}`", counts.join(", "), project.environment)
}

/// What is wrong with the SELECT of a load, as far as its text tells.
fn problem_of(project: &Project, flow: &Flow, load: &Load) -> Option<Problem> {
    let inspected = match inspect(&load.sql.text) {
        Ok(inspected) => inspected,
        Err(error) => return Some(sql_problem(project, load, &error)),
    };
    let known: Vec<&str> = flow.streams.keys().map(flowgate_core::StreamName::as_str).collect();
    if let Some(name) = inspected.tables.iter().find(|table| !known.contains(&table.as_str())) {
        let nearest = nearest(name, known.iter().copied()).map(str::to_owned);
        let error = SqlError::UnknownTable { name: name.clone(), nearest };
        return Some(sql_problem(project, load, &error));
    }
    missing_column(project, load, &inspected)
}

/// A match column, or `_row` of a load with a driver, that the SELECT does not return.
fn missing_column(project: &Project, load: &Load, inspected: &Inspected) -> Option<Problem> {
    let columns = inspected.columns.as_ref()?;
    let is_absent = |name: &&String| !columns.contains(name);
    if let Some(name) = load.match_columns.iter().find(is_absent) {
        let message = format!("load `{}` matches on `{name}`, which its SELECT does not return", load.name);
        let mut problem = at_sql(project, load, Problem::new(Code::SQL_MISSING_KEY, message), None);
        problem.nearest = nearest(name, columns.iter().map(String::as_str)).map(str::to_owned);
        return Some(problem);
    }
    if let Some(driver) = load.driver.as_ref().filter(|_| !columns.iter().any(|column| column == "_row")) {
        let message = format!("load `{}` has the driver `{driver}`, and its SELECT does not return `_row`", load.name);
        let mut problem = at_sql(project, load, Problem::new(Code::MISSING_DRIVER_ROW, message), None);
        problem
            .hints
            .push(format!("add `{driver}._row` to the SELECT: it shows which rows of `{driver}` are represented"));
        return Some(problem);
    }
    None
}

fn sql_problem(project: &Project, load: &Load, error: &SqlError) -> Problem {
    let mut problem = Problem::new(error.code(), error.to_string());
    problem.hints = error.hints();
    let place = error.place().map(|place| (place.line, place.column)).or_else(|| match error {
        SqlError::UnknownTable { name, .. } | SqlError::DuplicateColumn { name } => place_of(&load.sql.text, name),
        _ => None,
    });
    at_sql(project, load, problem, place)
}

/// Puts a problem on a line and column of a SELECT, wherever it stands in the project.
fn at_sql(project: &Project, load: &Load, mut problem: Problem, place: Option<(usize, usize)>) -> Problem {
    let path = &load.sql.path;
    let name = shown(path, &project.dir);
    let text = fs_err::read_to_string(path).unwrap_or_default();
    match place {
        // In YAML the columns are off by the block's indentation: the line is enough.
        Some((line, _)) if load.sql.line_offset > 0 => problem.at_line(&name, text, line + load.sql.line_offset, 1),
        Some((line, column)) => problem.at_line(&name, text, line, column),
        None => {
            problem.file = Some(name);
            problem
        }
    }
}

fn shown(path: &Path, dir: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// The last line and column where `word` stands as a whole word.
fn place_of(text: &str, word: &str) -> Option<(usize, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (at, _) = text
        .to_lowercase()
        .rmatch_indices(word)
        .find(|(at, _)| {
            let before = text.get(..*at).and_then(|head| head.chars().next_back());
            let after = text.get(at + word.len()..).and_then(|tail| tail.chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
        .map(|(at, word)| (at, word.len()))?;
    let head = text.get(..at)?;
    let line = head.matches('\n').count() + 1;
    let column = head.rsplit('\n').next().map_or(1, |start| start.chars().count() + 1);
    Some((line, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_word_is_found_where_it_stands_last() {
        assert_eq!(place_of("SELECT offices.x\nFROM  office", "office"), Some((2, 7)));
        assert_eq!(place_of("SELECT 1", "office"), None);
    }
}
