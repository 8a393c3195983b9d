//! Source lines as they are shown: a secret that is written out, where a reference should be, is not
//! repeated on a terminal or in a log. Every masked character becomes one `*`, so columns stay true.

use std::ops::Range;

use flowgate_core::redaction;

/// What names whose values are secret hold, and what they end with.
const SECRET_WORDS: [&str; 4] = ["secret", "passw", "passphrase", "pwd"];
const SECRET_ENDS: [&str; 5] = ["token", "_key", "apikey", "connection_string", "signature"];

/// Names that end alike and are no secrets.
const OPEN_NAMES: [&str; 2] = ["alternate_key", "natural_key"];

/// Parameters of addresses and connection strings whose values are secret, besides those of secret names.
const SECRET_PARAMETERS: [&str; 4] = ["sig", "code", "key", "sslpassword"];

/// `line` with secret values and the passwords of addresses masked. References (`${…}`) stay.
pub(crate) fn masked(line: &str) -> String {
    let line: Vec<char> = line.chars().collect();
    let mut shown = line.clone();
    for range in named(&line).into_iter().chain(embedded(&line)) {
        shown[range].fill('*');
    }
    shown.into_iter().collect()
}

/// `line`, which stands below `connections:`, masked as [`masked`] does; and whole where it is a connection written as one
/// value, or text that belongs to a key above.
pub(crate) fn masked_below_connections(line: &str) -> String {
    let shown = masked(line);
    let (start, rest) = shown.split_at(shown.len() - shown.trim_start().len());
    let is_comment = rest.starts_with('#');
    let is_listed = rest.starts_with("- ") || rest.starts_with(['{', '}', '[', ']']);
    match rest.split_once(':') {
        _ if is_comment || is_listed || rest.is_empty() => shown,
        Some((key, value)) if value.is_empty() || value.starts_with(' ') => {
            let is_connection = (1..=4).contains(&start.len()) && !value.trim_start().starts_with(['{', '#']);
            if is_connection && !value.trim().is_empty() && !is_setting(key) {
                format!("{start}{key}: {}", "*".repeat(value.chars().count().saturating_sub(1)))
            } else {
                shown
            }
        }
        _ if rest.contains("://") => shown,
        _ => format!("{start}{}", "*".repeat(rest.chars().count())),
    }
}

/// Has the secrets that are written out as the value of `name` masked in everything that is shown.
pub(crate) fn remember(name: &str, value: &str) {
    if value.starts_with("${") {
        return;
    }
    if is_secret(name) {
        redaction::remember(value, "****");
    }
    let value: Vec<char> = value.chars().collect();
    for range in embedded(&value) {
        redaction::remember(&value[range].iter().collect::<String>(), "****");
    }
}

/// Whether a key within a connection's block may be mistaken for a connection's name.
fn is_setting(key: &str) -> bool {
    ["url", "path", "organization", "tenant", "client", "solution", "format", "encoding", "ca_file"].contains(&key)
}

/// The values of keys that are secret by their names.
fn named(line: &[char]) -> Vec<Range<usize>> {
    let is_key = |at: &usize| line[*at] == ':' && is_secret(&name_before(line, *at)) && line_char(line, at + 1) != '/';
    (0..line.len()).filter(is_key).map(|at| value_after(line, at + 1)).collect()
}

/// Secrets within a value: passwords of addresses, and parameters of addresses and connection strings.
fn embedded(line: &[char]) -> Vec<Range<usize>> {
    let is_address = |at: &usize| line[*at..].starts_with(&[':', '/', '/']);
    let addresses = (0..line.len()).filter(is_address).map(|at| password_after(line, at + 3));
    let is_parameter = |at: &usize| {
        let name = name_before(line, *at);
        line[*at] == '=' && (is_secret(&name) || SECRET_PARAMETERS.contains(&name.as_str()))
    };
    let parameters = (0..line.len()).filter(is_parameter).map(|at| parameter_after(line, at + 1));
    addresses.chain(parameters).filter(|range| !range.is_empty()).collect()
}

fn line_char(line: &[char], at: usize) -> char {
    line.get(at).copied().unwrap_or('\n')
}

fn name_before(line: &[char], end: usize) -> String {
    let is_part = |character: &&char| character.is_alphanumeric() || matches!(character, '_' | '"' | '\'');
    let name: Vec<char> = line[..end].iter().rev().take_while(is_part).copied().collect();
    name.into_iter().rev().filter(|character| !matches!(character, '"' | '\'')).collect::<String>().to_lowercase()
}

