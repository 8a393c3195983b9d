//! `dataverse`: tables of a Dynamics 365 / Microsoft Dataverse environment, to load and to read.
//!
//! This file only adapts: what is sent, and how, is decided by `flowgate-dataverse`. As a source a
//! table is read whole, or with `cursor: change_tracking` as the rows written and deleted since the
//! last read; both show what is gone. Lookups come as `account/<guid>`.
//!
//! Left out: sign-in by certificate, managed identity or workload identity, which are refused by
//! name, and starting the emulator: the program does that before it opens the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flowgate_core::connector::{FieldError, OpenRequest, Opened};
use flowgate_core::source::{ReadRequest, Reading, StreamInfo};
use flowgate_core::{Code, ConnectorError, Destination, ErrorKind, Secret, Source};
use flowgate_dataverse::budget::Role;
use flowgate_dataverse::{
    Credential, Dataverse, DataverseOptions, SharingOptions, TableRead, UserOptions, may_carry_secrets,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use uuid::Uuid;

use crate::settings::{self, Settings, is_reference, problem};

const NAME: &str = "dataverse";

/// More application users than anyone is licensed for, and still few lanes.
const USERS_MAX: usize = 32;

/// A day: longer than any service holds a request.
const LATE_WRITES_S_MAX: u32 = 86_400;

/// A Dataverse environment, or the emulator in its place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionSettings {
    /// The environment's address, only the host.
    #[schemars(example = &"https://agency.crm11.dynamics.com")]
    url: Option<String>,
    /// The id of the organisation that must answer. Another one is never written to.
    #[schemars(example = &"7c8f3d0e-3f0a-4c53-9a55-1c6f3a1b2d4e")]
    organization: Option<String>,
    /// The application user to sign in as.
    #[schemars(example = example_credential())]
    credential: Option<CredentialSettings>,
    /// Several application users in place of `credential`, each with limits of its own. Loads then say who
    /// owns what they create: `lookups: { ownerid: … }`.
    #[schemars(example = example_users())]
    users: Option<BTreeMap<String, UserSettings>>,
    /// The unmanaged solution that `flowgate provision` puts new tables and columns into.
    #[schemars(example = &"agency_integration")]
    solution: Option<String>,
    /// Certificates that are trusted besides the machine's, as PEM, from the project directory.
    #[schemars(example = &"certificates/proxy.pem")]
    ca_file: Option<String>,
    /// How many seconds of the service pass in a real one. Only an emulator has another than 1.
    #[schemars(example = 1.0)]
    time_scale: Option<f64>,
    /// For how many seconds a write that was given up without an answer may still take effect there: so long a run
    /// waits before it sends anything newer to the same table. 300 if left out.
    #[schemars(example = 300, range(min = 1, max = 86_400))]
    late_writes_s: Option<u32>,
    /// Use the emulator, which the commands start and share, in place of an environment.
    #[schemars(example = example_emulator())]
    emulator: Option<EmulatorSettings>,
}

/// An application registered in Entra.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialSettings {
    /// The application's client id.
    #[schemars(example = &"51f81489-12ee-4a9e-aaae-a2591f45987d")]
    client: Option<String>,
    /// The application's client secret; refer to it.
    #[schemars(with = "Option<String>", example = &"${file:/run/secrets/crm}")]
    secret: Option<Secret>,
    /// The Entra tenant, by id or domain. Without it the environment is asked, and believed if it names Entra.
    #[schemars(example = &"agency.onmicrosoft.com")]
    tenant: Option<String>,
    /// Where tokens are issued, if not by Entra's public address for the tenant.
    #[schemars(example = &"https://login.microsoftonline.us/agency.onmicrosoft.us/oauth2/v2.0/token")]
    token_url: Option<String>,
    #[schemars(skip)]
    certificate: Option<IgnoredAny>,
    #[schemars(skip)]
    managed_identity: Option<IgnoredAny>,
    #[schemars(skip)]
    workload_identity: Option<IgnoredAny>,
}

