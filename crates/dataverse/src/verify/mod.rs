//! Verification: every assumption about the service that a client can observe, looked at.
//!
//! Each assumption is a probe: one row of [`table`], one function of a topic's file. Probes work in a
//! scratch table that is removed at the end, also after a failure or a cancellation. What they see is
//! compared with what is assumed, or with what an earlier verification saw, and written to a file that
//! the emulator loads.
//!
//! Promised: no row of any other table is written; every request passes the budget; nothing runs
//! against a production environment unless that is asked for. Left out: provoking the limits.

mod ask;
mod bulk;
mod content;
mod definitions;
mod file;
mod keys;
mod lab;
mod other_languages;
mod probe;
mod queries;
mod reply;
mod sign_in;
mod table;
mod tracking;
mod values;

use flowgate_core::destination::Class;
use flowgate_core::{CancellationToken, Code, ConnectorError, ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

pub use file::Observations;

use crate::Dataverse;
use crate::call::{Call, CallError};
use crate::metadata::{list_tables, parse};
use lab::{Lab, SCRATCH_NAME};
use probe::{NoAnswer, Probe, Seen};
use table::{NOT_PROBED, PROBES};

/// Kinds of environments that are for trying things: sandboxes, developers' and trials.
const KINDS_FOR_TRYING: [&str; 6] =
    ["CustomerTest", "CustomerFreeTest", "Developer", "Trial", "EmailTrial", "TestDrive"];

/// How a verification is run.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Also in an environment that is not for trying things.
    pub allow_production: bool,
    /// Also what takes thousands of rows and hundreds of megabytes.
    pub with_large: bool,
    /// What to compare with in place of the documented assumptions.
    pub expected: Option<Observations>,
}

/// What the environment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentFacts {
    /// `Customer` is a production environment, `CustomerTest` a sandbox.
    pub kind: Option<String>,
    pub version: Option<String>,
}

/// A probe as a person reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeFacts {
    pub name: &'static str,
    pub section: &'static str,
    pub assumption: &'static str,
    pub assumed: Value,
    /// Whether the finding is a setting of the emulator.
    pub is_setting: bool,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Held,
    Differs,
    NotPermitted,
    NotObservable,
}

impl Outcome {
    /// As it stands in files and on screens.
    pub fn words(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Differs => "differs",
            Self::NotPermitted => "not permitted",
            Self::NotObservable => "not observable",
        }
    }
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeResult {
    pub probe: ProbeFacts,
    pub outcome: Outcome,
    pub expected: Value,
    /// In the terms of the setting; `None` where nothing was seen, or nothing the setting has a word for.
    pub value: Option<Value>,
    /// In words: what was seen, or why nothing was.
    pub seen: String,
}

impl ProbeResult {
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.probe.name, "section": self.probe.section, "assumption": self.probe.assumption,
            "outcome": self.outcome.words(), "expected": self.expected, "value": self.value, "seen": self.seen,
        })
    }
}

/// What a verification found.
#[derive(Debug)]
pub struct Verification {
    pub environment: EnvironmentFacts,
    pub results: Vec<ProbeResult>,
    /// Stopped before all probes had run.
    pub is_interrupted: bool,
    /// Scratch tables of earlier verifications that were killed, or of one that runs elsewhere.
    pub leftovers: Vec<String>,
    /// Why the scratch table is still there, if it is.
    pub left_behind: Option<ConnectorError>,
}

impl Verification {
    /// For the file that the emulator loads.
    pub fn observations(&self) -> Observations {
        Observations::of(&self.results)
    }
}

