//! File and image columns.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flowgate_emulator::Options;
use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, World, label, send, world, world_with};

async fn row_with_columns(world: &World) -> String {
    world.order_table().await;
    for column in [
        json!({ "@odata.type": "Microsoft.Dynamics.CRM.FileAttributeMetadata", "SchemaName": "wr_Document", "MaxSizeInKB": 10240, "DisplayName": label("Document") }),
        json!({ "@odata.type": "Microsoft.Dynamics.CRM.ImageAttributeMetadata", "SchemaName": "wr_Photo", "MaxSizeInKB": 64, "DisplayName": label("Photo") }),
    ] {
        world.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
    }
    world.post("wr_orders", &json!({ "wr_name": "SO-1" })).await.expect(204).id()
}

async fn bytes(world: &World, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let mut request = world.request(method, path).header("content-type", "application/octet-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(body)).await
}

async fn download(world: &World, path: &str) -> Vec<u8> {
    let response = world.request(Method::GET, path).send().await.expect("answer");
    assert_eq!(response.status(), 200);
    response.bytes().await.expect("body").to_vec()
}

#[tokio::test]
async fn a_small_file_goes_in_whole_and_comes_out_whole_or_in_ranges() {
    let world = world().await;
    let id = row_with_columns(&world).await;
    let path = format!("wr_orders({id})/wr_document");
    world.get(&format!("{path}/$value")).await.expect(204);
    bytes(&world, Method::PATCH, &path, &[("x-ms-file-name", "a.txt")], b"hello world".to_vec()).await.expect(204);
    assert_eq!(download(&world, &format!("{path}/$value")).await, b"hello world");
    let part = world.get_with(&format!("{path}/$value"), &[("range", "bytes=6-8")]).await.expect(206);
    assert_eq!(
        (part.text.as_str(), part.header("content-range"), part.header("x-ms-file-size")),
        ("wor", "bytes 6-8/11", "11")
    );
    assert_eq!(part.header("x-ms-file-name"), "a.txt");
    let row = world.get(&format!("wr_orders({id})?$select=wr_document,wr_document_name")).await.expect(200).json();
    assert_eq!(row["wr_document_name"], "a.txt");
    let file =
        world.get(&format!("fileattachments({})", row["wr_document"].as_str().unwrap())).await.expect(200).json();
    assert_eq!((&file["filesizeinbytes"], &file["regardingfieldname"]), (&json!(11), &json!("wr_document")));
    world.delete(&path, &[]).await.expect(204);
    world.get(&format!("{path}/$value")).await.expect(204);
    assert_eq!(world.get("fileattachments").await.json()["value"], json!([]));
}

#[tokio::test]
async fn chunks_are_taken_in_order_and_stored_with_the_last() {
    let world = world().await;
    let id = row_with_columns(&world).await;
    let path = format!("wr_orders({id})/wr_document");
    let start = [("x-ms-transfer-mode", "chunked")];
    let begun =
        bytes(&world, Method::PATCH, &format!("{path}?x-ms-file-name=big.bin"), &start, Vec::new()).await.expect(200);
    assert_eq!(begun.header("x-ms-chunk-size"), "4194304");
    let link = begun.header("location").to_owned();
    let content: Vec<u8> = (0..10_000u32).map(|index| (index % 251) as u8).collect();
    let chunk = async |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/10000", to - 1);
        bytes(
            &world,
            Method::PATCH,
            &link,
            &[("content-range", &range), ("x-ms-file-name", "big.bin")],
            content[from..to].to_vec(),
        )
        .await
    };
    chunk(0, 4000).await.expect(206);
    chunk(5000, 10_000).await.expect(416);
    world.get(&format!("{path}/$value")).await.expect(204);
    chunk(4000, 10_000).await.expect(204);
    assert_eq!(download(&world, &format!("{path}/$value")).await, content);
}