/// One of several application users.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserSettings {
    /// The application's client id.
    #[schemars(example = &"51f81489-12ee-4a9e-aaae-a2591f45987d")]
    client: Option<String>,
    /// The application's client secret; refer to it.
    #[schemars(with = "Option<String>", example = &"${file:/run/secrets/crm}")]
    secret: Option<Secret>,
    /// The Entra tenant, by id or domain. Without it the environment is asked, and believed if it names Entra.
    #[schemars(example = &"agency.onmicrosoft.com")]
    tenant: Option<String>,
    /// Where tokens are issued, if not by Entra's public address for the tenant.
    #[schemars(example = &"https://login.microsoftonline.us/agency.onmicrosoft.us/oauth2/v2.0/token")]
    token_url: Option<String>,
    /// What it sends: `interactive` requests only, or `batch` loads only. Everything if left out.
    #[schemars(example = &"interactive")]
    r#for: Option<Use>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    Interactive,
    Batch,
}

/// How the emulator is started; `{}` takes the defaults.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the program that starts the emulator reads the block; here it is checked")]
pub(crate) struct EmulatorSettings {
    /// What requests cost: `instant`, `realistic` or `sink`.
    #[schemars(example = &"realistic")]
    profile: Option<EmulatorProfile>,
    /// How many seconds of the service pass in a real one.
    #[schemars(example = 20.0)]
    time_scale: Option<f64>,
    /// Web servers behind the address, each with limits of its own.
    #[schemars(example = 4)]
    servers: Option<u16>,
    /// What chance begins with, so that a run can be repeated.
    #[schemars(example = 1)]
    seed: Option<u64>,
    /// A file with tables besides the standard ones, from the project directory.
    #[schemars(example = &"emulator/tables.yaml")]
    schema: Option<String>,
    /// What `flowgate doctor --verify` saw of an environment, from the project directory: the emulator
    /// behaves so.
    #[schemars(example = &"crm.observed.json")]
    settings: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EmulatorProfile {
    Instant,
    Realistic,
    Sink,
}

fn example_credential() -> Value {
    serde_json::json!({
        "client": "51f81489-12ee-4a9e-aaae-a2591f45987d",
        "secret": "${file:/run/secrets/crm}",
        "tenant": "agency.onmicrosoft.com",
    })
}

fn example_users() -> Value {
    serde_json::json!({
        "nightly": { "client": "51f81489-12ee-4a9e-aaae-a2591f45987d", "secret": "${file:/run/secrets/crm}" },
        "desk": { "client": "0c9f1f1b-9a3e-4c0c-8f4b-3a5d2f0d7a11", "secret": "${env:DESK_SECRET}", "for": "interactive" },
    })
}

fn example_emulator() -> Value {
    serde_json::json!({ "profile": "realistic" })
}

impl Settings for ConnectionSettings {
    fn problems(&self) -> Vec<FieldError> {
        let mut problems = Vec::new();
        if let Some(emulator) = &self.emulator {
            if self.url.is_some() || self.credential.is_some() || self.users.is_some() {
                let message = "the emulator has its own address and credential";
                let hint = "leave out `url`, `credential` and `users`, or `emulator`";
                problems.push(problem("emulator", message, Some(hint)));
            }
            problems.extend(emulator.problems());
        } else {
            if self.url.is_none() {
                let missing = FieldError::missing([""; 0], "url");
                problems.push(missing.hint("or `emulator: {}` to work without an environment"));
            }
            problems.extend(plain_text(&["url"], self.url.as_deref()));
            match (&self.credential, &self.users) {
                (None, None) => problems.push(FieldError::missing([""; 0], "credential")),
                (Some(credential), None) => problems.extend(credential.problems()),
                (None, Some(users)) => problems.extend(user_problems(users)),
                (Some(_), Some(_)) => {
                    let message = "`users` stand in place of `credential`";
                    problems.push(problem("users", message, Some("make the credential one of the users")));
                }
            }
        }
        if let Some(id) = self.organization.as_deref().filter(|id| !is_reference(id))
            && Uuid::parse_str(id).is_err()
        {
            problems.push(problem("organization", format!("`{id}` is not the id of an organisation"), None));
        }
        problems.extend(scale_problem(&["time_scale"], self.time_scale));
        if let Some(seconds) = self.late_writes_s.filter(|seconds| !(1..=LATE_WRITES_S_MAX).contains(seconds)) {
            problems.push(problem("late_writes_s", format!("`{seconds}` is not from 1 to {LATE_WRITES_S_MAX}"), None));
        }
        problems
    }
}

impl CredentialSettings {
    fn problems(&self) -> Vec<FieldError> {
        let later = [
            ("certificate", self.certificate.is_some()),
            ("managed_identity", self.managed_identity.is_some()),
            ("workload_identity", self.workload_identity.is_some()),
        ];
        let mut problems = Vec::new();
        for (key, _) in later.into_iter().filter(|(_, is_set)| *is_set) {
            let problem = FieldError::new(["credential", key], format!("`{key}` is not in this version"));
            problems.push(problem.with_code(Code::NOT_SUPPORTED).hint("sign in with `client` and `secret`"));
        }
        if !problems.is_empty() {
            return problems;
        }
        if self.client.is_none() {
            problems.push(FieldError::missing(["credential"], "client"));
        }
        if self.secret.is_none() {
            problems.push(FieldError::missing(["credential"], "secret"));
        }
        problems.extend(plain_text(&["credential", "token_url"], self.token_url.as_deref()));
        problems
    }
}

fn user_problems(users: &BTreeMap<String, UserSettings>) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let mut clients = BTreeMap::new();
    for (key, user) in users {
        if user.client.is_none() {
            problems.push(FieldError::missing(["users", key], "client"));
        }
        if user.secret.is_none() {
            problems.push(FieldError::missing(["users", key], "secret"));
        }
        problems.extend(plain_text(&["users", key, "token_url"], user.token_url.as_deref()));
        let client = user.client.as_deref().filter(|client| !is_reference(client));
        if let Some(other) = client.and_then(|client| clients.insert(client.to_ascii_lowercase(), key)) {
            let message = format!("`{key}` is the same application as `{other}`");
            let problem = FieldError::new(["users", key, "client"], message).with_code(Code::DUPLICATE_NAME);
            problems.push(problem.hint("limits are each application user's: a second one must be another"));
        }
    }
    if users.len() > USERS_MAX {
        problems.push(FieldError::new(["users"], format!("there are more than {USERS_MAX} users")));
    }
    for (wanted, without) in [(Use::Interactive, "batch"), (Use::Batch, "interactive")] {
        if users.values().all(|user| user.r#for == Some(wanted)) {
            problems.push(FieldError::new(["users"], format!("no user is for {without} requests")));
        }
    }
    problems
}

