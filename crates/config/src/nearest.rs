//! The nearest valid word to one that is not.

/// The candidate that `word` was most likely meant to be, if one is near enough to be worth saying.
///
/// Near is: at most one edit in three characters, a difference of case or of `-` and `_`, or a
/// candidate that `word` begins.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wanted = plain(word);
    let edits_max = (wanted.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let known = plain(candidate);
        let begins = wanted.len() >= 3 && known.starts_with(&wanted);
        let edits = if begins { 1 } else { strsim::damerau_levenshtein(&wanted, &known) };
        let is_better = best.is_none_or(|(fewest, _)| edits < fewest);
        if edits <= edits_max && edits < known.chars().count() && is_better {
            best = Some((edits, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.to_owned())
}

/// "`a`, `b`, `c`", for hints.
pub(crate) fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_near_and_other_words_are_not() {
        let keys = ["from", "deletes", "columns", "match", "latest_by"];
        assert_eq!(nearest("deleets", keys), Some("deletes".to_owned()));
        assert_eq!(nearest("Latest-By", keys), Some("latest_by".to_owned()));
        assert_eq!(nearest("col", keys), Some("columns".to_owned()));
        assert_eq!(nearest("target", keys), None);
        assert_eq!(nearest("x", ["a"]), None);
    }
}
