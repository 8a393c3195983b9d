//! `flowgate letters`: rows that were set aside, why, and what a person decides about them.

use clap::{Args, Subcommand};
use flowgate_core::{Code, Project};
use flowgate_store::{Letter, LetterFilter, LetterGroup, LetterSelection, LetterStatus};
use serde_json::{Value, json};

use super::runs::moment;
use super::{App, Ended, flow_named};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::number::{count, counted};
use crate::render::table::{Align, Cell, Table};
use crate::render::{Paint, Tone, json};

#[derive(Debug, Subcommand)]
pub(crate) enum Letters {
    /// List letters, grouped by reason first
    List(List),
    /// Show one letter with its row
    Show(Show),
    /// Try rows again at the next run, whatever is known of them
    Retry(Decide),
    /// Leave rows out until they change
    Discard(Decide),
}

/// Which letters.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only letters of this flow
    #[arg(long, value_name = "FLOW")]
    flow: Option<String>,
    /// Only letters of this load, or of this stream for malformed input
    #[arg(long, value_name = "NAME")]
    load: Option<String>,
    /// Only letters with this code
    #[arg(long, value_name = "FG…", value_parser = parse_code)]
    code: Option<Code>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most this many
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter's id, or its first 8 characters
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// Ids of letters, or their first 8 characters
    #[arg(value_name = "ID", required_unless_present_any = ["flow", "load", "code"], conflicts_with_all = ["flow", "load", "code"])]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
}

impl Letters {
    pub(crate) fn run(self, app: &App) -> Ended {
        match self {
            Self::List(list) => list.run(app),
            Self::Show(show) => show.run(app),
            Self::Retry(decide) => decide.run(app, LetterStatus::RetryRequested),
            Self::Discard(decide) => decide.run(app, LetterStatus::Discarded),
        }
    }
}

impl Filter {
    fn resolve(self, project: &Project) -> Result<LetterFilter, Failure> {
        let flow = self.flow.map(|name| flow_named(project, &name)).transpose()?;
        Ok(LetterFilter { flow, place: self.load, code: self.code, status: None })
    }
}

fn parse_code(text: &str) -> Result<Code, String> {
    let number = text.trim_start_matches(['F', 'G', 'f', 'g']).parse().ok();
    number.map(Code).ok_or_else(|| "a code looks like `FG0500`".to_owned())
}

impl List {
    fn run(self, app: &App) -> Ended {
        let wiring = app.open()?;
        let filter = self.filter.resolve(&wiring.project)?;
        let page = wiring.store.letters(&filter, None, usize::from(self.limit))?;
        let total = wiring.store.count_letters(&filter)?;
        let mut groups = wiring.store.letter_groups(filter.flow.as_ref())?;
        groups.retain(|group| {
            filter.place.as_ref().is_none_or(|place| *place == group.place)
                && filter.code.is_none_or(|code| code == group.code)
        });
        app.printer.json(&json!({
            "total": total,
            "groups": groups.iter().map(json::letter_group).collect::<Vec<_>>(),
            "letters": page.letters.iter().map(json::letter).collect::<Vec<_>>(),
        }));
        if total == 0 {
            app.printer.answer("no letters");
            return Ok(Exit::Complete);
        }
        let paint = app.printer.out;
        app.printer.answer(groups_table(&groups).render("", paint));
        app.printer.answer(format!("\n{}", letters_table(&page.letters).render("", paint)));
        if total > page.letters.len() as u64 {
            app.printer.answer(format!("{} of {} shown; `--limit` shows more", page.letters.len(), count(total)));
        }
        app.printer.answer(hints(&page.letters, paint));
        Ok(Exit::Complete)
    }
}

