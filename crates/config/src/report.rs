//! Problems as data, and the two ways they are shown: drawn on their source line, or as JSON.
//!
//! A report holds every problem found, not only the first. Its text is stable: tests of this crate
//! and of the command line compare it as a whole.

use std::fmt;
use std::sync::Arc;

use flowgate_core::Code;
use serde_json::{Value, json};

use crate::place::{Place, SourceFile};
use crate::style::Style;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong, or doubtful, and where.
#[derive(Debug, Clone)]
pub struct Problem {
    pub severity: Severity,
    pub code: Code,
    /// What failed: lower case, no full stop, values in backticks.
    pub message: String,
    /// The file, when the problem is not about a line of it.
    pub file: Option<String>,
    pub place: Option<Place>,
    /// The value as written.
    pub value: Option<String>,
    /// The nearest valid word to it.
    pub nearest: Option<String>,
    pub hints: Vec<String>,
    /// What it came from, the nearest cause first.
    pub causes: Vec<String>,
    /// Other places that belong to it, each with what it is.
    pub related: Vec<Related>,
}

/// A further place of a problem.
#[derive(Debug, Clone)]
pub struct Related {
    pub place: Place,
    pub message: String,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file: None,
            place: None,
            value: None,
            nearest: None,
            hints: Vec::new(),
            causes: Vec::new(),
            related: Vec::new(),
        }
    }

    pub(crate) fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(code, message) }
    }

    /// Puts the problem on a line and column, from 1, of a file that was not read as YAML.
    #[must_use]
    pub fn at_line(self, name: &str, text: String, line: usize, column: usize) -> Self {
        let file = Arc::new(SourceFile::new(name, text));
        self.at(&Place::at_line(&file, line, column))
    }

    pub(crate) fn at(mut self, place: &Place) -> Self {
        self.file = Some(place.file().name().to_owned());
        self.place = Some(place.clone());
        self
    }

    pub(crate) fn in_file(mut self, name: impl Into<String>) -> Self {
        self.file = Some(name.into());
        self
    }

    pub(crate) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub(crate) fn nearest(mut self, nearest: Option<impl Into<String>>) -> Self {
        self.nearest = nearest.map(Into::into);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn also(mut self, place: &Place, message: impl Into<String>) -> Self {
        self.related.push(Related { place: place.clone(), message: message.into() });
        self
    }

    /// One object of `check --json`. Keys without a value are null, so that readers need no cases.
    pub fn to_json(&self) -> Value {
        let related = |related: &Related| {
            json!({
                "file": related.place.file().name(), "line": related.place.line(),
                "column": related.place.column(), "message": related.message,
            })
        };
        json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "code": self.code.to_string(),
            "message": self.message,
            "file": self.file,
            "line": self.place.as_ref().map(Place::line),
            "column": self.place.as_ref().map(Place::column),
            "snippet": self.place.as_ref().map(Place::snippet),
            "value": self.value,
            "did_you_mean": self.nearest,
            "hints": self.hints,
            "causes": self.causes,
            "related": self.related.iter().map(related).collect::<Vec<_>>(),
        })
    }

    /// What would help, the nearest word first.
    pub(crate) fn all_hints(&self) -> Vec<String> {
        let nearest = self.nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`?"));
        nearest.into_iter().chain(self.hints.iter().cloned()).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.file) {
            (None, Some(file)) => write!(f, "{file}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Problem {}

/// The most problems kept: nobody reads more, and a file of nonsense must not fill the memory.
const PROBLEMS_MAX: usize = 200;

/// Everything found in one project.
#[derive(Debug, Default)]
pub struct Report {
    pub problems: Vec<Problem>,
    /// Errors beyond the most that are kept.
    pub left_out: usize,
}

impl Report {
    pub(crate) fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else if problem.severity == Severity::Error {
            self.left_out += 1;
        }
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0 || self.left_out > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// Errors first; within them by file and line, as a person works through them.
    pub(crate) fn sort(&mut self) {
        self.problems.sort_by_cached_key(|problem| {
            let position = problem.place.as_ref().map(|place| (place.line(), place.column()));
            (problem.severity == Severity::Warning, problem.file.clone(), position)
        });
    }

    /// The report as a person reads it: one block a problem, and of several a line that counts them.
    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            style.problem(&mut text, problem);
            text.push('\n');
        }
        if self.problems.len() > 1 {
            text.push_str(&self.summary());
            text.push('\n');
        }
        text
    }

    /// "2 errors, 1 warning".
    pub fn summary(&self) -> String {
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (self.count(Severity::Error) + self.left_out, self.count(Severity::Warning));
        match (errors, warnings) {
            (errors, 0) => plural(errors, "error"),
            (0, warnings) => plural(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        }
    }

    pub fn to_json(&self) -> Vec<Value> {
        self.problems.iter().map(Problem::to_json).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl std::error::Error for Report {}
