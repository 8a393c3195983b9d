//! `cargo xtask test`: every check and test in order, the cheapest first.
//!
//! A failed step does not stop the others, so that one run names everything that is wrong; only steps
//! that need the binary are given up with it. Everything is built in one profile (dev). The last line
//! is `N passed, M failed`: the tests, and each other step as one.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::count::{self, Count};
use crate::workspace::{Workspace, run, succeeds, tee};
use crate::{changelog, generate, layering, needs};

struct Step {
    name: &'static str,
    needs_binary: bool,
    run: fn(&Workspace) -> Result<Count>,
}

const STEPS: &[Step] = &[
    Step { name: "format", needs_binary: false, run: |workspace| cargo(workspace, &["fmt", "--all", "--check"]) },
    Step { name: "layering", needs_binary: false, run: |workspace| one(layering::check(workspace)) },
    Step { name: "changelog fragments", needs_binary: false, run: |workspace| one(changelog::check(workspace)) },
    Step { name: "known answers of the example", needs_binary: false, run: known_answers },
    Step { name: "lints", needs_binary: false, run: lints },
    Step { name: "the binary", needs_binary: false, run: |workspace| one(workspace.build_binary()) },
    Step { name: "generated files", needs_binary: true, run: |workspace| one(generate::check(workspace)) },
    Step { name: "examples", needs_binary: true, run: examples },
    Step { name: "unit and integration tests", needs_binary: false, run: tests },
    Step { name: "real clients of the emulator", needs_binary: false, run: clients },
    Step { name: "tests in the documentation", needs_binary: false, run: documentation_tests },
    Step { name: "documentation", needs_binary: false, run: documentation },
    Step { name: "the quick fault tier", needs_binary: true, run: quick_faults },
    Step { name: "the demo, end to end", needs_binary: true, run: demo },
];

/// The step whose failure makes steps that need the binary pointless.
const BINARY: &str = "the binary";
const EXAMPLES: &[&str] = &["examples/roads-agency"];

pub(crate) fn test(workspace: &Workspace, may_install: bool) -> Result<ExitCode> {
    needs::provide(workspace, may_install)?;
    let mut total = Count::default();
    let mut failures = Vec::new();
    for step in STEPS {
        println!("\n== {} ==", step.name);
        let outcome = if step.needs_binary && failures.contains(&BINARY) {
            Err(anyhow::anyhow!("not run: the binary was not built"))
        } else {
            (step.run)(workspace)
        };
        let count = outcome.unwrap_or_else(|error| {
            println!("error: {error:#}");
            Count { passed: 0, failed: 1 }
        });
        if count.failed > 0 {
            failures.push(step.name);
        }
        total += count;
    }
    println!();
    if !failures.is_empty() {
        println!("failed: {}", failures.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A step that passes or fails as a whole.
fn one(result: Result<()>) -> Result<Count> {
    result.map(|()| Count { passed: 1, failed: 0 })
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Count> {
    one(run(&mut workspace.cargo(arguments)))
}

fn lints(workspace: &Workspace) -> Result<Count> {
    cargo(workspace, &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn known_answers(workspace: &Workspace) -> Result<Count> {
    one(run(&mut workspace.command("python3", &["examples/roads-agency/known_answers.py", "--check"])))
}

fn examples(workspace: &Workspace) -> Result<Count> {
    let mut count = Count::default();
    for example in EXAMPLES {
        run(&mut workspace.command(workspace.binary(), &["check", "-C", example]))?;
        count.passed += 1;
    }
    Ok(count)
}

/// The suites of every crate. Those that need a server start one of their own.
fn tests(workspace: &Workspace) -> Result<Count> {
    let has_nextest = succeeds(&mut workspace.cargo(&["nextest", "--version"]));
    counted(if has_nextest {
        workspace.cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"])
    } else {
        workspace.cargo(&["test", "--locked", "--workspace", "--all-targets", "--no-fail-fast"])
    })
}

/// Microsoft's and other people's clients, installed into a private folder, against the emulator.
fn clients(workspace: &Workspace) -> Result<Count> {
    run(&mut workspace.cargo(&["build", "--locked", "--package", "flowgate-emulator"]))?;
    let emulator = workspace.built("flowgate-emulator").display().to_string();
    let folder = workspace.target().join("clients").display().to_string();
    let script = "crates/emulator/tests/clients/run.py";
    counted(workspace.command("python3", &[script, "--emulator", &emulator, "--folder", &folder]))
}

fn documentation_tests(workspace: &Workspace) -> Result<Count> {
    counted(workspace.cargo(&["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]))
}

fn documentation(workspace: &Workspace) -> Result<Count> {
    let mut command = workspace.cargo(&["doc", "--locked", "--workspace", "--no-deps"]);
    one(run(command.env("RUSTDOCFLAGS", "-D warnings")))
}

/// The demo holds every equation and compares what arrived with the known answers.
fn demo(workspace: &Workspace) -> Result<Count> {
    one(run(&mut workspace.command(workspace.binary(), &["demo"])))
}

fn quick_faults(workspace: &Workspace) -> Result<Count> {
    counted(fault_command(workspace, "pr", &[]))
}

/// `cargo xtask faults`.
pub(crate) fn faults(workspace: &Workspace, tier: &str, more: &[String]) -> Result<ExitCode> {
    workspace.build_binary()?;
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let status = fault_command(workspace, tier, &more).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program that breaks the binary; both are of the dev profile, which has failpoints.
fn fault_command(workspace: &Workspace, tier: &str, more: &[&str]) -> Command {
    let binary = workspace.binary();
    let program = binary.with_file_name("flowgate-faults");
    let mut command = workspace.command(program, &["--tier", tier]);
    command.arg("--flowgate").arg(binary).args(more);
    command
}

/// Runs a test command and adds up its summaries.
fn counted(mut command: Command) -> Result<Count> {
    command.env("CARGO_TERM_COLOR", "never");
    let (has_succeeded, lines) = tee(command)?;
    let Some(mut count) = count::of_lines(lines.iter().map(String::as_str)) else {
        bail!("no test ran");
    };
    if !has_succeeded && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}
