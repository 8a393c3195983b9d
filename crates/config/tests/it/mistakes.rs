//! What a person sees when a project is wrong: each kind of mistake, as it is drawn.

use flowgate_config::{Style, load as load_dir};
use flowgate_core::Code;

use crate::registry::{FLOW, FLOWGATE, load, mistakes, registry, write};

/// The flow with one piece of it replaced.
fn flow_with(old: &str, new: &str) -> String {
    assert!(FLOW.contains(old), "{old} is not in the flow");
    mistakes(&[("flows/cases.yaml", &FLOW.replace(old, new))])
}

/// The flow with lines added to its load.
fn load_with(lines: &str) -> String {
    mistakes(&[("flows/cases.yaml", &format!("{FLOW}{lines}"))])
}

fn flowgate_with(old: &str, new: &str) -> String {
    assert!(FLOWGATE.contains(old), "{old} is not in the file");
    mistakes(&[("flowgate.yaml", &FLOWGATE.replace(old, new))])
}

macro_rules! shows {
    ($($name:ident: $seen:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!($seen);
        }
    )*};
}

shows! {
    unknown_key_with_a_near_one: flow_with("match:", "mach:");
    unknown_key_far_from_any: load_with("    target: x\n");
    unknown_key_of_a_stream: flow_with("key: [id]", "key: [id], deleets: seen, tabel: x");
    unknown_connector: flowgate_with("files:", "file:");
    unknown_key_of_a_connector: flowgate_with("path: data/works.csv", "path: x, fromat: csv");
    value_a_connector_refuses: flowgate_with("path: data/works.csv", "path: x, format: xml");
    key_a_connector_misses: flowgate_with("path: data/works.csv", "format: csv");
    two_connectors: flowgate_with("emulator: {} }", "emulator: {} }, files: { path: x }");
    no_connector: flowgate_with("{ files: { path: data/works.csv } }", "{}");
    missing_key: flow_with("    table: incident\n", "");
    wrong_types: load_with("    guards: { create_max: many, dropped_max: -1 }\n    lookups: [customerid]\n");
    wrong_word: load_with("    missing: remove\n");
    empty_value: flow_with("    select: cases.sql\n", "    select:\n");
    not_a_name: flow_with("flow: cases", "flow: Road-Cases");
    unknown_connection: flow_with("into: crm", "into: crn");
    connection_of_the_wrong_role: flow_with("into: crm", "into: works");
    unknown_driver: load_with("    driver: enquiri\n");
    missing_sql_file: flow_with("select: cases.sql", "select: case.sql");
    not_a_select: flow_with("select: cases.sql", "select: DELETE FROM enquiry");
    bad_schedule: flow_with("flow: cases", "flow: cases\nschedule: 0 25 * * *");
    bad_time_zone: flowgate_with("flowgate: 1", "flowgate: 1\ntime_zone: Europe/Londno");
    newer_version: flowgate_with("flowgate: 1", "flowgate: 2");
    staging_not_supported: flowgate_with("flowgate: 1", "flowgate: 1\nstaging: { postgres: { url: x } }");
    state_not_supported: flowgate_with("flowgate: 1", "flowgate: 1\nstate: { postgres: {} }");
    budget_on_a_source: flowgate_with("works: { ", "works: { budget: { batch: 40% }, ");
    share_without_a_sign: flowgate_with("crm: { ", "crm: { budget: { batch: 40 }, ");
    absent_variable: flowgate_with("data/works.csv", "\"${var:folder}/works.csv\"");
    secret_not_supported: flowgate_with("data/works.csv", "\"${keyvault:works}\"");
    unknown_reference: flowgate_with("data/works.csv", "\"${vars:folder} ${folder} ${env:A-B} ${env\"");
    secret_outside_a_connection: flow_with("table: incident", "table: \"${env:TABLE}\"");
    yaml_tab: flow_with("  enquiry:", "\tenquiry:");
    yaml_unclosed: flow_with("key: [id] }", "key: [id }");
    yaml_unquoted_reference: flowgate_with("path: data/works.csv", "path: ${var:folder}");
    yaml_key_twice: load_with("    table: account\n");
    yaml_anchor_and_alias: flow_with("match: [wr_reference]", "match: &m [a]\n    latest_by: *m");
    yaml_tag: flow_with("table: incident", "table: !!str incident");
    yaml_second_document: load_with("---\nflow: other\n");
    deletes_that_are_not_seen: flow_with("key: [id]", "key: [id], cursor: changed, deletes: seen");
    cursor_without_key: flow_with("key: [id]", "cursor: changed");
    column_type: flow_with("key: [id]", "columns: { a: decimal(10,2), b: int }");
    lookup_without_table: load_with("    lookups: { customerid: { else: x } }\n");
    state_without_action: load_with("    state: { column: status, Done: { close: A, status: B } }\n");
    checks: load_with("    checks: [ { not_null: a, unique: b }, { range: { a: { min: 2, max: 1 } } }, { accepts: x } ]\n");
    duplicate_match: flow_with("[wr_reference]", "[a, a]");
}

