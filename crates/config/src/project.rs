//! Reads a whole project: the order of reading, and what holds between files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowgate_core::connector::ConnectorSpec;
use flowgate_core::project::{Flow, Load, Missing, Project, TableSpec};
use flowgate_core::{Code, FlowName};

use crate::check::check_file;
use crate::connection::Connections;
use crate::context::Context;
use crate::definition::Block;
use crate::environment;
use crate::files::{Files, without_dots};
use crate::flow::{FLOW, FlowFile, read_flow};
use crate::flowgate_yaml::{self, ENVIRONMENT, PROJECT};
use crate::node::{Entry, Node};
use crate::order::check_after;
use crate::report::{Problem, Report};
use crate::table::{TABLE, read_table};
use crate::variables::{Secrets, Variables};

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "flowgate.yaml";

/// A project without errors.
#[derive(Debug)]
pub struct Loaded {
    pub project: Project,
    /// What is doubtful but allowed.
    pub warnings: Report,
}

/// Reads and checks the project in `dir`. Only files are read; no system is reached.
///
/// Without a chosen environment it is `local` if there is a file for it or no file at all, and the
/// only one there is otherwise. On errors the report holds all of them, warnings included.
pub fn load(dir: &Path, environment: Option<&str>, connectors: &[ConnectorSpec]) -> Result<Loaded, Report> {
    let mut report = Report::default();
    let loaded = read_project(dir, environment, connectors, &mut report);
    report.sort();
    match loaded {
        Some(project) if !report.has_errors() => Ok(Loaded { project, warnings: report }),
        _ => Err(report),
    }
}

fn read_project(
    dir: &Path,
    environment: Option<&str>,
    registry: &[ConnectorSpec],
    report: &mut Report,
) -> Option<Project> {
    let mut files = open_dir(dir, report)?;
    let mut root = files.read_yaml(&files.dir().join(PROJECT_FILE), report)?;
    if let Some(problem) = flowgate_yaml::newer_version(&root) {
        report.add(problem);
        return None;
    }
    let mut chosen = environment::choose(&mut files, environment, report)?;
    let shared = root.get("connections").map_or(&[][..], Node::entries);
    let shared: Vec<String> = shared.iter().map(|entry| entry.key.clone()).collect();
    let mut variables = Variables::new(&chosen.file_name);
    let vars = [root.get("vars"), chosen.root.as_ref().and_then(|node| node.get("vars"))];
    for vars in vars.into_iter().flatten() {
        variables.add(vars, report);
    }
    if let Some(node) = &mut chosen.root {
        environment::take_place_of_connections(node, &mut root);
        fill_project(node, &variables, report);
        check_file(node, &ENVIRONMENT, report);
    }
    fill_project(&mut root, &variables, report);
    check_file(&root, &PROJECT, report);
    let connections = [root.get("connections"), chosen.root.as_ref().and_then(|node| node.get("connections"))];
    let connections = Connections::read(connections.into_iter().flatten(), registry, report);
    let mut context = Context { registry, connections, files, report: std::mem::take(report) };
    let flows = read_flows(&variables, &mut context);
    let tables = read_tables(&variables, &mut context);
    *report = context.report;
    let flows: BTreeMap<FlowName, Flow> = flows.into_iter().map(|flow| (flow.name.clone(), flow)).collect();
    // What uses a connection is only known where everything could be read.
    if let Some(environment) = chosen.root.as_ref().filter(|_| !report.has_errors()) {
        environment::refuse_unused_connections(environment, &shared, &flows, &tables, report);
    }
    let time_zone = flowgate_yaml::time_zone(&root, report);
    if flows.is_empty() && !report.has_errors() {
        let problem = Problem::warning(Code::MISSING_FILE, "the project has no flow");
        report.add(problem.in_file("flows").hint("a flow is a file `flows/NAME.yaml`"));
    }
    let dir = context.files.dir().to_owned();
    let state_dir = flowgate_yaml::state_dir(&root, &dir, &chosen.name);
    let project = Project {
        local_times: flowgate_yaml::local_times(&root),
        time_zone,
        connections: context.connections.by_name,
        tables,
        flows,
        staging: flowgate_yaml::staging(&root, &dir, &chosen.name, &state_dir),
        state_dir,
        provision: flowgate_yaml::provision(&root, chosen.root.as_ref()),
        version: context.files.version(),
        environment: chosen.name,
        dir,
    };
    refuse_overlaps(&project, report);
    Some(project)
}

