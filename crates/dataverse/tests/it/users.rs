//! Several application users of one connection.

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::{CancellationToken, Destination, Operation, Secret};
use flowgate_dataverse::budget::Role;
use flowgate_dataverse::{Credential, Dataverse, DataverseOptions, UserOptions};
use flowgate_emulator::{Emulator, Options, ProfileName, Ready};
use flowgate_http::{HttpClient, HttpOptions, Origin, Request, SystemClock};
use serde_json::{Value, json};

use crate::fake::{Fake, FaultKind, Reply};
use crate::support::{connect_with, options, unit};

const SECOND_APPLICATION: &str = "0c9f1f1b-9a3e-4c0c-8f4b-3a5d2f0d7a11";
const TIME_SCALE: f64 = 50.0;

fn user(key: &str, role: Role, client_id: &str, secret: &str, token_url: &str) -> UserOptions {
    let credential = Credential::ClientSecret {
        token_url: Some(token_url.to_owned()),
        client_id: client_id.to_owned(),
        secret: Secret::new(secret),
    };
    UserOptions { key: Some(key.to_owned()), role, credential }
}

/// A plain client of the emulator.
async fn send(ready: &Ready, method: &str, path: &str, body: &Value) -> Value {
    let base = url::Url::parse(&ready.url).unwrap();
    let origin = Origin::of(&base).unwrap();
    let client = HttpClient::new(HttpOptions::to(vec![origin.clone()])).unwrap();
    let mut request = Request::new(method.parse().unwrap(), base.join(path).unwrap());
    request.bearer = Some((Secret::new(&ready.token), origin));
    request.headers.insert("content-type", "application/json".parse().unwrap());
    request.body = body.to_string().into();
    let answer = client.send(request).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

async fn environment() -> Emulator {
    let options =
        Options { profile: ProfileName::Realistic, servers: Some(1), time_scale: TIME_SCALE, ..Options::default() };
    Emulator::start(options).await.unwrap()
}

fn with_users(ready: &Ready, users: Vec<UserOptions>) -> Arc<Dataverse> {
    let fixed = Credential::Token(Secret::default());
    let options = DataverseOptions { users, time_scale: TIME_SCALE, ..DataverseOptions::new(&ready.url, fixed) };
    Dataverse::connect(options, Arc::new(SystemClock::new(1.0))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_limits_of_its_own_and_interactive_requests_may_have_a_user() {
    let emulator = environment().await;
    let ready = emulator.ready();
    let desk = json!({ "applicationid": SECOND_APPLICATION, "firstname": "Service", "lastname": "desk" });
    send(ready, "POST", "/api/data/v9.2/systemusers", &desk).await;
    let (secret, token_url) = (ready.client_secret.as_str(), ready.token_url.as_str());
    let nightly = user("nightly", Role::Batch, &ready.client_id, secret, token_url);
    let desk = user("desk", Role::Urgent, SECOND_APPLICATION, secret, token_url);
    let dataverse = with_users(ready, vec![nightly, desk]);
    let rows: Vec<_> = (0..200).map(|number| (format!("A-{number}"), "Depot")).collect();
    let rows: Vec<_> = rows.iter().map(|(number, name)| (number.as_str(), *name)).collect();
    let unit = unit(&dataverse, Operation::Create, &rows).await;
    assert!(unit.shape.owner.is_none(), "only one of them creates");
    let outcomes =
        dataverse.write(unit, Class::Batch, Duration::from_hours(1), &CancellationToken::new()).await.unwrap();
    assert_eq!(outcomes.len(), 200);
    // Metadata was read by the one, rows were written by the other.
    let lanes = dataverse.budget().lanes;
    let used = |user: u16| lanes.iter().filter(|lane| lane.user == user).map(|lane| lane.used_s).sum::<f64>();
    assert!(used(0) > 1.0 && used(1) > 0.1, "{lanes:?}");
    let urgent: Vec<_> = lanes.iter().map(|lane| (lane.user, lane.urgent_s > 0.0)).collect();
    assert!(urgent.contains(&(1, true)), "{lanes:?}");
    let busy = send(ready, "GET", "/__emulator/stats", &Value::Null).await["busy"].clone();
    assert!(busy.to_string().matches("user").count() >= 2, "{busy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_users_that_create_need_an_owner() {
    let emulator = environment().await;
    let ready = emulator.ready();
    let second = json!({ "applicationid": SECOND_APPLICATION, "firstname": "Nightly", "lastname": "two" });
    send(ready, "POST", "/api/data/v9.2/systemusers", &second).await;
    let (secret, token_url) = (ready.client_secret.as_str(), ready.token_url.as_str());
    let one = user("one", Role::All, &ready.client_id, secret, token_url);
    let two = user("two", Role::All, SECOND_APPLICATION, secret, token_url);
    let dataverse = with_users(ready, vec![one, two]);
    assert!(dataverse.describe("account").await.unwrap().owner.is_some());
    assert!(
        dataverse.describe("transactioncurrency").await.unwrap().owner.is_none(),
        "the organisation's tables have none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_the_environment_does_not_know_is_named_and_its_secret_is_not() {
    let emulator = environment().await;
    let ready = emulator.ready();
    let (secret, token_url) = (ready.client_secret.as_str(), ready.token_url.as_str());
    let good = || user("nightly", Role::All, &ready.client_id, secret, token_url);
    let stranger = user("desk", Role::All, SECOND_APPLICATION, secret, token_url);
    let error = with_users(ready, vec![good(), stranger]).describe("account").await.unwrap_err();
    assert!(
        error.to_string().starts_with("user `desk`: signing in to the environment was refused with status 403"),
        "{error}"
    );
    let wrong = user("desk", Role::All, SECOND_APPLICATION, "s3cret", token_url);
    let error = with_users(ready, vec![good(), wrong]).describe("account").await.unwrap_err();
    assert!(error.to_string().starts_with("user `desk`: sign-in was refused: `invalid_client`"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn tokens_are_renewed_each_by_itself() {
    let fake = Fake::start().await;
    let token = json!({"token_type": "Bearer", "expires_in": 3_600_000, "access_token": "first"});
    fake.state().pages.push(("/token".to_owned(), Reply::json(200, &token)));
    let token_url = format!("{}/token", fake.url);
    let users = vec![user("a", Role::All, "app-a", "x", &token_url), user("b", Role::All, "app-b", "y", &token_url)];
    let dataverse = connect_with(DataverseOptions { users, ..options(&fake) });
    fake.fail("EntityDefinitions", FaultKind::Reply(Reply::error(401, "0x8004a101", "expired")));
    dataverse.describe("account").await.unwrap();
    let forms = fake.state().bodies.clone();
    let of = |client: &str| forms.iter().filter(|form| form.contains(&format!("client_id={client}&"))).count();
    let counts = [of("app-a"), of("app-b")];
    assert!(counts == [1, 2] || counts == [2, 1], "{counts:?}");
}
