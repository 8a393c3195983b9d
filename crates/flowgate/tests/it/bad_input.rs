//! What a person sees when something is wrong. Nothing is lost, and every message says what to do.

use crate::support::{Place, offices, stable};

/// The text of `check` after one change to the new project.
fn check_after(name: &str, file: &str, from: &str, to: &str) {
    let place = Place::new_project();
    place.change(file, from, to);
    let said = place.flowgate(&["check"]);
    assert_eq!(said.status, 2, "{}", said.everything());
    stable(&place, || insta::assert_snapshot!(name, said.err));
}

/// The text of a run after one change to the provisioned project, and its exit status.
fn run_after(name: &str, status: i32, change: impl FnOnce(&Place)) {
    let place = Place::provisioned();
    change(&place);
    let said = place.flowgate(&["run", "offices"]);
    // Where rows were set aside, the letters are what a person reads next.
    let letters = if status == 3 { place.flowgate(&["letters", "list"]).out } else { String::new() };
    stable(&place, || insta::assert_snapshot!(name, format!("{}{letters}", said.everything())));
    assert_eq!(said.status, status, "{}", said.everything());
}

#[test]
fn configuration() {
    let flow = "flows/offices.yaml";
    check_after("unknown_key", flow, "match:", "mach:");
    check_after("wrong_type", flow, "{ create_max: 1000 }", "{ create_max: many }");
    check_after("missing_sql_file", flow, "offices.sql", "ofices.sql");
    check_after("bad_glob", "flowgate.yaml", "data/offices.csv", "data/[offices.csv");
    check_after("flow_after_itself", flow, "flow: offices", "flow: offices\nafter: [offices]");
    check_after("absent_variable", "flowgate.yaml", "data/offices.csv", "${var:nowhere}/offices.csv");
    check_after("unknown_connection", flow, "into: crm", "into: crn");
}

#[test]
fn duplicate_names() {
    let place = Place::new_project();
    let text = fs_err::read_to_string(place.file("flows/offices.yaml")).unwrap_or_default();
    place.write("flows/other.yaml", &text);
    stable(&place, || insta::assert_snapshot!("duplicate_names", place.flowgate(&["check"]).err));
}

#[test]
fn sql() {
    let file = "flows/offices.sql";
    check_after("sql_that_does_not_parse", file, "FROM office", "FORM office");
    check_after("sql_unknown_table", file, "FROM office", "FROM ofice");
    check_after("sql_column_twice", file, "city AS address1_city", "city AS name");
    check_after("sql_lacks_the_key", file, "code AS accountnumber", "code AS account_number");
    check_after("sql_not_a_select", file, "SELECT\n", "DELETE FROM x; SELECT\n");
}

#[test]
fn sql_that_fails_while_running() {
    run_after("sql_unknown_column", 1, |place| place.change("flows/offices.sql", "    name,", "    nmae AS name,"));
}

#[test]
fn files() {
    run_after("no_file", 1, |place| fs_err::remove_file(place.file("data/offices.csv")).unwrap_or_default());
    run_after("ragged_rows", 3, |place| {
        place.change("data/offices.csv", "OF-03,", "OF-03,one,too,many,fields,here,and,there,");
    });
    run_after("header_only", 0, |place| place.write("data/offices.csv", "code,name,city,postcode,phone,opened\n"));
    run_after("wrong_encoding", 3, |place| {
        let mut bytes = fs_err::read(place.file("data/offices.csv")).unwrap_or_default();
        bytes.extend(b"OF-99,Caf\xe9,Bath,BA1,01225,2020-01-01\n");
        fs_err::write(place.file("data/offices.csv"), bytes).unwrap_or_default();
    });
}

#[test]
fn files_with_bytes_that_do_not_belong() {
    run_after("nul", 3, |place| place.change("data/offices.csv", "Moor Road", "Moor\0Road"));
    run_after("huge_field", 1, |place| {
        let text = fs_err::read_to_string(place.file("data/offices.csv")).unwrap_or_default();
        place.write("data/offices.csv", &format!("{text}OF-99,\"{}\",Bath\n", "x".repeat(100 << 20)));
    });
    run_after("no_bytes", 1, |place| place.write("data/offices.csv", ""));
}

#[test]
fn files_that_disagree() {
    run_after("columns_renamed_between_files", 1, |place| {
        place.change("flowgate.yaml", "data/offices.csv", "data/offices*.csv");
        let second = offices(3, "Second").replace("city", "town");
        place.write("data/offices_2.csv", &second);
    });
    let place = Place::provisioned();
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
    place.change("data/offices.csv", ",city,", ",town,");
    let said = place.flowgate(&["run", "offices"]);
    stable(&place, || insta::assert_snapshot!("column_renamed_since_the_last_run", said.everything()));
    assert_eq!(said.status, 1, "{}", said.everything());
}

#[test]
fn rows() {
    run_after("value_too_long", 3, |place| {
        place.change("flows/offices.sql", "    name,", "    name || repeat('x', 200) AS name,");
    });
    run_after("null_key", 3, |place| place.change("flows/offices.sql", "code AS acc", "nullif(code, 'OF-03') AS acc"));
    run_after("unknown_choice", 3, |place| {
        place.change("flows/offices.sql", "    name,", "    name, 'Nobody' AS customertypecode,");
    });
    run_after("impossible_date", 3, |place| place.change("data/offices.csv", "1987-02-09", "1987-02-30"));
    run_after("impossible_date_for_the_column", 3, |place| {
        place.change("flows/offices.sql", "    name,", "    name, '1700-02-30' AS lastusedincampaign,");
    });
    run_after("duplicate_key", 3, |place| place.change("data/offices.csv", "OF-03", "OF-04"));
    run_after("duplicate_key_unchecked", 0, |place| {
        place.change("data/offices.csv", "OF-03", "OF-04");
        place.change("flows/offices.yaml", "      - unique: [accountnumber]\n", "");
    });
}

