//! References in text: `${kind:name}`, and `$${` for the two characters themselves.
//!
//! One reader of this syntax serves the variables, filled in while a project is read, and the
//! secrets, resolved when a connection is opened.

/// One piece of a text with references.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    /// `$${`, which means `${`.
    Escape,
    Reference {
        kind: &'a str,
        name: &'a str,
        /// The whole reference as written.
        written: &'a str,
    },
    /// `${` without its `}`.
    Unclosed(&'a str),
}

pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let is_escaped = rest.as_bytes().get(at.wrapping_sub(1)) == Some(&b'$');
        let before = if is_escaped { &rest[..at - 1] } else { &rest[..at] };
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let tail = &rest[at..];
        if is_escaped {
            parts.push(Part::Escape);
            rest = &tail[2..];
            continue;
        }
        let Some(end) = tail.find('}') else {
            parts.push(Part::Unclosed(tail));
            return parts;
        };
        let (kind, name) = tail[2..end].split_once(':').unwrap_or(("", &tail[2..end]));
        parts.push(Part::Reference { kind, name, written: &tail[..=end] });
        rest = &tail[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stand_anywhere_and_can_be_escaped() {
        let found = parts("a${var:x}$${y}${env:HOME");
        let reference = Part::Reference { kind: "var", name: "x", written: "${var:x}" };
        let expected = vec![Part::Text("a"), reference, Part::Escape, Part::Text("y}"), Part::Unclosed("${env:HOME")];
        assert_eq!(found, expected);
        assert_eq!(parts("${x}"), vec![Part::Reference { kind: "", name: "x", written: "${x}" }]);
        assert_eq!(parts("costs $5"), vec![Part::Text("costs $5")]);
    }
}
