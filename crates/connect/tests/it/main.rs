//! The connectors against real files and servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod conformance;
mod csv_strict;
mod files_input;
mod fixtures;
mod postgres;
mod postgres_source;
mod sqlite_source;
mod support;
