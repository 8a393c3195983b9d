//! The destination's table is changed by someone else, between two runs or in the middle of one.
//!
//! What still fits is loaded, what does not is told: by letters where it is about rows, by an error where it is about
//! the load. When the table is as it was, or the load follows it, every row is where it belongs.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Outcome;
use crate::place::{Bench, FLOW_NAME, ended};
use crate::random::Random;

const TABLE: &str = "api/data/v9.2/EntityDefinitions(LogicalName='account')";

/// Loads two further columns.
const SELECT: &str = "SELECT code AS accountnumber, name, city AS address1_city, status, \
                      name AS wr_note, CASE WHEN status = 'Open' THEN 'North' ELSE 'South' END AS wr_band FROM office";

/// A change of the table, the change that takes it back, and how a run that meets it may end.
struct Change {
    name: &'static str,
    make: fn(&Bench) -> Result<()>,
    unmake: fn(&Bench) -> Result<()>,
    exits: &'static [i32],
    /// One of these codes is told by a run that is not complete.
    codes: &'static [&'static str],
}

const CHANGES: &[Change] = &[
    Change {
        name: "column added",
        make: |bench| add_note(bench, "wr_Other"),
        unmake: |_| Ok(()),
        exits: &[0],
        codes: &[],
    },
    Change {
        name: "column dropped",
        make: |bench| bench.service.api("DELETE", &note(), &Value::Null).map(drop),
        unmake: |bench| bench.set_select(None),
        exits: &[1],
        codes: &["FG03"],
    },
    Change {
        name: "column shortened",
        make: |bench| set_length(bench, 8),
        unmake: |bench| set_length(bench, 100),
        exits: &[1, 3],
        codes: &["FG05"],
    },
    Change {
        name: "option removed",
        make: |bench| option(bench, "DeleteOptionValue", &json!({})),
        unmake: |bench| option(bench, "InsertOptionValue", &json!({ "Label": label("South") })),
        exits: &[1, 3],
        codes: &["FG05"],
    },
    Change {
        name: "option renamed",
        make: |bench| option(bench, "UpdateOptionValue", &json!({ "Label": label("East"), "MergeLabels": false })),
        unmake: |bench| option(bench, "UpdateOptionValue", &json!({ "Label": label("South"), "MergeLabels": false })),
        exits: &[0, 3],
        codes: &["FG05"],
    },
    Change {
        name: "key not active",
        make: |bench| {
            const NEVER_S: u64 = 1 << 40;
            bench.service.control("settings", &json!({ "key_delay_s": NEVER_S }))?;
            let body =
                json!({ "SchemaName": "wr_Code", "DisplayName": label("Code"), "KeyAttributes": ["accountnumber"] });
            bench.service.api("POST", &format!("{TABLE}/Keys"), &body).map(drop)
        },
        unmake: |bench| {
            bench.service.api("DELETE", &format!("{TABLE}/Keys(LogicalName='wr_code')"), &Value::Null).map(drop)
        },
        exits: &[1],
        codes: &["FG0303"],
    },
];

pub(crate) const KINDS: &[&str] =
    &["column added", "column dropped", "column shortened", "option removed", "option renamed", "key not active"];

pub(crate) fn case(bench: &mut Bench, case: usize, _random: &mut Random) -> Result<Outcome> {
    let change = &CHANGES[case % CHANGES.len()];
    let is_amid = (case / CHANGES.len()).is_multiple_of(2);
    bench.begin(2)?;
    add_note(bench, "wr_Note")?;
    add_band(bench)?;
    bench.set_select(Some(SELECT))?;
    let ended = if is_amid {
        // Simulated seconds that the first write is held, long enough for the change.
        bench
            .service
            .control("faults", &json!([{ "match": { "op": "UpdateMultiple", "nth": 1 }, "do": { "delay": 30 } }]))?;
        let mut child = bench.spawn()?;
        bench.wait_for_hit(&mut child)?;
        (change.make)(bench)?;
        ended(&child.wait_with_output()?)?
    } else {
        bench.complete()?;
        bench.next_day()?;
        (change.make)(bench)?;
        bench.run(None)?
    };
    let exit = ended.status.code().context("killed")?;
    // What was sent before the change got through.
    ensure!(change.exits.contains(&exit) || (is_amid && exit == 0), "exit status {exit}: {}", ended.said);
    if exit != 0 {
        let text = format!("{} {}", ended.said, bench.run_with(&["letters", "list", "--json"])?.report);
        ensure!(change.codes.iter().any(|code| text.contains(code)), "the change is not told: {text}");
    }
    (change.unmake)(bench)?;
    if exit == 3 && is_amid {
        // The run took the table for what it was at its start, so to the letters nothing has changed since.
        let asked = bench.run_with(&["letters", "retry", "--flow", FLOW_NAME, "--json"])?;
        ensure!(asked.status.code() == Some(0), "letters cannot be tried again: {}", asked.said);
    }
    bench.finish()?;
    bench.set_select(None)?;
    Ok(Outcome::of(change.name, 1))
}

fn note() -> String {
    format!("{TABLE}/Attributes(LogicalName='wr_note')")
}

fn label(text: &str) -> Value {
    json!({ "LocalizedLabels": [{ "Label": text, "LanguageCode": 1033 }] })
}

fn add_note(bench: &Bench, name: &str) -> Result<()> {
    let body = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": name,
        "MaxLength": 100, "DisplayName": label(name),
    });
    bench.service.api("POST", &format!("{TABLE}/Attributes"), &body)?;
    Ok(())
}

fn add_band(bench: &Bench) -> Result<()> {
    let option = |value: u32, text: &str| json!({ "Value": value, "Label": label(text) });
    let body = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.PicklistAttributeMetadata", "SchemaName": "wr_Band",
        "DisplayName": label("Band"),
        "OptionSet": { "IsGlobal": false, "OptionSetType": "Picklist", "Options": [option(1, "North"), option(SOUTH, "South")] },
    });
    bench.service.api("POST", &format!("{TABLE}/Attributes"), &body)?;
    Ok(())
}

const SOUTH: u32 = 2;

fn set_length(bench: &Bench, length: u32) -> Result<()> {
    let typed = format!("{}/Microsoft.Dynamics.CRM.StringAttributeMetadata", note());
    let mut definition = bench.service.api("GET", &typed, &Value::Null)?;
    definition["MaxLength"] = json!(length);
    definition["@odata.type"] = json!("Microsoft.Dynamics.CRM.StringAttributeMetadata");
    bench.service.api("PUT", &note(), &definition)?;
    Ok(())
}

fn option(bench: &Bench, action: &str, more: &Value) -> Result<()> {
    let mut body = json!({ "EntityLogicalName": "account", "AttributeLogicalName": "wr_band", "Value": SOUTH });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    bench.service.api("POST", &format!("api/data/v9.2/{action}"), &body)?;
    Ok(())
}
