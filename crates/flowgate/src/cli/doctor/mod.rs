//! `flowgate doctor`: reaches every connection of a project and says what runs would meet there.
//!
//! With `--verify CONNECTION` it looks at the assumptions that Flowgate makes about Dataverse instead,
//! in a scratch table of a sandbox, and writes what it saw to a file that the emulator loads.

mod uses;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flowgate_core::connector::Connections;
use flowgate_core::examination::{Finding, FindingState};
use flowgate_core::{Code, ConnectionName, ConnectorError, Project};
use serde_json::{Value, json};

use super::{App, Ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Tone;
use crate::render::number::counted;
use crate::render::table::{Align, Cell, Table};
use crate::wiring::OpenConnections;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look at the assumptions about Dataverse in this connection's environment, a sandbox
    #[arg(long, value_name = "CONNECTION")]
    verify: Option<String>,
    /// Where to write what was seen [default: CONNECTION.observed.json in the project]
    #[arg(long, value_name = "FILE", requires = "verify")]
    write: Option<PathBuf>,
    /// Compare with what an earlier verification wrote, not with the documented assumptions
    #[arg(long, value_name = "FILE", requires = "verify")]
    expect: Option<PathBuf>,
    /// Also what takes 5,001 rows and up to 512 MiB
    #[arg(long, requires = "verify")]
    large: bool,
    /// Also in an environment that is not a sandbox, developer or trial one
    #[arg(long, requires = "verify")]
    production: bool,
}

/// What was found of one connection.
struct Examined {
    connection: ConnectionName,
    connector: String,
    findings: Vec<Finding>,
}

impl Doctor {
    /// Whether it writes at a destination, and has to tidy up there.
    pub(crate) fn writes(&self) -> bool {
        self.verify.is_some()
    }

    pub(crate) async fn run(self, app: &App) -> Ended {
        let project = Arc::new(app.load()?);
        let connections = OpenConnections::new(Arc::clone(&project), Arc::clone(&app.clock));
        if let Some(connection) = self.verify.clone() {
            return verify::run(self, app, &project, &connections, &connection).await;
        }
        let mut examined = Vec::with_capacity(project.connections.len());
        for (name, connection) in &project.connections {
            let findings = tokio::select! {
                findings = examine(&project, &connections, name) => findings,
                () = app.cancel.cancelled() => {
                    return Err(Failure::new(Code::CANCELLED, "stopped before every connection was reached"));
                }
            };
            let findings = findings.unwrap_or_else(|error| vec![unreachable(&error)]);
            examined.push(Examined { connection: name.clone(), connector: connection.connector.clone(), findings });
        }
        app.printer.json(&to_json(&project, &examined));
        show(app, &examined);
        let is_bad = |examined: &Examined| examined.findings.iter().any(|finding| finding.state == FindingState::Bad);
        Ok(if examined.iter().any(is_bad) { Exit::Failed } else { Exit::Complete })
    }
}

async fn examine(
    project: &Project,
    connections: &OpenConnections,
    name: &ConnectionName,
) -> Result<Vec<Finding>, ConnectorError> {
    let opened = connections.open(name.as_str()).await?;
    if let Some(destination) = opened.destination {
        return destination.examine(&uses::of_connection(project, name)).await;
    }
    match opened.source {
        Some(source) => Ok(vec![Finding::good("reached", source.check().await?)]),
        None => Ok(Vec::new()),
    }
}

fn unreachable(error: &ConnectorError) -> Finding {
    let finding = Finding::new(FindingState::Bad, format!("not reached ({})", error.code), error.to_string());
    match error.hints.first() {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

fn show(app: &App, examined: &[Examined]) {
    let paint = app.printer.out;
    let mut bad = 0;
    for one in examined {
        app.printer.answer(format!("{} {}", paint.strong(one.connection.as_str()), paint.faint(&one.connector)));
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for finding in &one.findings {
            let (mark, tone) = mark(finding.state);
            table.row(vec![Cell::toned(tone, mark), Cell::new(&finding.what), Cell::new(&finding.seen)]);
        }
        app.printer.answer(table.render("  ", paint));
        for (finding, hint) in one.findings.iter().filter_map(|finding| Some((finding, finding.hint.as_ref()?))) {
            app.printer.answer(format!("  {} {}: {hint}", paint.faint("hint:"), finding.what));
        }
        app.printer.answer("");
        bad += one.findings.iter().filter(|finding| finding.state == FindingState::Bad).count() as u64;
    }
    let reached = counted(examined.len() as u64, "connection");
    app.printer.answer(match bad {
        0 => format!("{} {reached}, nothing in the way of a run", paint.verdict(true)),
        _ => format!("{} {reached}, {} to mend", paint.verdict(false), counted(bad, "thing")),
    });
}

fn mark(state: FindingState) -> (&'static str, Tone) {
    match state {
        FindingState::Good => ("✓", Tone::Good),
        FindingState::Notable => ("!", Tone::Careful),
        FindingState::Bad => ("✗", Tone::Bad),
        FindingState::Unknown => ("?", Tone::Faint),
    }
}

fn to_json(project: &Project, examined: &[Examined]) -> Value {
    let state = |state: FindingState| match state {
        FindingState::Good => "good",
        FindingState::Notable => "notable",
        FindingState::Bad => "bad",
        FindingState::Unknown => "unknown",
    };
    let finding = |finding: &Finding| json!({ "what": finding.what, "state": state(finding.state), "seen": finding.seen, "hint": finding.hint });
    let one = |one: &Examined| {
        let findings: Vec<Value> = one.findings.iter().map(finding).collect();
        json!({ "connection": one.connection, "connector": one.connector, "findings": findings })
    };
    let connections: Vec<Value> = examined.iter().map(one).collect();
    json!({ "environment": project.environment, "connections": connections })
}