/// The client secret and the tokens go there: not in the clear, unless it is this machine.
fn plain_text(steps: &[&str], address: Option<&str>) -> Option<FieldError> {
    address.filter(|address| !is_reference(address) && !may_carry_secrets(address))?;
    let error = FieldError::new(steps.iter().copied(), "secrets would be sent without encryption");
    Some(error.hint("use an `https://` address"))
}

impl EmulatorSettings {
    fn problems(&self) -> Vec<FieldError> {
        let mut problems: Vec<_> = scale_problem(&["emulator", "time_scale"], self.time_scale).into_iter().collect();
        if self.servers == Some(0) {
            problems.push(FieldError::new(["emulator", "servers"], "at least one server must answer"));
        }
        problems
    }
}

fn scale_problem(steps: &[&str], scale: Option<f64>) -> Option<FieldError> {
    let scale = scale.filter(|scale| !(scale.is_finite() && *scale >= 1.0))?;
    Some(FieldError::new(steps.iter().copied(), format!("`{scale}` is not at least 1")))
}

/// What a stream reads from a Dataverse environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamSettings {
    /// The table's logical name.
    #[schemars(example = &"account")]
    table: String,
    /// The columns to read, by logical name; all by default. The id always comes.
    #[schemars(example = ["name", "accountnumber"])]
    only: Option<Vec<String>>,
    /// `change_tracking` reads only what was written and deleted since the last read. The table must
    /// have change tracking switched on, and the stream's `key` is the table's id.
    #[schemars(example = &"change_tracking")]
    cursor: Option<CursorSettings>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CursorSettings {
    ChangeTracking,
}

