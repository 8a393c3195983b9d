//! Signing in, the pinned organisation, and what a person reads when the service answers badly.

use flowgate_core::{Code, Destination, Secret};
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions};
use serde_json::json;

use crate::fake::{Fake, FaultKind, ORGANIZATION, Reply};
use crate::support::{SkippingClock, connect, connect_with, options, shown};

async fn described(dataverse: &Dataverse) -> String {
    let text = shown(&dataverse.describe("account").await.unwrap_err());
    // The port differs from run to run.
    match text.split('`').find(|word| word.starts_with("http://127.0.0.1:")) {
        Some(url) => text.replace(url, "http://service"),
        None => text,
    }
}

#[tokio::test]
async fn check_says_what_was_reached() {
    let fake = Fake::start().await;
    let reached = connect(&fake).check().await.unwrap();
    assert_eq!(reached, format!("{}: organization `{ORGANIZATION}`, user `{ORGANIZATION}`", fake.url));
}

#[tokio::test]
async fn another_organization_is_refused_before_anything_else() {
    let fake = Fake::start().await;
    let pinned = uuid::Uuid::from_u128(1);
    let dataverse = connect_with(DataverseOptions { organization: Some(pinned), ..options(&fake) });
    insta::assert_snapshot!(described(&dataverse).await, @r"
    FG0103: `http://service` is organization `5a1c2f8e-0000-4000-8000-000000000003`, and the project is pinned to `00000000-0000-0000-0000-000000000001`
      hint: nothing was sent; compare `url` and `organization` of the connection for this environment
    ");
    assert_eq!(dataverse.requests().sent, 1, "only WhoAmI");
}

#[tokio::test]
async fn the_pinned_organization_is_accepted_whatever_its_case() {
    let fake = Fake::start().await;
    let pinned = uuid::Uuid::parse_str(&ORGANIZATION.to_uppercase()).unwrap();
    let dataverse = connect_with(DataverseOptions { organization: Some(pinned), ..options(&fake) });
    assert_eq!(dataverse.describe("account").await.unwrap().set, "accounts");
}

#[tokio::test]
async fn a_refused_token_is_a_sign_in_error() {
    let fake = Fake::start().await;
    fake.fail("WhoAmI", FaultKind::Reply(Reply::html(401)));
    insta::assert_snapshot!(described(&connect(&fake)).await, @r"
    FG0101: the service refused the configured token
      hint: a fixed token cannot be renewed: use a client id and a secret
    ");
}

#[tokio::test]
async fn a_user_without_a_role_is_told_what_is_missing() {
    let fake = Fake::start().await;
    fake.fail(
        "WhoAmI",
        FaultKind::Reply(Reply::error(403, "0x80072560", "The user is not a member of the organization.")),
    );
    insta::assert_snapshot!(described(&connect(&fake)).await, @r"
    FG0102: signing in to the environment was refused with status 403 (0x80072560 UserNotMemberOfOrg): The user is not a member of the organization.
      hint: give the application user a security role with this privilege; it must exist as an application user in the environment
      hint: the service's request id is `req-1`
    ");
}

#[tokio::test]
async fn an_address_without_a_web_api_is_told_apart_from_a_missing_table() {
    let fake = Fake::start().await;
    fake.fail("WhoAmI", FaultKind::Reply(Reply::html(404)));
    insta::assert_snapshot!(described(&connect(&fake)).await, @r"
    FG0106: `http://service` has no Web API there: status 404, the answer was a web page
      hint: check `url`: it is the address of the environment, such as `https://agency.crm11.dynamics.com`
    ");
    let error = connect(&fake).describe("wr_none").await.unwrap_err();
    insta::assert_snapshot!(shown(&error), @r"
    FG0300: the environment has no table `wr_none`
      hint: write the logical name (`incident`), or create the table with `flowgate provision`
    ");
}

#[tokio::test]
async fn a_sign_in_page_instead_of_data_is_named() {
    let fake = Fake::start().await;
    fake.fail("WhoAmI", FaultKind::Reply(Reply::html(200)));
    insta::assert_snapshot!(described(&connect(&fake)).await, @r"
    FG0106: `http://service` answered with something that is not data (status 200)
      hint: a proxy, a sign-in page or a wrong address does that: check `url`
    ");
    fake.fail("WhoAmI", FaultKind::Reply(Reply::html(302).with("location", "https://login.example/")));
    insta::assert_snapshot!(described(&connect(&fake)).await, @r"
    FG0106: `http://service` answered with a redirect (status 302)
      hint: a proxy, a sign-in page or a wrong address does that: check `url`
    ");
}

#[tokio::test]
async fn a_service_that_keeps_failing_ends_the_tries() {
    let fake = Fake::start().await;
    for _ in 0..3 {
        fake.fail("WhoAmI", FaultKind::Reply(Reply::html(500)));
    }
    let dataverse = connect(&fake);
    insta::assert_snapshot!(described(&dataverse).await, @r"
    FG0105: a request was refused with status 500: the answer was a web page
      hint: run again later: the run continues where it stopped
    ");
    assert_eq!(dataverse.requests().sent, 3);
}

#[tokio::test]
async fn throttling_and_short_outages_are_waited_out() {
    let fake = Fake::start().await;
    let limit =
        Reply::error(429, "0x80072322", "Number of requests exceeded the limit of 6000.").with("retry-after", "30");
    fake.fail("WhoAmI", FaultKind::Reply(limit.clone()));
    fake.fail("WhoAmI", FaultKind::Reply(Reply::html(503)));
    fake.fail("WhoAmI", FaultKind::CutBefore);
    fake.fail("Keys", FaultKind::Reply(limit.with("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")));
    let dataverse = connect(&fake);
    assert_eq!(dataverse.describe("account").await.unwrap().keys.len(), 1);
    assert_eq!(dataverse.requests().throttled, 2);
}

#[tokio::test]
async fn common_headers_are_sent_and_cookies_are_not() {
    let fake = Fake::start().await;
    connect(&fake).describe("account").await.unwrap();
    let headers = fake.state().headers.clone();
    for (name, value) in [
        ("accept", "application/json"),
        ("odata-version", "4.0"),
        ("odata-maxversion", "4.0"),
        ("if-none-match", "null"),
        ("authorization", "Bearer t0ken"),
    ] {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(headers.contains_key("x-ms-client-request-id") && !headers.contains_key("cookie"));
}

#[tokio::test]
async fn a_shape_is_read_once_and_again_only_when_it_may_have_changed() {
    let fake = Fake::start().await;
    let clock = std::sync::Arc::new(SkippingClock::default());
    let dataverse = Dataverse::connect(options(&fake), std::sync::Arc::clone(&clock) as _).unwrap();
    let first = dataverse.describe("account").await.unwrap();
    let sent = dataverse.requests().sent;
    let again = dataverse.describe("account").await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    assert!(dataverse.requests().sent <= sent + 1, "at most the version was asked for");
    fake.state().version = 2;
    // Longer than a shape counts as fresh.
    clock.skip(std::time::Duration::from_mins(1));
    let changed = dataverse.describe("account").await.unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &changed));
}

fn with_secret(token_url: &str, fake: &Fake) -> std::sync::Arc<Dataverse> {
    let secret = Secret::new("s3cret");
    let token_url = format!("{}{token_url}", fake.url);
    let credential = Credential::ClientSecret { token_url: Some(token_url), client_id: "app".to_owned(), secret };
    connect_with(DataverseOptions { credential, ..options(fake) })
}

#[tokio::test]
async fn a_token_is_fetched_kept_and_renewed_once_when_refused() {
    let fake = Fake::start().await;
    let token = json!({"token_type": "Bearer", "expires_in": 3_600_000, "access_token": "first"});
    fake.state().pages.push(("/token".to_owned(), Reply::json(200, &token)));
    fake.fail("EntityDefinitions", FaultKind::Reply(Reply::error(401, "0x8004a101", "expired")));
    with_secret("/token", &fake).describe("account").await.unwrap();
    assert_eq!(fake.count("/token"), 2);
    let form = fake.state().bodies[0].clone();
    let scope = url::form_urlencoded::byte_serialize(format!("{}/.default", fake.url).as_bytes()).collect::<String>();
    assert_eq!(form, format!("grant_type=client_credentials&client_id=app&client_secret=s3cret&scope={scope}"));
}

#[tokio::test]
async fn a_secret_is_not_sent_where_an_environment_points() {
    let fake = Fake::start().await;
    let challenge = "Bearer authorization_uri=https://login.example.com/tenant/oauth2/authorize, resource_id=x";
    let refusal = Reply::error(401, "0x80048306", "sign in first").with("WWW-Authenticate", challenge);
    fake.fail("GET ", FaultKind::Reply(refusal));
    let secret = Secret::new("s3cret");
    let credential = Credential::ClientSecret { token_url: None, client_id: "app".to_owned(), secret };
    let dataverse = connect_with(DataverseOptions { credential, ..options(&fake) });
    insta::assert_snapshot!(described(&dataverse).await, @r"
    FG0101: the environment sends clients to `login.example.com` to sign in, which is not Entra
      hint: name the tenant: `credential: { tenant: agency.onmicrosoft.com, … }`, or `token_url`
    ");
    assert!(fake.state().bodies.iter().all(|body| !body.contains("s3cret")));
}

#[tokio::test]
async fn a_wrong_secret_is_told_in_the_words_of_the_sign_in_service() {
    let fake = Fake::start().await;
    let refusal = json!({"error": "invalid_client",
        "error_description": "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"});
    fake.state().pages.push(("/token".to_owned(), Reply::json(401, &refusal)));
    insta::assert_snapshot!(described(&with_secret("/token", &fake)).await, @r"
    FG0101: sign-in was refused: `invalid_client` AADSTS7000215: Invalid client secret provided.
      hint: the client id or the secret is wrong, or the secret has expired
    ");
}

#[tokio::test]
async fn an_unusable_setting_is_refused_before_anything_is_sent() {
    let fake = Fake::start().await;
    let clock = std::sync::Arc::new(flowgate_http::SystemClock::new(1.0));
    let zone = DataverseOptions { time_zone: "Europe/Londn".to_owned(), ..options(&fake) };
    let error = Dataverse::connect(zone, clock).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::WRONG_TYPE, "`Europe/Londn` is not a time zone"));
}
