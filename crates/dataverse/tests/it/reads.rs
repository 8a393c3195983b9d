//! Reading current rows, and tables as streams.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, StringArray};
use flowgate_core::destination::{Class, Selection};
use flowgate_core::source::{Image, Reading};
use flowgate_core::{Batch, CancellationToken, Code, ConnectorError, Cursor, Destination};
use flowgate_dataverse::{Dataverse, TableRead};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::fake::{Fake, FaultKind, Reply};
use crate::support::{connect, id, shown};

fn page(fake: &Fake, on: &str, body: &Value) {
    fake.state().pages.push((on.to_owned(), Reply::json(200, body)));
}

async fn read(dataverse: &Dataverse, selection: Selection) -> Result<Vec<String>, ConnectorError> {
    let shape = dataverse.describe("account").await?;
    let columns = vec!["name".to_owned(), "accountnumber".to_owned()];
    let batches: Vec<RecordBatch> =
        dataverse.read_current(shape, columns, selection, Class::Batch).await?.try_collect().await?;
    let names = batches.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten().map(str::to_owned));
    Ok(names.collect())
}

#[tokio::test]
async fn pages_are_followed_verbatim_with_the_same_preferences() {
    let fake = Fake::start().await;
    let next = format!("{}/api/data/v9.2/accounts?$skiptoken=%3Ccookie%20pagenumber=%222%22/%3E", fake.url);
    page(&fake, "$skiptoken=%3Ccookie%20pagenumber=%222%22/%3E", &json!({"value": [{"name": "two"}]}));
    page(&fake, "accounts?$select", &json!({"value": [{"name": "one"}], "@odata.nextLink": next}));
    assert_eq!(read(&connect(&fake), Selection::All).await.unwrap(), ["one", "two"]);
    assert_eq!(fake.state().headers["prefer"], "odata.maxpagesize=5000");
}

#[tokio::test]
async fn a_link_to_another_host_is_not_followed() {
    let fake = Fake::start().await;
    let link = "https://evil.example/api/data/v9.2/accounts?$skiptoken=x";
    page(&fake, "accounts?$select", &json!({"value": [], "@odata.nextLink": link}));
    insta::assert_snapshot!(shown(&read(&connect(&fake), Selection::All).await.unwrap_err()), @r"
    FG0106: a request to `https://evil.example` was refused: it is not an address of this connection
      hint: an answer named a link outside this connection; a proxy that rewrites answers does that
    ");
}

#[tokio::test]
async fn a_link_that_repeats_ends_the_read() {
    let fake = Fake::start().await;
    let next = format!("{}/api/data/v9.2/accounts?$select=again", fake.url);
    page(&fake, "accounts?$select", &json!({"value": [], "@odata.nextLink": next}));
    let error = read(&connect(&fake), Selection::All).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::UNEXPECTED_ANSWER, "the service names the same next page again")
    );
}

#[tokio::test]
async fn rows_are_found_by_id_and_by_key() {
    let fake = Fake::start().await;
    for number in 1..=3 {
        let row =
            json!({"accountid": id(number), "accountnumber": format!("N{number}"), "name": format!("name {number}")});
        fake.state().rows.insert(id(number).to_string(), row.as_object().unwrap().clone());
    }
    let dataverse = connect(&fake);
    assert_eq!(read(&dataverse, Selection::Ids(vec![id(2), id(9)])).await.unwrap(), ["name 2"]);
    let keys: StringArray = [Some("N3"), None, Some("N1")].into_iter().collect();
    let keys = RecordBatch::try_from_iter_with_nullable([("accountnumber", Arc::new(keys) as _, true)]).unwrap();
    assert_eq!(read(&dataverse, Selection::Keys(keys)).await.unwrap(), ["name 1", "name 3"]);
    let shape = dataverse.describe("account").await.unwrap();
    assert_eq!(dataverse.probe(&shape, &[id(9), id(3)]).await.unwrap(), [id(3)]);
    assert!(fake.state().requests.iter().all(|request| !request.contains('"')), "quotes are encoded");
}

async fn open(dataverse: &Dataverse, cursor: Option<Cursor>) -> Result<(Image, Vec<Batch>), ConnectorError> {
    let columns = vec!["name".to_owned()];
    let cancel = CancellationToken::new();
    let reading: Reading =
        dataverse.read_table(TableRead { table: "account".to_owned(), columns, cursor, cancel }).await?;
    Ok((reading.image, reading.batches.try_collect().await?))
}