/// Of two loads into one table, one that deletes may take what the other keeps. That their keys never meet cannot be
/// seen here, so it must be said.
fn refuse_overlaps(project: &Project, report: &mut Report) {
    let loads: Vec<(&Flow, &Load)> =
        project.flows.values().flat_map(|flow| flow.loads.iter().map(move |load| (flow, load))).collect();
    for (flow, load) in &loads {
        if load.missing == Missing::Keep || load.shares_table {
            continue;
        }
        let is_other = |(other_flow, other): &&(&Flow, &Load)| {
            (&other_flow.name, &other.name) != (&flow.name, &load.name) && project.have_one_target(load, other)
        };
        let Some((other_flow, other)) = loads.iter().find(is_other) else { continue };
        let word = if load.missing == Missing::Delete { "delete" } else { "deactivate" };
        let message = format!(
            "load `{}` of flow `{}` has `missing: {word}`, and load `{}` of flow `{}` writes `{}` too",
            load.name, flow.name, other.name, other_flow.name, load.table
        );
        let file = flow.path.strip_prefix(&project.dir).unwrap_or(&flow.path).display().to_string();
        report.add(Problem::new(Code::OVERLAPPING_LOADS, message).in_file(file).value(load.name.as_str()).hint(
            "make it one load, or use `missing: keep`; if both are meant, `shares_table: true` on the load that removes \
             rows says so: it then leaves what another load keeps",
        ));
    }
}

/// Makes the directory absolute and sees whether a project is in it.
fn open_dir(dir: &Path, report: &mut Report) -> Option<Files> {
    let Ok(absolute) = fs_err::canonicalize(dir) else {
        let problem = Problem::new(Code::PROJECT_NOT_FOUND, format!("there is no directory `{}`", dir.display()));
        report.add(problem.hint("name the project's directory with `-C DIR`"));
        return None;
    };
    if absolute.join(PROJECT_FILE).is_file() {
        return Some(Files::new(without_dots(&absolute)));
    }
    let message = format!("no `{PROJECT_FILE}` in `{}`", dir.display());
    let mut problem = Problem::new(Code::PROJECT_NOT_FOUND, message);
    let above = absolute.ancestors().skip(1).find(|parent| parent.join(PROJECT_FILE).is_file());
    if let Some(above) = above {
        problem = problem.hint(format!("there is a project in `{0}`: use `-C {0}`", above.display()));
    }
    report.add(problem.hint("`flowgate init DIR` makes a new project"));
    None
}

/// Fills the variables of `flowgate.yaml` or an environment: all but `vars:` itself, secrets only in connections.
fn fill_project(root: &mut Node, variables: &Variables, report: &mut Report) {
    for entry in root.entries_mut() {
        let secrets = if entry.key == "connections" { Secrets::Allowed } else { Secrets::Refused };
        if entry.key != "vars" {
            variables.fill(&mut entry.value, secrets, report);
        }
    }
}

/// Reads the files of a folder, filled and checked against their definition.
fn read_folder(
    folder: &str,
    block: &'static Block,
    variables: &Variables,
    context: &mut Context<'_>,
) -> Vec<(PathBuf, Node)> {
    let mut read = Vec::new();
    for path in context.files.list_yaml(folder, &mut context.report) {
        let Some(mut root) = context.files.read_yaml(&path, &mut context.report) else { continue };
        variables.fill(&mut root, Secrets::Refused, &mut context.report);
        check_file(&root, block, &mut context.report);
        read.push((path, root));
    }
    read
}

fn read_flows(variables: &Variables, context: &mut Context<'_>) -> Vec<Flow> {
    let mut files: Vec<FlowFile> = Vec::new();
    for (path, root) in read_folder("flows", &FLOW, variables, context) {
        let Some(name) = root.get("flow").and_then(Node::text).and_then(|name| FlowName::new(name).ok()) else {
            continue;
        };
        if let Some(first) = files.iter().find(|file| file.name == name) {
            let message = format!("two flows are called `{name}`");
            context.report.add(twice(&message, root.entry("flow"), first.root.entry("flow")));
        }
        files.push(FlowFile { path, root, name });
    }
    check_after(&files, &mut context.report);
    files.iter().filter_map(|file| read_flow(file, context)).collect()
}

fn read_tables(variables: &Variables, context: &mut Context<'_>) -> Vec<TableSpec> {
    let mut read: Vec<(TableSpec, Node)> = Vec::new();
    for (_, root) in read_folder("tables", &TABLE, variables, context) {
        let Some(table) = read_table(&root, context) else { continue };
        let is_same = |other: &TableSpec| other.table == table.table && other.connection == table.connection;
        if let Some((_, first)) = read.iter().find(|(other, _)| is_same(other)) {
            let message = format!("table `{}` of `{}` is described twice", table.table, table.connection);
            context.report.add(twice(&message, root.entry("table"), first.entry("table")));
            continue;
        }
        read.push((table, root));
    }
    read.into_iter().map(|(table, _)| table).collect()
}

fn twice(message: &str, second: Option<&Entry>, first: Option<&Entry>) -> Problem {
    let mut problem = Problem::new(Code::DUPLICATE_NAME, message);
    if let Some(second) = second {
        problem = problem.at(&second.value.place);
        problem.value = second.value.text().map(str::to_owned);
    }
    if let Some(first) = first {
        problem = problem.also(&first.value.place, "the first");
    }
    problem
}
