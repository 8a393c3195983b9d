//! The benchmarks in short: every scenario, so that a change that costs throughput fails a test.

mod ceiling;
mod fixed;
