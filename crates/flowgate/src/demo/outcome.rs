//! What must hold, what was found, and whether they agree.

use serde_json::{Value, json};

use crate::render::Paint;
use crate::render::number::count;

#[derive(Debug)]
struct Check {
    what: String,
    expected: String,
    found: String,
    holds: bool,
}

/// Every check of the demo, in the order it was made.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    checks: Vec<Check>,
    /// How many of them were shown.
    shown: usize,
}

impl Checks {
    pub(crate) fn add(&mut self, what: impl Into<String>, expected: String, found: String) {
        let holds = expected == found;
        self.checks.push(Check { what: what.into(), expected, found, holds });
    }

    pub(crate) fn add_count(&mut self, what: &str, expected: u64, found: u64) {
        self.add(what, count(expected), count(found));
    }

    pub(crate) fn add_at_most(&mut self, what: &str, limit_percent: f64, found_percent: f64) {
        self.checks.push(Check {
            what: what.to_owned(),
            expected: format!("at most {limit_percent} %"),
            found: format!("{found_percent:.1} %"),
            holds: found_percent.is_finite() && found_percent <= limit_percent,
        });
    }

    /// Whether there were checks, and all of them hold.
    pub(crate) fn hold(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.holds)
    }

    /// The checks that were made since this was last asked, a line each.
    pub(crate) fn news(&mut self, paint: Paint) -> String {
        let new = self.checks.iter().skip(self.shown).map(|check| line(check, paint));
        let lines: Vec<_> = new.collect();
        self.shown = self.checks.len();
        lines.join("\n")
    }

    pub(crate) fn verdict(&self, local_s: f64, paint: Paint) -> String {
        let holding = self.checks.iter().filter(|check| check.holds).count();
        let total = self.checks.len();
        let time = paint.faint(format!("{local_s:.0} local_s"));
        if self.hold() {
            return format!("\n{} all {total} checks hold  {time}", paint.good("✓"));
        }
        let mut lines = vec![format!("\n{} {holding} of {total} checks hold  {time}", paint.bad("✗"))];
        lines.extend(self.checks.iter().filter(|check| !check.holds).map(|check| line(check, paint)));
        lines.join("\n")
    }

    pub(crate) fn to_json(&self) -> Value {
        let one = |check: &Check| json!({ "what": check.what, "expected": check.expected, "found": check.found, "holds": check.holds });
        self.checks.iter().map(one).collect()
    }
}

fn line(check: &Check, paint: Paint) -> String {
    let Check { what, expected, found, holds } = check;
    match holds {
        true if expected == found => format!("  {} {what}: {found}", paint.verdict(true)),
        true => format!("  {} {what}: {found}, {expected}", paint.verdict(true)),
        false => format!("  {} {what}: {found}, and not {expected}", paint.verdict(false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_check_breaks_the_verdict() {
        let mut checks = Checks::default();
        assert!(!checks.hold(), "nothing checked is not everything checked");
        checks.add_count("rows", 7, 7);
        assert!(checks.hold());
        checks.add_at_most("share", 3.0, f64::NAN);
        assert!(!checks.hold());
        assert!(checks.news(Paint::off()).contains("✗ share: NaN %, and not at most 3 %"));
    }
}
