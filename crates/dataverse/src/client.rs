//! The one path to the service: session, budget, token, headers, retries.

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::destination::{Class, RequestCounts};
use flowgate_core::{CancellationToken, Clock, Code, ConnectorError, ErrorKind, Secret};
use flowgate_http::{Answer, HttpClient, HttpError, HttpOptions, Origin, Request, ScaledClock};
use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use crate::admission::{budget, not_admitted};
use crate::answer::budget_end;
use crate::auth::{Authority, Token};
use crate::budget::{AnswerFacts, Budget, Ended as BudgetEnded, Permit, Snapshot, Waits};
use crate::call::{Address, Bounds, Call, CallError, Caller, refused};
use crate::cost::Costs;
use crate::earned::{Earned, Expected, REQUEST_NAME};
use crate::fault::{FaultClass, Refusal, is_front_end, is_html};
use crate::options::{Addresses, DataverseOptions};
use crate::retry::{Attempt, Next, Retry};
use crate::unanswered::Unanswered;
use crate::users::Users;

/// How long one request may stay unanswered: twice the service's own limit of two minutes, so that
/// a time-out nearly always means a dead request and not a slow one.
const ANSWER_WAIT: Duration = Duration::from_mins(4);

/// The same in real time, for connections whose clock runs fast.
const ANSWER_WAIT_REAL_MIN: Duration = Duration::from_secs(20);

/// How long one request for a token may take, in real time.
const SIGN_IN_WAIT: Duration = Duration::from_mins(1);

/// How long calls outside a load may take altogether.
const CALL_WAIT: Duration = Duration::from_mins(15);

/// How long a trial may stay unanswered before the server counts as away still.
const TRIAL_WAIT: Duration = Duration::from_secs(15);

/// The cheapest request that the application itself answers.
const WHO_AM_I: &str = "WhoAmI";

/// What the service says about itself and about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WhoAmI {
    pub(crate) user_id: Uuid,
    pub(crate) organization_id: Uuid,
}

/// How a call ended without success, with the answer that said so.
struct Unsuccessful {
    error: CallError,
    answer: Option<Answer>,
}

impl From<CallError> for Unsuccessful {
    fn from(error: CallError) -> Self {
        Self { error, answer: None }
    }
}

/// How one attempt ended.
enum Ended {
    Answered(Answer),
    Refused(Refusal, Answer),
    Failed(HttpError),
    /// A success, and not the service's to this request.
    Unearned(ConnectorError, Answer),
    /// The connection's clock ran out while the request was under way.
    TimedOut,
}

#[derive(Debug)]
pub(crate) struct Client {
    http: HttpClient,
    users: Arc<Users>,
    budget: Arc<Budget>,
    costs: Arc<Costs>,
    affinity_cookie: String,
    clock: Arc<dyn Clock>,
    addresses: Addresses,
    pinned: Option<Uuid>,
    answer_wait: Duration,
    unanswered: Unanswered,
    earned: Earned,
    session: OnceCell<WhoAmI>,
    /// Whom our users are there, once there is a session.
    user_ids: OnceCell<Vec<Uuid>>,
    /// Stands for "nobody cancels this call".
    never: CancellationToken,
}

impl Client {
    pub(crate) fn new(options: &DataverseOptions, clock: Arc<dyn Clock>) -> Result<Self, ConnectorError> {
        let addresses = Addresses::of(options)?;
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(clock, options.time_scale));
        let http = HttpClient::new(http_options(options, vec![addresses.service.clone()]))?;
        let token_options = |origins| HttpOptions { exchange_timeout: SIGN_IN_WAIT, ..http_options(options, origins) };
        let users = Arc::new(Users::new(options, &addresses, &http, token_options, &clock)?);
        let costs = Arc::new(Costs::default());
        Ok(Self {
            http,
            budget: Arc::new(budget(options, &addresses, &users, &costs, Arc::clone(&clock))?),
            users,
            costs,
            affinity_cookie: options.affinity_cookie.clone(),
            clock,
            addresses,
            pinned: options.organization,
            unanswered: Unanswered::new(options.late_writes, options.time_scale),
            earned: Earned::default(),
            answer_wait: ANSWER_WAIT.max(ANSWER_WAIT_REAL_MIN.mul_f64(options.time_scale.max(1.0))),
            session: OnceCell::new(),
            user_ids: OnceCell::new(),
            never: CancellationToken::new(),
        })
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn requests(&self) -> RequestCounts {
        self.budget.requests()
    }

