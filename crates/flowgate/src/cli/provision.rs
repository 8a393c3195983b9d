//! `flowgate provision`: creates the tables, columns and keys of `tables/` that are missing.
//!
//! It shows them first, and creates them only where the environment allows it and someone agrees.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;

use clap::Args;
use flowgate_core::connector::Connections;
use flowgate_core::destination::{ProvisionKind, ProvisionStep};
use flowgate_core::project::{ProvisionPolicy, TableSpec};
use flowgate_core::{Code, ConnectionName, Destination, Project};
use serde_json::{Value, json};

use super::{App, Ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::number::counted;
use crate::wiring::OpenConnections;

#[derive(Debug, Args)]
pub(crate) struct Provision {
    /// Create without asking
    #[arg(long, short)]
    yes: bool,
}

/// What one connection lacks.
pub(crate) struct Missing {
    connection: ConnectionName,
    destination: Arc<dyn Destination>,
    tables: Vec<TableSpec>,
    pub(crate) steps: Vec<ProvisionStep>,
}

impl Provision {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let project = Arc::new(app.load()?);
        let connections = OpenConnections::new(Arc::clone(&project), Arc::clone(&app.clock));
        let missing = find_missing(&project, &connections).await?;
        let total: usize = missing.iter().map(|missing| missing.steps.len()).sum();
        if total == 0 {
            app.printer.answer(format!("{} nothing is missing", app.printer.out.good("✓")));
            app.printer.json(&to_json(&missing, false));
            return Ok(Exit::Complete);
        }
        show(app, &missing);
        self.require_consent(&project, total).await?;
        for missing in &missing {
            create(missing, &|step| app.printer.note(format!("created {}", step.what))).await?;
        }
        app.printer.answer(format!("{} {} created", app.printer.out.good("✓"), counted(total as u64, "part")));
        app.printer.json(&to_json(&missing, true));
        Ok(Exit::Complete)
    }

    async fn require_consent(&self, project: &Project, total: usize) -> Result<(), Failure> {
        if project.provision == ProvisionPolicy::Refuse {
            let message = format!("environment `{}` does not allow provisioning", project.environment);
            let hint = format!("set `provision: allow` in `environments/{}.yaml`", project.environment);
            return Err(Failure::new(Code::PROVISION_REFUSED, message).hint(hint));
        }
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let message = "nothing was created: there is no terminal to ask on";
            return Err(Failure::new(Code::USAGE, message).hint("`--yes` creates without asking"));
        }
        if agrees(total).await? { Ok(()) } else { Err(Failure::new(Code::CANCELLED, "nothing was created")) }
    }
}

/// What every connection of the project's tables lacks.
pub(crate) async fn find_missing(project: &Project, connections: &OpenConnections) -> Result<Vec<Missing>, Failure> {
    let mut by_connection: BTreeMap<&ConnectionName, Vec<TableSpec>> = BTreeMap::new();
    for table in &project.tables {
        by_connection.entry(&table.connection).or_default().push(table.clone());
    }
    let mut found = Vec::new();
    for (connection, tables) in by_connection {
        let opened = connections.open(connection.as_str()).await?;
        let Some(destination) = opened.destination else { continue };
        destination.check().await?;
        let steps = destination.plan_provision(&tables).await?;
        found.push(Missing { connection: connection.clone(), destination, tables, steps });
    }
    Ok(found)
}

pub(crate) async fn create(
    missing: &Missing,
    progress: &(dyn Fn(&ProvisionStep) + Send + Sync),
) -> Result<(), Failure> {
    if missing.steps.is_empty() {
        return Ok(());
    }
    Ok(missing.destination.provision(&missing.tables, progress).await?)
}

fn show(app: &App, missing: &[Missing]) {
    for missing in missing.iter().filter(|missing| !missing.steps.is_empty()) {
        app.printer.answer(format!("missing in `{}`:", missing.connection));
        for step in &missing.steps {
            app.printer.answer(format!("  {}", step.what));
        }
    }
}

async fn agrees(total: usize) -> Result<bool, Failure> {
    crate::render::Printer::ask(&format!("create {}? [y/N] ", if total == 1 { "it" } else { "them" }));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.map_err(|error| Failure::new(Code::INTERNAL, error.to_string()))??;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn to_json(missing: &[Missing], is_created: bool) -> Value {
    let step = |step: &ProvisionStep| {
        let kind = match step.kind {
            ProvisionKind::Table => "table",
            ProvisionKind::Column => "column",
            ProvisionKind::Key => "key",
        };
        json!({ "kind": kind, "what": step.what })
    };
    let one = |missing: &Missing| json!({ "connection": missing.connection, "steps": missing.steps.iter().map(step).collect::<Vec<_>>() });
    json!({ "created": is_created, "connections": missing.iter().map(one).collect::<Vec<_>>() })
}
