//! The one place that writes to standard output and standard error.
//!
//! Nothing that must not be shown passes it ([`flowgate_core::redaction`]), and no control character of a row, a server
//! or a file reaches a terminal: those are written as escapes, and only our own colours stay.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;

use flowgate_config::{Report, Style};
use serde_json::{Value, json};

use super::Paint;
use super::presentable::{presentable, redacted_json, without_controls_in_json};
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
            write_answer(&presentable(text.as_ref()), |error| error.kind() != ErrorKind::BrokenPipe);
        }
    }

    /// The answer, for a script. Nothing without `--json`.
    pub(crate) fn json(self, value: &Value) {
        if self.is_json {
            write_answer(&without_controls_in_json(&redacted_json(value).to_string()), |_| true);
        }
    }

    /// The answer whatever was asked: commands whose only form is JSON.
    pub(crate) fn raw(text: &str) {
        write_answer(&presentable(text), |_| true);
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
        if let Err(error) = write!(stream, "{}", presentable(question)).and_then(|()| stream.flush()) {
            tracing::debug!(%error, "the question could not be written");
        }
    }

    pub(crate) fn is_terminal() -> bool {
        stderr().is_terminal()
    }
}

/// Why the answer did not reach standard output, if it did not.
static UNWRITTEN: Mutex<Option<String>> = Mutex::new(None);

/// Why the answer of this process could not be written; a command whose answer is lost has not succeeded.
pub(crate) fn unwritten_answer() -> Option<String> {
    UNWRITTEN.lock().map_or(None, |unwritten| unwritten.clone())
}

/// A person's reader that has gone away (`flowgate runs | head`) is no failure of the command; half a JSON object is.
fn write_answer(text: &str, is_failure: impl Fn(&std::io::Error) -> bool) {
    let mut stream = stdout().lock();
    let written = writeln!(stream, "{text}").and_then(|()| stream.flush());
    if let Err(error) = written.or_else(|error| if is_failure(&error) { Err(error) } else { Ok(()) })
        && let Ok(mut unwritten) = UNWRITTEN.lock()
    {
        unwritten.get_or_insert_with(|| error.to_string());
    }
}

fn write_line(stream: &mut impl Write, text: &str) {
    let written = writeln!(stream, "{}", presentable(text)).and_then(|()| stream.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "the output could not be written");
    }
}
