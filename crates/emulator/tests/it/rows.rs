//! Single rows, sign-in, and what every answer carries.

use serde_json::json;

use crate::support::{send, world};

#[tokio::test]
async fn the_command_line_story_works() {
    let world = world().await;
    let me = world.get("WhoAmI").await.expect(200);
    assert_eq!(me.json()["OrganizationId"], world.emulator.ready().organization);
    let created = world
        .post("accounts", &json!({ "name": "Contoso", "accountnumber": "C-17", "revenue": 125.5 }))
        .await
        .expect(204);
    let row = world.get(&format!("accounts({})?$select=name,revenue", created.id())).await.expect(200).json();
    assert_eq!(row["name"], "Contoso");
    assert_eq!(row["revenue"].as_f64(), Some(125.5));
    assert!(row["_transactioncurrencyid_value"].is_string());
    assert!(row["accountid"].is_string());
}

#[tokio::test]
async fn tokens_come_from_the_token_endpoint_and_expire() {
    let world = world().await;
    let ready = world.emulator.ready();
    let scope = format!("{}/.default", ready.url);
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope={scope}",
        ready.client_id, ready.client_secret
    );
    let post = |form: String| {
        send(world.client.post(&ready.token_url).header("content-type", "application/x-www-form-urlencoded").body(form))
    };
    let token = post(form.clone()).await.expect(200).json();
    let token = token["access_token"].as_str().unwrap();
    let call = || send(world.client.get(format!("{}/WhoAmI", world.base)).bearer_auth(token));
    call().await.expect(200);
    world.skip(3600.0).await;
    call().await.refused(401, "0x8004a101");
    post(form.replace(&ready.client_secret, "wrong")).await.expect(401);
}
