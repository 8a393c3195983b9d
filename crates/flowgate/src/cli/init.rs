//! `flowgate init`: a new project that runs at once, or a load made from a table's live metadata.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use flowgate_core::connector::Connections;
use flowgate_core::shape::TableShape;
use flowgate_core::{Code, ColumnKind, ColumnShape, FlowName, Project};
use serde_json::json;

use super::{App, Ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wiring::OpenConnections;

/// Options of a choice that a comment names.
const LABELS_SHOWN: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The new project's directory; with `--from-table` the project the load is written into
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write a load of this table, with its columns and their types, into an existing project
    #[arg(long, value_name = "TABLE")]
    from_table: Option<String>,
    /// The connection that has the table [default: the only one rows can be loaded into]
    #[arg(long, value_name = "NAME", requires = "from_table")]
    connection: Option<String>,
}

impl Init {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let dir = self.dir.clone().unwrap_or_else(|| app.global.dir.clone());
        match &self.from_table {
            Some(table) => self.write_load(app, &dir, table).await,
            None if self.dir.is_none() => {
                Err(Failure::new(Code::USAGE, "`DIR` is missing").hint("`flowgate init DIR` makes the directory"))
            }
            None => write_project(app, &dir),
        }
    }

    async fn write_load(&self, app: &App, dir: &Path, table: &str) -> Ended {
        let loaded = flowgate_config::load(dir, app.global.env.as_deref(), flowgate_connect::CONNECTORS)?;
        let project = Arc::new(loaded.project);
        let connection = self.destination(&project)?;
        let flow = FlowName::new(table).map_err(|error| Failure::new(Code::WRONG_TYPE, error.to_string()))?;
        let connections = OpenConnections::new(Arc::clone(&project), Arc::clone(&app.clock));
        let opened = connections.open(&connection).await?;
        let destination = opened.destination.ok_or_else(|| not_a_destination(&connection))?;
        destination.check().await?;
        let shape = destination.describe(table).await?;
        let files = [
            (format!("flows/{flow}.yaml"), flow_text(&project, &shape, &connection)),
            (format!("flows/{flow}.sql"), sql_text(&shape)),
        ];
        write_new(&project.dir, files.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
        let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        app.printer.json(&json!({ "dir": project.dir, "files": names }));
        for name in names {
            app.printer.answer(format!("{} {name}", app.printer.out.good("✓")));
        }
        app.printer.answer(format!("say in `flows/{flow}.yaml` what it reads, then `flowgate check`"));
        Ok(Exit::Complete)
    }

    /// The connection that was named, or the only one with a destination.
    fn destination(&self, project: &Project) -> Result<String, Failure> {
        if let Some(name) = &self.connection {
            return Ok(name.clone());
        }
        let can_load = |connector: &str| flowgate_connect::find(connector).is_some_and(|spec| spec.is_destination);
        let names: Vec<_> = project
            .connections
            .values()
            .filter(|connection| can_load(&connection.connector))
            .map(|connection| connection.name.to_string())
            .collect();
        match names.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                Err(Failure::new(Code::UNKNOWN_REFERENCE, "the project has no connection that rows can be loaded into"))
            }
            _ => Err(Failure::new(Code::USAGE, "there is more than one destination")
                .hint(format!("name one with `--connection`: {}", names.join(", ")))),
        }
    }
}

fn not_a_destination(connection: &str) -> Failure {
    Failure::new(Code::UNKNOWN_REFERENCE, format!("`{connection}` cannot be loaded into"))
}

fn write_project(app: &App, dir: &Path) -> Ended {
    let files = flowgate_config::new_project();
    write_new(dir, files.iter().copied())?;
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    app.printer.json(&json!({ "dir": dir, "files": names }));
    app.printer.answer(format!("{} a project in {}: {}", app.printer.out.good("✓"), dir.display(), names.join(", ")));
    app.printer.answer(format!(
        "\n  cd {}\n  flowgate check\n  flowgate provision\n  flowgate plan offices\n  flowgate run offices",
        dir.display()
    ));
    Ok(Exit::Complete)
}

/// Writes files, none of which may be there.
fn write_new<'a>(dir: &Path, files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<(), Failure> {
    for (name, _) in files.clone() {
        if dir.join(name).try_exists()? {
            let message = format!("`{}` is there already", dir.join(name).display());
            return Err(Failure::new(Code::DUPLICATE_NAME, message)
                .hint("nothing was written; choose another directory or name"));
        }
    }
    for (name, text) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(path, text)?;
    }
    Ok(())
}

