//! The benchmarks in short: every scenario, so that a change that costs throughput fails a test.

#[cfg(test)]
mod ceiling;
#[cfg(test)]
mod fixed;
#[cfg(test)]
mod recorder;
