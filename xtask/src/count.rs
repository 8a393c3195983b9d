//! Counts of passed and failed tests, read from the summaries of nextest and of `cargo test`.
//!
//! An ignored test did not run, so it counts as failed.

use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The sum of every summary among the lines; nothing when there is none.
pub(crate) fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Count> {
    let mut total = None;
    for line in lines {
        if let Some(summary) = summary_of(line) {
            let mut count = Count::default();
            for part in summary.split([',', ';', ':', '.']) {
                count += of_part(part.trim());
            }
            *total.get_or_insert_default() += count;
        }
    }
    total
}

/// The part of a summary line that holds the numbers.
fn summary_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Some(rest);
    }
    // `Summary [   0.5s] 12 tests run: 11 passed (1 slow), 1 failed, 2 skipped`
    let rest = line.strip_prefix("Summary [")?;
    rest.split_once(" run: ").map(|(_, numbers)| numbers)
}

/// `11 passed (1 slow)`, `1 failed`, `2 skipped`; anything else counts nothing.
fn of_part(part: &str) -> Count {
    let mut words = part.split_whitespace();
    let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<u64>), words.next()) else {
        return Count::default();
    };
    match word {
        "passed" => Count { passed: number, failed: 0 },
        "failed" | "ignored" | "skipped" | "timed" | "exec" => Count { passed: 0, failed: number },
        _ => Count::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_read() {
        let line =
            "     Summary [   4.101s] 120 tests run: 117 passed (2 slow, 1 leaky), 2 failed, 1 timed out, 3 skipped";
        assert_eq!(of_lines([line]), Some(Count { passed: 117, failed: 6 }));
    }

    #[test]
    fn summaries_of_cargo_test_add_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "running 3 tests",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
        ];
        assert_eq!(of_lines(lines), Some(Count { passed: 13, failed: 2 }));
    }

    #[test]
    fn no_summary_is_not_zero_tests() {
        assert_eq!(of_lines(["error: could not compile `flowgate`"]), None);
    }
}