    pub(crate) fn parallel_max(&self) -> u32 {
        self.budget.parallel_max()
    }

    pub(crate) fn budget_snapshot(&self) -> Snapshot {
        self.budget.snapshot()
    }

    pub(crate) fn waits(&self, class: Class) -> Waits {
        self.budget.waits(class)
    }

    /// What requests took, by table and message.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Writes that may take effect late, by table.
    pub(crate) fn unanswered(&self) -> &Unanswered {
        &self.unanswered
    }

    /// What answers of this environment look like.
    pub(crate) fn earned(&self) -> &Earned {
        &self.earned
    }

    pub(crate) fn pinned(&self) -> Option<Uuid> {
        self.pinned
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.users.first_authority()
    }

    /// Whether rows may be created by more than one user.
    pub(crate) fn several_create(&self) -> bool {
        self.users.several_create()
    }

    pub(crate) fn service_origin(&self) -> &Origin {
        &self.addresses.service
    }

    /// `/api/data/v9.2/…`, for the parts of a `$batch`.
    pub(crate) fn part_address(&self, path: &str) -> String {
        format!("{}{path}", self.addresses.api.path())
    }

    /// Bounds of a call that is not part of a load.
    pub(crate) fn bounds(&self) -> Bounds<'_> {
        Bounds { until: self.clock.elapsed().after(CALL_WAIT), cancel: &self.never }
    }

    /// Bounds of a call that a person may stop.
    pub(crate) fn bounds_with<'a>(&self, cancel: &'a CancellationToken) -> Bounds<'a> {
        Bounds { until: self.clock.elapsed().after(CALL_WAIT), cancel }
    }

    /// Signs in once and makes sure that it is the pinned organisation that answers.
    pub(crate) async fn session(&self, bounds: Bounds<'_>) -> Result<WhoAmI, CallError> {
        self.session.get_or_try_init(|| self.open_session(bounds)).await.copied()
    }

    /// Whom our users are there.
    pub(crate) async fn user_ids(&self, bounds: Bounds<'_>) -> Result<Vec<Uuid>, CallError> {
        let who = self.session(bounds).await?;
        Ok(self.user_ids.get().cloned().unwrap_or_else(|| vec![who.user_id]))
    }

    async fn open_session(&self, bounds: Bounds<'_>) -> Result<WhoAmI, CallError> {
        let call = Call::get(WHO_AM_I, Class::Interactive).header(REQUEST_NAME_HEADER, request_name());
        let answer = self.run(&call, bounds).await.map_err(|error| match error {
            CallError::Refused(refusal) => CallError::Fatal(refused("signing in to the environment", &refusal)),
            other => other,
        })?;
        let who: WhoAmI =
            serde_json::from_slice(&answer.body).map_err(|_| CallError::Fatal(self.not_dataverse(&answer)))?;
        self.earned.meet(&answer, named(&call.headers));
        match self.pinned {
            Some(pinned) if pinned != who.organization_id => {
                return Err(CallError::Fatal(self.wrong_organization(pinned, who)));
            }
            _ => {}
        }
        if self.users.count() > 1 {
            let ids = self.meet_users(bounds).await?;
            self.user_ids.get_or_init(|| std::future::ready(ids)).await;
        }
        Ok(who)
    }

    /// Of several users each must be one of the environment's: before rows depend on it.
    async fn meet_users(&self, bounds: Bounds<'_>) -> Result<Vec<Uuid>, CallError> {
        let mut ids = Vec::with_capacity(self.users.count());
        for user in 0..self.users.count() {
            let token = self.users.token(user, None).await.map_err(CallError::Fatal)?;
            let call = Call::get("WhoAmI", Class::Interactive).called_by(Caller::Bearer(token.secret));
            let call = Call { is_bound: false, ..call };
            let answer = self.run(&call, bounds).await.map_err(|error| match error {
                CallError::Refused(refusal) => {
                    CallError::Fatal(self.users.blame(user, refused("signing in to the environment", &refusal)))
                }
                CallError::Fatal(error) => CallError::Fatal(self.users.blame(user, error)),
                other => other,
            })?;
            let who: WhoAmI =
                serde_json::from_slice(&answer.body).map_err(|_| CallError::Fatal(self.not_dataverse(&answer)))?;
            ids.push(who.user_id);
        }
        Ok(ids)
    }

    fn wrong_organization(&self, pinned: Uuid, who: WhoAmI) -> ConnectorError {
        let message = format!(
            "`{}` is organization `{}`, and the project is pinned to `{pinned}`",
            self.addresses.service, who.organization_id
        );
        ConnectorError::new(ErrorKind::Configuration, Code::WRONG_ORGANIZATION, message)
            .hint("nothing was sent; compare `url` and `organization` of the connection for this environment")
    }

    /// Sends a call, again if that can help, and returns its successful answer.
    pub(crate) async fn call(&self, call: &Call, bounds: Bounds<'_>) -> Result<Answer, CallError> {
        self.session(bounds).await?;
        self.run(call, bounds).await
    }

    /// Sends a call as [`Client::call`] does, and returns its last answer whatever its status: for
    /// those who study the service, which therefore chooses the web server itself.
    pub(crate) async fn observe(&self, call: &Call, bounds: Bounds<'_>) -> Result<Answer, CallError> {
        self.session(bounds).await?;
        let call = Call { is_bound: false, expected: Expected::Anything, ..call.clone() };
        match self.exchange(&call, bounds).await {
            Ok(answer) | Err(Unsuccessful { answer: Some(answer), .. }) => Ok(answer),
            Err(unsuccessful) => Err(unsuccessful.error),
        }
    }

    async fn run(&self, call: &Call, bounds: Bounds<'_>) -> Result<Answer, CallError> {
        self.exchange(call, bounds).await.map_err(|unsuccessful| unsuccessful.error)
    }

    async fn exchange(&self, call: &Call, bounds: Bounds<'_>) -> Result<Answer, Unsuccessful> {
        let url = self.resolve(&call.address)?;
        let mut retry = Retry::default();
        self.users.sign_in().await.map_err(CallError::Fatal)?;
        let mut wait = Duration::ZERO;
        let mut latest = None;
        let mut may_be_run = false;
        loop {
            // An attempt that is not made does not undo the one before.
            let stopped = |error| match error {
                CallError::TooLate(_) | CallError::Cancelled if may_be_run => CallError::Unknown(self.no_answer()),
                error => error,
            };
            self.wait(wait, bounds, latest.take()).await.map_err(stopped)?;
            let permit = self.admit(call, bounds, retry.has_failed()).await.map_err(stopped)?;
            let user = permit.user();
            let token = self.users.token(user, None).await.map_err(CallError::Fatal)?;
            let (attempt, error, answer) = match self.attempt(call, &url, &token, permit, bounds).await {
                // A success that is not one may still have become a write; a read is simply asked for again.
                Ended::Unearned(error, answer) if call.method == Method::GET => {
                    (Attempt::Unknown, CallError::Unknown(error), Some(answer))
                }
                Ended::Unearned(error, answer) => {
                    self.note_unanswered(call);
                    return Err(Unsuccessful { error: CallError::Unknown(error), answer: Some(answer) });
                }
                Ended::Answered(answer) if is_html(&answer) || answer.status.is_redirection() => {
                    return Err(CallError::Fatal(self.not_dataverse(&answer)).into());
                }
                Ended::Answered(answer) => return Ok(answer),
                Ended::Refused(refusal, answer) => {
                    (Attempt::Refused(refusal.class), self.refused_call(refusal), Some(answer))
                }
                Ended::Failed(error) => {
                    let (attempt, error) = failed(error);
                    (attempt, error, None)
                }
                Ended::TimedOut => (Attempt::Unknown, CallError::Unknown(self.no_answer()), None),
            };
            let is_from_front_end = || answer.as_ref().is_some_and(|answer| is_front_end(answer.status));
            if matches!(attempt, Attempt::Unknown) || is_from_front_end() {
                may_be_run = true;
                self.note_unanswered(call);
            }
            match retry.after(attempt, call.is_repeatable, random_fraction()) {
                Next::Stop => return Err(Unsuccessful { error, answer }),
                // The token was not ours: another of ours would change nothing.
                Next::RenewToken if !matches!(call.caller, Caller::Ourselves) => {
                    return Err(Unsuccessful { error, answer });
                }
                Next::RenewToken => {
                    self.users.token(user, Some(token.generation)).await.map_err(CallError::Fatal)?;
                }
                Next::Again(after) => wait = after,
            }
            latest = Some(error);
        }
    }

    /// What the call writes may take effect late.
    fn note_unanswered(&self, call: &Call) {
        if let Some(work) = &call.work {
            self.unanswered.note(&work.table, self.clock.now());
        }
    }

    /// Waits before the next attempt. At the deadline the latest end stands.
    async fn wait(&self, wait: Duration, bounds: Bounds<'_>, latest: Option<CallError>) -> Result<(), CallError> {
        let now = self.clock.elapsed();
        if bounds.cancel.is_cancelled() {
            return Err(CallError::Cancelled);
        }
        if now.after(wait) >= bounds.until {
            return Err(latest.unwrap_or_else(|| CallError::TooLate(too_late())));
        }
        if wait > Duration::ZERO {
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = bounds.cancel.cancelled() => return Err(CallError::Cancelled),
            }
        }
        Ok(())
    }

    /// A permit for the call. Trials that it is given on the way are made for all.
    ///
    /// A read that failed is its own trial: where every second connection is cut, it would otherwise
    /// come after each trial that succeeds.
    async fn admit(&self, call: &Call, bounds: Bounds<'_>, has_failed: bool) -> Result<Permit<'_>, CallError> {
        loop {
            let permit = self.permit(call, bounds).await?;
            if !permit.is_trial() || (has_failed && call.method == Method::GET) {
                return Ok(permit);
            }
            let token = self.users.token(permit.user(), None).await.map_err(CallError::Fatal)?;
            let trial = Call::get(WHO_AM_I, call.class);
            let url = self.resolve(&trial.address)?;
            let until = bounds.until.min(self.clock.elapsed().after(TRIAL_WAIT));
            // What it shows is for the budget, which is told in any case.
            self.attempt(&trial, &url, &token, permit, Bounds { until, ..bounds }).await;
        }
    }

    async fn permit(&self, call: &Call, bounds: Bounds<'_>) -> Result<Permit<'_>, CallError> {
        let left = bounds.until.since(self.clock.elapsed());
        tokio::select! {
            permit = self.budget.admit(call.class, call.cost) => permit.map_err(not_admitted),
            () = self.clock.sleep(left) => Err(CallError::TooLate(too_late())),
            () = bounds.cancel.cancelled() => Err(CallError::Cancelled),
        }
    }

    /// One exchange. A cancellation does not reach into it: an abandoned write has an unknown end.
    async fn attempt(&self, call: &Call, url: &Url, token: &Token, permit: Permit<'_>, bounds: Bounds<'_>) -> Ended {
        let permit = if call.is_bound { permit } else { permit.unbound() };
        let request = Request {
            method: call.method.clone(),
            url: url.clone(),
            headers: headers(call, permit.cookie()),
            body: call.body.clone(),
            bearer: self.bearer(&call.caller, token),
        };
        let request_name = named(&request.headers).to_owned();
        let left = bounds.until.since(self.clock.elapsed()).min(self.answer_wait);
        let sent = tokio::select! {
            sent = self.http.send(request) => sent,
            () = self.clock.sleep(left) => return Ended::TimedOut,
        };
        let duration = permit.elapsed();
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                if !error.is_unsent() || error.is_passing() {
                    permit.complete(&BudgetEnded::Unavailable(AnswerFacts { duration, ..AnswerFacts::default() }));
                }
                return Ended::Failed(error);
            }
        };
        let is_refusal = answer.status.is_client_error() || answer.status.is_server_error();
        let refusal = is_refusal.then(|| self.refusal(&answer, call, permit.user()));
        let busy =
            permit.complete(&budget_end(&answer, refusal.as_ref(), duration, &self.affinity_cookie, self.clock.now()));
        if refusal.is_none() {
            if let Err(error) = self.earned.judge(&call.expected, &answer, &request_name) {
                tracing::warn!(status = answer.status.as_u16(), "{}", error.message);
                return Ended::Unearned(error, answer);
            }
            if let Some(work) = &call.work {
                self.costs.observe(work, busy);
            }
        }
        match refusal {
            None => Ended::Answered(answer),
            Some(refusal) => {
                tracing::debug!(status = refusal.status.as_u16(), code = refusal.service_code(), "refused");
                Ended::Refused(refusal, answer)
            }
        }
    }

    /// What a refusal says, and to which of several users, if that can matter.
    fn refusal(&self, answer: &Answer, call: &Call, user: usize) -> Refusal {
        let mut refusal = Refusal::of(answer);
        let is_about_user = matches!(refusal.class, FaultClass::Permission | FaultClass::Unauthenticated);
        if let Some(key) = self.users.key(user).filter(|_| is_about_user && matches!(call.caller, Caller::Ourselves)) {
            refusal.message = format!("{} (sent as user `{key}`)", refusal.message);
        }
        refusal
    }

    fn bearer(&self, caller: &Caller, own: &Token) -> Option<(Secret, Origin)> {
        let secret = match caller {
            Caller::Ourselves => own.secret.clone(),
            Caller::Nobody => return None,
            Caller::Bearer(secret) => secret.clone(),
        };
        Some((secret, self.addresses.service.clone()))
    }

    /// The whole address. Links must stay within the API of this environment.
    fn resolve(&self, address: &Address) -> Result<Url, CallError> {
        match address {
            Address::Path(path) => {
                let text = format!("{}{path}", self.addresses.api);
                Url::parse(&text)
                    .map_err(|_| CallError::Fatal(HttpError::BadUrl { url: flowgate_http::redact_url(&text) }.into()))
            }
            Address::Link(link) => {
                let is_ours =
                    Origin::of(link).as_ref() == Some(&self.addresses.service) && link.path().starts_with("/api/data/");
                if is_ours {
                    return Ok(link.clone());
                }
                let origin = Origin::of(link).map_or_else(|| link.scheme().to_owned(), |origin| origin.to_string());
                Err(CallError::Fatal(HttpError::ForeignOrigin { origin }.into()))
            }
        }
    }

    fn refused_call(&self, refusal: Refusal) -> CallError {
        match refusal.class {
            FaultClass::Unauthenticated | FaultClass::Paused | FaultClass::Throttled | FaultClass::Transient => {
                CallError::Fatal(refused("a request", &refusal))
            }
            FaultClass::Gateway => CallError::Unknown(refused("a request", &refusal)),
            // Without a code it was not the platform that answered, so it is not about the row.
            FaultClass::Limited if refusal.code.is_none() => CallError::Fatal(refused("a request", &refusal)),
            FaultClass::Missing if refusal.code.is_none() && refusal.status == StatusCode::NOT_FOUND => {
                CallError::Fatal(self.no_api(&refusal))
            }
            FaultClass::Limited
            | FaultClass::Split
            | FaultClass::Row
            | FaultClass::RowOrConfiguration
            | FaultClass::Duplicate
            | FaultClass::Missing
            | FaultClass::Conflict
            | FaultClass::NoMessage
            | FaultClass::ExpiredToken
            | FaultClass::Configuration
            | FaultClass::Permission => CallError::Refused(refusal),
        }
    }

    fn no_api(&self, refusal: &Refusal) -> ConnectorError {
        let message = format!("`{}` has no Web API there: status 404, {}", self.addresses.service, refusal.message);
        ConnectorError::new(ErrorKind::NotFound, Code::UNEXPECTED_ANSWER, message)
            .hint("check `url`: it is the address of the environment, such as `https://agency.crm11.dynamics.com`")
    }

    fn not_dataverse(&self, answer: &Answer) -> ConnectorError {
        let what = if answer.status.is_redirection() { "a redirect" } else { "something that is not data" };
        let message = format!("`{}` answered with {what} (status {})", self.addresses.service, answer.status.as_u16());
        ConnectorError::new(ErrorKind::Configuration, Code::UNEXPECTED_ANSWER, message)
            .hint("a proxy, a sign-in page or a wrong address does that: check `url`")
    }

    fn no_answer(&self) -> ConnectorError {
        let message = format!("`{}` did not answer in time", self.addresses.service);
        ConnectorError::new(ErrorKind::Transient, Code::CONNECTION_FAILED, message)
    }
}

