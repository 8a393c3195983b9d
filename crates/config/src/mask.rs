//! Source lines as they are shown: a secret that is written out, where a reference should be, is not
//! repeated on a terminal or in a log. Every masked character becomes one `*`, so columns stay true.

/// The ends of names whose values are secret.
const SECRET_NAMES: [&str; 6] = ["secret", "password", "passphrase", "token", "_key", "connection_string"];

/// Names that end alike and are no secrets.
const OPEN_NAMES: [&str; 2] = ["alternate_key", "natural_key"];

/// `line` with secret values and the passwords of addresses masked. References (`${…}`) stay.
pub(crate) fn masked(line: &str) -> String {
    let line: Vec<char> = line.chars().collect();
    let mut shown = line.clone();
    for at in (0..line.len()).filter(|at| line[*at] == ':') {
        let range = match (line_char(&line, at + 1), line_char(&line, at + 2)) {
            ('/', '/') => password_after(&line, at + 3),
            _ if is_secret(&name_before(&line, at)) => value_after(&line, at + 1),
            _ => continue,
        };
        shown[range].fill('*');
    }
    shown.into_iter().collect()
}

fn line_char(line: &[char], at: usize) -> char {
    line.get(at).copied().unwrap_or('\n')
}

fn name_before(line: &[char], colon: usize) -> String {
    let is_part = |character: &&char| character.is_alphanumeric() || matches!(character, '_' | '"' | '\'');
    let name: Vec<char> = line[..colon].iter().rev().take_while(is_part).copied().collect();
    name.into_iter().rev().filter(|character| !matches!(character, '"' | '\'')).collect::<String>().to_lowercase()
}

fn is_secret(name: &str) -> bool {
    SECRET_NAMES.iter().any(|end| name.ends_with(end)) && !OPEN_NAMES.contains(&name)
}

/// The value behind a colon: to its closing quote, or to what ends a plain value.
fn value_after(line: &[char], from: usize) -> std::ops::Range<usize> {
    let start = (from..line.len()).find(|at| !line[*at].is_whitespace()).unwrap_or(line.len());
    let (start, ends): (usize, &[char]) = match line_char(line, start) {
        '"' => (start + 1, &['"']),
        '\'' => (start + 1, &['\'']),
        _ => (start, &[',', '}', ' ']),
    };
    let is_reference = line[start.min(line.len())..].starts_with(&['$', '{']);
    let end = (start..line.len()).find(|at| ends.contains(&line[*at])).unwrap_or(line.len());
    if is_reference { start..start } else { start..end.max(start) }
}

/// Of `user:password@host`, what follows the colon.
fn password_after(line: &[char], from: usize) -> std::ops::Range<usize> {
    let ends = |character: &char| matches!(character, '/' | ' ' | '"' | '\'' | ',');
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
            ("token_url: https://login/x", "token_url: https://login/x"),
            ("alternate_key: number", "alternate_key: number"),
            ("  match: [accountnumber]", "  match: [accountnumber]"),
            ("secret:", "secret:"),
            ("", ""),
        ] {
            assert_eq!(masked(line), shown);
        }
    }
}
