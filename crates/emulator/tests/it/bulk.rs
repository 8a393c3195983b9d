//! Bulk messages.

use serde_json::json;

use crate::support::{targets, world};

#[tokio::test]
async fn create_multiple_answers_ids_in_order() {
    let world = world().await;
    let rows = (0..250).map(|n| json!({ "name": format!("A{n:03}") })).collect();
    let reply =
        world.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", &targets("account", rows)).await.expect(200);
    let ids = reply.json()["Ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 250);
    for n in [0, 100, 249] {
        let row = world.get(&format!("accounts({})?$select=name", ids[n].as_str().unwrap())).await.expect(200);
        assert_eq!(row.json()["name"], format!("A{n:03}"));
    }
}

#[tokio::test]
async fn upsert_multiple_creates_and_updates_by_key() {
    let world = world().await;
    world.order_table().await;
    let rows = |amounts: [f64; 3]| {
        let rows = amounts.iter().enumerate().map(
            |(n, amount)| json!({ "@odata.id": format!("wr_orders(wr_ordernumber='SO-{n}')"), "wr_amount": amount }),
        );
        targets("wr_order", rows.collect())
    };
    let path = "wr_orders/Microsoft.Dynamics.CRM.UpsertMultiple";
    world.post(path, &rows([1.0, 2.0, 3.0])).await.expect(204);
    world.post(path, &rows([4.0, 2.0, 3.0])).await.expect(204);
    let count = world.get("wr_orders/$count").await.expect(200);
    assert_eq!(count.text, "3");
    let row = world.get("wr_orders(wr_ordernumber='so-0')?$select=wr_amount").await.expect(200);
    assert_eq!(row.json()["wr_amount"].as_f64(), Some(4.0));
}
