//! The one place that writes to standard output and standard error.

use std::io::{IsTerminal, Write, stderr, stdout};

use flowgate_config::{Report, Style};
use serde_json::{Value, json};

use super::Paint;
use crate::failure::Failure;

/// How a command speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) is_json: bool,
    pub(crate) is_quiet: bool,
    pub(crate) out: Paint,
    pub(crate) err: Paint,
}

impl Printer {
    pub(crate) fn new(is_json: bool, is_quiet: bool) -> Self {
        Self { is_json, is_quiet, out: Paint::for_stream(&stdout()), err: Paint::for_stream(&stderr()) }
    }

    /// The answer, for a person. Nothing with `--json`.
    pub(crate) fn answer(self, text: impl AsRef<str>) {
        if !self.is_json {
            write_line(&mut stdout().lock(), text.as_ref());
        }
    }

    /// The answer, for a script. Nothing without `--json`.
    pub(crate) fn json(self, value: &Value) {
        if self.is_json {
            write_line(&mut stdout().lock(), &value.to_string());
        }
    }

    /// The answer whatever was asked: commands whose only form is JSON.
    pub(crate) fn raw(text: &str) {
        write_line(&mut stdout().lock(), text);
    }

    /// Something said beside the answer.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.is_quiet {
            write_line(&mut stderr().lock(), text.as_ref());
        }
    }

    /// Something that must be said, however quiet.
    pub(crate) fn alarm(text: impl AsRef<str>) {
        write_line(&mut stderr().lock(), text.as_ref());
    }

    pub(crate) fn report(self, report: &Report) {
        write_line(&mut stderr().lock(), report.render(Style { colour: self.err.is_on() }).trim_end());
    }

    /// A failed command: drawn on standard error, and one object on standard output with `--json`.
    pub(crate) fn failure(self, failure: &Failure) {
        self.report(&failure.report);
        self.json(&json!({ "error": failure.to_json() }));
    }

    /// A question, to be answered on the same line.
    pub(crate) fn ask(question: &str) {
        let mut stream = stderr().lock();
        if let Err(error) = write!(stream, "{question}").and_then(|()| stream.flush()) {
            tracing::debug!(%error, "the question could not be written");
        }
    }

    pub(crate) fn is_terminal() -> bool {
        stderr().is_terminal()
    }
}

/// A reader that has gone away (`flowgate runs | head`) is no failure of the command.
fn write_line(stream: &mut impl Write, text: &str) {
    let written = writeln!(stream, "{text}").and_then(|()| stream.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "the output could not be written");
    }
}