/// Whether values of the name are secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_named =
        SECRET_WORDS.iter().any(|word| name.contains(word)) || SECRET_ENDS.iter().any(|end| name.ends_with(end));
    is_named && !OPEN_NAMES.contains(&name.as_str())
}

/// The value behind a colon: to its closing quote, or to what ends a plain value.
fn value_after(line: &[char], from: usize) -> Range<usize> {
    let start = (from..line.len()).find(|at| !line[*at].is_whitespace()).unwrap_or(line.len());
    let (start, ends): (usize, &[char]) = match line_char(line, start) {
        '"' => (start + 1, &['"']),
        '\'' => (start + 1, &['\'']),
        // A slip of the pen, whatever it holds.
        '{' | '[' => (start, &[]),
        _ => (start, &[',', '}', ' ']),
    };
    until(line, start, ends)
}

/// The value behind an equals sign, quoted or not, of a connection string or of an address.
fn parameter_after(line: &[char], from: usize) -> Range<usize> {
    match line_char(line, from) {
        quote @ ('"' | '\'') => until(line, from + 1, &[quote]),
        _ => until(line, from, &['&', ';', ' ', '"', '\'', ',', '}']),
    }
}

/// From `start` to one of `ends`; nothing where a reference stands.
fn until(line: &[char], start: usize, ends: &[char]) -> Range<usize> {
    let start = start.min(line.len());
    let end = (start..line.len()).find(|at| ends.contains(&line[*at])).unwrap_or(line.len());
    if line[start..].starts_with(&['$', '{']) { start..start } else { start..end }
}

/// Of `user:password@host`, what follows the colon. A password may hold all but blanks, also what should be encoded.
fn password_after(line: &[char], from: usize) -> Range<usize> {
    let ends = |character: &char| character.is_whitespace();
    let end = line[from..].iter().position(ends).map_or(line.len(), |at| from + at);
    let Some(at) = line[from..end].iter().rposition(|character| *character == '@') else { return from..from };
    match line[from..from + at].iter().position(|character| *character == ':') {
        Some(colon) if !line[from + colon + 1..].starts_with(&['$', '{']) => from + colon + 1..from + at,
        _ => from..from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else_is() {
        for (line, shown) in [
            ("  credential: { client: abc, secret: s3c:ret }", "  credential: { client: abc, secret: ******* }"),
            ("password: \"two words\" # why", "password: \"*********\" # why"),
            ("  client_secret: 'x'", "  client_secret: '*'"),
            ("  secret: ${file:/run/secrets/crm}", "  secret: ${file:/run/secrets/crm}"),
            ("  secret: \"${env:CRM}\"", "  secret: \"${env:CRM}\""),
            ("url: postgres://app:pass@db:5432/x", "url: postgres://app:****@db:5432/x"),
            ("url: \"amqp://app:p@ss@mq/v\"", "url: \"amqp://app:****@mq/v\""),
            ("url: postgres://app:${env:PW}@db/x", "url: postgres://app:${env:PW}@db/x"),
            ("url: postgres://app:p/a'ss@db/x", "url: postgres://app:******@db/x"),
            ("url: host=db user=app password='a b/c'", "url: host=db user=app password='*****'"),
            ("url: host=db password=abc port=5", "url: host=db password=*** port=5"),
            ("url: https://x/y?sv=1&sig=abc%2F&se=2", "url: https://x/y?sv=1&sig=******&se=2"),
            ("url: https://x/y?code=abc", "url: https://x/y?code=***"),
            ("pwd: abc", "pwd: ***"),
            ("secret: { value: abc }", "secret: **************"),
            ("secret: [abc, def]", "secret: **********"),
            ("token_url: https://login/x", "token_url: https://login/x"),
            ("alternate_key: number", "alternate_key: number"),
            ("  match: [accountnumber]", "  match: [accountnumber]"),
            ("secret:", "secret:"),
            ("", ""),
        ] {
            assert_eq!(masked(line), shown);
        }
    }

    #[test]
    fn below_connections_values_without_a_key_of_their_own_are_masked() {
        for (line, shown) in [
            ("  crm: s3cret", "  crm: ******"),
            ("  crm: { dataverse: { emulator: {} } }", "  crm: { dataverse: { emulator: {} } }"),
            ("      url: agency.crm", "      url: agency.crm"),
            ("        s3cret of a block", "        *****************"),
            ("    secret: |", "    secret: *"),
            ("  # a comment", "  # a comment"),
            ("", ""),
        ] {
            assert_eq!(masked_below_connections(line), shown);
        }
    }
}
