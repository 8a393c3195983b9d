//! Which crate may depend on which: the block under "Layers" in ARCHITECTURE.md, held against the manifests.
//!
//! The block is exact: an edge it lacks is a fault, and so is one that no manifest has. Cargo reads the
//! manifests for us (`cargo metadata --no-deps`), so a dependency counts however it is written: renamed,
//! optional or only on one platform.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::{Workspace, output};

/// What any crate may use in its tests.
const TEST_EDGES: &[&str] = &["emulator", "http"];

/// Crates of others that only some of ours may depend on, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("datafusion", &["sql"], "the rest must build without the query engine"),
    ("reqwest", &["http"], "HTTP clients are built in one place"),
];

/// A crate of ours, and those of ours that it depends on outside its tests.
struct Layer {
    name: String,
    below: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

impl Dependency {
    fn is_test(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let layers = layers(&fs_err::read_to_string(workspace.path("ARCHITECTURE.md"))?)?;
    let metadata = output(&mut workspace.cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let mut faults = faults(&layers, &metadata.packages);
    faults.extend(unused(&layers, &metadata.packages));
    if !faults.is_empty() {
        bail!("the layers of ARCHITECTURE.md do not hold:\n  {}", faults.join("\n  "));
    }
    println!("{} crates keep to their layers", metadata.packages.len());
    Ok(())
}

/// Reads the block: lines of `crates  ->  crates below them`.
fn layers(document: &str) -> Result<Vec<Layer>> {
    let section = document.split_once("\n## Layers\n").context("ARCHITECTURE.md has no section \"Layers\"")?.1;
    let block = section.split("```").nth(1).context("the section \"Layers\" has no block")?;
    let mut layers = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (names, below) = line.split_once("->").with_context(|| format!("`{line}` has no `->`"))?;
        let below = if below.trim() == "nothing of ours" { Vec::new() } else { words(below) };
        layers.extend(words(names).into_iter().map(|name| Layer { name, below: below.clone() }));
    }
    Ok(layers)
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(|word| word.trim().to_owned()).collect()
}

/// Dependencies that are not allowed.
fn faults(layers: &[Layer], packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let from = short(&package.name);
        let Some(layer) = layers.iter().find(|layer| layer.name == from) else {
            faults.push(format!("`{from}` is in no line"));
            continue;
        };
        for dependency in &package.dependencies {
            faults.extend(fault(layer, dependency));
        }
    }
    faults
}

/// What is wrong with one dependency of a crate, if anything.
fn fault(layer: &Layer, dependency: &Dependency) -> Option<String> {
    let from = &*layer.name;
    let to = short(&dependency.name);
    if is_ours(&dependency.name) {
        let is_allowed =
            layer.below.iter().any(|name| name == to) || (dependency.is_test() && TEST_EDGES.contains(&to));
        return (!is_allowed).then(|| format!("`{from}` must not depend on `{to}`"));
    }
    let (_, holders, reason) = CONFINED.iter().find(|(name, ..)| *name == to)?;
    let is_allowed = dependency.is_test() || holders.contains(&from);
    (!is_allowed).then(|| format!("`{from}` must not depend on `{to}`: {reason}"))
}

/// Crates and dependencies that are allowed and not there.
fn unused(layers: &[Layer], packages: &[Package]) -> Vec<String> {
    let mut unused = Vec::new();
    for layer in layers {
        let Some(package) = packages.iter().find(|package| short(&package.name) == layer.name) else {
            unused.push(format!("there is no crate `{}`", layer.name));
            continue;
        };
        for to in &layer.below {
            let is_used = package.dependencies.iter().any(|found| !found.is_test() && short(&found.name) == *to);
            if !is_used {
                unused.push(format!("`{}` does not depend on `{to}`", layer.name));
            }
        }
    }
    unused
}

fn is_ours(package: &str) -> bool {
    package == "flowgate" || package.starts_with("flowgate-")
}

fn short(package: &str) -> &str {
    package.strip_prefix("flowgate-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        Package { name: name.to_owned(), dependencies }
    }

    fn some_layers() -> Vec<Layer> {
        let block = "flowgate     ->  sql, emulator\nsql, store  ->  core\ncore, emulator  ->  nothing of ours\n";
        layers(&format!("# Architecture\n\n## Layers\n\nWho may.\n\n```\n{block}```\n\nMore.\n")).unwrap()
    }

    #[test]
    fn a_line_is_about_each_crate_before_its_arrow() {
        let lines: Vec<_> = some_layers().iter().map(|layer| format!("{} {:?}", layer.name, layer.below)).collect();
        let expected =
            [r#"flowgate ["sql", "emulator"]"#, r#"sql ["core"]"#, r#"store ["core"]"#, "core []", "emulator []"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_edge_of_the_block_is_allowed() {
        let sql = package("flowgate-sql", &[("flowgate-core", None), ("datafusion", None), ("serde", None)]);
        assert_eq!(faults(&some_layers(), &[sql]), Vec::<String>::new());
    }

    #[test]
    fn any_other_edge_is_a_fault() {
        let store = package("flowgate-store", &[("flowgate-sql", None), ("datafusion", None)]);
        assert_eq!(
            faults(&some_layers(), &[store]),
            [
                "`store` must not depend on `sql`",
                "`store` must not depend on `datafusion`: the rest must build without the query engine"
            ]
        );
    }

    #[test]
    fn the_emulator_is_for_tests_and_for_the_binary() {
        let tests = package("flowgate-sql", &[("flowgate-emulator", Some("dev"))]);
        assert!(faults(&some_layers(), &[tests]).is_empty());
        let program = package("flowgate-sql", &[("flowgate-emulator", None)]);
        assert_eq!(faults(&some_layers(), &[program]), ["`sql` must not depend on `emulator`"]);
        assert!(faults(&some_layers(), &[package("flowgate", &[("flowgate-emulator", None)])]).is_empty());
    }

    #[test]
    fn a_crate_without_a_line_is_a_fault() {
        assert_eq!(faults(&some_layers(), &[package("flowgate-misc", &[])]), ["`misc` is in no line"]);
    }

    #[test]
    fn what_is_allowed_and_not_there_is_a_fault() {
        let packages = [
            package("flowgate", &[("flowgate-sql", None), ("flowgate-emulator", Some("dev"))]),
            package("flowgate-sql", &[("flowgate-core", None)]),
            package("flowgate-core", &[]),
            package("flowgate-emulator", &[]),
        ];
        assert_eq!(
            unused(&some_layers(), &packages),
            ["`flowgate` does not depend on `emulator`", "there is no crate `store`"]
        );
    }
}
