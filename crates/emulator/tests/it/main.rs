//! The emulator over HTTP, as a client meets it: one binary, files by topic.

mod acceptance;
mod acceptance_more;
mod batches;
mod bombs;
mod bulk;
mod collation;
mod control;
mod definitions;
mod events;
mod faults;
mod fetch;
mod files;
mod functions;
mod fuzz;
mod limits;
mod operation;
mod outsiders;
mod persistence;
mod recorded;
mod relations;
mod rows;
mod schema;
mod sql;
mod support;
mod vectors;
