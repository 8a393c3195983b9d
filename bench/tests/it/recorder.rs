//! The recorder between a client and an emulator: everything passes, and what it wrote gives the
//! figures that the emulator counted.

use bytes::Bytes;
use flowgate_bench::{LineClass, Recorder, figures, read};
use flowgate_emulator::{Emulator, Options, ProfileName};
use flowgate_http::{Answer, HttpClient, HttpError, HttpOptions, Origin, Request};
use http::{HeaderValue, Method};

/// So fast that a second of the service takes a hundredth of one.
const TIME_SCALE: f64 = 100.0;

struct Wire {
    http: HttpClient,
    url: String,
    token: String,
}

impl Wire {
    async fn send(&self, method: Method, path: &str, cookie: Option<&str>, body: String) -> Result<Answer, HttpError> {
        let mut request = Request::new(method, format!("{}{path}", self.url).parse().unwrap());
        request.headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", self.token)).unwrap());
        request.headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(cookie) = cookie {
            request.headers.insert("cookie", HeaderValue::from_str(cookie).unwrap());
        }
        request.body = Bytes::from(body);
        self.http.send(request).await
    }

    async fn create(&self, server: u16, rows: usize) -> Result<Answer, HttpError> {
        let row = serde_json::json!({ "@odata.type": "Microsoft.Dynamics.CRM.contact", "lastname": "x" });
        let body = serde_json::json!({ "Targets": vec![row; rows] }).to_string();
        let cookie = format!("ARRAffinity=server-{server}");
        self.send(Method::POST, "/api/data/v9.2/contacts/Microsoft.Dynamics.CRM.CreateMultiple", Some(&cookie), body)
            .await
    }

    async fn control(&self, what: &str, body: serde_json::Value) -> serde_json::Value {
        let method = if body.is_null() { Method::GET } else { Method::POST };
        let answer = self.send(method, &format!("/__emulator/{what}"), None, body.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }
}

#[tokio::test]
async fn what_it_wrote_gives_the_figures_that_the_emulator_counted() {
    let options = Options { profile: ProfileName::Realistic, time_scale: TIME_SCALE, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.jsonl");
    let recorder = Recorder::start(&emulator.ready().url, &file, TIME_SCALE).await.unwrap();
    let origin = Origin::parse(recorder.url()).unwrap();
    let http = HttpClient::new(HttpOptions::to(vec![origin])).unwrap();
    let wire = Wire { http, url: recorder.url().to_owned(), token: emulator.ready().token.clone() };

    for server in [0, 1, 1] {
        assert_eq!(wire.create(server, 200).await.unwrap().status, 200);
    }
    let one = wire.send(Method::POST, "/api/data/v9.2/contacts", None, r#"{"lastname":"x"}"#.to_owned()).await.unwrap();
    assert_eq!(one.status, 204);
    wire.control("limits", serde_json::json!({ "requests": 2 })).await;
    let refused = wire.create(1, 5).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after").is_some()), (429, true));
    wire.control("servers", serde_json::json!({ "server": 3, "down_s": 1e6 })).await;
    assert_eq!(wire.create(3, 5).await.unwrap().status, 503);
    let cut = serde_json::json!([{ "match": { "op": "CreateMultiple" }, "do": "drop_before_commit" }]);
    wire.control("faults", cut).await;
    assert!(wire.create(2, 5).await.is_err(), "a cut connection is cut on this side too");

    let counted = wire.control("stats", serde_json::Value::Null).await;
    let lines = read(&file).unwrap();
    let recorded = figures(&lines);
    assert_eq!((recorded.requests, recorded.refused, recorded.unavailable, recorded.cut), (7, 1, 1, 1), "{lines:#?}");
    assert_eq!(recorded.refused, counted["throttled"]["requests"].as_u64().unwrap());
    assert_eq!(recorded.rows, counted["rows"].as_u64().unwrap());
    assert_eq!(lines.iter().filter(|line| line.class == LineClass::Interactive).count(), 1);
    assert_eq!(lines[4].code.as_deref(), Some("0x80072322"));
    // From outside a request is never shorter than what was charged for it.
    for lane in counted["busy"].as_array().unwrap() {
        let server = format!("ARRAffinity=server-{}", lane["server"]);
        let busy_s: f64 =
            lines.iter().filter(|line| line.lane.as_ref() == Some(&server)).map(|line| line.charged_s).sum();
        assert!(busy_s >= lane["busy_ms"].as_f64().unwrap() / 1_000.0 - 0.2, "{lane} and {busy_s}");
    }
    emulator.stop().await;
}
