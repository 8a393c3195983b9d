//! Webhooks and messages to service endpoints.

use std::sync::{Arc, Mutex};

use flowgate_emulator::Options;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::batches::{batch, part};
use crate::support::{World, send, targets, world, world_with};

/// What a receiver got: the request line with its headers, and the body.
type Received = (String, Json);

/// A receiver that answers with the statuses it was given, then with 200.
struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    async fn start(statuses: &[u16]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, statuses) = (Arc::clone(&received), statuses.to_vec());
        let mut statuses = statuses.into_iter();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let status = statuses.next().unwrap_or(200);
                answer(stream, status, &kept).await;
            }
        });
        Receiver { url, received }
    }

    fn all(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }
}

async fn answer(mut stream: TcpStream, status: u16, kept: &Mutex<Vec<Received>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        stream.read_buf(&mut bytes).await.expect("a request");
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|text| text.parse::<usize>().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            break (head, bytes.split_off(end + 4));
        }
    };
    kept.lock().expect("no panic").push((head, serde_json::from_slice(&body).expect("a context")));
    let answered = stream
        .write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
        .await;
    answered.expect("the caller is there");
}

async fn id_where(world: &World, set: &str, filter: &str, column: &str) -> String {
    let path = format!("{set}?$select={column}&$filter={}", filter.replace(' ', "%20"));
    world.get(&path).await.expect(200).json()["value"][0][column].as_str().expect("a row").to_owned()
}

/// Registers a step on the account table; returns its id.
async fn step(world: &World, endpoint: &Json, message: &str, mode: i64, more: &Json) -> String {
    let endpoint = world.post("serviceendpoints", endpoint).await.expect(204).id();
    let message_id = id_where(world, "sdkmessages", &format!("name eq '{message}'"), "sdkmessageid").await;
    let filter = format!("primaryobjecttypecode eq 'account' and sdkmessageid/name eq '{message}'");
    let filter = id_where(world, "sdkmessagefilters", &filter, "sdkmessagefilterid").await;
    let mut body = json!({
        "name": format!("tell of {message}"), "stage": 40, "mode": mode,
        "eventhandler@odata.bind": format!("/serviceendpoints({endpoint})"),
        "sdkmessageid@odata.bind": format!("/sdkmessages({message_id})"),
        "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({filter})"),
    });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    world.post("sdkmessageprocessingsteps", &body).await.expect(204).id()
}

fn webhook(url: &str) -> Json {
    json!({ "name": "hook", "contract": 8, "url": url, "authtype": 4, "authvalue": "s e" })
}

/// Waits until system jobs are done; bounded by the number of looks.
async fn jobs_done(world: &World) -> Vec<Json> {
    for _ in 0..2000 {
        let jobs =
            world.get("asyncoperations?$filter=operationtype eq 1&$select=statecode,statuscode,message").await.json();
        let jobs = jobs["value"].as_array().expect("jobs").clone();
        if jobs.iter().all(|job| job["statecode"] == 3) {
            return jobs;
        }
        tokio::task::yield_now().await;
    }
    panic!("jobs do not end");
}

#[tokio::test]
async fn an_asynchronous_webhook_gets_the_documented_request() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let step = step(&world, &webhook(&receiver.url), "Create", 1, &json!({})).await;
    let account = world.post("accounts", &json!({ "name": "A", "revenue": 125.5 })).await.expect(204).id();
    let jobs = jobs_done(&world).await;
    assert_eq!((jobs.len(), &jobs[0]["statuscode"]), (1, &json!(30)));
    let (head, body) = receiver.all().pop().expect("a call");
    assert!(head.starts_with("post /hook?code=s%20e "), "{head}");
    for line in [
        "x-ms-dynamics-entity-name: account",
        "x-ms-dynamics-request-name: create",
        "x-ms-dynamics-organization: 127.0.0.1",
        "x-ms-correlation-request-id: ",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!((&body["MessageName"], &body["Mode"], &body["Stage"]), (&json!("Create"), &json!(1), &json!(40)));
    assert_eq!((&body["PrimaryEntityId"], &body["OwningExtension"]["Id"]), (&json!(account), &json!(step)));
    let attributes = body["InputParameters"][0]["value"]["Attributes"].as_array().expect("attributes").clone();
    let of = |name: &str| attributes.iter().find(|item| item["key"] == name).map(|item| item["value"].clone());
    assert_eq!(of("name"), Some(json!("A")));
    assert_eq!(of("revenue").expect("money")["Value"], 125.5);
    assert_eq!(of("ownerid").expect("a lookup")["LogicalName"], "systemuser");
    assert!(of("createdon").expect("a date").as_str().expect("text").starts_with("/Date("));
    assert_eq!(body["PostEntityImages"][0]["key"], "AsynchronousStepPrimaryName");
    let endpoint = world.get("serviceendpoints").await.json();
    assert!(endpoint["value"][0].get("authvalue").is_none(), "the secret cannot be read back");
}

#[tokio::test]
async fn an_update_tells_only_of_columns_that_were_sent() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let account = world.post("accounts", &json!({ "name": "A" })).await.expect(204).id();
    let more = json!({ "filteringattributes": "telephone1,fax", "asyncautodelete": true });
    step(&world, &webhook(&receiver.url), "Update", 1, &more).await;
    let path = format!("accounts({account})");
    world.patch(&path, &[("if-match", "*")], &json!({ "name": "B" })).await.expect(204);
    world.patch(&path, &[("if-match", "*")], &json!({ "telephone1": "1" })).await.expect(204);
    assert!(jobs_done(&world).await.is_empty(), "a job that succeeded is deleted");
    let received = receiver.all();
    assert_eq!(received.len(), 1);
    let attributes = received[0].1["InputParameters"][0]["value"]["Attributes"].as_array().expect("attributes").clone();
    let mut names: Vec<&str> = attributes.iter().map(|item| item["key"].as_str().expect("a key")).collect();
    names.sort_unstable();
    assert_eq!(names, ["accountid", "modifiedby", "modifiedon", "telephone1"]);
}

