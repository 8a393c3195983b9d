//! Why a command failed: one or more problems, each with its code, place, causes and hints.
//!
//! Errors of every crate become the same [`Problem`] that `check` reports, so that one renderer and
//! one JSON form serve them all.

use std::error::Error;
use std::path::Path;

use flowgate_config::{ConfigError, Problem, Report};
use flowgate_core::{Code, ConnectorError, FlowName};
use flowgate_engine::RunError;
use flowgate_store::StoreError;
use serde_json::{Value, json};

use crate::exit::Exit;

/// The deepest chain of causes that is shown.
const CAUSES_MAX: usize = 5;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) report: Report,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Problem::new(code, message).into()
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(problem) = self.report.problems.first_mut() {
            problem.hints.push(hint.into());
        }
        self
    }

    #[must_use]
    pub(crate) fn nearest(mut self, nearest: Option<impl Into<String>>) -> Self {
        if let Some(problem) = self.report.problems.first_mut() {
            problem.nearest = nearest.map(Into::into);
        }
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.report.problems.first().map_or(Code::INTERNAL, |problem| problem.code)
    }

    pub(crate) fn exit(&self) -> Exit {
        Exit::of_code(self.code())
    }

    /// `{"code", "message", "hints", …}`: the first problem, and all of them if there are more.
    pub(crate) fn to_json(&self) -> Value {
        let mut problems = self.report.to_json();
        if problems.len() > 1 {
            let first = &problems[0];
            return json!({
                "code": first["code"], "message": first["message"], "hints": first["hints"],
                "problems": problems,
            });
        }
        problems.pop().unwrap_or(Value::Null)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut report = Report::default();
        report.problems.push(problem);
        Self { report }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self { report }
    }
}

impl From<ConnectorError> for Failure {
    fn from(error: ConnectorError) -> Self {
        connector_problem(&error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        problem(error.code(), &error, error.hints()).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        problem(error.code(), &error, error.hints()).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let is_full = error.kind() == std::io::ErrorKind::StorageFull;
        problem(if is_full { Code::DISK_FULL } else { Code::STORAGE_FAILED }, &error, Vec::new()).into()
    }
}

/// The error of a run, on its line of the project's files where that is known.
pub(crate) fn of_run(error: &RunError, flow: &FlowName, project_dir: &Path) -> Problem {
    let mut problem = match error {
        RunError::Connector(error) => connector_problem(error),
        other => problem(other.code(), other, other.hints()),
    };
    // What keeps the state does not know whose it is.
    for hint in &mut problem.hints {
        *hint = hint.replace("flowgate run FLOW", &format!("flowgate run {flow}"));
    }
    let Some(place) = error.place() else { return problem };
    let name = place.path.strip_prefix(project_dir).unwrap_or(&place.path).to_string_lossy().replace('\\', "/");
    match fs_err::read_to_string(&place.path) {
        Ok(text) => problem.at_line(&name, text, place.line, place.column),
        // The message says it all; the file it speaks of has just gone.
        Err(_) => problem,
    }
}

pub(crate) fn connector_problem(error: &ConnectorError) -> Problem {
    problem(error.code, error, error.hints.clone())
}

fn problem(code: Code, error: &dyn Error, hints: Vec<String>) -> Problem {
    let mut problem = Problem::new(code, error.to_string());
    problem.hints = hints;
    let mut cause = error.source();
    while let Some(error) = cause.filter(|_| problem.causes.len() < CAUSES_MAX) {
        let text = error.to_string();
        // Many errors repeat their cause in their own text.
        if !problem.message.ends_with(&text) && problem.causes.last() != Some(&text) {
            problem.causes.push(text);
        }
        cause = error.source();
    }
    problem
}