#[tokio::test]
async fn blocks_are_put_together_by_the_list() {
    let world = world().await;
    let id = row_with_columns(&world).await;
    let target = json!({ "@odata.type": "Microsoft.Dynamics.CRM.wr_order", "wr_orderid": id });
    let begin = json!({ "Target": target, "FileName": "b.txt", "FileAttributeName": "wr_document" });
    let token =
        world.post("InitializeFileBlocksUpload", &begin).await.expect(200).json()["FileContinuationToken"].clone();
    let (first, second) = (STANDARD.encode("0001"), STANDARD.encode("0002"));
    for (block, data) in [(&second, "world"), (&first, "hello ")] {
        let body = json!({ "BlockId": block, "BlockData": STANDARD.encode(data), "FileContinuationToken": token });
        world.post("UploadBlock", &body).await.expect(204);
    }
    let odd = json!({ "BlockId": STANDARD.encode("12345678"), "BlockData": "", "FileContinuationToken": token });
    world.post("UploadBlock", &odd).await.expect(400);
    let commit = json!({ "FileName": "b.txt", "MimeType": "text/plain", "BlockList": [first, second], "FileContinuationToken": token });
    let stored = world.post("CommitFileBlocksUpload", &commit).await.expect(200).json();
    assert_eq!(stored["FileSizeInBytes"], 11);
    let begin = json!({ "Target": target, "FileAttributeName": "wr_document" });
    let reading = world.post("InitializeFileBlocksDownload", &begin).await.expect(200).json();
    assert_eq!((&reading["FileName"], &reading["FileSizeInBytes"]), (&json!("b.txt"), &json!(11)));
    let block = json!({ "Offset": 6, "BlockLength": 100, "FileContinuationToken": reading["FileContinuationToken"] });
    assert_eq!(world.post("DownloadBlock", &block).await.expect(200).json()["Data"], STANDARD.encode("world"));
    world.post("DeleteFile", &json!({ "FileId": stored["FileId"] })).await.expect(204);
    world.post("InitializeFileBlocksDownload", &begin).await.refused(404, "0x80040217");
}

#[tokio::test]
async fn size_and_type_are_limited() {
    let world = world().await;
    let id = row_with_columns(&world).await;
    let path = format!("wr_orders({id})/wr_document");
    let blocked = bytes(&world, Method::PATCH, &path, &[("x-ms-file-name", "a.EXE")], b"x".to_vec()).await;
    blocked.refused(400, "0x80043e09");
    let large = bytes(&world, Method::PATCH, &path, &[("x-ms-file-name", "a.bin")], vec![0; 10_240 * 1024 + 1]).await;
    large.refused(400, "0x80071026");
    bytes(&world, Method::PATCH, &path, &[], b"x".to_vec()).await.expect(400);
    world.post("wr_orders", &json!({ "wr_name": "x", "wr_document": "x" })).await.expect(400);
    let missing = "wr_orders(00000000-0000-4000-8000-000000000009)/wr_document";
    bytes(&world, Method::PATCH, missing, &[("x-ms-file-name", "a.bin")], b"x".to_vec())
        .await
        .refused(404, "0x80040217");
}

#[tokio::test]
async fn images_travel_as_base64_and_show_only_when_selected() {
    let world = world().await;
    let id = row_with_columns(&world).await;
    let path = format!("wr_orders({id})");
    world.patch(&path, &[("if-match", "*")], &json!({ "wr_photo": STANDARD.encode("pixels") })).await.expect(204);
    assert!(world.get(&path).await.json().get("wr_photo").is_none());
    let row = world
        .get(&format!("{path}?$select=wr_photo,wr_photo_url,wr_photo_timestamp,wr_photoid"))
        .await
        .expect(200)
        .json();
    assert_eq!(row["wr_photo"], STANDARD.encode("pixels"));
    assert!(row["wr_photo_url"].as_str().unwrap().contains("Attribute=wr_photo") && row["wr_photoid"].is_string());
    assert_eq!(download(&world, &format!("{path}/wr_photo/$value?size=full")).await, b"pixels");
    world.patch(&path, &[("if-match", "*")], &json!({ "wr_photo": null })).await.expect(204);
    assert_eq!(world.get(&format!("{path}?$select=wr_photo")).await.json()["wr_photo"], json!(null));
    world.patch(&path, &[("if-match", "*")], &json!({ "wr_photo": "***" })).await.expect(400);
}

#[tokio::test]
async fn contents_survive_a_restart_and_go_with_their_row() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options { data: Some(directory.path().to_owned()), ..Options::default() };
    let world = world_with(options()).await;
    let id = row_with_columns(&world).await;
    let path = format!("wr_orders({id})/wr_document");
    bytes(&world, Method::PUT, &path, &[("x-ms-file-name", "a.txt")], b"kept".to_vec()).await.expect(204);
    world.emulator.stop().await;
    let world = world_with(options()).await;
    assert_eq!(download(&world, &format!("{path}/$value")).await, b"kept");
    let mode = std::fs::metadata(directory.path().join("emulator.log")).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds rows");
    world.delete(&format!("wr_orders({id})"), &[]).await.expect(204);
    assert_eq!(world.get("fileattachments").await.json()["value"], json!([]));
}
