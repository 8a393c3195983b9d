//! What the tests need on the machine, and how it is installed on Debian and Ubuntu.
//!
//! Without leave to install, what is missing is named and the tests do not begin: a suite that
//! could not run is a failure, never a skip.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, output, run, succeeds};

struct Need {
    name: &'static str,
    why: &'static str,
    is_there: fn(&Workspace) -> bool,
    from: Origin,
}

#[derive(Clone, Copy)]
enum Origin {
    /// A package of Debian and Ubuntu.
    Apt(&'static str),
    /// A component of the toolchain in use.
    Rustup(&'static str),
}

const NEEDS: &[Need] = &[
    Need {
        name: "rustfmt",
        why: "the format check",
        is_there: |workspace| succeeds(&mut workspace.cargo(&["fmt", "--version"])),
        from: Origin::Rustup("rustfmt"),
    },
    Need {
        name: "clippy",
        why: "the lints",
        is_there: |workspace| succeeds(&mut workspace.cargo(&["clippy", "--version"])),
        from: Origin::Rustup("clippy"),
    },
    Need {
        name: "a PostgreSQL server",
        why: "the tests of the `postgres` connector",
        is_there: |_| has_postgres(),
        from: Origin::Apt("postgresql"),
    },
    Need {
        name: "python3",
        why: "the answers that are worked out without Flowgate",
        is_there: |workspace| succeeds(&mut workspace.command("python3", &["--version"])),
        from: Origin::Apt("python3"),
    },
    Need {
        name: "virtual environments for python3",
        why: "real clients of the emulator",
        is_there: |workspace| succeeds(&mut workspace.command("python3", &["-c", "import ensurepip, venv"])),
        from: Origin::Apt("python3-venv"),
    },
    Need {
        name: "node, 18 or newer",
        why: "real clients of the emulator",
        is_there: |workspace| {
            let is_new = "process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)";
            succeeds(&mut workspace.command("node", &["-e", is_new]))
        },
        from: Origin::Apt("nodejs"),
    },
    Need {
        name: "npm",
        why: "real clients of the emulator",
        is_there: |workspace| succeeds(&mut workspace.command("npm", &["--version"])),
        from: Origin::Apt("npm"),
    },
];

/// Makes sure that everything is there.
pub(crate) fn provide(workspace: &Workspace, may_install: bool) -> Result<()> {
    let missing = missing(workspace);
    if missing.is_empty() {
        return Ok(());
    }
    if !may_install {
        bail!("missing:{}\nrun `cargo xtask test --install` to install it", list(&missing));
    }
    install(workspace, &missing)?;
    let missing = self::missing(workspace);
    if !missing.is_empty() {
        bail!("still missing after the installation:{}", list(&missing));
    }
    Ok(())
}

fn missing(workspace: &Workspace) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.is_there)(workspace)).collect()
}

fn list(needs: &[&Need]) -> String {
    let line = |need: &&Need| format!("\n  {}, for {} ({})", need.name, need.why, need.from.describe());
    needs.iter().map(line).collect()
}

fn install(workspace: &Workspace, needs: &[&Need]) -> Result<()> {
    let mut packages = Vec::new();
    for need in needs {
        match need.from {
            Origin::Apt(package) => packages.push(package),
            Origin::Rustup(component) => {
                say(&format!("rustup component add {component}"));
                run(&mut workspace.command("rustup", &["component", "add", component]))?;
            }
        }
    }
    if packages.is_empty() { Ok(()) } else { apt_install(workspace, &packages) }
}

fn apt_install(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    if !succeeds(&mut workspace.command("apt-get", &["--version"])) {
        bail!("only Debian and Ubuntu are known here: install {} yourself", packages.join(", "));
    }
    let names = packages.join(" ");
    say(&format!("apt-get update, apt-get install {names}"));
    let lists_are_fresh = succeeds(&mut as_root(workspace, &["apt-get", "update", "-q"])?);
    if !lists_are_fresh {
        say("the package lists could not be updated; trying with those that are there");
    }
    let mut arguments = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"];
    arguments.push("--no-install-recommends");
    arguments.extend(packages);
    run(&mut as_root(workspace, &arguments)?).with_context(|| format!("cannot install {names}"))
}

/// A command with the rights to install packages.
fn as_root(workspace: &Workspace, arguments: &[&str]) -> Result<Command> {
    let (program, rest) = arguments.split_first().context("a command has a program")?;
    if is_root(workspace)? {
        return Ok(workspace.command(program, rest));
    }
    let mut command = workspace.command("sudo", &["-n"]);
    command.arg(program).args(rest);
    Ok(command)
}

fn is_root(workspace: &Workspace) -> Result<bool> {
    Ok(output(&mut workspace.command("id", &["-u"]))?.trim() == "0")
}

/// Whether one directory holds both programs of a server. Debian keeps them outside the search path.
fn has_postgres() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    dirs.iter().any(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
}

fn say(text: &str) {
    println!("install: {text}");
}

impl Origin {
    fn describe(self) -> String {
        match self {
            Self::Apt(package) => format!("package `{package}`"),
            Self::Rustup(component) => format!("`rustup component add {component}`"),
        }
    }
}
