//! The connection itself: organisation, version, latency, clock, limits, web servers.

use std::collections::BTreeSet;
use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::examination::{Finding, FindingState};
use flowgate_core::{ConnectorError, Elapsed};
use flowgate_http::Answer;
use http::header::SET_COOKIE;

use crate::Dataverse;
use crate::answer::header_number;
use crate::budget::retry_after::http_date;
use crate::call::{Bounds, Call};

/// Enough to see most web servers, and a latency that one slow answer does not decide.
const SAMPLES: usize = 12;

/// Whoever asks what is wrong does not want to wait for the retries of a load.
const REACH_WAIT: Duration = Duration::from_secs(20);

/// A slower answer to the cheapest of questions makes every load slow.
const LATENCY_NOTABLE_MS: f64 = 1_000.0;

/// Tokens of another time are refused; before that, schedules and change cursors go wrong.
const SKEW_NOTABLE_SECONDS: f64 = 30.0;
const SKEW_BAD_SECONDS: f64 = 300.0;

/// With less than this left someone else is using the same application user.
const REQUESTS_LEFT_NOTABLE: f64 = 1_000.0;
const SECONDS_LEFT_NOTABLE: f64 = 240.0;

pub(super) async fn examine(dataverse: &Dataverse) -> Result<Vec<Finding>, ConnectorError> {
    let client = &dataverse.client;
    let bounds = Bounds { until: client.clock().elapsed().after(REACH_WAIT), ..client.bounds() };
    let session = client.session(bounds).await;
    let who = session.map_err(|error| error.into_error("signing in to the environment"))?;
    let mut findings = vec![Finding::good("sign-in", format!("user `{}`", who.user_id))];
    let organization = format!("`{}`", who.organization_id);
    findings.push(match client.pinned() {
        Some(_) => Finding::good("organization", format!("{organization}, as pinned")),
        None => {
            Finding::new(FindingState::Notable, "organization", format!("{organization}, not pinned")).hint(format!(
                "add `organization: {}` to the connection: another one is then never written to",
                who.organization_id
            ))
        }
    });
    let environment = dataverse.environment().await?;
    findings.push(match (environment.version, environment.kind) {
        (None, None) => Finding::new(FindingState::Unknown, "version", "the service does not tell"),
        (version, kind) => {
            let kind = kind.map(|kind| format!(", of the kind `{kind}`")).unwrap_or_default();
            Finding::good("version", format!("{}{kind}", version.as_deref().unwrap_or("unknown")))
        }
    });
    let samples = sample(dataverse).await?;
    findings.push(latency(&samples));
    findings.extend(skew(dataverse, &samples));
    findings.push(limits(&samples));
    findings.push(servers(&samples));
    findings.push(
        Finding::new(FindingState::Unknown, "entitlement", "the service does not tell through this interface")
            .hint("the Power Platform admin center shows requests a day; `budget: { daily: … }` keeps within them"),
    );
    Ok(findings)
}

struct Sample {
    answer: Answer,
    asked: Elapsed,
    answered: Elapsed,
}

impl Sample {
    fn milliseconds(&self) -> f64 {
        self.answered.since(self.asked).as_secs_f64() * 1_000.0
    }

    fn number(&self, header: &str) -> Option<f64> {
        header_number(self.answer.header(header)?)
    }
}

async fn sample(dataverse: &Dataverse) -> Result<Vec<Sample>, ConnectorError> {
    let client = &dataverse.client;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let asked = client.clock().elapsed();
        let answer = client.call(&Call::get("WhoAmI", Class::Interactive), client.bounds()).await;
        let answer = answer.map_err(|error| error.into_error("asking the environment who we are"))?;
        samples.push(Sample { answer, asked, answered: client.clock().elapsed() });
    }
    Ok(samples)
}

fn latency(samples: &[Sample]) -> Finding {
    let mut times: Vec<f64> = samples.iter().map(Sample::milliseconds).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    let (least, median, most) = (at(0.0), at(0.5), times.last().copied().unwrap_or_default());
    let seen = format!("{median:.0} ms, from {least:.0} to {most:.0} in {} samples", times.len());
    if median > LATENCY_NOTABLE_MS {
        return Finding::new(FindingState::Notable, "latency", seen)
            .hint("run Flowgate nearer to the environment's region, or look at the proxy between");
    }
    Finding::good("latency", seen)
}

/// The difference to the service's clock. `None` where the connection's own clock runs faster than
/// time: then there is nothing to compare.
fn skew(dataverse: &Dataverse, samples: &[Sample]) -> Option<Finding> {
    let clock = dataverse.client.clock();
    let last = samples.last()?;
    if dataverse.time_scale > 1.0 {
        return None;
    }
    let Some(there) = last.answer.header("date").and_then(http_date) else {
        return Some(Finding::new(FindingState::Unknown, "clock", "answers have no date"));
    };
    let seconds = (clock.now().as_second() - there.as_second()) as f64;
    let seen = format!("{} s {} the service's", seconds.abs(), if seconds < 0.0 { "behind" } else { "ahead of" });
    let state = match seconds.abs() {
        apart if apart > SKEW_BAD_SECONDS => FindingState::Bad,
        apart if apart > SKEW_NOTABLE_SECONDS => FindingState::Notable,
        _ => return Some(Finding::good("clock", seen)),
    };
    Some(Finding::new(state, "clock", seen).hint("let this machine's clock be set by the network (NTP)"))
}

fn limits(samples: &[Sample]) -> Finding {
    // The least of the servers that answered is what a load would meet.
    let least = |header: &str| samples.iter().filter_map(|sample| sample.number(header)).reduce(f64::min);
    let requests = least("x-ms-ratelimit-burst-remaining-xrm-requests");
    let seconds = least("x-ms-ratelimit-time-remaining-xrm-requests");
    let hint = samples.iter().find_map(|sample| sample.number("x-ms-dop-hint"));
    let parts = [
        requests.map(|requests| format!("{requests:.0} requests")),
        seconds.map(|seconds| format!("{seconds:.0} s of execution")),
    ];
    let left = parts.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    if left.is_empty() {
        return Finding::new(FindingState::Unknown, "limits", "answers do not tell what is left");
    }
    let parallel = hint.map(|hint| format!("; {hint:.0} requests at once are recommended")).unwrap_or_default();
    let seen = format!("{left} left on the fullest web server{parallel}");
    if requests.is_some_and(|left| left < REQUESTS_LEFT_NOTABLE)
        || seconds.is_some_and(|left| left < SECONDS_LEFT_NOTABLE)
    {
        return Finding::new(FindingState::Notable, "limits", seen)
            .hint("another program uses the same application user: give Flowgate one of its own");
    }
    Finding::good("limits", seen)
}

fn servers(samples: &[Sample]) -> Finding {
    let affinity = |line: &str| {
        let (name, value) = line.split(';').next()?.split_once('=')?;
        name.to_ascii_lowercase().contains("affinity").then(|| value.trim().to_owned())
    };
    let lines = samples.iter().flat_map(|sample| sample.answer.headers.get_all(SET_COOKIE));
    let seen: BTreeSet<String> = lines.filter_map(|line| affinity(line.to_str().ok()?)).collect();
    match seen.len() {
        0 => Finding::new(FindingState::Unknown, "web servers", "answers do not tell them apart"),
        count => Finding::good("web servers", format!("{count} answered {} requests", samples.len())),
    }
}
