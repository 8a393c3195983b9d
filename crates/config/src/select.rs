//! The SELECT of a load: a `.sql` file beside the flow, or the text itself.
//!
//! SQL is not parsed here; only that there is some is checked.

use std::path::Path;

use flowgate_core::Code;
use flowgate_core::nearest::nearest;
use flowgate_core::project::Sql;

use crate::context::Context;
use crate::files::{Unread, without_dots};
use crate::node::Node;
use crate::report::Problem;

pub(crate) fn read_select(node: &Node, flow_path: &Path, context: &mut Context<'_>) -> Option<Sql> {
    let text = node.text()?;
    if is_file_name(text) {
        return read_file(node, text, flow_path, context);
    }
    if !begins_like_select(text) {
        let problem = Problem::new(Code::WRONG_TYPE, "`select` is neither a `.sql` file nor a SELECT");
        let hint = "write `select: name.sql`, or the SELECT itself after `select: |`";
        context.report.add(problem.at(&node.place).value(text).hint(hint));
        return None;
    }
    Some(Sql { path: flow_path.to_owned(), text: text.to_owned(), line_offset: lines_before(node, text) })
}

fn is_file_name(text: &str) -> bool {
    let is_sql = Path::new(text).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"));
    is_sql && !text.contains(['\n', '(', ';'])
}

fn begins_like_select(text: &str) -> bool {
    let code = text.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with("--"));
    let code = code.unwrap_or_default().trim_start().to_lowercase();
    // A block comment may stand before anything.
    ["select", "with", "(", "/*"].iter().any(|start| code.starts_with(start))
}

/// Lines of the YAML file before the first line of the SELECT. The place of a block text is its
/// first line that is not empty, while the text begins with the empty ones.
fn lines_before(node: &Node, text: &str) -> usize {
    let empty_lines = text.chars().take_while(|c| *c == '\n').count();
    (node.place.line() - 1).saturating_sub(empty_lines)
}

fn read_file(node: &Node, name: &str, flow_path: &Path, context: &mut Context<'_>) -> Option<Sql> {
    let folder = flow_path.parent().unwrap_or(Path::new(""));
    let path = without_dots(&folder.join(name));
    match context.files.read_text(&path) {
        Ok(file) if file.text().trim().is_empty() => {
            let problem = Problem::new(Code::SQL_NOT_A_SELECT, format!("`{}` is empty", file.name()));
            context.report.add(problem.at(&node.place).value(name));
            None
        }
        Ok(file) => {
            let text = file.text().trim_start_matches('\u{feff}').to_owned();
            Some(Sql { path, text, line_offset: 0 })
        }
        Err(Unread::Problem(problem)) => {
            context.report.add(*problem);
            None
        }
        Err(Unread::Absent) => {
            let message = format!("there is no `{}`", context.files.name_of(&path));
            let problem = Problem::new(Code::MISSING_FILE, message).at(&node.place).value(name);
            let known = sql_files(folder);
            let problem = problem.nearest(nearest(name, known.iter().map(String::as_str)));
            context.report.add(problem.hint("a `.sql` file is named relative to its flow's folder"));
            None
        }
    }
}

/// The names of the SQL files beside a flow, for a suggestion; none when the folder cannot be read.
fn sql_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| is_file_name(name)).collect()
}
