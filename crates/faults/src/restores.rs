//! The destination goes back in time: restored to an earlier moment, or rid of what was loaded, at each point of a run and
//! after it. Left out: a restore while a request is under way, which nothing notices yet (README). No run is complete while rows are not what they should be: it refuses, and adopting puts all in its place.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Outcome;
use crate::data::Rows;
use crate::place::Bench;
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &[
    "killed, then restored",
    "killed, then deleted",
    "few created",
    "only deleted",
    "only changed",
    "only deactivated",
    "only adopted",
];

const CODES: &[&str] = &["FG0411"];

/// Where a run is killed: from its first request to the swap of its state.
const POINTS: &[&str] =
    &["intent.written", "answer.received", "answer.recorded", "state_file.sync", "manifest.swap", "manifest.swapped"];

const BEFORE: &str = "before";

/// Rows of a run that does little.
const FEW_MAX: u64 = 20;

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = KINDS[case % KINDS.len()];
    let day = random.of_list(&[1, 2, 2]);
    // What an earlier day lost is deactivated from the first on, or not at all.
    bench.begin(if kind == "only deactivated" { 1 } else { day })?;
    let refusals = match kind {
        "killed, then restored" => killed(bench, random, restore)?,
        "killed, then deleted" => {
            let share = random.of_list(&[20, 50, 100]);
            killed(bench, random, |bench| delete(bench, share))?
        }
        "only adopted" => only_adopted(bench, random)?,
        "only deactivated" => {
            bench.set_missing("deactivate")?;
            after_little(bench, kind, random)?
        }
        _ => after_little(bench, kind, random)?,
    };
    Ok(Outcome::of(kind, refusals))
}

fn snapshot(bench: &Bench) -> Result<()> {
    bench.service.control("snapshot", &json!({ "name": BEFORE })).map(drop)
}

fn restore(bench: &Bench) -> Result<()> {
    bench.service.control("restore", &json!({ "name": BEFORE })).map(drop)
}

/// Deletes so many percent of the rows that are there.
fn delete(bench: &Bench, percent: usize) -> Result<()> {
    let page = bench.service.api("GET", "api/data/v9.2/accounts?$select=accountid", &Value::Null)?;
    let ids: Vec<&str> =
        page["value"].as_array().into_iter().flatten().filter_map(|row| row["accountid"].as_str()).collect();
    for (at, id) in ids.iter().enumerate() {
        if at % 100 < percent {
            bench.service.api("DELETE", &format!("api/data/v9.2/accounts({id})"), &Value::Null)?;
        }
    }
    Ok(())
}

/// A run is killed, and the destination loses what it did.
fn killed(bench: &Bench, random: &mut Random, lose: impl Fn(&Bench) -> Result<()>) -> Result<u64> {
    snapshot(bench)?;
    let point = random.of_list(POINTS);
    let nth = if point.starts_with("intent") || point.starts_with("answer") { random.between(2, 5) } else { 1 };
    let ended = bench.run(Some(&format!("{point}:{nth}:kill")))?;
    ensure!(ended.was_killed() || ended.status.code() == Some(0), "neither killed nor complete: {}", ended.said);
    lose(bench)?;
    let refusals = bench.run_guarded(CODES)?;
    ensure!(refusals > 0 || point.starts_with("intent"), "what `{point}` lost was not missed");
    bench.finish_with(&bench.rows())?;
    Ok(refusals)
}

/// A run that did little is undone.
fn after_little(bench: &mut Bench, kind: &str, random: &mut Random) -> Result<u64> {
    bench.complete()?;
    snapshot(bench)?;
    let few = random.between(1, FEW_MAX) as usize;
    let mut rows = bench.rows();
    let mut there = rows.clone();
    let first: Vec<String> = rows.keys().take(few).cloned().collect();
    match kind {
        "few created" => {
            let added =
                (0..few).map(|number| (format!("N-{number:05}"), (format!("New {number}"), "Town".to_owned(), false)));
            rows.extend(added);
            there.clone_from(&rows);
        }
        "only changed" => {
            rows.values_mut().take(few).for_each(|row| row.0 += " again");
            there.clone_from(&rows);
        }
        "only deleted" => {
            rows.retain(|key, _| !first.contains(key));
            there.clone_from(&rows);
        }
        _ => {
            rows.retain(|key, _| !first.contains(key));
            there.iter_mut().filter(|(key, _)| first.contains(key)).for_each(|(_, row)| row.2 = true);
        }
    }
    bench.set_source(&rows)?;
    bench.complete()?;
    bench.compare_with(&there).context("before it was undone")?;
    restore(bench)?;
    let refusals = bench.run_guarded(CODES)?;
    ensure!(refusals > 0, "a run with {few} rows was undone, and nobody noticed");
    finish(bench, &rows, &there)?;
    Ok(refusals)
}

/// `there` has rows beside those of the source where what is gone is deactivated.
fn finish(bench: &Bench, rows: &Rows, there: &Rows) -> Result<()> {
    if rows.len() == there.len() {
        return bench.finish_with(rows);
    }
    bench.compare_with(there)?;
    let again = bench.run(None)?;
    ensure!(again.status.code() == Some(0), "a further run fails: {}", again.said);
    ensure!(again.report["rows"]["unchanged"] == rows.len(), "a further run finds work: {}", again.report["rows"]);
    bench.compare_with(there)
}

/// A run adopts all rows and sends nothing; then they are gone.
fn only_adopted(bench: &Bench, random: &mut Random) -> Result<u64> {
    bench.complete()?;
    fs_err::remove_dir_all(bench.state_dir())?;
    let adopted = bench.run(None)?;
    ensure!(adopted.status.code() == Some(0), "nothing is adopted: {}", adopted.said);
    delete(bench, random.of_list(&[20, 50, 100]))?;
    let refusals = bench.run_guarded(CODES)?;
    ensure!(refusals > 0, "adopted rows are gone, and nobody noticed");
    bench.finish_with(&bench.rows())?;
    Ok(refusals)
}