#[test]
fn two_flows_of_one_name_and_a_flow_that_is_not_there() {
    let other = FLOW.replace("flow: cases", "flow: cases\nafter: [nobody]");
    insta::assert_snapshot!(mistakes(&[("flows/other.yaml", &other)]));
}

#[test]
fn flows_in_a_circle() {
    let flow = |name: &str, after: &str| FLOW.replace("flow: cases", &format!("flow: {name}\nafter: [{after}]"));
    let files =
        [("flows/a.yaml", flow("a", "b")), ("flows/b.yaml", flow("b", "c, cases")), ("flows/c.yaml", flow("c", "a"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    insta::assert_snapshot!(mistakes(&files));
}

#[test]
fn a_flow_after_itself() {
    insta::assert_snapshot!(flow_with("flow: cases", "flow: cases\nafter: cases"));
}

#[test]
fn missing_rows_of_a_stream_that_does_not_see_deletes() {
    let flow = FLOW.replace("key: [id] }", "key: [id], deletes: unseen }");
    insta::assert_snapshot!(mistakes(&[("flows/cases.yaml", &format!("{flow}    missing: delete\n"))]));
}

#[test]
fn tables() {
    let table = "table: wr_asset\nin: crm\ndisplay: [Asset]\nprimary_name: { wr_name: 5000 }\n\
                 columns:\n  wr_a: text\n  wr_b: { memo: 10, lookup: account }\n  WR_c: integer\n";
    let again = "table: wr_road\nin: crm\n";
    let files = [("tables/asset.yaml", table), ("tables/a.yaml", again), ("tables/b.yaml", again)];
    insta::assert_snapshot!(mistakes(&files));
}

#[test]
fn environments() {
    let files = [("environments/prod.yaml", "vars: {}"), ("environments/test.yaml", "vras: {}")];
    let none = load(&files, None).unwrap_err().render(Style::default());
    let wrong = load(&files, Some("prd")).unwrap_err().render(Style::default());
    let absent = load(&[], Some("prod")).unwrap_err().render(Style::default());
    let bad_key = load(&files, Some("test")).unwrap_err().render(Style::default());
    insta::assert_snapshot!([none, wrong, absent, bad_key].join("---\n"));
}

#[test]
fn a_variable_that_one_environment_lacks() {
    let flowgate = FLOWGATE.replace("data/works.csv", "\"${var:foldr}/works.csv\"");
    let files = [("flowgate.yaml", flowgate.as_str()), ("environments/test.yaml", "vars: { folder: x }")];
    insta::assert_snapshot!(mistakes(&files));
}

#[test]
fn variables_that_cannot_be_filled() {
    let vars = "vars: { a: \"${var:b}\", b: \"${exec:date}\", c: [1], D: x }\n";
    insta::assert_snapshot!(mistakes(&[("environments/local.yaml", vars)]));
}

#[test]
fn a_directory_without_a_project() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("flowgate.yaml", FLOWGATE), ("flows/cases.sql", "")]);
    let below = load_dir(&dir.path().join("flows"), None, &registry()).unwrap_err().render(Style::default());
    let absent = load_dir(&dir.path().join("nowhere"), None, &registry()).unwrap_err().render(Style::default());
    let real = fs_err::canonicalize(dir.path()).unwrap();
    let seen = [below, absent].join("---\n").replace(real.to_str().unwrap(), "DIR");
    insta::assert_snapshot!(seen.replace(dir.path().to_str().unwrap(), "DIR"));
}

#[test]
fn files_that_cannot_be_text() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[("flowgate.yaml", FLOWGATE), ("flows/empty.yaml", "# nothing\n"), ("flows/list.yaml", "- a\n")],
    );
    write(dir.path(), &[("flows/old.yml", FLOW), ("flows/large.yaml", &"# x\n".repeat(1_100_000))]);
    fs_err::write(dir.path().join("flows/latin.yaml"), b"flow: a\n# caf\xe9\n").unwrap();
    insta::assert_snapshot!(load_dir(dir.path(), None, &registry()).unwrap_err().render(Style::default()));
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("flow: {}x{}\n", "[".repeat(200), "]".repeat(200));
    let report = load(&[("flows/cases.yaml", &deep)], None).unwrap_err();
    assert_eq!(report.problems[0].message, "more than 32 levels of nesting");
}

