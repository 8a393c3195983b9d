//! `/__emulator/*` against what a web page could send, and against programs that use it as ever.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Reply, World, send, world};

async fn reset(world: &World, headers: &[(&str, &str)]) -> Reply {
    let mut request = world.client.post(format!("{}/__emulator/reset", world.root)).body("{}");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

async fn rows(world: &World) -> usize {
    world.get("accounts?$select=name").await.expect(200).json()["value"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_page_cannot_wipe_the_environment_nor_read_it() {
    let world = world().await;
    world.post("accounts", &json!({ "name": "kept" })).await.expect(204);
    let own = world.root.clone();
    let refused: &[&[(&str, &str)]] = &[
        &[("content-type", "text/plain")],
        &[("content-type", "text/plain;charset=UTF-8"), ("origin", &own)],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("origin", "http://evil.example")],
        &[("origin", "null"), ("content-type", "application/json")],
        &[("host", "evil.example")],
        &[("host", "evil.example:80"), ("content-type", "application/json")],
        &[("sec-fetch-site", "cross-site")],
        &[("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-mode", "no-cors")],
    ];
    for headers in refused {
        let status = reset(&world, headers).await.status;
        assert!(
            status == StatusCode::FORBIDDEN || status == StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{headers:?}: {status}"
        );
        assert_eq!(rows(&world).await, 1, "{headers:?}");
    }
    for path in ["", "stats", "settings", "tables/account"] {
        let foreign = world.client.get(format!("{}/__emulator/{path}", world.root)).header("host", "evil.example");
        assert_eq!(send(foreign).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn programs_go_on_as_before() {
    let world = world().await;
    let token = format!("Bearer {}", world.emulator.ready().token);
    let heard: &[&[(&str, &str)]] = &[
        &[],
        &[("content-type", "application/json")],
        &[("content-type", "application/json; charset=utf-8")],
        // What Python's `urllib` calls every body.
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "text/plain"), ("authorization", &token)],
        &[("host", "localhost")],
        &[("origin", &world.root)],
    ];
    for headers in heard {
        world.post("accounts", &json!({ "name": "wiped" })).await.expect(204);
        assert_eq!(reset(&world, headers).await.status, StatusCode::OK, "{headers:?}");
        assert_eq!(rows(&world).await, 0, "{headers:?}");
    }
}

#[tokio::test]
async fn names_that_would_break_the_documents_are_refused() {
    let world = world().await;
    for name in ["wr_a b", "wr_a\"><x", "wr_a<b", "wr_ä", "wr_", "wr_a-b", "wr_a/b", "wr_a(b)", "é_abc"] {
        let mut table = crate::support::table(name, "Broken");
        if name == "wr_" {
            table["SchemaName"] = "wr_x'".into();
        }
        world.post("EntityDefinitions", &table).await.expect(400);
        let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": name.replace("wr_", "wr_'"), "MaxLength": 20 });
        world.post("EntityDefinitions(LogicalName='account')/Attributes", &column).await.expect(400);
        let choice = json!({ "Name": name.replace("wr_", "wr_&"), "Options": [] });
        world.post("GlobalOptionSetDefinitions", &choice).await.expect(400);
    }
    let mut table = crate::support::table("wr_Fine", "Fine");
    table["EntitySetName"] = "wr fines".into();
    world.post("EntityDefinitions", &table).await.expect(400);
    table["EntitySetName"] = "accounts".into();
    world.post("EntityDefinitions", &table).await.expect(400);
    table["EntitySetName"] = "wr_fineset".into();
    // A column cannot take the name of the primary id, which is there already.
    table["Attributes"].as_array_mut().unwrap().push(json!({ "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": "wr_FineId", "MaxLength": 20 }));
    world.post("EntityDefinitions", &table).await.expect(400);
    table["Attributes"].as_array_mut().unwrap().pop();
    world.post("EntityDefinitions", &table).await.expect(204);
    let metadata = world.get("$metadata").await.expect(200).text;
    roxmltree::Document::parse(&metadata).expect("well-formed");
    assert!(metadata.contains("wr_fineset"));
}
