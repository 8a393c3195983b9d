//! `flowgate demo`: four days of the roads agency, end to end, with every outcome checked.
//!
//! The example is copied, so that a clone stays clean, and loaded into an emulator with the frozen
//! `realistic` profile. Day 1 loads everything, days 2 and 3 bring the asset register's later
//! exports, day 4 changes nothing. What must come out was worked out without Flowgate
//! (`known_answers.json`); what did come out is read back by a separate client ([`read_back`]).
//!
//! Figures in the emulator's seconds are called `service_s`, those of this machine `local_s`.

mod comparison;
mod day;
mod known;
mod outcome;
mod place;
mod read_back;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flowgate_core::ConnectionName;
use serde_json::json;

use crate::cli::{App, Ended, provision};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::number::{counted, of_seconds};
use crate::wiring::Wiring;

use comparison::Comparison;
use day::Day;
use known::Known;
use outcome::Checks;
use place::Place;
use read_back::ReadBack;

/// The example's connection to Dataverse.
const CONNECTION: &str = "crm";
const DAYS: u8 = 4;

/// How fast the emulator's clock runs. Small enough that its own speed, in a dev build on two cores,
/// stays above what the profile lets through: else the machine would be measured, not the model.
const TIME_SCALE: f64 = 4.0;

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the project here, with its state and the emulator's rows
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How many simulated seconds pass in a real one
    #[arg(long, value_name = "K", default_value_t = TIME_SCALE, value_parser = flowgate_emulator::command::at_least_one)]
    time_scale: f64,
}

/// What the whole demo made.
struct Made {
    days: Vec<Day>,
    checks: Checks,
    comparison: Comparison,
}

impl Demo {
    pub(crate) async fn run(self, app: &App) -> Ended {
        let started = app.clock.elapsed();
        let place = Place::prepare(self.keep.as_deref(), self.time_scale)?;
        let paint = app.printer.out;
        app.printer.answer(format!(
            "{}\n  the example `roads-agency`, copied to {}\n  {}",
            paint.strong("four days of a roads agency"),
            place.dir().display(),
            paint.faint(format!(
                "emulator with the profile `realistic`; its clock runs {} times as fast: service_s are its seconds, \
                 local_s are yours",
                self.time_scale
            )),
        ));
        let made = self.make(app, &place).await?;
        let local_s = app.clock.elapsed().since(started).as_secs_f64();
        app.printer.answer(made.checks.verdict(local_s, paint));
        app.printer.json(&json!({
            "demo": "roads-agency",
            "time_scale": self.time_scale,
            "days": made.days.iter().map(Day::to_json).collect::<Vec<_>>(),
            "comparison": made.comparison.to_json(),
            "checks": made.checks.to_json(),
            "ok": made.checks.hold(),
            "seconds": { "local_s": local_s },
            "dir": self.keep,
        }));
        Ok(if made.checks.hold() { Exit::Complete } else { Exit::Failed })
    }

    async fn make(&self, app: &App, place: &Place) -> Result<Made, Failure> {
        let project = place.load()?;
        let known = Known::read(place.dir())?;
        let wiring = Wiring::new(project, Arc::clone(&app.clock))?;
        let emulation = wiring.connections.emulation(CONNECTION).await?;
        let emulation = emulation.ok_or_else(|| Failure::from(place::not_the_example(CONNECTION)))?;
        let read_back = ReadBack::of(&emulation.ready)?;
        provision_all(app, &wiring).await?;
        let mut checks = Checks::default();
        let mut days = Vec::new();
        for number in 1..=DAYS {
            place.put_register_of(number)?;
            let day = day::run(app, &wiring, number, &read_back, &mut checks, &known).await?;
            app.printer.answer(day.text(app.printer.out));
            app.printer.answer(checks.news(app.printer.out));
            let is_over = day.exit != Exit::Complete;
            days.push(day);
            if is_over {
                break;
            }
        }
        known.check_sources(&days, &mut checks);
        app.printer.answer(format!("\n{}", app.printer.out.strong("the sources, counted without Flowgate")));
        app.printer.answer(checks.news(app.printer.out));
        let comparison = self.compare(app, &wiring, &read_back, &days, &mut checks).await?;
        app.printer.answer(comparison.text(app.printer.out));
        app.printer.answer(checks.news(app.printer.out));
        Ok(Made { days, checks, comparison })
    }

    /// Loads samples row by row into an emulator of their own, whose clock is not scaled.
    async fn compare(
        &self,
        app: &App,
        wiring: &Wiring,
        read_back: &ReadBack,
        days: &[Day],
        checks: &mut Checks,
    ) -> Result<Comparison, Failure> {
        let mut comparison = Comparison::of_bulk(days, self.time_scale);
        let samples = read_back.assets(comparison::SAMPLE_ROWS_MAX).await?;
        comparison.measure(app, &wiring.project, samples).await?;
        comparison.check(checks);
        Ok(comparison)
    }
}

async fn provision_all(app: &App, wiring: &Wiring) -> Result<(), Failure> {
    let started = app.clock.elapsed();
    let missing = provision::find_missing(&wiring.project, &wiring.connections).await?;
    let mut created = 0;
    for missing in &missing {
        provision::create(missing, &|_| ()).await?;
        created += missing.steps.len() as u64;
    }
    let seconds = of_seconds(app.clock.elapsed().since(started).as_secs_f64());
    let text = format!("{} created, of tables, columns and keys", counted(created, "part"));
    app.printer.answer(format!(
        "\n{}  {text}  {}",
        app.printer.out.strong("provision"),
        app.printer.out.faint(seconds)
    ));
    Ok(())
}

/// The example's connection as a name.
fn connection_name(name: &str) -> Result<ConnectionName, Failure> {
    ConnectionName::new(name).map_err(|error| Failure::new(flowgate_core::Code::INTERNAL, error.to_string()))
}
