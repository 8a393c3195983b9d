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

/// What the images of a load may lack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lacking {
    /// Input whose key could not be read was met.
    pub(crate) keys_unknown: bool,
    /// Why rows may be missing, as the source says it.
    pub(crate) doubt: Option<String>,
    /// Files that were read before and are not there.
    pub(crate) files: Vec<String>,
}

/// The first guard that the changes break.
pub(crate) fn check(guards: &Guards, missing: Missing, lacking: &Lacking, counts: &DiffCounts) -> Option<GuardStop> {
    let acts_on_gone = missing != Missing::Keep && counts.gone > 0;
    if acts_on_gone && counts.prepared == 0 {
        return Some(stop("missing", format!("the SELECT returned no row at all, so {} rows would go", counts.gone)));
    }
    if acts_on_gone && lacking.files.len() as u64 > guards.missing_files_max.unwrap_or(0) {
        return Some(stop("missing_files_max", missing_files(&lacking.files, counts.gone)));
    }
    if let Some(doubt) = lacking.doubt.as_ref().filter(|_| acts_on_gone) {
        return Some(stop("missing", format!("{} rows look gone, but {doubt}", counts.gone)));
    }
    if acts_on_gone && lacking.keys_unknown {
        return Some(stop(
            "missing",
            format!(
                "{} rows look gone, but rows that were set aside because their key could not be read, or is empty, may \
                 be among them",
                counts.gone
            ),
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

/// A stream that had rows when the state was made, and has none now, where something would be changed because of it.
pub(crate) fn emptied(streams: &[StreamRows<'_>], counts: &DiffCounts) -> Option<GuardStop> {
    let stream = streams.iter().find(|stream| stream.now == 0 && stream.last > 0 && !stream.may_be_empty)?;
    let reason = || {
        format!(
            "stream `{}` has no row, and had {} last time; {} changes would follow from it; set `may_be_empty: true` on \
             the stream if that is meant",
            stream.name,
            stream.last,
            counts.to_send()
        )
    };
    (counts.to_send() > 0).then(|| stop("may_be_empty", reason()))
}

/// The rows of a stream that a load reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamRows<'a> {
    pub(crate) name: &'a str,
    pub(crate) now: u64,
    /// When it last had any.
    pub(crate) last: u64,
    pub(crate) may_be_empty: bool,
}

fn missing_files(files: &[String], gone: u64) -> String {
    /// Names that one line has room for.
    const NAMED_MAX: usize = 5;
    let named = files.iter().take(NAMED_MAX).map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", ");
    let more = match files.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let count = files.len();
    let those = if count == 1 { "which was" } else { "which were" };
    format!(
        "{gone} rows look gone, and {named}{more}, {those} read before, gave no row; `missing_files_max: {count}` says that it is meant"
    )
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
        assert!(check(&Guards::default(), Missing::Delete, &Lacking::default(), &counts).is_some());
        assert!(check(&Guards::default(), Missing::Keep, &Lacking::default(), &counts).is_none());
    }

    #[test]
    fn what_an_image_may_lack_is_not_gone() {
        let counts = DiffCounts { prepared: 9, gone: 5, delete: 5, in_state: 14, ..DiffCounts::default() };
        let nothing_gone = DiffCounts { prepared: 9, in_state: 9, ..DiffCounts::default() };
        let files = Lacking { files: vec!["data/b.csv".to_owned()], ..Lacking::default() };
        let cut = Lacking { doubt: Some("`data/a.csv` ends in the middle".to_owned()), ..Lacking::default() };
        let unread = Lacking { keys_unknown: true, ..Lacking::default() };
        for (lacking, words) in [(&files, "`data/b.csv`"), (&cut, "`data/a.csv`"), (&unread, "key could not be read")] {
            for missing in [Missing::Delete, Missing::Deactivate] {
                let stopped = check(&Guards::default(), missing, lacking, &counts).unwrap();
                assert!(stopped.reason.contains(words), "{stopped}");
            }
            assert!(check(&Guards::default(), Missing::Keep, lacking, &counts).is_none());
            assert!(check(&Guards::default(), Missing::Delete, lacking, &nothing_gone).is_none());
        }
        let meant = Guards { missing_files_max: Some(1), ..Guards::default() };
        assert!(check(&meant, Missing::Delete, &files, &counts).is_none());
    }

    #[test]
    fn an_emptied_stream_changes_nothing_unless_it_is_meant() {
        let one = |now, last, may_be_empty| [StreamRows { name: "notes", now, last, may_be_empty }];
        for counts in [
            DiffCounts { delete: 1, ..DiffCounts::default() },
            DiffCounts { update: 1, ..DiffCounts::default() },
            DiffCounts { create: 1, ..DiffCounts::default() },
        ] {
            let stopped = emptied(&one(0, 500, false), &counts).unwrap();
            assert!(stopped.reason.contains("`notes`") && stopped.reason.contains("500"), "{stopped}");
            assert!(emptied(&one(0, 500, true), &counts).is_none());
            assert!(emptied(&one(1, 500, false), &counts).is_none());
            assert!(emptied(&one(0, 0, false), &counts).is_none(), "it never had any");
        }
        assert!(emptied(&one(0, 500, false), &DiffCounts::default()).is_none());
    }

    #[test]
    fn a_share_is_of_the_rows_in_state() {
        let guards = Guards { delete_percent_max: Some(1.0), ..Guards::default() };
        let counts =
            |delete| DiffCounts { prepared: 900, gone: delete, delete, in_state: 1_000, ..DiffCounts::default() };
        assert!(check(&guards, Missing::Delete, &Lacking::default(), &counts(10)).is_none());
        let stopped = check(&guards, Missing::Delete, &Lacking::default(), &counts(11)).unwrap();
        assert_eq!(stopped.guard, "delete_percent_max");
        assert!(stopped.reason.contains("1.1 %"), "{stopped}");
    }
}
