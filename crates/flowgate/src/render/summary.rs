//! What a person reads after a run: what happened to the rows, that they add up, and what to do next.

use flowgate_core::{LoadRows, StreamRows};
use flowgate_engine::RunOutcome;
use flowgate_store::{LetterGroup, LetterStatus, RunRecord, RunState};

use super::number::{count, counted, of_seconds};
use super::table::{Align, Cell, Table};
use super::{Paint, Tone};

/// A class of rows: its name, how many there are in a load, and what they are to the reader.
type Class = (&'static str, fn(&LoadRows) -> u64, Option<Tone>);

const CLASSES: &[Class] = &[
    ("created", |rows| rows.created, None),
    ("updated", |rows| rows.updated, None),
    ("unchanged", |rows| rows.unchanged, None),
    ("superseded", |rows| rows.superseded, None),
    ("quarantined", |rows| rows.quarantined, Some(Tone::Careful)),
    ("pending", |rows| rows.pending, Some(Tone::Bad)),
];

const GONE_CLASSES: &[Class] = &[
    ("deleted", |rows| rows.deleted, None),
    ("deactivated", |rows| rows.deactivated, None),
    ("kept", |rows| rows.kept, None),
    ("gone_pending", |rows| rows.gone_pending, Some(Tone::Bad)),
    ("gone_quarantined", |rows| rows.gone_quarantined, Some(Tone::Careful)),
];

/// Reasons for letters that a summary names.
const REASONS_MAX: usize = 5;

/// A run in a dozen lines. `letters` are those of the flow, grouped by reason.
pub(crate) fn run(outcome: &RunOutcome, letters: &[LetterGroup], paint: Paint) -> String {
    let record = &outcome.record;
    let mut lines = vec![headline(record, paint)];
    if !record.loads.is_empty() {
        lines.push(loads_table(record).render("  ", paint));
        lines.extend(equations(record).iter().map(|equation| format!("  {}", equation.render(paint))));
        lines.push(paint.faint(format!("  {}", effort(record))));
    }
    for (load, stop) in &outcome.guards {
        lines.push(format!("  {} {load}: {}", paint.bad("stopped by"), stop));
    }
    let waiting: Vec<_> = letters.iter().filter(|group| group.status != LetterStatus::Discarded).collect();
    let number = waiting.iter().map(|group| group.letters).sum();
    lines.extend(next_action(record, number).map(|next| format!("  {} {next}", paint.strong("next:"))));
    if record.state == RunState::CompleteWithLetters {
        lines.extend(reasons(waiting, paint));
    }
    lines.join("\n")
}

/// Why rows were set aside, the commonest reason first.
fn reasons(mut waiting: Vec<&LetterGroup>, paint: Paint) -> Vec<String> {
    waiting.sort_by_key(|group| std::cmp::Reverse(group.letters));
    let line = |group: &&LetterGroup| {
        let code = paint.faint(group.code.to_string());
        format!("        {} in {}: {}  {code}", count(group.letters), group.place, group.code.title())
    };
    let mut lines: Vec<_> = waiting.iter().take(REASONS_MAX).map(line).collect();
    if waiting.len() > REASONS_MAX {
        lines.push(format!("        and {}", counted((waiting.len() - REASONS_MAX) as u64, "more reason")));
    }
    lines
}

fn headline(record: &RunRecord, paint: Paint) -> String {
    let total = record.seconds.get("total").copied().unwrap_or_default();
    let state = state_text(record.state);
    let state = match record.state {
        RunState::Complete => paint.good(state),
        RunState::CompleteWithLetters | RunState::Running | RunState::Interrupted | RunState::Abandoned => {
            paint.careful(state)
        }
        RunState::StoppedByGuard | RunState::Failed => paint.bad(state),
    };
    format!("{}  {state}  {}", paint.strong(record.flow.as_str()), paint.faint(of_seconds(total)))
}

/// The state in words.
pub(crate) fn state_text(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Complete => "complete",
        RunState::CompleteWithLetters => "complete, with letters",
        RunState::StoppedByGuard => "stopped by a guard",
        RunState::Failed => "failed",
        RunState::Interrupted => "interrupted",
        RunState::Abandoned => "abandoned",
    }
}

/// One line a load, and a column for each class that any of them has.
fn loads_table(record: &RunRecord) -> Table {
    let sum = record.rows();
    let shown: Vec<&Class> = CLASSES.iter().chain(GONE_CLASSES).filter(|(_, of, _)| of(&sum) > 0).collect();
    let mut heads = vec![("", Align::Left), ("prepared", Align::Right)];
    heads.extend(shown.iter().map(|(name, _, _)| (*name, Align::Right)));
    let mut table = Table::new(&heads);
    for (name, load) in &record.loads {
        let mut cells = vec![Cell::new(name.as_str()), Cell::new(count(load.rows.prepared))];
        cells.extend(shown.iter().map(|(_, of, tone)| number_cell(of(&load.rows), *tone)));
        table.row(cells);
    }
    table
}

