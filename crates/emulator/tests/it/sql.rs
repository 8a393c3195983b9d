//! The `sql` query option.

use serde_json::{Value as Json, json};

use crate::support::{World, world};

async fn rows(world: &World, set: &str, sql: &str) -> Vec<Json> {
    let path = format!("{set}?sql={}", sql.replace('%', "%25").replace(' ', "%20").replace('+', "%2B"));
    world.get(&path).await.expect(200).json()["value"].as_array().expect("rows").clone()
}

async fn orders(world: &World) {
    world.order_table().await;
    let id = world.post("accounts", &json!({ "name": "Contoso" })).await.expect(204).id();
    for (name, qty) in [("SO-1", 5), ("SO-2", 7), ("RO-3", 9)] {
        let body = json!({ "wr_name": name, "wr_qty": qty, "wr_AccountId@odata.bind": format!("/accounts({id})") });
        world.post("wr_orders", &body).await.expect(204);
    }
    world.post("wr_orders", &json!({ "wr_name": "SO-4" })).await.expect(204);
}

fn names(rows: &[Json], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)).collect()
}

#[tokio::test]
async fn a_select_filters_joins_and_sorts() {
    let world = world().await;
    orders(&world).await;
    let found =
        rows(&world, "wr_orders", "SELECT wr_name FROM wr_order WHERE wr_name LIKE 'so%' AND wr_qty BETWEEN 1 AND 6")
            .await;
    assert_eq!(names(&found, "wr_name"), ["SO-1"]);
    assert!(found[0]["wr_orderid"].is_string(), "the primary key is always there");
    let found = rows(
        &world,
        "wr_orders",
        "SELECT o.wr_name AS title, a.name FROM wr_order o LEFT JOIN account a ON o.wr_accountid = a.accountid \
         WHERE o.wr_qty IS NULL OR o.wr_qty IN (7, 9) ORDER BY title DESC",
    )
    .await;
    assert_eq!(names(&found, "title"), ["SO-4", "SO-2", "RO-3"]);
    assert_eq!(found[1]["a.name"], "Contoso");
    let found = rows(
        &world,
        "wr_orders",
        "SELECT wr_name FROM wr_order WHERE createdon > DATEADD(day, -1, GETUTCDATE()) AND wr_name <> 'SO-1'",
    )
    .await;
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn groups_add_up() {
    let world = world().await;
    orders(&world).await;
    let found = rows(
        &world,
        "wr_orders",
        "SELECT statecode, COUNT(*) AS n, SUM(wr_qty) AS total, AVG(wr_qty) AS mean FROM wr_order GROUP BY statecode ORDER BY n",
    )
    .await;
    assert_eq!((&found[0]["n"], &found[0]["total"], &found[0]["mean"]), (&json!(4), &json!(21), &json!(7.0)));
    let found = rows(&world, "wr_orders", "SELECT DISTINCT statecode FROM wr_order").await;
    assert_eq!(found.len(), 1);
    assert_eq!(rows(&world, "wr_orders", "SELECT TOP 2 wr_name FROM wr_order ORDER BY wr_name").await.len(), 2);
}

#[tokio::test]
async fn pages_follow_by_next_link() {
    let world = world().await;
    orders(&world).await;
    let mut link = "wr_orders?sql=SELECT%20wr_name%20FROM%20wr_order%20ORDER%20BY%20wr_name".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = world.get_with(&link, &[("prefer", "odata.maxpagesize=3")]).await.expect(200).json();
        seen.extend(names(page["value"].as_array().unwrap(), "wr_name"));
        match page["@odata.nextLink"].as_str() {
            Some(next) => next.clone_into(&mut link),
            None => break,
        }
    }
    assert_eq!(seen, ["RO-3", "SO-1", "SO-2", "SO-4"]);
}

#[tokio::test]
async fn what_the_grammar_lacks_is_refused() {
    let world = world().await;
    for sql in [
        "SELECT%20*%20FROM%20account",
        "SELECT%20name%20FROM%20account%20UNION%20SELECT%201",
        "DROP%20TABLE%20account",
        "",
    ] {
        world.get(&format!("accounts?sql={sql}")).await.refused(400, "0x80060888");
    }
    world.get("accounts?sql=SELECT%20lastname%20FROM%20contact").await.refused(400, "0x80041128");
    world.get("accounts?sql=SELECT%20nothing%20FROM%20account").await.refused(400, "0x80041103");
    world.control("settings", &json!({ "sql_top_allowed": false })).await;
    world.get("accounts?sql=SELECT%20TOP%201%20name%20FROM%20account").await.refused(400, "0x80060888");
}

#[tokio::test]
async fn a_window_of_rows_is_a_setting() {
    let world = world().await;
    for number in 0..7 {
        world.post("accounts", &json!({ "name": format!("A{number}") })).await.expect(204);
    }
    let query = |window: &str| format!("accounts?sql=SELECT name FROM account ORDER BY name {window}");
    world.get(&query("OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY")).await.expect(400);
    world.control("settings", &json!({ "sql_offset_allowed": true })).await;
    for (window, wanted) in [
        ("OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY", vec!["A2", "A3", "A4"]),
        ("OFFSET 5 ROWS", vec!["A5", "A6"]),
        ("OFFSET 0 ROWS FETCH FIRST 1 ROW ONLY", vec!["A0"]),
        ("OFFSET 9 ROWS FETCH NEXT 1 ROWS ONLY", vec![]),
    ] {
        let rows = world.get(&query(window)).await.expect(200).json();
        let names: Vec<_> = rows["value"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names, wanted, "{window}");
        assert!(rows.get("@odata.nextLink").is_none(), "{window}");
    }
    world.get("accounts?sql=SELECT name FROM account OFFSET 2 ROWS").await.expect(400);
    world.get(&query("OFFSET 1 ROWS FETCH NEXT 0 ROWS ONLY")).await.expect(400);
}
