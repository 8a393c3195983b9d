//! Durable state of runs, loads and letters behind one trait.
//!
//! Three kinds of state, for three rates of change:
//!
//! * [`Store`]: runs, staged images, manifests of load state and letters, in a database that the
//!   processes of one host share. [`SqliteStore`] keeps it in `runs.db` of the state directory.
//! * [`ledger`]: one append-only file for each run and load, in which every request is durable
//!   before its first byte is sent. A run writes it thousands of times; the database only learns
//!   where it ended.
//! * [`SqliteLanes`]: who of the host's processes holds which part of a service's limits, and what was used
//!   of it, in `lanes.db`. It is written every second, and losing it costs minutes, so it is not synced.
//!
//! What is promised for the first two: a call that returned is on stable storage; a killed process leaves nothing
//! that the next one cannot continue; of two processes only one holds a flow, and writes of one that
//! lost it are refused by their epoch; counts that do not add up are never stored; damage, newer
//! formats and network storage are refused by name.
//!
//! Left out: PostgreSQL, encryption at rest (the configuration refuses `state.key`), and the sorted
//! buckets of load state, which are files of `flowgate-sorted`: only their manifest is kept here.

mod error;
mod image;
mod lanes;
mod lease;
pub mod ledger;
mod letter;
mod place;
mod run;
mod sqlite;
mod store;
mod time;

pub use error::StoreError;
pub use image::{ImageRecord, ManifestRecord};
pub use lanes::{BudgetRecord, LaneHolder, SqliteLanes};
pub use lease::FlowLease;
pub use ledger::{LedgerError, LedgerWriter};
pub use letter::{Letter, LetterFilter, LetterGroup, LetterMark, LetterPage, LetterSelection, LetterStatus, letter_id};
pub use run::{LoadProgress, Phase, RunRecord, RunState, StreamProgress};
pub use sqlite::SqliteStore;
pub use store::Store;
