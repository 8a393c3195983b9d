//! The store and the ledger from outside.

#![expect(clippy::unwrap_used, reason = "in a test, a step that fails is a test that fails")]

mod conformance;
mod lanes;
mod ledger;
mod sqlite;
