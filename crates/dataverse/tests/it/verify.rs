//! Verification against the emulator: with its defaults everything holds; what is switched is seen,
//! written, and makes another emulator behave the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowgate_core::{CancellationToken, Clock, Code, ConnectorError, Destination, Elapsed, Secret};
use flowgate_dataverse::{
    Credential, Dataverse, DataverseOptions, Observations, ProbeOutcome, ProbeResult, Verification, VerifyOptions,
    VerifyStep, not_probed, probes,
};
use flowgate_emulator::{Emulator, Options};
use flowgate_http::{HttpClient, HttpOptions, Origin, Request, SystemClock};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use url::Url;

/// Longer sleeps are time-outs, which must not pass while nothing is late.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Time that passes only while someone waits, for us and for the emulator alike: what is measured
/// then does not depend on how busy this machine is.
#[derive(Debug)]
struct SharedTime {
    waited: Arc<AtomicU64>,
    http: HttpClient,
    url: Url,
    clock: SystemClock,
}

impl SharedTime {
    fn with(emulator: &Emulator) -> Self {
        let url = Url::parse(&format!("{}/__emulator/time", emulator.ready().url)).unwrap();
        let http = HttpClient::new(HttpOptions::to(vec![Origin::of(&url).unwrap()])).unwrap();
        Self { waited: Arc::default(), http, url, clock: SystemClock::new(1.0) }
    }
}

