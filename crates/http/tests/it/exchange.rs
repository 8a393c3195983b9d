//! What is sent, what is refused, and what an error says about the request.

use flowgate_core::Secret;
use flowgate_http::{HttpClient, HttpError, HttpOptions, Origin, Request};
use http::{Method, StatusCode};
use url::Url;

use crate::support::Server;

fn get(url: &Url) -> Request {
    Request::new(Method::GET, url.clone())
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let server =
        Server::answering("HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n").await;
    let answer = server.client(1_000).send(get(&server.url)).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn no_cookie_is_sent_back() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\nset-cookie: ARRAffinity=1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
    )
    .await;
    let client = server.client(1_000);
    for _ in 0..2 {
        client.send(get(&server.url)).await.unwrap();
    }
    assert!(server.requests().iter().all(|request| !request.to_lowercase().contains("cookie")));
}

#[tokio::test]
async fn an_answer_beyond_its_bound_is_refused_with_or_without_a_length() {
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890", "HTTP/1.1 200 OK\r\n\r\n01234567890"] {
        let server = Server::answering(answer).await;
        let error = server.client(10).send(get(&server.url)).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { bytes_max: 10, .. }), "{error:?}");
        assert!(!error.is_unsent());
    }
}

#[tokio::test]
async fn a_foreign_origin_gets_nothing() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let client = HttpClient::new(HttpOptions::to(vec![Origin::parse("http://127.0.0.1:1").unwrap()])).unwrap();
    let error = client.send(get(&server.url)).await.unwrap_err();
    assert!(matches!(error, HttpError::ForeignOrigin { .. }) && error.is_unsent());
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_token_goes_only_to_its_own_origin() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let home = Origin::parse("https://contoso.crm.dynamics.com").unwrap();
    let mut request = get(&server.url);
    request.bearer = Some((Secret::new("t0ken"), home));
    let error = server.client(1_000).send(request).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("a token for `https://contoso.crm.dynamics.com` was kept from `{}`", server.origin())
    );
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_token_never_travels_in_plain_text() {
    let origin = Origin::parse("http://crm.example").unwrap();
    let client = HttpClient::new(HttpOptions::to(vec![origin.clone()])).unwrap();
    let mut request = get(&Url::parse("http://crm.example/api").unwrap());
    request.bearer = Some((Secret::new("t0ken"), origin));
    assert!(matches!(client.send(request).await, Err(HttpError::PlainText { .. })));
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let client = HttpClient::new(HttpOptions::to(vec![Origin::of(&url).unwrap()])).unwrap();
    let error = client.send(get(&url)).await.unwrap_err();
    assert!(matches!(error, HttpError::NotSent { .. }) && error.is_unsent(), "{error:?}");
}

#[tokio::test]
async fn a_connection_cut_after_the_request_leaves_the_end_unknown() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut"] {
        let server = Server::answering(answer).await;
        let mut request = Request::new(Method::POST, server.url.join("/rows?$filter=secret").unwrap());
        request.body = "x".into();
        let error = server.client(1_000).send(request).await.unwrap_err();
        assert!(matches!(error, HttpError::Unknown { .. }) && !error.is_unsent(), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_certificate_file_without_certificates_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = HttpOptions {
        ca_file: Some(file.path().to_owned()),
        ..HttpOptions::to(vec![Origin::parse("https://a.example").unwrap()])
    };
    let error = HttpClient::new(options).unwrap_err();
    assert!(error.to_string().starts_with("the certificate file `"), "{error}");
}
