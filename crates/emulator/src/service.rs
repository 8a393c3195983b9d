//! What stands before the Web API: sign-in, server choice, limits, faults, latency, headers.
//!
//! Promise: a refused request has not touched the database; a request that was let in is charged
//! whatever becomes of it; no lock is held while time passes. Left out: sockets (`server`).

use std::sync::{Arc, PoisonError};

use http::{HeaderMap, HeaderValue, StatusCode};
use uuid::Uuid;

use crate::auth::TokenFault;
use crate::distort::{self, Plan};
use crate::engine::{Engine, Seen, Stats, base_currency, lock, user_of_application, user_of_id, user_of_object};
use crate::error::{ApiError, Code};
use crate::events;
use crate::faults::{Effect, Subject};
use crate::limits::{LimitKind, Refusal, Remaining};
use crate::profile::ProfileName;
use crate::settings::Settings;
use crate::throttle;
use crate::web::{Answer, Call, Operation, Preferences, Request, answer, moves_files, operation, rehearse};
use crate::write::Hooks;

/// What goes back over the wire.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    /// Part of the answer, then a cut connection.
    Truncated(Answer, usize),
    /// A cut connection.
    Drop,
}

struct Caller {
    user: Uuid,
    business_unit: Uuid,
    delegate: Option<Uuid>,
}

