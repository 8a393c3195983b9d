//! One run of a flow: extract → stage → transform → diff → load.
//!
//! ```text
//! extract   sources -> batches                      extract.rs
//! stage     batches -> one checksummed image        stage.rs
//! transform images -> prepared rows, by one SELECT  transform.rs
//! prepare   prepared rows -> canonical, in buckets  mapping.rs lookup.rs prepare.rs adopt.rs
//! diff      buckets against state -> changes        diff.rs
//! load      changes -> destination, recorded first  load.rs ledger.rs
//! fold      acknowledged changes -> next state      fold.rs
//! ```
//!
//! Promises: every prepared row ends in exactly one class of [`flowgate_core::LoadRows`]; nothing is
//! sent before its intent is durable; state advances only by acknowledged rows; a run that was
//! killed at any moment goes on from what is durable and ends in the same state.
//!
//! Left out: what a connector does, how rows become requests, and the schedule of flows.

mod adopt;
mod compare;
mod diff;
mod error;
mod extract;
mod fill;
mod fold;
mod forgetful;
mod guard;
mod ids;
mod late;
mod ledger;
mod letters;
mod load;
mod lookup;
mod mapping;
mod merge;
mod observer;
mod odd;
mod one_load;
mod plan;
mod prepare;
mod run;
mod settling;
mod stage;
mod transform;
mod typed;
mod under_way;
mod winners;
mod witness;

pub use diff::DiffCounts;
pub use error::{FilePlace, RunError};
pub use guard::GuardStop;
pub use observer::{Event, Observer, Quiet};
pub use plan::{LoadPlan, Plan, PlannedChange, ValueChange};
pub use run::{Engine, RunOptions, RunOutcome};
pub use settling::is_settling;
pub use winners::KeyExamples;
