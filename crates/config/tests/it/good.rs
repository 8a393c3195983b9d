//! Projects that are read, and what they become.

use std::collections::BTreeSet;

use flowgate_config::schema;
use flowgate_core::project::{
    Check, DeletedThere, Deletes, History, Master, Missing, Nulls, ProvisionPolicy, StateAction,
};
use serde_json::{Value, json};

use crate::registry::{FLOW, load};

/// Every key there is, outside tables.
const EVERYTHING: &[(&str, &str)] = &[
    (
        "flowgate.yaml",
        r#"flowgate: 1
time_zone: Europe/London
nonexistent_times: next
repeated_times: first
connections:
  works: { files: { path: "${var:folder}/*.csv", format: csv } }
  crm:
    dataverse: { url: "${env:CRM_URL}", secret: "${file:/run/secrets/crm}" }
    budget: { daily: 300000, batch: [ { share: 40%, during: "Mon-Fri 08:00-18:00" }, { share: 95% } ] }
staging: { embedded: { path: parked, memory: 1GiB, keep: 7 } }
state: { sqlite: { path: kept } }
provision: allow
vars: { folder: data }
"#,
    ),
    ("environments/prod.yaml", "vars: { folder: /srv/works }\nprovision: refuse\n"),
    ("environments/test.yaml", "vars: {}\n"),
    ("flows/first.yaml", FIRST),
    (
        "flows/cases.yaml",
        r#"flow: cases
schedule: "0 2 * * *"
after: [first]
streams:
  enquiry:
    from: works
    key: [id]
    deletes: seen
    may_be_empty: true
    path: enquiries.csv
    columns: { cost: "decimal(10, 2)" }
  customer: { from: works, key: id, cursor: updated_at }
loads:
  cases:
    into: crm
    table: incident
    select: cases.sql
    driver: enquiry
    match: [wr_reference]
    latest_by: recorded_on
    lookups:
      customerid: { account: accountnumber, contact: [email, name] }
      ownerid: { team: primary_id, else: Roads triage }
    columns:
      description: { nulls: keep }
      prioritycode: { master: fill_if_empty }
    state: { column: status, Completed Enquiries: { close: Problem Solved }, Other: { status: In Progress } }
    history: { createdon: recorded_on, logic: bypass }
    missing: deactivate
    shares_table: true
    deleted_there: recreate
    guards: { delete_percent_max: 1, update_percent_max: 0.5%, delete_max: 5, create_max: 6, dropped_max: 0, quarantined_percent_max: 2%, missing_files_max: 3 }
    checks:
      - not_null: title
      - unique: [wr_reference]
      - accepted: { status: [Open, 3] }
      - range: { cost: { min: 0, max: 10.5 } }
      - that: "cost > 0"
"#,
    ),
];

const FIRST: &str = r"flow: first
streams:
  office: { from: works }
loads:
  offices:
    into: crm
    table: account
    match: name
    select: |

      -- all of them
      SELECT name FROM office
";

#[test]
fn a_project_with_every_key() {
    let project = load(EVERYTHING, Some("prod")).unwrap().project;
    assert_eq!(project.environment.as_str(), "prod");
    assert_eq!(project.time_zone, "Europe/London");
    assert_eq!(project.provision, ProvisionPolicy::Refuse);
    assert_eq!(project.state_dir, project.dir.join("kept/prod"));
    assert_eq!(project.staging.dir, project.dir.join("parked/prod"));
    assert_eq!((project.staging.memory_bytes_max, project.staging.keep_images), (1 << 30, 7));
    assert_eq!(project.connections["works"].settings, json!({ "path": "/srv/works/*.csv", "format": "csv" }));
    let crm = &project.connections["crm"];
    assert_eq!(crm.settings["secret"], "${file:/run/secrets/crm}");
    let budget = crm.budget.as_ref().unwrap();
    assert_eq!((budget.daily, budget.batch[0].share, budget.batch.len()), (Some(300_000), 0.4, 2));
    assert_eq!(budget.batch[0].during.as_deref(), Some("Mon-Fri 08:00-18:00"));
}

#[test]
fn the_streams_of_a_flow() {
    let project = load(EVERYTHING, Some("prod")).unwrap().project;
    let flow = &project.flows["cases"];
    assert_eq!(flow.schedule.as_deref(), Some("0 2 * * *"));
    assert_eq!(flow.after[0].as_str(), "first");
    let enquiry = &flow.streams["enquiry"];
    assert_eq!((enquiry.deletes, enquiry.is_incremental), (Deletes::Seen, false));
    assert_eq!(enquiry.settings, json!({ "path": "enquiries.csv" }));
    assert_eq!(enquiry.columns["cost"], "decimal(10,2)");
    let customer = &flow.streams["customer"];
    assert_eq!((customer.deletes, customer.is_incremental), (Deletes::Unseen, true));
    assert_eq!(customer.key, ["id"]);
}