#[test]
fn what_variables_add_is_bounded() {
    let big = format!("vars: {{ big: \"{}\" }}\n", "x".repeat(400_000));
    let many = format!("flow: [{}]\n", vec!["\"${var:big}\""; 10_000].join(", "));
    let files = [("environments/local.yaml", big.as_str()), ("flows/many.yaml", many.as_str())];
    let report = load(&files, None).unwrap_err();
    let problem = report.problems.iter().find(|problem| problem.message.contains("larger by more than 16 MiB"));
    assert_eq!(problem.map(|problem| problem.code), Some(Code::WRONG_TYPE));
}

fn keys(count: usize) -> String {
    (0..count).map(|number| format!("key{number}: 1\n")).collect::<Vec<_>>().concat()
}

#[test]
fn a_file_of_nonsense_is_not_read_forever() {
    let many = keys(20_000);
    let report = load(&[("flows/cases.yaml", &many)], None).unwrap_err();
    assert_eq!(report.problems[0].message, "more than 10000 entries in one block");
    let some = keys(300);
    let report = load(&[("flows/cases.yaml", &format!("{FLOW}{some}"))], None).unwrap_err();
    assert_eq!((report.problems.len(), report.summary().as_str()), (200, "300 errors"));
}

#[test]
fn a_file_torn_anywhere_is_read_or_refused() {
    let text = format!("{FLOW}    lookups: {{ ö: {{ account: [a, \"b\"] }} }}\n    select2: |\n      -- é\n");
    for (end, _) in text.char_indices() {
        let torn = load(&[("flows/cases.yaml", &text[..end])], None);
        if let Err(report) = torn {
            assert!(report.has_errors() && !report.render(Style::default()).is_empty());
        }
    }
}

#[test]
fn the_same_as_json() {
    let flow = FLOW.replace("match:", "mach:").replace("into: crm", "into: 5");
    let report = load(&[("flows/cases.yaml", &flow)], None).unwrap_err();
    insta::assert_json_snapshot!(report.to_json());
}

#[test]
fn colour_is_only_drawn_when_asked_for() {
    let report = load(&[("flows/cases.yaml", "flow: 5\n")], None).unwrap_err();
    let colour = report.render(Style { colour: true });
    assert!(colour.contains('\u{1b}'));
    assert!(!report.render(Style::default()).contains('\u{1b}'));
}

#[test]
fn a_column_with_the_name_of_one_that_is_there() {
    let head = "table: wr_x\nin: crm\ndisplay: [X, Xs]\n";
    for (name, is_taken) in
        [("wr_xid", true), ("ownerid", true), ("statecode", true), ("wr_x", false), ("wr_xids", false)]
    {
        for lines in [
            format!("primary_name: {{ wr_name: 10 }}\ncolumns: {{ {name}: text(36) }}\n"),
            format!("primary_name: {{ {name}: 10 }}\n"),
        ] {
            let table = format!("{head}{lines}");
            let loaded = load(&[("tables/x.yaml", table.as_str())], None);
            let is_refused = loaded.is_err_and(|report| report.problems[0].code == Code::RESERVED_COLUMN);
            assert_eq!(is_refused, is_taken, "{table}");
        }
    }
}

#[test]
fn a_connection_that_only_an_environment_has_is_used_or_misspelt() {
    let misspelt = ("environments/local.yaml", "connections: { wroks: { files: { path: data/x.csv } } }\n");
    let report = load(&[misspelt], None).unwrap_err();
    assert_eq!(report.problems[0].code, Code::UNKNOWN_REFERENCE);
    assert_eq!(report.problems[0].nearest.as_deref(), Some("works"));
    let far = ("environments/local.yaml", "connections: { archive: { files: { path: data/x.csv } } }\n");
    assert!(load(&[far], None).is_err(), "nothing uses it");
    let flow = FLOW.replace("from: works", "from: archive");
    load(&[far, ("flows/cases.yaml", flow.as_str())], None).unwrap();
}

#[test]
fn values_of_a_state_rule_that_are_the_same() {
    let flow = format!("{FLOW}    state: {{ column: status, Done: {{ status: A }}, \"done \": {{ status: B }} }}\n");
    let report = load(&[("flows/cases.yaml", flow.as_str())], None).unwrap_err();
    assert_eq!(report.problems[0].code, Code::DUPLICATE_NAME);
    for (otherwise, refuses) in [("", false), (", else: leave", false), (", else: refuse", true)] {
        let flow = format!("{FLOW}    state: {{ column: status, Done: {{ status: A }}{otherwise} }}\n");
        let project = load(&[("flows/cases.yaml", flow.as_str())], None).unwrap().project;
        let rule = project.flows.values().next().unwrap().loads[0].state.clone().unwrap();
        assert_eq!(rule.refuses_others, refuses, "{otherwise}");
    }
}
