//! The emulator over HTTP, as a client meets it: one binary, files by topic.

mod batches;
mod bulk;
mod rows;
mod support;