fn number_cell(number: u64, tone: Option<Tone>) -> Cell {
    match (number, tone) {
        (0, _) => Cell::toned(Tone::Faint, "·"),
        (_, Some(tone)) => Cell::toned(tone, count(number)),
        (_, None) => Cell::new(count(number)),
    }
}

/// One equation with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Equation {
    pub(crate) name: &'static str,
    pub(crate) total: u64,
    pub(crate) parts: Vec<(&'static str, u64)>,
}

impl Equation {
    /// Adds the numbers of the same equation elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        self.total += other.total;
        for ((_, number), (_, more)) in self.parts.iter_mut().zip(&other.parts) {
            *number += more;
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.total == self.parts.iter().map(|(_, number)| number).sum::<u64>()
    }

    pub(crate) fn render(&self, paint: Paint) -> String {
        let named: Vec<_> = self.parts.iter().filter(|(_, number)| *number > 0).collect();
        let right = match named.len() {
            0 => "0".to_owned(),
            _ => {
                named.iter().map(|(name, number)| format!("{name} {}", count(*number))).collect::<Vec<_>>().join(" + ")
            }
        };
        let sign = if self.holds() { "=" } else { "≠" };
        format!("{} {} {} {sign} {right}", paint.verdict(self.holds()), self.name, count(self.total))
    }
}

/// The equations of design section 5 over all streams and loads of a run.
pub(crate) fn equations(record: &RunRecord) -> Vec<Equation> {
    let mut streams = StreamRows::default();
    for stream in record.streams.values() {
        streams.extracted += stream.rows.extracted;
        streams.staged += stream.rows.staged;
        streams.malformed += stream.rows.malformed;
    }
    let rows = record.rows();
    let parts = |classes: &[Class]| classes.iter().map(|(name, of, _)| (*name, of(&rows))).collect();
    let mut equations = vec![
        Equation {
            name: "extracted",
            total: streams.extracted,
            parts: vec![("staged", streams.staged), ("malformed", streams.malformed)],
        },
        Equation { name: "prepared", total: rows.prepared, parts: parts(CLASSES) },
    ];
    let driven =
        record.loads.values().filter_map(|load| Some((load.driver_keys?, load.represented, load.rows.dropped)));
    let driven: Vec<_> = driven.collect();
    if !driven.is_empty() {
        let sum = |of: fn(&(u64, u64, u64)) -> u64| driven.iter().map(of).sum();
        equations.push(Equation {
            name: "driver keys",
            total: sum(|load| load.0),
            parts: vec![("represented", sum(|load| load.1)), ("dropped", sum(|load| load.2))],
        });
    }
    if rows.gone > 0 {
        equations.push(Equation { name: "gone", total: rows.gone, parts: parts(GONE_CLASSES) });
    }
    equations
}

/// Where the time went, and the requests it took.
fn effort(record: &RunRecord) -> String {
    let phases = ["extract", "stage", "transform", "diff", "load"];
    let times = phases.iter().filter_map(|phase| Some((*phase, *record.seconds.get(*phase)?)));
    let times: Vec<_> = times.map(|(phase, seconds)| format!("{phase} {}", of_seconds(seconds))).collect();
    let requests =
        format!("{}, {} throttled", counted(record.requests_sent, "request"), count(record.requests_throttled));
    if times.is_empty() { requests } else { format!("{}   {requests}", times.join("  ")) }
}

/// What a person should do about a flow whose last run this is and that has so many letters, if anything.
pub(crate) fn next_action(record: &RunRecord, letters: u64) -> Option<String> {
    let flow = &record.flow;
    match record.state {
        RunState::Complete | RunState::CompleteWithLetters if letters > 0 => {
            Some(format!("{}: `flowgate letters list --flow {flow}`", counted(letters, "letter")))
        }
        RunState::Complete | RunState::CompleteWithLetters => None,
        RunState::StoppedByGuard => Some(format!(
            "look at `flowgate plan {flow}`; mend the source, or change the guard that the warning names if the change is meant, and run again"
        )),
        RunState::Failed => Some(format!("remove the cause, then `flowgate run {flow}`: it goes on from here")),
        RunState::Interrupted | RunState::Running => Some(format!("`flowgate run {flow}` goes on from here")),
        RunState::Abandoned => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equation_shows_when_it_does_not_hold() {
        let mut equation =
            Equation { name: "prepared", total: 10, parts: vec![("created", 7), ("updated", 0), ("superseded", 3)] };
        assert_eq!(equation.render(Paint::off()), "✓ prepared 10 = created 7 + superseded 3");
        equation.total = 1_011;
        assert_eq!(equation.render(Paint::off()), "✗ prepared 1,011 ≠ created 7 + superseded 3");
    }
}
