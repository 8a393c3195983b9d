//! The files that are made from the program itself: JSON Schemas, reference pages, pages of errors.
//!
//! The binary describes itself as one JSON object (`flowgate reference`): its schemas, its connectors,
//! its error codes and its commands. What a connector is for is said once, in the `//!` lines of its
//! file. Nothing here is written by hand afterwards: the directories below hold generated files only.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::workspace::{Workspace, output};

mod fields;

/// Directories whose every file is generated.
const DIRECTORIES: &[&str] = &["schema", "docs/errors", "docs/reference/connectors"];
const CLI_PAGE: &str = "docs/reference/cli.md";
const CONNECTOR_SOURCES: &str = "crates/connect/src/connectors";
const NOTE: &str = "<!-- Made by `cargo xtask generate`; edits here are lost. -->\n\n";

/// What the binary says about itself.
#[derive(Deserialize)]
struct Reference {
    /// File name to schema.
    schemas: BTreeMap<String, Value>,
    connectors: Vec<Connector>,
    errors: Vec<ErrorCode>,
    commands: Vec<CommandHelp>,
}

#[derive(Deserialize)]
struct Connector {
    name: String,
    summary: String,
    is_source: bool,
    is_destination: bool,
    connection_schema: Value,
    stream_schema: Value,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
    title: String,
    help: String,
}

#[derive(Deserialize)]
struct CommandHelp {
    /// `letters retry`; empty for the program as a whole.
    name: String,
    help: String,
}

/// Path from the root to content.
type Files = BTreeMap<String, String>;

pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let files = generate(workspace)?;
    for stale in stale(workspace, &files)? {
        fs_err::remove_file(workspace.path(&stale))?;
    }
    for (path, content) in &files {
        let path = workspace.path(path);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(path, content)?;
    }
    println!("{} generated files written", files.len());
    Ok(())
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let files = generate(workspace)?;
    let mut outdated = stale(workspace, &files)?;
    for (path, content) in &files {
        if fs_err::read_to_string(workspace.path(path)).ok().as_ref() != Some(content) {
            outdated.push(path.clone());
        }
    }
    if !outdated.is_empty() {
        bail!("generated files are not current (run `cargo xtask generate`):\n  {}", outdated.join("\n  "));
    }
    println!("{} generated files are current", files.len());
    Ok(())
}

/// Generated files on disk that would not be made any more.
fn stale(workspace: &Workspace, files: &Files) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for directory in DIRECTORIES {
        if !workspace.path(directory).try_exists()? {
            continue;
        }
        for entry in fs_err::read_dir(workspace.path(directory))? {
            let path = format!("{directory}/{}", entry?.file_name().to_string_lossy());
            if !files.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

fn generate(workspace: &Workspace) -> Result<Files> {
    workspace.build_binary()?;
    let text = output(&mut workspace.command(workspace.binary(), &["reference"]))?;
    let reference: Reference = serde_json::from_str(&text).context("`flowgate reference` wrote something else")?;
    let mut files = Files::new();
    for (name, schema) in &reference.schemas {
        files.insert(format!("schema/{name}"), format!("{}\n", serde_json::to_string_pretty(schema)?));
    }
    for connector in &reference.connectors {
        let source = workspace.path(CONNECTOR_SOURCES).join(format!("{}.rs", connector.name));
        let page = connector_page(connector, &module_docs(&source)?);
        files.insert(format!("docs/reference/connectors/{}.md", connector.name), page);
    }
    files.insert("docs/reference/connectors/README.md".to_owned(), connector_index(&reference.connectors));
    for error in &reference.errors {
        files.insert(format!("docs/errors/{}.md", error.code), error_page(error));
    }
    files.insert("docs/errors/README.md".to_owned(), error_index(&reference.errors));
    files.insert(CLI_PAGE.to_owned(), cli_page(&reference.commands));
    Ok(files)
}

/// The `//!` lines at the beginning of a source file.
fn module_docs(path: &Path) -> Result<String> {
    let text = fs_err::read_to_string(path)?;
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    Ok(lines.join("\n"))
}

fn connector_page(connector: &Connector, docs: &str) -> String {
    let mut page =
        format!("{NOTE}# `{}`\n\n{}\n\n{}.\n", connector.name, sentence(&connector.summary), roles(connector));
    page += &format!("\n{docs}\n");
    page += &format!("\n## Keys of a connection\n\n{}", fields::table(&connector.connection_schema));
    if connector.is_source {
        page += &format!("\n## Keys of a stream\n\n{}", fields::table(&connector.stream_schema));
    }
    page
}

fn roles(connector: &Connector) -> &'static str {
    match (connector.is_source, connector.is_destination) {
        (true, true) => "Source and destination",
        (true, false) => "Source",
        (false, _) => "Destination",
    }
}

fn connector_index(connectors: &[Connector]) -> String {
    let mut page = format!("{NOTE}# Connectors\n\n| connector | reads | loads | |\n|---|---|---|---|\n");
    for connector in connectors {
        let yes = |is_so: bool| if is_so { "yes" } else { "" };
        let (reads, loads) = (yes(connector.is_source), yes(connector.is_destination));
        let name = &connector.name;
        page += &format!("| [`{name}`]({name}.md) | {reads} | {loads} | {} |\n", connector.summary);
    }
    page
}

fn error_page(error: &ErrorCode) -> String {
    let mut page = format!("{NOTE}# {}: {}\n", error.code, error.title);
    if !error.help.is_empty() {
        page += &format!("\n{}\n", error.help);
    }
    page
}

fn error_index(errors: &[ErrorCode]) -> String {
    let mut page = format!(
        "{NOTE}# Codes of errors\n\nA code is never used for anything else.\n\n| code | meaning |\n|---|---|\n"
    );
    for error in errors {
        page += &format!("| [{0}]({0}.md) | {1} |\n", error.code, error.title);
    }
    page
}

fn cli_page(commands: &[CommandHelp]) -> String {
    let mut page = format!("{NOTE}# The command line\n");
    for command in commands {
        let name = format!("flowgate {}", command.name);
        page += &format!("\n## `{}`\n\n```text\n{}\n```\n", name.trim_end(), command.help.trim_end());
    }
    page
}

/// `text` with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_an_error_says_what_helps() {
        let error =
            ErrorCode { code: "FG0004".into(), title: "a key that does not exist".into(), help: "Look.".into() };
        assert_eq!(error_page(&error), format!("{NOTE}# FG0004: a key that does not exist\n\nLook.\n"));
    }

    #[test]
    fn a_summary_becomes_a_sentence() {
        assert_eq!(sentence("CSV, JSON lines and Parquet"), "CSV, JSON lines and Parquet.");
        assert_eq!(sentence("files on disk."), "Files on disk.");
    }

    #[test]
    fn the_help_of_a_command_stands_as_it_is_printed() {
        let help = CommandHelp { name: "letters retry".into(), help: "Usage: flowgate letters retry\n".into() };
        let page = cli_page(&[help]);
        assert!(
            page.ends_with("\n## `flowgate letters retry`\n\n```text\nUsage: flowgate letters retry\n```\n"),
            "{page}"
        );
    }
}
