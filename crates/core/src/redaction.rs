//! What must not be shown: every value that was resolved from a reference, and every secret that was written out.
//!
//! Whoever comes to know such a value calls [`remember`]; whoever shows or keeps text for people (terminal, log, JSON,
//! run records, letters) passes it through [`redacted`]. So no error of any library has to be trusted with a secret:
//! what it quotes is masked where it leaves the process, also as JSON or an address writes it, and cut short.
//!
//! Left out: values of fewer than `SHORTEST` characters, which are no secrets, and other encodings of a value, such as
//! base64. A value of fewer than `SURE` characters is masked where it stands as a word of its own, because ordinary
//! words hold such letters too.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{PoisonError, RwLock};

/// Shorter ones are not masked.
const SHORTEST: usize = 3;

/// From here on a value is masked wherever it stands.
const SURE: usize = 8;

/// So much of a long value is known again where the rest was cut off; in an address, behind the scheme.
const HEAD: usize = 16;

/// Values that messages cut.
const LONG: usize = 40;

static KNOWN: RwLock<Vec<Known>> = RwLock::new(Vec::new());

/// One way in which a value may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    text: String,
    shown: String,
}

/// Has `value` shown as `shown` from now on: a reference such as `${env:CRM_SECRET}`, or stars.
pub fn remember(value: &str, shown: &str) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for text in forms(value) {
        let is_new = !known.iter().any(|one| one.text == text);
        if is_new && text.chars().count() >= SHORTEST {
            known.push(Known { text, shown: shown.to_owned() });
        }
    }
    // A value may hold another one.
    known.sort_by_key(|one| std::cmp::Reverse(one.text.len()));
}

/// `text` with every remembered value masked.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = Cow::Borrowed(text);
    for one in known.iter() {
        if let Some(masked) = one.mask(&text) {
            text = Cow::Owned(masked);
        }
    }
    text
}

/// The value, its lines, and both as JSON and as an address write them.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    if value.contains('\n') {
        forms.extend(value.lines().filter(|line| line.len() >= SURE).map(|line| line.trim().to_owned()));
    }
    for plain in forms.clone() {
        forms.extend([json(&plain), percent(&plain, b"-._~"), percent(&plain, b"-._*").replace("%20", "+")]);
    }
    forms
}

fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// `text` as an address writes it (`~` stays) or a form (`*` stays).
fn percent(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    encoded
}

impl Known {
    /// The text with this one masked; `None` if it is not there.
    fn mask(&self, text: &str) -> Option<String> {
        let head = self.head();
        let mut masked = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(head) {
            let (before, from) = rest.split_at(at);
            let length = alike(from, &self.text);
            masked.push_str(before);
            let is_masked = self.text.len() >= SURE || is_word(before, &from[length..]);
            masked.push_str(if is_masked { &self.shown } else { &from[..length] });
            rest = &from[length..];
        }
        (rest.len() < text.len()).then(|| masked + rest)
    }

    /// By what it is found.
    fn head(&self) -> &str {
        if self.text.len() < LONG {
            return &self.text;
        }
        let start = self.text.find("://").map_or(0, |at| at + "://".len());
        let end = self.text[start..].char_indices().nth(HEAD).map_or(self.text.len(), |(at, _)| start + at);
        &self.text[..end]
    }
}

/// How many bytes two texts begin alike with, in whole characters.
fn alike(one: &str, other: &str) -> usize {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other);
    same.map(|(character, _)| character.len_utf8()).sum()
}

fn is_word(before: &str, after: &str) -> bool {
    let ends = |character: Option<char>| character.is_none_or(|character| !character.is_alphanumeric());
    ends(before.chars().next_back()) && ends(after.chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Known {
        Known { text: text.to_owned(), shown: "${env:S}".to_owned() }
    }

    #[test]
    fn a_value_is_masked_wherever_it_stands_and_a_short_one_as_a_word() {
        for (value, text, masked) in [
            ("s3cret-value", "is s3cret-value, s3cret-values", Some("is ${env:S}, ${env:S}s")),
            ("data", "metadata of data", Some("metadata of ${env:S}")),
            ("data", "`data`", Some("`${env:S}`")),
            ("s3cret-value", "s3cret-valu", None),
            ("a value of many characters, which is cut", "`a value of many ch…`", Some("`${env:S}…`")),
            ("https://an.environment/with/a/long/address", "https://another.one", None),
            ("https://an.environment/with/a/long/address", "https://an.environment/wit", Some("${env:S}")),
            ("", "anything", None),
        ] {
            let found = (!value.is_empty()).then(|| known(value).mask(text)).flatten();
            assert_eq!(found.as_deref(), masked, "{value} in {text}");
        }
    }

    #[test]
    fn every_form_of_a_value_is_known() {
        let forms = forms("pa\"s~ /ö");
        assert_eq!(forms, ["pa\"s~ /ö", r#"pa\"s~ /ö"#, "pa%22s~%20%2F%C3%B6", "pa%22s%7E+%2F%C3%B6"]);
        assert!(super::forms("first line\nsecond line").contains(&"second line".to_owned()));
    }

    #[test]
    fn what_is_remembered_is_shown_by_its_reference_and_the_longer_one_first() {
        remember("canary-one", "${env:ONE}");
        remember("canary-one-and-two", "${env:TWO}");
        assert_eq!(redacted("x canary-one-and-two y canary-one"), "x ${env:TWO} y ${env:ONE}");
        assert_eq!(redacted("nothing of it"), "nothing of it");
    }
}