fn flow_text(project: &Project, shape: &TableShape, connection: &str) -> String {
    let table = &shape.table;
    let from = source_of(project, connection).unwrap_or("source");
    let mut lines = vec![
        format!("# Made from the metadata of `{table}`."),
        format!("flow: {table}"),
        "streams:".to_owned(),
        "  # What is read. Its name is the table that SQL sees.".to_owned(),
        format!("  row: {{ from: {from} }}"),
        "loads:".to_owned(),
        format!("  {table}:"),
        format!("    into: {connection}"),
        format!("    table: {table}"),
        format!("    select: {table}.sql"),
        format!("    match: [{}]", match_columns(shape).join(", ")),
    ];
    for key in &shape.keys {
        let state = if key.active { "" } else { "  (not active)" };
        lines.push(format!("    # key {}: [{}]{state}", key.name, key.columns.join(", ")));
    }
    let lookups: Vec<_> =
        lookups(shape).map(|(name, target)| format!("    #   {name}: {{ {target}: COLUMN }}")).collect();
    if !lookups.is_empty() {
        lines.push("    # lookups:".to_owned());
    }
    lines.extend(lookups);
    lines.join("\n") + "\n"
}

/// The connection to read from: one that needs no further keys if there is one, and not the destination.
fn source_of<'a>(project: &'a Project, destination: &str) -> Option<&'a str> {
    let others = project.connections.values().filter(|connection| connection.name.as_str() != destination);
    let sources = others.filter_map(|connection| {
        let spec = flowgate_connect::find(&connection.connector).filter(|spec| spec.is_source)?;
        Some((connection.name.as_str(), (spec.check_stream)(&json!({})).is_ok()))
    });
    let sources: Vec<_> = sources.collect();
    let ready = sources.iter().find(|(_, is_ready)| *is_ready);
    ready.or_else(|| sources.first()).map(|(name, _)| *name)
}

/// The first active alternate key, or the primary id.
fn match_columns(shape: &TableShape) -> Vec<String> {
    let key = shape.keys.iter().find(|key| key.active);
    key.map_or_else(|| vec![shape.primary_id.clone()], |key| key.columns.clone())
}

fn lookups(shape: &TableShape) -> impl Iterator<Item = (&str, &str)> {
    shape.columns.values().filter(|column| column.can_create).filter_map(|column| match &column.kind {
        ColumnKind::Lookup { targets } => Some((column.name.as_str(), targets.first()?.table.as_str())),
        _ => None,
    })
}

/// A SELECT that returns the columns that must be there, and names every other that can be written.
fn sql_text(shape: &TableShape) -> String {
    let matched = match_columns(shape);
    let is_writable =
        |column: &&ColumnShape| column.can_create && !matches!(column.kind, ColumnKind::Unsupported { .. });
    let is_needed = |column: &&ColumnShape| matched.contains(&column.name) || column.required;
    let writable: Vec<&ColumnShape> =
        shape.columns.values().filter(|column| is_writable(column) || matched.contains(&column.name)).collect();
    let width = writable.iter().map(|column| column.name.len()).max().unwrap_or_default();
    let mut lines = vec![
        format!(
            "-- One SELECT; its columns are columns of `{}`. Take the `--` off those you need, and put what",
            shape.table
        ),
        "-- they hold in the place of NULL.".to_owned(),
        "SELECT".to_owned(),
    ];
    for (at, column) in writable.iter().filter(|column| is_needed(column)).enumerate() {
        let comma = if at == 0 { "  " } else { ", " };
        let why = if matched.contains(&column.name) { "the match column" } else { "required" };
        lines.push(format!("    {comma}NULL AS {:width$}  -- {}; {why}", column.name, kind_text(&column.kind)));
    }
    for column in writable.iter().filter(|column| !is_needed(column)) {
        lines.push(format!("--  , NULL AS {:width$}  -- {}", column.name, kind_text(&column.kind)));
    }
    lines.push("FROM row".to_owned());
    lines.join("\n") + "\n"
}

fn kind_text(kind: &ColumnKind) -> String {
    let labels = |options: &[flowgate_core::shape::ChoiceOption]| {
        let mut labels: Vec<_> = options.iter().take(LABELS_SHOWN).map(|option| option.label.clone()).collect();
        if options.len() > LABELS_SHOWN {
            labels.push("…".to_owned());
        }
        labels.join(" | ")
    };
    match kind {
        ColumnKind::Text { length_max } => format!("text, at most {length_max}"),
        ColumnKind::Integer { min, max } => format!("integer, {min} to {max}"),
        ColumnKind::BigInteger => "big integer".to_owned(),
        ColumnKind::Decimal { scale, .. } => format!("decimal, {scale} places"),
        ColumnKind::Money { scale, .. } => format!("money, {scale} places; needs transactioncurrencyid"),
        ColumnKind::Double { precision, .. } => format!("number, {precision} places"),
        ColumnKind::Boolean { labels: [no, yes] } => format!("{yes} | {no}"),
        ColumnKind::DateTime { .. } => "date and time".to_owned(),
        ColumnKind::Date => "date".to_owned(),
        ColumnKind::Choice { options } => labels(options),
        ColumnKind::Choices { options } => format!("several of {}", labels(options)),
        ColumnKind::Guid => "id".to_owned(),
        ColumnKind::Lookup { targets } => {
            let tables: Vec<_> = targets.iter().map(|target| target.table.as_str()).collect();
            format!("lookup: {}", tables.join(" | "))
        }
        ColumnKind::Unsupported { name } => name.clone(),
    }
}
