//! How a problem is drawn:
//!
//! ```text
//! error[FG0004]: unknown key `mach` in a load
//!   --> flows/cases.yaml:9:5
//!    |
//!  9 |     mach: [wr_reference]
//!    |     ^^^^
//! hint: did you mean `match`?
//! ```
//!
//! Lines are never broken: a terminal does that, and a log keeps them whole.

use crate::place::Place;
use crate::report::{Problem, Severity};

/// How a report is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    pub colour: bool,
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const CYAN: &str = "1;36";
const BOLD: &str = "1";

impl Style {
    pub(crate) fn problem(self, text: &mut String, problem: &Problem) {
        let (word, colour) = match problem.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = self.paint(colour, &format!("{word}[{}]", problem.code));
        let message = self.paint(BOLD, &format!(": {}", problem.message));
        push_line(text, &format!("{head}{message}"));
        match (&problem.place, &problem.file) {
            (Some(place), _) => self.place(text, place, colour),
            (None, Some(file)) => push_line(text, &format!("  {} {file}", self.paint(BLUE, "-->"))),
            (None, None) => {}
        }
        for cause in &problem.causes {
            push_line(text, &format!("  {} {cause}", self.paint(RED, "caused by:")));
        }
        for related in &problem.related {
            push_line(text, &format!("{}: {}", self.paint(BLUE, "note"), related.message));
            self.place(text, &related.place, BLUE);
        }
        for hint in problem.all_hints() {
            push_line(text, &format!("{}: {hint}", self.paint(CYAN, "hint")));
        }
    }

    /// The line with its number, and a mark under the part in question.
    fn place(self, text: &mut String, place: &Place, colour: &str) {
        let number = place.line().to_string();
        let margin = " ".repeat(number.len());
        let bar = self.paint(BLUE, "|");
        let arrow = self.paint(BLUE, "-->");
        push_line(text, &format!(" {margin}{arrow} {}:{number}:{}", place.file().name(), place.column()));
        // A tab would put the mark under something else.
        let snippet = place.snippet().replace('\t', " ");
        if snippet.trim().is_empty() {
            return;
        }
        push_line(text, &format!(" {margin} {bar}"));
        push_line(text, &format!(" {} {bar} {}", self.paint(BLUE, &number), snippet.trim_end()));
        let width = snippet.chars().count();
        if place.column() <= width + 1 {
            let indent = " ".repeat(place.column() - 1);
            let length = place.width().clamp(1, (width + 1).saturating_sub(place.column()).max(1));
            push_line(text, &format!(" {margin} {bar} {indent}{}", self.paint(colour, &"^".repeat(length))));
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