#[tokio::test]
async fn a_synchronous_webhook_can_stop_the_request() {
    let world = world().await;
    let receiver = Receiver::start(&[200, 400, 503, 200, 503, 503]).await;
    step(&world, &webhook(&receiver.url), "Create", 0, &json!({})).await;
    let id = world.post("accounts", &json!({ "name": "taken" })).await.expect(204).id();
    assert_eq!(receiver.all()[0].1["PrimaryEntityId"], id, "the row told of is the row made");
    let version = world.stats().await["version"].clone();
    world.post("accounts", &json!({ "name": "refused" })).await.refused(400, "0x80050201");
    assert_eq!(world.stats().await["version"], version, "nothing of a refused request stays");
    world.post("accounts", &json!({ "name": "second try" })).await.expect(204);
    world.post("accounts", &json!({ "name": "no third try" })).await.refused(400, "0x80050201");
    let bypass = [("mscrm.bypassbusinesslogicexecution", "CustomSync")];
    world.post_with("accounts", &bypass, &json!({ "name": "bypassed" })).await.expect(204);
    assert_eq!(receiver.all().len(), 6);
}

#[tokio::test]
async fn each_row_and_each_part_is_told_of_by_itself() {
    let world = world().await;
    let receiver = Receiver::start(&[200, 200, 500]).await;
    step(&world, &webhook(&receiver.url), "Create", 0, &json!({})).await;
    let rows = targets("account", vec![json!({ "name": "1" }), json!({ "name": "2" })]);
    world.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", &rows).await.expect(200);
    let body = format!(
        "{}{}--b--\n",
        part("POST /api/data/v9.2/accounts", "{\"name\":\"vetoed\"}"),
        part("POST /api/data/v9.2/accounts", "{\"name\":\"kept\"}")
    );
    let reply = batch(&world, &[("prefer", "odata.continue-on-error")], &body).await.expect(200);
    assert!(reply.text.contains("0x80050201") && reply.text.contains("204 No Content"), "{}", reply.text);
    let names = world.get("accounts?$select=name&$orderby=name").await.json();
    let names: Vec<&Json> = names["value"].as_array().expect("rows").iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["1", "2", "kept"]);
}

#[tokio::test]
async fn a_failed_call_and_an_address_out_of_reach_are_in_the_job() {
    let world = world().await;
    let receiver = Receiver::start(&[404]).await;
    step(&world, &webhook(&receiver.url), "Delete", 1, &json!({})).await;
    step(&world, &webhook("https://example.invalid/x"), "Delete", 1, &json!({})).await;
    let id = world.post("accounts", &json!({ "name": "A" })).await.expect(204).id();
    world.delete(&format!("accounts({id})"), &[]).await.expect(204);
    let jobs = jobs_done(&world).await;
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|job| job["statuscode"] == 31), "{jobs:?}");
    let messages = format!("{jobs:?}");
    assert!(messages.contains("Status: 404") && messages.contains("http:// addresses only"), "{messages}");
    assert_eq!(receiver.all()[0].1["InputParameters"][0]["value"]["LogicalName"], "account");
}

#[tokio::test]
async fn a_large_context_loses_its_members() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    step(&world, &webhook(&receiver.url), "Create", 1, &json!({})).await;
    world.order_table().await;
    let body = json!({ "@odata.type": "Microsoft.Dynamics.CRM.MemoAttributeMetadata", "SchemaName": "wr_Long", "MaxLength": 1_000_000, "DisplayName": crate::support::label("Long") });
    world.post("EntityDefinitions(LogicalName='account')/Attributes", &body).await.expect(204);
    world.post("accounts", &json!({ "name": "A", "wr_long": "x".repeat(300_000) })).await.expect(204);
    jobs_done(&world).await;
    let (head, body) = receiver.all().pop().expect("a call");
    assert!(head.contains("x-ms-dynamics-msg-size-exceeded"), "{head}");
    assert!(body.get("InputParameters").is_none() && body["PrimaryEntityName"] == "account");
}

#[tokio::test]
async fn messages_for_the_bus_are_kept_or_posted_until_they_arrive() {
    let world = world_with(Options { time_scale: 5000.0, ..Options::default() }).await;
    let queue =
        json!({ "name": "queue", "contract": 2, "messageformat": 2, "namespaceaddress": "sb://x", "path": "q" });
    step(&world, &queue, "Create", 1, &json!({})).await;
    let receiver = Receiver::start(&[500, 500]).await;
    let sink = json!({ "name": "sink", "contract": 7, "messageformat": 2, "namespaceaddress": receiver.url });
    step(&world, &sink, "Create", 1, &json!({})).await;
    world.post("accounts", &json!({ "name": "A" })).await.expect(204);
    let mut looks = 0;
    while receiver.all().len() < 3 {
        looks += 1;
        assert!(looks < 100_000, "the third try does not come");
        tokio::task::yield_now().await;
    }
    let jobs = jobs_done(&world).await;
    assert!(jobs.iter().all(|job| job["statuscode"] == 30), "{jobs:?}");
    let kept = send(world.client.get(format!("{}/__emulator/events", world.root))).await.expect(200).json();
    assert_eq!(
        (&kept["events"][0]["endpoint"], &kept["events"][0]["body"]["MessageName"]),
        (&json!("queue"), &json!("Create"))
    );
    let (head, _) = receiver.all().pop().expect("a call");
    assert!(head.contains("brokerproperties: ") && head.contains("claims/entitylogicalname"), "{head}");
}
