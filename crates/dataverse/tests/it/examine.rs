//! Examining a connection: what is good against the emulator, and what is told when it is not.

use flowgate_core::Destination;
use flowgate_core::Secret;
use flowgate_core::examination::{Finding, FindingState, TableUse};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions};
use flowgate_emulator::{Emulator, Options};
use flowgate_http::SystemClock;
use serde_json::{Value, json};

use crate::fake::{Fake, ORGANIZATION, Reply};
use crate::support::{connect_with, options};

fn account(keys: &[&str], is_tracked: bool) -> TableUse {
    TableUse {
        table: "account".to_owned(),
        is_read: true,
        is_written: true,
        is_deleted: false,
        keys: keys.iter().map(|key| vec![(*key).to_owned()]).collect(),
        is_tracked,
    }
}

fn found<'a>(findings: &'a [Finding], what: &str) -> (FindingState, &'a str) {
    let finding = findings.iter().find(|finding| finding.what == what);
    let finding = finding.unwrap_or_else(|| panic!("`{what}` is not among {findings:#?}"));
    (finding.state, finding.seen.as_str())
}

#[tokio::test]
async fn everything_is_well_against_the_emulator() {
    let emulator = Emulator::start(Options::default()).await.unwrap();
    let ready = emulator.ready();
    let credential = Credential::Token(Secret::new(&ready.token));
    let options = DataverseOptions {
        organization: Some(ready.organization.parse().unwrap()),
        ..DataverseOptions::new(&ready.url, credential)
    };
    let dataverse = Dataverse::connect(options, std::sync::Arc::new(SystemClock::new(1.0))).unwrap();
    let absent = TableUse { table: "wr_nothing".to_owned(), ..TableUse::default() };
    let findings = dataverse.examine(&[account(&["accountid", "name"], true), absent]).await.unwrap();
    let states: Vec<(&str, FindingState)> =
        findings.iter().map(|finding| (finding.what.as_str(), finding.state)).collect();
    let expected = [
        ("sign-in", FindingState::Good),
        ("organization", FindingState::Good),
        ("version", FindingState::Good),
        ("latency", FindingState::Good),
        ("clock", FindingState::Good),
        ("limits", FindingState::Good),
        ("web servers", FindingState::Good),
        ("entitlement", FindingState::Unknown),
        ("account: privileges", FindingState::Good),
        ("account: key name", FindingState::Notable),
        ("account: change tracking", FindingState::Good),
        ("wr_nothing", FindingState::Bad),
    ];
    assert_eq!(states, expected);
    assert_eq!(found(&findings, "account: privileges").1, "read, create, write");
    assert_eq!(found(&findings, "version").1, "9.2.24113.00190, of the kind `Developer`");
}

fn with_privileges(fake: &Fake, held: &Value) {
    let needed = ["Create", "Read", "Write", "Delete"]
        .map(|kind| json!({"PrivilegeType": kind, "Name": format!("prv{kind}Account")}));
    let pages = [
        ("RetrieveUserPrivileges".to_owned(), Reply::json(200, &json!({"RolePrivileges": held}))),
        ("$select=Privileges".to_owned(), Reply::json(200, &json!({"Privileges": needed}))),
    ];
    fake.state().pages.extend(pages);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fake = Fake::start().await;
    let held = json!([
        {"PrivilegeName": "prvReadAccount", "Depth": "Basic"},
        {"PrivilegeName": "prvWriteAccount", "Depth": "Global"},
    ]);
    with_privileges(&fake, &held);
    let findings = connect_with(options(&fake)).examine(&[account(&["accountnumber"], true)]).await.unwrap();
    let missing = "missing `prvReadAccount` for the whole organisation, `prvCreateAccount`";
    assert_eq!(found(&findings, "account: privileges"), (FindingState::Bad, missing));
    let organization = format!("`{ORGANIZATION}`, not pinned");
    assert_eq!(found(&findings, "organization"), (FindingState::Notable, organization.as_str()));
    assert_eq!(found(&findings, "web servers").0, FindingState::Unknown);
    assert_eq!(found(&findings, "account: key accountnumber").0, FindingState::Good);
}

#[tokio::test]
async fn what_the_service_does_not_tell_is_unknown() {
    let fake = Fake::start().await;
    let findings = connect_with(options(&fake)).examine(&[account(&[], false)]).await.unwrap();
    assert_eq!(found(&findings, "account: privileges").0, FindingState::Unknown);
    assert_eq!(found(&findings, "version").0, FindingState::Unknown);
    assert_eq!(found(&findings, "limits").0, FindingState::Unknown);
}

#[tokio::test]
async fn an_environment_that_is_not_reached_is_an_error() {
    let credential = Credential::Token(Secret::new("t"));
    let nowhere = DataverseOptions::new("http://127.0.0.1:9", credential);
    let dataverse = connect_with(DataverseOptions { time_scale: 1_000.0, ..nowhere });
    assert!(dataverse.examine(&[]).await.is_err());
}