#[tokio::test]
async fn a_table_is_read_whole_and_then_by_its_changes() {
    let fake = Fake::start().await;
    let link = |token: &str| format!("{}/api/data/v9.2/accounts?$select=accountid,name&$deltatoken={token}", fake.url);
    let deleted = json!({"@odata.context": "x#accounts/$deletedEntity", "id": id(2), "reason": "deleted"});
    page(
        &fake,
        "$deltatoken=1",
        &json!({"value": [{"accountid": id(1), "name": "changed"}, deleted], "@odata.deltaLink": link("2")}),
    );
    page(&fake, "$deltatoken=2", &json!({"value": []}));
    page(
        &fake,
        "accounts?$select",
        &json!({"value": [{"accountid": id(1), "name": "a"}], "@odata.deltaLink": link("1")}),
    );
    let dataverse = connect(&fake);

    let (image, batches) = open(&dataverse, None).await.unwrap();
    assert_eq!((image, batches.len(), batches[0].upserts.num_rows()), (Image::Whole, 1, 1));
    assert!(fake.state().headers["prefer"].contains("odata.maxpagesize=5000"));

    let (image, batches) = open(&dataverse, batches[0].cursor.clone()).await.unwrap();
    let deletes = batches[0].deletes.as_ref().unwrap();
    assert_eq!((image, deletes.column(0).as_string::<i32>().value(0)), (Image::Changes, id(2).to_string().as_str()));
    let second = batches[0].cursor.clone();
    assert!(second.is_some());

    let (_, batches) = open(&dataverse, second.clone()).await.unwrap();
    assert_eq!(batches[0].cursor, second, "without a new link the old one stays");
}

#[tokio::test]
async fn an_expired_token_or_other_columns_mean_a_whole_read() {
    let fake = Fake::start().await;
    let link = format!("{}/api/data/v9.2/accounts?$deltatoken=1", fake.url);
    page(&fake, "accounts?$select", &json!({"value": [{"accountid": id(1), "name": "a"}], "@odata.deltaLink": link}));
    let dataverse = connect(&fake);
    let (_, batches) = open(&dataverse, None).await.unwrap();
    let cursor = batches[0].cursor.clone().unwrap();
    let expired = Reply::error(410, "0x80044352", "Version stamp associated with the client has expired.");
    fake.fail("$deltatoken", FaultKind::Reply(expired));
    assert_eq!(open(&dataverse, Some(cursor.clone())).await.unwrap().0, Image::Whole);
    let other = Cursor(cursor.0.replace("\"name\"", "\"accountnumber\""));
    assert_eq!(open(&dataverse, Some(other)).await.unwrap().0, Image::Whole);
    assert_eq!(fake.count("$deltatoken"), 1);
}

#[tokio::test]
async fn tables_are_discovered_with_their_keys() {
    let fake = Fake::start().await;
    let streams = connect(&fake).discover_tables().await.unwrap();
    assert_eq!(
        (streams.len(), streams[0].name.as_str(), streams[0].key.as_slice()),
        (1, "account", ["accountid".to_owned()].as_slice())
    );
    assert_eq!(streams[0].settings, json!({"table": "account"}));
}

#[tokio::test]
async fn a_read_that_ends_before_the_counted_rows_came_is_no_read() {
    let fake = Fake::start().await;
    page(&fake, "accounts?$select", &json!({"@odata.count": 3, "value": [{"name": "one"}]}));
    let error = read(&connect(&fake), Selection::All).await.unwrap_err();
    assert_eq!(error.code, Code::UNEARNED_ANSWER);
    assert!(error.message.ends_with("ended after 1 rows, and the service counts 3"), "{}", error.message);
}

#[tokio::test]
async fn a_page_that_is_about_something_else_is_asked_for_again() {
    for lie in [
        json!({"@odata.context": "http://x/api/data/v9.2/$metadata#contacts", "value": []}),
        json!({"error": {"code": "0x80040216", "message": "An unexpected error occurred."}}),
    ] {
        let fake = Fake::start().await;
        let dataverse = connect(&fake);
        dataverse.describe("account").await.unwrap();
        fake.state().rows.insert(id(1).to_string(), json!({"name": "one"}).as_object().unwrap().clone());
        fake.fail("GET accounts", FaultKind::Reply(Reply::json(200, &lie)));
        assert_eq!(read(&dataverse, Selection::All).await.unwrap(), ["one"], "{lie}");
        assert_eq!(fake.count("GET accounts"), 2, "{lie}");
    }
}
