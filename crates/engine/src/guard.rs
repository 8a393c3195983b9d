//! Guards: limits beyond which a load stops before it sends anything (exit status 4).

use std::fmt;

use flowgate_core::project::{Guards, Missing};

use crate::DiffCounts;

/// Why a guard stopped a load.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardStop {
    /// The guard's key in the load: `delete_percent_max`.
    pub guard: &'static str,
    pub reason: String,
}

impl fmt::Display for GuardStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guard `{}`: {}", self.guard, self.reason)
    }
}

/// The first guard that the changes break.
pub(crate) fn check(guards: &Guards, missing: Missing, keys_unknown: bool, counts: &DiffCounts) -> Option<GuardStop> {
    let acts_on_gone = missing != Missing::Keep && counts.gone > 0;
    if acts_on_gone && counts.prepared == 0 {
        return Some(stop("missing", format!("the SELECT returned no row at all, so {} rows would go", counts.gone)));
    }
    if acts_on_gone && keys_unknown {
        return Some(stop(
            "missing",
            format!("{} rows look gone, but input whose key could not be read may hold them", counts.gone),
        ));
    }
    let removed = counts.delete + counts.deactivate;
    at_most("delete_max", guards.delete_max, removed, "rows would be removed")
        .or_else(|| {
            share(
                "delete_percent_max",
                guards.delete_percent_max,
                removed,
                counts.in_state,
                "of the rows in state would be removed",
            )
        })
        .or_else(|| at_most("create_max", guards.create_max, counts.create, "rows would be created"))
        .or_else(|| {
            share(
                "update_percent_max",
                guards.update_percent_max,
                counts.update,
                counts.in_state,
                "of the rows in state would be updated",
            )
        })
        .or_else(|| at_most("dropped_max", guards.dropped_max, counts.dropped, "driver rows are not represented"))
        .or_else(|| {
            share(
                "quarantined_percent_max",
                guards.quarantined_percent_max,
                counts.quarantined,
                counts.prepared,
                "of the prepared rows are quarantined",
            )
        })
}

fn stop(guard: &'static str, reason: String) -> GuardStop {
    GuardStop { guard, reason }
}

fn at_most(guard: &'static str, limit: Option<u64>, count: u64, what: &str) -> Option<GuardStop> {
    let limit = limit.filter(|limit| count > *limit)?;
    Some(stop(guard, format!("{count} {what}, and at most {limit} may be")))
}

fn share(guard: &'static str, limit: Option<f64>, count: u64, of: u64, what: &str) -> Option<GuardStop> {
    let percent = if of == 0 { 0.0 } else { count as f64 * 100.0 / of as f64 };
    let limit = limit.filter(|limit| percent > *limit)?;
    Some(stop(guard, format!("{percent:.1} % {what} ({count} of {of}), and at most {limit} % may be")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_source_removes_nothing() {
        let counts = DiffCounts { gone: 5, delete: 5, in_state: 5, ..DiffCounts::default() };
        assert!(check(&Guards::default(), Missing::Delete, false, &counts).is_some());
        assert!(check(&Guards::default(), Missing::Keep, false, &counts).is_none());
    }

    #[test]
    fn a_share_is_of_the_rows_in_state() {
        let guards = Guards { delete_percent_max: Some(1.0), ..Guards::default() };
        let counts =
            |delete| DiffCounts { prepared: 900, gone: delete, delete, in_state: 1_000, ..DiffCounts::default() };
        assert!(check(&guards, Missing::Delete, false, &counts(10)).is_none());
        let stopped = check(&guards, Missing::Delete, false, &counts(11)).unwrap();
        assert_eq!(stopped.guard, "delete_percent_max");
        assert!(stopped.reason.contains("1.1 %"), "{stopped}");
    }
}