impl Settings for StreamSettings {}

/// Change tracking reports deletes, and a whole read shows what is gone.
pub(crate) fn sees_deletes(_stream: &Value) -> bool {
    true
}

pub(crate) fn open(request: OpenRequest<'_>) -> Result<Opened, ConnectorError> {
    let dataverse = open_dataverse(request)?;
    let source = Arc::new(DataverseSource { dataverse: Arc::clone(&dataverse) });
    Ok(Opened { source: Some(source), destination: Some(dataverse) })
}

/// Opens the environment itself, for what only an environment has: its verification.
pub fn open_dataverse(request: OpenRequest<'_>) -> Result<Arc<Dataverse>, ConnectorError> {
    let settings: ConnectionSettings = settings::read(NAME, request.settings)?;
    let OpenRequest { name, project_dir, clock, budget, time_zone, lanes, .. } = request;
    if settings.emulator.is_some() {
        let message = "a connection to the emulator was opened before the emulator was started";
        return Err(ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message));
    }
    // There is an address, and a credential or users, whole: `settings::read` has checked it.
    let url = settings.url.unwrap_or_default();
    let mut options = DataverseOptions::new(url, credential(settings.credential));
    options.organization = settings.organization.and_then(|id| Uuid::parse_str(&id).ok());
    options.solution = settings.solution;
    options.ca_file = settings.ca_file.map(|path| project_dir.join(path));
    options.time_scale = settings.time_scale.unwrap_or(1.0);
    if let Some(seconds) = settings.late_writes_s {
        options.late_writes = Duration::from_secs(seconds.into());
    }
    options.budget = budget.cloned().unwrap_or_default();
    options.users = settings.users.unwrap_or_default().into_iter().map(user).collect();
    options.sharing = lanes.map(|leases| SharingOptions { leases, connection: name.to_owned() });
    time_zone.clone_into(&mut options.time_zone);
    Dataverse::connect(options, clock)
}

fn credential(settings: Option<CredentialSettings>) -> Credential {
    let Some(CredentialSettings { client, secret, tenant, token_url, .. }) = settings else {
        return Credential::Token(Secret::default());
    };
    client_secret(client, secret, tenant, token_url)
}

fn user((key, settings): (String, UserSettings)) -> UserOptions {
    let role = match settings.r#for {
        None => Role::All,
        Some(Use::Interactive) => Role::Urgent,
        Some(Use::Batch) => Role::Batch,
    };
    let UserSettings { client, secret, tenant, token_url, .. } = settings;
    UserOptions { key: Some(key), role, credential: client_secret(client, secret, tenant, token_url) }
}

fn client_secret(
    client: Option<String>,
    secret: Option<Secret>,
    tenant: Option<String>,
    token_url: Option<String>,
) -> Credential {
    let entra = |tenant| format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
    Credential::ClientSecret {
        token_url: token_url.or_else(|| tenant.map(entra)),
        client_id: client.unwrap_or_default(),
        secret: secret.unwrap_or_default(),
    }
}

struct DataverseSource {
    dataverse: Arc<Dataverse>,
}

#[async_trait]
impl Source for DataverseSource {
    async fn check(&self) -> Result<String, ConnectorError> {
        Destination::check(self.dataverse.as_ref()).await
    }

    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        self.dataverse.discover_tables().await
    }

    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError> {
        let stream: StreamSettings = settings::read(NAME, &request.settings)?;
        if stream.cursor.is_some() {
            self.check_key(&stream.table, &request.key).await?;
        }
        let read = TableRead {
            table: stream.table,
            columns: stream.only.unwrap_or_default(),
            cursor: request.cursor,
            cancel: request.cancel,
        };
        Box::pin(self.dataverse.read_table(read)).await
    }
}