#[test]
fn a_row_whose_parent_is_not_there() {
    let lookup = "    lookups: { primarycontactid: { contact: emailaddress1 } }\n    match:";
    run_after("unresolved_lookup", 3, |place| {
        place.change("flows/offices.yaml", "    match:", lookup);
        place.change("flows/offices.sql", "    name,", "    name, 'nobody@example.org' AS primarycontactid,");
    });
}

#[test]
fn destination() {
    run_after("no_such_table", 1, |place| place.change("flows/offices.yaml", "table: account", "table: acount"));
    run_after("no_such_column", 1, |place| place.change("flows/offices.sql", "AS address1_city", "AS address1_town"));
}

#[test]
fn keys_of_the_destination() {
    let place = Place::new_project();
    let said = place.flowgate(&["run", "offices"]);
    stable(&place, || insta::assert_snapshot!("no_such_key", said.everything()));
    let emulator = place.emulator();
    emulator.send("POST", "__emulator/settings", r#"{ "key_delay_s": 100000 }"#);
    let key = r#"{ "SchemaName": "wr_number", "KeyAttributes": ["accountnumber"],
        "DisplayName": { "LocalizedLabels": [{ "Label": "Number", "LanguageCode": 1033 }] } }"#;
    emulator.send("POST", "api/data/v9.2/EntityDefinitions(LogicalName='account')/Keys", key);
    let said = place.flowgate(&["run", "offices"]);
    stable(&place, || insta::assert_snapshot!("key_still_building", said.everything()));
    assert_eq!(said.status, 1, "{}", said.everything());
    emulator.send("POST", "__emulator/time", r#"{ "skip_s": 100000 }"#);
    assert_eq!(place.flowgate(&["run", "offices"]).status, 0);
}

#[test]
fn a_full_disk() {
    let place = Place::provisioned();
    place.change("flows/offices.yaml", "{ create_max: 1000 }", "{ create_max: 10000 }");
    place.write("data/offices.csv", &offices(9_000, "Office"));
    let [full, with_room] = place.on_a_small_disk(500, &["run", "offices"]);
    // Which file meets the end of the disk first is chance.
    let told = full.err.lines().find(|line| line.starts_with("error")).unwrap_or(&full.err);
    let told = told.split_once(" for ").map_or(told, |(told, _)| told);
    stable(&place, || insta::assert_snapshot!("full_disk", told));
    assert_eq!(full.status, 1, "{}", full.everything());
    assert_eq!(with_room.status, 0, "{}", with_room.everything());
    assert_eq!(place.accounts().len(), 9_000, "each row is there once");
}

#[test]
fn an_absent_secret() {
    let place = Place::new_project();
    let real = "dataverse:\n      url: https://127.0.0.1:1\n      credential: { client: x, tenant: y, secret: \"${env:FLOWGATE_TEST_ABSENT}\" }";
    let text = fs_err::read_to_string(place.file("flowgate.yaml")).unwrap_or_default();
    let start = text.find("    dataverse:\n      emulator").unwrap_or(text.len());
    place.write("flowgate.yaml", &format!("{}    {real}\n", &text[..start]));
    let said = place.flowgate(&["run", "offices"]);
    assert_eq!(said.status, 1, "{}", said.everything());
    stable(&place, || insta::assert_snapshot!("absent_secret", said.err));
}

#[test]
fn a_guard_stops_before_anything_is_sent() {
    run_after("guard", 4, |place| place.change("flows/offices.yaml", "create_max: 1000", "create_max: 5"));
}

#[test]
fn provisioning_where_it_is_not_allowed() {
    let place = Place::new_project();
    place.change("environments/local.yaml", "provision: allow", "provision: refuse");
    let said = place.flowgate(&["provision", "--yes"]);
    assert_eq!(said.status, 2, "{}", said.everything());
    stable(&place, || insta::assert_snapshot!("provision_refused", said.everything()));
}

#[test]
fn unknown_flow() {
    let place = Place::new_project();
    stable(&place, || insta::assert_snapshot!("unknown_flow", place.flowgate(&["run", "ofices"]).everything()));
}

#[test]
fn letters_are_listed_shown_retried_and_discarded() {
    let place = Place::provisioned();
    place.change(
        "flows/offices.sql",
        "    name,",
        "    CASE code WHEN 'OF-03' THEN repeat('x', 200) ELSE name END AS name,",
    );
    assert_eq!(place.flowgate(&["run", "offices"]).status, 3);
    let list = place.flowgate(&["letters", "list", "--json"]).json();
    assert_eq!(list["total"], 1);
    let id = list["letters"][0]["id"].as_str().unwrap_or_default().to_owned();
    stable(&place, || {
        insta::assert_snapshot!("letters_list", place.flowgate(&["letters", "list"]).everything());
        insta::assert_snapshot!("letters_show", place.flowgate(&["letters", "show", &id[..8]]).everything());
        insta::assert_snapshot!("status_with_letters", place.flowgate(&["status"]).everything());
    });
    assert_eq!(place.flowgate(&["letters", "retry", &id, "--json"]).json()["letters"], 1);
    assert_eq!(place.flowgate(&["letters", "discard", "--flow", "offices", "--json"]).json()["letters"], 1);
    assert_eq!(place.flowgate(&["letters", "show", "ffffffff"]).status, 1);
}