#[test]
fn the_rules_of_a_load() {
    let project = load(EVERYTHING, Some("prod")).unwrap().project;
    let load = &project.flows["cases"].loads[0];
    assert_eq!(load.driver.as_ref().unwrap().as_str(), "enquiry");
    assert_eq!(load.latest_by.as_deref(), Some("recorded_on"));
    let customer = &load.lookups["customerid"].rules;
    assert_eq!((customer[0].table.as_str(), customer[1].columns.len()), ("account", 2));
    let owner = &load.lookups["ownerid"];
    assert!(owner.rules[0].columns.is_empty());
    assert_eq!(owner.otherwise.as_deref(), Some("Roads triage"));
    assert_eq!(load.columns["description"].nulls, Nulls::Keep);
    assert_eq!(load.columns["prioritycode"].master, Master::FillIfEmpty);
    let state = load.state.as_ref().unwrap();
    assert_eq!(state.actions["Completed Enquiries"], StateAction::Close("Problem Solved".to_owned()));
    assert_eq!(state.actions["Other"], StateAction::Status("In Progress".to_owned()));
    let history = History { created_on: Some("recorded_on".to_owned()), bypass_logic: true };
    assert_eq!(load.history, Some(history));
    assert_eq!((load.missing, load.deleted_there), (Missing::Deactivate, DeletedThere::Recreate));
    assert_eq!((load.guards.delete_percent_max, load.guards.update_percent_max), (Some(1.0), Some(0.5)));
    assert_eq!((load.guards.delete_max, load.guards.create_max, load.guards.dropped_max), (Some(5), Some(6), Some(0)));
    assert_eq!(load.guards.quarantined_percent_max, Some(2.0));
    assert_eq!(load.guards.missing_files_max, Some(3));
    let text = |text: &str| vec![text.to_owned()];
    let expected = vec![
        Check::NotNull(text("title")),
        Check::Unique(text("wr_reference")),
        Check::Accepted { column: "status".to_owned(), values: vec!["Open".to_owned(), "3".to_owned()] },
        Check::Range { column: "cost".to_owned(), min: Some(0.0), max: Some(10.5) },
        Check::That("cost > 0".to_owned()),
    ];
    assert_eq!(load.checks, expected);
}