impl Clock for SharedTime {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Elapsed {
        Elapsed::default().after(Duration::from_millis(self.waited.load(Ordering::SeqCst)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration > WAIT_MAX {
            return self.clock.sleep(duration);
        }
        let (http, waited) = (self.http.clone(), Arc::clone(&self.waited));
        let mut request = Request::new(http::Method::POST, self.url.clone());
        request.body = json!({ "skip_s": duration.as_secs_f64() }).to_string().into();
        async move {
            http.send(request).await.unwrap();
            waited.fetch_add(duration.as_millis() as u64, Ordering::SeqCst);
        }
        .boxed()
    }
}

/// Settings that no probe looks at, and why: they are no assumptions about the service.
const NOT_ASSUMPTIONS: [&str; 11] = [
    "administration_mode",
    "organization_type",
    "plugin_ms",
    // Recordings show both, at some place or time; Flowgate reads either.
    "content_id_required",
    "definition_text_filter_status",
    "limit_header_commas",
    "missing_row_names_entity",
    "publish_s",
    "strict_batch_end",
    "zero_error_codes",
    // Flowgate sends no `sql` query in a load.
    "sql_offset_allowed",
];

/// Another value for every setting that has a probe.
pub(crate) fn switched() -> Map<String, Value> {
    let settings = json!({
        "key_delay_s": 60.0,
        "metadata_lag_s": 40.0,
        "bulk_delete_delay_s": 90.0,
        "token_life_s": 7200.0,
        "check_audience": false,
        "challenge": false,
        "affinity_cookie": "OtherAffinity",
        "limit_headers": false,
        "change_tracking_days": 30,
        "round_decimals": false,
        "drop_sub_seconds": false,
        "big_integer_texts": false,
        "defaults_replace_nulls": true,
        "default_currency": false,
        "overridden_created_on": false,
        "null_property_status": 404,
        "empty_file_status": 404,
        "nulls_first": false,
        "sql_top_allowed": false,
        "count_segment_capped": false,
        "expired_delta_status": 410,
        "delta_link_on_every_page": true,
        "delta_token_at_start": false,
        "empty_delta_link": false,
        "delta_page_size": false,
        "unresolved_bind_status": 400,
        "key_violation_status": 400,
        "duplicate_id_status": 409,
        "if_match_missing_status": 412,
        "update_multiple_no_content": false,
        "update_multiple_by_key": false,
        "bulk_any_key_text": true,
        "null_bind_clears": false,
        "nested_change_set_error": false,
        "create_inactive": false,
        "check_lookups": false,
        "bypass_allowed": false,
        "bypass_refused_status": 400,
        "bypass_step_ids_max": 5,
        "impersonation_allowed": false,
        "body_bytes_max": 2 << 20,
    });
    serde_json::from_value(settings).unwrap()
}

struct Place {
    emulator: Emulator,
    dataverse: Arc<Dataverse>,
}

async fn start(file: Option<&Path>) -> Place {
    let options = Options { settings: file.map(Path::to_owned), ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let ready = emulator.ready();
    let credential = Credential::ClientSecret {
        token_url: Some(ready.token_url.clone()),
        client_id: ready.client_id.clone(),
        secret: Secret::new(&ready.client_secret),
    };
    let options = DataverseOptions {
        solution: Some("agency_integration".to_owned()),
        ..DataverseOptions::new(&ready.url, credential)
    };
    let dataverse = Dataverse::connect(options, Arc::new(SharedTime::with(&emulator))).unwrap();
    Place { emulator, dataverse }
}

impl Place {
    async fn verify(&self, options: VerifyOptions) -> Result<Verification, ConnectorError> {
        self.dataverse.verify(&options, &CancellationToken::new(), &|_| {}).await
    }

    /// A control request to the emulator.
    async fn control(&self, method: http::Method, path: &str, body: Value) -> Value {
        let url = Url::parse(&format!("{}/__emulator/{path}", self.emulator.ready().url)).unwrap();
        let client = HttpClient::new(HttpOptions::to(vec![Origin::of(&url).unwrap()])).unwrap();
        let mut request = Request::new(method, url);
        request.body = body.to_string().into();
        serde_json::from_slice(&client.send(request).await.unwrap().body).unwrap()
    }

    /// Whether any scratch table is there.
    async fn has_scratch_table(&self) -> bool {
        let stats = self.control(http::Method::GET, "stats", Value::Null).await;
        stats["table_rows"].as_object().unwrap().keys().any(|table| table.contains("flowgatescratch"))
    }
}

fn large() -> VerifyOptions {
    VerifyOptions { with_large: true, ..VerifyOptions::default() }
}

fn not_held(results: &[ProbeResult]) -> BTreeMap<&str, String> {
    let others = results.iter().filter(|result| result.outcome != ProbeOutcome::Held);
    others.map(|result| (result.probe.name, format!("{}: {}", result.outcome.words(), result.seen))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn against_the_emulator_every_probe_holds() {
    let place = start(None).await;
    let found = place.verify(large()).await.unwrap();
    let mut others = not_held(&found.results);
    // The emulator's user holds the privilege, so nobody is refused for want of it.
    assert!(others.remove("bypass_refused_status").is_some_and(|said| said.starts_with("not observable")));
    assert_eq!(others, BTreeMap::new());
    assert_eq!((found.results.len(), found.is_interrupted), (probes().len(), false));
    assert!(found.left_behind.is_none() && found.leftovers.is_empty() && !place.has_scratch_table().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_is_seen_written_and_imitated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switched.json");
    let mut wanted = switched();
    // Who may not bypass anything cannot be told how many steps; switched alone it is seen, below.
    wanted.remove("bypass_step_ids_max");
    let file = json!({"version": 1, "settings": wanted, "servers": 2});
    fs_err::write(&path, file.to_string()).unwrap();
    let first = start(Some(&path)).await;
    let found = first.verify(large()).await.unwrap();
    for result in found.results.iter().filter(|result| wanted.contains_key(result.probe.name)) {
        let name = result.probe.name;
        assert_eq!(result.outcome, ProbeOutcome::Differs, "{name}: {}", result.seen);
        let seen = result.value.clone().unwrap_or_else(|| panic!("{name}: {}", result.seen));
        // Measured times are nearly what was set; everything else is exactly that.
        if name.ends_with("_s") && name != "token_life_s" {
            let apart = seen.as_f64().unwrap() - wanted[name].as_f64().unwrap();
            assert!(apart.abs() < 10.0, "{name}: {seen}");
        } else {
            assert_eq!(seen.as_f64(), wanted[name].as_f64(), "{name}");
            assert!(seen.is_number() || seen == wanted[name], "{name}: {seen}");
        }
    }
    assert!(!first.has_scratch_table().await);

    let text = found.observations().to_text().unwrap();
    let ready = first.emulator.ready();
    for telling in [&ready.url, &ready.tenant, &ready.client_id, &ready.client_secret, &ready.organization] {
        assert!(!text.contains(telling.as_str()));
    }
    let imitated = dir.path().join("observed.json");
    fs_err::write(&imitated, &text).unwrap();
    let second = start(Some(&imitated)).await;
    let expected = Some(Observations::from_text(&text).unwrap());
    let again = second.verify(VerifyOptions { expected, ..large() }).await.unwrap();
    let of_settings: Vec<_> =
        again.results.into_iter().filter(|result| wanted.contains_key(result.probe.name)).collect();
    assert_eq!(not_held(&of_settings), BTreeMap::new());
}

/// Probes that see nothing, or something else, because of another's setting.
fn companions(name: &str) -> &'static [&'static str] {
    if name == "default_currency" { &["money_companions"] } else { &[] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_seen_by_its_own_probe_and_by_no_other() {
    let place = start(None).await;
    for (name, value) in &switched() {
        if ["body_bytes_max", "count_segment_capped", "change_tracking_days", "bypass_refused_status"]
            .contains(&name.as_str())
        {
            continue;
        }
        place.control(http::Method::POST, "reset", json!({})).await;
        place.control(http::Method::POST, "settings", json!({ name.as_str(): value })).await;
        let found = place.verify(VerifyOptions::default()).await.unwrap();
        let differing: Vec<&str> = found
            .results
            .iter()
            .filter(|result| result.outcome == ProbeOutcome::Differs)
            .map(|result| result.probe.name)
            .filter(|found| !companions(name).contains(found))
            .collect();
        assert_eq!(differing, [name.as_str()]);
    }
}

#[tokio::test]
async fn every_setting_has_a_probe_and_another_value_here() {
    let place = start(None).await;
    let settings = place.control(http::Method::GET, "settings", Value::Null).await;
    let switched = switched();
    let probed: BTreeMap<&str, Value> =
        probes().into_iter().filter(|probe| probe.is_setting).map(|probe| (probe.name, probe.assumed)).collect();
    let settings: BTreeMap<&str, &Value> =
        settings.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value)).collect();
    for (name, value) in &settings {
        assert!(probed.contains_key(name) || NOT_ASSUMPTIONS.contains(name), "`{name}` has no probe");
        if let Some(assumed) = probed.get(name) {
            assert!(*value == assumed || value.as_f64() == assumed.as_f64() && value.is_number(), "{name}: {value}");
            let other = switched.get(*name).unwrap_or_else(|| panic!("`{name}` is not switched"));
            assert_ne!(other, *value, "{name}");
        }
    }
    assert!(probed.keys().all(|name| settings.contains_key(name)));
}

#[tokio::test]
async fn a_production_environment_is_left_alone() {
    let place = start(None).await;
    place.control(http::Method::POST, "settings", json!({"organization_type": "Customer"})).await;
    let before = place.control(http::Method::GET, "stats", Value::Null).await;
    let error = place.verify(VerifyOptions::default()).await.unwrap_err();
    assert_eq!(error.code, Code::PROVISION_REFUSED);
    assert!(error.message.contains("`Customer`"), "{error}");
    let after = place.control(http::Method::GET, "stats", Value::Null).await;
    assert_eq!(before["version"], after["version"], "nothing was written");
}

#[tokio::test]
async fn the_scratch_table_goes_after_a_cancellation_and_after_a_failure() {
    let place = start(None).await;
    let cancel = CancellationToken::new();
    let made = Mutex::new(Vec::new());
    let tell = |step: VerifyStep<'_>| match step {
        VerifyStep::Scratch(table) => made.lock().unwrap().push(table.to_owned()),
        VerifyStep::Result(result) if result.probe.name == "round_decimals" => cancel.cancel(),
        VerifyStep::Result(_) | VerifyStep::Removing(_) => {}
    };
    let found = place.dataverse.verify(&VerifyOptions::default(), &cancel, &tell).await.unwrap();
    assert!(found.is_interrupted && found.left_behind.is_none());
    let refusal = json!({"status": 403, "code": "0x80040220"});
    let rules = json!([{"match": {"op": "Metadata", "contains": "scratchkey"}, "do": refusal}]);
    place.control(http::Method::POST, "faults", rules).await;
    let error = place.dataverse.verify(&VerifyOptions::default(), &CancellationToken::new(), &tell).await.unwrap_err();
    assert_eq!(error.code, Code::NOT_ALLOWED);
    let made = made.into_inner().unwrap();
    assert_eq!(made.len(), 2);
    for table in &made {
        let gone = place.dataverse.describe(table).await.unwrap_err();
        assert_eq!(gone.code, Code::TABLE_NOT_FOUND);
    }
}

/// The part of the page that is made from the tables of the code.
fn listed() -> String {
    let mut lines = vec!["| probe | assumption | assumed | notes |".to_owned(), "|---|---|---|---|".to_owned()];
    for probe in probes() {
        let assumed = probe.assumed.as_str().map_or(probe.assumed.to_string(), |text| format!("`{text}`"));
        lines.push(format!("| `{}` | {} | {assumed} | {} |", probe.name, probe.assumption, probe.section));
    }
    let heading = ["", "## What it does not look at", "", "| notes | assumption | why not |", "|---|---|---|"];
    lines.extend(heading.map(str::to_owned));
    lines.extend(not_probed().iter().map(|(section, assumption, why)| format!("| {section} | {assumption} | {why} |")));
    lines.push(String::new());
    lines.join("\n")
}

#[test]
fn the_page_lists_every_probe() {
    let page = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.md")).unwrap();
    let listed = listed();
    assert!(page.ends_with(&listed), "docs/doctor.md must end with:\n\n{listed}");
}