/// Where the request came in.
pub(crate) struct Address {
    /// `https://host:port`.
    pub(crate) origin: String,
    /// `v9.2`.
    pub(crate) version: String,
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Answers a request below `/api/data/v9.x/`.
pub(crate) async fn serve(engine: &Arc<Engine>, address: &Address, request: Request) -> Reply {
    engine.run_due_jobs();
    let settings = engine.settings();
    let operation = operation(&request.method, &request.path);
    let effect = hit(engine, &operation, &request.body);
    let caller = match authenticate(engine, address, &request, &settings) {
        Ok(caller) => caller,
        Err(error) => {
            let answer = unauthenticated(engine, address, &error, &settings);
            return Reply::Answer(finish(engine, answer, None, &request));
        }
    };
    if settings.administration_mode {
        let message = "The organization is disabled: the environment is in administration mode.";
        let error = ApiError::new(Code::OrganizationDisabled, message);
        return Reply::Answer(finish(engine, Answer::error(&error, false), None, &request));
    }
    let user = caller.delegate.unwrap_or(caller.user);
    let server = choose_server(engine, &request.headers, &settings.affinity_cookie);
    let now = engine.clock.now();
    if engine.condition(server).down_until > now {
        let mut answer = Answer::text("text/html", b"<html><body>Service Unavailable</body></html>".to_vec());
        answer.status = StatusCode::SERVICE_UNAVAILABLE;
        return Reply::Answer(answer);
    }
    let admitted = lock(&engine.limits).admit((user, server), now);
    let remaining = match admitted {
        Ok(remaining) => remaining,
        Err(refusal) => {
            *lock(&engine.stats).refused.entry(refusal.kind).or_default() += 1;
            let answer = throttle::answer(engine, refusal);
            return Reply::Answer(finish(engine, answer, Some((server, None)), &request));
        }
    };
    let ticket = Ticket { engine: Arc::clone(engine), lane: (user, server), charged: false };
    run(ticket, address, request, caller, &settings, effect, &operation, remaining).await
}

/// A running request; charges what it used, also when it ends early.
struct Ticket {
    engine: Arc<Engine>,
    lane: (Uuid, u16),
    charged: bool,
}

impl Ticket {
    fn charge(&mut self, busy_ms: f64) {
        self.charged = true;
        lock(&self.engine.limits).finish(self.lane, self.engine.clock.now(), busy_ms);
        *lock(&self.engine.stats).busy_ms.entry(self.lane).or_default() += busy_ms;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.charged {
            self.charge(0.0);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "everything one request is made of")]
async fn run(
    mut ticket: Ticket,
    address: &Address,
    request: Request,
    caller: Caller,
    settings: &Settings,
    effect: Option<Effect>,
    operation: &Operation,
    remaining: Remaining,
) -> Reply {
    let engine = Arc::clone(&ticket.engine);
    let server = Some((ticket.lane.1, Some(remaining)));
    let era = engine.era();
    if let Some(effect) = &effect {
        engine.clock.sleep(effect.delay_s()).await;
        if effect.drop_before_commit || engine.era() != era {
            return Reply::Drop;
        }
        if effect.delay_commit_s().is_none() {
            if let Some(answer) = injected(effect, &engine) {
                return Reply::Answer(finish(&engine, answer, server, &request));
            }
        }
    }
    if let Some((wait, effect)) = effect.as_ref().and_then(|effect| Some((effect.delay_commit_s()?, effect))) {
        let status = effect.answer.as_ref().and_then(serde_json::Value::as_u64);
        if let Some(status) = status {
            let answer = plain(status as u16, effect);
            let (engine, base) = (Arc::clone(&engine), base(address));
            let (settings, later) = (settings.clone(), request.clone());
            tokio::spawn(async move {
                engine.clock.sleep(wait).await;
                if engine.era() == era {
                    execute(&engine, base, &later, &caller, &settings).await;
                }
                drop(ticket);
            });
            return Reply::Answer(answer);
        }
        engine.clock.sleep(wait).await;
        if engine.era() != era {
            return Reply::Drop;
        }
    }
    let mut answer = distorted_run(&engine, address, &request, &caller, settings, effect.as_ref()).await;
    if effect.as_ref().is_some_and(|effect| effect.repeat_next_link) {
        distort::repeat_next_link(&mut answer, &format!("{}/{}?{}", base(address), request.path, request.query));
    }
    let running = lock(&engine.limits).running_on(ticket.lane.1);
    let noise = if engine.profile.noise_sigma > 0.0 { lock(&engine.random).normal() } else { 0.0 };
    let condition = engine.condition(ticket.lane.1);
    let busy_ms = engine.profile.service_ms(answer.work, running, noise) * condition.slow;
    engine.clock.sleep((busy_ms + engine.profile.round_trip_ms) / 1000.0).await;
    if engine.condition(ticket.lane.1).life != condition.life {
        return Reply::Drop;
    }
    ticket.charge(busy_ms);
    count(&engine, operation, &answer);
    let answer = finish(&engine, answer, server, &request);
    match effect {
        None => Reply::Answer(answer),
        Some(effect) => distorted(answer, &effect),
    }
}

/// Runs a request, or what a rule makes of it.
async fn distorted_run(
    engine: &Arc<Engine>,
    address: &Address,
    request: &Request,
    caller: &Caller,
    settings: &Settings,
    effect: Option<&Effect>,
) -> Answer {
    if effect.is_none_or(|effect| !effect.race && effect.fail_rows.is_none()) {
        return execute(engine, base(address), request, caller, settings).await;
    }
    let plan = Plan::new(effect, request);
    if plan.is_raced {
        // The other client's answer is not ours to see.
        let _other = execute(engine, base(address), &plan.request, caller, settings).await;
    }
    let of_rest = if plan.has_rows {
        execute(engine, base(address), &plan.request, caller, settings).await
    } else {
        Answer::no_content()
    };
    plan.answer(of_rest)
}

fn base(address: &Address) -> String {
    format!("{}/api/data/{}", address.origin, address.version)
}

/// What a rule does to the answer of a request that ran.
fn distorted(mut answer: Answer, effect: &Effect) -> Reply {
    if effect.commit_then_drop || effect.answer.as_ref().and_then(serde_json::Value::as_str) == Some("timeout") {
        return Reply::Drop;
    }
    if let Some(content_type) = &effect.content_type {
        answer.set("content-type", content_type);
    }
    if let Some(encoding) = &effect.content_encoding {
        answer.set("content-encoding", encoding);
    }
    if let Some(body) = &effect.body {
        answer.body = body.clone().into_bytes();
    }
    match effect.truncate {
        Some(bytes) => Reply::Truncated(answer, bytes),
        None => Reply::Answer(answer),
    }
}

fn hit(engine: &Engine, operation: &Operation, body: &[u8]) -> Option<Effect> {
    let table = {
        let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
        database.schema.by_set(&operation.set).map(|table| table.logical.clone()).unwrap_or_default()
    };
    let subject = Subject { operation: &operation.name, set: &operation.set, table: &table, body };
    let now = engine.clock.now();
    let effect = lock(&engine.faults).hit(&subject, now, &mut lock(&engine.random));
    if effect.is_some() {
        lock(&engine.stats).faults += 1;
    }
    effect
}

/// The effect on sign-in, which has no table.
pub(crate) fn token_fault(engine: &Engine) -> Option<Effect> {
    hit(engine, &Operation { name: "Token".to_owned(), set: String::new() }, b"")
}

/// The answer a rule gives in place of the request's own.
pub(crate) fn injected(effect: &Effect, engine: &Engine) -> Option<Answer> {
    if let Some(kind) = &effect.limit {
        let kind = match kind.as_str() {
            "time" => LimitKind::ExecutionTime,
            "concurrency" => LimitKind::Concurrency,
            _ => LimitKind::Requests,
        };
        *lock(&engine.stats).refused.entry(kind).or_default() += 1;
        let mut answer = throttle::answer(engine, Refusal { kind, retry_after_s: 5 });
        set_retry_after(&mut answer, effect);
        return Some(answer);
    }
    effect.status.map(|status| plain(status, effect))
}

fn plain(status: u16, effect: &Effect) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = effect.code.clone().unwrap_or_else(|| "0x80040216".to_owned());
    let message = effect.message.clone().unwrap_or_else(|| "An injected fault.".to_owned());
    let mut answer = if effect.html {
        Answer::text("text/html", format!("<html><body><h1>{status}</h1></body></html>").into_bytes())
    } else if effect.empty {
        Answer::new(status)
    } else {
        Answer::json(serde_json::json!({ "error": { "code": code, "message": message } }).to_string().into_bytes())
    };
    answer.status = status;
    set_retry_after(&mut answer, effect);
    answer
}

fn set_retry_after(answer: &mut Answer, effect: &Effect) {
    match &effect.retry_after {
        Some(serde_json::Value::String(text)) => answer.set("retry-after", text),
        Some(serde_json::Value::Null) => {
            answer.headers.remove("retry-after");
        }
        Some(value) => answer.set("retry-after", &value.to_string()),
        None => {}
    }
}

/// Whether a request brings a token that signs it in.
pub(crate) fn is_known(engine: &Engine, address: &Address, headers: &HeaderMap) -> bool {
    let audience = engine.settings().check_audience.then_some(address.origin.as_str());
    bearer(headers).is_some_and(|token| engine.identity.check(token, audience, engine.clock.now()).is_ok())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    header(headers, "authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::trim)
}

fn authenticate(
    engine: &Engine,
    address: &Address,
    request: &Request,
    settings: &Settings,
) -> Result<Caller, ApiError> {
    let token = bearer(&request.headers)
        .ok_or_else(|| ApiError::new(Code::RequestIsNotAuthenticated, "The request is not authenticated."))?;
    let audience = settings.check_audience.then_some(address.origin.as_str());
    let claims = engine.identity.check(token, audience, engine.clock.now()).map_err(|fault| match fault {
        TokenFault::Expired => ApiError::new(Code::ExpiredAuthTicket, "The access token has expired."),
        TokenFault::Audience => ApiError::new(Code::UnauthorizedAccess, "The access token is for another audience."),
        TokenFault::Malformed => ApiError::new(Code::UnauthorizedAccess, "The access token is not valid."),
    })?;
    let database = engine.database.read().unwrap_or_else(PoisonError::into_inner);
    let found = user_of_application(&database, claims.appid);
    let (user, business_unit) = found
        .ok_or_else(|| ApiError::new(Code::UserNotMemberOfOrg, "The user is not a member of the organization."))?;
    let caller = Caller { user, business_unit, delegate: None };
    let object = header(&request.headers, "callerobjectid").map(str::to_owned);
    let legacy = header(&request.headers, "mscrmcallerid").map(str::to_owned);
    let Some(acting) = object.clone().or(legacy) else {
        return Ok(caller);
    };
    let refused =
        || ApiError::new(Code::CannotActOnBehalf, "User does not have the privilege to act on behalf another user.");
    if !settings.impersonation_allowed {
        return Err(refused());
    }
    let id = Uuid::parse_str(acting.trim()).map_err(|_| refused())?;
    let found = if object.is_some() { user_of_object(&database, id) } else { user_of_id(&database, id) };
    let (acting_user, acting_unit) = found.ok_or_else(refused)?;
    Ok(Caller { user: acting_user, business_unit: acting_unit, delegate: Some(user) })
}

fn unauthenticated(engine: &Engine, address: &Address, error: &ApiError, settings: &Settings) -> Answer {
    let mut answer = Answer::error(error, false);
    if error.status == StatusCode::UNAUTHORIZED && settings.challenge {
        let origin = &address.origin;
        let challenge = format!(
            "Bearer authorization_uri={origin}/{}/oauth2/authorize, resource_id={origin}/",
            engine.identity.tenant
        );
        answer.set("www-authenticate", &challenge);
    }
    answer
}

/// The server the affinity cookie names, or any.
fn choose_server(engine: &Engine, headers: &HeaderMap, name: &str) -> u16 {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let named = cookies.flat_map(|line| line.split(';')).find_map(|cookie| {
        let value = cookie.trim().strip_prefix(name)?.strip_prefix('=')?;
        value.strip_prefix("server-")?.parse::<u16>().ok()
    });
    if let Some(server) = named.filter(|server| *server < engine.servers) {
        return server;
    }
    let now = engine.clock.now();
    let up: Vec<u16> = (0..engine.servers).filter(|server| engine.condition(*server).down_until <= now).collect();
    let any = lock(&engine.random).below(up.len() as u64) as usize;
    up.get(any).copied().unwrap_or_default()
}

/// Times a request is rehearsed before its verdicts count as settled.
const REHEARSALS_MAX: u32 = 4;

/// Asks synchronous steps, runs the request, and sends asynchronous steps on their way.
async fn execute(
    engine: &Arc<Engine>,
    base: String,
    request: &Request,
    caller: &Caller,
    settings: &Settings,
) -> Answer {
    let hooks = if request.method == http::Method::GET {
        Hooks::default()
    } else {
        Hooks::load(&engine.database.read().unwrap_or_else(PoisonError::into_inner))
    };
    let organization = base.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
    if hooks.has_sync() && !moves_files(request) {
        for _ in 0..REHEARSALS_MAX {
            let asked = with_call(engine, &base, caller, settings, &hooks, |call| {
                let mut database = engine.database.write().unwrap_or_else(PoisonError::into_inner);
                rehearse(call, &mut database, request)
            });
            hooks.rewind();
            if asked.is_empty() {
                break;
            }
            for event in asked {
                let verdict = events::ask(engine, &organization, &event).await;
                hooks.decide(event.key, verdict);
            }
        }
    }
    let answer = with_call(engine, &base, caller, settings, &hooks, |call| answer(call, &engine.database, request));
    if !hooks.is_empty() {
        let raised = engine.database.write().unwrap_or_else(PoisonError::into_inner).take_outbox();
        events::send_all(engine, &organization, raised);
    }
    answer
}

fn with_call<T>(
    engine: &Engine,
    base: &str,
    caller: &Caller,
    settings: &Settings,
    hooks: &Hooks,
    work: impl FnOnce(&Call<'_>) -> T,
) -> T {
    let plugins = lock(&engine.faults).rejections(engine.clock.now());
    work(&Call {
        user: caller.user,
        business_unit: caller.business_unit,
        delegate: caller.delegate,
        now: engine.clock.now(),
        settings,
        base_currency: base_currency(),
        organization: engine.organization(),
        sink: engine.profile_name == ProfileName::Sink,
        plugins: &plugins,
        hooks: Some(hooks),
        base: base.to_owned(),
    })
}

fn count(engine: &Engine, operation: &Operation, answer: &Answer) {
    let mut stats = lock(&engine.stats);
    stats.rows += answer.work.rows;
    stats.entitlement += answer.entitlement;
    stats.errors += u64::from(answer.status.is_client_error() || answer.status.is_server_error());
    *stats.by_operation.entry(operation.name.clone()).or_default() += 1;
}

/// How many requests the page for people shows, and how much of each.
const RECENT_MAX: usize = 100;
const RECENT_CHARACTERS_MAX: usize = 200;

fn remember(stats: &mut Stats, engine: &Engine, request: &Request, status: u16, server: Option<u16>) {
    if stats.recent.len() == RECENT_MAX {
        stats.recent.pop_front();
    }
    let path = request.path.chars().chain(if request.query.is_empty() { "" } else { "?" }.chars());
    let address: String = path.chain(request.query.chars()).take(RECENT_CHARACTERS_MAX).collect();
    let line = format!("{} {address}", request.method);
    stats.recent.push_back(Seen { at: engine.clock.now(), line, status, server });
}

/// Answers a reading request as the application user, past sign-in and limits: for the page for people.
pub(crate) fn execute_as_owner(engine: &Engine, origin: &str, request: &Request) -> Answer {
    let identity = &engine.identity;
    let caller = Caller { user: identity.user, business_unit: identity.business_unit, delegate: None };
    let address = Address { origin: origin.to_owned(), version: "v9.2".to_owned() };
    let (settings, hooks) = (engine.settings(), Hooks::default());
    with_call(engine, &base(&address), &caller, &settings, &hooks, |call| answer(call, &engine.database, request))
}

/// Headers that are the same on every answer.
const ALWAYS: &[(&str, &str)] = &[
    ("allow", "OPTIONS,GET,HEAD,POST"),
    ("public", "OPTIONS,GET,HEAD,POST"),
    ("cache-control", "no-cache"),
    ("expires", "-1"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-source", "flowgate-emulator"),
];

/// `1,200.00`, or without the comma by a setting.
fn seconds_left(remaining: Remaining, settings: &Settings) -> String {
    let hundredths = (remaining.execution_s.max(0.0) * 100.0).round() as u64;
    let whole = hundredths / 100;
    let whole = if settings.limit_header_commas { throttle::grouped(whole) } else { whole.to_string() };
    format!("{whole}.{:02}", hundredths % 100)
}

/// Adds the headers every answer has.
fn finish(engine: &Engine, mut answer: Answer, server: Option<(u16, Option<Remaining>)>, request: &Request) -> Answer {
    let id = {
        let mut stats = lock(&engine.stats);
        stats.requests += 1;
        remember(&mut stats, engine, request, answer.status.as_u16(), server.map(|(server, _)| server));
        lock(&engine.random).uuid().to_string()
    };
    answer.set("odata-version", "4.0");
    answer.set("req_id", &id);
    // Twice, as every recording has it: the front end and the service each add theirs.
    answer.set("x-ms-service-request-id", &id);
    answer.add("x-ms-service-request-id", &id);
    answer.set("authactivityid", &id);
    for (name, value) in ALWAYS {
        answer.headers.entry(*name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(client) = header(&request.headers, "x-ms-client-request-id").map(str::to_owned) {
        answer.set("x-ms-client-request-id", &client);
    }
    let settings = engine.settings();
    if settings.limit_headers {
        let hint = u32::from(engine.servers) * u32::from(engine.profile.dop_hint_per_server);
        answer.set("x-ms-dop-hint", &hint.to_string());
    }
    if let Some((server, remaining)) = server {
        answer.set("set-cookie", &format!("{}=server-{server}; Path=/; HttpOnly", settings.affinity_cookie));
        // A client that comes for the first time gets a name of its own, as a browser would.
        if !request.headers.contains_key("cookie") {
            answer.add("set-cookie", &format!("ReqClientId={id}; Path=/; HttpOnly"));
            answer.add("set-cookie", &format!("orgId={}; Path=/; HttpOnly", engine.organization()));
        }
        if let Some(remaining) = remaining.filter(|_| settings.limit_headers) {
            answer.set("x-ms-ratelimit-burst-remaining-xrm-requests", &remaining.requests.to_string());
            answer.set("x-ms-ratelimit-time-remaining-xrm-requests", &seconds_left(remaining, &settings));
        }
    }
    if Preferences::read(&request.headers).continue_on_error && answer.status == StatusCode::OK {
        answer.set("preference-applied", "odata.continue-on-error");
    }
    answer
}
