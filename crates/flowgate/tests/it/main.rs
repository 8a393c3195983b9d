//! The built binary, as a person and as a script meet it.

mod support;

mod bad_input;
mod canaries;
mod commands;
mod doctor;
mod example;
mod interruption;
mod lanes;
mod lost_output;
mod moments;
mod output;
mod service;
mod shared_limits;
mod situations;
mod usage;
// The server is the same as that of the connector's own tests.
#[path = "../../../connect/tests/it/postgres.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "helpers of tests; the connector's own need TLS too")]
mod postgres;
