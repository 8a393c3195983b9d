//! Which crate may depend on which: the table of ARCHITECTURE.md, held against the manifests.
//!
//! Cargo reads the manifests for us (`cargo metadata --no-deps`), so a dependency counts however it
//! is written: renamed, optional or only on one platform.

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::workspace::{Workspace, output};

/// A crate and the crates of ours it may depend on. `*` stands for all of them.
const EDGES: &[(&str, &[&str])] = &[
    ("flowgate", &["*"]),
    ("engine", &["connect", "sql", "sorted", "store", "core"]),
    ("lake", &["connect", "sql", "sorted", "store", "core"]),
    ("gateway", &["dataverse", "connect", "http", "store", "core"]),
    ("connect", &["dataverse", "http", "core"]),
    ("dataverse", &["http", "core"]),
    ("config", &["core"]),
    ("http", &["core"]),
    ("store", &["core"]),
    ("sql", &["core"]),
    ("sorted", &["core"]),
    ("bench", &["dataverse", "emulator", "http", "core"]),
    ("bench-diff", &["sorted", "core"]),
    ("core", &[]),
    ("emulator", &[]),
    ("faults", &["emulator", "http", "store", "sorted", "core"]),
    ("xtask", &[]),
];

/// What any crate may use in its tests.
const TEST_EDGES: &[&str] = &["emulator"];

/// Crates of others that only some of ours may depend on, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("datafusion", &["sql", "engine", "lake"], "the rest must build without the query engine"),
    ("deltalake", &["lake"], "the rest must build without the query engine"),
    ("reqwest", &["http"], "HTTP clients are built in one place"),
];

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

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let metadata = output(&mut workspace.cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let faults = faults(&metadata.packages);
    if !faults.is_empty() {
        bail!("the layering of ARCHITECTURE.md does not hold:\n  {}", faults.join("\n  "));
    }
    println!("{} crates keep to their layers", metadata.packages.len());
    Ok(())
}

fn faults(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let from = short(&package.name);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            faults.push(format!("`{from}` has no row in the table of layers"));
            continue;
        };
        for dependency in &package.dependencies {
            faults.extend(fault(from, allowed, dependency));
        }
    }
    faults
}

/// What is wrong with one dependency of `from`, if anything.
fn fault(from: &str, allowed: &[&str], dependency: &Dependency) -> Option<String> {
    let is_test = dependency.kind.as_deref() == Some("dev");
    let to = short(&dependency.name);
    if is_ours(&dependency.name) {
        let is_allowed = allowed.contains(&"*") || allowed.contains(&to) || (is_test && TEST_EDGES.contains(&to));
        return (!is_allowed).then(|| format!("`{from}` must not depend on `{to}`"));
    }
    let (_, holders, reason) = CONFINED.iter().find(|(name, ..)| *name == to)?;
    let is_allowed = is_test || holders.contains(&from);
    (!is_allowed).then(|| format!("`{from}` must not depend on `{to}`: {reason}"))
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

    #[test]
    fn an_edge_of_the_table_is_allowed() {
        let engine = package("flowgate-engine", &[("flowgate-sql", None), ("datafusion", None), ("serde", None)]);
        assert_eq!(faults(&[engine]), Vec::<String>::new());
    }

    #[test]
    fn any_other_edge_is_a_fault() {
        let store = package("flowgate-store", &[("flowgate-http", None), ("datafusion", None)]);
        assert_eq!(
            faults(&[store]),
            [
                "`store` must not depend on `http`",
                "`store` must not depend on `datafusion`: the rest must build without the query engine"
            ]
        );
    }

    #[test]
    fn the_emulator_is_for_tests_and_for_the_binary() {
        let tests = package("flowgate-engine", &[("flowgate-emulator", Some("dev"))]);
        assert!(faults(&[tests]).is_empty());
        let program = package("flowgate-engine", &[("flowgate-emulator", None)]);
        assert_eq!(faults(&[program]), ["`engine` must not depend on `emulator`"]);
        assert!(faults(&[package("flowgate", &[("flowgate-emulator", None)])]).is_empty());
    }

    #[test]
    fn a_crate_outside_the_table_is_a_fault() {
        assert_eq!(faults(&[package("flowgate-misc", &[])]), ["`misc` has no row in the table of layers"]);
    }
}