/// Something a person wants to know while it goes on.
#[derive(Debug)]
pub enum VerifyStep<'a> {
    /// The table about to be made.
    Scratch(&'a str),
    Result(&'a ProbeResult),
    /// Everything is over but for the removal.
    Removing(&'a str),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OrganizationAnswer {
    detail: OrganizationDetail,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OrganizationDetail {
    organization_type: Option<Value>,
    organization_version: Option<String>,
}

/// Every probe there is.
pub fn probes() -> Vec<ProbeFacts> {
    PROBES.iter().map(facts).collect()
}

/// Assumptions that no probe looks at: section, assumption, why.
pub fn not_probed() -> &'static [(&'static str, &'static str, &'static str)] {
    NOT_PROBED
}

fn facts(probe: &Probe) -> ProbeFacts {
    ProbeFacts {
        name: probe.name,
        section: probe.section,
        assumption: probe.assumption,
        assumed: probe.expected.to_value(),
        is_setting: probe.place == probe::Place::Setting,
    }
}

impl Dataverse {
    /// What the environment says of its kind and version.
    pub async fn environment(&self) -> Result<EnvironmentFacts, ConnectorError> {
        let path =
            "RetrieveCurrentOrganization(AccessType=@p)?@p=Microsoft.Dynamics.CRM.EndpointAccessType%27Default%27";
        let call = Call::get(path, Class::Interactive);
        match self.client.call(&call, self.client.bounds()).await {
            Ok(answer) => {
                let OrganizationAnswer { detail } = parse(&answer.body, "reading the environment's kind")?;
                let kind = detail.organization_type.map(|kind| kind.as_str().map_or(kind.to_string(), str::to_owned));
                Ok(EnvironmentFacts { kind, version: detail.organization_version })
            }
            // Who may not ask still may use the environment.
            Err(CallError::Refused(_)) => Ok(EnvironmentFacts { kind: None, version: None }),
            Err(error) => Err(error.into_error("reading the environment's kind")),
        }
    }

    /// Runs every probe, and removes what they made.
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        cancel: &CancellationToken,
        tell: &(dyn for<'a> Fn(VerifyStep<'a>) + Send + Sync),
    ) -> Result<Verification, ConnectorError> {
        let session = self.client.session(self.client.bounds_with(cancel)).await;
        let who = session.map_err(|error| error.into_error("signing in to the environment"))?;
        let environment = self.environment().await?;
        if !options.allow_production {
            check_kind(&environment)?;
        }
        let publisher = self.publisher().await?;
        let leftovers = self.leftovers(&publisher.prefix).await?;
        let mut lab = Lab::new(self, cancel, who, publisher, options.with_large);
        tell(VerifyStep::Scratch(&lab.table));
        let done = match lab.prepare().await {
            Ok(()) => Ok(run_all(&lab, options, tell).await),
            Err(error) => Err(error),
        };
        tell(VerifyStep::Removing(&lab.table));
        let left_behind = lab.remove().await.err();
        match done {
            Ok((results, is_interrupted)) => {
                Ok(Verification { environment, results, is_interrupted, leftovers, left_behind })
            }
            Err(error) => Err(left_behind.unwrap_or_else(|| not_prepared(error))),
        }
    }
}

impl Dataverse {
    async fn leftovers(&self, prefix: &str) -> Result<Vec<String>, ConnectorError> {
        let start = format!("{prefix}_{SCRATCH_NAME}");
        let tables = list_tables(&self.client).await?.into_iter().map(|table| table.logical_name);
        Ok(tables.filter(|name| name.starts_with(&start)).collect())
    }
}

fn check_kind(environment: &EnvironmentFacts) -> Result<(), ConnectorError> {
    let said = match &environment.kind {
        Some(kind) if KINDS_FOR_TRYING.contains(&kind.as_str()) => return Ok(()),
        Some(kind) => format!("the environment is of the kind `{kind}`, and not a sandbox, developer or trial one"),
        None => "the environment does not say whether it is a sandbox".to_owned(),
    };
    Err(ConnectorError::new(ErrorKind::Configuration, Code::PROVISION_REFUSED, said)
        .hint("a verification makes a table, writes to it and removes it: run it in a sandbox")
        .hint("`--production` does it all the same"))
}

fn not_prepared(error: NoAnswer) -> ConnectorError {
    match error {
        NoAnswer::Failed(error) => error.into_error("making the scratch table"),
        NoAnswer::NotPermitted(said) => ConnectorError::new(ErrorKind::Permission, Code::NOT_ALLOWED, said)
            .hint("the application user must be allowed to make and remove tables: `System Customizer` is enough"),
        NoAnswer::NotObservable(said) => ConnectorError::new(ErrorKind::Schema, Code::SERVICE_FAILED, said),
    }
}

/// The results, and whether the probes were stopped before the last.
async fn run_all(
    lab: &Lab<'_>,
    options: &VerifyOptions,
    tell: &(dyn for<'a> Fn(VerifyStep<'a>) + Send + Sync),
) -> (Vec<ProbeResult>, bool) {
    let mut results = Vec::with_capacity(PROBES.len());
    for probe in PROBES {
        let found = match (probe.run)(lab).await {
            Err(NoAnswer::Failed(CallError::Cancelled)) => return (results, true),
            found => found,
        };
        let expected = options.expected.as_ref().and_then(|observed| observed.expected(probe));
        let result = judge(probe, expected.unwrap_or_else(|| probe.expected.to_value()), found);
        tell(VerifyStep::Result(&result));
        results.push(result);
    }
    (results, false)
}

fn judge(probe: &Probe, expected: Value, found: Result<Seen, NoAnswer>) -> ProbeResult {
    let (outcome, value, seen) = match found {
        Ok(Seen { value: Some(value), words }) if probe.expected.agrees(&expected, &value) => {
            (Outcome::Held, Some(value), words)
        }
        Ok(Seen { value, words }) => (Outcome::Differs, value, words),
        Err(NoAnswer::NotPermitted(why)) => (Outcome::NotPermitted, None, why),
        Err(NoAnswer::NotObservable(why)) => (Outcome::NotObservable, None, why),
        // An error's text may name hosts: its code says enough.
        Err(NoAnswer::Failed(error)) => {
            let code = error.into_error("a probe").code;
            (Outcome::NotObservable, None, format!("a request came to no answer ({code})"))
        }
    };
    ProbeResult { probe: facts(probe), outcome, expected, value, seen }
}
