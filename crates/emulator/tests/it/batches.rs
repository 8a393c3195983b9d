//! `$batch`.

use reqwest::Method;

use crate::support::{Reply, World, send, world};

pub(crate) async fn batch(world: &World, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = world.request(Method::POST, "$batch").header("content-type", "multipart/mixed; boundary=\"b\"");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(body.replace('\n', "\r\n"))).await
}

/// One part outside a change set.
pub(crate) fn part(request: &str, body: &str) -> String {
    format!(
        "--b\nContent-Type: application/http\nContent-Transfer-Encoding: binary\n\n{request} HTTP/1.1\nContent-Type: application/json\n\n{body}\n"
    )
}

/// A change set of (content id, request line, body).
pub(crate) fn change_set(parts: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("--b\nContent-Type: multipart/mixed; boundary=c\n\n");
    for (id, request, body) in parts {
        let section = format!(
            "--c\nContent-Type: application/http\nContent-Transfer-Encoding: binary\nContent-ID: {id}\n\n{request} HTTP/1.1\nContent-Type: application/json\n\n{body}\n"
        );
        text.push_str(&section);
    }
    text.push_str("--c--\n");
    text
}

#[tokio::test]
async fn a_change_set_refers_to_its_own_rows() {
    let world = world().await;
    world.order_table().await;
    let body =
        change_set(&[
            ("1", "POST /api/data/v9.2/accounts", r#"{"name":"Contoso"}"#),
            ("2", "POST /api/data/v9.2/wr_orders", r#"{"wr_name":"SO-1","wr_AccountId@odata.bind":"$1"}"#),
            ("3", "PATCH $1", r#"{"accountnumber":"C-1"}"#),
        ]) + &part("GET /api/data/v9.2/wr_orders?$select=wr_name&$expand=wr_AccountId($select=accountnumber)", "")
            + "--b--\n";
    let reply = batch(&world, &[], &body).await.expect(200);
    assert_eq!(reply.text.matches("HTTP/1.1 204").count(), 3, "{}", reply.text);
    assert!(reply.text.contains(r#""accountnumber":"C-1""#), "{}", reply.text);
}
