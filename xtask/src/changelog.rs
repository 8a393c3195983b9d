//! Changelog fragments: one file for each change that a user notices, folded into a release.
//!
//! A fragment is `changelog.d/<name>.<kind>.md`: one or more lines in the user's words. A release puts
//! them under its heading in CHANGELOG.md, by kind and then by name, and removes the files.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

const DIRECTORY: &str = "changelog.d";
const CHANGELOG: &str = "CHANGELOG.md";
/// The end of a file name, and the heading in the changelog.
const KINDS: &[(&str, &str)] =
    &[("added", "Added"), ("changed", "Changed"), ("fixed", "Fixed"), ("removed", "Removed"), ("security", "Security")];

struct Fragment {
    path: PathBuf,
    kind: usize,
    text: String,
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    println!("{} changelog fragments are well formed", read(workspace)?.len());
    Ok(())
}

pub(crate) fn release(workspace: &Workspace, version: &str, date: &str) -> Result<()> {
    let fragments = read(workspace)?;
    if fragments.is_empty() {
        bail!("{DIRECTORY} holds no fragment: there is nothing to release");
    }
    let path = workspace.path(CHANGELOG);
    let changelog = insert(&fs_err::read_to_string(&path)?, &section(version, date, &fragments))?;
    fs_err::write(path, changelog)?;
    for fragment in &fragments {
        fs_err::remove_file(&fragment.path)?;
    }
    println!("{} fragments are now release {version}", fragments.len());
    Ok(())
}

/// All fragments, by kind and name.
fn read(workspace: &Workspace) -> Result<Vec<Fragment>> {
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(workspace.path(DIRECTORY))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let mut fragments = Vec::new();
    for path in paths.into_iter().filter(|path| path.file_name().is_some_and(|name| name != "README.md")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = kind_of(&name)?;
        let text = fs_err::read_to_string(&path)?.trim().to_owned();
        if text.is_empty() {
            bail!("`{DIRECTORY}/{name}` is empty");
        }
        fragments.push(Fragment { path, kind, text });
    }
    fragments.sort_by_key(|fragment| fragment.kind);
    Ok(fragments)
}

fn kind_of(name: &str) -> Result<usize> {
    let kind = name.strip_suffix(".md").and_then(|stem| stem.rsplit_once('.')).map(|(_, kind)| kind);
    let known = kind.and_then(|kind| KINDS.iter().position(|(word, _)| *word == kind));
    known.with_context(|| {
        format!("`{DIRECTORY}/{name}` is not named `<name>.<kind>.md` with one of the kinds of its README")
    })
}

fn section(version: &str, date: &str, fragments: &[Fragment]) -> String {
    let mut text = format!("## {version} ({date})\n");
    for (kind, (_, heading)) in KINDS.iter().enumerate() {
        let mut of_kind = fragments.iter().filter(|fragment| fragment.kind == kind).peekable();
        if of_kind.peek().is_some() {
            text += &format!("\n### {heading}\n\n");
        }
        for fragment in of_kind {
            text += &format!("* {}\n", fragment.text.replace('\n', "\n  "));
        }
    }
    text
}

/// Puts a section above the newest release, or at the end of a changelog without one.
fn insert(changelog: &str, section: &str) -> Result<String> {
    if !changelog.starts_with("# ") {
        bail!("{CHANGELOG} does not begin with its title");
    }
    let at = changelog.find("\n## ").map_or(changelog.len(), |newline| newline + 1);
    let (before, after) = changelog.split_at(at);
    let gap = if after.is_empty() { "" } else { "\n" };
    Ok(format!("{}\n\n{section}{gap}{after}", before.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(kind: usize, text: &str) -> Fragment {
        Fragment { path: PathBuf::new(), kind, text: text.to_owned() }
    }

    #[test]
    fn a_release_stands_above_the_older_ones() {
        let section = section("0.2.0", "2026-12-01", &[fragment(0, "A thing\nof two lines."), fragment(2, "A fault.")]);
        let changelog = insert("# Changelog\n\nWords.\n\n## 0.1.0 (2026-11-01)\n", &section).unwrap();
        assert_eq!(
            changelog,
            "# Changelog\n\nWords.\n\n## 0.2.0 (2026-12-01)\n\n### Added\n\n* A thing\n  of two lines.\n\n\
             ### Fixed\n\n* A fault.\n\n## 0.1.0 (2026-11-01)\n"
        );
    }

    #[test]
    fn a_fragment_names_its_kind() {
        assert_eq!(kind_of("sqlite-source.added.md").unwrap(), 0);
        for bad in ["notes.md", "x.improved.md", "x.added.txt"] {
            assert!(kind_of(bad).is_err(), "{bad}");
        }
    }
}
