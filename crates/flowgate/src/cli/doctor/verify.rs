//! `flowgate doctor --verify CONNECTION`.

use std::path::Path;

use flowgate_core::{Code, Project};
use flowgate_dataverse::{Observations, ProbeOutcome, ProbeResult, Verification, VerifyOptions, VerifyStep, probes};
use serde_json::{Value, json};

use super::Doctor;
use crate::cli::{App, Ended};
use crate::exit::Exit;
use crate::failure::{Failure, connector_problem};
use crate::render::Paint;
use crate::wiring::OpenConnections;

const OUTCOMES: [ProbeOutcome; 4] =
    [ProbeOutcome::Held, ProbeOutcome::Differs, ProbeOutcome::NotPermitted, ProbeOutcome::NotObservable];

pub(super) async fn run(
    doctor: Doctor,
    app: &App,
    project: &Project,
    connections: &OpenConnections,
    connection: &str,
) -> Ended {
    let options = VerifyOptions {
        allow_production: doctor.production,
        with_large: doctor.large,
        expected: doctor.expect.as_deref().map(read).transpose()?,
    };
    let dataverse = connections.open_dataverse(connection).await?;
    let printer = app.printer;
    let tell = move |step: VerifyStep<'_>| match step {
        VerifyStep::Scratch(table) => {
            printer.note(format!("making the scratch table `{table}`; it is removed at the end"));
        }
        VerifyStep::Result(result) => printer.answer(line(result, printer.out)),
        VerifyStep::Removing(table) => printer.note(format!("removing the scratch table `{table}`")),
    };
    let found = dataverse.verify(&options, &app.cancel, &tell).await?;
    // What an interrupted verification saw is true as well.
    let file = doctor.write.unwrap_or_else(|| project.dir.join(format!("{connection}.observed.json")));
    fs_err::write(&file, found.observations().to_text()?)?;
    show(app, &found, &file);
    app.printer.json(&to_json(connection, &found, &file));
    if let Some(error) = &found.left_behind {
        app.printer.report(&Failure::from(connector_problem(error)).report);
        return Ok(Exit::Failed);
    }
    Ok(if found.is_interrupted { Exit::Interrupted } else { Exit::Complete })
}

fn read(path: &Path) -> Result<Observations, Failure> {
    let text = fs_err::read_to_string(path)
        .map_err(|error| Failure::new(Code::MISSING_FILE, format!("`{}` cannot be read: {error}", path.display())))?;
    Ok(Observations::from_text(&text)?)
}

/// One probe; the names stand under each other.
fn line(result: &ProbeResult, paint: Paint) -> String {
    let width = probes().iter().map(|probe| probe.name.len()).max().unwrap_or_default();
    let mark = match result.outcome {
        ProbeOutcome::Held => paint.good("✓"),
        ProbeOutcome::Differs => paint.careful("≠"),
        ProbeOutcome::NotPermitted => paint.bad("✗"),
        ProbeOutcome::NotObservable => paint.faint("?"),
    };
    let expected = match result.outcome {
        ProbeOutcome::Differs => format!("; expected {}", plain(&result.expected)),
        ProbeOutcome::Held | ProbeOutcome::NotPermitted | ProbeOutcome::NotObservable => String::new(),
    };
    format!("{mark} {:<width$}  {}{expected}", result.probe.name, result.seen)
}

fn show(app: &App, found: &Verification, file: &Path) {
    let paint = app.printer.out;
    let counts = OUTCOMES.map(|outcome| format!("{} {}", count(found, outcome), outcome.words()));
    app.printer.answer(format!("\n{}", counts.join(", ")));
    if found.is_interrupted {
        app.printer.answer(paint.careful("stopped before the last probe"));
    }
    if !found.leftovers.is_empty() {
        let tables = found.leftovers.join("`, `");
        let said = format!("left from a verification that was killed, or in use by another: `{tables}`");
        app.printer.answer(paint.careful(said));
    }
    app.printer.answer(format!("written to `{}`: `flowgate emulator --settings` behaves so", file.display()));
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn count(found: &Verification, outcome: ProbeOutcome) -> usize {
    found.results.iter().filter(|result| result.outcome == outcome).count()
}

fn to_json(connection: &str, found: &Verification, file: &Path) -> Value {
    let counts = OUTCOMES.map(|outcome| (outcome.words().replace(' ', "_"), Value::from(count(found, outcome))));
    json!({
        "connection": connection,
        "environment": { "kind": found.environment.kind, "version": found.environment.version },
        "counts": Value::Object(counts.into_iter().collect()),
        "probes": found.results.iter().map(ProbeResult::to_json).collect::<Vec<_>>(),
        "is_interrupted": found.is_interrupted,
        "leftovers": found.leftovers,
        "left_behind": found.left_behind.as_ref().map(ToString::to_string),
        "file": file,
    })
}
