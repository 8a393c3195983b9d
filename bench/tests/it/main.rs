//! The benchmarks in short: every scenario, so that a change that costs throughput fails a test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod ceiling;
mod fixed;
