//! How texts compare: the one collation of the stand-in's database.
//!
//! Promise: everything that asks whether two texts are the same, or which comes first, asks here:
//! `eq` and `in` of every query language, orders, groups, distinct rows, alternate keys and the
//! addresses and upserts that name a row by one. Case does not count, and blanks at the end do not
//! count, as in SQL Server. Left out: accents, which count (what the service does is UNVERIFIED), and
//! patterns (`contains`, `like`), for which every blank counts.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Two texts are the same exactly if their folded forms are equal byte by byte.
pub(crate) fn folded(text: &str) -> Cow<'_, str> {
    lowered(text.trim_end_matches(' '))
}

/// A text without its case; blanks at the end stay, as patterns see them.
pub(crate) fn lowered(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    // Letter by letter: the lower case of a whole text depends on where a sigma stands in it.
    Cow::Owned(
        text.chars().flat_map(char::to_lowercase).map(|letter| if letter == 'ς' { 'σ' } else { letter }).collect(),
    )
}

/// Which of two texts comes first.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
    if a.is_ascii() && b.is_ascii() {
        // Without building either: this runs for every row that is looked at.
        return a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    lowered(a).cmp(&lowered(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: &[&str] = &[
        "", " ", "a", "A", "a ", "A   ", " a", "b", "É", "é ", "ΟΔΟΣ", "οδος", "οδοσ", "Straße", "STRAßE ", "Strasse",
    ];

    #[test]
    fn folding_and_comparing_agree_on_every_pair() {
        for a in TEXTS {
            for b in TEXTS {
                assert_eq!(folded(a) == folded(b), compare(a, b) == Ordering::Equal, "{a:?} {b:?}");
                assert_eq!(folded(a).cmp(&folded(b)), compare(a, b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn case_and_blanks_at_the_end_do_not_count_and_all_else_does() {
        let same = |a, b| compare(a, b) == Ordering::Equal;
        assert!(same("ABC  ", "abc") && same("É", "é ") && same("ΟΔΟΣ", "οδος") && same("", "   "));
        assert!(!same(" abc", "abc") && !same("e", "é") && !same("Strasse", "Straße") && !same("a\t", "a"));
        assert_eq!(compare("a", "B"), Ordering::Less);
    }
}