impl DataverseSource {
    /// Of a deleted row the service tells the id only, so changes can be merged by nothing else.
    async fn check_key(&self, table: &str, key: &[String]) -> Result<(), ConnectorError> {
        let shape = self.dataverse.describe(table).await?;
        let id = &shape.primary_id;
        if key == std::slice::from_ref(id) {
            return Ok(());
        }
        let message = format!("changes of `{table}` can only be merged by its id");
        Err(ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message)
            .hint(format!("write `key: [{id}]` in the stream")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(block: &Value) -> Vec<String> {
        let errors = settings::check::<ConnectionSettings>(block).err().unwrap_or_default();
        errors.into_iter().map(|error| format!("{}: {}", error.path.join("."), error.message)).collect()
    }

    #[test]
    fn an_environment_needs_an_address_and_a_credential() {
        assert_eq!(messages(&json!({})), [": `url` is missing", ": `credential` is missing"]);
        let credential = json!({"client": "${var:client}", "secret": "${env:S}"});
        let block = json!({"url": "${var:url}", "organization": "${var:org}", "credential": credential});
        assert_eq!(messages(&block), [""; 0], "the tenant is asked of the environment");
        let block = json!({"url": "${var:url}", "credential": {"tenant": "agency.example"}});
        assert_eq!(messages(&block), ["credential: `client` is missing", "credential: `secret` is missing"]);
        assert_eq!(messages(&json!({"emulator": {}})), [""; 0]);
    }

    #[test]
    fn secrets_are_sent_in_the_clear_to_no_other_machine() {
        let block = |url: &str, token_url: &str| json!({"url": url, "credential": {"client": "1", "secret": "${env:S}", "token_url": token_url}});
        let https = "https://login.example/token";
        let refused = "secrets would be sent without encryption";
        assert_eq!(messages(&block("http://crm.example", https)), [format!("url: {refused}")]);
        assert_eq!(
            messages(&block("https://crm.example", "http://login.example/token")),
            [format!("credential.token_url: {refused}")]
        );
        for local in ["http://localhost:8080/token", "http://127.0.0.1:8080/token", "${env:TOKEN_URL}"] {
            assert_eq!(messages(&block("https://crm.example", local)), [""; 0], "{local}");
        }
        let user = json!({"client": "1", "secret": "${env:S}", "token_url": "http://login.example/token"});
        let block = json!({"url": "https://x", "users": {"a": user}});
        assert_eq!(messages(&block), [format!("users.a.token_url: {refused}")]);
    }

    #[test]
    fn several_users_stand_in_place_of_the_credential() {
        let user = |client: &str| json!({"client": client, "secret": "${env:S}"});
        let block = json!({"url": "https://x", "users": {"a": user("1"), "b": user("2")}});
        assert_eq!(messages(&block), [""; 0]);
        let block = json!({"url": "https://x", "users": {"a": user("1A"), "b": user("1a")}});
        assert_eq!(messages(&block), ["users.b.client: `b` is the same application as `a`"]);
        let block = json!({"url": "https://x", "credential": user("1"), "users": {"a": user("1")}});
        assert_eq!(messages(&block), ["users: `users` stand in place of `credential`"]);
        let block = json!({"url": "https://x", "users": {"desk": {"client": "1", "for": "interactive"}}});
        assert_eq!(messages(&block), ["users.desk: `secret` is missing", "users: no user is for batch requests"]);
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        let block = json!({"url": "https://x", "credential": {"certificate": {"path": "x.pem"}}, "organization": "x"});
        assert_eq!(
            messages(&block),
            [
                "credential.certificate: `certificate` is not in this version",
                "organization: `x` is not the id of an organisation"
            ]
        );
    }

    #[test]
    fn an_emulator_that_was_not_started_is_our_defect() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(flowgate_http::SystemClock::new(1.0));
        let settings = json!({"emulator": {"profile": "instant"}});
        let request = OpenRequest {
            name: "crm",
            settings: &settings,
            project_dir: dir.path(),
            clock,
            budget: None,
            lanes: None,
            time_zone: "UTC",
        };
        assert_eq!(open(request).err().map(|error| error.code), Some(Code::INTERNAL));
    }
}