fn groups_table(groups: &[LetterGroup]) -> Table {
    let columns = [
        ("letters", Align::Right),
        ("where", Align::Left),
        ("code", Align::Left),
        ("why", Align::Left),
        ("status", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for group in groups {
        table.row(vec![
            Cell::toned(Tone::Strong, count(group.letters)),
            Cell::new(format!("{}.{}", group.flow, group.place)),
            Cell::new(group.code.to_string()),
            Cell::new(group.code.title()),
            Cell::toned(Tone::Faint, status_text(group.status)),
        ]);
    }
    table
}

fn letters_table(letters: &[Letter]) -> Table {
    let columns = [("id", Align::Left), ("where", Align::Left), ("key", Align::Left), ("reason", Align::Left)];
    let mut table = Table::new(&columns);
    for letter in letters {
        table.row(vec![
            Cell::new(short(&letter.id)),
            Cell::toned(Tone::Faint, format!("{}.{}", letter.flow, letter.place)),
            Cell::new(&letter.key_text),
            Cell::new(reason(letter)),
        ]);
    }
    table
}

fn reason(letter: &Letter) -> String {
    match &letter.column {
        Some(column) => format!("{column}: {}", letter.reason),
        None => letter.reason.clone(),
    }
}

fn hints(letters: &[Letter], paint: Paint) -> String {
    let id = letters.first().map_or("ID", |letter| short(&letter.id));
    let hint = paint.faint("hint:");
    format!(
        "\n{hint} `flowgate letters show {id}` shows the row\n\
         {hint} mend the data, the table or the flow and run again; `letters retry` tries them unchanged"
    )
}

impl Show {
    fn run(self, app: &App) -> Ended {
        let wiring = app.open()?;
        let letter = wiring.store.letter(&self.id)?.ok_or_else(|| no_such(&self.id))?;
        app.printer.json(&json::letter(&letter));
        app.printer.answer(text(&letter, app.printer.out));
        Ok(Exit::Complete)
    }
}

fn no_such(id: &str) -> Failure {
    Failure::new(Code::NO_SUCH_LETTER, format!("there is no letter `{id}`")).hint("`flowgate letters list` lists them")
}

fn text(letter: &Letter, paint: Paint) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row(vec![Cell::toned(Tone::Faint, name), Cell::new(value)]);
        }
    };
    let source = letter.file.as_ref().map(|file| match letter.line {
        Some(line) => format!("{file}:{line}"),
        None => file.clone(),
    });
    say("letter", Some(letter.id.clone()));
    say("where", Some(format!("{}.{}", letter.flow, letter.place)));
    say("key", Some(letter.key_text.clone()));
    say("reason", Some(format!("{}  {}", letter.code, reason(letter))));
    say("status", Some(format!("{}, {}", status_text(letter.status), counted(u64::from(letter.attempts), "attempt"))));
    say("first met", Some(moment(letter.first_at)));
    say("last met", Some(moment(letter.last_at)));
    say("service code", letter.service_code.clone());
    say("request", letter.request_id.clone());
    say("from", source);
    let row: Value = serde_json::from_str(&letter.payload).unwrap_or_else(|_| json!(letter.payload));
    format!("{}\n\n{row:#}", table.render("", paint))
}

impl Decide {
    fn run(self, app: &App, status: LetterStatus) -> Ended {
        let wiring = app.open()?;
        let selection = if self.ids.is_empty() {
            LetterSelection::Matching(self.filter.resolve(&wiring.project)?)
        } else {
            let found = self.ids.iter().map(|id| Ok(wiring.store.letter(id)?.ok_or_else(|| no_such(id))?.id));
            LetterSelection::Ids(found.collect::<Result<_, Failure>>()?)
        };
        let is_retry = status == LetterStatus::RetryRequested;
        let changed =
            if is_retry { wiring.store.request_retry(&selection)? } else { wiring.store.discard(&selection)? };
        app.printer.json(&json!({ "letters": changed, "status": status }));
        let what = if is_retry { "tried again at the next run" } else { "left out until they change" };
        app.printer.answer(format!("{}: {what}", counted(changed, "letter")));
        Ok(Exit::Complete)
    }
}

fn status_text(status: LetterStatus) -> &'static str {
    match status {
        LetterStatus::Quarantined => "quarantined",
        LetterStatus::RetryRequested => "to be tried again",
        LetterStatus::Discarded => "discarded",
    }
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