fn failed(error: HttpError) -> (Attempt, CallError) {
    if !error.is_unsent() {
        return (Attempt::Unknown, CallError::Unknown(error.into()));
    }
    if error.is_passing() {
        return (Attempt::NotSent, CallError::Fatal(error.into()));
    }
    // Refused by our own gate: no other try will differ.
    (Attempt::Refused(FaultClass::Configuration), CallError::Fatal(error.into()))
}

fn too_late() -> ConnectorError {
    let message = "the deadline passed while waiting for the service limits";
    ConnectorError::new(ErrorKind::Throttled, Code::THROTTLED, message)
        .hint("other programs may use the same application user; run again: the run continues where it stopped")
}

fn http_options(options: &DataverseOptions, allowed_origins: Vec<Origin>) -> HttpOptions {
    let defaults = HttpOptions::to(allowed_origins);
    HttpOptions { ca_file: options.ca_file.clone(), proxy: options.proxy.clone(), ..defaults }
}

/// The headers of dossier section 3.1, and the call's own.
fn headers(call: &Call, cookie: Option<&str>) -> HeaderMap {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const VERSION: HeaderValue = HeaderValue::from_static("4.0");
    let mut headers = call.headers.clone();
    headers.insert(ACCEPT, JSON);
    headers.insert(HeaderName::from_static("odata-version"), VERSION);
    headers.insert(HeaderName::from_static("odata-maxversion"), VERSION);
    if !headers.contains_key(IF_NONE_MATCH) {
        // The documented way to get past caches; the value is not an entity tag.
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("null"));
    }
    if !call.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, JSON);
    }
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        headers.insert(COOKIE, cookie);
    }
    headers.entry(REQUEST_NAME_HEADER).or_insert_with(request_name);
    headers
}

const REQUEST_NAME_HEADER: HeaderName = HeaderName::from_static(REQUEST_NAME);

fn request_name() -> HeaderValue {
    HeaderValue::from_str(&Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// The name under which a request goes.
fn named(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_NAME_HEADER).and_then(|name| name.to_str().ok()).unwrap_or_default()
}

/// Spreads the waits of many processes; of no use for anything secret.
fn random_fraction() -> f64 {
    (Uuid::new_v4().as_u64_pair().0 >> 11) as f64 / (1_u64 << 53) as f64
}
