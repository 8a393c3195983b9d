//! Planning what is missing, and the refusals before anything is created.

use std::collections::BTreeMap;

use flowgate_core::project::{ColumnSpec, ColumnSpecKind, TableSpec};
use flowgate_core::{ConnectorError, Destination};
use flowgate_dataverse::DataverseOptions;
use serde_json::json;

use crate::fake::{Fake, Reply};
use crate::support::{connect_with, options, shown};

fn spec(table: &str, columns: &[(&str, ColumnSpecKind)], keys: &[(&str, &str)]) -> TableSpec {
    let column = |(name, kind): &(&str, ColumnSpecKind)| ColumnSpec {
        name: (*name).to_owned(),
        display: None,
        kind: kind.clone(),
    };
    TableSpec {
        table: table.to_owned(),
        connection: serde_json::from_value(json!("crm")).unwrap(),
        display: Some(["Asset".to_owned(), "Assets".to_owned()]),
        primary_name: Some(("wr_name".to_owned(), 100)),
        change_tracking: true,
        columns: columns.iter().map(column).collect(),
        keys: keys
            .iter()
            .map(|(name, column)| ((*name).to_owned(), vec![(*column).to_owned()]))
            .collect::<BTreeMap<_, _>>(),
    }
}

async fn plan(fake: &Fake, solution: Option<&str>, tables: &[TableSpec]) -> Result<Vec<String>, ConnectorError> {
    let solution = solution.map(str::to_owned);
    let dataverse = connect_with(DataverseOptions { solution, ..options(fake) });
    Ok(dataverse.plan_provision(tables).await?.into_iter().map(|step| step.what).collect())
}

fn with_publisher(fake: &Fake) {
    let publisher = json!({"customizationprefix": "wr", "customizationoptionvalueprefix": 10000});
    let body = json!({"value": [{"uniquename": "agency", "ismanaged": false, "publisherid": publisher}]});
    fake.state().pages.push(("solutions?".to_owned(), Reply::json(200, &body)));
}

#[tokio::test]
async fn what_is_missing_is_listed_tables_first_and_keys_last() {
    let fake = Fake::start().await;
    with_publisher(&fake);
    let text = ColumnSpecKind::Text { length: 64 };
    let tables = [
        spec(
            "account",
            &[("wr_reference", text.clone()), ("name", text.clone())],
            &[("wr_key", "wr_reference"), ("wr_there", "accountnumber")],
        ),
        spec("wr_asset", &[("wr_site", ColumnSpecKind::Lookup { target: "account".to_owned() })], &[]),
    ];
    assert_eq!(
        plan(&fake, Some("agency"), &tables).await.unwrap(),
        [
            "table wr_asset",
            "column account.wr_reference (text, 64)",
            "column wr_asset.wr_site (lookup to account)",
            "key account.wr_key (wr_reference)",
        ]
    );
}

#[tokio::test]
async fn nothing_missing_needs_no_solution() {
    let fake = Fake::start().await;
    let tables = [spec("account", &[("name", ColumnSpecKind::Text { length: 160 })], &[("any", "accountnumber")])];
    assert!(plan(&fake, None, &tables).await.unwrap().is_empty());
}

#[tokio::test]
async fn refusals_name_what_must_change() {
    let fake = Fake::start().await;
    with_publisher(&fake);
    let text = |length| ColumnSpecKind::Text { length };
    let missing = [spec("account", &[("wr_reference", text(64))], &[])];
    insta::assert_snapshot!(shown(&plan(&fake, None, &missing).await.unwrap_err()), @r"
    FG0309: no solution is named to put new tables, columns and keys into
      hint: add `solution:` to the connection; it is the name of an unmanaged solution
    ");
    let foreign = [spec("account", &[("reference", text(64))], &[])];
    insta::assert_snapshot!(shown(&plan(&fake, Some("agency"), &foreign).await.unwrap_err()), @r"
    FG0309: column account.reference (text, 64) cannot be created: its name must begin with `wr_`
      hint: the prefix is that of the solution's publisher; names have lower-case letters, digits and `_`
    ");
    let narrow = [spec("account", &[("accountnumber", text(50))], &[])];
    insta::assert_snapshot!(shown(&plan(&fake, Some("agency"), &narrow).await.unwrap_err()), @r"
    FG0310: column `account.accountnumber` is there, but not as text, 50
      hint: columns are never changed or removed: widen it in the environment, or describe it as it is
    ");
    fake.state().pages.clear();
    fake.state().pages.push(("solutions?".to_owned(), Reply::json(200, &json!({"value": []}))));
    insta::assert_snapshot!(shown(&plan(&fake, Some("agency"), &missing).await.unwrap_err()), @r"
    FG0309: the environment has no solution `agency`
      hint: create an unmanaged solution there, or name an existing one in `solution:` of the connection
    ");
}
