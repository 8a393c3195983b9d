//! Chooses the environment: `environments/NAME.yaml`, by name or because there is no other choice.
//!
//! Without a name it is `local` if that file is there or none is at all, and the only one there is
//! otherwise. Several without a `local` are never guessed between. What an environment says wins over the project.

use std::collections::BTreeMap;

use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::project::{Flow, TableSpec};
use flowgate_core::{Code, EnvironmentName, FlowName};

use crate::files::Files;
use crate::node::{Data, Node};
use crate::report::{Problem, Report};

/// The environment of a project that has no files for environments.
const LOCAL: &str = "local";
const FOLDER: &str = "environments";

pub(crate) struct Chosen {
    pub(crate) name: EnvironmentName,
    /// Where its variables belong, whether or not the file exists.
    pub(crate) file_name: String,
    pub(crate) root: Option<Node>,
}

pub(crate) fn choose(files: &mut Files, wanted: Option<&str>, report: &mut Report) -> Option<Chosen> {
    let paths = files.list_yaml(FOLDER, report);
    let stem = |path: &std::path::PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let known: Vec<String> = paths.iter().filter_map(stem).collect();
    let text = match (wanted, known.as_slice()) {
        (Some(wanted), _) => wanted,
        (None, []) => LOCAL,
        (None, known) if known.iter().any(|name| name == LOCAL) => LOCAL,
        (None, [only]) => only,
        (None, _) => {
            let problem = Problem::new(Code::USAGE, "the project has several environments and none is chosen");
            let hint = format!("choose with `--env NAME`: {}", quoted_list(known.iter().map(String::as_str)));
            report.add(problem.hint(hint).hint("an environment called `local` is taken by itself"));
            return None;
        }
    };
    let name = match EnvironmentName::new(text) {
        Ok(name) => name,
        Err(error) => {
            report.add(Problem::new(Code::USAGE, error.to_string()).value(text));
            return None;
        }
    };
    let is_known = known.iter().any(|known| known == text);
    let needs_no_file = known.is_empty() && text == LOCAL;
    if !is_known && !needs_no_file {
        report.add(unknown(text, &known));
        return None;
    }
    let file_name = if is_known { format!("{FOLDER}/{text}.yaml") } else { crate::PROJECT_FILE.to_owned() };
    let path = files.dir().join(&file_name);
    let root = if is_known { files.read_yaml(&path, report) } else { None };
    Some(Chosen { name, file_name, root })
}

/// Removes the project's connections that the environment has of its own, with all they refer to: the variables of
/// the one need not exist where the other is used.
pub(crate) fn take_place_of_connections(environment: &Node, project: &mut Node) {
    let Some(own) = environment.get("connections") else { return };
    if let Some(shared) = project.get_mut("connections")
        && let Data::Map(entries) = &mut shared.data
    {
        entries.retain(|entry| own.entry(&entry.key).is_none());
    }
}

/// A connection that only the environment has, and that nothing names, is most likely a name that was misspelt: what
/// was meant to take the place of the project's would silently not do so.
pub(crate) fn refuse_unused_connections(
    environment: &Node,
    shared: &[String],
    flows: &BTreeMap<FlowName, Flow>,
    tables: &[TableSpec],
    report: &mut Report,
) {
    let is_used = |name: &str| {
        let mut streams = flows.values().flat_map(|flow| flow.streams.values());
        let mut loads = flows.values().flat_map(|flow| &flow.loads);
        streams.any(|stream| stream.from.as_str() == name)
            || loads.any(|load| load.into.as_str() == name)
            || tables.iter().any(|table| table.connection.as_str() == name)
    };
    for entry in environment.get("connections").map_or(&[][..], Node::entries) {
        if shared.contains(&entry.key) || is_used(&entry.key) {
            continue;
        }
        let message = format!("connection `{}` takes the place of none of the project, and nothing uses it", entry.key);
        let names = shared.iter().map(String::as_str);
        let problem = Problem::new(Code::UNKNOWN_REFERENCE, message).at(&entry.key_place).value(&entry.key);
        let problem = problem.nearest(nearest(&entry.key, names.clone()));
        report.add(problem.hint(format!("connections of the project: {}", quoted_list(names))));
    }
}

fn unknown(text: &str, known: &[String]) -> Problem {
    let problem = Problem::new(Code::UNKNOWN_REFERENCE, format!("there is no environment `{text}`")).value(text);
    let names = known.iter().map(String::as_str);
    let problem = problem.nearest(nearest(text, names.clone()));
    if known.is_empty() {
        return problem.hint(format!("the project has none: create `{FOLDER}/{text}.yaml`, or leave `--env` out"));
    }
    problem.hint(format!("environments: {}", quoted_list(names)))
}
