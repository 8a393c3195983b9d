//! Injected faults: rules that match requests, and what they do to them.
//!
//! Rules come as JSON through `/__emulator/faults`; the first that matches acts. Promise: with one
//! seed and one order of requests the same requests are hit; windows count from the moment the
//! rules were set, in simulated seconds. Left out: faults below HTTP other than a cut connection.

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::write::RejectRule;

/// A list of rules, as posted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "match", default)]
    matcher: Matcher,
    #[serde(rename = "do")]
    action: Do,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matcher {
    /// `CreateMultiple`, `Update`, `Retrieve`, `Batch`, `Token`, ...
    op: Option<String>,
    /// Logical or set name.
    table: Option<String>,
    /// The n-th match from now on, or `every_n`.
    nth: Option<Nth>,
    every: Option<u64>,
    probability: Option<f64>,
    window: Option<(Seconds, Seconds)>,
    /// At most this many times.
    times: Option<u64>,
    /// The body holds this text.
    contains: Option<String>,
    /// The body has at least this many Targets.
    rows_min: Option<usize>,
    /// Matches everything; the default, written out.
    #[serde(default)]
    any: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Nth {
    Number(u64),
    Text(String),
}

/// A duration: a number of simulated seconds, or `45s`, `300ms`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
struct Seconds(f64);

impl TryFrom<serde_json::Value> for Seconds {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        if let Some(number) = value.as_f64() {
            return Ok(Seconds(number));
        }
        let text = value.as_str().unwrap_or_default();
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        units
            .iter()
            .find_map(|(unit, factor)| Some(Seconds(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor)))
            .ok_or_else(|| format!("`{value}` is not a duration"))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Do {
    Name(String),
    Effect(Box<Effect>),
}

/// What a rule does. Members combine where that makes sense.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Effect {
    /// Answer with this status instead of running the request.
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// `Retry-After` as it stands: a number, a date, nonsense.
    pub(crate) retry_after: Option<serde_json::Value>,
    /// The body of `status` is HTML, or there is none.
    pub(crate) html: bool,
    pub(crate) empty: bool,
    /// One of `requests`, `time`, `concurrency`: that 429 in full.
    pub(crate) limit: Option<String>,
    delay: Option<Seconds>,
    /// Run the request, then cut the connection.
    pub(crate) commit_then_drop: bool,
    /// Cut the connection, run nothing.
    pub(crate) drop_before_commit: bool,
    delay_commit: Option<Seconds>,
    /// With `delay_commit`: `timeout` to never answer, or a status to answer at once.
    pub(crate) answer: Option<serde_json::Value>,
    /// Refuse rows by a column's value, as a synchronous plug-in would.
    pub(crate) reject: Option<Reject>,
    /// Cut the answer off after this many bytes.
    pub(crate) truncate: Option<usize>,
    /// Another client has just sent the same: run the request twice, answer the second time.
    pub(crate) race: bool,
    /// Of an elastic bulk message, fail the rows of these places with this status, keep the others.
    pub(crate) fail_rows: Option<FailRows>,
    /// The link to the next page leads to this one again.
    pub(crate) repeat_next_link: bool,
    /// Replace the answer's content type or body, status kept.
    pub(crate) content_type: Option<String>,
    /// Only the header: a body that is not so encoded is garbage.
    pub(crate) content_encoding: Option<String>,
    pub(crate) body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailRows {
    pub(crate) at: Vec<usize>,
    pub(crate) status: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reject {
    column: String,
    value: String,
    #[serde(default = "default_rejection")]
    message: String,
}

fn default_rejection() -> String {
    "The row was rejected by a plug-in.".to_owned()
}

impl Effect {
    pub(crate) fn delay_s(&self) -> f64 {
        self.delay.map_or(0.0, |delay| delay.0)
    }

    pub(crate) fn delay_commit_s(&self) -> Option<f64> {
        self.delay_commit.map(|delay| delay.0)
    }
}

#[derive(Debug)]
struct Armed {
    source: serde_json::Value,
    rule: Rule,
    effect: Effect,
    seen: u64,
    hits: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
    set_at: f64,
}

/// What one rule has done so far.
#[derive(Debug, Serialize)]
pub(crate) struct RuleCount {
    pub(crate) rule: serde_json::Value,
    pub(crate) seen: u64,
    pub(crate) hits: u64,
}

/// What a request is, to the rules.
pub(crate) struct Subject<'a> {
    pub(crate) operation: &'a str,
    pub(crate) set: &'a str,
    pub(crate) table: &'a str,
    pub(crate) body: &'a [u8],
}

impl Faults {
    /// Replaces all rules.
    pub(crate) fn set(&mut self, rules: Vec<serde_json::Value>, now: f64) -> Result<(), String> {
        let mut armed = Vec::new();
        for source in rules {
            let rule: Rule = serde_json::from_value(source.clone()).map_err(|error| error.to_string())?;
            let effect = effect_of(&rule.action)?;
            armed.push(Armed { source, rule, effect, seen: 0, hits: 0 });
        }
        *self = Faults { armed, set_at: now };
        Ok(())
    }

    pub(crate) fn counts(&self) -> Vec<RuleCount> {
        let count = |armed: &Armed| RuleCount { rule: armed.source.clone(), seen: armed.seen, hits: armed.hits };
        self.armed.iter().map(count).collect()
    }

    /// The effect of the first rule that hits a request.
    pub(crate) fn hit(&mut self, subject: &Subject<'_>, now: f64, random: &mut Random) -> Option<Effect> {
        let since = now - self.set_at;
        let mut hits = |armed: &mut Armed| armed.effect.reject.is_none() && armed.hits_now(subject, since, random);
        self.armed.iter_mut().find_map(|armed| hits(armed).then(|| armed.effect.clone()))
    }

    /// Rejections stand beside the other rules: they act on rows, not on requests.
    pub(crate) fn rejections(&self, now: f64) -> Vec<RejectRule> {
        let since = now - self.set_at;
        let active = self.armed.iter().filter(|armed| armed.rule.matcher.in_window(since));
        active
            .filter_map(|armed| {
                let reject = armed.effect.reject.as_ref()?;
                Some(RejectRule {
                    table: armed.rule.matcher.table.clone()?,
                    column: reject.column.clone(),
                    value: reject.value.clone(),
                    message: reject.message.clone(),
                })
            })
            .collect()
    }
}

fn effect_of(action: &Do) -> Result<Effect, String> {
    match action {
        Do::Effect(effect) => Ok((**effect).clone()),
        Do::Name(name) => named_effect(name),
    }
}

/// Refusals with a name of their own: name, status, code, message. Codes and texts as in section 25.3; a
/// status marked `?` there is UNVERIFIED.
const REFUSALS: &[(&str, u16, &str, &str)] = &[
    ("bad_gateway", 502, "0x80040216", "Bad gateway."),
    ("service_unavailable", 503, "0x80040216", "The service is temporarily unavailable."),
    ("gateway_timeout", 504, "0x80040216", "The gateway timed out."),
    ("sql_deadlock", 500, "0x80044150", "Generic SQL error. Sql Number: 1205"),
    ("sql_timeout", 500, "0x80044151", "SQL timeout expired. Sql Number: -2"),
    ("expired_token", 401, "0x8004A101", "The access token has expired."),
    (
        "expired_delta_token",
        400,
        "0x80044352",
        "Version stamp associated with the client has expired. Please perform a full sync.",
    ),
    ("environment_disabled", 403, "0x8004A104", "The organization is disabled."),
];

fn named_effect(name: &str) -> Result<Effect, String> {
    if let Some((_, status, code, message)) = REFUSALS.iter().find(|(known, ..)| *known == name) {
        let (code, message) = (Some((*code).to_owned()), Some((*message).to_owned()));
        return Ok(Effect { status: Some(*status), code, message, ..Effect::default() });
    }
    match name {
        "commit_then_drop" => Ok(Effect { commit_then_drop: true, ..Effect::default() }),
        "drop_before_commit" => Ok(Effect { drop_before_commit: true, ..Effect::default() }),
        "html" => Ok(Effect { status: Some(502), html: true, ..Effect::default() }),
        "race" => Ok(Effect { race: true, ..Effect::default() }),
        "repeat_next_link" => Ok(Effect { repeat_next_link: true, ..Effect::default() }),
        other => {
            let known: Vec<&str> = REFUSALS.iter().map(|(name, ..)| *name).collect();
            Err(format!(
                "`{other}` is not an effect; use commit_then_drop, drop_before_commit, html, race, repeat_next_link, {} or an object",
                known.join(", ")
            ))
        }
    }
}

impl Matcher {
    fn in_window(&self, since: f64) -> bool {
        self.window.is_none_or(|(from, to)| since >= from.0 && since < to.0)
    }

    fn is_subject(&self, subject: &Subject<'_>) -> bool {
        let op = self.op.as_ref().is_none_or(|op| op.eq_ignore_ascii_case(subject.operation));
        let table = self.table.as_ref().is_none_or(|table| table == subject.table || table == subject.set);
        let contains = self.contains.as_ref().is_none_or(|text| {
            !text.is_empty() && subject.body.windows(text.len()).any(|window| window == text.as_bytes())
        });
        let rows = self.rows_min.is_none_or(|rows| targets(subject.body) >= rows);
        // Control and sign-in are hit only when named.
        let named = self.op.is_some() || subject.operation != "Token";
        op && table && named && rows && (contains || self.any)
    }
}

/// How many Targets a body has.
fn targets(body: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct Bulk {
        #[serde(rename = "Targets", default)]
        targets: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Bulk>(body).map_or(0, |bulk| bulk.targets.len())
}

impl Armed {
    fn hits_now(&mut self, subject: &Subject<'_>, since: f64, random: &mut Random) -> bool {
        let matcher = &self.rule.matcher;
        if !matcher.in_window(since) || !matcher.is_subject(subject) {
            return false;
        }
        self.seen += 1;
        let every = matcher.every.or_else(|| match &matcher.nth {
            Some(Nth::Text(text)) => text.strip_prefix("every_").and_then(|number| number.parse().ok()),
            _ => None,
        });
        let is_turn = match (&matcher.nth, every) {
            (Some(Nth::Number(nth)), _) => self.seen == *nth,
            (_, Some(every)) => every > 0 && self.seen.is_multiple_of(every),
            _ => true,
        };
        let spent = matcher.times.is_some_and(|times| self.hits >= times);
        let lucky = matcher.probability.is_none_or(|probability| random.unit() < probability);
        let hit = is_turn && !spent && lucky;
        self.hits += u64::from(hit);
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(json: &str, requests: u64) -> Vec<u64> {
        let mut faults = Faults::default();
        faults.set(serde_json::from_str(json).unwrap(), 0.0).unwrap();
        let mut random = Random::new(1);
        let subject = Subject { operation: "UpsertMultiple", set: "accounts", table: "account", body: b"{}" };
        (1..=requests).filter(|at| faults.hit(&subject, *at as f64, &mut random).is_some()).collect()
    }

    #[test]
    fn rules_count_and_keep_to_their_window() {
        assert_eq!(
            hits(r#"[{"match":{"op":"UpsertMultiple","table":"account","nth":"every_3"},"do":"commit_then_drop"}]"#, 7),
            [3, 6]
        );
        assert_eq!(hits(r#"[{"match":{"nth":2},"do":{"status":503}}]"#, 5), [2]);
        assert_eq!(
            hits(r#"[{"match":{"any":true,"window":["2s",4]},"do":{"status":429,"retry_after":17}}]"#, 6),
            [2, 3]
        );
        assert_eq!(hits(r#"[{"match":{"table":"contact"},"do":{"status":503}}]"#, 3), Vec::<u64>::new());
        assert_eq!(hits(r#"[{"match":{"times":1},"do":{"html":true,"status":502}}]"#, 3), [1]);
    }

    #[test]
    fn unknown_members_are_refused() {
        let rules = serde_json::from_str(r#"[{"match":{"operation":"x"},"do":{"status":1}}]"#).unwrap();
        assert!(Faults::default().set(rules, 0.0).is_err());
        let rules = serde_json::from_str(r#"[{"do":"explode"}]"#).unwrap();
        assert!(Faults::default().set(rules, 0.0).is_err());
    }
}
