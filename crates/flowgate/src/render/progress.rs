//! How far a run has come, on standard error.
//!
//! On a terminal one line for each stream and load, in the order they run, which never move.
//! Elsewhere plain lines: one when an item ends, and at most one every few seconds in between.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowgate_core::project::Flow;
use flowgate_core::{Clock, Elapsed, LoadRows};
use flowgate_engine::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::number::{count, counted};
use super::{Paint, Printer};

/// How often a plain line about one item may come.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
const TICK_INTERVAL: Duration = Duration::from_millis(120);

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Bars,
    Lines,
    Silent,
}

impl Mode {
    /// Bars for a person at a terminal. Log lines would tear them apart, so then there are none.
    pub(crate) fn of(printer: Printer, is_logging: bool) -> Self {
        match (printer.is_quiet, Printer::is_terminal() && printer.err.is_on() && !is_logging) {
            (true, _) => Self::Silent,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }
}

/// The observer of one flow for this mode.
pub(crate) fn observer(mode: Mode, printer: Printer, clock: Arc<dyn Clock>, flow: &Flow) -> Arc<dyn Observer> {
    match mode {
        Mode::Bars => Arc::new(Bars::new(printer.err, flow)),
        Mode::Lines => Arc::new(Lines { printer, clock, flow: flow.name.to_string(), last: Mutex::default() }),
        Mode::Silent => Arc::new(flowgate_engine::Quiet),
    }
}

/// What was done to the rows of a load, in words: `30,659 created, 7 superseded`.
pub(crate) fn outcome_text(rows: &LoadRows) -> String {
    let classes = [
        (rows.created, "created"),
        (rows.updated, "updated"),
        (rows.unchanged, "unchanged"),
        (rows.superseded, "superseded"),
        (rows.quarantined, "quarantined"),
        (rows.pending, "pending"),
        (rows.dropped, "dropped"),
        (rows.deleted, "deleted"),
        (rows.deactivated, "deactivated"),
        (rows.kept, "gone and kept"),
        (rows.gone_pending, "gone and pending"),
        (rows.gone_quarantined, "gone and quarantined"),
    ];
    let said: Vec<_> = classes
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if said.is_empty() { "no rows".to_owned() } else { said.join(", ") }
}

/// One line an item on a terminal.
struct Bars {
    paint: Paint,
    multi: MultiProgress,
    /// The flow's name.
    head: ProgressBar,
    items: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new(paint: Paint, flow: &Flow) -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let streams = flow.streams.keys().map(|name| (stream_item(name), name.as_str()));
        let loads = flow.loads.iter().map(|load| (load_item(&load.name), load.name.as_str()));
        let width = streams.clone().chain(loads.clone()).map(|(_, name)| name.len()).max().unwrap_or_default();
        let head = multi.add(ProgressBar::new_spinner().with_style(style("{prefix}")));
        head.set_prefix(paint.strong(flow.name.as_str()));
        head.tick();
        let mut items = BTreeMap::new();
        for (item, name) in streams.chain(loads) {
            let bar = multi.add(ProgressBar::new(0).with_style(waiting_style()));
            bar.set_prefix(format!("{name:width$}"));
            bar.set_message("waiting");
            bar.tick();
            items.insert(item, bar);
        }
        Self { paint, multi, head, items }
    }

    /// Shows an item that has no known end.
    fn spin(&self, item: &str, message: String) {
        let Some(bar) = self.items.get(item) else { return };
        if !bar.is_finished() {
            bar.set_style(spinner_style());
            bar.enable_steady_tick(TICK_INTERVAL);
            bar.set_message(message);
        }
    }

    fn advance(&self, item: &str, done: u64, total: u64) {
        let Some(bar) = self.items.get(item) else { return };
        if bar.length() != Some(total) || total == 0 {
            bar.set_style(bar_style());
            bar.set_length(total);
            bar.reset_eta();
        }
        bar.set_position(done);
    }

    fn finish(&self, item: &str, message: &str) {
        let Some(bar) = self.items.get(item) else { return };
        bar.set_style(style("  {prefix}  {msg}"));
        bar.finish_with_message(format!("{} {message}", self.paint.good("✓")));
    }
}

