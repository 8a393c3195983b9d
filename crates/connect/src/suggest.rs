//! A hint for a name that is not there.

use flowgate_core::nearest::{nearest, quoted_list};

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
    let listed = quoted_list(candidates.into_iter().take(LISTED_MAX));
    (!listed.is_empty()).then(|| format!("{what}: {listed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_listed_when_nothing_is_near() {
        assert_eq!(did_you_mean("x", "tables", ["orders", "people"]), Some("tables: `orders`, `people`".to_owned()));
        assert_eq!(did_you_mean("x", "tables", []), None);
    }
}
