//! `${var:name}`: filled in while the project is read, from `vars:` of the project and of the
//! environment. A variable may hold a secret reference, but not another variable.
//!
//! `${env:NAME}` and `${file:PATH}` stay as they are: [`crate::secrets`] resolves them when a
//! connection is opened. Here only their spelling is checked, and that they stand in a connection.

use std::cell::Cell;
use std::collections::BTreeMap;

use flowgate_core::Code;
use flowgate_core::nearest::{nearest, quoted_list};

use crate::node::{Data, Node};
use crate::place::Place;
use crate::report::{Problem, Report};
use crate::template::{Part, parts};

/// Reference kinds that later versions may have.
const NOT_YET: [&str; 2] = ["exec", "keyvault"];
const KINDS: [&str; 3] = ["var", "env", "file"];
/// Bytes that variables may add to a project in all: references are short, and what they stand for need not be.
const FILLED_BYTES_MAX: usize = 16 << 20;

/// The variables of one environment.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, String>,
    /// The file that should define a missing one.
    defined_in: String,
    /// Bytes that were filled in so far.
    filled: Cell<usize>,
}

/// Whether a value may hold secret references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Allowed,
    Refused,
}

impl Variables {
    pub(crate) fn new(defined_in: impl Into<String>) -> Self {
        Self { values: BTreeMap::new(), defined_in: defined_in.into(), filled: Cell::new(0) }
    }

    /// Takes the entries of a `vars:` block; later ones win.
    pub(crate) fn add(&mut self, vars: &Node, report: &mut Report) {
        for entry in vars.entries() {
            let Some(text) = entry.value.text() else { continue };
            for part in parts(text) {
                match part {
                    Part::Reference { kind: "var", .. } => {
                        let message = format!("variable `{}` is made from another variable", entry.key);
                        let problem = Problem::new(Code::NOT_SUPPORTED, message).at(&entry.value.place).value(text);
                        report.add(problem.hint("write the value itself"));
                    }
                    Part::Reference { kind, name, written } => {
                        let place = entry.value.place.of_part(written);
                        if let Err(problem) = check_secret(kind, name, written, &place) {
                            report.add(*problem);
                        }
                    }
                    Part::Unclosed(rest) => report.add(unclosed(rest, &entry.value.place)),
                    Part::Text(_) | Part::Escape => {}
                }
            }
            self.values.insert(entry.key.clone(), text.to_owned());
        }
    }

    /// Fills every value in and below `node`. Keys are never filled.
    pub(crate) fn fill(&self, node: &mut Node, secrets: Secrets, report: &mut Report) {
        match &mut node.data {
            Data::List(items) => {
                for item in items {
                    self.fill(item, secrets, report);
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    self.fill(&mut entry.value, secrets, report);
                }
            }
            Data::Scalar { text, .. } => {
                if text.contains("${") {
                    let with_variables = self.fill_text(text, &node.place, report);
                    *text = finish(with_variables, secrets, &node.place, report);
                }
            }
        }
    }

    fn fill_text(&self, text: &str, place: &Place, report: &mut Report) -> String {
        let mut filled = String::with_capacity(text.len());
        for part in parts(text) {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Escape => filled.push_str("$${"),
                Part::Unclosed(rest) => {
                    report.add(unclosed(rest, place));
                }
                Part::Reference { kind: "var", name, written } => match self.values.get(name) {
                    Some(value) if !self.has_room_for(value) => {
                        report.add(too_much(&place.of_part(written)));
                        return String::new();
                    }
                    Some(value) => filled.push_str(value),
                    None => report.add(self.unknown(name, &place.of_part(written))),
                },
                Part::Reference { kind, name, written } => {
                    match check_secret(kind, name, written, &place.of_part(written)) {
                        Ok(()) => filled.push_str(written),
                        Err(problem) => report.add(*problem),
                    }
                }
            }
        }
        filled
    }

    /// Counts what a variable adds, and whether it is still within the bound. The value that is not is left empty.
    fn has_room_for(&self, value: &str) -> bool {
        let sum = self.filled.get().saturating_add(value.len());
        self.filled.set(sum);
        sum <= FILLED_BYTES_MAX
    }

    fn unknown(&self, name: &str, place: &Place) -> Problem {
        let names = self.values.keys().map(String::as_str);
        let message = format!("variable `{name}` has no value");
        let mut problem = Problem::new(Code::UNKNOWN_VARIABLE, message).at(place).value(name);
        problem = problem.nearest(nearest(name, names.clone()));
        if problem.nearest.is_none() && !self.values.is_empty() {
            problem = problem.hint(format!("variables of this environment: {}", quoted_list(names)));
        }
        problem.hint(format!("add `{name}: …` under `vars:` in `{}`", self.defined_in))
    }
}

fn too_much(place: &Place) -> Problem {
    let message = format!("variables make the project larger by more than {} MiB", FILLED_BYTES_MAX >> 20);
    Problem::new(Code::WRONG_TYPE, message)
        .at(place)
        .hint("a long text that many values need belongs in a file or a table")
}

/// Checks the spelling of a reference that stays unresolved.
fn check_secret(kind: &str, name: &str, written: &str, place: &Place) -> Result<(), Box<Problem>> {
    let problem = match kind {
        "env" if is_environment_variable(name) => return Ok(()),
        "file" if !name.trim().is_empty() => return Ok(()),
        "env" | "file" => {
            let what = if kind == "env" { "an environment variable" } else { "a path" };
            let message = format!("`{written}` does not name {what}");
            Problem::new(Code::WRONG_TYPE, message).hint("write `${env:NAME}` or `${file:/path}`")
        }
        kind if NOT_YET.contains(&kind) => {
            let message = format!("`${{{kind}:…}}` is not supported in this version");
            Problem::new(Code::NOT_SUPPORTED, message).hint("use `${env:NAME}` or `${file:/path}`")
        }
        "" => {
            let message = format!("`{written}` does not say what it refers to");
            let problem = Problem::new(Code::UNKNOWN_REFERENCE, message);
            problem.nearest(Some(format!("${{var:{name}}}"))).hint("`$${` stands for `${` itself")
        }
        kind => {
            let message = format!("unknown reference `{written}`");
            let problem = Problem::new(Code::UNKNOWN_REFERENCE, message);
            let near = nearest(kind, KINDS).map(|kind| format!("${{{kind}:{name}}}"));
            problem.nearest(near).hint("there are `${var:…}`, `${env:…}` and `${file:…}`; `$${` stands for `${` itself")
        }
    };
    Err(Box::new(problem.at(place).value(written)))
}

fn is_environment_variable(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn unclosed(rest: &str, place: &Place) -> Problem {
    let shown: String = rest.chars().take(30).collect();
    let problem = Problem::new(Code::WRONG_TYPE, format!("`{shown}` has no closing `}}`")).at(&place.of_part(rest));
    problem.hint("`$${` stands for `${` itself")
}

/// What is left after the variables: outside connections no secret may be named, and the escapes
/// have done their work.
fn finish(text: String, secrets: Secrets, place: &Place, report: &mut Report) -> String {
    if secrets == Secrets::Allowed {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for part in parts(&text) {
        match part {
            Part::Text(text) | Part::Unclosed(text) => plain.push_str(text),
            Part::Escape => plain.push_str("${"),
            Part::Reference { written, .. } => {
                let message = format!("`{written}` stands outside a connection");
                let problem = Problem::new(Code::NOT_SUPPORTED, message).at(&place.of_part(written)).value(written);
                report.add(problem.hint("secrets are resolved in connections only; use `${var:…}` here"));
            }
        }
    }
    plain
}
