//! The valid words that a person may have meant by one that is not valid, and lists of words for hints.
//!
//! One measure for YAML, SQL, names of the destination and the command line: the same slip gets the same hint.

/// The candidate that `word` was most likely meant to be, if one is near enough to be worth saying.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(word, candidates).into_iter().next()
}

/// The candidates that `word` may have been meant to be, the nearest first.
///
/// Near is: at most one edit in three characters, a difference of case or of `-` and `_`, or a
/// candidate that begins with `word`.
pub fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = plain(word);
    let edits_max = (wanted.chars().count() / 3).max(1);
    let mut near = Vec::new();
    for candidate in candidates {
        let known = plain(candidate);
        let begins = wanted.len() >= 3 && known.starts_with(&wanted);
        let edits = if begins { 1 } else { strsim::damerau_levenshtein(&wanted, &known) };
        if edits <= edits_max && edits < known.chars().count() {
            near.push((edits, candidate));
        }
    }
    near.sort_by_key(|(edits, _)| *edits);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

/// "`a`, `b`, `c`", for hints.
pub fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
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
        assert_eq!(nearest("deleets", keys), Some("deletes"));
        assert_eq!(nearest("Latest-By", keys), Some("latest_by"));
        assert_eq!(nearest("col", keys), Some("columns"));
        assert_eq!(nearest("target", keys), None);
        assert_eq!(nearest("x", ["a"]), None);
    }

    #[test]
    fn the_nearest_comes_first_and_else_the_order_stays() {
        assert_eq!(near("street1", ["street", "streets2", "street2", "town"]), ["street", "street2", "streets2"]);
    }
}
