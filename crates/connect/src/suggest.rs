//! The nearest valid name for one that is not there.

/// How alike two names must be before one is offered for the other, from 0 to 1.
const LIKENESS_MIN: f64 = 0.7;

/// The candidate a person most likely meant by `name`, without regard to case.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let mut best = None;
    let mut best_likeness = LIKENESS_MIN;
    for candidate in candidates {
        let likeness = strsim::normalized_damerau_levenshtein(&name, &candidate.to_lowercase());
        if likeness >= best_likeness {
            best = Some(candidate);
            best_likeness = likeness;
        }
    }
    best
}

/// A hint that offers the nearest name, or lists what there is when nothing is near.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    /// Names listed when none is near; more would hide the message.
    const LISTED_MAX: usize = 20;

    if let Some(candidate) = nearest(name, candidates.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let listed: Vec<_> = candidates.into_iter().take(LISTED_MAX).map(|name| format!("`{name}`")).collect();
    (!listed.is_empty()).then(|| format!("{what}: {}", listed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_whatever_its_case() {
        assert_eq!(nearest("Encodng", ["path", "encoding", "escape"]), Some("encoding"));
        assert_eq!(nearest("colour", ["path", "encoding"]), None);
    }

    #[test]
    fn what_is_there_is_listed_when_nothing_is_near() {
        assert_eq!(did_you_mean("x", "tables", ["orders", "people"]), Some("tables: `orders`, `people`".to_owned()));
        assert_eq!(did_you_mean("x", "tables", []), None);
    }
}