/// With the test of the schema against the reader's tables: what editors offer is what is read here.
#[test]
fn no_key_of_the_schemas_is_left_out_here() {
    fn collect(schema: &Value, names: &mut BTreeSet<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            names.extend(properties.keys().cloned());
        }
        match schema {
            Value::Object(object) => object.values().for_each(|value| collect(value, names)),
            Value::Array(items) => items.iter().for_each(|value| collect(value, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    for schema in schema(&[]).values() {
        collect(schema, &mut names);
    }
    let mut written: Vec<&str> = EVERYTHING.iter().map(|(_, text)| *text).collect();
    written.push(TABLE);
    let written = written.join("\n");
    let left_out: Vec<&String> = names.iter().filter(|name| !written.contains(&format!("{name}:"))).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

#[test]
fn a_select_inside_yaml_knows_its_line() {
    let project = load(EVERYTHING, Some("prod")).unwrap().project;
    let sql = &project.flows["first"].loads[0].sql;
    assert!(sql.text.starts_with("\n-- all of them\nSELECT"), "{}", sql.text);
    let file_line = FIRST.lines().position(|line| line.contains("-- all of them")).unwrap();
    // The text begins with the empty line before it.
    assert_eq!((sql.line_offset + 1, sql.path.ends_with("flows/first.yaml")), (file_line, true));
}

#[test]
fn an_environments_connection_takes_the_place_of_the_projects() {
    let own = "connections:\n  works: { files: { path: elsewhere.csv, format: parquet } }\n";
    // `${var:folder}` of the replaced connection is not missed.
    let flowgate = EVERYTHING[0].1.replace("vars: { folder: data }", "");
    let files = [("flowgate.yaml", flowgate.as_str()), ("environments/local.yaml", own)];
    let project = load(&files, None).unwrap().project;
    let settings = |name: &str| project.connections.get(name).map(|connection| connection.settings.clone());
    assert_eq!(settings("works"), Some(json!({ "path": "elsewhere.csv", "format": "parquet" })));
    assert!(settings("crm").is_some(), "what the environment does not name is the project's");
}

#[test]
fn without_environments_there_is_local() {
    let project = load(&[], None).unwrap().project;
    assert_eq!(project.environment.as_str(), "local");
    assert_eq!(project.state_dir, project.dir.join(".flowgate/local"));
    assert_eq!(project.staging.dir, project.dir.join(".flowgate/local/staging"));
    assert_eq!(project.provision, ProvisionPolicy::Refuse);
    assert_eq!(project.time_zone, "UTC");
}

#[test]
fn the_only_environment_is_taken_and_local_before_others() {
    let only = load(&[("environments/prod.yaml", "vars: {}\n")], None).unwrap();
    assert_eq!(only.project.environment.as_str(), "prod");
    let local = load(&[("environments/a.yaml", "vars: {}"), ("environments/local.yaml", "vars: {}")], None).unwrap();
    assert_eq!(local.project.environment.as_str(), "local");
}

#[test]
fn loads_follow_their_lookups_and_circles_keep_the_files_order() {
    let load_of = |name: &str, looks_up: &str| {
        let lookup = if looks_up.is_empty() { String::new() } else { format!("    lookups: {{ x: {looks_up} }}\n") };
        format!("  {name}:\n    into: crm\n    table: {name}\n    select: cases.sql\n    match: [id]\n{lookup}")
    };
    let flow = [
        "flow: cases\nstreams:\n  enquiry: { from: works }\nloads:\n".to_owned(),
        load_of("last", "{ b: id }"),
        load_of("a", "{ b: id, a: id }"),
        load_of("b", "{ a: id, base: id }"),
        load_of("base", ""),
        load_of("free", ""),
    ]
    .concat();
    let project = load(&[("flows/cases.yaml", &flow)], None).unwrap().project;
    let order: Vec<&str> = project.flows["cases"].loads.iter().map(|load| load.name.as_str()).collect();
    assert_eq!(order, ["base", "a", "b", "last", "free"]);
}

#[test]
fn the_version_changes_with_any_file() {
    let version = |files: &[(&str, &str)]| load(files, None).unwrap().project.version;
    let plain = version(&[]);
    assert_eq!(plain, version(&[]));
    assert_ne!(plain, version(&[("flows/cases.sql", "SELECT id AS wr_reference FROM enquiry")]));
    assert_ne!(plain, version(&[("flows/cases.yaml", &format!("{FLOW}# why\n"))]));
    assert_eq!(plain, version(&[("README.md", "not configuration")]));
}

#[test]
fn a_byte_order_mark_is_no_content() {
    let flow = format!("\u{feff}{FLOW}");
    let sql = "\u{feff}SELECT id AS wr_reference FROM enquiry";
    let project = load(&[("flows/cases.yaml", &flow), ("flows/cases.sql", sql)], None).unwrap().project;
    assert!(project.flows["cases"].loads[0].sql.text.starts_with("SELECT"));
}

const TABLE: &str = r#"table: wr_asset
in: crm
display: [Asset, Assets]
primary_name: { wr_name: 200 }
change_tracking: true
columns:
  wr_icao: text(10)
  wr_note: { memo: 2000, display: Notes }
  wr_kind: { choice: [Airport, Heliport] }
  wr_site: { lookup: account }
  wr_height: { type: decimal(2), display: "Height, in feet" }
keys:
  wr_asset_icao: wr_icao
"#;

#[test]
fn tables_to_provision() {
    let project = load(&[("tables/asset.yaml", TABLE)], None).unwrap().project;
    insta::assert_debug_snapshot!(project.tables);
}

#[test]
fn a_variable_may_hold_a_secret_reference_and_an_escape_stays_text() {
    let flowgate = r#"flowgate: 1
connections:
  works: { files: { path: "${var:place}" } }
  crm: { dataverse: { url: "$${x}" } }
vars: { place: "${env:PLACE}" }
"#;
    let flow = FLOW.replace("table: incident", "table: \"$${t}\"");
    let project = load(&[("flowgate.yaml", flowgate), ("flows/cases.yaml", &flow)], None).unwrap().project;
    assert_eq!(project.connections["works"].settings["path"], "${env:PLACE}");
    // In a connection the escape waits for `resolve_secrets`.
    assert_eq!(project.connections["crm"].settings["url"], "$${x}");
    assert_eq!(project.flows["cases"].loads[0].table, "${t}");
}

#[test]
fn variables_take_the_type_they_are_written_for() {
    let flow = format!("{FLOW}    guards:\n      create_max: ${{var:most}}\n");
    let files = [("environments/local.yaml", "vars: { most: 12 }\n"), ("flows/cases.yaml", flow.as_str())];
    let project = load(&files, None).unwrap().project;
    assert_eq!(project.flows["cases"].loads[0].guards.create_max, Some(12));
}

#[test]
fn a_reconciling_stream_may_lose_rows_with_a_warning() {
    let flow = FLOW.replace("key: [id]", "key: [id], cursor: changed, deletes: by_reconcile");
    let loaded = load(&[("flows/cases.yaml", &format!("{flow}    missing: delete\n"))], None).unwrap();
    let messages: Vec<&str> = loaded.warnings.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages, ["`missing: delete` acts on stream `enquiry` only after a reconciling read"]);
}

#[test]
fn a_stream_that_the_select_does_not_name_cannot_make_rows_go() {
    let streams = "  enquiry: { from: works, key: [id] }\n  other: { from: works, deletes: unseen }\n";
    let flow = FLOW.replace("  enquiry: { from: works, key: [id] }\n", streams);
    let project = load(&[("flows/cases.yaml", &format!("{flow}    missing: delete\n"))], None).unwrap().project;
    assert_eq!(project.flows["cases"].loads[0].missing, Missing::Delete);
}
