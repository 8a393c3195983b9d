//! The Dataverse Web API: sign-in, metadata, messages, budget and load.
//!
//! [`Dataverse`] is a connection to one environment. As a [`flowgate_core::Destination`] it knows
//! tables, gives rows the form their columns store, writes them by the message that suits, and says
//! of every row where it ended. As a source it reads tables by change tracking.
//!
//! Promised: every request passes one budget and one retry layer; nothing is sent to another
//! organisation than the pinned one, and no token to another origin than the environment's.
//!
//! Left out: what is written and in which order, and remembering it (that is the engine's).

mod admission;
mod answer;
mod auth;
pub mod budget;
mod call;
mod challenge;
mod client;
pub mod cost;
mod dataverse;
mod earned;
mod examine;
mod fault;
mod json_in;
mod json_out;
mod load;
mod metadata;
mod options;
mod provision;
mod query;
mod read;
mod retry;
mod track;
mod unanswered;
mod users;
mod values;
mod verify;

pub use dataverse::Dataverse;
pub use fault::known_codes;
pub use options::{Credential, DataverseOptions, SharingOptions, UserOptions, may_carry_secrets};
pub use track::TableRead;
pub use verify::{
    EnvironmentFacts, Observations, Outcome as ProbeOutcome, ProbeFacts, ProbeResult, Verification, VerifyOptions,
    VerifyStep, not_probed, probes,
};