impl Observer for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Resumed { run } => self.say(&format!("going on with run {run}")),
            Event::Extracting { stream, rows } => {
                self.spin(&stream_item(stream), format!("reading  {}", counted(rows, "row")));
            }
            Event::Staged { stream, rows } => self.finish(&stream_item(stream), &staged_text(rows)),
            Event::Preparing { load, rows } => {
                self.spin(&load_item(load), format!("preparing  {}", counted(rows, "row")));
            }
            Event::Adopting { load, rows } => {
                self.spin(&load_item(load), format!("adopting  {} of the table", counted(rows, "row")));
            }
            Event::Diffed { load, .. } => self.spin(&load_item(load), "compared".to_owned()),
            Event::Loading { load, done, total } => self.advance(&load_item(load), done, total),
            Event::Loaded { load, rows } => self.finish(&load_item(load), &outcome_text(&rows)),
            Event::Warning { text } => self.say(&format!("{} {text}", self.paint.careful("warning:"))),
        }
    }
}

impl Bars {
    fn say(&self, text: &str) {
        if let Err(error) = self.multi.println(text) {
            tracing::debug!(%error, "the terminal could not be written");
        }
    }
}

impl Drop for Bars {
    /// The summary that follows says it all again.
    fn drop(&mut self) {
        for bar in self.items.values() {
            // A spinner turns in a thread of its own, and would draw over what comes next.
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
        self.head.finish_and_clear();
        self.multi.set_draw_target(ProgressDrawTarget::hidden());
    }
}

fn stream_item(name: &impl std::fmt::Display) -> String {
    format!("stream {name}")
}

fn load_item(name: &impl std::fmt::Display) -> String {
    format!("load {name}")
}

fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn waiting_style() -> ProgressStyle {
    style("  {prefix}  {msg:.dim}")
}

fn spinner_style() -> ProgressStyle {
    style("  {prefix}  {spinner:.cyan} {msg}")
}

fn bar_style() -> ProgressStyle {
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        write!(text, "{}/s", count(state.per_sec() as u64)).unwrap_or_default();
    };
    style("  {prefix}  {bar:30.cyan/dim} {human_pos:>9} of {human_len}  {rate:.dim}  {eta:.dim}")
        .with_key("rate", rate)
        .progress_chars("━━─")
}

/// Plain lines for logs and pipes.
struct Lines {
    printer: Printer,
    clock: Arc<dyn Clock>,
    flow: String,
    /// When each item last had a line.
    last: Mutex<BTreeMap<String, Elapsed>>,
}

impl Lines {
    /// Says something passing, if the item has been silent for a while.
    fn pass(&self, item: &str, text: impl FnOnce() -> String) {
        let now = self.clock.elapsed();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(item) {
            // The first word about an item may wait as well: most are done before it is due.
            None => {
                last.insert(item.to_owned(), now);
            }
            Some(before) if now.since(*before) < LINE_INTERVAL => {}
            Some(_) => {
                last.insert(item.to_owned(), now);
                self.say(item, &text());
            }
        }
    }

    fn say(&self, item: &str, text: &str) {
        self.printer.note(format!("{}  {item}  {text}", self.flow));
    }
}

impl Observer for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Resumed { run } => self.printer.note(format!("{}  going on with run {run}", self.flow)),
            Event::Extracting { stream, rows } => {
                self.pass(stream.as_str(), || format!("reading, {} so far", counted(rows, "row")));
            }
            Event::Staged { stream, rows } => self.say(stream.as_str(), &staged_text(rows)),
            Event::Preparing { load, rows } => {
                self.pass(load.as_str(), || format!("preparing, {} so far", counted(rows, "row")));
            }
            Event::Adopting { load, rows } => {
                self.pass(load.as_str(), || format!("adopting, {} so far", counted(rows, "row")));
            }
            Event::Diffed { .. } => {}
            Event::Loading { load, done, total } => {
                self.pass(load.as_str(), || format!("{} of {} sent", count(done), count(total)));
            }
            Event::Loaded { load, rows } => self.say(load.as_str(), &outcome_text(&rows)),
            Event::Warning { text } => self.printer.note(format!("{}  warning: {text}", self.flow)),
        }
    }
}

fn staged_text(rows: flowgate_core::StreamRows) -> Cow<'static, str> {
    let staged = format!("{} staged", counted(rows.staged, "row"));
    match rows.malformed {
        0 => staged.into(),
        malformed => format!("{staged}, {} malformed", count(malformed)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_only_what_happened() {
        let rows = LoadRows { prepared: 30_666, created: 30_659, superseded: 7, ..LoadRows::default() };
        assert_eq!(outcome_text(&rows), "30,659 created, 7 superseded");
        assert_eq!(outcome_text(&LoadRows::default()), "no rows");
    }
}
